"""Passwords in bodies that are kept."""

from __future__ import annotations

import json

import pytest

from ollama_lmstudio.record.redaction import without_secrets

MASKED = {
    "a password": (b'{"model":"m","password":"secret"}', b'{"model": "m", "password": "***"}'),
    # Ollama takes a field's name in any case.
    "in capitals": (b'{"Password":"secret"}', b'{"Password": "***"}'),
    "twice": (b'{"password":"a","PASSWORD":"b"}', b'{"password": "***", "PASSWORD": "***"}'),
    "after a byte order mark": (b'\xef\xbb\xbf{"password":"secret"}', b'{"password": "***"}'),
    "beside invalid UTF-8": (b'{"model":"\xff","password":"secret"}', b'{"model": "\\ufffd", "password": "***"}'),
}


@pytest.mark.parametrize(("body", "expected"), MASKED.values(), ids=MASKED)
def test_a_password_is_masked(body: bytes, expected: bytes) -> None:
    assert without_secrets(body) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{ "model":"m" }',
        b'{ "password":"" }',
        b'{ "password":null }',
        b'["password"]',
        b'{ "messages": [{"content": "my password"}] }',
        b'{"password":',
        b'{"password":' + b"[" * 200_000,
        b"\xffpassword",
    ],
)
def test_every_other_body_stays_as_it_is(body: bytes) -> None:
    assert without_secrets(body) == body


def test_a_conversation_about_passwords_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("ollama_lmstudio.tolerant_json.loads")
    for said in ("my password", 'my "password"', "my \\password"):
        body = json.dumps({"messages": [{"role": "user", "content": said}]}).encode()
        assert without_secrets(body) is body
