"""What lists of exchanges show of a request and its answer: the first words of both, and signs for what else they hold.

It is made once for each request, of values that have been parsed already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..ollama.requests import ChatRequest, GenerateRequest, Message
from ..outcomes import THINKING, FirstWords
from ..unicode import one_line
from ..units import plural

CHARACTERS = 80
"""What is kept of either side."""
RESULT = "<- "
"""Begins a prompt that is the result of a tool."""
CALLS = "-> "
"""Begins an answer that calls tools."""

_FILES = ("image", "image_url", "file", "document", "audio")
# Content parts within content parts, as of a `tool_result`, are read to this depth.
_MAX_DEPTH = 2
# Of an answer that calls many tools, so many are named.
_MAX_CALLS = 5
# More text than this is not joined for its first words: runs of white space shrink.
_ENOUGH = 4 * CHARACTERS


def of_request(request: ChatRequest | GenerateRequest) -> FirstWords:
    """Return what is shown of a request of Ollama's."""
    if isinstance(request, GenerateRequest):
        if request.suffix:
            # The beginning of a file is the same for each key that is pressed in it.
            return FirstWords(_last_line(request.prompt), "[fill in]")
        return FirstWords(one_line(request.prompt, CHARACTERS), _images(len(request.images)))
    last = _last(request.messages, lambda message: message.role)
    tools = "[tools]" if request.tools else ""
    if last is None:
        return FirstWords("", tools)
    return FirstWords(_said(last), _joined(_images(len(last.images)), tools))


def of_texts(texts: Sequence[str]) -> FirstWords:
    """Return what is shown of texts to embed."""
    return FirstWords(one_line(texts[0], CHARACTERS) if texts else "")


def of_members(get: Callable[[str], Any]) -> FirstWords:
    """Return what is shown of a request of any of LM Studio's own APIs; `get` returns a member of its body."""
    tools = "[tools]" if get("tools") else ""
    for name in ("messages", "input", "prompt"):
        given = get(name)
        if isinstance(given, str):
            if name == "prompt" and get("suffix"):
                return FirstWords(_last_line(given), "[fill in]")
            return FirstWords(one_line(given, CHARACTERS), tools)
        if isinstance(given, list):
            text, files, is_result = _read(_last_item(given))
            prompt = one_line(text, CHARACTERS)
            return FirstWords(f"{RESULT}{prompt}" if is_result else prompt, _joined(_images(files), tools))
    return FirstWords("", tools)


def of_answer(texts: Iterable[str], calls: Iterable[str], thought: bool) -> FirstWords:
    """Return what is shown of an answer: of its pieces of text, the names of the tools that it calls, its thoughts."""
    names = [f"{name}()" for name in calls]
    signs = THINKING if thought else ""
    if names:
        more = ", ..." if len(names) > _MAX_CALLS else ""
        return FirstWords(CALLS + one_line(", ".join(names[:_MAX_CALLS]) + more, CHARACTERS), signs)
    beginning = ""
    for text in texts:
        beginning += text
        if len(beginning) >= _ENOUGH:
            break
    return FirstWords(one_line(beginning, CHARACTERS), signs)


def _said(message: Message) -> str:
    text = one_line(message.content, CHARACTERS)
    return f"{RESULT}{text}" if message.role == "tool" else text


def _last(messages: Sequence[Any], role: Callable[[Any], object]) -> Any:
    """Return the last message; not a system text that follows it."""
    last = messages[-1] if messages else None
    return next((message for message in reversed(messages) if role(message) not in ("system", "developer")), last)


def _last_item(items: list[Any]) -> object:
    """Return the last message in a list of messages, or in one of content parts the message that they make."""
    last = _last(items, lambda item: item.get("role") if isinstance(item, dict) else None)
    if isinstance(last, dict) and not {"role", "output"} & last.keys():
        return {"content": [item for item in items if isinstance(item, dict) and "role" not in item]}
    return last


def _read(item: object, depth: int = 0) -> tuple[str, int, bool]:
    """Return the text of a message or of a content part, the number of its files, and whether it is a tool's result."""
    if isinstance(item, str):
        return item, 0, False
    if not isinstance(item, Mapping):
        return "", 0, False
    kind = str(item.get("type", ""))
    if kind.removeprefix("input_") in _FILES:
        return "", 1, False
    is_result = item.get("role") == "tool" or kind in ("tool_result", "function_call_output")
    content = next((item[key] for key in ("content", "text", "output") if key in item), "")
    if not isinstance(content, list) or depth == _MAX_DEPTH:
        return content if isinstance(content, str) else "", 0, is_result
    parts = [_read(part, depth + 1) for part in content]
    text = " ".join(text for text, _, _ in parts if text)
    return text, sum(files for _, files, _ in parts), is_result or any(result for _, _, result in parts)


def _last_line(text: str) -> str:
    lines = text[-_ENOUGH:].rstrip().rpartition("\n")
    return one_line(lines[2], CHARACTERS)


def _images(count: int) -> str:
    return f"[{count} {plural(count, 'image')}]" if count else ""


def _joined(*signs: str) -> str:
    return " ".join(filter(None, signs))
