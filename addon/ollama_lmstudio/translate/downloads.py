"""The model that /api/pull names as a download of LM Studio's, and the progress of one as Ollama's."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from .. import units
from ..ollama import errors, names

HUGGING_FACE = ("huggingface.co", "hf.co", "www.huggingface.co")
_SCHEME = re.compile(r"(https?)://", re.IGNORECASE)

# Ollama shows the first 12 digits of a digest.
SHORT_DIGEST_LENGTH = 12

PAUSED = "paused in LM Studio: resume the download there"

Line = Mapping[str, object]
"""One line of Ollama's progress."""


@dataclass(frozen=True, slots=True)
class Download:
    """A download as LM Studio is asked for it. `name` is the model's name in LM Studio's lists; None for a link."""

    model: str
    quantization: str | None = None
    name: str | None = None

    @property
    def digest(self) -> str:
        """A digest derived from the model: LM Studio tells none, and clients tell progress bars apart by it."""
        identity = f"{self.model}\n{self.quantization or ''}"
        return f"sha256:{hashlib.sha256(identity.encode('utf-8', 'replace')).hexdigest()}"


def download_to_lmstudio(name: str, *, source: str = "", quantization: str = "", insecure: bool = False) -> Download:
    """Return the download of a name, or of the `source` that replaces it.

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
        return Download(f"https://huggingface.co/{path}", quantization or tag or None)
    if scheme or source:
        return Download(name, quantization or None)
    if names.is_cloud(name):
        raise errors.cloud_disabled("remote model is unavailable")
    # LM Studio's keys may have a variant after an `@`, which Ollama's names cannot.
    names.parse_name(name.replace("@", ":", 1))
    base, _ = names.split_source(name)
    return Download(base.removesuffix(":latest"), quantization or None, base)


def _split_tag(path: str) -> tuple[str, str]:
    before, colon, tag = path.rpartition(":")
    if not colon or "/" in tag:
        return path, ""
    return before, "" if tag.lower() == "latest" else tag


def progress_to_ollama(job: Mapping[str, object], digest: str) -> Line:
    """Return the state of a job as a line of Ollama's progress, without sizes that are 0, as Ollama does."""
    if job["status"] == "paused":
        # Without a digest: of a line that has one, Ollama's command line tool shows only a bar.
        return {"status": PAUSED}
    status = f"pulling {digest.removeprefix('sha256:')[:SHORT_DIGEST_LENGTH]}"
    total, completed = _size(job, "total_size_bytes"), _size(job, "downloaded_bytes")
    if job["status"] == "completed":
        completed = total
    sizes = {"total": total, "completed": min(completed, total) if total else completed}
    return {"status": status, "digest": digest, **{name: size for name, size in sizes.items() if size}}


def progress_to_text(job: Mapping[str, object]) -> str:
    """Return the state of a job for people: `52 %, 1.2 of 2.3 GB`."""
    total, completed = _size(job, "total_size_bytes"), _size(job, "downloaded_bytes")
    text = units.part_of(min(completed, total), total) if total else units.size(completed)
    return f"paused, {text}" if job["status"] == "paused" else text


def _size(job: Mapping[str, object], key: str) -> int:
    value = job.get(key)
    return max(0, int(value)) if isinstance(value, int | float) else 0
