"""`POST /api/pull`: a download of LM Studio's, followed to its end. LM Studio tells how far it is only when asked."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

from ..lmstudio.errors import LMStudioError, LMStudioTimeout, LMStudioUnreachable
from ..ollama import errors, names
from ..ollama.errors import OllamaError
from ..ollama.requests import PullRequest
from ..outcomes import LocalStream, Request
from ..services import Services
from ..translate.inference import find_model

FIRST_POLL_SECONDS = 0.2
POLL_SECONDS = 1.0
# So many polls come quickly, for small models and models that are here already.
FIRST_POLLS = 10
# What has not changed is said again after this long, or clients and proxies would take the connection for dead.
REPEAT_SECONDS = 10.0
# LM Studio may be gone for this long, as when it restarts.
ABSENCE_SECONDS = 60.0

# LM Studio may refuse a second download of a model without telling the job of the first.
ALREADY_RUNNING = "already in progress"

HUGGING_FACE = ("huggingface.co", "hf.co", "www.huggingface.co")
_SCHEME = re.compile(r"(https?)://", re.IGNORECASE)

Line = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What LM Studio is asked for. `name` is what its catalog may know the model by; None for a link."""

    model: str
    quantization: str | None = None
    name: str | None = None

    @property
    def digest(self) -> str:
        """Give a digest, derived: LM Studio tells none, and clients tell progress bars apart by it."""
        identity = f"{self.model}\n{self.quantization or ''}"
        return f"sha256:{hashlib.sha256(identity.encode('utf-8', 'replace')).hexdigest()}"


async def pull(incoming: Request, services: Services) -> LocalStream:
    """Download a model."""
    request = await PullRequest.read(incoming.body)
    wanted = to_lmstudio(
        request.model,
        source=_text(request, "source"),
        quantization=_text(request, "quantization"),
        insecure=request.insecure,
    )
    return LocalStream(_download(wanted, services), request.stream)


def _text(request: PullRequest, key: str) -> str:
    value = request.extras.get(key)
    return value.strip() if isinstance(value, str) else ""


def to_lmstudio(name: str, *, source: str = "", quantization: str = "", insecure: bool = False) -> Wanted:
    """Turn a name, or the `source` that is to be used instead of it, into what LM Studio downloads.

    A link to Hugging Face becomes its full URL, and a tag on it the quantization. Raises OllamaError.
    """
    name = source or name.strip()
    if not name:
        raise errors.invalid_model_name()
    scheme = _SCHEME.match(name)
    if scheme and scheme[1].lower() == "http" and not insecure:
        raise errors.insecure_protocol()
    rest = name[scheme.end() :] if scheme else name
    host, slash, path = rest.partition("/")
    if slash and host.lower() in HUGGING_FACE:
        path, tag = _split_tag(path)
        return Wanted(f"https://huggingface.co/{path}", quantization or tag or None)
    if scheme or source:
        return Wanted(name, quantization or None)
    if names.is_cloud(name):
        raise errors.cloud_disabled("remote model is unavailable")
    # A key of LM Studio's may hold an `@`, which Ollama's grammar has no place for.
    if "@" not in name:
        names.parse_name(name)
    base, _ = names.split_source(name)
    return Wanted(base.removesuffix(":latest"), quantization or None, base)


def _split_tag(path: str) -> tuple[str, str]:
    before, colon, tag = path.rpartition(":")
    if not colon or "/" in tag:
        return path, ""
    return before, "" if tag.lower() == "latest" else tag


async def _download(wanted: Wanted, services: Services) -> AsyncGenerator[Line, None]:
    yield {"status": "pulling manifest"}
    job = await _begin(wanted, services)
    try:
        if job.get("job_id") and job["status"] != "already_downloaded":
            async for line in _follow(str(job["job_id"]), job, wanted.digest, services):
                yield line
            yield {"status": "verifying sha256 digest"}
            yield {"status": "writing manifest"}
    finally:
        services.catalog.invalidate()
    yield {"status": "success"}


async def _begin(wanted: Wanted, services: Services) -> Mapping[str, object]:
    """Start the download, or join one that is under way; raise Ollama's error for a model that is nowhere."""
    key = (wanted.model, wanted.quantization)
    try:
        job = await services.client.download(*key)
    except LMStudioError as e:
        if ALREADY_RUNNING in e.message.lower() and key in services.downloads:
            return await services.client.download_status(services.downloads[key])
        if not _is_unknown(e):
            raise
    else:
        if job.get("job_id"):
            services.downloads[key] = str(job["job_id"])
        return job
    # LM Studio's catalog and its list of models do not have the same names.
    if wanted.name is not None and wanted.quantization is None and await _is_here(wanted.name, services):
        return {"status": "already_downloaded"}
    raise errors.manifest_not_found()


def _is_unknown(error: LMStudioError) -> bool:
    return error.status == 404 or "model_not_found" in (error.code, error.type)


async def _is_here(name: str, services: Services) -> bool:
    try:
        await find_model(name, services)
    except OllamaError:
        return False
    return True


async def _follow(
    job_id: str, job: Mapping[str, object], digest: str, services: Services
) -> AsyncGenerator[Line, None]:
    """Ask how far the download is until it has ended; raise LM Studio's reason if it has failed."""
    clock = asyncio.get_running_loop().time
    said: Line = {}
    said_at = answered_at = clock()
    polls = 0
    while True:
        line = _line(job, digest)
        if line != said or clock() - said_at >= REPEAT_SECONDS:
            yield line
            said, said_at = line, clock()
        if job["status"] in ("completed", "already_downloaded"):
            return
        if job["status"] == "failed":
            raise LMStudioError(500, str(job.get("error_message") or "LM Studio says that the download failed"))
        await asyncio.sleep(FIRST_POLL_SECONDS if polls < FIRST_POLLS else POLL_SECONDS)
        polls += 1
        try:
            job = await services.client.download_status(job_id)
            answered_at = clock()
        except LMStudioError as e:
            if not _may_come_back(e) or clock() - answered_at >= ABSENCE_SECONDS:
                raise


def _may_come_back(error: LMStudioError) -> bool:
    return isinstance(error, LMStudioUnreachable | LMStudioTimeout) or error.status in (502, 503, 504)


def _line(job: Mapping[str, object], digest: str) -> Line:
    """Give a job as Ollama's progress. What is 0 is left out, as Ollama does."""
    short = digest.removeprefix("sha256:")[:12]
    status = f"pulling {short}"
    if job["status"] == "paused":
        status += " (paused in LM Studio)"
    total, completed = _bytes(job, "total_size_bytes"), _bytes(job, "downloaded_bytes")
    if job["status"] == "completed":
        completed = total
    sizes = {"total": total, "completed": min(completed, total) if total else completed}
    return {"status": status, "digest": digest, **{name: size for name, size in sizes.items() if size}}


def _bytes(job: Mapping[str, object], key: str) -> int:
    value = job.get(key)
    return max(0, int(value)) if isinstance(value, int | float) else 0
