"""LM Studio's error envelopes, and what else comes instead of an answer."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ollama_lmstudio.lmstudio.errors import (
    EVICTED_HINT,
    LINK_HINT,
    MAX_TEXT,
    LMStudioError,
    LMStudioTimeout,
    LMStudioUnreachable,
    Peeled,
    error_from_response,
    from_event,
    is_evicted,
    is_model_not_found,
    is_no_models_loaded,
    is_token_refused,
    is_unknown_route,
    lacks_memory,
    peel,
    scrub,
    unexpected_success,
)

TOOL_ISSUE = {
    "code": "invalid_type",
    "expected": "object",
    "received": "undefined",
    "path": [5, "function", "parameters", "properties"],
    "message": "Required",
}
OVERFLOW = "request (9025 tokens) exceeds the available context size (8192 tokens), try increasing it"
ENGINE_ERROR = "Engine protocol predict request returned 400: " + json.dumps(
    {
        "error": {
            "code": 400,
            "message": OVERFLOW,
            "type": "exceed_context_size_error",
            "n_prompt_tokens": 9025,
            "n_ctx": 8192,
        }
    }
)
NO_MODEL = {
    "message": "No models loaded. Please load a model in the developer page or use the 'lms load' command.",
    "type": "invalid_request_error",
    "param": "model",
    "code": None,
}
UNKNOWN_MODEL = {
    "message": 'Invalid model identifier "nope". Please specify a valid downloaded model (e.g., plain).',
    "type": "invalid_request_error",
    "param": "model",
    "code": "model_not_found",
}
MALFORMED_TOKEN = {
    "type": "invalid_request",
    "code": "invalid_api_key",
    "message": "Malformed LM Studio API token provided: sk-bogus-E**************. Ensure you are using a valid token.",
}

ENVELOPES = [
    pytest.param({"error": "'messages' field is required"}, Peeled("'messages' field is required"), id="A, a string"),
    pytest.param(
        {"error": json.dumps([TOOL_ISSUE], indent=2)},
        Peeled("tools[5].function.parameters.properties: Required", "invalid_type"),
        id="A2, zod issues in a string",
    ),
    pytest.param(
        {"error": UNKNOWN_MODEL},
        Peeled(UNKNOWN_MODEL["message"], "model_not_found", "invalid_request_error"),
        id="B, OpenAI's object",
    ),
    pytest.param({"error": NO_MODEL}, Peeled(str(NO_MODEL["message"]), None, "invalid_request_error"), id="B, no code"),
    pytest.param(
        {"error": {"message": '"model" is required', "type": "invalid_request", "param": "model"}},
        Peeled('"model" is required', None, "invalid_request"),
        id="C, a quoted word first",
    ),
    pytest.param({"error": ENGINE_ERROR}, Peeled(OVERFLOW, "400", "exceed_context_size_error"), id="D in a string"),
    pytest.param(
        {"error": {"message": ENGINE_ERROR, "type": "x", "code": "y"}},
        Peeled(OVERFLOW, "400", "exceed_context_size_error"),
        id="D in an object",
    ),
    pytest.param({"error": {"message": "Nested."}, "message": "Flat."}, Peeled("Nested."), id="nested and flat"),
    pytest.param({"message": "Flat."}, Peeled("Flat."), id="flat"),
    pytest.param({"error": True, "message": "Flat."}, Peeled("Flat."), id="flat beside a flag"),
    pytest.param(
        {"type": "error", "error": {"type": "internal_error", "message": "Broke.", "code": "unknown"}},
        Peeled("Broke.", "unknown", "internal_error"),
        id="native stream",
    ),
    pytest.param(
        {"error": "[Server Error] _0x48eeaf is not iterable"},
        Peeled("[Server Error] _0x48eeaf is not iterable"),
        id="a text that begins like an array",
    ),
    pytest.param(
        {"error": 'The schema {"message": "x"} is not valid'},
        Peeled('The schema {"message": "x"} is not valid'),
        id="JSON in the middle is part of the text",
    ),
    pytest.param(
        {"error": 'Bad value: {"a": 1}'}, Peeled('Bad value: {"a": 1}'), id="JSON at the end that is no error"
    ),
]


@pytest.mark.parametrize(("envelope", "expected"), ENVELOPES)
def test_every_envelope_is_peeled(envelope: object, expected: Peeled) -> None:
    text = json.dumps(envelope, indent=4)
    assert peel(envelope) == peel(text) == peel(text.encode()) == expected


@pytest.mark.parametrize(
    ("issues", "expected"),
    [
        ([{"message": "Required", "path": []}], "Required"),
        ([{"message": "Required"}], "Required"),
        ([{"message": "Required", "path": ["input", 0, "role"]}], "input[0].role: Required"),
        ([{"message": "A", "path": [0]}, {"message": "B", "path": [1, "x"]}], "tools[0]: A; tools[1].x: B"),
        ([{"message": f"m{n}"} for n in range(7)], "m0; m1; m2; m3; m4; and 2 more"),
        ([{}, {"message": "Required"}], "Required"),
        ([{"message": " "}, {"message": "Required"}], "Required"),
    ],
)
def test_issues_become_a_sentence(issues: list[object], expected: str) -> None:
    assert peel({"error": json.dumps(issues)}).message == expected


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (b"", "an empty body"),
        ("  \n", "an empty body"),
        (b"<!DOCTYPE html><html></html>", "text/html, not JSON"),
        (b'{"error":"Unexp', "broken JSON"),
        (b'[{"code": "inv', "broken JSON"),
        (b"{}", "JSON that has no error message"),
        ({}, "an error that has no message"),
        ({"error": {"message": "  "}}, "an error that has no message"),
        (None, "an error that has no message"),
    ],
)
def test_what_has_no_message_is_described(value: object, what: str) -> None:
    assert peel(value) == Peeled(f"LM Studio answered with {what}")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["error", "message", "code", "type", "path"]), inner, max_size=4)
        | inner.map(lambda value: f"Failed: {json.dumps(value)}")
    ),
    max_leaves=8,
)


@given(JSON | st.text() | st.binary() | JSON.map(json.dumps))
@example("[" * 100_000)
@example('{"error":' * 5_000 + "1" + "}" * 5_000)
@example("9" * 10_000)
@example(b"\xff\xfe{")
@example({"error": "\ud800"})
@example({"error": {"message": "No.", "code": 10**5000}})
@example("No." + " " * 100_000 + "Really.")
@example('Failed: [{"message": ""}]')
def test_peel_never_raises_and_always_says_something(value: object) -> None:
    peeled = peel(value)
    assert peeled.message
    assert len(peeled.message) <= MAX_TEXT


def test_a_long_text_is_cut() -> None:
    assert peel("x" * 10_000).message == "x" * MAX_TEXT


@pytest.mark.parametrize(
    ("status", "content_type", "body", "expected_status", "message"),
    [
        (400, "application/json", b'{"error":"No."}', 400, "No."),
        (404, "application/json", b'{"error":{"message":"No."}}', 404, "No."),
        (500, "application/json", b'{"error":"No."}', 500, "No."),
        (599, "text/plain", b"Plain words.", 599, "Plain words."),
        (200, "application/json", b'{"error":"No."}', 502, "No."),
        (302, "", b"", 502, "LM Studio answered 302 with an empty body"),
        (
            502,
            "text/html; charset=utf-8",
            b"<html>Bad gateway",
            502,
            "LM Studio answered 502 with text/html, not JSON",
        ),
        (502, "text/html", b"Bad gateway", 502, "LM Studio answered 502 with text/html, not JSON"),
        (503, "application/json", b'{"err', 503, "LM Studio answered 503 with broken JSON"),
        (500, "application/json", b"{}", 500, "LM Studio answered 500 with JSON that has no error message"),
    ],
)
def test_status_and_message_of_an_answer(
    status: int, content_type: str, body: bytes, expected_status: int, message: str
) -> None:
    error = error_from_response(status, content_type, body)
    assert (error.status, error.message) == (expected_status, message)
    assert str(error) == message


EVICTIONS = [
    {"error": 'Failed to load model "m". Error: Engine protocol startup was aborted'},
    {"error": {"message": 'Failed to load model "m". Error: Engine protocol startup was aborted', "code": None}},
    {"error": "Model unloaded."},
    {"error": "Model is unloaded."},
    {"error": "Engine protocol predict request failed: fetch failed"},
]


@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize("body", EVICTIONS, ids=str)
def test_an_eviction_is_not_the_clients_doing(body: object, status: int) -> None:
    error = error_from_response(status, "application/json", json.dumps(body))
    said = peel(body).message.removesuffix(".")
    assert (error.status, error.message) == (503, f"{said}. {EVICTED_HINT}")
    assert is_evicted(error)
    event = from_event(body)
    assert (event.status, event.message) == (503, peel(body).message)
    assert is_evicted(event)


@pytest.mark.parametrize(
    "message",
    [
        "LM Link connection entered error state: peer_keepalive_timeout",
        'Failed to load model "m". Error: LM Link connection entered error state: peer_keepalive_timeout.',
    ],
)
def test_a_lost_device_is_not_the_clients_doing(message: str) -> None:
    for error in (
        error_from_response(400, "application/json", json.dumps({"error": message})),
        from_event({"error": {"message": message, "code": 400}}),
    ):
        assert (error.status, error.message) == (503, f"{message.removesuffix('.')}. {LINK_HINT}")
        assert is_evicted(error)
        assert not is_model_not_found(error)


@pytest.mark.parametrize(
    "message", ["The model has crashed", "No models loaded.", "Failed to load model: no memory", "Say: Model unloaded."]
)
def test_what_is_no_eviction(message: str) -> None:
    error = error_from_response(400, "application/json", json.dumps({"error": message}))
    assert (error.status, error.message) == (400, message)
    assert not is_evicted(error)


@pytest.mark.parametrize(
    ("status", "word", "not_found"),
    [(404, "model_not_found", True), (503, "model_unavailable", False), (429, "Too Many Requests", False)],
)
def test_what_olla_says_in_a_word_is_a_sentence(status: int, word: str, not_found: bool) -> None:
    error = error_from_response(status, "text/plain; charset=utf-8", f"{word}\n".encode())
    assert (error.status, is_model_not_found(error)) == (status, not_found)
    assert len(error.message.split()) > 5
    assert error_from_response(status, "application/json", json.dumps({"error": word})).message == word


@pytest.mark.parametrize("status", [200, 404])
def test_an_unknown_route_is_a_missing_endpoint(status: int) -> None:
    body = b'{"error":"Unexpected endpoint or method. (POST /api/v1/models/load)"}'
    error = error_from_response(status, "application/json; charset=utf-8", body)
    assert error.status == 502
    assert error.message.startswith("This LM Studio does not have POST /api/v1/models/load;")


@pytest.mark.parametrize(
    ("body", "unknown"),
    [
        (b'{"error":"Unexpected endpoint or method. (POST /api/v1/models/load)"}', True),
        (b'{"error":"Unexpected endpoint or method. (GET /caf\xff)"}', True),
        (b'{"error":"No."}', False),
        (b'{"error":"It said: Unexpected endpoint or method. (GET /x)"}', False),
        (b'{"x":1,"error":"Unexpected endpoint or method. (GET /x)"}', False),
        (b"", False),
    ],
)
def test_a_body_that_names_an_unknown_route(body: bytes, unknown: bool) -> None:
    assert is_unknown_route(body) is unknown


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_is_not_the_clients_doing(status: int) -> None:
    error = error_from_response(status, "application/json", json.dumps({"error": MALFORMED_TOKEN}))
    assert (error.status, error.code, error.type) == (502, "invalid_api_key", "invalid_request")
    assert "lmstudio_token" in error.message
    assert "sk-bogus" not in error.message


@pytest.mark.parametrize(
    ("event", "status"),
    [
        ({"error": {"message": ENGINE_ERROR}}, 400),
        ({"error": {"message": "Model unloaded."}}, 503),
        ({"error": "Model unloaded."}, 503),
        ({"error": {"message": "x", "code": 200}}, 500),
        ({"error": {"message": "x", "code": "unknown"}}, 500),
    ],
)
def test_an_event_has_the_status_of_the_engine_or_500(event: object, status: int) -> None:
    assert from_event(event).status == status


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"data": []}, None),
        ({"models": None}, None),
        ({"error": None, "data": []}, None),
        ({"error": {"message": "No."}}, "No."),
        ({"object": "list"}, "LM Studio answered with something that has no models or data"),
        ({"error": None}, "LM Studio answered with something that has no models or data"),
        (["data"], "LM Studio answered with something that has no models or data"),
        (None, "LM Studio answered with something that has no models or data"),
    ],
)
def test_a_success_without_what_was_asked_for_is_an_error(body: object, message: str | None) -> None:
    error = unexpected_success(body, ("models", "data"))
    assert (error and error.message) == message
    assert error is None or error.status == 502


TOKEN = "sk-lm-abcdefgh:ABCDEFGHIJKLMNOPQRST"


@pytest.mark.parametrize(
    ("text", "secrets", "expected"),
    [
        ("nothing here", ["", "hidden"], "nothing here"),
        ("a hidden word", ["hidden"], "a *** word"),
        ("ab abc", ["ab", "abc"], "*** ***"),
        (f"token {TOKEN} refused", [], "token *** refused"),
        (
            MALFORMED_TOKEN["message"],
            [],
            "Malformed LM Studio API token provided: ***. Ensure you are using a valid token.",
        ),
        ("Malformed LM Studio API token provided: my two w****.", [], "Malformed LM Studio API token provided: ***."),
        (
            "Malformed LM Studio API token provided: short. Ensure",
            [],
            "Malformed LM Studio API token provided: ***. Ensure",
        ),
        ("Malformed LM Studio API token provided: sk-lm-abcd****", [], "Malformed LM Studio API token provided: ***"),
    ],
)
def test_scrub(text: str, secrets: list[str], expected: str) -> None:
    assert scrub(text, secrets) == expected


def test_given_secrets_are_scrubbed_wherever_a_message_is_made() -> None:
    body = {"error": "you said hidden"}
    unexpected = unexpected_success(body, ("data",), ["hidden"])
    assert unexpected is not None
    messages = {
        peel(body, ["hidden"]).message,
        from_event(body, ["hidden"]).message,
        error_from_response(400, "", json.dumps(body), ["hidden"]).message,
        unexpected.message,
    }
    assert messages == {"you said ***"}


@pytest.mark.parametrize(
    ("body", "no_models", "not_found"),
    [
        ({"error": UNKNOWN_MODEL}, False, True),
        ({"error": NO_MODEL}, True, False),
        ({"error": {"type": "model_not_found", "message": "Model x not found in downloaded models"}}, False, True),
        (
            {"error": {"code": "model_not_found", "message": 'Failed to load model "x". Error: too big.'}},
            False,
            False,
        ),
        ({"error": "Model unloaded."}, False, False),
    ],
)
def test_errors_that_say_the_model_is_not_there(body: object, no_models: bool, not_found: bool) -> None:
    error = error_from_response(400, "application/json", json.dumps(body))
    assert (is_no_models_loaded(error), is_model_not_found(error)) == (no_models, not_found)


TOKEN_REFUSED = {
    "error": {"type": "invalid_request", "code": "invalid_api_key", "message": "An API token is required."}
}


@pytest.mark.parametrize(
    ("status", "body", "refused"),
    [(401, TOKEN_REFUSED, True), (401, {}, True), (403, {"error": "no"}, True), (400, {"error": "no"}, False)],
)
def test_errors_that_say_the_token_is_not_right(status: int, body: object, refused: bool) -> None:
    assert is_token_refused(error_from_response(status, "application/json", json.dumps(body))) is refused


def test_unreachable_says_what_to_do() -> None:
    error = LMStudioUnreachable("http://localhost:1234")
    assert isinstance(error, LMStudioError)
    assert error.status == 503
    assert error.message == (
        "LM Studio is not reachable at http://localhost:1234. Start its server: Developer tab, or `lms server start`."
    )
    assert "http://x (refused)." in LMStudioUnreachable("http://x", "refused").message


def test_timeout_says_what_and_how_long() -> None:
    error = LMStudioTimeout("GET /v1/models", 2.0)
    assert (error.status, error.message) == (503, "LM Studio did not answer GET /v1/models within 2 seconds.")


@pytest.mark.parametrize(
    ("message", "lacks"),
    [
        (
            "Model loading was stopped due to insufficient system resources. Under the current settings, this model",
            True,
        ),
        (
            'Failed to load model "X". Error: Model loading aborted due to insufficient system resources. Overloading',
            True,
        ),
        ("Engine protocol startup was aborted", False),
    ],
)
def test_a_load_that_is_refused_for_lack_of_memory(message: str, lacks: bool) -> None:
    assert lacks_memory(LMStudioError(500, message)) is lacks
