"""The ids of downloads, as bridges that share a directory know them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ollama_lmstudio.state.jobs import DownloadJobs

OLD = time.time() - 8 * 24 * 60 * 60


def test_another_bridge_knows_a_job_until_it_has_ended(tmp_path: Path) -> None:
    one, two = (DownloadJobs(tmp_path / "downloads", "here") for _ in range(2))
    one.begun("a/b", "Q4", "job_1")
    assert (two.get("a/b", "Q4"), two.get("a/b", None), two.get("a", "Q4")) == ("job_1", None, None)
    assert DownloadJobs(tmp_path / "downloads", "elsewhere").get("a/b", "Q4") is None
    two.begun("a/b", "Q4", "job_2")
    assert one.get("a/b", "Q4") == "job_2"
    two.ended("a/b", "Q4")
    assert two.get("a/b", "Q4") is None
    assert [*(tmp_path / "downloads").iterdir()] == []


def test_what_never_ended_goes_after_a_week(tmp_path: Path) -> None:
    jobs = DownloadJobs(tmp_path, "here")
    jobs.begun("a", None, "job_1")
    (path,) = tmp_path.iterdir()
    os.utime(path, (OLD, OLD))
    jobs.begun("b", None, "job_2")
    assert not path.exists()
    assert DownloadJobs(tmp_path, "here").get("b", None) == "job_2"


@pytest.mark.parametrize("directory", [None, "file/downloads"])
def test_without_a_directory_the_process_knows_its_own(tmp_path: Path, directory: str | None) -> None:
    (tmp_path / "file").write_text("")
    jobs = DownloadJobs(tmp_path / directory if directory else None, "here")
    jobs.begun("a", None, "job_1")
    assert jobs.get("a", None) == "job_1"
    jobs.ended("a", None)
    assert jobs.get("a", None) is None
