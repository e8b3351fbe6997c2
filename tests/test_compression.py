"""Compressed bodies."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator

import pytest
from mitmproxy.net import encoding

from ollama_lmstudio import compression
from ollama_lmstudio.compression import TooLarge, decompress

BODY = bytes(range(256)) * 4096
ENOUGH = 64_000_000
NAMES = ("gzip", "deflate", "br", "zstd")


def compress(body: bytes, name: str) -> bytes:
    compressed = encoding.encode(body, name)
    assert isinstance(compressed, bytes)
    return compressed


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("body", [b"", b"{}", BODY])
def test_all_encodings(name: str, body: bytes) -> None:
    assert decompress(compress(body, name), name, ENOUGH) == body
    assert decompress(compress(body, name), f" {name.upper()}", ENOUGH) == body
    assert decompress(compress(body, name), name, len(body)) == body


def test_a_gzip_of_several_members_and_a_deflate_without_header() -> None:
    assert decompress(gzip.compress(b"a") + gzip.compress(b"b"), "gzip", ENOUGH) == b"ab"
    raw = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    assert decompress(raw.compress(BODY) + raw.flush(), "deflate", ENOUGH) == BODY


@pytest.mark.parametrize("name", NAMES)
def test_what_is_larger_is_not_decompressed_to_its_end(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = compress(bytes(64 << 20), name)
    taken = 0
    pieces = compression._PIECES[name]

    def counted(body: bytes) -> Iterator[bytes]:
        nonlocal taken
        for piece in pieces(body):
            taken += len(piece)
            yield piece

    monkeypatch.setitem(compression._PIECES, name, counted)
    with pytest.raises(TooLarge):
        decompress(bomb, name, 1 << 20)
    assert taken <= 32 << 20
    with pytest.raises(TooLarge):
        decompress(compress(BODY, name), name, len(BODY) - 1)


@pytest.mark.parametrize("name", ["br", "zstd"])
def test_an_encoding_whose_library_is_missing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = compress(BODY, name)
    monkeypatch.setattr(compression, "_zstd", compression._first_of("no_such_module"))
    monkeypatch.setattr(compression, "_brotli", None)
    assert decompress(body, name, ENOUGH) is None


@pytest.mark.parametrize("name", NAMES)
def test_what_is_broken(name: str) -> None:
    assert decompress(b"not compressed", name, ENOUGH) is None
    if name != "zstd":  # one of the two modules takes a part for the whole
        assert decompress(compress(BODY, name)[:-9], name, ENOUGH) is None


@pytest.mark.parametrize("name", ["", "identity", "bz2", "zip", "utf-8", "hex", "gzip, br", "unheard-of"])
def test_other_encodings_stay(name: str) -> None:
    assert decompress(b"00", name, ENOUGH) is None
