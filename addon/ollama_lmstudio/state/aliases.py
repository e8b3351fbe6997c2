"""The aliases on disk: `virtual_models.json`, which any number of processes may read and write at once.

A writer takes an exclusive lock, reads the file, and renames a finished copy into place. So a reader never needs the
lock, and a writer that is killed leaves the old file or the new one, and a temporary file that the next writer removes.
The lock is that of a file of its own: on Windows what is locked cannot be read, and what is open cannot be replaced.
A file that this version did not write is never overwritten: a broken one is renamed, one of a newer format is kept.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from . import files

if TYPE_CHECKING:
    from pydantic import TypeAdapter

logger = logging.getLogger(__name__)

FILE_NAME: Final = "virtual_models.json"
LOCK_NAME: Final = "virtual_models.lock"
TEMPORARY_NAME: Final = "virtual_models.tmp"
VERSION: Final = 1
BROKEN: Final = ".broken-"
"""What follows the name of a file that could not be read, in the name that it is kept under."""

# The directory holds what users wrote.
_DIRECTORY_MODE: Final = 0o700

# By how much a time has to be later, for one file system or another to keep it apart; nanoseconds.
_TIME_STEPS: Final = (1, 100, 10**9, 2 * 10**9)

T = TypeVar("T")


class StoreError(Exception):
    """Raised when the aliases could not be changed, and were not, with the HTTP status and text of the response."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Alias:
    """A name for a model of LM Studio's, with what is added to requests for it.

    `target` is LM Studio's id; `created` and `modified` are nanoseconds since the epoch; `messages` are JSON objects
    as in Ollama's API, `adapters` are digests by file name. `capabilities` are added to those of the model.
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
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    capabilities: list[str] = field(default_factory=list)


Aliases = Mapping[str, Alias]
"""Aliases by key, which is the same for all spellings of a name."""

_FIELDS: Final = tuple(field.name for field in fields(Alias))

_Signature = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """The content of the file when it had this signature; with a `problem` it must not be overwritten."""

    signature: _Signature | None = None
    aliases: Aliases = field(default_factory=dict)
    problem: str = ""


class BrokenFileError(ValueError):
    """Raised for a file that does not parse."""


class NewerFileError(ValueError):
    """Raised for a file of a newer format, which must be left alone; the message says so of it."""


def parse(data: bytes) -> Aliases:
    """Parse a file of aliases. Raises BrokenFileError or NewerFileError."""
    try:
        content = json.loads(data)
        version = content["version"]
        if isinstance(version, int) and version > VERSION:
            raise NewerFileError(f"is of format {version}, and this program knows {VERSION}: it is left alone")
        return _validate(content["aliases"])
    except NewerFileError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise BrokenFileError from e


def are_in(directory: Path) -> bool:
    """Return whether there is a file of aliases in a directory, whole or broken."""
    with suppress(OSError):
        return (directory / FILE_NAME).is_file() or bool(broken_files(directory))
    return False


def broken_files(directory: Path) -> list[Path]:
    """Return the broken files that have been put aside, now or earlier, and are still there."""
    return list(directory.glob(f"{FILE_NAME}{BROKEN}*"))


@cache
def _adapter() -> TypeAdapter[dict[str, Alias]]:
    # Imported here: it takes a tenth of a second, and most people have no aliases.
    from pydantic import TypeAdapter

    return TypeAdapter(dict[str, Alias])


def _validate(content: object) -> dict[str, Alias]:
    """Return the aliases in the parsed JSON of a file; raise ValueError for what is none."""
    return _adapter().validate_python(content)


class AliasStore:
    """Keep the aliases in a directory, which is created by the first write.

    Reading never raises: a file that cannot be read is logged once, and counts as empty.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / FILE_NAME
        self._snapshot = _Snapshot()

    def all(self) -> Aliases:
        """Return all aliases as they are now, also when another process wrote them."""
        snapshot = self._snapshot
        try:
            if self._signature() == snapshot.signature:
                return snapshot.aliases
            # Waits once for a file that cannot be opened, not with every request.
            snapshot = self._read(0 if snapshot.problem else files.READ_SECONDS)
        except BrokenFileError:
            snapshot = self._put_aside()
        except OSError as e:
            snapshot = _Snapshot(problem=f"{self.path} cannot be read: {e.strerror}")
        if snapshot.problem and snapshot != self._snapshot:
            logger.warning("%s", snapshot.problem)
        self._snapshot = snapshot
        return snapshot.aliases

    def get(self, key: str) -> Alias | None:
        """Return the alias of a key."""
        return self.all().get(key)

    def change(self, edit: Callable[[dict[str, Alias]], T], seconds: float = files.LOCK_SECONDS) -> T:
        """Call `edit` with the aliases, write them if it changed them, and return its result.

        Blocks while another process writes, for so many seconds. Raises StoreError: 507 when the disk is full, 500 for
        any other reason; exceptions of `edit` pass. In each of these cases nothing is changed.
        """
        try:
            with self._locked(seconds):
                snapshot = self._read_or_put_aside()
                if snapshot.problem:
                    raise StoreError(HTTPStatus.INTERNAL_SERVER_ERROR, snapshot.problem)
                aliases = dict(snapshot.aliases)
                result = edit(aliases)
                if aliases != snapshot.aliases:
                    self._write(aliases, after=snapshot.signature)
                return result
        except OSError as e:
            if e.errno in files.DISK_FULL:
                raise StoreError(HTTPStatus.INSUFFICIENT_STORAGE, f"no space left to write {self.path}") from e
            raise StoreError(HTTPStatus.INTERNAL_SERVER_ERROR, f"{self.path} cannot be written: {e.strerror}") from e

    def _signature(self) -> _Signature | None:
        try:
            return _signature_of(self.path.stat())
        except FileNotFoundError:
            return None

    def _read(self, seconds: float = files.BUSY_SECONDS) -> _Snapshot:
        """Read the file. Raises BrokenFileError for one that does not parse, OSError for one that cannot be read."""
        # Taken before the file is read: if it is replaced in between, it is read again the next time.
        signature = self._signature()
        try:
            data = files.read(self.path, seconds)
        except FileNotFoundError:
            return _Snapshot()
        try:
            return _Snapshot(signature, parse(data))
        except NewerFileError as e:
            return _Snapshot(signature, problem=f"{self.path} {e}")

    def _read_or_put_aside(self) -> _Snapshot:
        """Read the file while the lock is held; rename it if it does not parse."""
        try:
            return self._read()
        except BrokenFileError:
            aside = unused(self.path, BROKEN)
            files.rename(self.path, aside)
            logger.warning("%s is broken: it is kept as %s", self.path, aside.name)
            return _Snapshot()

    def _put_aside(self) -> _Snapshot:
        """Rename a broken file, unless another process has done so. Does not wait: requests do."""
        try:
            with self._locked(seconds=0):
                return self._read_or_put_aside()
        except TimeoutError:
            return _Snapshot()
        except OSError as e:
            problem = f"{self.path} is broken, and cannot be put aside: {e.strerror}"
            return _Snapshot(self._signature(), problem=problem)

    def _write(self, aliases: Aliases, after: _Signature | None) -> None:
        """Replace the file, which has the signature `after`, while the lock is held."""
        # One line per alias, so that the file can be read and compared.
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(_to_json(alias))}" for key, alias in aliases.items())
        data = f'{{"version": {VERSION}, "aliases": {{\n{lines}\n}}}}\n'.encode()
        # One name for all writers: only the holder of the lock writes, and killed ones leave at most one file.
        temporary = self.directory / TEMPORARY_NAME
        try:
            # Never write into what is there: the file of a killed writer, or a link to another file of the user.
            files.remove(temporary)
            files.write_new(temporary, data)
            _set_later_time(temporary, after[0] if after else 0)
            files.replace(temporary, self.path)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            raise
        files.sync_directory(self.directory)

    @contextmanager
    def _locked(self, seconds: float) -> Iterator[None]:
        make_directory(self.directory)
        with files.locked(self.directory / LOCK_NAME, seconds):
            yield


def _set_later_time(path: Path, before: int) -> None:
    """Give a file a time that is later than `before`: readers tell states apart by it.

    Clocks are coarse (a kernel tick, often 4 ms), and so are the times that file systems keep: 1 ns, 100 ns on Windows,
    1 or 2 s on some.
    """
    for step in _TIME_STEPS:
        modified = max(time.time_ns(), before + step)
        os.utime(path, ns=(modified, modified))
        if path.stat().st_mtime_ns > before:
            break


def _to_json(alias: Alias) -> dict[str, Any]:
    return {name: getattr(alias, name) for name in _FIELDS}


def _signature_of(stat: os.stat_result) -> _Signature:
    return (stat.st_mtime_ns, stat.st_size, stat.st_ino)


def make_directory(directory: Path) -> None:
    """Make a directory for what users write, unless it is there."""
    directory.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)


def unused(path: Path, why: str) -> Path:
    """Return a path beside `path` that no file has, for a file that is put aside now."""
    name = f"{path.name}{why}{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    aside, number = path.with_name(name), 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{name}-{number}")
    return aside
