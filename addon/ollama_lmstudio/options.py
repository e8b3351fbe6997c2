"""The options: one table, one frozen `Settings` object.

mitmproxy's options are the settings; there is no second system. `OPTIONS` names each option once, with its default,
its help and the function that parses the user's text. `parse()` runs the table.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import platformdirs

from . import keys

APP_NAME = "ollama-lmstudio-proxy"
DEFAULT_LISTEN_PORT = 11434
MAX_PORT = 65535
EVERYWHERE = "0.0.0.0"
EVERYWHERE_6 = "::"
ANYWHERE = (EVERYWHERE, EVERYWHERE_6)
# The names by which a server on this machine may be reached. The unspecified addresses lead to it as well.
LOOPBACK = ("127.0.0.1", "::1")
OWN_HOSTS = ("localhost", *LOOPBACK, *ANYWHERE)
# How the paths of LM Studio's APIs begin, the longest first. Most clients want `/v1` in an address of OpenAI's API.
API_PATHS = ("/api/v1", "/api/v0", "/v1")
LOOPS = "lmstudio_url is this bridge's own address, {}: set it to that of LM Studio's server, usually http://localhost:1234."
# RFC 9110 4.2: the port of a URL without one.
DEFAULT_PORTS = {"http": 80, "https": 443}
# One event of LM Studio's stream has at least its envelope, about 300 bytes; with less, every stream would fail.
LEAST_BUFFER_BYTES = 1024
# The most that browsers keep as one cookie (RFC 6265 6.1); with less, they would be refused.
LEAST_HEADER_BYTES = 4096

LOG_LEVELS = ("error", "warn", "info", "debug")
GENERATE_ENDPOINTS = ("auto", "completions", "chat")
NUM_CTX_POLICIES = ("ignore", "load", "grow")
OWN_CALLS = ("changes", "all", "none")
METRICS = (METRICS_OFF, METRICS_TO_THIS_MACHINE, METRICS_TO_ALL) = ("off", "local", "network")

_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+")


@dataclass(frozen=True, slots=True)
class Listen:
    """The address to serve on."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        return self.host == "localhost" or self.host == "::1" or self.host.startswith("127.")

    @property
    def local(self) -> Listen:
        """The address by which this machine reaches the server."""
        return Listen("127.0.0.1", self.port) if self.host in (*ANYWHERE, "localhost") else self

    @property
    def reached_by(self) -> tuple[Listen, ...]:
        """The addresses by which clients on this machine look for the server; the first one is its own.

        They take `localhost` for either loopback address.
        """
        if self.host not in OWN_HOSTS:
            return (self,)
        return self.local, *(Listen(host, self.port) for host in LOOPBACK if host != self.local.host)

    @property
    def named(self) -> Listen:
        """The address for a client on this machine, as a person would write it."""
        return Listen("localhost", self.port) if self.host in ANYWHERE else self

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Upstream:
    """LM Studio's address: `scheme://host:port`, and the path prefix of every request without a final slash."""

    scheme: str
    host: str
    port: int
    prefix: str = ""
    removed: str = field(default="", compare=False)
    """What was taken off the end of the path: the beginning of one of LM Studio's APIs, as other clients need it."""

    @property
    def authority(self) -> str:
        """The value of the Host header: RFC 9110 7.2, without the scheme's default port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """`scheme://host:port`, with the port in any case."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def shared_name(self) -> str:
        """What it is called on all machines: one that only this machine can reach has this machine's name.

        However the users of two bridges have written it: `localhost` and 127.0.0.1 are the same.
        """
        if Listen(self.host, self.port).is_loopback:
            return f"{replace(self, host='localhost')} on {socket.gethostname()}"
        return str(self)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.prefix}"


@dataclass(frozen=True, slots=True)
class StateDirs:
    """Where things are kept: aliases in `data`, since users make them, and blobs in `cache`, which may be emptied.

    `former` are the directories in which aliases were kept before.
    """

    data: Path
    cache: Path
    former: tuple[Path, ...] = ()

    def __truediv__(self, name: str) -> StateDirs:
        """Return the directories of this name in each of these."""
        return StateDirs(self.data / name, self.cache / name, tuple(directory / name for directory in self.former))


@dataclass(frozen=True, slots=True)
class Settings:
    """Every option, parsed. Field names are the options' names."""

    listen: Listen
    lmstudio_url: Upstream
    load_timeout_seconds: int
    model_resolution_cache_ttl_seconds: int
    drain_seconds: int
    max_buffer_size: int
    max_header_size: int
    max_decompressed_size: int
    enable_chunk_recovery: bool
    lmstudio_token: str
    api_key: str
    api_keys: keys.Sources
    allowed_origins: tuple[str, ...]
    allowed_hosts: tuple[str, ...]
    ollama_version: str
    generate_endpoint: str
    num_ctx: str
    context_length: int
    repair_passthrough: bool
    state_dir: StateDirs
    max_kept_size: int
    max_flows: int
    own_calls: str
    metrics: str
    demo: bool

    @property
    def loops(self) -> bool:
        """Whether `lmstudio_url` is the address that is served on."""
        upstream = self.lmstudio_url
        return not self.demo and upstream.port == self.listen.port and upstream.host in OWN_HOSTS


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its mitmproxy type and default, and `parse`, which raises ValueError for a wrong value."""

    name: str
    typespec: Any
    default: Any
    help: str
    parse: Callable[[Any], Any]
    choices: Sequence[str] | None = None
    shown_default: str = ""
    environment: tuple[str, ...] = ()
    metavar: str = ""


def parse_listen(text: str) -> Listen:
    """Parse `host:port`, `[v6]:port`, `:port` or `port`; an IPv6 address is brought to its shortest form."""
    text = text.strip()
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    is_host = bool(re.fullmatch(r"[\w.-]*", host))
    if ":" in host:
        with suppress(ValueError):
            host = str(ipaddress.IPv6Address(host))
            is_host = True
    is_port = re.fullmatch(r"[0-9]{1,5}", port) and int(port) <= MAX_PORT
    if not (is_host and is_port):
        raise ValueError(f"{text!r} is not host:port: write it as in 127.0.0.1:11434")
    return Listen(host or EVERYWHERE, int(port))


def parse_url(text: str) -> Upstream:
    """Parse LM Studio's address; a trailing slash does not matter, nor the beginning of one of its APIs at the end."""
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError as e:
        raise ValueError(f"{text!r} is not a URL ({e}): write it as in http://localhost:1234") from None
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        raise ValueError(f"{text!r} is not a URL of http or https: write it as in http://localhost:1234")
    if parts.username or parts.password:
        raise ValueError("the URL must not hold a password: use lmstudio_token for LM Studio's token")
    if parts.query or parts.fragment:
        raise ValueError(f"{text!r} must end with a path: leave out what follows the ? or #")
    path = parts.path.rstrip("/")
    removed = next((api for api in API_PATHS if path.endswith(api)), "")
    return Upstream(
        parts.scheme,
        parts.hostname,
        DEFAULT_PORTS[parts.scheme] if port is None else port,
        path.removesuffix(removed).rstrip("/"),
        removed,
    )


def _positive(value: int) -> int:
    if value < 1:
        raise ValueError(f"{value} is not a positive number: give 1 or more")
    return value


def _not_negative(value: int) -> int:
    if value < 0:
        raise ValueError(f"{value} is negative: give 0 or more")
    return value


def _buffer_size(value: int) -> int:
    if value < LEAST_BUFFER_BYTES:
        raise ValueError(f"{value} bytes are too few for one event of LM Studio's: give {LEAST_BUFFER_BYTES} or more")
    return value


def _header_size(value: int) -> int:
    if value < LEAST_HEADER_BYTES:
        raise ValueError(f"{value} bytes are too few for the headers of a browser: give {LEAST_HEADER_BYTES} or more")
    return value


def _header_value(value: str) -> str:
    value = value.strip()
    if not value.isascii() or not value.isprintable():
        raise ValueError("the value cannot be sent in a header: only printable characters of ASCII can")
    return value


def _version(value: str) -> str:
    if not _VERSION.fullmatch(value):
        raise ValueError(f"{value!r} is not of the form X.Y.Z, as 0.40.5, which clients compare")
    return value


def _words(value: Sequence[str]) -> tuple[str, ...]:
    """Split at commas as well: so Ollama's OLLAMA_ORIGINS holds a list."""
    return tuple(word.strip() for item in value for word in item.split(",") if word.strip())


def _one_of(choices: Sequence[str]) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in choices:
            raise ValueError(f"{value!r} is not one of {', '.join(choices)}")
        return value

    return parse


def _directories(value: str) -> StateDirs:
    if value:
        try:
            directory = Path(value).expanduser()
        except RuntimeError as e:
            raise ValueError(f"{value!r}: {e}") from None
        return StateDirs(directory, directory)
    temporary = Path(tempfile.gettempdir()) / APP_NAME
    try:
        data = _in_environment("XDG_DATA_HOME") or Path(platformdirs.user_data_dir(APP_NAME, False))
        cache = _in_environment("XDG_CACHE_HOME") or Path(platformdirs.user_cache_dir(APP_NAME, False))
    except (OSError, RuntimeError):
        return StateDirs(temporary, temporary)
    if not (data.is_absolute() and cache.is_absolute()):
        # No home directory is known: `~` has been left as it is.
        return StateDirs(temporary, temporary)
    former = [cache]
    if not _in_environment("XDG_CACHE_HOME"):
        # Where the proxy was that this addon replaces. A temporary directory is the user's own on Windows only.
        home = Path(os.environ.get("HOME", ""))
        if home.is_absolute():
            former.append(home / ".cache" / APP_NAME)
        elif os.name == "nt":
            former.append(temporary)
    return StateDirs(data, cache, tuple(directory for directory in dict.fromkeys(former) if directory != data))


def _in_environment(name: str) -> Path | None:
    """Return the directory in the one that a variable names; None for a relative one (XDG Base Directory)."""
    base = Path(os.environ.get(name, ""))
    return base / APP_NAME if base.is_absolute() else None


def _same(value: Any) -> Any:
    return value


def environment(names: Sequence[str], environ: Mapping[str, str]) -> str:
    """Return the first of these variables that is set and not empty, else an empty string."""
    return next((environ[name] for name in names if environ.get(name)), "")


OPTIONS: tuple[Option, ...] = (
    Option(
        "listen",
        str,
        "0.0.0.0:11434",
        "Address to serve on; `[::]:11434` is every address of IPv4 and IPv6.",
        parse_listen,
        metavar="HOST:PORT",
    ),
    Option(
        "lmstudio_url",
        str,
        "http://localhost:1234",
        "LM Studio's server; https and a path prefix work, and `/v1` at the end is taken off.",
        parse_url,
        metavar="URL",
    ),
    Option(
        "load_timeout_seconds",
        int,
        15,
        "How long an explicit load may take before the client gets a 503; LM Studio goes on, and later requests join.",
        _positive,
        metavar="N",
    ),
    Option(
        "model_resolution_cache_ttl_seconds",
        int,
        300,
        "How long LM Studio's model list is trusted to resolve names; a name not in it always refreshes it once.",
        _not_negative,
        metavar="N",
    ),
    Option(
        "drain_seconds",
        int,
        5,
        "How long answers that are under way may go on after SIGTERM, before they end with an error line.",
        _not_negative,
        metavar="N",
    ),
    Option(
        "max_buffer_size",
        int,
        262144,
        "Most bytes one event of LM Studio's stream may hold; past it the stream ends with an error line.",
        _buffer_size,
        metavar="BYTES",
    ),
    # Go's limit, and so Ollama's.
    Option(
        "max_header_size",
        int,
        1048576,
        "Most bytes the first line and the headers of a request may have; past it the client gets a 431.",
        _header_size,
        metavar="BYTES",
    ),
    # Ollama's own limit is 20 MiB of the compressed body.
    Option(
        "max_decompressed_size",
        int,
        64000000,
        "Most bytes a compressed body of a request to LM Studio's own APIs may become; past it the client gets a 413.",
        _positive,
        metavar="BYTES",
    ),
    Option(
        "enable_chunk_recovery",
        bool,
        False,
        "Try to repair an event of LM Studio's stream whose JSON is broken, instead of ending with an error line.",
        _same,
    ),
    Option(
        "lmstudio_token",
        str,
        "",
        "Token sent to LM Studio. The client's own Authorization header never is.",
        _header_value,
        environment=("LMSTUDIO_TOKEN", "LM_API_TOKEN"),
        metavar="TOKEN",
    ),
    Option(
        "api_key",
        str,
        "",
        "When set, clients need it as `Authorization: Bearer` or `x-api-key`.",
        _header_value,
        environment=("OLLAMA_API_KEY",),
        metavar="KEY",
    ),
    Option(
        "api_keys",
        Sequence[str],
        [],
        "The same for several keys, each with a name that is told in place of it: `NAME=KEY`, or a file of such lines.",
        keys.parse,
        metavar="NAME=KEY|FILE",
    ),
    Option(
        "allowed_origins",
        Sequence[str],
        [],
        "Origins of web pages that may ask, added to Ollama's own list; each may hold one `*`.",
        _words,
        environment=("OLLAMA_ORIGINS",),
        metavar="ORIGIN",
    ),
    Option(
        "allowed_hosts",
        Sequence[str],
        [],
        "Host names that clients may use for this server, added to the local ones.",
        _words,
        metavar="NAME",
    ),
    # The newest whose promises are kept: 0.40.8 has /v1/audio/speech.
    Option("ollama_version", str, "0.40.5", "What /api/version says.", _version, metavar="X.Y.Z"),
    Option(
        "generate_endpoint",
        str,
        "auto",
        "Where /api/generate goes: auto (chat, but raw and suffix to completions), completions, chat.",
        _one_of(GENERATE_ENDPOINTS),
        choices=GENERATE_ENDPOINTS,
    ),
    Option(
        "num_ctx",
        str,
        "ignore",
        "With load, a model is loaded with the request's num_ctx; with grow, one that is loaded with less is reloaded.",
        _one_of(NUM_CTX_POLICIES),
        choices=NUM_CTX_POLICIES,
    ),
    Option(
        "context_length",
        int,
        0,
        "Context length of models that are loaded for a request that names none; 0 is LM Studio's own setting.",
        _not_negative,
        environment=("OLLAMA_CONTEXT_LENGTH",),
        metavar="N",
    ),
    Option(
        "repair_passthrough",
        bool,
        True,
        "Make LM Studio's /v1/* take what Ollama's takes, and answer as it does: see the table of repairs.",
        _same,
    ),
    Option(
        "state_dir",
        str,
        "",
        "Directory for virtual_models.json and blobs/, instead of the user's for each. A demo has one of its own.",
        _directories,
        shown_default="the user's data and cache directories",
        metavar="DIR",
    ),
    Option(
        "max_kept_size",
        int,
        4194304,
        "Most bytes of each body that are kept with a flow. What is longer is cut when it has been sent.",
        _not_negative,
        metavar="BYTES",
    ),
    Option(
        "max_flows",
        int,
        10000,
        "Most exchanges in the list of mitmweb or the console: past it, the oldest leave it. 0 keeps all.",
        _not_negative,
        metavar="N",
    ),
    Option(
        "own_calls",
        str,
        "changes",
        "The bridge's own calls in the list: changes (loads, unloads, and what failed), all (model lists too), none.",
        _one_of(OWN_CALLS),
        choices=OWN_CALLS,
    ),
    Option(
        "metrics",
        str,
        METRICS_OFF,
        "Serve /metrics for Prometheus: off, local (to this machine), network (to all). It needs the extra `metrics`.",
        _one_of(METRICS),
        choices=METRICS,
    ),
    Option("demo", bool, False, "Serve from the built-in stand-in for LM Studio, for a first look.", _same),
)

NAMES = frozenset(option.name for option in OPTIONS)


def default_of(option: Option, environ: Mapping[str, str]) -> Any:
    """Return an option's default: the value of its environment variable, else that of the table."""
    value = environment(option.environment, environ)
    if not value:
        return option.default
    if option.typespec is int:
        # As in Ollama, a variable that holds no number is none.
        return int(value) if value.isdecimal() else option.default
    return [value] if option.typespec == Sequence[str] else value


def parse(values: Mapping[str, Any]) -> Settings:
    """Parse the values of all options. Raises ValueError, which names the option that is wrong."""
    parsed = {}
    for option in OPTIONS:
        try:
            parsed[option.name] = option.parse(values[option.name])
        except ValueError as e:
            raise ValueError(f"{option.name}: {e}") from None
    if parsed["demo"] and not values["state_dir"]:
        # Aliases of the demo's models must not appear beside the user's own.
        parsed["state_dir"] /= "demo"
    return Settings(**parsed)
