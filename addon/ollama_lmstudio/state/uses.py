"""Who uses which model, told among the bridges that share a state directory, and what is left when one of them goes.

Each bridge has a file, `uses/bridge-*`, which it keeps locked for as long as it lives. What it says is rewritten when
the first request begins to use a model, and when the last one has ended. A file that nobody has locked is that of a
bridge that has gone: whoever finds it first takes over what it says. `uses/lock-*` is held by the one that loads or
unloads something.

The first byte of a file is only there to be locked: Windows lets nobody read what another process has locked.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from . import files

PREFIX: Final = "bridge-"
LOCK_PREFIX: Final = "lock-"
# Of the name of an LM Studio: no two have the same.
_HASH_DIGITS: Final = 16
# Enough that two bridges never choose the same name.
_RANDOM_BYTES: Final = 8
_LOCKED_BYTES: Final = 1
# What is longer is none of these files. The key of a model may have hundreds of characters.
_LONGEST_BYTES: Final = 1 << 20
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

    Nothing raises: while files cannot be written or locked, which is logged once, a bridge is on its own.
    """

    def __init__(self, directory: Path, lmstudio: str) -> None:
        self._directory = directory
        self._lmstudio = lmstudio
        self._notes: dict[str, Note] = {}
        self._path: Path | None = None
        self._descriptors: list[int] = []
        self._lock: int | None = None
        self._is_closed = False
        self._has_failed = False

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
        if self._path and not self._path.exists():
            # Somebody has emptied the directory.
            self.write()
        return self._try(lambda: list(self._orphaned()), nothing)

    def close(self) -> None:
        """Let another bridge take over what this one has told."""
        if self._path:
            self.write()
        leaves_nothing = not any(note.explicit or note.keep_seconds is not None for note in self._notes.values())
        self._let_go(remove=leaves_nothing)
        self._is_closed = True

    def lock(self) -> bool:
        """Take the lock of loads and unloads; return False while another bridge has it.

        Where there can be no such lock, it is taken for the caller's.
        """
        return self._lock is not None or self._try(self._take_lock, True)

    def unlock(self) -> None:
        """Give up the lock of loads and unloads."""
        if self._lock is not None:
            files.close(self._lock)
            self._lock = None

    def _take_lock(self) -> bool:
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"{LOCK_PREFIX}{hashlib.sha256(self._lmstudio.encode()).hexdigest()[:_HASH_DIGITS]}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | files.NO_FOLLOW, files.OWNER_ONLY)
        try:
            if files.try_lock(descriptor):
                self._lock = descriptor
                return True
        finally:
            if self._lock is None:
                files.close(descriptor)
        return False

    def _try(self, step: Callable[[], T], otherwise: T) -> T:
        if self._is_closed:
            return otherwise
        try:
            return step()
        except OSError as e:
            if not self._has_failed:
                self._has_failed = True
                text = "what models are used cannot be told to other bridges by way of %s: %s"
                logger.warning(text, self._directory, e)
            return otherwise

    def _write(self) -> None:
        if self._path and not self._path.exists():
            self._let_go()
        try:
            self._write_file()
        except OSError:
            # What it says would be wrong from now on, and no other bridge would unload a model that is in use there.
            self._let_go(remove=True)
            raise
        self._has_failed = False

    def _let_go(self, *, remove: bool = False) -> None:
        """Give up the file, if there is one."""
        for descriptor in self._descriptors:
            files.close(descriptor)
        self._descriptors.clear()
        if self._path and remove:
            with suppress(OSError):
                self._path.unlink()
        self._path = None

    def _write_file(self) -> None:
        if self._path is None:
            self._path = self._create()
            self._descriptors.append(os.open(self._path, os.O_RDWR | files.NO_FOLLOW))
        models = {key: [n.in_use, n.used_at, n.keep_seconds, n.explicit] for key, n in self._notes.items()}
        # One call, so that what is read is whole; what a longer text has left behind is after the end of the line.
        data = json.dumps({"lmstudio": self._lmstudio, "models": models}).encode() + b"\n"
        os.lseek(self._descriptors[-1], _LOCKED_BYTES, os.SEEK_SET)
        if os.write(self._descriptors[-1], data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _create(self) -> Path:
        """Create a file, and lock it."""
        self._directory.mkdir(parents=True, exist_ok=True)
        while True:
            path = self._directory / f"{PREFIX}{secrets.token_hex(_RANDOM_BYTES)}"
            descriptor = files.create(path)
            try:
                is_locked = files.try_lock(descriptor)
            except OSError:
                os.close(descriptor)
                path.unlink()
                raise
            # Before it was locked, another bridge may have taken it for that of one that has gone.
            if is_locked and path.exists():
                self._descriptors.append(descriptor)
                return path
            files.close(descriptor)

    def _paths(self) -> Iterator[Path]:
        return (path for path in self._directory.glob(f"{PREFIX}*") if path != self._path and path.is_file())

    def _others(self) -> list[Notes]:
        return [notes for path in self._paths() if (notes := self._read(path))]

    def _read(self, path: Path) -> Notes | None:
        """Return what a file tells, if it is of a bridge in front of the same LM Studio."""
        for _ in range(_ATTEMPTS):
            # Whatever may be there, this bridge goes on.
            with suppress(OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError):
                with path.open("rb") as file:
                    file.seek(_LOCKED_BYTES)
                    content = json.loads(file.readline(_LONGEST_BYTES))
                is_same = content["lmstudio"] == self._lmstudio
                return {key: _note(*values) for key, values in content["models"].items()} if is_same else None
        return None

    def _orphaned(self) -> Iterator[Notes]:
        for path in self._paths():
            # One that is another user's, or gone by now, says nothing of the rest.
            with suppress(OSError):
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


def _note(in_use: Any, used_at: Any, keep_seconds: Any, explicit: Any) -> Note:
    """Return a note as it was read. Raises TypeError, ValueError or OverflowError for what is none."""
    used_at, keep_seconds = float(used_at), None if keep_seconds is None else float(keep_seconds)
    if not math.isfinite(used_at) or not (keep_seconds is None or keep_seconds >= 0):
        raise ValueError
    # The system's clock may have been set back.
    return Note(bool(in_use), min(used_at, time.time()), keep_seconds, bool(explicit))
