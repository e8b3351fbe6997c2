"""Do one thing with the official Ollama library for Python and print what came of it, as one line of JSON.

    python -IS python_ollama.py LIBRARY URL SCENARIO MODEL

LIBRARY is the folder that the library and what it needs are installed in, and the only one that is looked into: with
the addon's folder on the path, `import ollama` would find the addon. When the line is printed, the process and its
connections stay until its standard input ends.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import tempfile
from collections.abc import Callable
from typing import Any

LIBRARY, URL, SCENARIO, MODEL = sys.argv[1:]
sys.path.insert(0, LIBRARY)
ollama: Any = importlib.import_module("ollama")
pydantic: Any = importlib.import_module("pydantic")

client = ollama.Client(URL)

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c63f8cfc0f01f00050001ff56c72f0d0000000049454e44ae426082"
)


def user(text: str, **rest: Any) -> list[dict[str, Any]]:
    """Give a conversation of one message."""
    return [{"role": "user", "content": text, **rest}]


def plain(response: Any) -> Any:
    """Give what the library made of an answer, without what it left empty."""
    return response.model_dump(mode="json", exclude_none=True)


def chat() -> Any:
    return plain(client.chat(MODEL, user("hi"), options={"temperature": 0.5, "num_predict": 50}))


def chat_stream() -> Any:
    return [plain(part) for part in client.chat(MODEL, user("hi"), stream=True)]


def chat_async_stream() -> Any:
    async def parts() -> list[Any]:
        stream = await ollama.AsyncClient(URL).chat(MODEL, user("hi"), stream=True)
        return [plain(part) async for part in stream]

    return asyncio.run(parts())


def chat_leave() -> Any:
    stream = client.chat(MODEL, user("hi"), stream=True)
    first = next(stream)
    stream.close()
    return plain(first)


def chat_leave_async() -> Any:
    async def first() -> Any:
        stream = await ollama.AsyncClient(URL).chat(MODEL, user("hi"), stream=True)
        part = await anext(stream)
        await stream.aclose()
        return plain(part)

    return asyncio.run(first())


def chat_tools() -> Any:
    def add(a: int, b: int) -> int:
        """Add two numbers.

        Args:
            a: The one number
            b: The other number
        """
        return a + b

    messages: list[Any] = user("Add 7 and 7, please")
    asked = client.chat(MODEL, messages, tools=[add])
    messages.append(asked.message)
    for call in asked.message.tool_calls:
        result = add(**call.function.arguments)
        messages.append({"role": "tool", "tool_name": call.function.name, "content": str(result)})
    answered = client.chat(MODEL, messages, tools=[add])
    return [plain(asked.message), plain(answered.message)]


def chat_images() -> Any:
    return plain(client.chat(MODEL, user("What is this?", images=[PNG])).message)


def chat_format() -> Any:
    class Country(pydantic.BaseModel):  # type: ignore[misc]
        name: str
        capital: str
        languages: list[str]

    answer = client.chat(MODEL, user("Tell me about Canada"), format=Country.model_json_schema())
    return plain(Country.model_validate_json(answer.message.content))


def chat_think() -> Any:
    return plain(client.chat(MODEL, user("hi"), think=True).message)


def chat_think_high() -> Any:
    return plain(client.chat(MODEL, user("hi"), think="high").message)


def chat_think_not() -> Any:
    return plain(client.chat(MODEL, user("hi"), think=False).message)


def chat_think_stream() -> Any:
    return [plain(part.message) for part in client.chat(MODEL, user("hi"), think=True, stream=True)]


def chat_keep_alive_0() -> Any:
    return plain(client.chat(MODEL, user("hi"), keep_alive=0))


def chat_error() -> Any:
    return error_of(lambda: client.chat(MODEL, user("hi")))


def chat_stream_error() -> Any:
    parts = []

    def read() -> None:
        for part in client.chat(MODEL, user("hi"), stream=True):
            parts.append(part.message.content)  # noqa: PERF401 - what came before the error counts

    return {"parts": parts, **error_of(read)}


def error_of(action: Callable[[], Any]) -> dict[str, Any]:
    """Give the error that an action ends with."""
    try:
        action()
    except ollama.ResponseError as e:
        return {"error": e.error, "status": e.status_code}
    return {}


def generate() -> Any:
    return plain(client.generate(MODEL, "hi", system="Be brief"))


def generate_stream() -> Any:
    return [plain(part) for part in client.generate(MODEL, "hi", stream=True)]


def generate_context() -> Any:
    first = client.generate(MODEL, "I am Ada")
    return plain(client.generate(MODEL, "Who am I?", context=first.context))


def embed() -> Any:
    return plain(client.embed(MODEL, ["one", "two"]))


def embeddings() -> Any:
    return plain(client.embeddings(MODEL, "one"))


def list_models() -> Any:
    return plain(client.list())


def show() -> Any:
    return plain(client.show(MODEL))


def ps() -> Any:
    client.generate(MODEL, "hi", keep_alive="10m")
    return plain(client.ps())


def aliases() -> Any:
    created = [plain(part) for part in client.create("Ada", from_=MODEL, system="You are Ada.", stream=True)]
    client.copy("ada", "lovelace")
    described = plain(client.show("lovelace"))
    names = [model.model for model in client.list().models]
    answer = plain(client.chat("lovelace", user("hi")))
    loaded = [model.model for model in client.ps().models]
    deleted = [client.delete(name).status for name in ("ada", "lovelace")]
    return {
        "created": created,
        "described": described,
        "names": names,
        "answer": answer,
        "loaded": loaded,
        "deleted": deleted,
        "left": [model.model for model in client.list().models],
        "again": error_of(lambda: client.delete("ada")),
    }


def blob() -> Any:
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"hello")
        file.flush()
        return [client.create_blob(file.name), client.create_blob(file.name)]


def pull() -> Any:
    return [plain(part) for part in client.pull(MODEL, stream=True)]


def pull_whole() -> Any:
    return plain(client.pull(MODEL))


def push() -> Any:
    return [plain(part) for part in client.push(MODEL, stream=True)]


if __name__ == "__main__":
    print(json.dumps(globals()[SCENARIO]()), flush=True)
    sys.stdin.read()
