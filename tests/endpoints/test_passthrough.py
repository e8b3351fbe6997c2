"""LM Studio's own APIs: the model's name is mapped, what LM Studio alone refuses is repaired, no other byte changes."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.translate.test_tools import tools

from ollama_lmstudio.endpoints.passthrough import passthrough
from ollama_lmstudio.lmstudio.catalog import Instance, Model
from ollama_lmstudio.lmstudio.errors import LMStudioUnreachable
from ollama_lmstudio.ollama.errors import OllamaError
from ollama_lmstudio.ollama.requests import ChatRequest
from ollama_lmstudio.outcomes import Passthrough, Request, Response
from ollama_lmstudio.services import Services
from ollama_lmstudio.sim import validate
from ollama_lmstudio.threads import LARGE_BYTES
from ollama_lmstudio.translate.api_errors import error_answer, missing_answer
from ollama_lmstudio.translate.json_spans import Unreadable
from ollama_lmstudio.translate.passthrough import members_with_model

CHAT = "/v1/chat/completions"


def span(body: bytes) -> str | None:
    parsed = members_with_model(body)
    if parsed is None:
        return None
    text, found = parsed
    return text[found["model"].start : found["model"].end]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model":"m"}', '"m"'),
        (b'{"a":1,"model":"m"}', '"m"'),
        (b'{"model":"m","a":1}', '"m"'),
        (b' \r\n\t{ \n"model" \t: \r "m" \n, "a" : [ ] \n} \n', '"m"'),
        (b'{"model":"a\\"b\\\\"}', '"a\\"b\\\\"'),
        (b'{"model":"\\u006d"}', '"\\u006d"'),
        (b'{"mod\\u0065l":"m"}', '"m"'),
        ('{"model":"é"}'.encode(), '"é"'),
        # LM Studio takes the last of several, and so it must be here.
        (b'{"model":"a","model":"b"}', '"b"'),
        (b'{"model":5,"model":"b"}', '"b"'),
        (b'{"model":"a","model":5}', None),
        (b'{"model":"a","mod\\u0065l":"b"}', '"b"'),
        # Only the object's own counts.
        (b'{"x":{"model":"inner"},"y":[{"model":"inner"}],"model":"m"}', '"m"'),
        (b'{"x":{"model":"inner"}}', None),
        (b'{"x":"\\"model\\":\\"inner\\"","model":"m"}', '"m"'),
        (b'{"x":"\\"model\\": \\"inner\\""}', None),
        (b'[{"model":"m"}]', None),
        (b'"model"', None),
        # Ours is not the judge of what is no name or no JSON.
        (b'{"model":null}', None),
        (b'{"model":5}', None),
        (b'{"model":{"id":"m"}}', None),
        (b'{"model":["m"]}', None),
        (b'{"model":""}', None),
        (b'{"MODEL":"m"}', '"m"'),
        (b"", None),
        (b"{}", None),
        (b"model", None),
        (b'{"model":"m"', None),
        (b'{"model":"m"]', None),
        (b'{"model":"m" "a":1}', None),
        (b'{"model" "m"}', None),
        (b'{"model":}', None),
        (b'{"model":"m\n"}', None),
        (b'{"model":"m', None),
        (b'{5:1,"model":"m"}', None),
        (b"{'model':'m'}", None),
        (b'\xef\xbb\xbf{"model":"m"}', None),
        # Bytes that are no text do not matter elsewhere.
        (b'{"a":"\xff","model":"m"}', '"m"'),
        # What comes after the name need not be JSON: LM Studio will say so.
        (b'{"model":"m"} trailing', '"m"'),
        (b'{"model":"m",}', '"m"'),
    ],
)
def test_spans(body: bytes, expected: str | None) -> None:
    assert span(body) == expected


def test_json_that_is_nested_too_deeply_may_name_a_model() -> None:
    with pytest.raises(Unreadable):
        span(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b',"model":"m"}')
    with pytest.raises(Unreadable):
        span(b'{"a":' + b"1" * 5000 + b',"model":"m"}')


def test_large_bodies_take_no_time() -> None:
    many = ",".join(f'"k{n}":{n}' for n in range(60_000))
    bodies = [
        b'{"messages":[{"content":"' + b"x" * 1_000_000 + b'"}],"model":"m"}',
        b'{"model":"m","messages":[' + b'{"model":"x","content":"\\"model\\""},' * 30_000 + b"0]}",
        f'{{{many},"model":"m"}}'.encode(),
        b'{"model":"m"' + b" " * 1_000_000 + b"}",
    ]
    for body in bodies:
        began = time.process_time()
        assert span(body) == '"m"'
        assert time.process_time() - began < 2


MODELS = (
    Model("openai/gpt-oss-20b", instances=(Instance("openai/gpt-oss-20b:2"),)),
    Model("qwen/qwen3-8b"),
    Model("déjà-vu"),
)


def go(body: bytes, services: Services, path: str = CHAT) -> Passthrough | Response:
    return asyncio.run(passthrough(Request("POST", path, "", {}, body, 0), services))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("gpt-oss:20b", "openai/gpt-oss-20b"),
        ("openai/gpt-oss-20b", "openai/gpt-oss-20b"),
        ("openai/gpt-oss-20b:2", "openai/gpt-oss-20b:2"),
        ("QWEN3:8b", "qwen/qwen3-8b"),
        ("qwen3-8b:latest", "qwen/qwen3-8b"),
    ],
)
def test_the_name_becomes_lm_studios(name: str, key: str, make_services: Callable[..., Services]) -> None:
    outcome = go(f'{{ "stream": true,  "model" :\t"{name}" , "n":1.0}}'.encode(), make_services(*MODELS))
    body = f'{{ "stream": true,  "model" :\t"{key}" , "n":1.0}}'.encode()
    assert outcome == Passthrough(CHAT, body, model=key, asked=name)


rubbish_bytes = st.binary(max_size=20).filter(lambda data: not set(data) & {*range(32), *b'"\\'})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(rubbish=rubbish_bytes, space=st.sampled_from(["", " ", "\n"]))
def test_no_other_byte_changes(rubbish: bytes, space: str, make_services: Callable[..., Services]) -> None:
    before = b'{"a":"' + rubbish + b'",' + space.encode()
    after = space.encode() + b',"b":1e5,"c":"\\u00e9"}' + rubbish
    body = before + b'"model":' + b'"\\u0071wen3:8b"' + after
    outcome = go(body, make_services(*MODELS))
    assert isinstance(outcome, Passthrough)
    assert outcome.body == before + b'"model":' + b'"qwen/qwen3-8b"' + after


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, b""),
        (CHAT, b"not JSON"),
        (CHAT, b'{"messages":[]}'),
        (CHAT, b'{"model":5}'),
        ("/v1/models", b""),
        ("/api/v1/models/download", b'{"model":"nobody/has-this"}'),
        ("/api/v1/models/download/status/1", b'{"model":"nobody/has-this"}'),
        ("/api/v1/models/unload", b'{"model":"nobody/has-this","instance_id":"x"}'),
    ],
)
def test_what_goes_on_as_it_is(path: str, body: bytes, make_services: Callable[..., Services]) -> None:
    assert go(body, make_services(*MODELS), path) == Passthrough(path, body)


ERRORS = [
    ("/api/v1/chat", 404, "invalid_request", "model_not_found"),
    ("/api/v0/chat/completions", 400, "invalid_request", None),
    ("/api/v1/models/load", 502, "internal_error", None),
]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (404, "not_found_error"),
        (413, "invalid_request_error"),
        (403, "api_error"),
        (503, "api_error"),
    ],
)
def test_the_shape_of_errors_of_openais_api_is_ollamas(status: int, kind: str) -> None:
    answer = error_answer(CHAT, status, "no", "model")
    assert (answer.status, answer.content_type) == (status, "application/json")
    assert answer.body == b'{"error":{"message":"no","type":"%s","param":null,"code":null}}\n' % kind.encode()


@pytest.mark.parametrize(("path", "status", "kind", "code"), ERRORS)
def test_the_shape_of_errors_of_lmstudios_apis(path: str, status: int, kind: str, code: str | None) -> None:
    answer = error_answer(path, status, "no", "model")
    assert (answer.status, answer.content_type) == (status, "application/json")
    assert json.loads(answer.body) == {"error": {"message": "no", "type": kind, "param": "model", "code": code}}
    assert json.loads(error_answer(path, status, "no").body)["error"]["param"] is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (500, "api_error"),
        (503, "overloaded_error"),
    ],
)
def test_the_shape_of_anthropics_errors(status: int, kind: str) -> None:
    answer = error_answer("/v1/messages", status, "no", "model")
    assert answer.status == status
    assert answer.body.endswith(b"}\n")
    value = json.loads(answer.body)
    assert re.fullmatch("req_[0-9a-f]{24}", value.pop("request_id"))
    assert value == {"type": "error", "error": {"type": kind, "message": "no"}}


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/messages/count_tokens", "/v1/modelsx", "/v1/"])
def test_a_path_that_nobody_has_is_no_missing_one(path: str) -> None:
    assert missing_answer("POST", path) is None


def test_errors_of_decisions_have_ollamas_own_shape() -> None:
    answer = missing_answer("POST", "/v1/systemone")
    message = "This LM Studio does not have POST /v1/systemone; a newer version may."
    assert answer == error_answer("/v1/systemone", 404, message) == Response.error(404, message)


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("nosuch", 404, "model 'nosuch' not found"),
        ("gpt-oss:20b-cloud", 403, "ollama cloud is disabled: remote model is unavailable"),
        ("a b", 400, "invalid model name"),
    ],
)
@pytest.mark.parametrize("path", [CHAT, "/api/v1/chat"])
def test_names_that_cannot_be_resolved(
    path: str, name: str, status: int, message: str, make_services: Callable[..., Services]
) -> None:
    body = json.dumps({"model": name}).encode()
    if status == 403 and path == CHAT:
        with pytest.raises(OllamaError, match=message):
            go(body, make_services(*MODELS), path)
    else:
        assert go(body, make_services(*MODELS), path) == error_answer(path, status, message, "model")


def test_secrets_are_scrubbed(make_services: Callable[..., Services], monkeypatch: pytest.MonkeyPatch) -> None:
    services = make_services(lmstudio_token="hunter2")

    async def gone(name: str) -> None:
        raise LMStudioUnreachable("http://h?hunter2")

    monkeypatch.setattr(services.catalog, "resolve", gone)
    answer = go(b'{"model":"m"}', services)
    assert isinstance(answer, Response)
    assert answer.status == 503
    assert b"hunter2" not in answer.body


# What is repaired

RESPONSES = "/v1/responses"
QWEN = "qwen/qwen3-8b"
EMPTY = {"type": "object", "properties": {}}
LIKED: dict[str, Any] = {
    "type": "function",
    "function": {"name": "f", "strict": None, "parameters": EMPTY | {"x": 1.50}},
    "x": None,
}


def function(**rest: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f"} | rest}


def passed_through(path: str, body: bytes) -> Passthrough:
    """Return the outcome of a request for QWEN."""
    return Passthrough(path, body, model=QWEN, asked=QWEN)


def wrapped(tool: Any, path: str) -> str:
    """Return a body around a tool, written in a way that no serialiser would repeat."""
    extra = json.dumps({"type": "function", **LIKED["function"]} if path == RESPONSES else LIKED)
    tools = f"[ {extra.replace('1.5', '15e-1')},\t{tool} ]"
    return f'{{ "n":1.0,"tools" :{tools} ,"\\u0061":"é",\n"model":"qwen/qwen3-8b" }}  '


REFUSED: list[tuple[Any, Any]] = [
    (function(parameters={}), function(parameters=EMPTY)),
    (function(parameters=None), function()),
    (function(parameters={"type": "object"}), function(parameters=EMPTY)),
    (function(parameters={"properties": {"a": {}}}), function(parameters={"properties": {"a": {}}, "type": "object"})),
    (function(parameters=EMPTY | {"properties": None}), function(parameters=EMPTY)),
    (function(parameters=EMPTY | {"type": None}), function(parameters=EMPTY)),
    (function(parameters=EMPTY | {"type": "string"}), function(parameters=EMPTY)),
    (function(parameters=EMPTY | {"required": None}), function(parameters=EMPTY)),
    (function(parameters=EMPTY | {"required": ["a", None]}), function(parameters=EMPTY | {"required": ["a"]})),
    (function(parameters=EMPTY | {"$defs": None}), function(parameters=EMPTY)),
    (function(description=None), function()),
    (function(name=None), function(name="")),
    ({"type": "function", "function": {}}, function(name="")),
    # Unchecked values stay.
    (
        function(
            parameters={"$schema": "x", "additionalProperties": False, "title": None}, strict=None, x=[1e300, "<é"]
        ),
        function(
            parameters={"$schema": "x", "additionalProperties": False, "title": None, **EMPTY},
            strict=None,
            x=[1e300, "<é"],
        ),
    ),
]


@pytest.mark.parametrize(("given_tool", "made"), REFUSED)
@pytest.mark.parametrize("path", [CHAT, RESPONSES])
def test_a_tool_that_lm_studio_refuses(
    path: str, given_tool: Any, made: Any, make_services: Callable[..., Services]
) -> None:
    if path == RESPONSES:
        given_tool, made = ({"type": "function"} | tool["function"] for tool in (given_tool, made))
    body = wrapped(json.dumps(given_tool), path).encode()
    outcome = go(body, make_services(*MODELS), path)
    assert outcome == passed_through(
        path, wrapped(json.dumps(made, ensure_ascii=False, separators=(",", ":")), path).encode()
    )
    assert go(body, make_services(*MODELS, repair_passthrough=False), path) == passed_through(path, body)
    assert go(body, make_services(*MODELS), f"/api/v0{path[3:]}") == passed_through(f"/api/v0{path[3:]}", body)


@pytest.mark.parametrize(
    ("given_tool", "made"),
    [
        ("{}", function(name="")),
        ("null", function(name="")),
        ('{"function":null}', function(name="")),
        ('{"type":"x","function":{"name":"f"}}', function()),
        ('{"type":null,"function":{"name":"f"},"x":1}', function() | {"x": 1}),
    ],
)
def test_a_tool_without_a_function(given_tool: str, made: Any, make_services: Callable[..., Services]) -> None:
    outcome = go(wrapped(given_tool, CHAT).encode(), make_services(*MODELS))
    assert isinstance(outcome, Passthrough)
    assert json.loads(outcome.body)["tools"][1] == made


@pytest.mark.parametrize(
    "tool",
    [
        # LM Studio takes these.
        '{"type":"function","function":{"name":"f"}}',
        '{"type":"function","function":{"name":"","parameters":{"type":"object","properties":{"a":{"type":5}}}}}',
        # Ollama refuses these too.
        "5",
        '"x"',
        "[]",
        '{"type":5}',
        '{"type":"function","function":[]}',
        '{"type":"function","function":{"name":5}}',
        '{"type":"function","function":{"name":"f","description":{}}}',
        '{"type":"function","function":{"name":"f","parameters":[]}}',
        '{"type":"function","function":{"name":"f","parameters":{"type":5}}}',
        '{"type":"function","function":{"name":"f","parameters":{"required":"a"}}}',
        '{"type":"function","function":{"name":"f","parameters":{"required":[5]}}}',
        '{"type":"function","function":{"name":"f","parameters":{"properties":[]}}}',
        '{"type":"function","function":{"name":"f","parameters":{"x":1e999}}}',
        '{"type":"function","function":{"name":"f","parameters":{"x":NaN}}}',
        '{"type":"function","function":{"name":"f","parameters":{"x":' + "[" * 300 + "]" * 300 + "}}}",
    ],
)
def test_a_tool_that_stays_as_it_is(tool: str, make_services: Callable[..., Services]) -> None:
    body = wrapped(tool, CHAT).encode()
    assert go(body, make_services(*MODELS)) == passed_through(CHAT, body)


@pytest.mark.parametrize("tools", ["null", "5", '"x"', "{}", "[]", '{"0":{"type":"function","function":{}}}'])
@pytest.mark.parametrize("path", [CHAT, RESPONSES])
def test_tools_that_are_no_list(path: str, tools: str, make_services: Callable[..., Services]) -> None:
    body = f'{{"model":"qwen/qwen3-8b","tools": {tools} }}'.encode()
    assert go(body, make_services(*MODELS), path) == passed_through(path, body)


@pytest.mark.parametrize("tool", ['{"type":"web_search"}', '{"type":"namespace","tools":[]}', "{}", "null", "5"])
def test_tools_of_another_type(tool: str, make_services: Callable[..., Services]) -> None:
    """LM Studio does not check these."""
    body = wrapped(tool, RESPONSES).encode()
    assert go(body, make_services(*MODELS), RESPONSES) == passed_through(RESPONSES, body)


def test_what_is_repaired_is_text(make_services: Callable[..., Services]) -> None:
    tool = (
        b'{"type":"function","function":{"name":"\xff\\ud800x\\udc80\xf0\x9f\x98\x80\\ud83d\\ude00","parameters":{}}}'
    )
    body = b'{"a":"\xff\\ud800","model":"qwen/qwen3-8b","tools":[' + tool + b"]}"
    outcome = go(body, make_services(*MODELS))
    assert isinstance(outcome, Passthrough)
    before, _, made = outcome.body.partition(b'"tools":')
    assert before == body.partition(b'"tools":')[0]
    name = json.loads(made.removesuffix(b"}"))[0]["function"]["name"]
    assert name == "\ufffd\ufffdx\ufffd\U0001f600\U0001f600"


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(given_tools=st.lists(tools, max_size=3), flat=st.booleans(), indent=st.sampled_from([None, 1]))
def test_what_ollama_takes_lm_studio_takes(
    given_tools: list[Any], flat: bool, indent: int | None, make_services: Callable[..., Services]
) -> None:
    if flat:
        functions = [tool["function"] for tool in given_tools if isinstance(tool, dict) and "function" in tool]
        given_tools = [{"type": "function"} | function for function in functions if isinstance(function, dict)]
    path = RESPONSES if flat else CHAT
    body = json.dumps({"before": 1e5, "model": "qwen/qwen3-8b", "tools": given_tools, "after": "é"}, indent=indent)
    outcome = go(body.encode(), make_services(*MODELS), path)
    assert isinstance(outcome, Passthrough)

    def as_chat(tools: list[Any]) -> list[Any]:
        return [{"type": "function", "function": tool} if flat else tool for tool in tools]

    made = json.loads(outcome.body)
    assert {key: value for key, value in made.items() if key != "tools"} == {
        key: value for key, value in json.loads(body).items() if key != "tools"
    }
    assert len(made["tools"]) == len(given_tools)
    for tool, result in zip(as_chat(given_tools), as_chat(made["tools"]), strict=True):
        try:
            ChatRequest.decode(json.dumps({"tools": [tool]}).encode())
        except OllamaError:
            assert result == tool
        else:
            assert list(validate.tool_issues([result])) == []
    if not list(validate.tool_issues(as_chat(given_tools))):
        assert outcome.body == body.encode()


JSON_SCHEMA = '{"type":"json_schema","json_schema":{"name":"json","strict":true,"schema":{"type":"object"}}}'


@pytest.mark.parametrize(
    ("given_format", "made"),
    [
        ('{"type":"json_object"}', JSON_SCHEMA),
        ('{ "x": 1.0, "type": "json_\\u006fbject" }', JSON_SCHEMA),
        *[
            (other, other)
            for other in ('{"type":"text"}', '{"type":"json"}', JSON_SCHEMA, '"json_object"', "null", "[]", "5", "{}")
        ],
    ],
)
def test_a_format_of_any_object(given_format: str, made: str, make_services: Callable[..., Services]) -> None:
    body = '{{"response_format" :\t{} , "n":1e5,"model":"qwen/qwen3-8b"}} '
    outcome = go(body.format(given_format).encode(), make_services(*MODELS))
    assert outcome == passed_through(CHAT, body.format(made).encode())
    for path in (RESPONSES, "/v1/completions", "/api/v0/chat/completions"):
        untouched = body.format(given_format).encode()
        assert go(untouched, make_services(*MODELS), path) == passed_through(path, untouched)


def test_a_repair_is_said_once(make_services: Callable[..., Services], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    services = make_services(*MODELS)
    body = b'{"model":"qwen3-8b","tools":[{}],"response_format":{"type":"json_object"}}'
    for _ in range(2):
        go(body, services)
    assert [record.getMessage().partition(": ")[0] for record in caplog.records] == [
        "LM Studio would refuse the tools of /v1/chat/completions",
        "LM Studio would refuse the response_format of /v1/chat/completions",
    ]


def test_a_model_is_in_use_until_its_request_has_ended(make_services: Callable[..., Services]) -> None:
    services = make_services(*MODELS)
    outcome = go(json.dumps({"model": QWEN}).encode(), services)
    assert isinstance(outcome, Passthrough)
    assert outcome.release is not None
    assert services.lifetimes.active_requests(QWEN) == 1
    outcome.release()
    assert services.lifetimes.active_requests(QWEN) == 0


@pytest.mark.parametrize("body", [b"", b"{}", b'{"model":5}'])
def test_a_request_without_a_model_uses_none(body: bytes, make_services: Callable[..., Services]) -> None:
    outcome = go(body, make_services(*MODELS))
    assert isinstance(outcome, Passthrough)
    assert outcome.release is None


def test_a_large_body_is_read_in_a_thread(
    make_services: Callable[..., Services], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_loop = []
    module = sys.modules[passthrough.__module__]
    for name in ("members_with_model", "repaired"):
        function = getattr(module, name)

        def note(*given: Any, function: Callable[..., Any] = function) -> Any:
            on_loop.append(threading.current_thread() is threading.main_thread())
            return function(*given)

        monkeypatch.setattr(module, name, note)
    body = b'{"model":"m","user":"%b"}' % (b"a" * LARGE_BYTES)
    answer = asyncio.run(passthrough(Request("POST", CHAT, "", {}, body, 0), make_services(Model("m"))))
    assert answer == Passthrough(CHAT, body)
    assert on_loop == [False, False]
