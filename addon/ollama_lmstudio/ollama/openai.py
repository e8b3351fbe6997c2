"""What Ollama's OpenAI-compatible API takes in a request, where LM Studio's does not do the same with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from . import errors
from .decode import INT, STRING, Struct, decode

_FORMATS = ("float", "base64")


@dataclass(frozen=True, slots=True)
class EmbeddingFormat:
    """How `/v1/embeddings` is to give its vectors; `dimensions` of 0 and less are all of them."""

    base64: bool = False
    dimensions: int = 0

    @classmethod
    def decode(cls, members: bytes) -> Self:
        """Decode an object of `encoding_format` and `dimensions`. Raises OllamaError (400) with Ollama's text."""
        (encoding, dimensions), _ = decode(_EMBED_REQUEST, members)
        # Ollama takes the names in any case, and an empty one as none.
        if encoding and encoding.lower() not in _FORMATS:
            raise errors.invalid_encoding_format(encoding)
        return cls(encoding.lower() == "base64", dimensions)


_EMBED_REQUEST = Struct(
    "EmbedRequest",
    {"encoding_format": STRING, "dimensions": INT},
    lambda values, _: (values["encoding_format"], values["dimensions"]),
)
