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

from ..lmstudio.errors import LMStudioError, scrub
from ..ollama import chunks, errors
from ..ollama.errors import OllamaError
from ..ollama.options import check_options
from ..ollama.requests import CreateRequest, Message
from ..outcomes import PLAIN_JSON, LocalStream, Request, Response
from ..services import Services
from ..state import blobs
from ..state.aliases import Alias, StoreError
from ..translate.aliases import alias_of, check_name, check_new_name, store_alias
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

CANNOT_IMPORT = (
    "LM Studio cannot import model files through its server: put them into its models directory, "
    "or use `lms import`, and create from that model"
)
CANNOT_QUANTIZE = "LM Studio cannot quantize models: download the quantization and create from that"


async def create(request: Request, services: Services) -> Response | LocalStream:
    """Make an alias, or replace one; what the request does not set is taken from the model it is made from."""
    body = await CreateRequest.read(request.body)
    name = check_new_name(body.model, errors.invalid_model_name())
    _check_files(body.files)
    _check_files(body.adapters)
    statuses: list[str] = []
    try:
        resolved = await _find_source(body, services, statuses)
        alias = _merged_alias(resolved, body, services)
        await store_alias(alias, name, services)
    # Ollama returns these from within its stream, which shows in their content type.
    except (OllamaError, LMStudioError, StoreError) as e:
        message = scrub(e.message, services.secrets)
        if statuses and body.stream:
            return _stream(statuses, {"error": message})
        return Response.error(e.status, message, content_type=PLAIN_JSON)
    log_unsupported([key for key in ("template", "adapters") if getattr(body, key)], services)
    statuses += [f"using existing layer sha256:{digest(resolved.model, services)}", "writing manifest", "success"]
    return _stream(statuses) if body.stream else Response.json(chunks.progress(statuses[-1]), content_type=PLAIN_JSON)


def _stream(statuses: list[str], *last: Mapping[str, str]) -> LocalStream:
    """Return the lines of what has been done, each to be sent alone: ollama-rs reads a chunk as one document."""

    async def lines() -> AsyncGenerator[Mapping[str, object], None]:
        for line in (*map(chunks.progress, statuses), *last):
            yield line

    return LocalStream(lines(), streaming=True)


def _check_files(files: Mapping[str, str] | None) -> None:
    for path, blob in (files or {}).items():
        parts = PurePosixPath(path).parts
        if not path or path.startswith("/") or ".." in parts or str(PurePosixPath(path)) != path:
            raise errors.relative_path_required()
        if blobs.parse_digest(blob) is None:
            raise errors.invalid_digest()


async def _find_source(body: CreateRequest, services: Services, statuses: list[str]) -> ResolvedModel:
    """Return the model that an alias is made from; checks come in Ollama's order.

    `statuses` are those of its stream: errors after the first are part of it.
    """
    if body.from_:
        if "@" not in body.from_:
            check_name(body.from_, errors.invalid_model_name())
        if body.remote_host:
            raise errors.cloud_disabled("remote model is unavailable")
        resolved = await find_model(body.from_, services)
    elif body.files is not None:
        raise await _refuse_files(body.files, services, statuses)
    else:
        raise errors.no_from_or_files()
    _check_changes(body, resolved)
    return resolved


def _check_changes(body: CreateRequest, resolved: ResolvedModel) -> None:
    """Raise Ollama's error for changes of the model that are invalid, else that LM Studio cannot make them."""
    if body.adapters and len(body.adapters) > 1:
        raise errors.one_adapter_only()
    for name in INFO_NUMBERS:
        value = (body.info or {}).get(name, 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise errors.info_number_required(name)
    if body.draft_files:
        raise _cannot_import()
    if body.draft_quantize:
        raise errors.draft_quantize_without_draft()
    if body.quantize:
        raise _refuse_to_quantize(body.quantize.upper(), resolved)


async def _refuse_files(files: Mapping[str, str], services: Services, statuses: list[str]) -> OllamaError:
    """Return the error for files: Ollama's where it has one, else that LM Studio takes none."""
    directory = blobs.directory_in(services.settings.state_dir)
    starts = {path: await asyncio.to_thread(_first_bytes, directory, blob) for path, blob in files.items()}
    suffixes = {PurePosixPath(path).suffix for path in files}
    if SAFETENSORS in suffixes:
        return _cannot_import()
    if GGUF not in suffixes and GGUF_MAGIC not in starts.values():
        return errors.unknown_file_type()
    statuses.append("parsing GGUF")
    return _cannot_import() if {GGUF_MAGIC, b""} & set(starts.values()) else errors.not_gguf()


def _first_bytes(directory: Path, blob: str) -> bytes:
    """Return the first bytes of a blob; none if it does not exist."""
    with suppress(OSError), blobs.blob_path(directory, blobs.parse_digest(blob) or "").open("rb") as file:
        return file.read(len(GGUF_MAGIC))
    return b""


def _refuse_to_quantize(quantization: str, resolved: ResolvedModel) -> OllamaError:
    if quantization not in QUANTIZATIONS:
        return errors.unsupported_quantization(quantization, ", ".join(QUANTIZATIONS))
    if (resolved.model.quantization or "").upper() not in UNQUANTIZED:
        return errors.already_quantized()
    return OllamaError(HTTPStatus.BAD_REQUEST, CANNOT_QUANTIZE)


def _cannot_import() -> OllamaError:
    return OllamaError(HTTPStatus.BAD_REQUEST, CANNOT_IMPORT)


def _merged_alias(resolved: ResolvedModel, body: CreateRequest, services: Services) -> Alias:
    """Return the source's alias with what the request sets. As in Ollama licenses are added, the rest is replaced."""
    base = alias_of(resolved, services)
    parameters = check_options(body.parameters)
    given: dict[str, Any] = {
        "system": body.system,
        "template": body.template,
        "adapters": body.adapters,
        "messages": [_message(message) for message in body.messages],
    }
    return replace(
        base,
        modified=services.clock.wall(),
        parameters={**base.parameters, **parameters.known, **parameters.unknown},
        license=[*base.license, *_licenses(body.license)],
        **{key: value for key, value in given.items() if value},
    )


def _licenses(given: Any) -> list[str]:
    licenses = given if isinstance(given, list) else [given] if given is not None else []
    if not all(isinstance(text, str) for text in licenses):
        raise OllamaError(HTTPStatus.BAD_REQUEST, "license must be a string or a list of strings")
    return [text for text in licenses if text]


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
