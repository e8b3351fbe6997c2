"""Work beside the event loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from ollama_lmstudio.threads import LARGE_BYTES, run_in_thread_if_large


def is_main(*, fails: bool = False) -> bool:
    if fails:
        raise ValueError("it failed")
    return threading.current_thread() is threading.main_thread()


def test_only_a_large_body_is_worth_a_thread() -> None:
    assert asyncio.run(run_in_thread_if_large(LARGE_BYTES - 1, is_main))
    assert not asyncio.run(run_in_thread_if_large(LARGE_BYTES, is_main))


@pytest.mark.parametrize("size", [0, LARGE_BYTES])
def test_what_fails_is_told(size: int) -> None:
    with pytest.raises(ValueError, match="it failed"):
        asyncio.run(run_in_thread_if_large(size, is_main, fails=True))
