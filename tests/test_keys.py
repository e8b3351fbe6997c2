"""The named keys: what the option and its files may say, which key is found, and when a file is read again."""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from ollama_lmstudio import access, keys
from ollama_lmstudio.access import Gate
from ollama_lmstudio.keys import Keyring, NamedKey, Sources

ALICE, BOB = NamedKey("alice", "sk-a-1"), NamedKey("bob", "sk-b-2")
SECRET = "sk-secret-17"


def file_of(folder: Path, text: str | bytes, name: str = "keys") -> Path:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    file.chmod(0o600)
    return file


def why_not_read(missing: Path) -> str:
    """Give the system's own words for a file that is not there."""
    with pytest.raises(FileNotFoundError) as caught:
        missing.stat()
    return f"{missing} cannot be read: {caught.value.strerror}"


def told(ring: Keyring) -> list[tuple[int, str]]:
    """Look twice: a file must have been the same for as long. Give what is to be logged."""
    return [(message.level, message.text) for _ in range(2) for message in ring.look()]


@pytest.mark.parametrize(
    ("entries", "found"),
    [
        ([], ()),
        (["alice=sk-a-1"], (ALICE,)),
        ([" alice = sk-a-1 ", "bob=sk-b-2"], (ALICE, BOB)),
        # The padding of base64, and what else stands behind the first sign.
        (["alice=a==b=="], (NamedKey("alice", "a==b=="),)),
        (["Jürgen.M@x+y-z=k"], (NamedKey("Jürgen.M@x+y-z", "k"),)),
        # One that is being changed.
        (["alice=old", "alice=new"], (NamedKey("alice", "old"), NamedKey("alice", "new"))),
    ],
)
def test_keys_of_the_option(entries: list[str], found: tuple[NamedKey, ...]) -> None:
    sources = keys.parse(entries)
    assert sources == Sources(found)
    assert bool(sources) is bool(found)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        # A variable that is not set, as in api_keys: ["$KEYS"], must not open the door to all.
        ([""], "entry 1 is neither NAME=KEY nor"),
        (["alice=k", " "], "entry 2 is neither"),
        ([SECRET], "entry 1 is neither"),
        ([f"not a name={SECRET}"], "entry 1 is neither"),
        ([f"={SECRET}"], "entry 1 is neither"),
        ([f"{'a' * 65}={SECRET}"], "entry 1 is neither"),
        (["alice="], "entry 1 is neither"),
        # A key alone, with the padding of base64.
        ([f"{SECRET}="], "entry 1 is neither"),
        ([f"{SECRET}=="], "entry 1 is neither"),
        ([f"alice={SECRET} # her laptop"], "the key of alice cannot be one"),
        ([f'alice="{SECRET}"'], "the key of alice cannot be one"),
        ([f"alice={SECRET}ü"], "the key of alice cannot be one"),
        ([f"alice={SECRET}", f"bob={SECRET}"], "alice and bob have the same key"),
    ],
)
def test_wrong_entries_are_refused_and_not_repeated(entries: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        keys.parse(entries)
    assert SECRET not in str(caught.value)


def test_a_path_is_named_where_it_can_be_no_key(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(ValueError, match=re.escape(why_not_read(missing))):
        Keyring(keys.parse([str(missing)]))
    with pytest.raises(ValueError, match=r"is no file"):
        Keyring(keys.parse([str(tmp_path)]))


def test_a_file_of_keys(tmp_path: Path) -> None:
    text = "\ufeff# the team\r\n\r\n alice = sk-a-1\r\n  # gone: carol=x\nbob=sk-b-2"
    ring = Keyring(keys.parse([str(file_of(tmp_path, text)), "carol=sk-c"]))
    assert ring.names == ("carol", "alice", "bob")
    assert [ring.find(text) for text in ("sk-a-1", "sk-b-2", "sk-a-", "", "alice", "\udcff")] == [
        *(ALICE, BOB),
        *[None] * 4,
    ]


BROKEN = [
    (f"alice=sk-a-1\n{SECRET}\n", "line 2: it is not NAME=KEY"),
    (f"{SECRET}==\n", "line 1: it is not NAME=KEY"),
    (f"alice={SECRET} x\n", "line 1: the key of alice cannot be one"),
    (f"alice={SECRET}\nbob={SECRET}\n", "alice and bob have the same key"),
    (b"alice=\xff\xfe", "no text in UTF-8"),
]


@pytest.mark.parametrize(("text", "said"), BROKEN)
def test_a_broken_file_is_refused_at_the_start(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(ValueError, match=f"^api_keys: .*{said}") as caught:
        Keyring(Sources(files=(file_of(tmp_path, text),)))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(("text", "said"), BROKEN)
def test_a_broken_file_leaves_the_keys_as_they_were_and_says_so_once(
    tmp_path: Path, text: str | bytes, said: str
) -> None:
    file = file_of(tmp_path, "alice=sk-a-1\n")
    ring = Keyring(Sources(files=(file,)))
    file_of(tmp_path, text)
    ((level, message),) = told(ring)
    assert level == logging.ERROR
    assert said in message
    assert SECRET not in message
    assert ring.find("sk-a-1") == ALICE
    assert told(ring) == []
    assert said in ring.problems()[0]
    file_of(tmp_path, "alice=sk-a-1\nbob=sk-b-2\n")
    assert told(ring) == [(logging.INFO, "api_keys: the keys were read anew: alice, bob; added bob")]
    assert ring.find("sk-b-2") == BOB
    assert ring.problems() == []


def test_a_file_that_is_gone_leaves_the_keys_as_they_were(tmp_path: Path) -> None:
    file = file_of(tmp_path, "alice=sk-a-1\n")
    ring = Keyring(Sources(files=(file,)))
    file.unlink()
    ((level, message),) = told(ring)
    assert (level, why_not_read(file) in message) == (logging.ERROR, True)
    assert ring.find("sk-a-1") == ALICE


@pytest.mark.parametrize("broken", ["alice\n", None])
def test_keys_that_need_not_be_whole_let_nobody_in_until_they_are(tmp_path: Path, broken: str | None) -> None:
    """As where the script is loaded anew: the keys that were in force are not known to it."""
    file = file_of(tmp_path, broken or "")
    if broken is None:
        file.unlink()
    ring = Keyring(keys.parse([str(file)]), must_be_whole=False)
    assert ring
    assert ring.names == ()
    assert (str(file) in ring.problems()[0], ring.problems()[1]) == (True, keys.NOBODY)
    assert not Gate.make((), (), "", ring, loopback=True).has_key({})
    file_of(tmp_path, "alice=sk-a-1\n")
    assert told(ring) == [(logging.INFO, "api_keys: the keys were read anew: alice; added alice")]
    assert ring.problems() == []


@pytest.mark.skipif(os.name != "posix", reason="Windows has no time of a change of rights")
def test_a_file_whose_rights_have_changed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that could not be read has the same content when it can be."""
    file = file_of(tmp_path, "alice=sk-a-1\n")
    ring = Keyring(Sources(files=(file,)))
    file_of(tmp_path, "bob=sk-b-2\n")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", _refuse)
        ((level, message),) = told(ring)
    assert (level, "Permission denied" in message) == (logging.ERROR, True)
    file.chmod(0o640)
    assert [level for level, _ in told(ring)] == [logging.INFO]
    assert ring.find("sk-b-2") == BOB


def _refuse(*_: object, **__: object) -> str:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@pytest.mark.parametrize("text", ["", "# nobody\n"])
def test_a_file_without_keys_lets_nobody_in(tmp_path: Path, text: str) -> None:
    """Not everybody: who has taken all keys out does not mean that none is needed."""
    file = file_of(tmp_path, "alice=sk-a-1\n")
    ring = Keyring(Sources(files=(file,)))
    file_of(tmp_path, text)
    assert (logging.WARNING, f"api_keys: {keys.NOBODY}") in told(ring)
    for found in (ring, Keyring(ring.sources)):
        gate = Gate.make((), (), "", found, loopback=True)
        assert not gate.has_key({})
        assert not gate.has_key({"x-api-key": "sk-a-1"})
        assert not gate.has_key({"x-api-key": ""})
        assert found.problems() == [keys.NOBODY]


def test_a_file_is_read_when_it_has_not_changed_between_two_looks(tmp_path: Path) -> None:
    file = file_of(tmp_path, "alice=sk-a-1\nbob=sk-b-2\n")
    ring = Keyring(Sources(files=(file,)))
    file.write_text("alice=", newline="")
    assert ring.look() == []
    # Its end has been written: half of it was never used.
    file.write_text("alice=sk-a-1\ncarol=k\n", newline="")
    assert ring.look() == []
    assert ring.find("sk-b-2") == BOB
    assert [message.text for message in ring.look()] == [
        "api_keys: the keys were read anew: alice, carol; added carol; gone bob"
    ]
    assert ring.find("sk-b-2") is None


def test_a_file_that_has_not_changed_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ring = Keyring(Sources(files=(file_of(tmp_path, "alice=sk-a-1\n"),)))
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: pytest.fail("it was read"))
    assert told(ring) == []


@pytest.mark.skipif(os.name != "posix", reason="Windows' rights are not in a file's mode")
@pytest.mark.parametrize(
    ("mode", "is_open"), [(0o600, False), (0o400, False), (0o640, False), (0o644, True), (0o660, True)]
)
def test_a_file_that_others_may_read_is_told(tmp_path: Path, mode: int, is_open: bool) -> None:
    file = file_of(tmp_path, "alice=sk-a-1\n")
    ring = Keyring(Sources(files=(file,)))
    file.chmod(mode)
    assert [str(file) in text for text in ring.open_files()] == [True] * is_open


def gate(api_key: str = "", entries: Sequence[str] = ("alice=sk-a-1", "bob=sk-b-2")) -> Gate:
    return Gate.make((), (), api_key, Keyring(keys.parse(entries)), loopback=True)


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({"authorization": "Bearer sk-a-1"}, "alice"),
        ({"authorization": "bearer  sk-b-2 "}, "bob"),
        ({"x-api-key": "sk-b-2"}, "bob"),
        ({"authorization": "Bearer wrong", "x-api-key": "sk-b-2"}, "bob"),
        ({"authorization": "Bearer sk-a-1", "x-api-key": "sk-b-2"}, "alice"),
        ({"authorization": "sk-a-1"}, None),
        ({"authorization": "Bearer sk-a-"}, None),
        ({"x-api-key": "alice"}, None),
        ({"x-api-key": "\udcff"}, None),
        ({}, None),
    ],
)
def test_who_has_sent_a_key(headers: dict[str, str], name: str | None) -> None:
    found = gate().named_key(headers)
    assert (found and found.name) == name
    assert gate().has_key(headers) is (name is not None)
    assert (access.check(gate(), "GET", "localhost", headers, ("GET",)) is None) is (name is not None)


def test_api_key_goes_on_without_a_name() -> None:
    both = gate("one")
    assert both.named_key({"x-api-key": "one"}) is None
    assert [both.has_key({"x-api-key": key}) for key in ("one", "sk-a-1", "sk-b-2", "two", "")] == [True] * 3 + [
        False
    ] * 2


def test_what_is_printed_of_keys_has_no_key() -> None:
    for shown in (repr(keys.parse([f"alice={SECRET}"])), repr(gate(entries=[f"alice={SECRET}"]).keys)):
        assert SECRET not in shown
