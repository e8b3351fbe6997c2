"""Compressed bodies, decompressed piece by piece: a small one may become gigabytes."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from mitmproxy.net import encoding

# Ollama takes 20 MiB of such a body, and has no limit for others.
MAX_BYTES = 64 * 10**6

# So much is decompressed, or given to what cannot be asked for less than all that it becomes. Brotli makes 16 MiB of
# a few bytes.
OUTPUT_BYTES = 1 << 20
INPUT_BYTES = {"deflate": 1 << 12, "br": 1 << 6}

# One of two modules, as mitmproxy's version is.
_zstd: Any = getattr(encoding, "zstd", None)
_brotli: Any = getattr(encoding, "brotli", None)


class TooLarge(Exception):  # noqa: N818
    """There is more than the limit."""


def decompress(body: bytes, name: str, limit: int = MAX_BYTES) -> bytes | None:
    """Decompress a body with the content encoding `name`; None for one that is broken, or of another encoding.

    Raises TooLarge for what becomes larger than `limit`.
    """
    pieces = _PIECES.get(name.strip().lower())
    if pieces is None:
        return None
    found = bytearray()
    try:
        for piece in pieces(body):
            found += piece
            if len(found) > limit:
                raise TooLarge
    except TooLarge:
        raise
    except Exception:  # each of the libraries has its own
        return None
    return bytes(found)


def _identity(body: bytes) -> Iterator[bytes]:
    yield body


def _read(reader: Any) -> Iterator[bytes]:
    return iter(partial(reader.read, OUTPUT_BYTES), b"")


def _gzip(body: bytes) -> Iterator[bytes]:
    return _read(gzip.GzipFile(fileobj=io.BytesIO(body)))


def _zstandard(body: bytes) -> Iterator[bytes]:
    if hasattr(_zstd, "ZstdFile"):
        return _read(_zstd.ZstdFile(io.BytesIO(body)))
    return _read(_zstd.ZstdDecompressor().stream_reader(io.BytesIO(body), read_across_frames=True))


def _deflate(body: bytes) -> Iterator[bytes]:
    try:
        zlib.decompressobj().decompress(body, 1)
        bits = zlib.MAX_WBITS
    except zlib.error:
        bits = -zlib.MAX_WBITS  # some leave the header out
    decompressor = zlib.decompressobj(bits)
    yield from _fed(body, decompressor.decompress, INPUT_BYTES["deflate"])
    if not decompressor.eof:
        raise EOFError


def _br(body: bytes) -> Iterator[bytes]:
    decompressor = _brotli.Decompressor()
    yield from _fed(body, decompressor.process, INPUT_BYTES["br"])
    if not decompressor.is_finished():
        raise EOFError


def _fed(body: bytes, feed: Callable[[bytes], bytes], size: int) -> Iterator[bytes]:
    return (feed(body[at : at + size]) for at in range(0, len(body), size))


# The encodings that mitmproxy names, too.
_PIECES: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "none": _identity,
    "identity": _identity,
    "gzip": _gzip,
    "deflate": _deflate,
    "deflateraw": _deflate,
    "br": _br,
    "zstd": _zstandard,
}
