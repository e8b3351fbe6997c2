"""The ids of LM Studio's downloads, so that any bridge that shares a state directory can follow one that another began.

LM Studio does not tell the id again: to a second request it says that the download runs already.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from . import files

# No download takes longer.
_KEPT_SECONDS: Final = 7 * 24 * 60 * 60
_RANDOM_BYTES: Final = 8
_TEMPORARY: Final = ".new-"


def directory_in(cache: Path) -> Path:
    """Return the directory of these files in a cache directory."""
    return cache / "downloads"


class DownloadJobs:
    """The last job of each download, by model and quantization.

    Without a directory, or where nothing can be written there, only this process knows them.
    """

    def __init__(self, directory: Path | None = None, lmstudio: str = "") -> None:
        self.directory = directory
        self._lmstudio = lmstudio
        self._known: dict[tuple[str, str | None], str] = {}

    def get(self, model: str, quantization: str | None) -> str | None:
        """Return the id of a job, None if none is known."""
        with suppress(OSError, UnicodeDecodeError):
            if path := self._path(model, quantization):
                return path.read_text(encoding="ascii")
        return self._known.get((model, quantization))

    def begun(self, model: str, quantization: str | None, job_id: str) -> None:
        """Note the id of a job."""
        self._known[model, quantization] = job_id
        with suppress(OSError):
            if path := self._path(model, quantization):
                path.parent.mkdir(parents=True, exist_ok=True)
                self._remove_old(path.parent)
                temporary = path.with_name(f"{_TEMPORARY}{secrets.token_hex(_RANDOM_BYTES)}")
                files.write_new(temporary, job_id.encode("ascii", "replace"))
                files.replace(temporary, path)

    def ended(self, model: str, quantization: str | None) -> None:
        """Forget a job that has ended."""
        self._known.pop((model, quantization), None)
        with suppress(OSError):
            if path := self._path(model, quantization):
                files.remove(path)

    def _path(self, model: str, quantization: str | None) -> Path | None:
        if self.directory is None:
            return None
        name = json.dumps([self._lmstudio, model, quantization]).encode()
        return self.directory / hashlib.sha256(name).hexdigest()

    @staticmethod
    def _remove_old(directory: Path) -> None:
        for entry in os.scandir(directory):
            # Another bridge may have removed it, or it may be none of ours.
            with suppress(OSError):
                if time.time() - entry.stat().st_mtime > _KEPT_SECONDS:
                    Path(entry.path).unlink()
