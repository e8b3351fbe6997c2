from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_lmstudio.sim import content, end, gpt_oss, reasoning, tool_call, words
from ollama_lmstudio.sim.generate import (
    Delta,
    Event,
    Generation,
    Prompt,
    Step,
    ToolDelta,
    count_tokens,
    default_answer,
    embedding,
    example,
    fitting_tool,
    fixed_answer,
    subject,
    tokenize,
)
from ollama_lmstudio.sim.models import SimModel, embedder

PLAIN = SimModel("plain")


def generate(*steps: Step, room: int | None = None, **limits: Any) -> tuple[list[Event], Generation]:
    ids = iter(str(number) for number in range(100))
    generation = Generation(steps, Prompt({}, **limits), new_call_id=lambda: next(ids), room=room)
    return list(generation), generation


def text_of(events: Iterable[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


def test_each_text_is_a_token() -> None:
    events, generation = generate(reasoning("Hm"), content("a", "b"), content(""))
    assert events == [Delta("reasoning", "Hm"), Delta("content", "a"), Delta("content", "b"), Delta("content", "")]
    assert (generation.completion_tokens, generation.reasoning_tokens) == (4, 1)
    assert (generation.finish_reason, generation.stop_reason) == ("stop", "eosFound")
    assert generation.ended_by_model


@pytest.mark.parametrize(
    ("limits", "reason"),
    [({"max_tokens": 2}, "maxPredictedTokensReached"), ({"room": 2}, "contextLengthReached")],
)
def test_limits_cut(limits: dict[str, int], reason: str) -> None:
    events, generation = generate(reasoning("x"), content("a", "b", "c"), **limits)
    assert text_of(events) == "xa"
    assert (generation.finish_reason, generation.stop_reason) == ("length", reason)
    assert not generation.ended_by_model


@pytest.mark.parametrize("limit", [None, -1, 3])
def test_limits_that_do_not_cut(limit: int | None) -> None:
    _, generation = generate(content("a", "b", "c"), max_tokens=limit)
    assert generation.finish_reason == "stop"


@pytest.mark.parametrize(
    ("tokens", "stop", "text"),
    [
        (["a", "END", "b"], ("END",), "a"),
        (["a E", "N", "D b"], ("END",), "a "),
        (["a E", "N", "x"], ("END",), "a ENx"),
        (["EE", "ND"], ("END",), "E"),
        (["a E", "N"], ("END",), "a EN"),
        (["one two three"], ("three", "two"), "one "),
        (["abc"], ("abcd",), "abc"),
    ],
)
def test_stop_strings_are_never_said(tokens: list[str], stop: tuple[str, ...], text: str) -> None:
    events, generation = generate(content(*tokens), stop=stop)
    assert text_of(events) == text
    found = any(string in "".join(tokens) for string in stop)
    assert generation.stop_reason == ("stopStringFound" if found else "eosFound")
    assert generation.finish_reason == "stop"


@given(st.lists(st.text("abE ND", max_size=4), max_size=8), st.sampled_from(["END", "EE", "a"]))
def test_stop_strings_cut_where_they_begin(tokens: list[str], stop: str) -> None:
    events, _ = generate(content(*tokens), stop=(stop,))
    assert text_of(events) == "".join(tokens).partition(stop)[0]


def test_stop_strings_do_not_look_at_reasoning() -> None:
    events, _ = generate(reasoning("END"), content("a"), stop=("END",))
    assert text_of(events) == "ENDa"


def test_tool_calls_come_in_fragments() -> None:
    events, generation = generate(tool_call("f", {"city": "Köln"}, fragments=['{"ci', 'ty":"Köln"}']))
    assert events == [
        ToolDelta(0, "0", "f", ""),
        ToolDelta(0, None, None, '{"ci'),
        ToolDelta(0, None, None, 'ty":"Köln"}'),
    ]
    assert generation.calls == {0: ["0", "f", '{"city":"Köln"}']}
    assert generation.finish_reason == "tool_calls"


def test_tool_calls_in_one_piece() -> None:
    events, generation = generate(tool_call("f", "{}", id="", whole=True))
    assert events == [ToolDelta(0, "", "f", "{}")]
    assert generation.finish_reason == "tool_calls"


def test_parallel_tool_calls_can_be_interleaved() -> None:
    events, generation = generate(
        tool_call("f", '{"a"', fragments=1, index=0),
        tool_call("g", '{"b"', fragments=1, index=1),
        tool_call("f", ":1}", fragments=1, index=0),
        tool_call("g", ":2}", fragments=1, index=1),
    )
    assert [event.index for event in events if isinstance(event, ToolDelta)] == [0, 0, 1, 1, 0, 1]
    assert [call[1:] for call in generation.calls.values()] == [["f", '{"a":1}'], ["g", '{"b":2}']]


def test_an_id_for_each_fragment() -> None:
    events, _ = generate(tool_call("f", {"a": 1}, fragments=2, id_per_fragment=True))
    ids = [event.id for event in events if isinstance(event, ToolDelta)]
    assert len(ids) == len(set(ids)) == 3


def test_the_finish_reason_can_be_chosen() -> None:
    events, generation = generate(content("a"), end("length"), content("b"))
    assert (text_of(events), generation.finish_reason) == ("a", "length")


@given(st.text())
def test_tokens_are_the_text(text: str) -> None:
    assert "".join(tokenize(text)) == text
    assert count_tokens(text) == len(tokenize(text))


def test_tokens_of_a_prompt_count_template_and_tools() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    bare = Prompt({}, text="one two three", messages=2)
    assert bare.tokens == 3 + 2 * 4
    assert Prompt({}, text="one two three", messages=2, tools=[tool]).tokens > bare.tokens


# The default answer


def said(steps: Iterable[Step]) -> str:
    return text_of(Generation(steps, Prompt({}), new_call_id=str))


def test_the_default_answer_echoes() -> None:
    assert said(default_answer(Prompt({}, last_user="Hi there"), PLAIN)) == "You said: Hi there"
    assert said(default_answer(Prompt({}, last_user="Hi"), PLAIN, "Demo. ")) == "Demo. You said: Hi"
    assert said(default_answer(Prompt({}, last_user="Look:", images=1), PLAIN)) == "You said: Look: I see 1 image."
    assert said(default_answer(Prompt({}, last_user="Look:", images=2), PLAIN)) == "You said: Look: I see 2 images."


def test_reasoning_models_think_unless_told_not_to() -> None:
    _, thinking = generate(*default_answer(Prompt({}, last_user="Hi"), gpt_oss()))
    _, quick = generate(*default_answer(Prompt({}, last_user="Hi", thinks=False), gpt_oss()))
    assert thinking.reasoning_tokens > 0
    assert quick.reasoning_tokens == 0


TOOLS = [
    {"type": "function", "function": {"name": "add", "description": "Add two numbers"}},
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather in a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    },
]


def test_the_fitting_tool_is_called() -> None:
    prompt = Prompt({}, last_user="What is the weather in Paris?", tools=TOOLS)
    _, generation = generate(*default_answer(prompt, PLAIN))
    assert generation.calls == {0: ["0", "get_weather", '{"city":"Paris"}']}
    assert fitting_tool(TOOLS, "Add two numbers")["name"] == "add"


@pytest.mark.parametrize(
    ("model", "more"),
    [(SimModel("x", tools=False), {}), (PLAIN, {"tool_choice": "none"}), (PLAIN, {"tool_results": ["mild"]})],
)
def test_when_no_tool_is_called(model: SimModel, more: dict[str, Any]) -> None:
    _, generation = generate(*default_answer(Prompt({}, last_user="Paris?", tools=TOOLS, **more), model))
    assert generation.calls == {}


def test_results_of_tools_are_told() -> None:
    prompt = Prompt({}, last_user="Paris?", tools=TOOLS, tool_results=["mild", "dry"])
    assert said(default_answer(prompt, PLAIN)) == "The tool answered: mild dry"


def test_a_schema_is_filled_in_rather_than_tools_called_or_thought() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    _, generation = generate(
        *(steps := default_answer(Prompt({}, last_user="Rome", schema=schema, tools=TOOLS), gpt_oss()))
    )
    assert json.loads(said(steps)) == {"city": "Rome"}
    assert (generation.calls, generation.reasoning_tokens) == ({}, 0)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, "Paris"),
        ({"type": "string", "maxLength": 2}, "Pa"),
        ({"type": "string", "minLength": 7}, "Parisxx"),
        ({"type": "integer"}, 12),
        ({"type": "integer", "maximum": 10}, 10),
        ({"type": "number", "minimum": 20}, 20),
        ({"type": "boolean"}, True),
        ({"type": "null"}, None),
        ({"type": ["string", "null"]}, "Paris"),
        ({"enum": ["celsius", "fahrenheit"]}, "celsius"),
        ({"enum": ["rome", "paris"]}, "paris"),
        ({"const": 7}, 7),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [12, 12]),
        ({"type": "array"}, ["Paris"]),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, None),
        ({"oneOf": [{"const": "x"}]}, "x"),
        ({"allOf": [{"type": "string"}, {"maxLength": 1}]}, "P"),
        ({"properties": {"b": {"const": 1}, "a": {"const": 2}}}, {"b": 1, "a": 2}),
        ({"$defs": {"n": {"type": "integer"}}, "type": "array", "items": {"$ref": "#/$defs/n"}}, [12]),
        ({}, {}),
        (True, {}),
    ],
)
def test_examples_satisfy_their_schema(schema: Any, value: Any) -> None:
    assert example(schema, "What about 12 days in Paris") == value


def test_what_a_request_is_about() -> None:
    assert subject("What is New York like?") == "York"
    assert subject("what is this") == "this"
    assert subject("") == "text"


def test_fixed_answers_have_their_length() -> None:
    assert len(tokenize(said(fixed_answer(50)(Prompt({}), PLAIN)))) == 50


def test_words_are_cut_into_tokens() -> None:
    assert words("Hello there, you.") == content("Hello", " there", ",", " you", ".")


# Embeddings


def cosine(one: list[float], other: list[float]) -> float:
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return dot / math.hypot(*one) / math.hypot(*other)


def test_vectors() -> None:
    model = embedder(dimensions=64)
    cat = embedding("the cat sat on the mat", model, 2048)
    assert len(cat) == 64
    assert cat == embedding("the cat sat on the mat", model, 2048)
    assert math.hypot(*cat) == pytest.approx(1, abs=1e-6)
    near, far = embedding("a cat sat on a mat", model, 2048), embedding("quarterly tax report", model, 2048)
    assert cosine(cat, near) > cosine(cat, far) + 0.2


def test_vectors_need_not_be_of_unit_norm() -> None:
    assert math.hypot(*embedding("some words", embedder(unit_norm=False), 2048)) > 1.5


def test_text_past_the_context_is_cut_silently() -> None:
    model = embedder()
    assert embedding("a b c d", model, 3) == embedding("a b c e", model, 3)
    assert embedding("a b c d", model, 4) != embedding("a b c e", model, 4)
