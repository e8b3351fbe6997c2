"""LM Studio's answers: reasoning tags, tool calls, repaired JSON, and one whole answer instead of a stream."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ollama_lmstudio.lmstudio import answer, repair
from ollama_lmstudio.lmstudio.answer import Content, End, Failure, Reasoning, ThinkSplitter, ThinkTags, ToolCall

THINK: dict[str, tuple[str, tuple[str, str]]] = {
    "thought and answer": ("<think>hm</think>\n\nHello", ("hm", "Hello")),
    "white space around": (" \n<think>\nhm\n</think>\n\n Hello ", ("hm\n", "Hello ")),
    "no thought": ("Hello <think>no</think>", ("", "Hello <think>no</think>")),
    "nearly the tag": ("<thin air", ("", "<thin air")),
    "only the beginning of the tag": (" <thi", ("", " <thi")),
    "empty thought": ("<think></think>x", ("", "x")),
    "never closed": ("<think>hm </thin", ("hm </thin", "")),
    "angle brackets in the thought": ("<think>a < b </ c</think>x", ("a < b </ c", "x")),
    "nothing": ("", ("", "")),
}


@pytest.mark.parametrize(("text", "expected"), THINK.values(), ids=THINK)
def test_think_splitter(text: str, expected: tuple[str, str]) -> None:
    for pieces in [[text], list(text), *([text[:i], text[i:]] for i in range(len(text)))]:
        splitter = ThinkSplitter()
        found = [splitter.feed(piece) for piece in pieces] + [splitter.flush()]
        assert ("".join(r for r, _ in found), "".join(c for _, c in found)) == expected


ALWAYS, DROP = ThinkTags(always=True), ThinkTags(drop_close=True)
TAGGED: dict[str, tuple[ThinkTags, str, tuple[str, str]]] = {
    "thoughts that nothing opened": (ALWAYS, "Okay, hi.\n</think>\n\nHello!", ("Okay, hi.", "Hello!")),
    "on one line": (ALWAYS, "Okay</think>Hello", ("Okay", "Hello")),
    "opened all the same": (ALWAYS, "\n<think>\nOkay\n</think>\n\nHello", ("Okay\n", "Hello")),
    "no thoughts": (ALWAYS, "\n</think>\nHello", ("", "Hello")),
    "a tag in the answer": (ALWAYS, "Okay</think>a </think> b", ("Okay", "a </think> b")),
    "never closed": (ALWAYS, " Hello </thin \n", ("Hello </thin \n", "")),
    "white space in the thoughts": (ALWAYS, "a \n b\n \n</think>c", ("a \n b", "c")),
    "an object": (ALWAYS, '\n{"a":"</think>"}', ("", '\n{"a":"</think>"}')),
    "a list": (ALWAYS, "[1]", ("", "[1]")),
    "a closing tag to be left out": (DROP, "Okay\n</think>\n\nHello </think>", ("", "Okay\nHello </think>")),
    "the last thing": (DROP, "Okay</think>\n", ("", "Okay")),
    "the first thing": (DROP, "</think>\n\nHello", ("", "Hello")),
    "opened in the text": (DROP, "a <think>b</think> c", ("", "a <think>b</think> c")),
    "nearly tags": (DROP, "a </thin <thi", ("", "a </thin <thi")),
    "a model that does not think": (
        ThinkTags(opening=False, drop_close=True),
        "Okay\n</think>\n\nHello",
        ("", "Okay\nHello"),
    ),
    "a tag of a model that does not think": (
        ThinkTags(opening=False, drop_close=True),
        "<think>hm</think>Hello",
        ("", "<think>hm</think>Hello"),
    ),
    "opened": (DROP, "<think>hm</think>\n\nHello", ("hm", "Hello")),
}


@pytest.mark.parametrize(("tags", "text", "expected"), TAGGED.values(), ids=TAGGED)
def test_a_text_whose_thoughts_may_not_be_opened(tags: ThinkTags, text: str, expected: tuple[str, str]) -> None:
    for pieces in [[text], list(text), *([text[:i], text[i:]] for i in range(len(text)))]:
        splitter = ThinkSplitter(tags)
        found = [splitter.feed(piece) for piece in pieces]
        assumed = splitter.is_assumed
        found.append(splitter.flush())
        assert ("".join(r for r, _ in found), "".join(c for _, c in found)) == expected
        assert assumed is (expected[1] == "")


@pytest.mark.parametrize("tags", [ALWAYS, DROP], ids=["always", "drop"])
def test_reasoning_that_comes_separately_is_all_there_is(tags: ThinkTags) -> None:
    splitter = ThinkSplitter(tags)
    splitter.reasoning_is_separate()
    assert splitter.feed("The </think> tag") == ("", "The </think> tag")


@pytest.mark.parametrize(
    ("text", "likely", "begins"),
    [
        ("Okay\n</think>\n\nHello", False, True),
        ("Okay</think>\nHello", False, True),
        ("Okay\n</think>Hello", False, True),
        ("Okay</think>Hello", False, False),
        ("Okay</think>Hello", True, True),
        ("<think>Okay</think>\nHello", True, False),
        ("Write <think> and\n</think>\n", True, False),
        ('{"a":"\n</think>\n"}', True, False),
        ("Hello", True, False),
    ],
)
def test_whether_a_whole_text_begins_in_thoughts(text: str, likely: bool, begins: bool) -> None:
    tags = ThinkTags(likely=likely)
    assert tags.begin_in_thoughts(text) is begins
    parts = answer.read_whole({"choices": [{"message": {"content": text}}]}, think_tags=tags)
    starts_with_tag = text.startswith("<think>")
    assert isinstance(parts[0], Reasoning) is (begins or starts_with_tag)
    if begins:
        thinking, said = answer.split_thoughts(text)
        assert (thinking, said.strip()) == ("Okay", "Hello")
        assert parts[:2] == [Reasoning("Okay"), Content("Hello")]


def fragment(
    index: int | None = 0, call_id: str | None = None, name: str | None = None, arguments: Any = None
) -> dict[str, Any]:
    function = {k: v for k, v in (("name", name), ("arguments", arguments)) if v is not None}
    given = {"index": index, "id": call_id, "function": function}
    return {k: v for k, v in given.items() if v is not None}


ARGS = {"city": "Rome"}
CALLS: dict[str, tuple[list[list[dict[str, Any]]], list[ToolCall]]] = {
    "fragmented": (
        [[fragment(0, "1", "f", "")], [fragment(0, None, None, '{"ci')], [fragment(0, None, None, 'ty":"Rome"}')]],
        [ToolCall("1", "f", ARGS)],
    ),
    "whole": ([[fragment(0, "1", "f", '{"city":"Rome"}')]], [ToolCall("1", "f", ARGS)]),
    "arguments as an object": ([[fragment(0, "1", "f", ARGS)]], [ToolCall("1", "f", ARGS)]),
    "encoded twice": ([[fragment(0, "1", "f", json.dumps(json.dumps(ARGS)))]], [ToolCall("1", "f", ARGS)]),
    "no arguments": ([[fragment(0, "1", "f")]], [ToolCall("1", "f", {})]),
    "null arguments": ([[fragment(0, "1", "f", "null")]], [ToolCall("1", "f", {})]),
    "parallel, interleaved": (
        [
            [fragment(0, "1", "f", ""), fragment(1, "2", "g", "")],
            [fragment(1, None, None, "{}"), fragment(0, None, None, '{"a":')],
            [fragment(0, None, None, "1}")],
        ],
        [ToolCall("1", "f", {"a": 1}), ToolCall("2", "g", {})],
    ),
    "parallel at one index with ids": (
        [[fragment(0, "1", "f", "{}")], [fragment(0, "2", "g", "{}")]],
        [ToolCall("1", "f", {}), ToolCall("2", "g", {})],
    ),
    "parallel at one index without ids": (
        [[fragment(0, None, "f", '{"a":1}')], [fragment(0, None, "f", '{"a":2}')]],
        [ToolCall("", "f", {"a": 1}), ToolCall("", "f", {"a": 2})],
    ),
    "empty names in later fragments": (
        [[fragment(0, "1", "f", "")], [fragment(0, None, "", '{"a"')], [fragment(0, None, "", ":1}")]],
        [ToolCall("1", "f", {"a": 1})],
    ),
    "a new id and no name each": (
        [[fragment(0, "1", "f", '{"a"')], [fragment(0, "2", "", ":1")], [fragment(0, "3", "", "}")]],
        [ToolCall("1", "f", {"a": 1})],
    ),
    "the name again in each": (
        [[fragment(0, "1", "f", '{"a"')], [fragment(0, "1", "f", ":1}")]],
        [ToolCall("1", "f", {"a": 1})],
    ),
    "no index": (
        [[fragment(None, "1", "f", '{"a"')], [fragment(None, None, None, ":1}")]],
        [ToolCall("1", "f", {"a": 1})],
    ),
    "empty id": ([[fragment(0, "", "f", "{}")]], [ToolCall("", "f", {})]),
    "an empty entry": ([[{"index": 0, "id": "", "type": "function"}]], []),
    "an empty entry of empty texts": ([[fragment(0, "1", "", "")]], []),
    "an empty entry of nulls": ([[{"index": 0, "function": {"name": None, "arguments": None}}]], []),
    "an empty entry before a call": (
        [[fragment(0, "0")], [fragment(1, "1", "f", "{}")]],
        [ToolCall("1", "f", {})],
    ),
    "an empty entry after a call": ([[fragment(0, "1", "f", "{}")], [fragment(None, "")]], [ToolCall("1", "f", {})]),
    "an id before the name": ([[fragment(0, "1")], [fragment(0, None, "f", "{}")]], [ToolCall("1", "f", {})]),
}


@pytest.mark.parametrize(("fragments", "calls"), CALLS.values(), ids=CALLS)
def test_tool_calls_are_put_together(fragments: list[list[dict[str, Any]]], calls: list[ToolCall]) -> None:
    assembler = answer.ToolCallAssembler()
    for each in fragments:
        assembler.feed(each)
    assert assembler.finish() == calls
    assert not assembler


@pytest.mark.parametrize(
    ("fragments", "message"),
    [
        ([fragment(0, "1", "f", '{"a":')], "arguments that are not JSON"),
        ([fragment(0, "1", "f", "[1]")], "arguments that are not an object"),
        ([fragment(0, "1", None, "{}")], "without a name"),
    ],
)
def test_broken_tool_calls_are_errors(fragments: list[dict[str, Any]], message: str) -> None:
    assembler = answer.ToolCallAssembler()
    assembler.feed(fragments)
    with pytest.raises(ValueError, match=message):
        assembler.finish()


@pytest.mark.parametrize("junk", [None, "x", [None], [{"function": None}], [{"function": {"name": 1}}]])
def test_junk_for_tool_calls_does_not_raise(junk: object) -> None:
    answer.ToolCallAssembler().feed(junk)


CUT: dict[str, tuple[list[list[dict[str, Any]]], list[ToolCall]]] = {
    "in its arguments": ([[fragment(0, "1", "f", '{"a":"lorem ips')]], []),
    "before its arguments": ([[fragment(0, "1", "f", "")]], []),
    "in its name": ([[fragment(0, "1", "", '{"a')]], []),
    "after a whole one": (
        [[fragment(0, "1", "f", '{"a":1}')], [fragment(1, "2", "g", '{"b"')]],
        [ToolCall("1", "f", {"a": 1})],
    ),
    "after one without arguments": (
        [[fragment(0, "1", "f", "")], [fragment(1, "2", "g", "")]],
        [ToolCall("1", "f", {})],
    ),
    "after it was whole": ([[fragment(0, "1", "f", '{"a":1}')]], [ToolCall("1", "f", {"a": 1})]),
    "nothing but an empty entry": ([[fragment(0, "1")]], []),
}


@pytest.mark.parametrize(("fragments", "calls"), CUT.values(), ids=CUT)
def test_of_tool_calls_that_were_cut_the_whole_ones_stay(
    fragments: list[list[dict[str, Any]]], calls: list[ToolCall]
) -> None:
    assembler = answer.ToolCallAssembler()
    for each in fragments:
        assembler.feed(each)
    assert assembler.finish_cut() == calls
    assert not assembler


def whole(message: dict[str, Any], finish: str | None = "stop", **rest: Any) -> list[answer.Part]:
    return answer.read_whole({"choices": [{"index": 0, "message": message, "finish_reason": finish}], **rest})


def test_a_whole_answer() -> None:
    usage, stats = {"completion_tokens": 3}, {"tokens_per_second": 5}
    call = {"type": "function", "id": "1", "function": {"name": "f", "arguments": "{}"}}
    assert whole(
        {"role": "assistant", "content": "Hi", "reasoning_content": "hm", "tool_calls": [call, {**call, "id": "2"}]},
        "tool_calls",
        usage=usage,
        stats=stats,
    ) == [
        Reasoning("hm"),
        Content("Hi"),
        ToolCall("1", "f", {}),
        ToolCall("2", "f", {}),
        End("tool_calls", usage, stats),
    ]


def test_a_whole_completion() -> None:
    assert answer.read_whole({"choices": [{"text": "Hi", "finish_reason": "length"}]}) == [
        Content("Hi"),
        End("length", {}, {}),
    ]


def test_a_whole_answer_without_choices_is_an_error() -> None:
    (failure,) = answer.read_whole({"choices": []})
    assert isinstance(failure, Failure)
    assert failure.error.status == 502


def test_a_whole_answer_with_a_broken_call_is_an_error() -> None:
    parts = whole({"content": "", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]})
    assert [type(part) for part in parts] == [Failure]


def test_a_whole_answer_with_an_empty_entry() -> None:
    parts = whole({"content": "I've created it", "tool_calls": [{"id": "", "type": "function"}]})
    assert parts == [Content("I've created it"), End("stop", {}, {})]


def test_a_whole_answer_whose_call_was_cut() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"path":"a'}}
    parts = whole({"content": "I will", "tool_calls": [call]}, "length")
    assert parts == [Content("I will"), End("length", {}, {})]


@pytest.mark.parametrize(
    ("broken", "value"),
    [
        ('{"a":1', {"a": 1}),
        ('{"a":[1,{"b":"x', {"a": [1, {"b": "x"}]}),
        ('{"a":1,}', {"a": 1}),
        ('{"a":[1,2,],}', {"a": [1, 2]}),
        ('noise {"a":1} noise', {"a": 1}),
        ('{"a":"x\ny"}', {"a": "x\ny"}),
        ('{"a":"x\\', {"a": "x"}),
        ("", None),
        ("[1]", None),
        ('{"a" 1}', None),
        ("{" * 100_000, None),
    ],
)
def test_repair(broken: str, value: object) -> None:
    assert repair.loads(broken) == value
