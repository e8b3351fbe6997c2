"""The first words of requests and answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from ollama_lmstudio.ollama.requests import ChatRequest, GenerateRequest, Message
from ollama_lmstudio.outcomes import FirstWords
from ollama_lmstudio.translate import first_words

TOOL: dict[str, Any] = {"type": "function", "function": {"name": "weather"}}
LONG = "word " * 1000
CUT = "word " * 15 + "wo..."


def user(text: str, images: int = 0) -> Message:
    """Return a message of the user."""
    return Message("user", text, images=[b"image"] * images)


OLLAMA: dict[str, tuple[ChatRequest | GenerateRequest, FirstWords]] = {
    "a chat": (ChatRequest(messages=[user("Why?")]), FirstWords("Why?")),
    "the last message": (
        ChatRequest(messages=[user("a"), Message("assistant", "b"), user("c")]),
        FirstWords("c"),
    ),
    "not the system text that follows": (ChatRequest(messages=[user("a"), Message("system", "b")]), FirstWords("a")),
    "a system text alone": (ChatRequest(messages=[Message("system", "b")]), FirstWords("b")),
    "one line": (ChatRequest(messages=[user(" Look\n\tat \x1b[31mthis\u202e ")]), FirstWords("Look at [31mthis")),
    "a long text": (ChatRequest(messages=[user(LONG)]), FirstWords(CUT)),
    "images": (ChatRequest(messages=[user("What?", 2)]), FirstWords("What?", "[2 images]")),
    "an image only": (ChatRequest(messages=[user("", 1)]), FirstWords("", "[1 image]")),
    "tools": (ChatRequest(messages=[user("a", 1)], tools=[TOOL]), FirstWords("a", "[1 image] [tools]")),
    "a tool's result": (
        ChatRequest(messages=[user("a"), Message("tool", "18 degrees")], tools=[TOOL]),
        FirstWords("<- 18 degrees", "[tools]"),
    ),
    "no message": (ChatRequest(), FirstWords()),
    "generate": (GenerateRequest(prompt="Why?", images=[b"a"]), FirstWords("Why?", "[1 image]")),
    "a raw prompt": (GenerateRequest(prompt="[INST] Why? [/INST]", raw=True), FirstWords("[INST] Why? [/INST]")),
    "a gap to fill in": (
        GenerateRequest(prompt="import os\n\ndef fib(n):\n    return ", suffix="\n"),
        FirstWords("return", "[fill in]"),
    ),
    "a gap at the beginning": (GenerateRequest(suffix="x"), FirstWords("", "[fill in]")),
}


@pytest.mark.parametrize(("request_", "shown"), OLLAMA.values(), ids=OLLAMA)
def test_requests_of_ollama(request_: ChatRequest | GenerateRequest, shown: FirstWords) -> None:
    assert first_words.of_request(request_) == shown


def text(value: str) -> dict[str, str]:
    """Return a content part of text."""
    return {"type": "text", "text": value}


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
PASSED: dict[str, tuple[Mapping[str, Any], FirstWords]] = {
    "a chat completion": ({"messages": [{"role": "user", "content": "Why?"}]}, FirstWords("Why?")),
    "content parts": (
        {"messages": [{"role": "user", "content": [text("What"), IMAGE, text("is this?")]}], "tools": [TOOL]},
        FirstWords("What is this?", "[1 image] [tools]"),
    ),
    "a tool's result": (
        {"messages": [{"role": "tool", "tool_call_id": "1", "content": "18 degrees"}]},
        FirstWords("<- 18 degrees"),
    ),
    "a tool's result of Anthropic's": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "tool_result", "content": [text("18"), text("degrees")]}]}
            ]
        },
        FirstWords("<- 18 degrees"),
    ),
    "a text completion": ({"prompt": "Once"}, FirstWords("Once")),
    "text completions": ({"prompt": ["Once", "Twice"]}, FirstWords("Twice")),
    "tokens": ({"prompt": [1, 2]}, FirstWords()),
    "a gap to fill in": ({"prompt": "a\nb", "suffix": "c"}, FirstWords("b", "[fill in]")),
    "a response": ({"input": "Why?"}, FirstWords("Why?")),
    "a response's messages": (
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "Why?"}, {"type": "input_image"}]}]},
        FirstWords("Why?", "[1 image]"),
    ),
    "a response's tool": (
        {"input": [{"role": "user", "content": "a"}, {"type": "function_call_output", "output": "18"}]},
        FirstWords("<- 18"),
    ),
    "LM Studio's own chat": (
        {"input": [{"type": "message", "content": "What is this?"}, {"type": "image", "data_url": "data:"}]},
        FirstWords("What is this?", "[1 image]"),
    ),
    "nothing": ({}, FirstWords()),
    "no message": ({"messages": []}, FirstWords()),
    "nonsense": ({"messages": [None, 1, {"role": 2, "content": {"a": 1}}]}, FirstWords()),
}


@pytest.mark.parametrize(("body", "shown"), PASSED.values(), ids=PASSED)
def test_requests_of_lmstudio(body: Mapping[str, Any], shown: FirstWords) -> None:
    assert first_words.of_members(body.get) == shown


def test_answers() -> None:
    assert first_words.of_answer([" Be", "cause\n", "of"], [], thought=False) == FirstWords("Because of")
    assert first_words.of_answer(["word "] * 1000, [], thought=True) == FirstWords(CUT, "[thinking]")
    assert first_words.of_answer(["Let me see"], ["weather", "time"], thought=False) == FirstWords(
        "-> weather(), time()"
    )
    assert first_words.of_answer([], "abcdefg", thought=False).text == "-> a(), b(), c(), d(), e(), ..."
    assert first_words.of_answer([], [], thought=False) == FirstWords()


def test_texts_to_embed() -> None:
    assert first_words.of_texts(["a", "b"]) == FirstWords("a")
    assert first_words.of_texts([]) == FirstWords()
