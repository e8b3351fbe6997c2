"""The size of an image in pixels, read from its first bytes."""

from __future__ import annotations

import base64
import struct

Pixels = tuple[int, int]
"""Width and height."""

# Of a file in base64, so many characters are decoded: all of the headers but JPEG's, whose size may be behind a preview
# and a colour profile.
_HEAD_CHARACTERS = 64
_JPEG_CHARACTERS = 256 * 1024

_JPEG = b"\xff\xd8\xff"
# Start of frame, of any kind of JPEG; the other markers of this range are tables.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Markers that nothing follows, and the one behind which the picture itself begins.
_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))
_SCAN = 0xDA
_MARKER = 0xFF


def of_base64(data: str) -> Pixels | None:
    """Return the width and height of a PNG, JPEG, GIF or WebP in base64; None if its first bytes do not tell them."""
    try:
        head = _decoded(data, _HEAD_CHARACTERS)
        return of(_decoded(data, _JPEG_CHARACTERS) if head.startswith(_JPEG) else head)
    except ValueError:
        return None


def of(head: bytes) -> Pixels | None:
    """Return the width and height of the image that begins like this; None if that does not tell them."""
    try:
        if head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR":
            return _pair(">II", head, 16)
        if head.startswith((b"GIF87a", b"GIF89a")):
            return _pair("<HH", head, 6)
        if head.startswith(_JPEG):
            return _jpeg(head)
        if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
            return _webp(head)
    except struct.error:
        pass
    return None


def _decoded(data: str, characters: int) -> bytes:
    """Return the beginning of a file in base64."""
    head = data[:characters].rstrip("=")
    return base64.b64decode(head[: len(head) // 4 * 4])


def _pair(pattern: str, data: bytes, at: int) -> Pixels:
    first, second = struct.unpack_from(pattern, data, at)
    return first, second


def _jpeg(data: bytes) -> Pixels | None:
    """Go from marker to marker up to the frame (ITU-T T.81, annex B)."""
    at = 2
    while True:
        mark, kind = _pair(">BB", data, at)
        if mark != _MARKER or kind == _SCAN:
            return None
        at += 2
        if kind == _MARKER:
            # A fill byte.
            at -= 1
        elif kind in _FRAMES:
            height, width = _pair(">HH", data, at + 3)
            return width, height
        elif kind not in _ALONE:
            at += struct.unpack_from(">H", data, at)[0]


def _webp(data: bytes) -> Pixels | None:
    """Read the first chunk: VP8 (RFC 6386, section 9.1), VP8L or VP8X (RFC 9649)."""
    kind = data[12:16]
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = _pair("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        sizes = struct.unpack_from("<HBHB", data, 24)
        return sizes[0] + (sizes[1] << 16) + 1, sizes[2] + (sizes[3] << 16) + 1
    return None
