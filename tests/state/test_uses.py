"""What bridges that share a directory tell each other of models, and what becomes of it when one goes."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
import time
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


def test_where_nothing_can_be_written_a_bridge_is_on_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    shared = SharedUses(tmp_path / "file", "here")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            tell(shared, "a", IDLE)
    assert (shared.others("a"), shared.take_over()) == ([], [])
    assert len(caplog.records) == 1
    shared.close()
