"""The store of aliases: nothing is lost, and nothing half written, whoever writes and however it ends."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ollama_lmstudio.state import aliases
from ollama_lmstudio.state import files as locks
from ollama_lmstudio.state.aliases import Alias, AliasStore, StoreError

ADDON = Path(__file__).parents[2] / "addon"
has_modes = pytest.mark.skipif(
    os.name == "nt", reason="Windows' files have no modes: their directory says whose they are"
)
refuses_links = pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="Windows cannot refuse to open a link")

# A process that writes aliases named after it until it is killed or has written them all. It says each name when that
# is kept. All but the last of its own it takes away again, and fails where one of those is not there.
WRITER = """
import os, sys
from collections import deque
from pathlib import Path
from ollama_lmstudio.state.aliases import Alias, AliasStore

os.fsync = lambda descriptor: None  # no power cut is tested, and the disk's speed neither
store, prefix, count, most = AliasStore(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
own = deque()

def write(aliases):
    assert [key for key in aliases if key.startswith(f"{prefix}-")] == list(own)
    aliases[name] = Alias(name, "target", 1, 2, system="x")
    own.append(name)
    if len(own) > most:
        del aliases[own.popleft()]

for number in range(count):
    name = f"{prefix}-{number}"
    store.change(write)
    print(name, flush=True)
"""


def writer(directory: Path, prefix: str, count: int, most: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ADDON)}
    command = [sys.executable, "-c", WRITER, str(directory), prefix, str(count), str(most)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def put(store: AliasStore, key: str, **values: Any) -> Alias:
    alias = Alias(key, "target", 1, 2, **values)
    store.change(lambda found: found.__setitem__(key, alias))
    return alias


def files(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()} if directory.exists() else set()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "a" / "state"


def test_nothing_is_made_until_something_is_written(directory: Path) -> None:
    store = AliasStore(directory)
    assert store.all() == {}
    assert store.get("x") is None
    store.change(lambda found: None)
    assert not (directory / aliases.FILE_NAME).exists()


def test_what_is_written_is_read_by_another_store(directory: Path) -> None:
    store = AliasStore(directory)
    full = put(
        store,
        "k\u00e9y",
        system="s\ud800\u2028",
        template="{{ .Prompt }}",
        parameters={"stop": ["a", "b"], "temperature": 0.5, "num_ctx": 10**20, "use_mmap": False},
        license=["one", "two"],
        adapters={"a.gguf": "sha256:00"},
        messages=[{"role": "user", "content": "hi", "images": ["AAAA"]}],
    )
    assert AliasStore(directory).all() == {"k\u00e9y": full}
    assert store.change(lambda found: found.pop("k\u00e9y")) == full
    assert AliasStore(directory).all() == {}
    assert files(directory) == {aliases.FILE_NAME, aliases.LOCK_NAME}
    assert json.loads((directory / aliases.FILE_NAME).read_bytes())["version"] == 1


def test_what_another_process_wrote_is_seen(directory: Path) -> None:
    one, two = AliasStore(directory), AliasStore(directory)
    for number in range(20):
        put(one, f"one-{number}")
        put(two, f"two-{number}")
        assert len(one.all()) == len(two.all()) == 2 * (number + 1)


def test_states_written_at_once_have_times_of_their_own(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)
    store, times = AliasStore(directory), []
    for number in range(5):
        put(store, f"a-{number}")
        times.append(store.path.stat().st_mtime_ns)
    assert times == sorted(set(times))


@pytest.mark.parametrize("grain", [100, 10**9, 2 * 10**9])
def test_a_file_system_with_coarse_times_keeps_states_apart(
    directory: Path, monkeypatch: pytest.MonkeyPatch, grain: int
) -> None:
    """NTFS keeps times to 100 ns, and others to a second or two."""
    utime = os.utime
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)
    monkeypatch.setattr(os, "utime", lambda path, ns: utime(path, ns=(ns[0] // grain * grain, ns[1] // grain * grain)))
    one, two = AliasStore(directory), AliasStore(directory)
    for number in range(3):
        put(one, "a", system=str(number))
        assert two.all()["a"].system == str(number)


def test_what_did_not_change_is_not_read_again(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = AliasStore(directory)
    put(store, "a")
    first = store.all()
    monkeypatch.setattr(json, "loads", lambda data: pytest.fail("read again"))
    assert store.all() is first


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"version": 1}',
        b'{"aliases": {}}',
        b'{"version": 1, "aliases": []}',
        b'{"version": 1, "aliases": {"a": {"name": "a"}}}',
        b'{"version": 1, "aliases": {"a": {"name": "a", "target": null, "created": 1, "modified": 1}}}',
    ],
)
@pytest.mark.parametrize("write_first", [False, True])
def test_a_broken_file_is_kept_aside(
    directory: Path, caplog: pytest.LogCaptureFixture, content: bytes, write_first: bool
) -> None:
    directory.mkdir(parents=True)
    (directory / aliases.FILE_NAME).write_bytes(content)
    store = AliasStore(directory)
    if not write_first:
        assert store.all() == {}
        assert store.all() == {}
    put(store, "new")
    (aside,) = directory.glob(f"{aliases.FILE_NAME}.broken-*")
    assert aside.read_bytes() == content
    assert set(AliasStore(directory).all()) == {"new"}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert aside.name in caplog.text


def test_several_broken_files_are_all_kept(directory: Path) -> None:
    directory.mkdir(parents=True)
    for number in range(3):
        (directory / aliases.FILE_NAME).write_text(f"broken {number}")
        AliasStore(directory).all()
    kept = {path.read_text() for path in directory.glob(f"{aliases.FILE_NAME}.broken-*")}
    assert kept == {"broken 0", "broken 1", "broken 2"}


def test_a_newer_format_is_left_alone(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory.mkdir(parents=True)
    path = directory / aliases.FILE_NAME
    path.write_text('{"version": 2, "aliases": "all different"}')
    store = AliasStore(directory)
    assert store.all() == {}
    assert store.all() == {}
    assert len(caplog.records) == 1
    with pytest.raises(StoreError, match="format 2") as caught:
        put(store, "a")
    assert caught.value.status == 500
    assert path.read_text() == '{"version": 2, "aliases": "all different"}'


@pytest.mark.parametrize(
    ("number", "status"), [*((number, 507) for number in sorted(locks.DISK_FULL)), (errno.EIO, 500)]
)
@pytest.mark.parametrize("call", ["fsync", "open"])
def test_a_disk_that_refuses(
    directory: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, status: int
) -> None:
    store = AliasStore(directory)
    before = put(store, "a")

    def refuse(*arguments: Any) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, refuse)
        with pytest.raises(StoreError) as caught:
            put(store, "b")
    assert caught.value.status == status
    assert str(store.path) in caught.value.message
    assert store.all() == AliasStore(directory).all() == {"a": before}
    assert files(directory) == {aliases.FILE_NAME, aliases.LOCK_NAME}
    put(store, "b")
    assert set(store.all()) == {"a", "b"}


def test_a_disk_that_is_full_in_the_middle_of_the_file(directory: Path) -> None:
    """A limit on the size of files stands in for the full disk: the write really stops half way."""
    store = AliasStore(directory)
    before = put(store, "a")
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from ollama_lmstudio.state.aliases import Alias, AliasStore, StoreError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "store = AliasStore(Path(sys.argv[1]))\n"
        "try:\n"
        "    store.change(lambda found: found.__setitem__('b', Alias('b', 't', 1, 2, system='x' * 100_000)))\n"
        "except StoreError as e:\n"
        "    print(e.status)\n"
    )
    pytest.importorskip("resource", reason="limits of a process are POSIX'")
    environment = {**os.environ, "PYTHONPATH": str(ADDON)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(directory)], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout == "507\n"
    assert AliasStore(directory).all() == {"a": before}
    assert files(directory) == {aliases.FILE_NAME, aliases.LOCK_NAME}


def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = AliasStore(tmp_path / "file" / "state")
    assert store.all() == {}
    with pytest.raises(StoreError) as caught:
        put(store, "a")
    assert caught.value.status == 500


def test_what_the_edit_raises_changes_nothing(directory: Path) -> None:
    store = AliasStore(directory)
    put(store, "a")

    def edit(found: dict[str, Alias]) -> None:
        found.clear()
        raise KeyError("x")

    with pytest.raises(KeyError):
        store.change(edit)
    assert set(store.all()) == {"a"}


@pytest.mark.parametrize("name", [aliases.TEMPORARY_NAME, pytest.param(aliases.LOCK_NAME, marks=refuses_links)])
def test_nothing_is_written_through_a_link(directory: Path, tmp_path: Path, name: str) -> None:
    """The directory may be one that others can write to, too."""
    target = tmp_path / "precious"
    target.write_text("mine")
    directory.mkdir(parents=True)
    (directory / name).symlink_to(target)
    store = AliasStore(directory)
    with suppress(StoreError):
        put(store, "a")
    assert target.read_text() == "mine"
    assert not store.path.is_symlink()
    assert set(store.all()) == ({"a"} if name == aliases.TEMPORARY_NAME else set())


@refuses_links
def test_a_link_that_is_laid_again_is_an_error(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "precious"
    target.write_text("mine")
    store = AliasStore(directory)
    before = put(store, "a")
    unlink = Path.unlink

    def laid_again(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok=missing_ok)
        path.symlink_to(target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", laid_again)
        with pytest.raises(StoreError):
            put(store, "b")
    assert target.read_text() == "mine"
    assert AliasStore(directory).all() == {"a": before}


@has_modes
def test_what_is_written_is_for_its_owner(directory: Path) -> None:
    store = AliasStore(directory)
    directory.mkdir(parents=True)
    (directory / aliases.TEMPORARY_NAME).touch(0o666)
    put(store, "a")
    assert store.path.stat().st_mode & 0o777 == 0o600


def test_writers_that_are_killed_lose_nothing(directory: Path) -> None:
    """Whatever a writer said is kept is there, the file always parses, and nothing piles up."""
    kept: set[str] = set()
    killed = 0
    for round_ in range(12):
        process = writer(directory, f"round{round_}", 100_000, 100_000)
        assert process.stdout is not None
        with process.stdout as output:
            kept.add(output.readline().strip())
            time.sleep(0.003 * round_)
            process.kill()
            kept |= {line.strip() for line in output if line.endswith("\n")}
        killed += process.wait() != 0
        content = json.loads((directory / aliases.FILE_NAME).read_bytes())
        assert kept <= set(content["aliases"])
        assert files(directory) <= {aliases.FILE_NAME, aliases.LOCK_NAME, aliases.TEMPORARY_NAME}
    assert killed == 12
    put(AliasStore(directory), "last")
    assert files(directory) == {aliases.FILE_NAME, aliases.LOCK_NAME}


def test_two_processes_write_a_thousand(directory: Path) -> None:
    """Nothing is lost, and a reader in the meantime always finds a whole file, which grows to so many."""
    most = 50
    processes = [writer(directory, "one", 500, most), writer(directory, "two", 500, most)]
    store, seen = AliasStore(directory), 0
    outputs = [threading.Thread(target=_drain(process)) for process in processes]
    for output in outputs:
        output.start()
    while any(process.poll() is None for process in processes):
        count = len(store.all())
        assert count >= seen
        seen = count
        time.sleep(0.02)
    for output in outputs:
        output.join()
    assert [process.returncode for process in processes] == [0, 0]
    assert set(store.all()) == {f"{prefix}-{number}" for prefix in ("one", "two") for number in range(500 - most, 500)}
    assert not list(directory.glob("*.broken-*"))


def test_it_is_written_while_others_read(directory: Path, windows_sharing: None) -> None:
    """As eight `/api/copy` at once do on Windows, where a file that is read cannot be replaced."""
    store, other = AliasStore(directory), AliasStore(directory)
    put(store, "first")
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            assert "first" in AliasStore(directory).all()

    readers = [threading.Thread(target=read) for _ in range(2)]
    writers = [
        threading.Thread(target=lambda name: [put(store, f"{name}-{n}") for n in range(10)], args=(str(number),))
        for number in range(4)
    ]
    for thread in (*readers, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    assert set(other.all()) == {"first", *(f"{number}-{n}" for number in range(4) for n in range(10))}


def test_it_is_written_when_another_program_has_closed_it(directory: Path, windows_sharing: None) -> None:
    """Programs that look for viruses or make backups read every file for a moment."""
    store = AliasStore(directory)
    put(store, "first")
    closing = threading.Timer(0.2, os.close, [os.open(store.path, os.O_RDONLY)])
    closing.start()
    put(store, "second")
    closing.join()
    assert set(AliasStore(directory).all()) == {"first", "second"}


def test_a_lock_that_another_process_keeps_is_told_of(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = AliasStore(directory)
    put(store, "first")
    locked = locks.locked
    monkeypatch.setattr(locks, "locked", lambda path, seconds: locked(path, min(seconds, 0.1)))
    with locked(directory / aliases.LOCK_NAME), pytest.raises(StoreError) as caught:
        put(store, "second")
    assert caught.value.status == 500
    assert caught.value.message.startswith(f"{store.path} cannot be written: another process has held the lock ")
    assert set(AliasStore(directory).all()) == {"first"}


def test_a_broken_file_is_not_waited_for(directory: Path) -> None:
    """Requests read the aliases; another process puts the file aside just now."""
    directory.mkdir(parents=True)
    (directory / aliases.FILE_NAME).write_bytes(b"{")
    store = AliasStore(directory)
    with locks.locked(directory / aliases.LOCK_NAME):
        before = time.monotonic()
        assert store.all() == {}
        assert time.monotonic() - before < locks.LOCK_SECONDS / 2
    assert store.all() == {}
    assert not store.path.exists()


def test_a_file_that_cannot_be_opened_is_waited_for_once(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store, waited = AliasStore(directory), []
    put(store, "first")

    def refuse(path: Path, seconds: float) -> bytes:
        waited.append(seconds)
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(locks, "read", refuse)
        assert [store.all() for _ in range(3)] == [{}, {}, {}]
    assert waited == [locks.READ_SECONDS, 0, 0]
    assert caplog.messages == [f"{store.path} cannot be read: Permission denied"]
    assert set(store.all()) == {"first"}


def test_what_an_editor_saved_is_read(directory: Path) -> None:
    """Windows' editors end lines with CR LF, and may begin a file with a byte order mark."""
    store = AliasStore(directory)
    alias = put(store, "first", system="one\r\ntwo\n")
    store.path.write_bytes(b"\xef\xbb\xbf" + store.path.read_bytes().replace(b"\n", b"\r\n"))
    assert AliasStore(directory).all() == {"first": alias}


def test_the_directory_may_have_any_name(tmp_path: Path) -> None:
    directory = tmp_path / "Größe [a] ユーザ con"
    alias = put(AliasStore(directory), "first")
    assert AliasStore(directory).all() == {"first": alias}


def _drain(process: subprocess.Popen[str]) -> Callable[[], None]:
    def drain() -> None:
        assert process.stdout is not None
        with process.stdout as output:
            output.read()

    return drain


def test_threads_of_one_process_take_turns(directory: Path) -> None:
    store = AliasStore(directory)

    def write(prefix: int) -> None:
        for number in range(20):
            put(store, f"{prefix}-{number}")

    threads = [threading.Thread(target=write, args=(prefix,)) for prefix in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.all()) == 80
