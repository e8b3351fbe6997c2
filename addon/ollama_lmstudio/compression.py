"""Compressed bodies, decompressed in pieces: a few kilobytes may become gigabytes.

Ollama decodes zstd, on /v1 only. gzip, deflate and br (RFC 9110 8.4.1, RFC 7932) are decoded as well: LM Studio takes
them, and the model's name in the body has to be mapped.
"""

from __future__ import annotations

import gzip
import importlib
import io
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

# Readers return at most this much at once.
OUTPUT_BYTES = 1 << 20
# Decompressors that cannot limit their output get this much input at once: deflate makes at most 1032 times as much of
# it, brotli 16 MiB of a few bytes.
INPUT_BYTES = {"deflate": 1 << 12, "br": 1 << 6}


def _first_of(*names: str) -> Any:
    """Return the first module that can be imported, or None."""
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


# mitmproxy depends on brotli, and for zstd on one of these: 12 on Python's own (3.14) or its backport, 11 on zstandard.
# Without it, a body in that encoding is passed on as it is.
_zstd = _first_of("compression.zstd", "backports.zstd", "zstandard")
_brotli = _first_of("brotli")


class TooLarge(Exception):  # noqa: N818
    """The decompressed body is larger than the limit."""


def decompress(body: bytes, name: str, limit: int) -> bytes | None:
    """Decompress a body with the content encoding `name`; None if it is broken, or of another encoding.

    Raises TooLarge if it becomes larger than `limit`.
    """
    pieces = _PIECES.get(name.strip().lower())
    if pieces is None:
        return None
    decompressed = bytearray()
    try:
        for piece in pieces(body):
            decompressed += piece
            if len(decompressed) > limit:
                raise TooLarge
    except TooLarge:
        raise
    except Exception:  # each library has its own
        return None
    return bytes(decompressed)


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
        # RFC 9110 8.4.1.2: some senders omit the zlib wrapper.
        bits = -zlib.MAX_WBITS
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


_PIECES: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "gzip": _gzip,
    "deflate": _deflate,
    "br": _br,
    "zstd": _zstandard,
}
