"""The aliases on disk: `virtual_models.json`, which any number of processes may read and write at once.

A writer holds an exclusive lock, reads what is there, and renames a finished copy into place. So a reader never needs
the lock, and a writer that is killed leaves the old file, or the new one, and a temporary file that the next writer
removes. Whatever is found there that this version did not write stays: it is put aside, or left alone.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

logger = logging.getLogger(__name__)

FILE_NAME: Final = "virtual_models.json"
LOCK_NAME: Final = "virtual_models.lock"
TEMPORARY_NAME: Final = "virtual_models.tmp"
VERSION: Final = 1

# Windows has no such flags, or needs another.
_NO_LINK: Final = getattr(os, "O_NOFOLLOW", 0)
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK | getattr(os, "O_BINARY", 0)

# The errors of a disk that has no room.
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

T = TypeVar("T")


class StoreError(Exception):
    """Carry the status and the text of an answer: the store could not be changed, and was not."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Alias:
    """A name for a model of LM Studio's, with what is to be added to requests for it.

    `target` is LM Studio's id; `created` and `modified` are in ns since the epoch; `messages` are JSON objects as
    Ollama's API has them, `adapters` digests by file name.
    """

    name: str
    target: str
    created: int
    modified: int
    system: str = ""
    template: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    license: list[str] = field(default_factory=list)
    adapters: dict[str, str] = field(default_factory=dict)
    messages: list[dict[str, Any]] = field(default_factory=list)


Aliases = Mapping[str, Alias]
"""Aliases by key, which tells names apart."""

_ALIASES: Final = TypeAdapter(dict[str, Alias])

_Signature = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What was read from the file with this signature; with a `problem` it must not be overwritten."""

    signature: _Signature | None = None
    aliases: Aliases = field(default_factory=dict)
    problem: str = ""


class _Broken(ValueError):  # noqa: N818
    """The file is none of ours."""


class AliasStore:
    """Keep the aliases in a directory, which is made when something is written.

    Reading never raises: what cannot be read is said in the log, once, and counts as no alias at all.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / FILE_NAME
        self._snapshot = _Snapshot()

    def all(self) -> Aliases:
        """Give all aliases as they are now, also when another process wrote them."""
        snapshot = self._snapshot
        try:
            if self._signature() == snapshot.signature:
                return snapshot.aliases
            snapshot = self._read()
        except _Broken:
            snapshot = self._put_aside()
        except OSError as e:
            snapshot = _Snapshot(problem=f"{self.path} cannot be read: {e.strerror}")
        if snapshot.problem and snapshot != self._snapshot:
            logger.warning("%s", snapshot.problem)
        self._snapshot = snapshot
        return snapshot.aliases

    def get(self, key: str) -> Alias | None:
        """Give the alias of a key."""
        return self.all().get(key)

    def change(self, edit: Callable[[dict[str, Alias]], T]) -> T:
        """Let `edit` change the aliases, and write them if it did; give what it returns.

        This blocks, as long as another process writes. Raises StoreError: 507 when the disk is full, 500 for any other
        reason; what `edit` raises goes through. Nothing is changed then.
        """
        try:
            with self._locked():
                snapshot = self._read_or_put_aside()
                if snapshot.problem:
                    raise StoreError(500, snapshot.problem)
                aliases = dict(snapshot.aliases)
                result = edit(aliases)
                if aliases != snapshot.aliases:
                    self._write(aliases, after=snapshot.signature)
                return result
        except OSError as e:
            if e.errno in _FULL:
                raise StoreError(507, f"no space left to write {self.path}") from e
            raise StoreError(500, f"{self.path} cannot be written: {e.strerror}") from e

    def _signature(self) -> _Signature | None:
        try:
            return _signature_of(self.path.stat())
        except FileNotFoundError:
            return None

    def _read(self) -> _Snapshot:
        """Read the file. Raises _Broken for one that does not parse, OSError for one that cannot be read."""
        try:
            with self.path.open("rb") as file:
                signature, data = _signature_of(os.fstat(file.fileno())), file.read()
        except FileNotFoundError:
            return _Snapshot()
        try:
            content = json.loads(data)
            version = content["version"]
            if isinstance(version, int) and version > VERSION:
                return _Snapshot(
                    signature,
                    problem=f"{self.path} is of format {version}, and this program knows {VERSION}: it is left alone",
                )
            return _Snapshot(signature, _ALIASES.validate_python(content["aliases"]))
        except (ValueError, KeyError, TypeError, RecursionError, ValidationError) as e:
            raise _Broken from e

    def _read_or_put_aside(self) -> _Snapshot:
        """Read the file while the lock is held."""
        try:
            return self._read()
        except _Broken:
            aside = _unused(self.path, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()))
            self.path.rename(aside)
            logger.warning("%s is broken: it is kept as %s", self.path, aside.name)
            return _Snapshot()

    def _put_aside(self) -> _Snapshot:
        """Put a broken file aside, unless another process has done so."""
        try:
            with self._locked():
                return self._read_or_put_aside()
        except OSError as e:
            problem = f"{self.path} is broken, and cannot be put aside: {e.strerror}"
            return _Snapshot(self._signature(), problem=problem)

    def _write(self, aliases: Aliases, after: _Signature | None) -> None:
        """Replace the file, that has the signature `after`, while the lock is held."""
        # An alias is a line, for people who look.
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(_to_json(alias))}" for key, alias in aliases.items())
        data = f'{{"version": {VERSION}, "aliases": {{\n{lines}\n}}}}\n'.encode()
        # One name is enough, since only who holds the lock writes; nothing piles up when writers are killed.
        temporary = self.directory / TEMPORARY_NAME
        try:
            # What a killed writer left, or a link that somebody laid to a file of ours, is not written to.
            temporary.unlink(missing_ok=True)
            with os.fdopen(os.open(temporary, _NEW, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            # Clocks of file systems are coarse: no two states of the file have the same time.
            modified = max(time.time_ns(), after[0] + 1 if after else 0)
            os.utime(temporary, ns=(modified, modified))
            temporary.replace(self.path)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            raise
        _sync_directory(self.directory)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o600)
        try:
            _lock(descriptor)
            yield
        finally:
            # The system lets go of the lock with the descriptor, also when the process is killed.
            os.close(descriptor)


def _to_json(alias: Alias) -> dict[str, Any]:
    return {field.name: getattr(alias, field.name) for field in fields(alias)}


def _lock(descriptor: int) -> None:
    """Wait until no other process, and no other thread, holds the lock."""
    if sys.platform == "win32":
        msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _signature_of(stat: os.stat_result) -> _Signature:
    return (stat.st_mtime_ns, stat.st_size, stat.st_ino)


def _unused(path: Path, when: str) -> Path:
    """Give a name beside a file that no file has."""
    aside = path.with_name(f"{path.name}.broken-{when}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.broken-{when}-{number}")
    return aside


def _sync_directory(directory: Path) -> None:
    """Make a rename last; not every system and file system can be asked to."""
    if sys.platform == "win32":
        return
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
