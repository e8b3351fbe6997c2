"""The size of images as programs write them, and of what only begins like one."""

from __future__ import annotations

import base64
import io
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ollama_lmstudio.inspect import image_size

SIZES = ((1, 1), (640, 480), (300, 1000))
KINDS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "GIF": {},
    "JPEG": {},
    "JPEG with a profile": {"format": "JPEG", "icc_profile": b"x" * 100_000},
    "progressive JPEG": {"format": "JPEG", "progressive": True},
    "WebP": {"lossless": False},
    "lossless WebP": {"format": "WebP", "lossless": True},
    "WebP with a profile": {"format": "WebP", "icc_profile": b"x" * 1000},
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_images_of_all_kinds(kind: str, size: tuple[int, int]) -> None:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, **{"format": kind, **KINDS[kind]})
    assert image_size.of_base64(base64.b64encode(file.getvalue()).decode()) == size


NONE = {
    "nothing": b"",
    "text": b"hello",
    "a PNG that is cut off": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00",
    "a JPEG without a frame": b"\xff\xd8\xff\xe0\x00\x10" + bytes(14) + b"\xff\xda",
    "a JPEG that is none": b"\xff\xd8\xff\xe0\x00\x02abc",
    "a segment longer than the rest": b"\xff\xd8\xff\xe0\xff\xff",
    "another RIFF": b"RIFF\x00\x00\x00\x00WAVE" + bytes(20),
    "a WebP that is cut off": b"RIFF\x00\x00\x00\x00WEBPVP8X" + bytes(8),
}


@pytest.mark.parametrize("head", NONE.values(), ids=NONE)
def test_what_does_not_tell_its_size(head: bytes) -> None:
    assert image_size.of(head) is None


def test_what_is_not_base64() -> None:
    for text in ("", "%", "/9j/%", "é" * 100, "a"):
        assert image_size.of_base64(text) is None


def test_a_jpeg_is_only_looked_at_up_to_a_limit() -> None:
    far = b"\xff\xd8" + b"\xff\xe0\xff\xff" + bytes(65533)
    far = far[:2] + far[2:] * 5 + b"\xff\xc0\x00\x11\x08" + struct.pack(">HH", 2, 3)
    assert image_size.of(far) == (3, 2)
    assert image_size.of_base64(base64.b64encode(far).decode()) is None


@given(st.sampled_from([b"\xff\xd8\xff", b"RIFF....WEBP", b"GIF89a", b"\x89PNG\r\n\x1a\n"]), st.binary(max_size=60))
def test_never_raises(begin: bytes, rest: bytes) -> None:
    image_size.of(begin + rest)
    image_size.of_base64(base64.b64encode(begin + rest).decode())
