"""Which blobs go, and which stay."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from ollama_lmstudio.state import unneeded
from ollama_lmstudio.state.aliases import FILE_NAME, Alias, AliasStore
from ollama_lmstudio.state.blobs import BlobWriter, blob_path, directory_in, parse_digest

OLD = unneeded.KEPT_SECONDS + 60
YOUNG = unneeded.KEPT_SECONDS - 60


def write(directory: Path, data: bytes, age: float = 0) -> str:
    """Write a blob as if it had been uploaded before; return its digest."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    writer = BlobWriter(directory)
    writer.write(data)
    writer.finish(digest)
    then = time.time() - age
    os.utime(blob_path(directory, digest), (then, then))
    return digest


def need(store: AliasStore, digest: str) -> None:
    def edit(aliases: dict[str, Alias]) -> None:
        aliases["x"] = Alias("x", "target", 1, 2, adapters={"lora.gguf": digest})

    store.change(edit)


def left(directory: Path) -> set[str]:
    return {digest for path in directory.iterdir() if (digest := parse_digest(path.name))}


@pytest.fixture
def store(tmp_path: Path) -> AliasStore:
    return AliasStore(tmp_path / "state")


@pytest.fixture
def directory(store: AliasStore) -> Path:
    return directory_in(store.directory)


def test_what_is_a_day_old_and_not_needed_goes(store: AliasStore, directory: Path) -> None:
    needed, young, old = write(directory, b"a", OLD), write(directory, b"b", YOUNG), write(directory, b"c", OLD)
    # A digest may be written in Ollama's other way, and in capital letters.
    need(store, needed.replace(":", "-").replace(needed[7:], needed[7:].upper()))
    (directory / "sha256-not-a-blob").write_bytes(b"")
    os.utime(directory / "sha256-not-a-blob", (0, 0))
    unneeded.remove_old(store, directory)
    assert left(directory) == {needed, young}
    assert (directory / "sha256-not-a-blob").exists()
    assert old not in left(directory)


def test_an_upload_under_way_is_safe(store: AliasStore, directory: Path) -> None:
    writer = BlobWriter(directory)
    writer.write(b"slow")
    for path in directory.iterdir():
        os.utime(path, (0, 0))
    dead = directory / ".partial-dead"
    dead.write_bytes(b"left by a process that was killed")
    unneeded.remove_old(store, directory)
    assert not dead.exists()
    digest = f"sha256:{hashlib.sha256(b'slow').hexdigest()}"
    assert writer.finish(digest) == digest
    unneeded.remove_old(store, directory)
    assert left(directory) == {digest}


def test_named_blobs_go_at_once_unless_they_are_needed(store: AliasStore, directory: Path) -> None:
    needed, other, third = (write(directory, data) for data in (b"a", b"b", b"c"))
    need(store, needed)
    unneeded.remove(store, directory, {needed, other, f"sha256:{'0' * 64}"})
    assert left(directory) == {needed, third}


def test_nothing_goes_while_nobody_knows_what_is_needed(store: AliasStore, directory: Path) -> None:
    digest = write(directory, b"a", OLD)
    store.path.write_text('{"version": 99, "aliases": {}}')
    unneeded.remove_old(store, directory)
    unneeded.remove(store, directory, {digest})
    assert left(directory) == {digest}


def test_a_state_directory_that_does_not_exist_is_not_made(store: AliasStore, directory: Path) -> None:
    unneeded.remove_old(store, directory)
    assert not store.directory.exists()
    assert store.path.name == FILE_NAME


def test_no_blob_goes_while_a_broken_file_of_aliases_may_be_mended(store: AliasStore, directory: Path) -> None:
    needed = write(directory, b"a", OLD)
    need(store, needed)
    file = store.directory / FILE_NAME
    whole = file.read_text()
    file.write_text(whole + "x")
    unneeded.remove_old(AliasStore(store.directory), directory)
    assert left(directory) == {needed}
    assert not file.exists(), "it has been put aside"
    unneeded.remove_old(AliasStore(store.directory), directory)
    unneeded.remove(AliasStore(store.directory), directory, [needed])
    assert left(directory) == {needed}, "also once it has been put aside"
    (broken,) = store.directory.glob(f"{FILE_NAME}.broken-*")
    broken.unlink()
    file.write_text(whole)
    other = write(directory, b"b", OLD)
    unneeded.remove_old(AliasStore(store.directory), directory)
    assert left(directory) == {needed}, other


def test_the_blobs_of_a_real_ollama_are_not_ours(store: AliasStore, directory: Path) -> None:
    blob = write(directory, b"a", OLD)
    (store.directory / "manifests").mkdir()
    unneeded.remove_old(store, directory)
    assert left(directory) == {blob}
