"""`POST /api/pull`: a download of LM Studio's, which has to be polled for its progress."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from http import HTTPStatus

from .. import progress
from ..lmstudio.errors import LMStudioError, LMStudioTimeout, LMStudioUnreachable
from ..ollama import errors
from ..ollama.errors import OllamaError
from ..ollama.requests import PullRequest
from ..outcomes import LocalStream, Request
from ..progress import Progress
from ..services import Services
from ..translate.downloads import Download, Line, download_to_lmstudio, progress_to_ollama, progress_to_text
from ..translate.models import has_own_name, is_found
from ..units import elapsed

# The first polls come quickly: small models, and models that exist already, are done within seconds.
FIRST_POLLS = 10
FIRST_POLL_SECONDS = 0.2
POLL_SECONDS = 1.0
# A line that has not changed is sent again after this time, or clients and proxies would end the idle connection.
REPEAT_SECONDS = 10.0
# LM Studio may be unreachable for this long, for example while it restarts.
ABSENCE_SECONDS = 60.0

# The message of LM Studio's error for a download that runs already, in lower case. It does not tell the job's id.
ALREADY_RUNNING = "already in progress"
ALREADY_DOWNLOADED = "already_downloaded"
COMPLETED = ("completed", ALREADY_DOWNLOADED)
FAILED = "failed"
NO_DOWNLOADS = (
    "nothing is downloaded through {url}, which is not LM Studio itself (or one before 0.3.6): download the model on "
    "the machine that is to have it, in LM Studio or with `lms get`"
)

# What a pull is shown to wait for.
BEGINS = "asks LM Studio for the download"
DOWNLOADS = "downloading"
ABSENT = "LM Studio does not answer"

# What LM Studio says of a model that it does not know. It uses the same code for one that it knows and cannot run
# ("No compatible download options found"), where "file does not exist" would send people after a spelling mistake.
# The same goes for a quantization that a repository does not have.
_NOT_FOUND = re.compile(
    r"not found|not exist|no such|unknown model|(?:could|can) ?not (?:be )?(?:find|found)", re.IGNORECASE
)

# The statuses of a proxy in front of LM Studio while that restarts.
GATEWAY_ERRORS = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)


async def pull(request: Request, services: Services) -> LocalStream:
    """Download a model."""
    body = await PullRequest.read(request.body)
    try:
        download = download_to_lmstudio(
            body.model,
            source=_extra_text(body, "source"),
            quantization=_extra_text(body, "quantization"),
            insecure=body.insecure,
        )
    except OllamaError:
        if not await has_own_name(body.model, services):
            raise
        download = Download(body.model, name=body.model)
    return LocalStream(_download(download, services, progress.current()), body.stream)


def _extra_text(body: PullRequest, key: str) -> str:
    value = body.extras.get(key)
    return value.strip() if isinstance(value, str) else ""


async def _download(download: Download, services: Services, shown: Progress) -> AsyncGenerator[Line, None]:
    yield {"status": "pulling manifest"}
    with shown.waiting_for(BEGINS):
        job = await _begin(download, services)
    try:
        if job.get("job_id") and job["status"] != ALREADY_DOWNLOADED:
            async for line in _follow(str(job["job_id"]), job, download.digest, services, shown):
                yield line
            services.downloads.ended(download.model, download.quantization)
            yield {"status": "verifying sha256 digest"}
            yield {"status": "writing manifest"}
    finally:
        services.catalog.invalidate()
    yield {"status": "success"}


async def _begin(download: Download, services: Services) -> Mapping[str, object]:
    """Return the job of the download, started now or before; raise Ollama's error for a model that does not exist."""
    key = (download.model, download.quantization)
    if not services.catalog.tells_loaded:
        # Not LM Studio's own list: behind another server, nobody knows which machine would download, or how far it is.
        if await _is_there(download, services):
            return {"status": ALREADY_DOWNLOADED}
        raise LMStudioError(HTTPStatus.NOT_IMPLEMENTED, NO_DOWNLOADS.format(url=services.settings.lmstudio_url))
    try:
        job = await services.client.download(*key)
    except LMStudioError as e:
        if ALREADY_RUNNING in e.message.lower() and (job_id := services.downloads.get(*key)):
            if running := await _running(job_id, services):
                return running
            # It was the id of an earlier download of the model, or this one has just ended.
            services.downloads.ended(*key)
            return await _begin(download, services)
        if not _is_unknown(e):
            raise
        if not _NOT_FOUND.search(e.message) or "quantization" in e.message.lower():
            raise errors.manifest_refused(e.message) from None
    else:
        if job.get("job_id"):
            services.downloads.begun(*key, str(job["job_id"]))
        return job
    # The names of LM Studio's catalog of downloads are not those of its list of models.
    if await _is_there(download, services):
        return {"status": ALREADY_DOWNLOADED}
    raise errors.manifest_not_found()


async def _running(job_id: str, services: Services) -> Mapping[str, object] | None:
    """Return a job that has not ended; None for any other, and for one that LM Studio does not know any more."""
    try:
        job = await services.client.download_status(job_id)
    except LMStudioError as e:
        if e.status != HTTPStatus.NOT_FOUND:
            raise
        return None
    return None if job["status"] in (*COMPLETED, FAILED) else job


def _is_unknown(error: LMStudioError) -> bool:
    return error.status == HTTPStatus.NOT_FOUND or "model_not_found" in (error.code, error.type)


async def _is_there(download: Download, services: Services) -> bool:
    """Return whether LM Studio's list has the model that is to be downloaded."""
    return download.name is not None and download.quantization is None and await is_found(download.name, services)


async def _follow(
    job_id: str, job: Mapping[str, object], digest: str, services: Services, shown: Progress
) -> AsyncGenerator[Line, None]:
    """Poll a download until it has ended; raise LM Studio's reason if it has failed."""
    clock = asyncio.get_running_loop().time
    sent: Line = {}
    sent_at = answered_at = clock()
    polls = 0
    shown.show(DOWNLOADS, progress_to_text(job))
    while True:
        line = progress_to_ollama(job, digest)
        if line != sent or clock() - sent_at >= REPEAT_SECONDS:
            yield line
            sent, sent_at = line, clock()
        if job["status"] in COMPLETED:
            return
        if job["status"] == FAILED:
            raise LMStudioError(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                str(job.get("error_message") or "LM Studio says that the download failed"),
            )
        await asyncio.sleep(FIRST_POLL_SECONDS if polls < FIRST_POLLS else POLL_SECONDS)
        polls += 1
        try:
            job = await services.client.download_status(job_id)
        except LMStudioError as e:
            absent = clock() - answered_at
            if not _may_be_temporary(e) or absent >= ABSENCE_SECONDS:
                raise
            shown.show(ABSENT, f"{ABSENT}, {elapsed(absent)}")
        else:
            answered_at = clock()
            shown.show(DOWNLOADS, progress_to_text(job))


def _may_be_temporary(error: LMStudioError) -> bool:
    return isinstance(error, LMStudioUnreachable | LMStudioTimeout) or error.status in GATEWAY_ERRORS
