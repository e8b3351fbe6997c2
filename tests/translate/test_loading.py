"""`keep_alive` as LM Studio's `ttl`."""

from __future__ import annotations

import math

import pytest

from ollama_lmstudio.ollama.durations import FOREVER, KeepAlive
from ollama_lmstudio.translate import loading


@pytest.mark.parametrize(
    ("keep_alive", "ttl"),
    [
        (None, {}),
        (FOREVER, {"ttl": 2_147_483}),
        (KeepAlive(0), {}),
        (KeepAlive(300), {"ttl": 300}),
        (KeepAlive(0.1), {"ttl": 1}),
        (KeepAlive(1.5), {"ttl": 2}),
        (KeepAlive(math.inf), {"ttl": 2_147_483}),
        (KeepAlive(2_147_482.5), {"ttl": 2_147_483}),
        (KeepAlive(30 * 24 * 3600), {"ttl": 2_147_483}),
    ],
)
def test_ttl(keep_alive: KeepAlive | None, ttl: dict[str, int]) -> None:
    assert loading.ttl(keep_alive) == ttl
