"""What has ended is collected by the size of its bodies."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from ollama_lmstudio.exchanges.garbage import COLLECTED_BYTES, Garbage
from ollama_lmstudio.internals import interface


class Circle:
    """An object that only the collector frees."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def never_by_itself(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the collector not run unless it is told to, in mitmdump."""
    monkeypatch.setattr(interface, "is_shown", lambda: False)
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


def test_it_is_collected_when_enough_has_ended() -> None:
    collecting, ended = Garbage(), weakref.ref(Circle())
    collecting.ended(COLLECTED_BYTES - 1)
    assert ended() is not None
    collecting.ended(1)
    assert ended() is None


def test_a_flow_that_is_shown_stays_so_that_nothing_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interface, "is_shown", lambda: True)
    ended = weakref.ref(Circle())
    Garbage().ended(COLLECTED_BYTES)
    assert ended() is not None


def test_a_collection_that_takes_long_is_not_repeated_soon() -> None:
    now = iter([0.0, 1.0, 50.0, 52.0, 52.5])
    collecting = Garbage(lambda: next(now))
    collecting.ended(COLLECTED_BYTES)
    ended = weakref.ref(Circle())
    collecting.ended(COLLECTED_BYTES)
    assert ended() is not None
    collecting.ended(0)
    assert ended() is None


def test_what_was_there_at_the_start_is_left_out_until_code_is_loaded_anew() -> None:
    before = weakref.ref(Circle())
    try:
        collecting = Garbage()
        collecting.start()
        collecting.ended(COLLECTED_BYTES)
        assert before() is not None
        Garbage().start()
        assert before() is None
        assert gc.get_freeze_count()
    finally:
        gc.unfreeze()


def test_what_python_itself_leaves_out_is_no_older_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """To collect at the start would keep it from serving for a twentieth of a second."""
    monkeypatch.setattr(gc, "get_freeze_count", lambda: 375)
    before = weakref.ref(Circle())
    Garbage().start()
    assert before() is not None
