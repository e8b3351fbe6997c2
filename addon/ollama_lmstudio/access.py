"""Who may come in: the Host and Origin headers and the key. Pure functions and one frozen object, no mitmproxy.

The rules for origins are Ollama's. The rules for hosts are stricter: names that the public could own are refused on
every address, since a web page whose name leads here could otherwise read and use the models (DNS rebinding).
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .outcomes import Headers, Response

_LOCAL_HOSTS = ("localhost", "127.0.0.1", "0.0.0.0")
DEFAULT_ORIGINS: tuple[str, ...] = (
    *(
        origin
        for host in _LOCAL_HOSTS
        for origin in (f"http://{host}", f"https://{host}", f"http://{host}:*", f"https://{host}:*")
    ),
    "app://*",
    "file://*",
    "tauri://*",
    "vscode-webview://*",
    "vscode-file://*",
)
LOCAL_SUFFIXES = (".localhost", ".local", ".internal")

PREFLIGHT_HEADERS: Headers = (
    (
        "Access-Control-Allow-Headers",
        "Authorization,Content-Type,User-Agent,Accept,X-Requested-With,Openai-Beta,X-Stainless-Arch,X-Stainless-Async,"
        "X-Stainless-Custom-Poll-Interval,X-Stainless-Helper-Method,X-Stainless-Lang,X-Stainless-Os,"
        "X-Stainless-Package-Version,X-Stainless-Poll-Helper,X-Stainless-Retry-Count,X-Stainless-Runtime,"
        "X-Stainless-Runtime-Version,X-Stainless-Timeout",
    ),
    ("Access-Control-Allow-Methods", "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"),
)
PREFLIGHT_MAX_AGE: Headers = (("Access-Control-Max-Age", "43200"),)
PREFLIGHT_VARY: Headers = (
    ("Vary", "Origin"),
    ("Vary", "Access-Control-Request-Method"),
    ("Vary", "Access-Control-Request-Headers"),
)

NO_BODY = ""

SECRET_HEADERS = ("authorization", "x-api-key", "api-key", "proxy-authorization", "cookie")
"""What is the client's own business: looked at for the key, never sent on, shown or saved."""


def split_host(host: str) -> str:
    """Give a Host header's name in lower case, without port, brackets and final dot."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, _, port = host.rpartition(":")
    return (name if name and port.isdecimal() and ":" not in name else host).removesuffix(".")


@dataclass(frozen=True, slots=True)
class Gate:
    """The rules as the options have them. `loopback` is whether only this machine can reach the server."""

    origins: tuple[str, ...]
    hosts: frozenset[str]
    api_key: str
    loopback: bool

    @classmethod
    def make(cls, origins: Iterable[str], hosts: Iterable[str], api_key: str, *, loopback: bool) -> Gate:
        """Add what the options allow to what is always allowed."""
        own = {name.lower() for name in (socket.gethostname(), socket.getfqdn())}
        return cls(
            (*origins, *DEFAULT_ORIGINS),
            frozenset(own | {split_host(host) for host in hosts}),
            api_key,
            loopback,
        )

    def allows_host(self, host: str) -> bool:
        """Whether a Host header names this server and nothing that the public could own."""
        name = split_host(host)
        if not name or "." not in name or name in self.hosts or name.endswith(LOCAL_SUFFIXES):
            return True
        return _is_address(name)

    def allows_origin(self, origin: str) -> bool:
        """Whether a web page of this origin may ask. Each allowed one may hold one `*`, anywhere."""
        return any(_matches(allowed, origin) for allowed in self.origins)

    @property
    def allows_every_origin(self) -> bool:
        """Whether `*` stands in the list."""
        return "*" in self.origins

    def has_key(self, headers: Mapping[str, str]) -> bool:
        """Whether the request brings the key, in either of the two headers; compared in constant time."""
        if not self.api_key:
            return True
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = [token.strip() if scheme.lower() == "bearer" else "", headers.get("x-api-key", "")]
        # Both are compared, whatever the first says. A header may hold bytes that are no text.
        key = self.api_key.encode()
        return True in [hmac.compare_digest(text.encode("utf-8", "surrogatepass"), key) for text in given]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _matches(allowed: str, origin: str) -> bool:
    before, star, after = allowed.partition("*")
    if not star:
        return allowed == origin
    return len(origin) >= len(before) + len(after) and origin.startswith(before) and origin.endswith(after)


def is_same_origin(origin: str, host: str) -> bool:
    """Whether an Origin is this server itself, so that the request is none across origins."""
    return origin in (f"http://{host}", f"https://{host}")


def cors_headers(gate: Gate, origin: str) -> Headers:
    """Give what an answer to an allowed origin carries."""
    if gate.allows_every_origin:
        return (("Access-Control-Allow-Origin", "*"),)
    return (("Access-Control-Allow-Origin", origin), ("Vary", "Origin"))


def preflight(gate: Gate, origin: str, allow: Headers) -> Response:
    """Answer an allowed origin's OPTIONS."""
    if gate.allows_every_origin:
        who: Headers = (("Access-Control-Allow-Origin", "*"),)
        vary: Headers = ()
    else:
        who, vary = (("Access-Control-Allow-Origin", origin),), PREFLIGHT_VARY
    return Response(204, b"", NO_BODY, (*PREFLIGHT_HEADERS, *who, *PREFLIGHT_MAX_AGE, *allow, *vary))


FORBIDDEN = Response(403, b"", NO_BODY)
UNAUTHORIZED = Response.error(401, "unauthorized")


def check(gate: Gate, method: str, host: str, headers: Mapping[str, str], allow: tuple[str, ...]) -> Response | None:
    """Decide over a request: None lets it in, else the answer that turns it away (or answers a preflight).

    `allow` are the methods of the path, empty for an unknown one.
    """
    origin = headers.get("origin", "")
    allow_header: Headers = (("Allow", ", ".join(allow)),) if allow else ()
    if origin and not is_same_origin(origin, host):
        if not gate.allows_every_origin and not gate.allows_origin(origin):
            return Response(403, b"", NO_BODY, allow_header) if method == "OPTIONS" else FORBIDDEN
        if method == "OPTIONS":
            return preflight(gate, origin, allow_header)
    if not gate.allows_host(host):
        return FORBIDDEN
    if method == "OPTIONS" and not origin and gate.loopback and not _is_address(split_host(host)):
        return Response(204, b"", NO_BODY, allow_header)
    if not gate.has_key(headers):
        return UNAUTHORIZED
    return None
