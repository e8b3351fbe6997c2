"""The answers of the OpenAI-style routes, and of `/api/v0`, which are the same with statistics."""

from __future__ import annotations

from typing import Any

from .answer import Answer, Dialect
from .generate import Delta, ToolDelta
from .state import Instance
from .wire import DONE, JsonObject, data_frame, quote, stringify


class Chat(Dialect):
    """`/v1/chat/completions` and `/api/v0/chat/completions`."""

    id_prefix = "chatcmpl-"
    done = DONE

    def __init__(self, answer: Answer, *, v0: bool = False) -> None:
        super().__init__(answer, v0=v0)
        self._role = b'"role":"assistant",'
        self._thinking = False
        self._reasoning_field = answer.reasoning_field
        self._head = stringify(
            {
                "id": answer.id,
                "object": "chat.completion.chunk",
                "created": answer.created,
                "model": answer.instance.id,
                "system_fingerprint": answer.instance.id,
            }
        )[:-1]
        self._prefix = b"data: " + self._head + b',"choices":[{"index":0,"delta":{'
        self._suffix = b'},"logprobs":null,"finish_reason":null}]}\n\n'

    def frame(self, event: Delta | ToolDelta) -> bytes:
        """Return the frame of one token."""
        thinks = isinstance(event, Delta) and event.kind == "reasoning"
        tag = b""
        if self._reasoning_field is None and thinks != self._thinking:
            text = self.answer.think_tag if thinks else "</think>"
            tag = self._content(text) if text else b""
            self._thinking = thinks
        if isinstance(event, ToolDelta):
            return tag + self._delta(b'"tool_calls":[' + stringify(self._call_piece(event)) + b"]")
        if thinks and self._reasoning_field:
            return self._delta(b'"' + self._reasoning_field.encode() + b'":' + quote(event.text))
        return tag + self._content(event.text)

    def _content(self, text: str) -> bytes:
        if self.answer.prompt.top_logprobs is None:
            return self._delta(b'"content":' + quote(text))
        logprobs = stringify({"content": [self.answer.logprobs(text)]})
        return self._delta(b'"content":' + quote(text)).replace(b'"logprobs":null', b'"logprobs":' + logprobs, 1)

    def _delta(self, members: bytes) -> bytes:
        role, self._role = self._role, b""
        return self._prefix + role + members + self._suffix

    def _call_piece(self, event: ToolDelta) -> JsonObject:
        if event.name is not None:
            function = {"name": event.name, "arguments": event.arguments}
            return {"index": event.index, "id": event.id, "type": "function", "function": function}
        if event.id is not None or not self.answer.version.has("tool_name_once"):
            function = {"name": "", "arguments": event.arguments}
            named = {} if event.id is None else {"id": event.id}
            return {"index": event.index, **named, "type": "function", "function": function}
        return {"index": event.index, "function": {"arguments": event.arguments}}

    def closing(self) -> list[bytes]:
        """Return the frames that come after the last token: the finish chunk, and usage if asked for."""
        generation = self.answer.generation
        frames = [self._content("</think>")] if self._thinking else []
        if generation.ended_by_model:
            frames.append(self._delta(b'"content":""'))
        reason = generation.finish_reason
        if reason == "tool_calls" and not self.answer.version.has("tool_calls_finish"):
            reason = "stop"
        choice = b',"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"' + reason.encode() + b'"}]}'
        frames.append(data_frame(self._head + choice))
        return frames + usage_frames(self.answer, self._head)

    def reply(self) -> JsonObject:
        """Return the answer in one piece."""
        answer, generation = self.answer, self.answer.generation
        content, reasoning = "".join(answer.content), "".join(answer.reasoning)
        message: JsonObject = {"role": "assistant"}
        if self._reasoning_field:
            message |= {"content": content, self._reasoning_field: reasoning}
        else:
            message["content"] = f"{answer.think_tag}{reasoning}</think>{content}" if reasoning else content
        calls = [
            {"type": "function", "id": call_id, "function": {"name": name, "arguments": arguments}}
            for _, (call_id, name, arguments) in sorted(generation.calls.items())
        ]
        if calls or answer.version.has("tool_calls_always"):
            message["tool_calls"] = calls
        logprobs = None
        if answer.prompt.top_logprobs is not None:
            logprobs = {"content": [answer.logprobs(text) for text in answer.content]}
        return envelope(
            answer,
            "chat.completion",
            {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": generation.finish_reason},
            v0=self.v0,
        )


class Completion(Dialect):
    """`/v1/completions` and `/api/v0/completions`."""

    id_prefix = "cmpl-"
    done = DONE

    def __init__(self, answer: Answer, *, v0: bool = False) -> None:
        super().__init__(answer, v0=v0)
        self._thinking = False
        self._head = stringify(
            {
                "id": answer.id,
                "object": "text_completion",
                "created": answer.created,
                "model": answer.instance.id,
            }
        )[:-1]

    def frame(self, event: Delta | ToolDelta) -> bytes:
        """Return the frame of one token. There are no tools here."""
        return self._chunk(self._text(event) if isinstance(event, Delta) else "", b"null")

    def _text(self, event: Delta) -> str:
        """Return what an event adds to the text: reasoning has no field of its own here."""
        thinking, self._thinking = self._thinking, event.kind == "reasoning"
        if thinking == self._thinking:
            return event.text
        return ("</think>" if thinking else "<think>") + event.text

    def _chunk(self, text: str, finish_reason: bytes) -> bytes:
        choice = b',"choices":[{"index":0,"text":%b,"logprobs":null,"finish_reason":%b}]}' % (
            quote(text),
            finish_reason,
        )
        return data_frame(self._head + choice)

    def closing(self) -> list[bytes]:
        """Return the frames that come after the last token: the finish chunk, and usage if asked for."""
        reason = b'"' + self.answer.generation.finish_reason.encode() + b'"'
        return [self._chunk("", reason), *usage_frames(self.answer, self._head)]

    def reply(self) -> JsonObject:
        """Return the answer in one piece."""
        answer = self.answer
        reasoning = "".join(answer.reasoning)
        text = (f"<think>{reasoning}</think>" if reasoning else "") + "".join(answer.content)
        return envelope(
            answer,
            "text_completion",
            {"index": 0, "text": text, "logprobs": None, "finish_reason": answer.generation.finish_reason},
            v0=self.v0,
        )


def envelope(answer: Answer, kind: str, choice: JsonObject, *, v0: bool) -> JsonObject:
    """Wrap the one choice of a reply."""
    body = {
        "id": answer.id,
        "object": kind,
        "created": answer.created,
        "model": answer.instance.id,
        "choices": [choice],
        "usage": answer.usage,
    }
    if v0:
        return {**body, **answer.stats()}
    body["stats"] = {}
    if kind == "chat.completion":
        body["system_fingerprint"] = answer.instance.id
    return body


def usage_frames(answer: Answer, head: bytes) -> list[bytes]:
    """Return the chunk with the token counts, if the request asked for it."""
    options = answer.prompt.body.get("stream_options")
    wanted = isinstance(options, dict) and options.get("include_usage") is True
    if not wanted or not answer.version.has("stream_usage"):
        return []
    return [data_frame(head + b',"choices":[],"usage":' + stringify(answer.usage) + b"}")]


def embeddings(instance: Instance, vectors: list[list[float]]) -> JsonObject:
    """Return the answer of `/v1/embeddings`; LM Studio does not count its tokens."""
    data: list[Any] = [
        {"object": "embedding", "embedding": vector, "index": index} for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": 0, "total_tokens": 0}
    return {"object": "list", "data": data, "model": instance.id, "usage": usage}
