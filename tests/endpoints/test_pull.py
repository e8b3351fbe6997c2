"""What LM Studio is asked to download, and how a download is followed, by a clock of its own."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from itertools import pairwise
from typing import Any, cast

import pytest

from ollama_lmstudio import options
from ollama_lmstudio.endpoints.pull import ABSENCE_SECONDS, REPEAT_SECONDS, pull
from ollama_lmstudio.lmstudio.errors import LMStudioError, LMStudioUnreachable
from ollama_lmstudio.ollama.errors import OllamaError
from ollama_lmstudio.outcomes import LocalStream, Request
from ollama_lmstudio.services import Services
from ollama_lmstudio.translate.downloads import PAUSED, Download, download_to_lmstudio

HF = "https://huggingface.co/"


@pytest.mark.parametrize(
    ("name", "model", "quantization"),
    [
        ("ibm/granite-4-micro", "ibm/granite-4-micro", None),
        (" ibm/granite-4-micro:latest ", "ibm/granite-4-micro", None),
        ("gpt-oss:20b", "gpt-oss:20b", None),
        ("qwen/qwen3-8b@q4_k_m", "qwen/qwen3-8b@q4_k_m", None),
        ("hf.co/Owner/Repo-GGUF", f"{HF}Owner/Repo-GGUF", None),
        ("hf.co/Owner/Repo-GGUF:Q4_K_M", f"{HF}Owner/Repo-GGUF", "Q4_K_M"),
        ("HF.co/Owner/Repo:latest", f"{HF}Owner/Repo", None),
        ("huggingface.co/Owner/Repo:q8_0", f"{HF}Owner/Repo", "q8_0"),
        (f"{HF}Owner/Repo", f"{HF}Owner/Repo", None),
        ("https://hf.co/Owner/Repo:q8_0", f"{HF}Owner/Repo", "q8_0"),
        ("https://models.example/a/b.gguf", "https://models.example/a/b.gguf", None),
    ],
)
def test_names(name: str, model: str, quantization: str | None) -> None:
    download = download_to_lmstudio(name)
    assert (download.model, download.quantization) == (model, quantization)


def test_source_and_quantization_come_first() -> None:
    assert download_to_lmstudio("hf.co/a/b:q4_0", quantization="q8_0") == Download(f"{HF}a/b", "q8_0")
    assert download_to_lmstudio("short", source="hf.co/a/b:q4_0") == Download(f"{HF}a/b", "q4_0")
    assert download_to_lmstudio("", source="publisher/model") == Download("publisher/model")


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("", 400, "invalid model name"),
        ("a b", 400, "invalid model name"),
        ("plain:", 400, "invalid model name"),
        ("plain@sha256:abc", 400, "invalid model name"),
        ("plain@", 400, "invalid model name"),
        ("a@b@c", 400, "invalid model name"),
        ("http://huggingface.co/a/b", 500, "insecure protocol http"),
        ("gpt-oss:120b-cloud", 403, "ollama cloud is disabled: remote model is unavailable"),
    ],
)
def test_refused(name: str, status: int, message: str) -> None:
    with pytest.raises(OllamaError) as refused:
        download_to_lmstudio(name)
    assert (refused.value.status, refused.value.message) == (status, message)


def test_insecure_links_are_taken_when_asked_for() -> None:
    assert download_to_lmstudio("http://hf.co/a/b", insecure=True).model == f"{HF}a/b"


# Following a job


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to what is due next."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        scheduled = cast(list[asyncio.TimerHandle], self._scheduled)  # type: ignore[attr-defined]
        if scheduled and not self._ready:  # type: ignore[attr-defined]
            self.now = max(self.now, heapq.nsmallest(1, scheduled)[0].when())
        super()._run_once()  # type: ignore[misc]


class LMStudio:
    """A client whose job has the status that `state` returns, or raises, at a time."""

    def __init__(self, state: Callable[[float], dict[str, Any]]) -> None:
        self.state = state
        self.polls: list[float] = []
        self.asked: list[tuple[str, str | None]] = []

    async def download(self, model: str, quantization: str | None = None) -> dict[str, Any]:
        self.asked.append((model, quantization))
        return {"job_id": "job_1", "status": "downloading", "total_size_bytes": 100}

    async def download_status(self, job_id: str) -> dict[str, Any]:
        now = asyncio.get_running_loop().time()
        self.polls.append(now)
        return {"job_id": job_id, "total_size_bytes": 100, **self.state(now)}


class Catalog:
    invalidated = 0
    tells_loaded = True

    def invalidate(self) -> None:
        self.invalidated += 1


def services(lmstudio: LMStudio) -> Services:
    settings = options.parse({option.name: option.default for option in options.OPTIONS})
    return Services(settings, cast(Any, lmstudio), cast(Any, Catalog()), cast(Any, None))


def follow(
    lmstudio: LMStudio, stop_after: int | None = None, known: str = ""
) -> tuple[list[tuple[float, Mapping[str, object]]], str]:
    """Pull to the end, or for some lines; return them with their times, and the error.

    `known` is the job of a download of the same that was begun before.
    """
    lines: list[tuple[float, Mapping[str, object]]] = []
    error = ""
    shared = services(lmstudio)
    if known:
        shared.downloads.begun(f"{HF}a/b", "q4", known)

    async def run() -> None:
        nonlocal error
        served = await pull(Request("POST", "/api/pull", "", {}, b'{"model":"hf.co/a/b:q4"}', 0), shared)
        assert isinstance(served, LocalStream)
        try:
            async with aclosing(served.lines) as given:
                async for line in given:
                    lines.append((asyncio.get_running_loop().time(), line))
                    if len(lines) == stop_after:
                        break
        except LMStudioError as e:
            error = e.message

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(run())
    assert cast(Any, shared.catalog).invalidated == (0 if error == RUNS else 1)
    return lines, error


def statuses(lines: Sequence[tuple[float, Mapping[str, object]]]) -> list[object]:
    return [line["status"] for _, line in lines]


def test_lines() -> None:
    lmstudio = LMStudio(
        lambda at: {"status": "downloading" if at < 4.5 else "completed", "downloaded_bytes": int(at + 0.01)}
    )
    lines, error = follow(lmstudio)
    assert lmstudio.asked == [(f"{HF}a/b", "q4")]
    assert error == ""
    first, *progress = [dict(line) for _, line in lines]
    progress, last = progress[:-3], progress[-3:]
    assert first == {"status": "pulling manifest"}
    assert [line["status"] for line in last] == ["verifying sha256 digest", "writing manifest", "success"]
    digest = str(progress[0]["digest"])
    assert len(digest) == len("sha256:") + 64
    assert all(line["status"] == f"pulling {digest[7:19]}" and line["digest"] == digest for line in progress)
    assert [line.get("completed") for line in progress] == [None, 1, 2, 3, 4, 100]
    assert {line["total"] for line in progress} == {100}


def test_polls_are_quick_at_first() -> None:
    lmstudio = LMStudio(lambda at: {"status": "downloading" if at < 8.5 else "completed"})
    follow(lmstudio)
    gaps = [round(b - a, 3) for a, b in zip([0.0, *lmstudio.polls], lmstudio.polls, strict=False)]
    assert gaps == [0.2] * 10 + [1.0] * 7


def test_what_stays_the_same_is_said_seldom() -> None:
    lines, _ = follow(LMStudio(lambda at: {"status": "downloading" if at < 65 else "completed"}))
    assert 5 <= len([line for _, line in lines if "digest" in line and "completed" not in line]) <= 7
    times = [at for at, _ in lines]
    assert max(b - a for a, b in pairwise(times)) <= REPEAT_SECONDS + 1


def test_pause_is_said() -> None:
    def state(at: float) -> dict[str, Any]:
        return {"status": "paused" if 1 <= at < 4 else "completed" if at > 5 else "downloading"}

    lines, _ = follow(LMStudio(state))
    polled = [str(status) for status in statuses(lines)[1:-3]]
    assert [status == PAUSED for status in polled] == [False, True, False, False]


def test_failure_has_lm_studios_reason() -> None:
    lines, error = follow(LMStudio(lambda at: {"status": "failed", "error_message": "no route to host"}))
    assert error == "no route to host"
    assert "success" not in statuses(lines)


@pytest.mark.parametrize(("away", "survives"), [(ABSENCE_SECONDS - 10, True), (ABSENCE_SECONDS + 10, False)])
def test_absence(away: float, survives: bool) -> None:
    def state(at: float) -> dict[str, Any]:
        if 2 < at < 2 + away:
            raise LMStudioUnreachable("http://lmstudio")
        return {"status": "downloading" if at <= 2 else "completed"}

    lines, error = follow(LMStudio(state))
    assert ("success" in statuses(lines)) is survives
    assert ("not reachable" in error) is not survives


def test_job_that_lm_studio_has_forgotten() -> None:
    def state(at: float) -> dict[str, Any]:
        raise LMStudioError(404, "Download job with id 'job_1' not found", type="job_not_found")

    lmstudio = LMStudio(state)
    _, error = follow(lmstudio)
    assert error == "Download job with id 'job_1' not found"
    assert len(lmstudio.polls) == 1


RUNS = "This download is already in progress"


@pytest.mark.parametrize("old", ["completed", "failed", "forgotten"])
@pytest.mark.parametrize("times", [1, 9], ids=["ended meanwhile", "begun in LM Studio"])
def test_the_id_of_an_earlier_download_is_not_taken_for_that_of_the_one_that_runs(old: str, times: int) -> None:
    class Running(LMStudio):
        async def download(self, model: str, quantization: str | None = None) -> dict[str, Any]:
            begun = await super().download(model, quantization)
            if len(self.asked) <= times:
                raise LMStudioError(400, RUNS)
            return {**begun, "job_id": "job_2", "status": "already_downloaded"}

        async def download_status(self, job_id: str) -> dict[str, Any]:
            assert job_id == "job_1"
            if old == "forgotten":
                raise LMStudioError(404, "Download job with id 'job_1' not found", type="job_not_found")
            return {"job_id": job_id, "status": old, "error_message": "of the one before"}

    lmstudio = Running(lambda at: {})
    lines, error = follow(lmstudio, known="job_1")
    assert len(lmstudio.asked) == 2
    assert (statuses(lines)[-1], error) == (("success", "") if times == 1 else ("pulling manifest", RUNS))


def test_no_poll_after_the_client_has_left() -> None:
    lmstudio = LMStudio(lambda at: {"status": "downloading", "downloaded_bytes": int(at * 10)})
    follow(lmstudio, stop_after=4)
    assert len(lmstudio.polls) == 2
