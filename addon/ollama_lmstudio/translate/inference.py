"""What /api/chat and /api/generate share: the call to LM Studio, and the responses to requests without a prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..lmstudio.answer import ThinkTags
from ..lmstudio.errors import scrub
from ..ollama import times
from ..ollama.requests import ChatRequest, GenerateRequest
from ..outcomes import Call, CollectedCall, Request, Response, StreamedCall
from ..services import Services
from . import compact_json, first_words, loading
from .context_advice import with_advice
from .counts import count_prompt
from .line_format import LineFormat
from .metrics import Timings
from .models import ResolvedModel
from .options import MappedOptions, options_to_lmstudio
from .paths import CHAT_COMPLETIONS, COMPLETIONS
from .response_format import format_to_lmstudio
from .stream import ResponseOptions, Translator, TranslatorOptions
from .thinking import think_tags, think_to_lmstudio
from .tools import tool_choice_to_lmstudio, tools_to_lmstudio
from .unsupported import log_unsupported

MakeContext = Callable[[str], list[int]]
"""How generate's `context` is made of the text of the answer."""


@dataclass(frozen=True, slots=True)
class Inference:
    """A chat or generate request whose model has been found. `options` include an alias's parameters."""

    request: Request
    body: ChatRequest | GenerateRequest
    resolved: ResolvedModel
    options: Mapping[str, Any]
    line_format: LineFormat
    services: Services

    async def prepare(self) -> None:
        """Load the model, where LM Studio would not load it on demand, or not in the way asked for."""
        await loading.prepare(self.resolved, self.options, self.services)


def chat_call(
    inference: Inference,
    messages: list[dict[str, Any]],
    *,
    unsupported: Sequence[str] = (),
    context: MakeContext | None = None,
) -> Call:
    """Return the call to `/v1/chat/completions`. `unsupported` are names of what the endpoint has left out."""
    mapped = options_to_lmstudio(inference.options, inference.body.extras, CHAT_COMPLETIONS)
    mapped.unsupported += unsupported
    return make_call(inference, CHAT_COMPLETIONS, chat_body(inference, messages, mapped), mapped.unsupported, context)


def completion_call(
    inference: Inference, prompt: str, *, unsupported: Sequence[str] = (), context: MakeContext | None = None
) -> Call:
    """Return the call to `/v1/completions`. `unsupported` are names of what the endpoint has left out."""
    mapped = options_to_lmstudio(inference.options, inference.body.extras, COMPLETIONS)
    mapped.unsupported += unsupported
    return make_call(inference, COMPLETIONS, completion_body(inference, prompt, mapped), mapped.unsupported, context)


def chat_body(inference: Inference, messages: list[dict[str, Any]], mapped: MappedOptions) -> dict[str, Any]:
    """Return the body for `/v1/chat/completions`: always a stream, always with usage."""
    request, model = inference.body, inference.resolved.model
    body: dict[str, Any] = {
        "model": inference.resolved.id,
        "messages": messages,
        "stream": True,
        "stream_options": {"include_usage": True},
        **mapped.body,
    }
    schema = request.format if request.format is not None else inference.options.get("format")
    if isinstance(request, ChatRequest) and request.tools:
        tools: Sequence[Any] = tools_to_lmstudio(request.tools)
        tool_choice = request.extras.get("tool_choice")
        if tool_choice is not None:
            body["tool_choice"], tools = tool_choice_to_lmstudio(tool_choice, tools)
        body["tools"] = tools
        # With a schema the model writes what looks like it, and calls no tool.
        if schema is not None:
            mapped.unsupported.append("format together with tools")
    elif schema is not None:
        body["response_format"] = format_to_lmstudio(schema)
    effort = think_to_lmstudio(request.think, model)
    if effort is not None:
        body["reasoning_effort"] = effort
    if request.logprobs:
        body["logprobs"] = True
        if request.top_logprobs:
            body["top_logprobs"] = request.top_logprobs
    return body | loading.ttl(request.keep_alive)


def completion_body(inference: Inference, prompt: str, mapped: MappedOptions) -> dict[str, Any]:
    """Return the body for `/v1/completions`, which applies no template: always a stream, always with usage."""
    return {
        "model": inference.resolved.id,
        "prompt": prompt,
        "stream": True,
        "stream_options": {"include_usage": True},
        **mapped.body,
        **loading.ttl(inference.body.keep_alive),
    }


def make_call(
    inference: Inference,
    path: str,
    body: dict[str, Any],
    unsupported: Sequence[str] = (),
    context: MakeContext | None = None,
) -> Call:
    """Return the call with this body, its model acquired, and the translator of its answer."""
    log_unsupported(unsupported, inference.services)
    request, resolved = inference.body, inference.resolved
    sent = compact_json.dumps(body)
    translation = _translator(inference, path, "response_format" in body, context, partial(count_prompt, sent))
    make = StreamedCall if request.stream else CollectedCall
    call = make(
        path,
        sent,
        translation,
        model=resolved.id,
        asked=request.model,
        unsupported=tuple(unsupported),
        words=first_words.of_request(request),
    )
    return loading.acquire(call, resolved, request.keep_alive, inference.options, inference.services)


def _think_tags(inference: Inference, path: str) -> ThinkTags | None:
    """Return what is known of the tags in the answer's text: none are looked for in that of a raw prompt."""
    request, model = inference.body, inference.resolved.model
    if isinstance(request, GenerateRequest) and request.raw:
        return None
    return think_tags(
        model,
        inference.services,
        templated=path == CHAT_COMPLETIONS,
        streaming=request.stream,
        hidden=request.think is False,
    )


def _translator(
    inference: Inference, path: str, expects_json: bool, context: MakeContext | None, count: Callable[[], int]
) -> Translator:
    request, services = inference.body, inference.services
    settings, clock = services.settings, services.clock
    now, started_ns = clock.monotonic(), inference.request.started_ns
    response_options = ResponseOptions(
        streaming=request.stream,
        hide_thinking=request.think is False,
        expects_json=expects_json,
        logprobs=request.logprobs,
        top_logprobs=request.top_logprobs,
    )
    options = TranslatorOptions(
        wall_offset=clock.wall() - now,
        max_event_size=settings.max_buffer_size,
        recover=settings.enable_chunk_recovery,
        think_tags=_think_tags(inference, path),
        context=context,
        count_prompt=count,
        scrub=lambda text: with_advice(scrub(text, services.secrets), services),
    )
    timings = Timings(started_ns=started_ns, forwarded=now, load=now - started_ns)
    return Translator(inference.line_format, request.model, response_options, timings, options)


async def load_answer(inference: Inference) -> Response:
    """Load the model for a request without a prompt; return its response."""
    services = inference.services
    await loading.load(inference.resolved, inference.body.keep_alive, inference.options, services)
    return _answer_without_prompt(inference.line_format, inference.body.model, "load", services)


async def unload_answer(line_format: LineFormat, name: str, resolved: ResolvedModel, services: Services) -> Response:
    """Unload the model for a request without a prompt, like Ollama not while it is in use; return its response."""
    await services.lifetimes.unload_when_idle(resolved.model)
    return _answer_without_prompt(line_format, name, "unload", services)


def _answer_without_prompt(line_format: LineFormat, name: str, reason: str, services: Services) -> Response:
    created_at = times.rfc3339(services.clock.wall())
    return Response.json(
        line_format.build(name, created_at, content="", thinking="", tool_calls=[], done=True, done_reason=reason)
    )
