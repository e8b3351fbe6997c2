"""LM Studio's own APIs: the model's name is mapped, and no other byte changes."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ollama_lmstudio.endpoints.base import Answer, Incoming, Relay, Services
from ollama_lmstudio.endpoints.passthrough import error_answer, model_span, passthrough
from ollama_lmstudio.lmstudio.catalog import Instance, Model
from ollama_lmstudio.lmstudio.errors import LMStudioUnreachable
from ollama_lmstudio.ollama.errors import OllamaError

CHAT = "/v1/chat/completions"


def span(body: bytes) -> str | None:
    found = model_span(body)
    return None if found is None else found[0][found[1] : found[2]]


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
        (b'{"MODEL":"m"}', None),
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
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b',"model":"m"}', None),
        # Bytes that are no text do not matter elsewhere.
        (b'{"a":"\xff","model":"m"}', '"m"'),
        # What comes after the name need not be JSON: LM Studio will say so.
        (b'{"model":"m"} trailing', '"m"'),
        (b'{"model":"m",}', '"m"'),
    ],
)
def test_spans(body: bytes, expected: str | None) -> None:
    assert span(body) == expected


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.just("model"), inner),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=5), values, max_size=4), st.text(min_size=1), st.booleans(), st.integers(0, 3))
def test_the_span_is_the_name(rest: dict[str, object], name: str, escaped: bool, indent: int) -> None:
    body = json.dumps({**rest, "model": name, "last": 1}, ensure_ascii=escaped, indent=indent or None)
    try:
        encoded = body.encode()
    except UnicodeEncodeError:  # half a character cannot be sent as it is
        return
    found = model_span(encoded)
    assert found is not None
    text, start, end = found
    assert json.loads(text[start:end]) == name
    assert text == body


def test_large_bodies_take_no_time() -> None:
    many = ",".join(f'"k{n}":{n}' for n in range(60_000))
    bodies = [
        b'{"messages":[{"content":"' + b"x" * 1_000_000 + b'"}],"model":"m"}',
        b'{"model":"m","messages":[' + b'{"model":"x","content":"\\"model\\""},' * 30_000 + b"0]}",
        f'{{{many},"model":"m"}}'.encode(),
        b'{"model":"m"' + b" " * 1_000_000 + b"}",
    ]
    for body in bodies:
        began = time.perf_counter()
        assert span(body) == '"m"'
        assert time.perf_counter() - began < 2


MODELS = (
    Model("openai/gpt-oss-20b", instances=(Instance("openai/gpt-oss-20b:2"),)),
    Model("qwen/qwen3-8b"),
    Model("déjà-vu"),
)


def go(body: bytes, services: Services, path: str = CHAT) -> Relay | Answer:
    return asyncio.run(passthrough(Incoming("POST", path, "", {}, body, 0), services))


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
    relay = go(f'{{ "stream": true,  "model" :\t"{name}" , "n":1.0}}'.encode(), make_services(*MODELS))
    assert relay == Relay(CHAT, f'{{ "stream": true,  "model" :\t"{key}" , "n":1.0}}'.encode())


rubbish_bytes = st.binary(max_size=20).filter(lambda data: not set(data) & {*range(32), *b'"\\'})


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rubbish=rubbish_bytes, space=st.sampled_from(["", " ", "\n"]))
def test_no_other_byte_changes(rubbish: bytes, space: str, make_services: Callable[..., Services]) -> None:
    before = b'{"a":"' + rubbish + b'",' + space.encode()
    after = space.encode() + b',"b":1e5,"c":"\\u00e9"}' + rubbish
    body = before + b'"model":' + b'"\\u0071wen3:8b"' + after
    relay = go(body, make_services(*MODELS))
    assert isinstance(relay, Relay)
    assert relay.body == before + b'"model":' + b'"qwen/qwen3-8b"' + after


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
    assert go(body, make_services(*MODELS), path) == Relay(path, body)


ERRORS = [
    ("/api/v1/chat", 404, "invalid_request", "model_not_found"),
    ("/api/v0/chat/completions", 400, "invalid_request", None),
    ("/api/v1/models/load", 502, "internal_error", None),
]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (404, "not_found_error"), (403, "api_error"), (503, "api_error")],
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
    assert isinstance(answer, Answer)
    assert answer.status == 503
    assert b"hunter2" not in answer.body
