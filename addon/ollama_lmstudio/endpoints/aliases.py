"""`POST /api/create`, `POST /api/copy` and `DELETE /api/delete`: names of one's own for LM Studio's models.

LM Studio can neither import nor change a model through its server. What is made here is an alias: a name, and what is
added to the requests that use it.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from ..lmstudio.catalog import Catalog
from ..lmstudio.errors import LMStudioError, scrub
from ..ollama import chunks, errors, names, wire
from ..ollama.errors import OllamaError
from ..ollama.names import Name
from ..ollama.options import check_options
from ..ollama.requests import CopyRequest, CreateRequest, DeleteRequest, Message
from ..outcomes import NDJSON, PLAIN_JSON, Request, Response
from ..services import Services
from ..state import blobs
from ..state.aliases import Alias, StoreError
from ..translate.inference import ResolvedModel, find_model, log_unsupported
from ..translate.listing import digest, display_name

GGUF = ".gguf"
GGUF_MAGIC = b"GGUF"
SAFETENSORS = ".safetensors"
# What Ollama can quantize to, and from.
QUANTIZATIONS = ("F32", "F16", "Q4_K_S", "Q4_K_M", "Q8_0")
UNQUANTIZED = ("F32", "F16", "BF16")

INFO_NUMBERS = ("context_length", "embedding_length")

CANNOT_IMPORT = (
    "LM Studio cannot import model files through its server: put them into its models directory, "
    "or use `lms import`, and create from that model"
)

EMPTY = Response(200, b"", "")


async def create(incoming: Request, services: Services) -> Response:
    """Make an alias, or make one anew; what the request does not give stays as it is in the model it is made from."""
    request = await CreateRequest.read(incoming.body)
    name = _new_name(request.model, errors.invalid_model_name())
    _check_files(request.files)
    _check_files(request.adapters)
    told: list[str] = []
    try:
        found = await _source(request, services, told)
        alias = _made_from(found, request, services)
        await _store(alias, name, services)
    # These come when Ollama's stream has begun, which shows in their content type.
    except (OllamaError, LMStudioError, StoreError) as e:
        message = scrub(e.message, services.secrets)
        if told and request.stream:
            return _stream(told, {"error": message})
        return Response.error(e.status, message, content_type=PLAIN_JSON)
    log_unsupported([key for key in ("template", "adapters") if getattr(request, key)], services)
    told += [f"using existing layer sha256:{digest(found.model, services)}", "writing manifest", "success"]
    return _stream(told) if request.stream else Response.json(chunks.progress(told[-1]), content_type=PLAIN_JSON)


def _stream(told: list[str], *last: Mapping[str, str]) -> Response:
    return Response(200, b"".join(map(wire.line, (*map(chunks.progress, told), *last))), NDJSON)


async def copy(incoming: Request, services: Services) -> Response:
    """Give a model, or an alias and all that it adds, another name."""
    request = await CopyRequest.read(incoming.body)
    if "@" not in request.source:
        _parse(request.source, errors.invalid_source(request.source))
    name = _new_name(request.destination, errors.invalid_destination(request.destination))
    found = await find_model(request.source, services, errors.source_not_found)
    # Nothing is to be done for a copy onto itself, also under another form of the model's own name.
    own = found.alias.name if found.alias else display_name(found.model)
    if name.key != names.key_of(own):
        alias = found.alias or _bare(found, services)
        try:
            await _store(replace(alias, modified=services.clock.wall()), name, services)
        except StoreError as e:
            return Response.error(e.status, e.message)
    return EMPTY


async def delete(incoming: Request, services: Services) -> Response:
    """Delete an alias. LM Studio has no call that deletes a model."""
    name = (await DeleteRequest.read(incoming.body)).model
    if not name:
        raise errors.model_required()
    key = names.key_of(name)
    if key is None and "@" not in name:
        raise errors.invalid_name(name)
    if key is not None and services.aliases.get(key) is not None:
        try:
            removed = await asyncio.to_thread(services.aliases.change, lambda aliases: aliases.pop(key, None))
        except StoreError as e:
            return Response.error(e.status, e.message)
        if removed is not None:
            return EMPTY
    if names.is_cloud(name):
        raise errors.model_not_found(name)
    found = await find_model(name, services)
    raise OllamaError(
        400, f"LM Studio has no call that deletes a model: delete {found.model.key} in LM Studio itself, in My Models"
    )


def _parse(text: str, error: OllamaError) -> Name:
    try:
        return names.parse_name(text)
    except OllamaError:
        raise error from None


def _new_name(text: str, error: OllamaError) -> Name:
    """Parse a name for an alias. One that means ollama.com's models could never be used."""
    name = _parse(text, error)
    if names.is_cloud(name.display):
        raise error
    return name


def _check_files(files: Mapping[str, str] | None) -> None:
    for path, blob in (files or {}).items():
        parts = PurePosixPath(path).parts
        if not path or path.startswith("/") or ".." in parts or str(PurePosixPath(path)) != path:
            raise errors.relative_path_required()
        if blobs.parse_digest(blob) is None:
            raise errors.invalid_digest()


async def _source(request: CreateRequest, services: Services, told: list[str]) -> ResolvedModel:
    """Find what an alias is to be made from, checks in Ollama's order; `told` are the lines of its stream."""
    if request.from_:
        if "@" not in request.from_:
            _parse(request.from_, errors.invalid_model_name())
        if request.remote_host:
            raise errors.cloud_disabled("remote model is unavailable")
        found = await find_model(request.from_, services)
    elif request.files is not None:
        raise await _refuse_files(request.files, services, told)
    else:
        raise errors.no_from_or_files()
    if request.adapters and len(request.adapters) > 1:
        raise errors.one_adapter_only()
    for name in INFO_NUMBERS:
        value = (request.info or {}).get(name, 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise errors.info_number_required(name)
    if request.draft_files:
        raise OllamaError(400, CANNOT_IMPORT)
    if request.draft_quantize:
        raise errors.draft_quantize_without_draft()
    if request.quantize:
        raise _refuse_to_quantize(request.quantize.upper(), found)
    return found


async def _refuse_files(files: Mapping[str, str], services: Services, told: list[str]) -> OllamaError:
    """Say what is wrong with files, as far as Ollama would, and at last that LM Studio takes none."""
    directory = blobs.directory_in(services.settings.state_dir)
    begins = {path: await asyncio.to_thread(_begins, directory, blob) for path, blob in files.items()}
    suffixes = {PurePosixPath(path).suffix for path in files}
    if SAFETENSORS in suffixes:
        return OllamaError(400, CANNOT_IMPORT)
    if GGUF not in suffixes and GGUF_MAGIC not in begins.values():
        return errors.unknown_file_type()
    told.append("parsing GGUF")
    return OllamaError(400, CANNOT_IMPORT) if {GGUF_MAGIC, b""} & set(begins.values()) else errors.not_gguf()


def _begins(directory: Path, blob: str) -> bytes:
    """Give the first bytes of a blob; nothing if it is not there."""
    with suppress(OSError), blobs.blob_path(directory, blobs.parse_digest(blob) or "").open("rb") as file:
        return file.read(len(GGUF_MAGIC))
    return b""


def _refuse_to_quantize(wanted: str, found: ResolvedModel) -> OllamaError:
    if wanted not in QUANTIZATIONS:
        return errors.unsupported_quantization(wanted, ", ".join(QUANTIZATIONS))
    if (found.model.quantization or "").upper() not in UNQUANTIZED:
        return errors.already_quantized()
    return OllamaError(400, "LM Studio cannot quantize models: download the quantization and create from that")


def _bare(found: ResolvedModel, services: Services) -> Alias:
    """Make an alias that adds nothing to its model."""
    # The id of an instance means nothing once that is unloaded.
    lasting = Catalog((found.model,)).exact(found.id)
    now = services.clock.wall()
    return Alias("", lasting.id if lasting else found.model.key, now, now)


def _made_from(found: ResolvedModel, request: CreateRequest, services: Services) -> Alias:
    """Put what a request gives over what the source has, as Ollama does: licenses are added, the rest is replaced."""
    base = found.alias or _bare(found, services)
    parameters = check_options(request.parameters)
    given: dict[str, Any] = {
        "system": request.system,
        "template": request.template,
        "adapters": request.adapters,
        "messages": [_message(message) for message in request.messages],
    }
    return replace(
        base,
        modified=services.clock.wall(),
        parameters={**base.parameters, **parameters.known, **parameters.unknown},
        license=[*base.license, *_licenses(request.license)],
        **{key: value for key, value in given.items() if value},
    )


def _licenses(given: Any) -> list[str]:
    licenses = given if isinstance(given, list) else [given] if given is not None else []
    if not all(isinstance(text, str) for text in licenses):
        raise OllamaError(400, "license must be a string or a list of strings")
    return [text for text in licenses if text]


def _message(message: Message) -> dict[str, Any]:
    """Write a message as Ollama's API has it."""
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


async def _store(alias: Alias, name: Name, services: Services) -> None:
    """Write an alias under a name; one that is there already keeps its spelling and its date."""

    def edit(aliases: dict[str, Alias]) -> None:
        old = aliases.get(name.key)
        created = old.created if old else alias.modified
        aliases[name.key] = replace(alias, name=old.name if old else name.display, created=created)

    await asyncio.to_thread(services.aliases.change, edit)
