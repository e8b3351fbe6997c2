"""Who uses which model, told among the bridges that share a state directory, and what is left when one of them goes.

Each bridge has a file, `uses/bridge-*`, which it keeps locked for as long as it lives. What it says is rewritten when
the first request begins to use a model, and when the last one has ended. A file that nobody has locked is that of a
bridge that has gone: whoever finds it first takes over what it says.

The first byte of a file is only there to be locked: Windows lets nobody read what another process has locked.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from . import files

PREFIX: Final = "bridge-"
# Enough that two bridges never choose the same name.
_RANDOM_BYTES: Final = 8
_LOCKED_BYTES: Final = 1
# A text that is just being written may be read in parts.
_ATTEMPTS: Final = 3
# What bridges in front of another LM Studio have left is of no use to anybody after this time.
_ABANDONED_SECONDS: Final = 24 * 60 * 60

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Note:
    """What a bridge tells of a model.

    `used_at` is when its last request has ended, or the present one begun, on the system's clock. `keep_seconds` is how
    long the model stays after that, as a request has said it, infinite for ever; None where none has. An `explicit`
    model was loaded by the bridge, and stays until it is unloaded.
    """

    in_use: bool
    used_at: float
    keep_seconds: float | None = None
    explicit: bool = False


Notes = Mapping[str, Note]
"""Notes by the keys of models."""


def directory_in(cache: Path) -> Path:
    """Return the directory of these files in a cache directory."""
    return cache / "uses"


class SharedUses:
    """Tell the other bridges in front of the same LM Studio, and read what they tell.

    Nothing raises: where files cannot be written or locked, which is logged once, a bridge is on its own.
    """

    def __init__(self, directory: Path, lmstudio: str) -> None:
        self._directory = directory
        self._lmstudio = lmstudio
        self._notes: dict[str, Note] = {}
        self._path: Path | None = None
        self._descriptors: list[int] = []
        self._is_alone = False

    def own(self, key: str) -> Note | None:
        """Return what this bridge has told of a model."""
        return self._notes.get(key)

    def tell(self, key: str, note: Note | None) -> None:
        """Tell something of a model, or nothing any more, with the next `write`."""
        if note is None:
            self._notes.pop(key, None)
        else:
            self._notes[key] = note

    def write(self) -> None:
        """Let the others know what was told."""
        self._try(self._write, None)

    def others(self, key: str) -> list[Note]:
        """Return what the other bridges tell of a model."""
        nothing: list[Notes] = []
        return [notes[key] for notes in self._try(self._others, nothing) if key in notes]

    def take_over(self) -> list[Notes]:
        """Return what bridges that have gone had told, once."""
        nothing: list[Notes] = []
        return self._try(lambda: list(self._orphaned()), nothing)

    def close(self) -> None:
        """Let another bridge take over what this one has told."""
        if self._path:
            self.write()
        for descriptor in self._descriptors:
            files.close(descriptor)
        self._descriptors.clear()
        if self._path and not any(note.explicit or note.keep_seconds is not None for note in self._notes.values()):
            with suppress(OSError):
                self._path.unlink()
        self._path = None
        self._is_alone = True

    def _try(self, step: Callable[[], T], otherwise: T) -> T:
        if self._is_alone:
            return otherwise
        try:
            return step()
        except OSError as e:
            self._is_alone = True
            logger.warning("what models are used cannot be told to other bridges by way of %s: %s", self._directory, e)
            return otherwise

    def _write(self) -> None:
        if self._path is None:
            self._path = self._create()
            self._descriptors.append(os.open(self._path, os.O_RDWR | files.NO_FOLLOW))
        models = {key: [n.in_use, n.used_at, n.keep_seconds, n.explicit] for key, n in self._notes.items()}
        # One call, so that what is read is whole; what a longer text has left behind is after the end of the line.
        data = json.dumps({"lmstudio": self._lmstudio, "models": models}).encode() + b"\n"
        os.lseek(self._descriptors[-1], _LOCKED_BYTES, os.SEEK_SET)
        os.write(self._descriptors[-1], data)

    def _create(self) -> Path:
        """Create a file, and lock it."""
        self._directory.mkdir(parents=True, exist_ok=True)
        while True:
            path = self._directory / f"{PREFIX}{secrets.token_hex(_RANDOM_BYTES)}"
            descriptor = files.create(path)
            # Before it was locked, another bridge may have taken it for that of one that has gone.
            if files.try_lock(descriptor) and path.exists():
                self._descriptors.append(descriptor)
                return path
            files.close(descriptor)

    def _paths(self) -> Iterator[Path]:
        return (path for path in self._directory.glob(f"{PREFIX}*") if path != self._path)

    def _others(self) -> list[Notes]:
        return [notes for path in self._paths() if (notes := self._read(path))]

    def _read(self, path: Path) -> Notes | None:
        """Return what a file tells, if it is of a bridge in front of the same LM Studio."""
        for _ in range(_ATTEMPTS):
            with suppress(OSError, ValueError, TypeError, KeyError):
                with path.open("rb") as file:
                    file.seek(_LOCKED_BYTES)
                    content = json.loads(file.readline())
                is_same = content["lmstudio"] == self._lmstudio
                return {key: Note(*values) for key, values in content["models"].items()} if is_same else None
        return None

    def _orphaned(self) -> Iterator[Notes]:
        for path in self._paths():
            with suppress(FileNotFoundError):
                descriptor = os.open(path, os.O_RDWR | files.NO_FOLLOW)
                try:
                    if not files.try_lock(descriptor):
                        continue
                    notes = self._read_locked(path, descriptor)
                finally:
                    files.close(descriptor)
                if notes is not None:
                    with suppress(OSError):
                        path.unlink()
                    yield notes

    def _read_locked(self, path: Path, descriptor: int) -> Notes | None:
        """Return what a file tells whose bridge has gone, which nobody finds there again; None for what is left."""
        notes = self._read(path)
        if notes is None and time.time() - path.stat().st_mtime < _ABANDONED_SECONDS:
            return None
        # Another bridge may have opened it already.
        os.ftruncate(descriptor, 0)
        return notes or {}
