"""What the official library for Python makes of its answers. The last argument is the class: Client or AsyncClient."""

from __future__ import annotations

import asyncio
import inspect
import sys
import tempfile
from base64 import b64decode
from collections.abc import Callable, Iterator
from typing import Any

import ollama
import pydantic

URL, CLASS = sys.argv[2:]
client = getattr(ollama, CLASS)(URL)
loop = asyncio.new_event_loop()


def done(answer: Any) -> Any:
    """Give an answer; that of the asynchronous client is waited for."""
    return loop.run_until_complete(answer) if inspect.isawaitable(answer) else answer


def each(answer: Any) -> Iterator[Any]:
    """Give the parts of a stream of either client."""
    stream = done(answer)
    if not hasattr(stream, "__anext__"):
        yield from stream
        return
    while (part := loop.run_until_complete(anext(stream, None))) is not None:
        yield part


def plain(response: Any) -> Any:
    """Give what the library made of an answer, without what it left empty."""
    return response.model_dump(mode="json", exclude_none=True)


def user(text: str, **rest: Any) -> list[Any]:
    """Give a conversation of one message."""
    return [{"role": "user", "content": text, **rest}]


# What every client does


def chat_stream(model: str, text: str) -> Any:
    parts = list(each(client.chat(model, user(text), stream=True)))
    last = parts[-1]
    return {
        "parts": [part.message.content for part in parts],
        "finish": last.done_reason,
        "tokens": [last.prompt_eval_count, last.eval_count],
        "whole": [plain(part) for part in parts],
    }


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: The one number
        b: The other number
    """
    return a + b


def tools(model: str, text: str) -> Any:
    messages = user(text)
    asked = done(client.chat(model, messages, tools=[add])).message
    messages.append(asked)
    for call in asked.tool_calls:
        result = str(add(**call.function.arguments))
        messages.append({"role": "tool", "tool_name": call.function.name, "content": result})
    answered = done(client.chat(model, messages, tools=[add])).message
    return {"calls": [plain(call.function) for call in asked.tool_calls], "answer": answered.content}


class Country(pydantic.BaseModel):
    name: str
    capital: str
    languages: list[str]


def structured(model: str, text: str) -> Any:
    answer = done(client.chat(model, user(text), format=Country.model_json_schema()))
    return plain(Country.model_validate_json(answer.message.content))


def think(model: str, how: bool | str) -> Any:
    parts = [part.message for part in each(client.chat(model, user("hi"), think=how, stream=True))]
    return {
        "thinking": [part.thinking for part in parts if part.thinking],
        "parts": [part.content for part in parts if not part.thinking],
        "whole": [plain(part) for part in parts],
    }


def image(model: str, base64: str) -> Any:
    return done(client.chat(model, user("What is this?", images=[b64decode(base64)]))).message.content


def embed(model: str, texts: list[str]) -> Any:
    answer = done(client.embed(model, texts))
    return {"vectors": answer.embeddings, "tokens": answer.prompt_eval_count}


def models() -> Any:
    return [{"name": model.model, **plain(model)} for model in done(client.list()).models]


def show(model: str) -> Any:
    shown = done(client.show(model))
    return {"capabilities": shown.capabilities, "info": shown.modelinfo, "modelfile": shown.modelfile}


def failed(action: Callable[[], Any]) -> dict[str, Any]:
    """Give the error that an action ends with."""
    try:
        action()
    except ollama.ResponseError as e:
        return {"error": e.error, "status": e.status_code}
    return {}


def fail(model: str) -> Any:
    parts: list[str] = []

    def read() -> None:
        for part in each(client.chat(model, user("hi"), stream=True)):
            parts.append(part.message.content)  # noqa: PERF401 - what came before the error counts

    return {**failed(read), "parts": parts}


def leave(model: str) -> Any:
    if CLASS == "AsyncClient":
        return loop.run_until_complete(leave_async(model))
    stream = client.chat(model, user("hi"), stream=True)
    first = next(stream)
    stream.close()
    return first.message.content


async def leave_async(model: str) -> Any:
    """Leave as a server does whose own client has gone: by cancelling the task that reads."""
    first = loop.create_future()

    async def read() -> None:
        async for part in await client.chat(model, user("hi"), stream=True):
            if not first.done():
                first.set_result(part.message.content)

    task = loop.create_task(read())
    text = await first
    task.cancel()
    await asyncio.wait([task])
    return text


# What only Ollama's own libraries do


def chat(model: str, more: dict[str, Any]) -> Any:
    return plain(done(client.chat(model, user("hi"), **more)))


def fail_whole(model: str) -> Any:
    return failed(lambda: chat(model, {}))


def generate(model: str) -> Any:
    return plain(done(client.generate(model, "hi", system="Be brief")))


def generate_stream(model: str) -> Any:
    return [plain(part) for part in each(client.generate(model, "hi", stream=True))]


def generate_context(model: str) -> Any:
    first = done(client.generate(model, "I am Ada"))
    return plain(done(client.generate(model, "Who am I?", context=first.context)))


def embeddings(model: str) -> Any:
    return done(client.embeddings(model, "one")).embedding


def running(model: str) -> Any:
    done(client.generate(model, "hi", keep_alive="10m"))
    return [plain(instance) for instance in done(client.ps()).models]


def aliases(model: str) -> Any:
    created = [plain(part) for part in each(client.create("Ada", from_=model, system="You are Ada.", stream=True))]
    done(client.copy("ada", "lovelace"))
    return {
        "created": created,
        "described": show("lovelace"),
        "names": [model["name"] for model in models()],
        "answer": chat("lovelace", {}),
        "loaded": [model.model for model in done(client.ps()).models],
        "deleted": [done(client.delete(name)).status for name in ("ada", "lovelace")],
        "left": [model["name"] for model in models()],
        "again": failed(lambda: done(client.delete("ada"))),
    }


def blob(text: str) -> Any:
    with tempfile.NamedTemporaryFile() as file:
        file.write(text.encode())
        file.flush()
        return [done(client.create_blob(file.name)), done(client.create_blob(file.name))]


def pull(model: str) -> Any:
    return [plain(part) for part in each(client.pull(model, stream=True))]


def pull_whole(model: str) -> Any:
    return plain(done(client.pull(model)))


def push(model: str) -> Any:
    return [plain(part) for part in each(client.push(model, stream=True))]
