"""Embeddings on /v1 as Ollama answers them."""

from __future__ import annotations

import base64
import json
import math
import struct
from typing import Any

import pytest

from ollama_lmstudio.ollama.errors import OllamaError
from ollama_lmstudio.ollama.openai import EmbeddingFormat
from ollama_lmstudio.translate.repair_embeddings import rewrite

FLOATS = [0.25, -0.5, 0.125, 0.75, 1.0, 2.0, 3.0, 4.0]


def answer(*vectors: Any) -> bytes:
    """Write LM Studio's answer, as it lays it out."""
    data = [{"object": "embedding", "embedding": vector, "index": at} for at, vector in enumerate(vectors)]
    usage = {"prompt_tokens": 0, "total_tokens": 0}
    return json.dumps({"object": "list", "data": data, "model": "é", "usage": usage}, indent=2).encode()


def vectors(body: bytes) -> list[Any]:
    return [row["embedding"] for row in json.loads(body)["data"]]


def floats(text: str) -> list[float]:
    data = base64.b64decode(text, validate=True)
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def test_base64_is_of_little_endian_32_bit_floats() -> None:
    # As recorded from Ollama.
    recorded = [0.13927150, 0.18569534, 0, 0.37139067]
    made = rewrite(EmbeddingFormat(base64=True, dimensions=4), answer([*recorded, 0.9]))
    assert floats(vectors(made)[0]) == pytest.approx([x / math.hypot(*recorded) for x in recorded])
    unit = [0.5, -0.5, 0.5, 0.5]
    assert vectors(rewrite(EmbeddingFormat(base64=True), answer(unit))) == ["AAAAPwAAAL8AAAA/AAAAPw=="]


def test_only_the_vectors_change() -> None:
    body = answer(FLOATS, [0, 1, 0])
    before, after = json.loads(body), json.loads(rewrite(EmbeddingFormat(base64=True), body))
    assert list(after) == list(before)
    for row in before["data"] + after["data"]:
        assert list(row) == ["object", "embedding", "index"]
        del row["embedding"]
    assert after == before


@pytest.mark.parametrize(("dimensions", "length"), [(0, 8), (-1, 8), (2, 2), (8, 8), (9, 8)])
def test_vectors_are_cut_and_scaled(dimensions: int, length: int) -> None:
    for as_base64 in (True, False):
        (made,) = vectors(rewrite(EmbeddingFormat(as_base64, dimensions), answer(FLOATS)))
        numbers = floats(made) if as_base64 else made
        assert len(numbers) == length
        assert math.hypot(*numbers) == pytest.approx(1)
        assert numbers[1] / numbers[0] == pytest.approx(-2)


@pytest.mark.parametrize("vector", [[1], [0.6, 0.8], [0.599999999, 0.800000001], [0, 0], []])
def test_vectors_of_length_1_keep_their_bytes(vector: list[float]) -> None:
    body = answer(vector, [0, 1.0])
    assert rewrite(EmbeddingFormat(), body) == body


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"{}", b'{"data":null}', b'{"data":[1]}', b'{"data":[{}]}', b'{"error":"no"}'),
        *(answer("AAAA"), answer(None), answer([0.6, 0.8], {}), b"[" * 9999),
    ],
)
def test_what_is_no_answer_stays_as_it_is(body: bytes) -> None:
    assert rewrite(EmbeddingFormat(base64=True), body) == body


@pytest.mark.parametrize("vector", ["[null]", "[NaN]", "[1e999]", '["1"]', "[[1]]", "[1,[]]"])
@pytest.mark.parametrize("as_base64", [True, False])
def test_numbers_that_are_none(vector: str, as_base64: bool) -> None:
    body = b'{"data":[{"embedding":%s,"index":0}]}' % vector.encode()
    with pytest.raises(OllamaError, match="NaN or Inf"):
        rewrite(EmbeddingFormat(as_base64), body)


@pytest.mark.parametrize(
    ("members", "wanted"),
    [
        ("{}", EmbeddingFormat()),
        ('{"encoding_format":null,"dimensions":null}', EmbeddingFormat()),
        ('{"encoding_format":""}', EmbeddingFormat()),
        ('{"encoding_format":"FLOAT","dimensions":3}', EmbeddingFormat(False, 3)),
        ('{"encoding_format":"Base64","dimensions":-3}', EmbeddingFormat(True, -3)),
    ],
)
def test_formats(members: str, wanted: EmbeddingFormat) -> None:
    assert EmbeddingFormat.decode(members.encode()) == wanted


@pytest.mark.parametrize(
    ("members", "text"),
    [
        (
            '{"encoding_format":"hex"}',
            "Invalid value for 'encoding_format' = hex. Supported values: ['float', 'base64'].",
        ),
        (
            '{"encoding_format":5}',
            "json: cannot unmarshal number into Go struct field EmbedRequest.encoding_format of type string",
        ),
        (
            '{"dimensions":"2"}',
            "json: cannot unmarshal string into Go struct field EmbedRequest.dimensions of type int",
        ),
    ],
)
def test_formats_that_ollama_refuses(members: str, text: str) -> None:
    with pytest.raises(OllamaError) as raised:
        EmbeddingFormat.decode(members.encode())
    assert (raised.value.status, raised.value.message) == (400, text)
