"""`POST /api/create`: an alias for one of LM Studio's models, with what it adds to the requests that use it.

LM Studio can neither import nor change a model through its server.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from ..lmstudio.errors import LMStudioError, scrub
from ..ollama import chunks, errors
from ..ollama.errors import OllamaError
from ..ollama.names import Name
from ..ollama.requests import CAPABILITIES, CreateRequest, Message
from ..ollama.templates import TemplateError, check_template
from ..outcomes import PLAIN_JSON, LocalStream, Request, Response
from ..services import Services
from ..state import blobs, unneeded
from ..state.aliases import Alias, StoreError
from ..threads import run_in_thread_if_large
from ..translate.aliases import alias_of, check_new_name, check_source, not_applied, store_alias
from ..translate.listing import digest
from ..translate.models import ResolvedModel, find_model
from ..translate.unsupported import log_unsupported

GGUF = ".gguf"
GGUF_MAGIC = b"GGUF"
SAFETENSORS = ".safetensors"
# The types that Ollama quantizes to, and those that it quantizes.
QUANTIZATIONS = ("F32", "F16", "Q4_K_S", "Q4_K_M", "Q8_0")
UNQUANTIZED = ("F32", "F16", "BF16")

# The keys of `info` whose values Ollama checks.
INFO_NUMBERS = ("context_length", "embedding_length")
# What Ollama says while it looks into a file.
PARSING = "parsing GGUF"

CANNOT_IMPORT = (
    "LM Studio cannot import model files through its server: put them into its models directory, "
    "or use `lms import`, and create from that model"
)
CANNOT_QUANTIZE = "LM Studio cannot quantize models: download the quantization and create from that"


async def create(request: Request, services: Services) -> Response | LocalStream:
    """Make an alias, or replace one; what the request does not set is taken from the model it is made from."""
    body = await CreateRequest.read(request.body)
    statuses: list[str] = []
    try:
        name = _check_request(body)
    except OllamaError:
        await _remove_files(body, services)
        raise
    try:
        resolved = await _find_source(body, services, statuses)
        alias = _merged_alias(resolved, body, services)
        await store_alias(alias, name, services)
    # Ollama returns these from within its stream, which shows in their content type.
    except (OllamaError, LMStudioError, StoreError) as e:
        # Neither LM Studio's absence nor a full disk will last, and the client may ask again.
        if isinstance(e, OllamaError):
            await _remove_files(body, services)
        message = scrub(e.message, services.secrets)
        if statuses and body.stream:
            return _stream(statuses, {"error": message})
        return Response.error(e.status, message, content_type=PLAIN_JSON)
    log_unsupported([key for key in ("template", "adapters", "renderer", "parser") if getattr(body, key)], services)
    statuses.append(f"using existing layer sha256:{digest(resolved.model, services)}")
    if kept := not_applied(alias, services):
        statuses.append(f"kept and shown, but not applied by LM Studio: {', '.join(kept)}")
    statuses += ["writing manifest", "success"]
    return _stream(statuses) if body.stream else Response.json(chunks.progress(statuses[-1]), content_type=PLAIN_JSON)


def _stream(statuses: list[str], *last: Mapping[str, str]) -> LocalStream:
    """Return the lines of what has been done, each to be sent alone: ollama-rs reads a chunk as one document."""

    async def lines() -> AsyncGenerator[Mapping[str, object], None]:
        for line in (*map(chunks.progress, statuses), *last):
            yield line

    return LocalStream(lines(), streaming=True)


async def _remove_files(body: CreateRequest, services: Services) -> None:
    """Remove the blobs that a refused request has uploaded files for, but for those that an alias needs."""
    given = (*(body.files or {}).values(), *(body.draft_files or {}).values(), *(body.adapters or {}).values())
    digests = {parsed for text in given if (parsed := blobs.parse_digest(text)) is not None}
    if digests:
        directory = blobs.directory_in(services.settings.state_dir.cache)
        await asyncio.to_thread(unneeded.remove, services.aliases, directory, digests)


def _check_request(body: CreateRequest) -> Name:
    """Return the name of the new model; raise the errors that Ollama returns before its stream, in its order."""
    for capability in body.capabilities:
        if capability not in CAPABILITIES:
            raise errors.unknown_capability(capability)
    _check_paths(body.files)
    _check_paths(body.draft_files)
    if body.draft_quantize and not body.draft_files:
        raise errors.draft_quantize_without_draft()
    if "" in (body.adapters or {}).values():
        raise errors.invalid_digest()
    return check_new_name(body.model, errors.invalid_model_name())


def _check_paths(files: Mapping[str, str] | None) -> None:
    for path, blob in (files or {}).items():
        parts = PurePosixPath(path).parts
        if not path or path.startswith("/") or ".." in parts or str(PurePosixPath(path)) != path:
            raise errors.relative_path_required()
        if not blob:
            raise errors.invalid_digest()


async def _find_source(body: CreateRequest, services: Services, statuses: list[str]) -> ResolvedModel:
    """Return the model that an alias is made from; checks come in Ollama's order.

    `statuses` are those of its stream: errors after the first are part of it.
    """
    if body.from_:
        await check_source(body.from_, errors.invalid_model_name(), services)
        if body.remote_host:
            raise (
                errors.cloud_disabled("remote model is unavailable")
                if _is_url(body.remote_host)
                else errors.bad_remote()
            )
        resolved = await find_model(body.from_, services)
    elif body.files is not None:
        await _check_files(body.files, services, statuses)
        raise _cannot_import()
    else:
        raise errors.no_from_or_files()
    if body.draft_files:
        raise _cannot_import()
    if body.adapters is not None:
        try:
            await _check_files(body.adapters, services, statuses, adapter=True)
        except OllamaError as e:
            # Ollama returns a 400 for every error of an adapter.
            raise OllamaError(HTTPStatus.BAD_REQUEST, e.message) from None
    _check_changes(body, resolved)
    try:
        await run_in_thread_if_large(len(body.template), check_template, body.template)
    except TemplateError as e:
        raise errors.bad_template(str(e)) from None
    return resolved


def _is_url(host: str) -> bool:
    """Return whether Ollama can parse a host as a URL."""
    try:
        _ = urlsplit(host if "://" in host else f"http://{host}").port
    except ValueError:
        return False
    return not any(character.isspace() for character in host)


def _check_changes(body: CreateRequest, resolved: ResolvedModel) -> None:
    """Raise Ollama's error for changes of the model that are invalid, else that LM Studio cannot make them."""
    for name in INFO_NUMBERS:
        value = (body.info or {}).get(name, 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise errors.info_number_required(name)
    if body.quantize:
        raise _refuse_to_quantize(body.quantize.upper(), resolved)


async def _check_files(
    files: Mapping[str, str], services: Services, statuses: list[str], *, adapter: bool = False
) -> None:
    """Raise Ollama's error for files that it cannot read; an adapter that it can read is kept."""
    directory = blobs.directory_in(services.settings.state_dir.cache)
    starts = {path: await asyncio.to_thread(_first_bytes, directory, blob) for path, blob in sorted(files.items())}
    suffixes = {PurePosixPath(path).suffix for path in files}
    if SAFETENSORS in suffixes:
        raise next((start for start in starts.values() if isinstance(start, OllamaError)), _cannot_import())
    if GGUF not in suffixes and GGUF_MAGIC not in starts.values():
        raise errors.unknown_file_type()
    if adapter and len(files) > 1:
        raise errors.one_adapter_only()
    statuses.append(PARSING)
    for start in starts.values():
        if isinstance(start, OllamaError):
            raise start
        if start != GGUF_MAGIC:
            raise errors.not_gguf()


def _first_bytes(directory: Path, blob: str) -> bytes | OllamaError:
    """Return the first bytes of a blob, or the error that there is none. Its day of rest begins anew."""
    digest = blobs.parse_digest(blob)
    if digest is None:
        return OllamaError(HTTPStatus.INTERNAL_SERVER_ERROR, errors.invalid_digest.template)
    path = blobs.blob_path(directory, digest)
    with suppress(OSError), path.open("rb") as file:
        blobs.touch(directory, digest)
        return file.read(len(GGUF_MAGIC))
    return errors.no_such_file(str(path))


def _refuse_to_quantize(quantization: str, resolved: ResolvedModel) -> OllamaError:
    if quantization not in QUANTIZATIONS:
        return errors.unsupported_quantization(quantization, ", ".join(QUANTIZATIONS))
    if (resolved.model.quantization or "").upper() not in UNQUANTIZED:
        return errors.already_quantized()
    return OllamaError(HTTPStatus.BAD_REQUEST, CANNOT_QUANTIZE)


def _cannot_import() -> OllamaError:
    return OllamaError(HTTPStatus.BAD_REQUEST, CANNOT_IMPORT)


def _merged_alias(resolved: ResolvedModel, body: CreateRequest, services: Services) -> Alias:
    """Return the source's alias with what the request sets.

    As in Ollama licenses and capabilities are added, the rest is replaced; parameters are checked when they are used.
    """
    base = alias_of(resolved, services)
    parameters = {name: value for name, value in (body.parameters or {}).items() if value is not None}
    given: dict[str, Any] = {
        "system": body.system,
        "template": body.template,
        "adapters": body.adapters,
        "messages": [_message(message) for message in body.messages],
        "renderer": body.renderer,
        "parser": body.parser,
        "requires": body.requires,
    }
    return replace(
        base,
        modified=services.clock.wall(),
        parameters={**base.parameters, **parameters},
        license=[*base.license, *_licenses(body.license)],
        capabilities=list(dict.fromkeys((*base.capabilities, *body.capabilities, *_info_capabilities(body)))),
        **{key: value for key, value in given.items() if value},
    )


def _info_capabilities(body: CreateRequest) -> list[str]:
    """Return the capabilities in `info`, where they were before they had a key of their own."""
    given = (body.info or {}).get("capabilities")
    return [name for name in given if isinstance(name, str)] if isinstance(given, list) else []


def _licenses(given: Any) -> list[str]:
    """Return the texts of a license. Raises OllamaError (500) for what Go cannot decode as a list of strings."""
    if given is None or given == "":
        return []
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list):
        raise errors.license_type(_go_kind(given), "[]string")
    for item in given:
        if item is not None and not isinstance(item, str):
            raise errors.license_type(_go_kind(item), "string")
    return [item for item in given if item]


def _go_kind(value: Any) -> str:
    """Return what encoding/json calls a JSON value."""
    match value:
        case bool():
            return "bool"
        case int() | float():
            return "number"
        case list():
            return "array"
    return "object"


def _message(message: Message) -> dict[str, Any]:
    """Return a message as Ollama's API has it."""
    calls = [chunks.tool_call(call.id, call.index, call.name, call.arguments) for call in message.tool_calls]
    optional = {
        "thinking": message.thinking,
        "images": [base64.b64encode(image).decode() for image in message.images],
        "tool_calls": calls,
        "tool_name": message.tool_name,
        "tool_call_id": message.tool_call_id,
    }
    present = {key: value for key, value in optional.items() if value}
    return {"role": message.role, "content": message.content} | present
