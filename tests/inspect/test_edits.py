"""What the user has edited, as a difference of lines."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.inspect.conftest import PNG, dumps, parts, record, snapshot

from ollama_lmstudio.inspect import edits, render, render_answer
from ollama_lmstudio.internals.interception import Bodies
from ollama_lmstudio.lmstudio.errors import MASK

LONG = "word " * 400
DIFFERENCES: dict[str, tuple[object, object, list[str]]] = {
    "a value": (
        {"model": "a", "stream": True, "think": False, "options": {}},
        {"model": "b", "stream": True, "think": False, "options": {}},
        ["  {", '-   "model": "a",', '+   "model": "b",', '    "stream": true,', '    "think": false,'],
    ),
    "a line of a text": (
        {"prompt": "one\ntwo\nthree\nfour\nfive"},
        {"prompt": "one\ntwo\n3\nfour\nfive"},
        ['    "prompt": "one\\n', "  two\\n", "- three\\n", "+ 3\\n", "  four\\n", '  five"'],
    ),
    "a backslash before an n is no line break": (
        {"a": "b\\nc"},
        {"a": "b"},
        ["  {", '-   "a": "b\\\\nc"', '+   "a": "b"', "  }"],
    ),
    "a line put in": ({"a": 1}, {"a": 1, "b": 2}, ["  {", '-   "a": 1', '+   "a": 1,', '+   "b": 2', "  }"]),
    "within a long line": (
        {"a": LONG + "old" + LONG},
        {"a": LONG + "new" + LONG},
        [
            "  {",
            f"- ...{LONG[-80:]}old{LONG[:80]}...",
            f"+ ...{LONG[-80:]}new{LONG[:80]}...",
            "  }",
        ],
    ),
    "two places": (
        {"a": 1, **{f"k{n}": n for n in range(9)}, "z": 1},
        {"a": 2, **{f"k{n}": n for n in range(9)}, "z": 2},
        [
            *("  {", '-   "a": 1,', '+   "a": 2,', '    "k0": 0,', '    "k1": 1,', "  ..."),
            *('    "k7": 7,', '    "k8": 8,', '-   "z": 1', '+   "z": 2', "  }"),
        ],
    ),
    "no JSON": (b"one\ntwo", b"one\n2", ["  one", "- two", "+ 2"]),
    "what became no JSON": ({"a": 1}, b"{", ["  {", '-   "a": 1', "- }"]),
    "an image": ({"a": PNG}, {"a": "b"}, ["  {", '-   "a": "[image/png, 70 bytes]"', '+   "a": "b"', "  }"]),
    "a password": (
        {"password": "x", "a": 1},
        {"password": "y", "a": 2},
        ['    "password": "***",', '-   "a": 1', '+   "a": 2', "  }"],
    ),
    "white space": (b'{"a":1}', b'{"a": 1}', []),
}


@pytest.mark.parametrize(("before", "after", "lines"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_differences(before: object, after: object, lines: list[str]) -> None:
    given_bodies = (body if isinstance(body, bytes) else dumps(body) for body in (before, after))
    shown = list(edits.difference(*given_bodies))
    assert [line for line in shown if "***" in line] == [line for line in lines if MASK in line]
    assert shown[-len(lines) :] == lines if lines else shown == []


def test_a_body_of_many_megabytes_is_compared_around_its_changes() -> None:
    said = [{"role": "user", "content": f"{'word ' * 80}{n}"} for n in range(30_000)]
    before = json.dumps({"model": "a", "messages": said, "stream": True}, separators=(",", ":")).encode()
    shown = list(edits.difference(before, before.replace(b"word 20000", b"word 2000x")))
    changed = [line for line in shown if line[0] in "-+"]
    assert [line[:2] + line[-11:] for line in changed] == ['- word 20000"', '+ word 2000x"']
    assert len(shown) < edits.MAX_LINES


def test_long_differences_are_bounded() -> None:
    before, after = ({"a": [f"{word}{n}" for n in range(20_000)]} for word in ("x", "y"))
    began = time.process_time()
    shown = parts(render.ollama_request(snapshot(record(after, edited_from=dumps(before)))))
    assert time.process_time() - began < 5
    assert shown["Edited by the user: the client's request"].count("\n") == edits.MAX_LINES - 1
    assert any("more lines of the difference are left out" in name for name in shown)


SENTENCE = "A line of a text that is not short.\n"
EARLIER = [{"role": "user", "content": f"message {n} {LONG}"} for n in range(200)]
LARGE: dict[str, tuple[object, object, list[str]]] = {
    "a word of a long text": (
        {"model": "m", "prompt": SENTENCE * 30_000 + "old\nend"},
        {"model": "m", "prompt": SENTENCE * 30_000 + "new\nend"},
        ["- old\\n", "+ new\\n"],
    ),
    "a message among others, and the model": (
        {"model": "a", "messages": [*EARLIER, {"role": "user", "content": "old"}, *EARLIER], "stream": True},
        {"model": "b", "messages": [*EARLIER, {"role": "user", "content": "new"}, *EARLIER], "stream": True},
        ['-   "model": "a",', '+   "model": "b",', '-       "content": "old"', '+       "content": "new"'],
    ),
    "a message put in": (
        {"messages": EARLIER},
        {"messages": [*EARLIER, "more"]},
        ["-     }", "+     },", '+     "more"'],
    ),
    "one of many fields": (
        {f"k{n}": n for n in range(20_000)},
        {f"k{n}": n for n in range(20_000)} | {"k19000": "new"},
        ['-   "k19000": 19000', '+   "k19000": "new"'],
    ),
    "an image": (
        {"images": [f"iVBORw0KGgo{'A' * 200_000}"]},
        {"images": [f"iVBORw0KGgo{'A' * 300_000}"]},
        ['-     "[image/png, 150.0 kB]"', '+     "[image/png, 225.0 kB]"'],
    ),
    "no JSON": (
        (SENTENCE * 3000 + '"prompt": "x"}').encode(),
        (SENTENCE * 3000 + '"prompt": "x"').encode(),
        ['- "prompt": "x"}', '+ "prompt": "x"'],
    ),
}


@pytest.mark.parametrize(("before", "after", "lines"), LARGE.values(), ids=LARGE)
def test_large_bodies_show_what_differs(before: object, after: object, lines: list[str]) -> None:
    bodies = [body if isinstance(body, bytes) else dumps(body) for body in (before, after)]
    shown = list(edits.difference(*bodies))
    assert [line for line in shown if line[:1] in "-+"] == lines
    assert len(shown) < 40


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"prompt": SENTENCE * 120_000 + "a"}, {"prompt": SENTENCE * 120_000 + "b"}),
        ({"prompt": "a\n" * 1_000_000}, {"prompt": "a\nb\n" * 500_000}),
        ({"context": [0] * 1_000_000}, {"context": [0, 1] * 500_000}),
        ({"a": [[n] * 9 for n in range(20_000)]}, {"a": [[n + 1] * 9 for n in range(20_000)]}),
        ({"images": ["A" * 4_000_000]}, {"images": ["B" * 4_000_000]}),
        ((SENTENCE * 120_000).encode(), (SENTENCE * 60_000 + "b" + SENTENCE * 60_000).encode()),
    ],
    ids=["a long text", "lines that are alike", "numbers", "lists", "images", "no JSON"],
)
def test_large_bodies_are_compared_at_once(before: object, after: object) -> None:
    """The event loop stands still as long."""
    bodies = [body if isinstance(body, bytes) else dumps(body) for body in (before, after)]
    began = time.process_time()
    list(edits.difference(*bodies))
    # Compared line by line, these take minutes.
    assert time.process_time() - began < 10


@given(st.binary(), st.binary())
def test_never_raises(before: bytes, after: bytes) -> None:
    for line in edits.difference(before, after):
        assert line[:2] in ("- ", "+ ", "  ")


QUESTION = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
EDITED = {"model": "m", "messages": [{"role": "user", "content": "edited"}]}
OLD, NEW = '-       "content": "hi"', '+       "content": "edited"'


def test_an_edited_request_shows_what_it_was() -> None:
    shown = parts(render.ollama_request(snapshot(record(EDITED, edited_from=dumps(QUESTION)))))
    assert list(shown)[1] == "Edited by the user: the client's request"
    lines = shown["Edited by the user: the client's request"].split("\n")
    assert [line for line in lines if line[0] in "+-"] == [OLD, NEW]
    assert not any(name.startswith("Edited") for name in parts(render.ollama_request(snapshot())))


def test_an_edited_call_shows_what_it_was() -> None:
    shown = parts(render.ollama_request(snapshot(record(QUESTION, call_edited_from=dumps(QUESTION)), call=EDITED)))
    assert OLD in shown["Edited by the user: what is sent to LM Studio"]
    assert NEW in shown["Edited by the user: what is sent to LM Studio"]


def test_an_edited_answer_shows_what_it_was() -> None:
    edited = snapshot(record(answer_edited_from=dumps({"a": 1})), response=dumps({"a": 2}))
    for view in (render.ollama_request, render_answer.ollama_response):
        assert parts(view(edited))["Edited by the user: the answer"] == '  {\n-   "a": 1\n+   "a": 2\n  }'


@pytest.mark.parametrize(
    ("kind", "path", "expected"),
    [
        ("", "/api/chat", "the client's request"),
        ("call", "/v1/chat/completions", "what is sent to LM Studio"),
        ("relay", "/v1/chat/completions", "what is sent to LM Studio"),
    ],
)
def test_an_edit_is_shown_before_the_flow_goes_on(kind: str, path: str, expected: str) -> None:
    asked = snapshot(record(QUESTION, kind=kind, numbers=None), call=EDITED, path=path, status=0, response=None)
    waits = replace(asked, backup=Bodies(path, dumps(QUESTION)))
    assert OLD in parts(render.ollama_request(waits))[f"Edited by the user: {expected}"]
    for other in (None, Bodies("/another", dumps(QUESTION)), Bodies(path, dumps(EDITED))):
        assert "Edited by" not in render.ollama_request(replace(asked, backup=other))


def test_what_a_record_keeps_of_an_edit() -> None:
    kept = record(kind="", limit=5)
    kept.keep_edited(Bodies("/", b"before it"), Bodies("/", b"after"))
    kept.kind = "call"
    kept.keep_edited(Bodies("/", b"a call"), Bodies("/", b"a call", b"first"))
    assert (kept.edited_from, kept.call_edited_from, kept.answer_edited_from) == (b"befor", b"", b"")
    kept.keep_edited(Bodies("/", b"a call", b"first"), Bodies("/", b"another", b"second"))
    kept.keep_edited(Bodies("/", b"another", b"second"), Bodies("/", b"third", b"third"))
    assert (kept.call_edited_from, kept.answer_edited_from) == (b"a cal", b"first")
