"""The options: what each takes, what it refuses, and by which name."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ollama_lmstudio import keys, options
from ollama_lmstudio.options import Listen, StateDirs, Upstream

BY_NAME = {option.name: option for option in options.OPTIONS}
DEFAULTS = {option.name: option.default for option in options.OPTIONS}

RIGHT: list[tuple[str, Any, Any]] = [
    ("listen", "0.0.0.0:11434", Listen("0.0.0.0", 11434)),
    ("listen", "localhost:1", Listen("localhost", 1)),
    ("listen", " my-machine.local:65535 ", Listen("my-machine.local", 65535)),
    ("listen", ":8080", Listen("0.0.0.0", 8080)),
    ("listen", "8080", Listen("0.0.0.0", 8080)),
    ("listen", "127.0.0.1:0", Listen("127.0.0.1", 0)),
    ("listen", "[::1]:11434", Listen("::1", 11434)),
    ("listen", "[::]:11434", Listen("::", 11434)),
    ("listen", "::1:11434", Listen("::1", 11434)),
    ("listen", "[0:0:0:0:0:0:0:1]:11434", Listen("::1", 11434)),
    ("listen", "[fe80::1%eth0]:11434", Listen("fe80::1%eth0", 11434)),
    ("lmstudio_url", "http://localhost:1234", Upstream("http", "localhost", 1234)),
    ("lmstudio_url", "http://localhost:1234/", Upstream("http", "localhost", 1234)),
    ("lmstudio_url", " http://localhost:1234// ", Upstream("http", "localhost", 1234)),
    ("lmstudio_url", "HTTP://LocalHost:1234", Upstream("http", "localhost", 1234)),
    ("lmstudio_url", "http://lmstudio", Upstream("http", "lmstudio", 80)),
    ("lmstudio_url", "https://lmstudio", Upstream("https", "lmstudio", 443)),
    ("lmstudio_url", "https://example.org:8443/lm/studio/", Upstream("https", "example.org", 8443, "/lm/studio")),
    ("lmstudio_url", "http://[::1]:1234/x", Upstream("http", "::1", 1234, "/x")),
    ("lmstudio_url", "http://localhost:1234/v1", Upstream("http", "localhost", 1234)),
    ("lmstudio_url", "http://localhost:1234/api/v1/", Upstream("http", "localhost", 1234)),
    ("lmstudio_url", "http://localhost:1234/api/v0", Upstream("http", "localhost", 1234)),
    ("lmstudio_url", "https://example.org/lm/v1", Upstream("https", "example.org", 443, "/lm")),
    ("lmstudio_url", "https://example.org/v1/lm", Upstream("https", "example.org", 443, "/v1/lm")),
    ("lmstudio_url", "https://example.org/lmv1", Upstream("https", "example.org", 443, "/lmv1")),
    ("load_timeout_seconds", 1, 1),
    ("model_resolution_cache_ttl_seconds", 0, 0),
    ("drain_seconds", 0, 0),
    ("drain_seconds", 30, 30),
    ("max_buffer_size", 1024, 1024),
    ("max_header_size", 4096, 4096),
    ("max_decompressed_size", 1, 1),
    ("max_kept_size", 0, 0),
    ("max_flows", 0, 0),
    ("enable_chunk_recovery", True, True),
    ("lmstudio_token", " sk-lm-abc:def\n", "sk-lm-abc:def"),
    ("lmstudio_token", "", ""),
    ("api_key", "k e y", "k e y"),
    ("api_keys", [], keys.Sources()),
    ("api_keys", ["alice=k"], keys.Sources((keys.NamedKey("alice", "k"),))),
    ("allowed_origins", ["http://a, https://b", "app://*"], ("http://a", "https://b", "app://*")),
    ("allowed_origins", [" ", ",,"], ()),
    ("allowed_hosts", ["a.example,b.example"], ("a.example", "b.example")),
    ("ollama_version", "0.40.5", "0.40.5"),
    ("ollama_version", "12.345.6", "12.345.6"),
    *[("generate_endpoint", choice, choice) for choice in ("auto", "completions", "chat")],
    *[("num_ctx", choice, choice) for choice in ("ignore", "load", "grow")],
    *[("own_calls", choice, choice) for choice in ("changes", "all", "none")],
    *[("metrics", choice, choice) for choice in ("off", "local", "network")],
    ("context_length", 8192, 8192),
    ("repair_passthrough", False, False),
    ("state_dir", "/var/lib/x", StateDirs(Path("/var/lib/x"), Path("/var/lib/x"))),
    ("demo", True, True),
]

WRONG: list[tuple[str, Any, str]] = [
    *[
        ("listen", text, f"{text!r} is not host:port")
        for text in (
            "",
            "localhost",
            "localhost:",
            "localhost:http",
            "localhost:-1",
            "localhost:65536",
            "localhost:123456",
            "localhost:٨٠",
            "::1",
            "[::1]",
            "[::1",
            "1:2:3",
            "[1:2]:3",
            "http://localhost:11434",
            "local host:1",
            "user@host:1",
            "host/path:1",
        )
    ],
    *[
        ("lmstudio_url", text, f"{text!r} is not a URL")
        for text in (
            "",
            "localhost:1234",
            "//localhost:1234",
            "ftp://localhost",
            "http://",
            "http://:1234",
            "http://localhost:port",
            "http://localhost:65536",
            "http://[::1",
        )
    ],
    ("lmstudio_url", "http://localhost/?a=b", "must end with a path"),
    ("lmstudio_url", "http://localhost/#a", "must end with a path"),
    ("load_timeout_seconds", 0, "0 is not a positive number"),
    ("context_length", -1, "-1 is negative"),
    ("load_timeout_seconds", -1, "-1 is not a positive number"),
    ("model_resolution_cache_ttl_seconds", -1, "-1 is negative"),
    ("drain_seconds", -1, "give 0 or more"),
    ("max_buffer_size", 1023, "1023 bytes are too few"),
    ("max_header_size", 4095, "4095 bytes are too few"),
    ("max_decompressed_size", 0, "0 is not a positive number"),
    ("max_flows", -1, "-1 is negative"),
    ("max_kept_size", -1, "-1 is negative"),
    ("lmstudio_token", "a\nb", "cannot be sent in a header"),
    ("lmstudio_token", "schlüssel", "cannot be sent in a header"),
    ("api_key", "a\x00b", "cannot be sent in a header"),
    ("api_keys", ["alice=k", ""], "entry 2 is neither NAME=KEY nor the path of a file"),
    *[
        ("ollama_version", text, f"{text!r} is not of the form X.Y.Z")
        for text in ("", "0.33", "v0.33.0", "0.33.0-rc1", "0.33.0+lmstudio", "0.33.0\n", "٠.٣.٣")
    ],
    ("generate_endpoint", "Chat", "'Chat' is not one of auto, completions, chat"),
    ("num_ctx", "reload", "'reload' is not one of ignore, load, grow"),
    ("own_calls", "every", "'every' is not one of changes, all, none"),
    ("metrics", "on", "'on' is not one of off, local, network"),
    ("state_dir", "~nobody-has-this-name/x", "'~nobody-has-this-name/x'"),
]


@pytest.mark.parametrize(("name", "value", "parsed"), RIGHT)
def test_right_values(name: str, value: Any, parsed: Any) -> None:
    settings = options.parse(DEFAULTS | {name: value})
    assert getattr(settings, name) == parsed


@pytest.mark.parametrize(("name", "value", "said"), WRONG)
def test_wrong_values_are_refused_by_the_options_name(name: str, value: Any, said: str) -> None:
    if name == "state_dir" and sys.platform == "win32":
        pytest.skip("Windows only guesses where the homes of others are")
    with pytest.raises(ValueError, match=f"^{name}: .*{re.escape(said)}"):
        options.parse(DEFAULTS | {name: value})


def test_every_option_is_tested() -> None:
    assert {name for name, _, _ in RIGHT} == set(BY_NAME) == options.NAMES == set(options.Settings.__annotations__)
    anything_goes = {"enable_chunk_recovery", "repair_passthrough", "demo", "allowed_origins", "allowed_hosts"}
    assert {name for name, _, _ in WRONG} == set(BY_NAME) - anything_goes


@pytest.mark.parametrize("url", ["http://u:secret@h", "http://:secret@h/x", "https://u:secret@h?q"])
def test_a_password_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="use lmstudio_token") as caught:
        options.parse_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("option", options.OPTIONS, ids=lambda option: option.name)
def test_the_defaults_are_right_and_of_their_type(option: options.Option) -> None:
    python_type = list if option.typespec == Sequence[str] else option.typespec
    assert type(option.default) is python_type
    option.parse(option.default)
    assert option.help.endswith(".")
    assert option.choices is None or option.default in option.choices


ENVIRONMENT: list[tuple[str, dict[str, str], Any]] = [
    ("lmstudio_token", {"LMSTUDIO_TOKEN": "a", "LM_API_TOKEN": "b"}, "a"),
    ("lmstudio_token", {"LMSTUDIO_TOKEN": "", "LM_API_TOKEN": "b"}, "b"),
    ("lmstudio_token", {}, ""),
    ("api_key", {"OLLAMA_API_KEY": "k"}, "k"),
    ("api_key", {"LMSTUDIO_TOKEN": "a"}, ""),
    ("allowed_origins", {"OLLAMA_ORIGINS": "http://a,http://b"}, ["http://a,http://b"]),
    ("allowed_origins", {"OLLAMA_ORIGINS": ""}, []),
    ("context_length", {"OLLAMA_CONTEXT_LENGTH": "8192"}, 8192),
    ("context_length", {"OLLAMA_CONTEXT_LENGTH": "many"}, 0),
    ("context_length", {}, 0),
    ("listen", {"OLLAMA_HOST": "1.2.3.4:5"}, "0.0.0.0:11434"),
]


@pytest.mark.parametrize(("name", "environ", "default"), ENVIRONMENT)
def test_defaults_from_the_environment(name: str, environ: dict[str, str], default: Any) -> None:
    assert options.default_of(BY_NAME[name], environ) == default


APP = "ollama-lmstudio-proxy"


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user of Linux who has set nothing; their home."""
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("platformdirs.user_data_dir", lambda name, author: str(tmp_path / "data" / name))
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name, author: str(tmp_path / "cache" / name))
    return tmp_path


def test_aliases_are_data_and_blobs_are_not(user: Path) -> None:
    found = options.parse(DEFAULTS).state_dir
    assert found == StateDirs(user / "data" / APP, user / "cache" / APP, (user / "cache" / APP, user / ".cache" / APP))


@pytest.mark.parametrize("relative", ["", "relative"])
def test_the_environment_says_where_both_are(user: Path, monkeypatch: pytest.MonkeyPatch, relative: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(user / "c"))
    monkeypatch.setenv("XDG_DATA_HOME", str(user / "d"))
    # Nothing is taken from the user's own directories to those.
    assert options.parse(DEFAULTS).state_dir == StateDirs(user / "d" / APP, user / "c" / APP, (user / "c" / APP,))
    monkeypatch.setenv("XDG_CACHE_HOME", relative)
    monkeypatch.setenv("XDG_DATA_HOME", relative)
    assert options.parse(DEFAULTS).state_dir.data == user / "data" / APP
    assert options.parse(DEFAULTS).state_dir.cache == user / "cache" / APP


def test_where_the_directories_of_the_system_are() -> None:
    found = options.parse(DEFAULTS).state_dir
    assert found.data.is_absolute()
    assert found.cache.is_absolute()
    assert found.data != found.cache


def test_both_are_one_where_the_user_says_so(user: Path) -> None:
    assert options.parse(DEFAULTS | {"state_dir": "/a"}).state_dir == StateDirs(Path("/a"), Path("/a"))
    assert options.parse(DEFAULTS | {"state_dir": "/a b/é"}).state_dir.data == Path("/a b/é")


def test_state_dir_where_there_is_no_home(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home(*_: object) -> str:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("platformdirs.user_data_dir", no_home)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(user))
    assert options.parse(DEFAULTS).state_dir == StateDirs(user / APP, user / APP)
    # So it is for a user without an entry in the system's list and without HOME: nothing is to lie where it is started.
    monkeypatch.setattr("platformdirs.user_data_dir", lambda name, author: f"~/.local/share/{name}")
    assert options.parse(DEFAULTS).state_dir == StateDirs(user / APP, user / APP)


def test_a_home_is_put_for_the_tilde(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("USERPROFILE" if os.name == "nt" else "HOME", str(tmp_path))
    assert options.parse(DEFAULTS | {"state_dir": "~/state"}).state_dir.data == tmp_path / "state"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.2", False),
        ("example.org", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert Listen(host, 1).is_loopback is loopback


@pytest.mark.parametrize(
    ("url", "authority", "origin", "text"),
    [
        ("http://h", "h", "http://h:80", "http://h"),
        ("http://h:80/", "h", "http://h:80", "http://h"),
        ("http://h:443", "h:443", "http://h:443", "http://h:443"),
        ("https://h:443/p/", "h", "https://h:443", "https://h/p"),
        ("http://[::1]:1234/p", "[::1]:1234", "http://[::1]:1234", "http://[::1]:1234/p"),
    ],
)
def test_how_an_upstream_is_written(url: str, authority: str, origin: str, text: str) -> None:
    upstream = options.parse_url(url)
    assert (upstream.authority, upstream.origin, str(upstream)) == (authority, origin, text)
    assert options.parse_url(str(upstream)) == upstream


@pytest.mark.parametrize("text", ["0.0.0.0:11434", "[::1]:1", "[fe80::1%eth0]:2", "localhost:3"])
def test_how_a_listen_address_is_written(text: str) -> None:
    assert str(options.parse_listen(text)) == text


def test_bridges_on_a_machine_call_its_lm_studio_the_same() -> None:
    names = {options.parse_url(f"http://{host}:1234").shared_name for host in ("localhost", "127.0.0.1", "[::1]")}
    assert names == {f"http://localhost:1234 on {socket.gethostname()}"}
    others = {options.parse_url(url).shared_name for url in ("http://nas:1234", "http://localhost:1235/x")}
    assert others == {"http://nas:1234", f"http://localhost:1235/x on {socket.gethostname()}"}


def test_a_demo_keeps_its_aliases_to_itself() -> None:
    values = {option.name: option.default for option in options.OPTIONS}
    own, demo = options.parse(values).state_dir, options.parse(values | {"demo": True}).state_dir
    assert (demo.data, demo.cache) == (own.data / "demo", own.cache / "demo")
    assert demo.former == tuple(directory / "demo" for directory in own.former)
    given = options.parse(values | {"demo": True, "state_dir": "/somewhere"})
    assert given.state_dir == StateDirs(Path("/somewhere"), Path("/somewhere"))
