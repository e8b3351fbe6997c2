"""Aliases that were kept elsewhere: nothing is lost, and nothing is moved twice."""

from __future__ import annotations

import errno
import logging
import os
import threading
from pathlib import Path

import pytest

from ollama_lmstudio.state import files, former
from ollama_lmstudio.state.aliases import BROKEN, FILE_NAME, LOCK_NAME, Alias, Aliases, AliasStore


def alias(name: str, modified: int, system: str = "") -> Alias:
    return Alias(name, "target", 1, modified, system=system)


def keep(directory: Path, *given: Alias) -> AliasStore:
    store = AliasStore(directory)
    store.change(lambda aliases: aliases.update({alias.name: alias for alias in given}))
    return store


def no_other_format(data: bytes) -> Aliases:
    raise ValueError(data)


def move(store: AliasStore, *directories: Path) -> None:
    assert former.move(store, directories, no_other_format, files.LOCK_SECONDS) == []


def names(directory: Path) -> list[str]:
    """Return the names of files of aliases, without the times in them."""
    return sorted(path.name.partition("2")[0] for path in directory.glob("virtual_models.json*"))


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def store(tmp_path: Path) -> AliasStore:
    return AliasStore(tmp_path / "data" / "new")


def test_aliases_are_moved_once(old: Path, store: AliasStore, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    content = keep(old, alias("a", 1), alias("b", 2)).path.read_bytes()
    move(store, old, old.with_name("nowhere"))
    assert dict(store.all()) == {"a": alias("a", 1), "b": alias("b", 2)}
    assert names(old) == [f"{FILE_NAME}{former.MOVED}"]
    assert next(old.glob("*.moved-*")).read_bytes() == content
    assert caplog.messages == [f"the aliases are kept in {store.path} from now on; they were in {old / FILE_NAME}"]
    store.change(lambda aliases: aliases.pop("a"))
    move(store, old)
    assert set(store.all()) == {"b"}, "what was deleted does not come back"
    assert not old.with_name("nowhere").exists()


def test_of_two_the_one_that_was_changed_last_stays(old: Path, store: AliasStore) -> None:
    keep(store.directory, alias("a", 5, system="new"), alias("b", 5, system="new"), alias("c", 5, system="new"))
    keep(old, alias("a", 4, system="old"), alias("b", 6, system="old"), alias("c", 5, system="old"), alias("d", 1))
    move(store, old)
    assert {key: found.system for key, found in store.all().items()} == {"a": "new", "b": "old", "c": "new", "d": ""}


def test_several_places_are_read(old: Path, store: AliasStore) -> None:
    keep(old, alias("a", 1), alias("b", 1))
    keep(old.with_name("older"), alias("b", 2), alias("c", 1))
    move(store, old, old.with_name("older"))
    assert {key: found.modified for key, found in store.all().items()} == {"a": 1, "b": 2, "c": 1}


def test_the_same_directory_by_another_name_is_left_alone(old: Path) -> None:
    store = keep(old, alias("a", 1))
    link = old.with_name("link")
    if files.NO_FOLLOW:
        link.symlink_to(old)
    move(store, old, old / ".." / old.name, link)
    assert set(store.all()) == {"a"}
    assert names(old) == [FILE_NAME]


def test_processes_that_start_at_once_move_it_once(
    old: Path, store: AliasStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    keep(old, *(alias(str(number), number) for number in range(50)))
    threads = [threading.Thread(target=move, args=(AliasStore(store.directory), old)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.all()) == 50
    assert names(old) == [f"{FILE_NAME}{former.MOVED}"]
    assert len(caplog.messages) == 1


def test_what_is_interrupted_is_done_the_next_time(
    old: Path, store: AliasStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keep(old, alias("a", 1))

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(files, "rename", fail)
        move(store, old)
    assert os.strerror(errno.EIO) in caplog.text
    assert names(old) == [FILE_NAME]
    store.change(lambda aliases: aliases.update(a=alias("a", 2)))
    move(store, old)
    assert dict(store.all()) == {"a": alias("a", 2)}
    assert names(old) == [f"{FILE_NAME}{former.MOVED}"]


@pytest.mark.parametrize("content", [b"", b'{"version": 1, "ali', b'{"version": 1, "aliases": {"a": 5}}'])
def test_a_broken_file_is_kept_where_no_cleaner_comes(
    old: Path, store: AliasStore, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    old.mkdir()
    (old / FILE_NAME).write_bytes(content)
    (old / f"{FILE_NAME}{BROKEN}20260101T000000Z").write_bytes(b"put aside before")
    move(store, old)
    kept = {path.read_bytes() for path in store.directory.glob(f"{FILE_NAME}{BROKEN}*")}
    assert kept == {content, b"put aside before"}
    assert names(old) == [f"{FILE_NAME}{former.MOVED}"]
    assert f"{old / FILE_NAME} is broken: it is kept as {store.path}{BROKEN}" in caplog.text
    assert store.all() == {}


def test_half_of_a_new_file_is_put_aside_and_the_former_one_is_used(old: Path, store: AliasStore) -> None:
    keep(old, alias("a", 1))
    store.directory.mkdir(parents=True)
    store.path.write_bytes(b'{"version": 1, "ali')
    move(store, old)
    assert set(store.all()) == {"a"}
    assert names(store.directory) == [FILE_NAME, f"{FILE_NAME}{BROKEN}"]


def test_what_a_later_version_wrote_is_left_alone(
    old: Path, store: AliasStore, caplog: pytest.LogCaptureFixture
) -> None:
    newer = b'{"version": 2, "aliases": "all different"}'
    old.mkdir()
    (old / FILE_NAME).write_bytes(newer)
    move(store, old)
    assert (old / FILE_NAME).read_bytes() == newer
    assert "is of format 2" in caplog.text
    (old / FILE_NAME).unlink()
    keep(old, alias("a", 1))
    store.directory.mkdir(parents=True)
    store.path.write_bytes(newer)
    move(store, old)
    assert store.path.read_bytes() == newer
    assert names(old) == [FILE_NAME]
    assert f"the aliases in {old / FILE_NAME} cannot be moved to {store.directory}, and are not used: " in caplog.text


def test_a_directory_that_cannot_be_made_loses_nothing(
    old: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keep(old, alias("a", 1))
    (tmp_path / "file").write_bytes(b"in the way")
    move(AliasStore(tmp_path / "file" / "data"), old)
    assert names(old) == [FILE_NAME]
    assert "cannot be moved" in caplog.text
    assert str(tmp_path / "file") in caplog.text


@pytest.mark.parametrize("whose", ["former", "new"])
def test_a_lock_that_another_process_holds_is_not_waited_for(
    old: Path, store: AliasStore, caplog: pytest.LogCaptureFixture, whose: str
) -> None:
    keep(old, alias("a", 1), alias("b", 2))
    keep(store.directory, alias("a", 3))
    directory = old if whose == "former" else store.directory
    with files.locked(directory / LOCK_NAME):
        assert former.move(store, [old, old.with_name("nowhere")], no_other_format, 0) == [old]
        assert names(old) == [FILE_NAME], "it stays where it is"
    assert caplog.messages == [], "who tries again tells it"
    move(store, old)
    assert dict(store.all()) == {"a": alias("a", 3), "b": alias("b", 2)}


def test_a_full_disk_gets_no_half_of_a_broken_file(
    old: Path, store: AliasStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    old.mkdir()
    (old / FILE_NAME).write_bytes(b"{broken")

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        move(store, old)
    assert os.strerror(errno.ENOSPC) in caplog.text
    assert (names(old), names(store.directory)) == ([FILE_NAME], [])
