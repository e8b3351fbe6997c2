"""What OpenAI's library makes of the answers of `/v1`."""

from __future__ import annotations

import sys
from typing import Any

import openai
import pydantic

client = openai.OpenAI(base_url=f"{sys.argv[2]}/v1", api_key="any")
completions = client.chat.completions


def user(text: Any) -> list[Any]:
    """Give a conversation of one message."""
    return [{"role": "user", "content": text}]


def text_of(chunk: Any) -> str:
    """Give what a chunk adds to the answer; the one with the counts has no choice."""
    return "".join(choice.delta.content or "" for choice in chunk.choices)


def chat_stream(model: str, text: str) -> Any:
    options = {"include_usage": True}
    chunks = list(completions.create(model=model, messages=user(text), stream=True, stream_options=options))
    usage = chunks[-1].usage
    return {
        "parts": [text_of(chunk) for chunk in chunks],
        "finish": next(reason for chunk in chunks for choice in chunk.choices if (reason := choice.finish_reason)),
        "tokens": [usage.prompt_tokens, usage.completion_tokens],
    }


class Add(pydantic.BaseModel):
    """Add two numbers."""

    a: int
    b: int


def tools(model: str, text: str) -> Any:
    functions = [openai.pydantic_function_tool(Add, name="add")]
    messages = user(text)
    with completions.stream(model=model, messages=messages, tools=functions) as stream:
        asked = stream.get_final_completion().choices[0].message
    messages.append(asked)
    made = [(call, call.function.parsed_arguments) for call in asked.tool_calls]
    for call, numbers in made:
        messages.append({"role": "tool", "tool_call_id": call.id, "content": str(numbers.a + numbers.b)})
    with completions.stream(model=model, messages=messages, tools=functions) as stream:
        answered = stream.get_final_completion().choices[0].message
    calls = [{"name": call.function.name, "arguments": numbers.model_dump()} for call, numbers in made]
    return {"calls": calls, "answer": answered.content}


class Country(pydantic.BaseModel):
    name: str
    capital: str
    languages: list[str]


def structured(model: str, text: str) -> Any:
    completion = completions.parse(model=model, messages=user(text), response_format=Country)
    return completion.choices[0].message.parsed.model_dump()


EFFORTS: dict[bool | str, Any] = {True: openai.omit, False: "none"}


def think(model: str, how: bool | str) -> Any:
    effort = EFFORTS.get(how, how)
    chunks = completions.create(model=model, messages=user("hi"), stream=True, reasoning_effort=effort)
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    # Two names of LM Studio's for one thing, neither of which the library knows.
    thinking = [delta.model_extra.get("reasoning_content") or delta.model_extra.get("reasoning") for delta in deltas]
    return {
        "thinking": [text for text in thinking if text],
        "parts": [delta.content or "" for delta, text in zip(deltas, thinking, strict=True) if not text],
    }


def image(model: str, base64: str) -> Any:
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64}"}},
    ]
    return completions.create(model=model, messages=user(parts)).choices[0].message.content


def embed(model: str, texts: list[str]) -> Any:
    return {"vectors": [entry.embedding for entry in client.embeddings.create(model=model, input=texts).data]}


def models() -> Any:
    return [{"name": model.id} for model in client.models.list()]


def retrieve(model: str) -> Any:
    return client.models.retrieve(model).model_dump()


def fail(model: str) -> Any:
    parts: list[str] = []
    try:
        for chunk in completions.create(model=model, messages=user("hi"), stream=True):
            parts.append(text_of(chunk))  # noqa: PERF401 - what came before the error counts
    except openai.APIError as e:
        # LM Studio's own error is a string, which is left out of the library's message.
        error = e.body["message"] if isinstance(e.body, dict) else e.body
        return {"parts": parts, "error": error, "status": getattr(e, "status_code", -1)}
    return {"parts": parts}


def leave(model: str) -> Any:
    stream = completions.create(model=model, messages=user("hi"), stream=True)
    first = next(stream)
    stream.close()
    return text_of(first)
