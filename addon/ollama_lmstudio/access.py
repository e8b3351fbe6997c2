"""Access control: the Host and Origin headers, and the key. Pure functions and one frozen object, no mitmproxy.

Origins: the rules and responses of Ollama, which uses gin-contrib/cors, as recorded from Ollama 0.33. They are the
server's side of CORS (https://fetch.spec.whatwg.org/#http-cors-protocol), but a request of a foreign origin gets a 403,
where CORS alone would only have the browser keep the response from the page.

Hosts: Ollama checks the Host header only when it listens on a loopback address. Here a name that anybody could register
is refused on every address, against DNS rebinding: a web page's own name is made to resolve to this machine, so that
the browser takes this server for the page's origin, and CORS does not apply. The Host header is then still the page's
name (RFC 9110 7.2). Ollama's refusal has no body; here it says what to do.

The key, or one of several that have names: `Authorization: Bearer` (RFC 6750 2.1, scheme in any case: RFC 9110 11.1),
or `x-api-key`, which Anthropic's clients send.
"""

from __future__ import annotations

import functools
import hmac
import ipaddress
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from http import HTTPStatus

from .keys import Keyring, NamedKey
from .outcomes import NO_CONTENT_TYPE, Headers, Response

# Ollama's own list, to which OLLAMA_ORIGINS is added.
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
# Names that nobody can register. The first three are Ollama's: RFC 6761 6.3, RFC 6762 3 (mDNS), and ICANN's reservation
# of 2024; then RFC 8375, RFC 6761 6.2, and the private names of RFC 6762 appendix G, which routers use.
LOCAL_SUFFIXES = (
    ".localhost",
    ".local",
    ".internal",
    ".home.arpa",
    ".test",
    ".lan",
    ".home",
    ".intranet",
    ".corp",
    ".private",
)
IPV4 = 4

# Ollama's values, in its order, as recorded.
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

SECRET_HEADERS = ("authorization", "x-api-key", "api-key", "proxy-authorization", "cookie")
"""The client's credentials: the key is read from them; they are never passed on, shown or saved."""


def split_host(host: str) -> str:
    """Return a Host header's name in lower case, without port, brackets and final dot.

    RFC 3986 3.2.2: names are case-insensitive, an IPv6 address is in brackets, a final dot marks an absolute name.
    """
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, _, port = host.rpartition(":")
    return (name if name and port.isdecimal() and ":" not in name else host).removesuffix(".")


class OwnNames:
    """The names of this machine, in lower case. The one with its domain is known a little later."""

    def __init__(self) -> None:
        self._names = {socket.gethostname().lower()}
        # Where no DNS server answers, it takes seconds. Neither the start nor the end waits for a daemon thread.
        threading.Thread(target=self._look_up, name="own name", daemon=True).start()

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def _look_up(self) -> None:
        # What of it cannot be decoded is no name of a Host header.
        with suppress(OSError, UnicodeError):
            self._names |= {socket.getfqdn().lower()}


@functools.cache
def own_names() -> OwnNames:
    """Return the names of this machine, which are looked up once."""
    return OwnNames()


@dataclass(frozen=True, slots=True)
class Gate:
    """The rules as the options set them. `loopback` is whether only this machine can reach the server."""

    origins: tuple[str, ...]
    hosts: frozenset[str]
    own_names: OwnNames
    api_key: str
    keys: Keyring
    loopback: bool

    @classmethod
    def make(
        cls,
        origins: Iterable[str],
        hosts: Iterable[str],
        api_key: str,
        keys: Keyring | None = None,
        *,
        loopback: bool,
    ) -> Gate:
        """Return the rules: what is always allowed, and what the options add."""
        return cls(
            (*origins, *DEFAULT_ORIGINS),
            frozenset(split_host(host) for host in hosts),
            own_names(),
            api_key,
            Keyring() if keys is None else keys,
            loopback,
        )

    def allows_host(self, host: str) -> bool:
        """Whether a Host header holds no name that anybody could register, or one that is allowed.

        No header (HTTP/1.0), a name without a dot and an IP address are allowed: no web page can be reached by one of
        them and then have it resolve to this machine. On a loopback address Ollama refuses the public addresses of
        other machines, and so does this.
        """
        name = split_host(host)
        if not name or name in self.hosts or name in self.own_names or name.endswith(LOCAL_SUFFIXES):
            return True
        address = _address(name)
        if address is None:
            return "." not in name
        return not self.loopback or not address.is_global or _is_own(address)

    def allows_origin(self, origin: str) -> bool:
        """Whether an origin is allowed. As in Ollama, an allowed one may hold one `*`, which stands for any text."""
        return any(_matches(allowed, origin) for allowed in self.origins)

    @property
    def allows_every_origin(self) -> bool:
        """Whether `*` stands in the list."""
        return "*" in self.origins

    def has_key(self, headers: Mapping[str, str]) -> bool:
        """Whether one of the two headers holds a key, if there is any; compared in constant time."""
        if not self.api_key:
            return not self.keys or self.named_key(headers) is not None
        # No short circuit: the time must not depend on the first result. A header may hold bytes that are not UTF-8.
        key = self.api_key.encode()
        is_it = [hmac.compare_digest(text.encode("utf-8", "surrogatepass"), key) for text in _given_keys(headers)]
        return (self.named_key(headers) is not None) | (True in is_it)

    def named_key(self, headers: Mapping[str, str]) -> NamedKey | None:
        """Return which of the named keys one of the two headers holds, Authorization first; None if it is none."""
        if not self.keys:
            return None
        found = [self.keys.find(text) for text in _given_keys(headers)]
        return next(filter(None, found), None)


def _given_keys(headers: Mapping[str, str]) -> tuple[str, str]:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else "", headers.get("x-api-key", "")


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _address(name: str) -> _Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _is_own(address: _Address) -> bool:
    """Return whether an address is this machine's: only to such a one can a socket be bound."""
    family = socket.AF_INET if address.version == IPV4 else socket.AF_INET6
    try:
        # Of TCP: Wine binds a socket of UDP to any address.
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.bind((str(address), 0))
    except OSError:
        return False
    return True


def _matches(allowed: str, origin: str) -> bool:
    before, star, after = allowed.partition("*")
    if not star:
        return allowed == origin
    return len(origin) >= len(before) + len(after) and origin.startswith(before) and origin.endswith(after)


def is_same_origin(origin: str, host: str) -> bool:
    """Whether an Origin is this server's own, going by Host, as for gin-contrib/cors: then CORS does not apply."""
    return origin in (f"http://{host}", f"https://{host}")


def cors_headers(gate: Gate, origin: str) -> Headers:
    """Return the headers of a response to an allowed origin.

    Without `*`, `Vary: Origin` keeps a cache from answering another origin with this response (Fetch standard, "CORS
    protocol and HTTP caches").
    """
    if gate.allows_every_origin:
        return (("Access-Control-Allow-Origin", "*"),)
    return (("Access-Control-Allow-Origin", origin), ("Vary", "Origin"))


def preflight(gate: Gate, origin: str, allow: Headers) -> Response:
    """Return the response to an allowed origin's OPTIONS. Like gin-contrib/cors, take each for a preflight request."""
    if gate.allows_every_origin:
        allow_origin: Headers = (("Access-Control-Allow-Origin", "*"),)
        vary: Headers = ()
    else:
        allow_origin, vary = (("Access-Control-Allow-Origin", origin),), PREFLIGHT_VARY
    headers = (*PREFLIGHT_HEADERS, *allow_origin, *PREFLIGHT_MAX_AGE, *allow, *vary)
    return Response(HTTPStatus.NO_CONTENT, b"", NO_CONTENT_TYPE, headers)


FORBIDDEN = Response(HTTPStatus.FORBIDDEN, b"", NO_CONTENT_TYPE)
# Ollama itself has no key. The text is that of its 401 for a user who is not signed in to ollama.com.
NO_KEY = "unauthorized"
UNAUTHORIZED = Response.error(HTTPStatus.UNAUTHORIZED, NO_KEY)
FOREIGN_HOST = (
    "the host name {!r} is not one of this server's, and a web page could have its own name lead here (DNS rebinding): "
    "if the name is yours, add it to the option allowed_hosts"
)


def check(
    gate: Gate,
    method: str,
    host: str,
    headers: Mapping[str, str],
    allow: tuple[str, ...],
    error: Callable[[int, str], Response] = Response.error,
    *,
    needs_key: bool = True,
) -> Response | None:
    """Return None if a request is allowed, else the response that refuses it or answers a preflight.

    `allow` are the methods of the path, empty for an unknown one; `error` makes an error in the shape of its API;
    without `needs_key` the path is open to who has none. The order is Ollama's: origin, host, then the route. A
    preflight needs no key: browsers send it without credentials (Fetch standard, "CORS-preflight fetch").
    """
    origin = headers.get("origin", "")
    allow_header: Headers = (("Allow", ", ".join(allow)),) if allow else ()
    extra: Headers = ()
    if origin and not is_same_origin(origin, host):
        if not gate.allows_every_origin and not gate.allows_origin(origin):
            return replace(FORBIDDEN, headers=allow_header) if method == "OPTIONS" else FORBIDDEN
        if method == "OPTIONS":
            return preflight(gate, origin, allow_header)
        extra = cors_headers(gate, origin)
    if not gate.allows_host(host):
        extra += allow_header if method == "OPTIONS" else ()
        return replace(error(HTTPStatus.FORBIDDEN, FOREIGN_HOST.format(split_host(host))), headers=extra)
    if method == "OPTIONS" and not origin and gate.loopback and _address(split_host(host)) is None:
        # As recorded: Ollama answers so on a loopback address when Host is a name; an IP address gets the route's 405.
        return Response(HTTPStatus.NO_CONTENT, b"", NO_CONTENT_TYPE, allow_header)
    if needs_key and not gate.has_key(headers):
        return replace(error(HTTPStatus.UNAUTHORIZED, NO_KEY), headers=extra)
    return None
