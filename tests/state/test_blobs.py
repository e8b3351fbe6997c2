"""Blobs on disk."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ollama_lmstudio.state.blobs import BlobWriter, blob_path, parse_digest

DATA = b"some bytes"
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize("text", [f"sha256:{HEX}", f"sha256-{HEX}", f"sha256:{HEX.upper()}"])
def test_digest(text: str) -> None:
    assert parse_digest(text) == f"sha256:{HEX}"


@pytest.mark.parametrize(
    "text",
    ["", HEX, f"sha256:{HEX[1:]}", f"sha256:{HEX}0", f"SHA256:{HEX}", f"sha256:{HEX}\n", f"sha256_{HEX}", "../../x"],
)
def test_no_digest(text: str) -> None:
    assert parse_digest(text) is None


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def test_blob_appears_when_it_is_whole(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "blobs"
    upload = BlobWriter(directory)
    upload.write(DATA[:4])
    upload.write(DATA[4:])
    assert not blob_path(directory, DIGEST).exists()
    assert upload.finish(DIGEST) == DIGEST
    assert blob_path(directory, DIGEST).read_bytes() == DATA
    upload.abort()
    assert names(directory) == [DIGEST.replace(":", "-")]


def test_other_digest_leaves_nothing(tmp_path: Path) -> None:
    upload = BlobWriter(tmp_path)
    upload.write(b"other bytes")
    assert upload.finish(DIGEST) == f"sha256:{hashlib.sha256(b'other bytes').hexdigest()}"
    assert names(tmp_path) == []


def test_aborted_upload_is_never_a_blob(tmp_path: Path) -> None:
    upload = BlobWriter(tmp_path)
    upload.write(DATA)
    upload.abort()
    upload.write(DATA)
    with pytest.raises(OSError, match="cancel"):
        upload.finish(DIGEST)
    assert names(tmp_path) == []


def test_what_nobody_writes_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".partial-dead").write_bytes(b"left by a dead process")
    (tmp_path / "sha256-kept").write_bytes(b"")
    living = BlobWriter(tmp_path)
    living.write(DATA)
    BlobWriter(tmp_path).abort()
    assert sorted(names(tmp_path))[1:] == ["sha256-kept"]
    assert living.finish(DIGEST) == DIGEST
    assert sorted(names(tmp_path)) == sorted([DIGEST.replace(":", "-"), "sha256-kept"])
