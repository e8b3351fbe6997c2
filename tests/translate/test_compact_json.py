"""JSON for LM Studio."""

from __future__ import annotations

from ollama_lmstudio.translate.compact_json import dumps


def test_bodies_are_compact_utf_8() -> None:
    assert dumps({"b": "é", "a": [1, {}]}) == '{"b":"é","a":[1,{}]}'.encode()
    assert dumps({"x": "a\ud800b"}) == b'{"x":"a?b"}'
