"""Tool definitions and `tool_choice`, as LM Studio's validator reads them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ollama_lmstudio.ollama.errors import OllamaError
from ollama_lmstudio.ollama.requests import ChatRequest
from ollama_lmstudio.sim import validate
from ollama_lmstudio.sim.models import Version
from ollama_lmstudio.translate.tools import tool_choice_to_lmstudio, tools_to_lmstudio

VERSION = Version("0.4.25")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
texts = st.none() | st.text(max_size=5)


def sloppy(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects that have some of these fields, null, or something else altogether, in any order."""
    unknown = st.dictionaries(st.sampled_from(["strict", "title", "items", "$schema"]), json_values, max_size=1)
    objects = st.tuples(st.fixed_dictionaries({}, optional=fields), unknown).map(lambda both: both[0] | both[1])
    return st.none() | objects.flatmap(lambda value: st.permutations(list(value.items()))).map(dict) | json_values


parameters = sloppy(
    type=st.none() | st.sampled_from(["object", "string", ""]),
    properties=st.none() | st.dictionaries(st.text(max_size=4), sloppy(type=texts), max_size=3),
    required=st.none() | st.lists(texts, max_size=3),
    **{"$defs": json_values},
)
tools = sloppy(
    type=st.none() | st.sampled_from(["function", "tool"]),
    function=sloppy(name=texts, description=texts, parameters=parameters),
)


@settings(max_examples=500)
@given(st.lists(tools, max_size=3))
def test_lm_studio_takes_every_tool_that_ollama_takes(given_tools: list[Any]) -> None:
    try:
        decoded = ChatRequest.decode(json.dumps({"tools": given_tools}).encode()).tools
    except OllamaError:
        assume(False)
        return
    made = tools_to_lmstudio(decoded)
    assert list(validate.tool_issues(made)) == []
    assert len(made) == len(given_tools)
    assert tools_to_lmstudio(made) == made


EMPTY = {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    ("function", "made"),
    [
        ({"name": "f"}, {"name": "f"}),
        ({}, {"name": ""}),
        ({"name": "f", "description": None, "parameters": None}, {"name": "f"}),
        ({"name": "f", "parameters": {}}, {"name": "f", "parameters": EMPTY}),
        ({"name": "f", "parameters": {"type": "object"}}, {"name": "f", "parameters": EMPTY}),
        ({"name": "f", "parameters": {"type": "", "properties": None}}, {"name": "f", "parameters": EMPTY}),
        (
            {"name": "f", "parameters": {"required": ["a", None], "$defs": 5}},
            {"name": "f", "parameters": {"required": ["a"], **EMPTY}},
        ),
        (
            {"name": "f", "strict": True, "parameters": {**EMPTY, "$defs": {"D": {}}, "additionalProperties": False}},
            {"name": "f", "strict": True, "parameters": {**EMPTY, "$defs": {"D": {}}, "additionalProperties": False}},
        ),
    ],
)
def test_tools(function: dict[str, Any], made: dict[str, Any]) -> None:
    before = json.dumps(function)
    assert tools_to_lmstudio([{"function": function}]) == [{"type": "function", "function": made}]
    assert json.dumps(function) == before, "the request is not to be changed"


@pytest.mark.parametrize("tool", [{}, {"function": None}, {"type": "x", "function": 5}])
def test_tools_without_a_function(tool: dict[str, Any]) -> None:
    assert tools_to_lmstudio([tool]) == [{"type": "function", "function": {"name": ""}}]


def test_the_order_of_keys_is_kept() -> None:
    properties = {"z": {"type": "string", "description": "Z"}, "a": {"enum": [1]}, "m": {}}
    given_parameters = {"required": ["z"], "properties": properties, "$defs": {}, "type": "object"}
    tool = {"type": "function", "function": {"parameters": given_parameters, "name": "f", "description": "d"}}
    (made,) = tools_to_lmstudio([tool])
    assert json.dumps(made) == json.dumps(tool)


TWO_TOOLS = tools_to_lmstudio([{"function": {"name": name}} for name in ("f", "g")])


@pytest.mark.parametrize(
    ("choice", "made", "offered"),
    [
        ("none", "none", ["f", "g"]),
        ("auto", "auto", ["f", "g"]),
        ("required", "required", ["f", "g"]),
        ({"type": "function", "function": {"name": "g"}}, "required", ["g"]),
        ({"type": "function", "function": {"name": "nosuch"}}, "auto", ["f", "g"]),
        ({"type": "function", "function": None}, "auto", ["f", "g"]),
        ("any", "required", ["f", "g"]),
        ({"type": "any"}, "required", ["f", "g"]),
        ({"type": "auto"}, "auto", ["f", "g"]),
        ({"type": "none"}, "none", ["f", "g"]),
        ({"type": "tool", "name": "g"}, "required", ["g"]),
        ({"type": "function", "name": "f"}, "required", ["f"]),
        ("g", "required", ["g"]),
        ("nosuch", "auto", ["f", "g"]),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"function": {"name": "g"}}]}},
            "auto",
            ["g"],
        ),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [{"function": {"name": "f"}}]}},
            "required",
            ["f"],
        ),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "g"}]}, "auto", ["g"]),
        # What says nothing, or names what is not there, forces nothing.
        ({}, "auto", ["f", "g"]),
        ({"type": "function"}, "auto", ["f", "g"]),
        ({"type": "custom", "custom": {"name": "z"}}, "auto", ["f", "g"]),
        (True, "auto", ["f", "g"]),
        (5, "auto", ["f", "g"]),
        ([], "auto", ["f", "g"]),
    ],
)
def test_tool_choice(choice: Any, made: str, offered: list[str]) -> None:
    found, left = tool_choice_to_lmstudio(choice, TWO_TOOLS)
    assert (found, [tool["function"]["name"] for tool in left]) == (made, offered)
    body = {"messages": [], "tools": left, "tool_choice": found}
    assert validate.chat_prompt(body, VERSION).tool_choice == made
