"""What LangChain's package for Ollama makes of its answers."""

from __future__ import annotations

import sys
from typing import Any

import ollama
import pydantic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_ollama import ChatOllama, OllamaEmbeddings

URL = sys.argv[2]


def chat(model: str, **settings: Any) -> Any:
    return ChatOllama(model=model, base_url=URL, **settings)


def chat_stream(model: str, text: str) -> Any:
    parts = list(chat(model).stream(text))
    whole = sum(parts[1:], parts[0])
    usage = whole.usage_metadata
    return {
        "parts": [part.content for part in parts],
        "finish": whole.response_metadata["done_reason"],
        "tokens": [usage["input_tokens"], usage["output_tokens"]],
    }


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def tools(model: str, text: str) -> Any:
    bound = chat(model).bind_tools([add])
    asked = bound.invoke(text)
    results = [
        ToolMessage(str(add(**call["args"])), tool_call_id=call["id"], name=call["name"]) for call in asked.tool_calls
    ]
    answered = bound.invoke([HumanMessage(text), asked, *results])
    calls = [{"name": call["name"], "arguments": call["args"]} for call in asked.tool_calls]
    return {"calls": calls, "answer": answered.content}


class Country(pydantic.BaseModel):
    name: str
    capital: str
    languages: list[str]


def structured(model: str, text: str) -> Any:
    return chat(model).with_structured_output(Country, method="json_schema").invoke(text).model_dump()


def think(model: str, how: bool | str) -> Any:
    parts = list(chat(model, reasoning=how).stream("hi"))
    thinking = [part.additional_kwargs.get("reasoning_content") for part in parts]
    return {
        "thinking": [text for text in thinking if text],
        "parts": [part.content for part, text in zip(parts, thinking, strict=True) if not text],
    }


def image(model: str, base64: str) -> Any:
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": f"data:image/png;base64,{base64}"},
    ]
    return chat(model).invoke([HumanMessage(parts)]).content


def embed(model: str, texts: list[str]) -> Any:
    return {"vectors": OllamaEmbeddings(model=model, base_url=URL).embed_documents(texts)}


def fail(model: str) -> Any:
    parts: list[str] = []
    try:
        for part in chat(model).stream("hi"):
            parts.append(part.content)  # noqa: PERF401 - what came before the error counts
    except ollama.ResponseError as e:
        return {"parts": parts, "error": e.error, "status": e.status_code}
    return {"parts": parts}


def leave(model: str) -> Any:
    stream = chat(model).stream("hi")
    first = next(stream)
    stream.close()
    return first.content
