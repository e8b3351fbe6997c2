"""Moving the aliases from the directories in which they were kept before.

What is there is added to the aliases that are kept now; of two of one name, the one that was changed last stays. The
former file stays beside where it was, under another name. It is renamed when the new one is on the disk: a process that
is killed in between leaves a file that is added once more, which changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from . import aliases, files
from .aliases import Alias, Aliases, AliasStore, StoreError

logger = logging.getLogger(__name__)

MOVED: Final = ".moved-"
"""What follows the name of a file whose aliases have been moved, in the name that it gets."""


def move(
    store: AliasStore, directories: Iterable[Path], convert: Callable[[bytes], Aliases], seconds: float
) -> list[Path]:
    """Add the aliases in each of these directories to those of `store`, and put their files aside.

    `convert` reads a file that is not of this program's format, or raises ValueError. Never raises: what cannot be
    moved is logged, and stays where it is. Return the directories that are to be tried again: another process has held
    a lock for so many seconds.
    """
    waiting = []
    for directory in directories:
        try:
            if aliases.are_in(directory) and directory.resolve() != store.directory.resolve():
                _move(store, directory, convert, seconds)
        except TimeoutError:
            waiting.append(directory)
        except OSError as e:
            _report(directory, store, f"{e.strerror or e}{f' ({e.filename})' if e.filename else ''}")
        except StoreError as e:
            if isinstance(e.__cause__, TimeoutError):
                waiting.append(directory)
            else:
                _report(directory, store, e.message)
    return waiting


def _report(directory: Path, store: AliasStore, reason: str) -> None:
    logger.warning(
        "the aliases in %s cannot be moved to %s, and are not used: %s. Nothing is lost: mend that, and start again.",
        *(directory / aliases.FILE_NAME, store.directory, reason),
    )


def report_waiting(directory: Path, store: AliasStore) -> None:
    """Log that the aliases in a directory wait for another process, whose lock it is."""
    logger.warning(
        "the aliases in %s are not used yet: another process holds the lock %s there or in %s. They are moved when it "
        "gives that up; if it hangs, end it.",
        *(directory / aliases.FILE_NAME, aliases.LOCK_NAME, store.directory),
    )


def _move(store: AliasStore, directory: Path, convert: Callable[[bytes], Aliases], seconds: float) -> None:
    # The lock of the former directory comes first, always: two processes that wait for each other would wait in vain.
    with files.locked(directory / aliases.LOCK_NAME, seconds):
        for broken in aliases.broken_files(directory):
            _keep_broken(store, files.read(broken))
            files.remove(broken)
        path = directory / aliases.FILE_NAME
        try:
            data = files.read(path)
        except FileNotFoundError:
            # Another process has moved it.
            return
        try:
            found = _parse(data, convert)
        except aliases.NewerFileError as e:
            logger.warning("%s %s", path, e)
            return
        if found is None:
            logger.warning("%s is broken: it is kept as %s", path, _keep_broken(store, data))
        else:
            store.change(lambda kept: _add(found, kept), seconds)
        files.rename(path, aliases.unused(path, MOVED))
        files.sync_directory(directory)
    if found:
        logger.info("the aliases are kept in %s from now on; they were in %s", store.path, path)


def _parse(data: bytes, convert: Callable[[bytes], Aliases]) -> Aliases | None:
    """Return the aliases in a file of this format or another; None for a broken one."""
    try:
        return aliases.parse(data)
    except aliases.BrokenFileError:
        try:
            return convert(data)
        except ValueError:
            return None


def _add(found: Aliases, kept: dict[str, Alias]) -> None:
    for key, alias in found.items():
        if key not in kept or alias.modified > kept[key].modified:
            kept[key] = alias


def _keep_broken(store: AliasStore, data: bytes) -> Path:
    aliases.make_directory(store.directory)
    aside = aliases.unused(store.path, aliases.BROKEN)
    files.write_new(aside, data)
    files.sync_directory(store.directory)
    return aside
