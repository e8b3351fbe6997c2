"""What bridges that share a directory tell each other of models, and what becomes of it when one goes."""

from __future__ import annotations

import logging
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ollama_lmstudio.state import uses
from ollama_lmstudio.state.uses import Note, SharedUses

IDLE = Note(False, 100.0, 60.0)
BUSY = Note(True, 120.0, math.inf, explicit=True)
DAY = 24 * 60 * 60


def tell(shared: SharedUses, key: str, note: Note | None) -> None:
    shared.tell(key, note)
    shared.write()


def test_others_read_what_one_tells(tmp_path: Path) -> None:
    one, two, elsewhere = (SharedUses(tmp_path / "uses", name) for name in ("here", "here", "elsewhere"))
    assert two.others("a") == []
    assert not [*tmp_path.iterdir()], "nothing is written until there is something to tell"
    tell(one, "a", BUSY)
    tell(one, "a longer name", IDLE)
    assert (one.others("a"), two.others("a"), elsewhere.others("a")) == ([], [BUSY], [])
    # What is shorter than before is read without the rest.
    tell(one, "a longer name", None)
    assert (two.others("a"), two.others("a longer name")) == ([BUSY], [])
    tell(two, "a", IDLE)
    assert one.others("a") == [IDLE]
    assert one.take_over() == two.take_over() == []
    for shared in (one, two, elsewhere):
        shared.close()


def test_what_one_leaves_is_taken_over_once(tmp_path: Path) -> None:
    gone, one, two = (SharedUses(tmp_path, "here") for _ in range(3))
    tell(gone, "a", IDLE)
    gone.close()
    tell(gone, "b", IDLE)
    assert one.take_over() == [{"a": IDLE}]
    assert two.take_over() == one.take_over() == []
    assert [*tmp_path.iterdir()] == []


def test_nothing_is_left_where_nothing_is_to_be_done(tmp_path: Path) -> None:
    shared = SharedUses(tmp_path, "here")
    tell(shared, "a", Note(False, 100.0))
    assert len([*tmp_path.iterdir()]) == 1
    shared.close()
    assert [*tmp_path.iterdir()] == []


def test_a_killed_process_leaves_what_it_told(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from ollama_lmstudio.state.uses import Note, SharedUses\n"
        "shared = SharedUses(Path(sys.argv[1]), 'here'); shared.tell('a', Note(True, 7.0, 60.0)); shared.write()\n"
        "print(flush=True); input()"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(uses.__file__).parents[2])}
    shared = SharedUses(tmp_path, "here")
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert shared.take_over() == []
        assert shared.others("a") == [Note(True, 7.0, 60.0)]
        process.kill()
    assert shared.take_over() == [{"a": Note(True, 7.0, 60.0)}]


@pytest.mark.parametrize("content", [b"", b" \n", b' {"lmstudio": "elsewhere", "models": {}}\n', b" [1]\n"])
def test_what_is_of_no_use_goes_after_a_day(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / f"{uses.PREFIX}0"
    path.write_bytes(content)
    shared = SharedUses(tmp_path, "here")
    assert shared.take_over() == []
    assert path.exists()
    os.utime(path, (time.time() - 2 * DAY,) * 2)
    assert shared.take_over() in ([], [{}])
    assert not path.exists()


WRONG = {
    "no file of ours": b"hello",
    "cut off": b' {"lmstudio": "here", "mod',
    "a list": b' {"lmstudio": "here", "models": []}\n',
    "nothing": b' {"lmstudio": "here", "models": null}\n',
    "a text": b' {"lmstudio": "here", "models": {"a": "abcd"}}\n',
    "no time": b' {"lmstudio": "here", "models": {"a": [false, null, 5, true]}}\n',
    "no number": b' {"lmstudio": "here", "models": {"a": [false, NaN, 5, true]}}\n',
    "no duration": b' {"lmstudio": "here", "models": {"a": [false, 1, NaN, true]}}\n',
    "too large a number": b' {"lmstudio": "here", "models": {"a": [false, 1%s, 5, true]}}\n' % (b"0" * 400),
    "too deep": b" " + b"[" * 200_000,
    "too long": b' {"lmstudio": "here", "models": {"a": [false, 1, 5, true]}, "more": "%s"}\n' % (b"x" * (2 << 20)),
}


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG.keys())
def test_what_others_may_have_written_is_no_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / f"{uses.PREFIX}0").write_bytes(content)
    shared = SharedUses(tmp_path, "here")
    assert (shared.others("a"), shared.take_over()) == ([], [])


def test_a_time_to_come_is_that_of_a_clock_that_was_set_back(tmp_path: Path) -> None:
    one, two = SharedUses(tmp_path, "here"), SharedUses(tmp_path, "here")
    tell(one, "a", Note(False, time.time() + DAY, 60.0))
    assert two.others("a")[0].used_at <= time.time()
    one.close()


@pytest.mark.skipif(os.name == "nt", reason="Windows lets only some users make links")
def test_what_cannot_be_opened_says_nothing_of_the_rest(tmp_path: Path) -> None:
    gone, shared = SharedUses(tmp_path, "here"), SharedUses(tmp_path, "here")
    tell(gone, "a", IDLE)
    gone.close()
    target = tmp_path / "target"
    target.write_text("")
    for name in ("0", "g", "zz"):
        (tmp_path / f"{uses.PREFIX}{name}").symlink_to(target)
    (tmp_path / f"{uses.PREFIX}folder").mkdir()
    assert shared.take_over() == [{"a": IDLE}]
    tell(shared, "b", BUSY)
    assert SharedUses(tmp_path, "here").others("b") == [BUSY]
    shared.close()


@pytest.mark.skipif(os.name == "nt", reason="Windows removes no file that is open")
@pytest.mark.parametrize("step", [lambda shared: shared.take_over(), lambda shared: shared.write()])
def test_a_directory_that_was_emptied_is_written_anew(tmp_path: Path, step: Callable[[SharedUses], object]) -> None:
    one, two = SharedUses(tmp_path / "uses", "here"), SharedUses(tmp_path / "uses", "here")
    tell(one, "a", BUSY)
    shutil.rmtree(tmp_path / "uses")
    step(one)
    assert two.others("a") == [BUSY]
    assert two.take_over() == []
    one.close()


def test_what_cannot_be_told_any_more_is_not_held_against_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk is full: what was told before, that a model is in use, must not stay for good. Later there is room."""
    one, two = SharedUses(tmp_path, "here"), SharedUses(tmp_path, "here")
    tell(one, "a", BUSY)
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(os, "write", lambda descriptor, data: len(data) // 2)
        for _ in range(2):
            tell(one, "a", IDLE)
    assert len(caplog.records) == 1
    assert two.others("a") == []
    tell(one, "a", IDLE)
    assert two.others("a") == [IDLE]
    one.close()


def test_one_at_a_time_has_the_lock_of_an_lm_studio(tmp_path: Path) -> None:
    one, two, elsewhere = (SharedUses(tmp_path, name) for name in ("here", "here", "elsewhere"))
    assert one.lock()
    assert (two.lock(), elsewhere.lock()) == (False, True)
    one.unlock()
    assert two.lock()
    assert not one.lock()
    two.unlock()
    elsewhere.unlock()
    assert one.take_over() == [], "the lock is no file of a bridge"


def test_where_nothing_can_be_written_a_bridge_is_on_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    shared = SharedUses(tmp_path / "file", "here")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            tell(shared, "a", IDLE)
        assert shared.lock(), "it waits for nobody"
    assert (shared.others("a"), shared.take_over()) == ([], [])
    assert len(caplog.records) == 1
    shared.close()
