"""Images: which kinds are sent as they are, which are converted, and which are refused."""

from __future__ import annotations

import base64
import io
import sys
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ollama_lmstudio.ollama.errors import OllamaError
from ollama_lmstudio.translate.images import image_to_lmstudio, image_type


def picture(kind: str, color: tuple[int, ...] = (200, 10, 20), mode: str = "RGB") -> bytes:
    data = io.BytesIO()
    Image.new(mode, (4, 3), color).save(data, kind)
    return data.getvalue()


PNG, JPEG, GIF = (picture(kind) for kind in ("PNG", "JPEG", "GIF"))
WEBP = picture("WEBP")


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (PNG, "image/png"),
        (JPEG, "image/jpeg"),
        (GIF, "image/gif"),
        (b"GIF89a", "image/gif"),
        (WEBP, "image/webp"),
        (picture("BMP"), "image/bmp"),
        (picture("TIFF"), "image/tiff"),
        (b"MM\x00*", "image/tiff"),
        (b"RIFF\0\0\0\0WAVE", ""),
        (b"", ""),
        (b"hello", ""),
        (PNG[1:], ""),
    ],
)
def test_image_types(data: bytes, media_type: str) -> None:
    assert image_type(data) == media_type


def sent(part: dict[str, Any]) -> tuple[str, bytes]:
    assert part["type"] == "image_url"
    head, _, body = part["image_url"]["url"].partition(",")
    return head, base64.b64decode(body, validate=True)


@pytest.mark.parametrize(("data", "label"), [(PNG, "png"), (JPEG, "jpeg"), (b"hello", "png"), (b"", "png")])
def test_images_that_go_as_they_are(data: bytes, label: str) -> None:
    assert sent(image_to_lmstudio(data)) == (f"data:image/{label};base64", data)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "BMP", "TIFF"])
def test_images_that_are_converted(kind: str) -> None:
    head, data = sent(image_to_lmstudio(picture(kind)))
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == ("PNG", (4, 3))
        red, green, blue, alpha = image.convert("RGBA").getpixel((1, 1))  # type: ignore[misc]
    assert red > 180
    assert green < 40
    assert blue < 60
    assert alpha == 255


def test_what_is_transparent_stays_so() -> None:
    _, data = sent(image_to_lmstudio(picture("WEBP", (1, 2, 3, 0), "RGBA")))
    with Image.open(io.BytesIO(data)) as image:
        assert image.getpixel((0, 0))[3] == 0  # type: ignore[index]


def test_without_pillow_the_client_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert sent(image_to_lmstudio(PNG)) == ("data:image/png;base64", PNG)
    for data, kind in ((WEBP, "webp"), (GIF, "gif")):
        with pytest.raises(OllamaError, match=f"not image/{kind}: .* the extra `images`") as caught:
            image_to_lmstudio(data)
        assert caught.value.status == 400


@given(st.sampled_from([GIF, WEBP, picture("BMP"), picture("TIFF")]), st.data())
def test_a_broken_image_is_the_clients_mistake(whole: bytes, drawn: st.DataObject) -> None:
    broken = bytearray(whole[: drawn.draw(st.integers(12, len(whole)))])
    for at in drawn.draw(st.lists(st.integers(12, max(12, len(broken) - 1)), max_size=6)):
        broken[at : at + 1] = drawn.draw(st.binary(min_size=1, max_size=1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of what it reads all the same
        try:
            outcome: object = sent(image_to_lmstudio(bytes(broken)))[0]
        except OllamaError as error:
            outcome = (error.status, error.message.partition(" image ")[2].partition(" (")[0])
    # One whose head was broken may say that it is huge.
    mistakes = [(400, "cannot be read"), (400, "is too large to be converted")]
    assert outcome in ("data:image/png;base64", *mistakes)
