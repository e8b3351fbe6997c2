"""`/v1/embeddings` as Ollama answers it: vectors of length 1, cut to `dimensions`, as base64 where that is asked for.

LM Studio ignores `encoding_format` and `dimensions`, and a client that decodes its floats as base64 gets other vectors
without an error: OpenAI's library for JavaScript asks for base64 unless it is told otherwise.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Sequence
from functools import partial
from typing import Any

from ..ollama import errors, wire
from ..ollama.openai import EmbeddingFormat
from .embeddings import normalise
from .passthrough import PassedRequest

# A vector of 32 bit floats that has been scaled to length 1 and written as text is no further from it.
LENGTH_TOLERANCE = 1e-5


def repair_embeddings(request: PassedRequest) -> bool:
    """Have the answer's vectors changed to what the request asks for. Raises OllamaError (400) for a wrong format."""
    body = request.body
    names = ("encoding_format", "dimensions")
    wanted = EmbeddingFormat()
    if any(body.get(name) is not None for name in names):
        members = ",".join(f'"{name}":{body.source(name)}' for name in names)
        wanted = EmbeddingFormat.decode(f"{{{members}}}".encode("utf-8", "surrogateescape"))
    if wanted.base64:
        # Should LM Studio ever encode by itself, there would be no floats to normalise.
        body.set("encoding_format", "float")
    request.rewrite = partial(rewrite, wanted)
    return wanted.base64 or wanted.dimensions > 0


def rewrite(wanted: EmbeddingFormat, answer: bytes) -> bytes:
    """Return an answer of LM Studio's with the vectors as they are wanted; the same bytes if they are so already.

    What is no such answer is returned as it is. Raises OllamaError (400) for a vector that is not of finite numbers.
    """
    try:
        content = json.loads(answer)
        rows = [dict(row) for row in content["data"]]
        if not all(isinstance(row["embedding"], list) for row in rows):
            return answer
    except (ValueError, TypeError, KeyError, RecursionError):
        return answer
    try:
        if not wanted.base64 and all(_is_as_wanted(row["embedding"], wanted) for row in rows):
            return answer
        for row in rows:
            row["embedding"] = _encode(normalise(row["embedding"], wanted.dimensions), wanted)
    except (ValueError, TypeError, OverflowError):
        raise errors.embedding_not_finite() from None
    return wire.dumps({**content, "data": rows})


def _is_as_wanted(vector: Sequence[float], wanted: EmbeddingFormat) -> bool:
    if 0 < wanted.dimensions < len(vector):
        return False
    length = math.hypot(*vector)
    return not length or abs(length - 1) <= LENGTH_TOLERANCE


def _encode(vector: Sequence[float], wanted: EmbeddingFormat) -> Any:
    numbers = wire.Vector(vector)
    if not wanted.base64:
        return numbers
    # OpenAI's form: 32 bit floats, the least significant byte first.
    return base64.b64encode(struct.pack(f"<{len(numbers.floats)}f", *numbers.floats)).decode()
