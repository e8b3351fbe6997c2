"""Images as parts of LM Studio's messages. LM Studio takes PNG and JPEG only; other kinds are converted with Pillow."""

from __future__ import annotations

import base64
import binascii
import io
import re
from http import HTTPStatus
from typing import Any

from ..ollama.errors import OllamaError

# The first bytes of an image -> its media type, as in the WHATWG's MIME Sniffing, section 6.1; TIFF from its own
# specification.
IMAGE_TYPES: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
)
# More than any camera's: it takes seconds to convert them, and models see some hundred thousand of them at most.
MAX_PIXELS = 50_000_000
TOO_MANY_PIXELS = "the {} image is too large to be converted ({} x {} pixels): send it as PNG or JPEG, or a smaller one"
LMSTUDIO_IMAGE_TYPES = frozenset({"image/png", "image/jpeg"})

_DATA_URL = re.compile(r"data:([^,;]*)(?:;[^,;]*)*;base64,", re.IGNORECASE)
# Go's decoder of base64 skips them, and so does Ollama.
_LINE_BREAKS = str.maketrans("", "", "\r\n")
# Letters of base64 that hold the first bytes of an image.
_FIRST_LETTERS = 24


def image_type(data: bytes) -> str:
    """Return an image's media type by its first bytes; an empty string for unknown ones."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((media_type for start, media_type in IMAGE_TYPES if data.startswith(start)), "")


def image_to_lmstudio(data: bytes) -> dict[str, Any]:
    """Return an image as a part of a message, with a data URL.

    Raises OllamaError (400) for a kind that LM Studio refuses and that cannot be converted.
    """
    media_type = image_type(data)
    if media_type in LMSTUDIO_IMAGE_TYPES:
        pass
    elif media_type:
        data, media_type = _to_png(data, media_type), "image/png"
    else:
        # LM Studio reads bytes only under a label that it takes; then its own error message is about the bytes.
        media_type = "image/png"
    return {
        "type": "image_url",
        "image_url": {"url": f"data:{media_type};base64,{base64.b64encode(data).decode()}"},
    }


def url_to_lmstudio(url: str) -> str:
    """Return a data URL as LM Studio takes it; it refuses `image/jpg`, for one, and a URL without a type.

    What LM Studio takes is returned as it is, and so is what is no image: LM Studio says so. Raises OllamaError (400)
    for a kind that LM Studio refuses and that cannot be converted.
    """
    match = _DATA_URL.match(url)
    if match is None:
        return url
    given = url[match.end() :]
    media_type, data = base64_to_lmstudio(match[1], given)
    head = f"data:{media_type};base64,"
    is_taken = url.startswith(head) and data is given
    return url if is_taken or media_type not in LMSTUDIO_IMAGE_TYPES else head + data


def base64_to_lmstudio(media_type: str, data: str) -> tuple[str, str]:
    """Return an image's media type and its data, in base64, as LM Studio takes them: see `url_to_lmstudio`."""
    if "\n" in data or "\r" in data:
        data = data.translate(_LINE_BREAKS)
    kind, media_type = image_type(_decode(data[:_FIRST_LETTERS])), media_type.lower()
    if kind in LMSTUDIO_IMAGE_TYPES:
        return (media_type if media_type in LMSTUDIO_IMAGE_TYPES else kind), data
    if not kind:
        return ("image/png" if media_type.startswith("image/") or not media_type else media_type), data
    return "image/png", base64.b64encode(_to_png(_decode(data), kind)).decode()


def _decode(data: str) -> bytes:
    """Return what base64 stands for; nothing for a text that is none."""
    try:
        return base64.b64decode(data, validate=True)
    except (ValueError, binascii.Error):
        return b""


def _to_png(data: bytes, media_type: str) -> bytes:
    try:
        from PIL import Image
    except ImportError:
        message = (
            f"LM Studio takes PNG and JPEG images, not {media_type}: to have them converted, install the extra `images`"
        )
        raise OllamaError(HTTPStatus.BAD_REQUEST, message) from None
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise OllamaError(HTTPStatus.BAD_REQUEST, TOO_MANY_PIXELS.format(media_type, width, height))
            converted = io.BytesIO()
            image.convert("RGBA").save(converted, "PNG")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise OllamaError(HTTPStatus.BAD_REQUEST, f"the {media_type} image cannot be read") from None
    return converted.getvalue()
