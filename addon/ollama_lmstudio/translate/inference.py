"""What the endpoints that ask a model share: finding it, what it can do, its life, the translator."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..lmstudio import errors as lm_errors
from ..lmstudio import resolve
from ..lmstudio.catalog import Catalog, Model
from ..lmstudio.resolve import Resolution
from ..ollama import errors, names
from ..ollama.durations import KeepAlive
from ..ollama.errors import OllamaError
from ..ollama.options import check_options
from ..ollama.quoting import escape
from ..ollama.requests import ChatRequest, GenerateRequest, Message
from ..outcomes import Call, CollectedCall, Request, StreamedCall
from ..services import Services
from ..state.aliases import Alias
from . import loading, mapping
from .stream import LineFormat, ResponseOptions, Timings, Translator

logger = logging.getLogger(__name__)

# Of what LM Studio has nothing for, so much is said in the log: for one request, and in all.
MENTIONED_AT_ONCE = 10
MENTIONED_AT_MOST = 200
SHOWN_CHARACTERS = 60

NotFound = Callable[[str], OllamaError]


@dataclass(frozen=True, slots=True)
class ResolvedModel(Resolution):
    """The model that a client means, and the alias that it called it by."""

    alias: Alias | None = None


def display_not_found(name: str) -> OllamaError:
    """Say that a model is not there, with the name that lists would show; `show` and `/v1/models/:model` do."""
    return errors.model_not_found(names.unchecked(name).display)


async def find_model(name: str, services: Services, not_found: NotFound = errors.model_not_found) -> ResolvedModel:
    """Find the model that a client means; an alias goes before LM Studio's own names.

    Raises OllamaError: 400 for a name that can be none, 403 for one of ollama.com's models, `not_found` for one that LM
    Studio does not have; LMStudioError when LM Studio cannot say.
    """
    if names.is_cloud(name):
        raise errors.cloud_disabled("remote model is unavailable")
    # A key of LM Studio's may hold an `@`, which Ollama's grammar has no place for.
    alias = services.aliases.get(names.parse_name(name).key) if "@" not in name else None
    if alias is not None:
        found = await services.catalog.exact(alias.target)
    else:
        base, _ = names.split_source(name)
        found = await services.catalog.resolve(base)
    if found is None:
        raise not_found(name)
    return ResolvedModel(found.model, found.id, alias)


def find_aliases(catalog: Catalog, services: Services) -> list[ResolvedModel]:
    """Give the aliases whose models LM Studio has."""
    found = ((resolve.exact(catalog, alias.target), alias) for alias in services.aliases.all().values())
    return [ResolvedModel(target.model, target.id, alias) for target, alias in found if target is not None]


def merge_options(found: ResolvedModel, options: Mapping[str, Any] | None, extras: Mapping[str, Any]) -> dict[str, Any]:
    """Check a request's options, and put them over the alias's parameters.

    A parameter also gives way to another option that becomes the same key of LM Studio's (`num_predict`, `max_tokens`),
    and to such a key beside the options (`extras`).
    """
    checked = check_options(options)
    given = {**checked.known, **checked.unknown}
    if found.alias is None:
        return given
    taken = {mapping.lmstudio_key(name) for name, value in given.items() if value is not None} | set(extras)
    defaults = {key: value for key, value in found.alias.parameters.items() if mapping.lmstudio_key(key) not in taken}
    return {**given, **defaults}


def alias_messages(alias: Alias | None) -> list[Message]:
    """Give the messages that an alias puts before a conversation."""
    if alias is None or not alias.messages:
        return []
    return ChatRequest.decode(mapping.dumps({"messages": alias.messages})).messages


def converse(found: ResolvedModel, messages: Sequence[Message], system: object) -> list[dict[str, Any]]:
    """Give a chat's messages for LM Studio.

    The alias's own come before the request's, but after its system messages, which models want first. The alias's
    system text stands in for one that neither the messages nor `system` give.
    """
    own = list(itertools.takewhile(lambda message: message.role == "system", messages))
    text = system or (found.alias.system if found.alias else "")
    if isinstance(text, str) and text and not any(message.role == "system" for message in messages):
        own = [Message("system", text)]
        rest = messages
    else:
        rest = messages[len(own) :]
    return mapping.messages_to_lmstudio([*own, *alias_messages(found.alias), *rest])


def canonical_name(name: str) -> str:
    """Give the full name that Ollama uses in some of its errors."""
    try:
        return names.parse_name(name).canonical
    except OllamaError:
        return name


def knows_thinking(services: Services) -> bool:
    """Whether this LM Studio tells which models think; versions before 0.4.8 do not."""
    catalog = services.catalog.last
    return catalog is not None and any(model.reasoning for model in catalog.models)


def thinks(model: Model, services: Services) -> bool | None:
    """Whether a model thinks; None where LM Studio does not say."""
    if model.reasoning is not None:
        return any(option != "off" for option in model.reasoning.allowed_options)
    return False if model.capabilities_known and knows_thinking(services) else None


def check_thinking(think: bool | str | None, name: str, model: Model, services: Services) -> None:
    """Refuse `think` for a model that cannot, as Ollama does."""
    if think and thinks(model, services) is False:
        raise errors.thinking_unsupported(name)


def log_unsupported(unsupported: Sequence[str], services: Services) -> None:
    """Name once in the log what LM Studio has nothing for: only so much of it, as clients make up names."""
    left = MENTIONED_AT_ONCE
    for name in map(_shown, unsupported[:MENTIONED_AT_MOST]):
        if not left or len(services.logged_once) >= MENTIONED_AT_MOST:
            return
        if name not in services.logged_once:
            services.logged_once.add(name)
            left -= 1
            logger.info("LM Studio has no %s: accepted, not sent (said once)", name)


def _shown(name: str) -> str:
    """Write a name that a client made up for a line of the log."""
    return escape(name if len(name) <= SHOWN_CHARACTERS else f"{name[:SHOWN_CHARACTERS]}...")


def ttl(keep_alive: KeepAlive | None) -> dict[str, int]:
    """Give a finite `keep_alive` as LM Studio's `ttl`, in whole seconds."""
    if keep_alive is None or keep_alive.forever or keep_alive.unload:
        return {}
    return {"ttl": math.ceil(keep_alive.seconds)}


def chat_body(
    found: Resolution,
    messages: list[dict[str, Any]],
    mapped: mapping.Mapped,
    *,
    response_format: Any = None,
    tools: Sequence[Mapping[str, Any]] = (),
    tool_choice: Any = None,
    think: bool | str | None = None,
    logprobs: bool = False,
    top_logprobs: int = 0,
    keep_alive: KeepAlive | None = None,
) -> dict[str, Any]:
    """Build the body for `/v1/chat/completions`: always a stream, always with usage."""
    body: dict[str, Any] = {
        "model": found.id,
        "messages": messages,
        "stream": True,
        "stream_options": {"include_usage": True},
        **mapped.body,
    }
    if tools:
        offered = mapping.tools_to_lmstudio(tools)
        if tool_choice is not None:
            body["tool_choice"], offered = mapping.tool_choice_to_lmstudio(tool_choice, offered)
        body["tools"] = offered
        # With a schema beside them the model writes what looks like the schema and calls no tool.
        if response_format is not None:
            mapped.unsupported.append("format together with tools")
    elif response_format is not None:
        body["response_format"] = mapping.format_to_lmstudio(response_format)
    effort = mapping.think_to_lmstudio(think, found.model)
    if effort is not None:
        body["reasoning_effort"] = effort
    if logprobs:
        body |= {"logprobs": True, "top_logprobs": top_logprobs} if top_logprobs else {"logprobs": True}
    return body | ttl(keep_alive)


def completion_body(
    found: Resolution, prompt: str, mapped: mapping.Mapped, keep_alive: KeepAlive | None
) -> dict[str, Any]:
    """Build the body for `/v1/completions`, which applies no template."""
    return {
        "model": found.id,
        "prompt": prompt,
        "stream": True,
        "stream_options": {"include_usage": True},
        **mapped.body,
        **ttl(keep_alive),
    }


def response_options(request: ChatRequest | GenerateRequest, body: Mapping[str, Any]) -> ResponseOptions:
    """Give what a client asked of the answer to the call with this body."""
    return ResponseOptions(
        streaming=request.stream,
        hide_thinking=request.think is False,
        expects_json="response_format" in body,
        logprobs=request.logprobs,
        top_logprobs=request.top_logprobs,
    )


def make_call(
    path: str,
    body: dict[str, Any],
    found: Resolution,
    name: str,
    incoming: Request,
    services: Services,
    shape: LineFormat,
    wanted: ResponseOptions,
    *,
    split_think: bool,
    context: Callable[[str], list[int]] | None = None,
    keep_alive: KeepAlive | None = None,
    unsupported: Sequence[str] = (),
) -> Call:
    """Make the call to LM Studio and the translator of its answer."""
    log_unsupported(unsupported, services)
    settings, clock = services.settings, services.clock
    now = clock.monotonic()
    translation = Translator(
        shape,
        name,
        wanted,
        Timings(arrived=incoming.arrived, forwarded=now, load=now - incoming.arrived),
        wall_offset=clock.wall() - now,
        max_event_size=settings.max_buffer_size,
        recover=settings.enable_chunk_recovery,
        split_think=split_think,
        context=context,
        scrub=lambda text: lm_errors.scrub(text, services.secrets),
    )
    make = StreamedCall if wanted.streaming else CollectedCall
    call = make(path, mapping.dumps(body), translation, model=found.id, asked=name, unsupported=tuple(unsupported))
    return use(call, found, keep_alive, services)


def use(call: Call, found: Resolution, keep_alive: KeepAlive | None, services: Services) -> Call:
    """Tie a call to the life of its model: it is in use until the call has ended."""

    async def reload() -> None:
        await loading.ensure_loaded(found, services)

    services.lifetimes.acquire(found.model, keep_alive)
    call.release = lambda: services.lifetimes.release(found.model)
    call.reload = reload
    return call
