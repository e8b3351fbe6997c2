"""Files that several processes share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ollama_lmstudio.state import files


def test_a_new_file_is_for_its_owner(tmp_path: Path) -> None:
    os.close(files.create(tmp_path / "new"))
    assert (tmp_path / "new").stat().st_mode & 0o777 == files.OWNER_ONLY


def test_nothing_that_is_there_is_opened(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with pytest.raises(FileExistsError):
            files.create(tmp_path / name)
    assert not (tmp_path / "nowhere").exists()


def test_a_lock_is_held_until_its_descriptor_is_closed(tmp_path: Path) -> None:
    first = files.create(tmp_path / "file")
    second = os.open(tmp_path / "file", os.O_RDWR)
    try:
        files.lock(first)
        assert not files.lock_unless_held(second)
        os.close(first)
        assert files.lock_unless_held(second)
    finally:
        os.close(second)


def test_a_directory_that_cannot_be_flushed_is_no_error(tmp_path: Path) -> None:
    files.sync_directory(tmp_path)
    files.sync_directory(tmp_path / "nowhere")
