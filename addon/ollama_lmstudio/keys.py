"""The named keys of the option `api_keys`: what it and its files say, and which of them a client has sent.

A file holds a line `NAME=KEY` for each; empty lines and those that begin with `#` say nothing. It is read again when it
has changed. While one cannot be used, all keys stay as they were. Where none is left, nobody comes in.

No text made here holds a key: what a user has given in a wrong place may be one.
"""

from __future__ import annotations

import hmac
import logging
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

COMMENT = "#"
# A name is told in tables, in filters and as the label of a metric.
_NAME = re.compile(r"\w[\w.@+-]{0,63}")
# What a header can hold (RFC 9110 5.5), without spaces and quotes: those belong to a comment or to another notation.
_KEY = re.compile(r"[!#-&(-~]+")
# Others than the owner may not change the file, and others than the owner's group may not read it.
_TOO_OPEN = stat.S_IWGRP | stat.S_IRWXO
_SALT_BYTES = 32

NEITHER = "entry {} is neither NAME=KEY nor the path of a file: it is not repeated here, as it may be a key"
OPEN = "others on this machine may read or change {}: allow it to its owner only, with chmod 600"
NOBODY = "there is no key in what api_keys names: nobody comes in with one"


@dataclass(frozen=True, slots=True)
class NamedKey:
    """A key, and the name that is told of it."""

    name: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Sources:
    """What the option names: keys, and files of keys."""

    keys: tuple[NamedKey, ...] = ()
    files: tuple[Path, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.keys or self.files)


NO_SOURCES = Sources()


class Message(NamedTuple):
    """What is to be logged, at one of logging's levels."""

    level: int
    text: str


def parse(entries: Sequence[str]) -> Sources:
    """Parse the entries of the option, each `NAME=KEY` or the path of a file; raise ValueError for anything else."""
    keys: list[NamedKey] = []
    files: list[Path] = []
    for number, entry in enumerate(map(str.strip, entries), 1):
        if (key := parse_key(entry)) is not None:
            keys.append(key)
        else:
            # An empty one, too, as of a variable that is not set: it must not mean that all may come in.
            files.append(_path(entry, number))
    _refuse_two_names(keys)
    return Sources(tuple(keys), tuple(files))


def parse_key(text: str) -> NamedKey | None:
    """Parse `NAME=KEY`; return None for what has no name or no key; raise ValueError for a key that cannot be one."""
    name, _, key = (part.strip() for part in text.partition("="))
    # A key without a name may end in the padding of base64: it would be told as a name, and `=` would be its key.
    if not key.strip("=") or not _NAME.fullmatch(name):
        return None
    if not _KEY.fullmatch(key):
        raise ValueError(
            f"the key of {name} cannot be one: it is printable characters of ASCII, without spaces and quotes"
        )
    return NamedKey(name, key)


def _path(entry: str, number: int) -> Path:
    try:
        path = Path(entry).expanduser()
        # One that is away just now leaves the keys as they were, and is an error where they are read at a start.
        if path.is_file() or (entry != path.name and path.parent.is_dir()):
            return path
    except (OSError, RuntimeError, ValueError):
        pass
    raise ValueError(NEITHER.format(number))


def _refuse_two_names(keys: Iterable[NamedKey]) -> None:
    """Raise ValueError if a key has two names: which of them would be told?

    A name may have two keys, so that one can be replaced while the other works.
    """
    names: dict[str, str] = {}
    for key in keys:
        if (first := names.setdefault(key.key, key.name)) != key.name:
            raise ValueError(f"{first} and {key.name} have the same key: give each one of its own")


def _read(sources: Sources) -> tuple[NamedKey, ...]:
    """Return all keys; raise ValueError that names a file which cannot be used."""
    keys = [*sources.keys, *(key for file in sources.files for key in _read_file(file))]
    _refuse_two_names(keys)
    return tuple(dict.fromkeys(keys))


def _read_file(file: Path) -> Iterator[NamedKey]:
    try:
        # A pipe would be waited for, and a device has no end.
        if not stat.S_ISREG(file.stat().st_mode):
            raise ValueError(f"{file} is no file")
        text = file.read_text(encoding="utf-8-sig")
    except OSError as e:
        raise ValueError(f"{file} cannot be read: {e.strerror or e}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{file} is no text in UTF-8") from None
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if not line or line.startswith(COMMENT):
            continue
        try:
            key = parse_key(line)
        except ValueError as e:
            raise ValueError(f"{file}, line {number}: {e}") from None
        if key is None:
            raise ValueError(f"{file}, line {number}: it is not NAME=KEY")
        yield key


def _is_too_open(file: Path) -> bool:
    """Return whether others on this machine may read or change a file. Windows' rights are not in its mode."""
    try:
        return os.name == "posix" and bool(file.stat().st_mode & _TOO_OPEN)
    except OSError:
        return False


def _signature(file: Path) -> tuple[int, ...]:
    """Return what is another one when a file has changed."""
    try:
        found = file.stat()
    except OSError:
        return ()
    # The time of the last change of rights, too, except on Windows: a file that could not be read may now be.
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


class Keyring:
    """The keys that are in force."""

    def __init__(self, sources: Sources = NO_SOURCES, *, must_be_whole: bool = True) -> None:
        """Read the files; raise ValueError that names the option and a file which cannot be used.

        Where they need not be whole, nobody comes in until they can be used.
        """
        self.sources = sources
        self.problem = ""
        """Why the files are not what is in force; empty if they are."""
        self._salt = secrets.token_bytes(_SALT_BYTES)
        self._by_digest: dict[bytes, NamedKey] = {}
        self._seen = self._read_of = self._signatures()
        try:
            self._use(_read(sources))
        except ValueError as e:
            if must_be_whole:
                raise ValueError(f"api_keys: {e}") from None
            self.problem = str(e)

    def __bool__(self) -> bool:
        return bool(self.sources)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the keys, in their order."""
        return tuple(dict.fromkeys(key.name for key in self._by_digest.values()))

    def find(self, given: str) -> NamedKey | None:
        """Return the key that was given.

        Its digest is looked up, which is made with a secret of this process: how long that takes tells nothing of how
        much of a key was right.
        """
        return self._by_digest.get(self._digest(given)) if given else None

    def problems(self) -> list[str]:
        """Return what is wrong with the files, and with what is in force."""
        return [text for text in (self.problem, NOBODY if self and not self._by_digest else "") if text]

    def open_files(self) -> list[str]:
        """Return what is to be said of files that others may read or change."""
        return [OPEN.format(file) for file in self.sources.files if _is_too_open(file)]

    def look(self) -> list[Message]:
        """Read the files again if they have changed, and return what is to be logged about it.

        They must have been the same at two looks: a file that is being written is not whole.
        """
        before, self._seen = self._seen, self._signatures()
        if self._seen in (self._read_of, ()) or self._seen != before:
            return []
        self._read_of, known = self._seen, self.names
        try:
            self._use(_read(self.sources))
        except ValueError as e:
            kept = "until it can be used, all keys stay as they were"
            self.problem = f"{e}: {kept}"
            return [Message(logging.ERROR, f"api_keys: {self.problem}")]
        self.problem = ""
        said = [f"api_keys: the keys were read anew: {_names(self.names)}"]
        said += [f"{what} {_names(names)}" for what, names in _changes(known, self.names) if names]
        return [
            Message(logging.INFO, "; ".join(said)),
            *(Message(logging.WARNING, f"api_keys: {text}") for text in (*self.problems(), *self.open_files())),
        ]

    def _use(self, keys: Iterable[NamedKey]) -> None:
        self._by_digest = {self._digest(key.key): key for key in keys}

    def _signatures(self) -> tuple[tuple[int, ...], ...]:
        return tuple(map(_signature, self.sources.files))

    def _digest(self, text: str) -> bytes:
        # A header may hold bytes that are not UTF-8.
        return hmac.digest(self._salt, text.encode("utf-8", "surrogatepass"), "sha256")


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _changes(before: Sequence[str], now: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    yield "added", [name for name in now if name not in before]
    yield "gone", [name for name in before if name not in now]
