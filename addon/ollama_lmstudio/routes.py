"""The routes: one table from method and path to the endpoint."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from http import HTTPStatus
from types import ModuleType
from urllib.parse import quote, unquote

from . import outcomes, services
from .endpoints import (
    account,
    blobs,
    chat,
    copy,
    create,
    delete,
    embed,
    embeddings,
    generate,
    health,
    metrics,
    passthrough,
    ps,
    pull,
    push,
    recommendations,
    show,
    status,
    systemone,
    tags,
    version,
    web,
)
from .lmstudio.apis import PREFIXES

Named = tuple[ModuleType, str]

# The order in which `Allow` lists methods, as Ollama's router does.
METHODS = ("HEAD", "GET", "POST", "DELETE")

NOT_FOUND = outcomes.NOT_FOUND


@dataclass(frozen=True, slots=True)
class Route:
    """A path, its endpoint by method, and what it becomes, for the README.

    A segment of the path that begins with a colon matches any. `uploads` are endpoints whose request body is not held
    in memory. Each is given as its module, which may not be loaded yet, and its name there. `needs_key` is False for
    what is open to all even with the option `api_key`.
    """

    path: str
    endpoints: Mapping[str, Named]
    becomes: str
    uploads: Mapping[str, Named] = field(default_factory=dict)
    needs_key: bool = True

    @property
    def allow(self) -> tuple[str, ...]:
        """The methods, in the order of METHODS."""
        return tuple(method for method in METHODS if method in self.endpoints or method in self.uploads)


def _get(module: ModuleType, name: str) -> Mapping[str, Named]:
    return {"GET": (module, name)}


def _get_and_head(module: ModuleType, name: str) -> Mapping[str, Named]:
    return {"GET": (module, name), "HEAD": (module, name)}


def _post(module: ModuleType, name: str) -> Mapping[str, Named]:
    return {"POST": (module, name)}


def _delete(module: ModuleType, name: str) -> Mapping[str, Named]:
    return {"DELETE": (module, name)}


ROUTES: tuple[Route, ...] = (
    Route("/", _get_and_head(version, "root"), "answered here: `Ollama is running`"),
    Route("/api/version", _get_and_head(version, "version"), "answered here: the option `ollama_version`"),
    Route("/api/status", _get(status, "status"), "answered here: no cloud"),
    Route(
        "/health",
        _get_and_head(health, "health"),
        "readiness: 200 with details when LM Studio answers, 503 when not; it is asked every 3 s at most",
    ),
    Route(
        "/health/live",
        _get_and_head(health, "live"),
        "liveness: an empty 200 while this process serves, without a key; LM Studio is not asked",
        needs_key=False,
    ),
    Route("/metrics", _get(metrics, "metrics"), "numbers for Prometheus, with the option `metrics`; else a 404"),
    Route("/api/tags", _get_and_head(tags, "tags"), "LM Studio's model list, and the aliases"),
    Route("/api/ps", _get(ps, "ps"), "LM Studio's loaded instances"),
    Route("/api/show", _post(show, "show"), "LM Studio's model list; loads nothing"),
    Route("/api/chat", _post(chat, "chat"), "`POST /v1/chat/completions`"),
    Route("/api/generate", _post(generate, "generate"), "`POST /v1/chat/completions` or `/v1/completions`"),
    Route("/api/embed", _post(embed, "embed"), "`POST /v1/embeddings`, vectors scaled to length 1"),
    Route("/api/embeddings", _post(embeddings, "embeddings"), "`POST /v1/embeddings`"),
    Route(
        "/api/create",
        _post(create, "create"),
        "an alias for a model, kept here; LM Studio imports and quantizes nothing",
    ),
    Route("/api/copy", _post(copy, "copy"), "an alias, kept here"),
    Route("/api/delete", _delete(delete, "delete"), "an alias goes; LM Studio deletes no model of its own"),
    Route("/api/pull", _post(pull, "pull"), "a download of LM Studio's, from its catalog or Hugging Face; polled"),
    Route("/api/push", _post(push, "push"), "answered here: LM Studio has no registry, nothing is sent"),
    Route(
        "/api/blobs/:digest",
        {"HEAD": (blobs, "head")},
        "kept in the user's cache directory for a day, or as long as an alias needs it; LM Studio takes no files",
        uploads={"POST": (blobs, "BlobUpload")},
    ),
    Route("/api/me", _post(account, "me"), "503: there is no account"),
    Route("/api/signout", _post(account, "signout"), "500: there is no account"),
    Route("/api/user/keys/:key", _delete(account, "signout"), "500: there is no account"),
    Route("/api/experimental/web_search", _post(web, "web_search"), "403: no cloud"),
    Route("/api/experimental/web_fetch", _post(web, "web_fetch"), "403: no cloud"),
    Route("/api/experimental/model-recommendations", _get(recommendations, "recommendations"), "answered here: none"),
)

# Ollama's OpenAI- and Anthropic-compatible paths, whose methods are checked; other paths of these APIs are passed
# through with any method.
COMPATIBLE: tuple[Route, ...] = (
    *(
        Route(path, _post(passthrough, "passthrough"), "LM Studio's own API; the model's name is mapped")
        for path in (
            "/v1/chat/completions",
            "/v1/completions",
            "/v1/embeddings",
            "/v1/responses",
            "/v1/messages",
            "/v1/audio/transcriptions",
        )
    ),
    *(
        Route(path, _get(passthrough, "passthrough"), "LM Studio's own API; aliases are added")
        for path in ("/v1/models", "/v1/models/:model")
    ),
)
# Questions to decision models, whose errors are Ollama's, too.
_SYSTEM_ONE = Route("/v1/systemone", _post(systemone, "systemone"), "LM Studio's own; errors are Ollama's")
_ALL = (*ROUTES, *COMPATIBLE, _SYSTEM_ONE)
_BY_PATH: Mapping[str, Route] = {route.path: route for route in _ALL}
_ALLOW: Mapping[str, tuple[str, ...]] = {route.path: route.allow for route in _ALL}
_BY_PATTERN = tuple((re.compile(re.sub(r":\w+", "[^/]+", route.path)), route) for route in _ALL if ":" in route.path)

# A model's key may have a slash, which the segment of Ollama's route cannot.
_MODELS = "/v1/models/"
OTHER_PATHS = "(other)"
# The characters of a path that stand for themselves (RFC 3986 3.3), and the percent sign of those that do not.
_IN_PATHS = "/%:@!$&'()*+,;=~"


def is_passthrough(path: str) -> bool:
    """Return whether a path is one of LM Studio's own APIs."""
    return path.startswith(PREFIXES) and path not in PREFIXES


def decoded(path: str) -> str:
    """Return the path of the route that a percent-encoded one leads to, as Gin decodes it.

    Other paths are returned as they are: what they mean is for LM Studio to decide.
    """
    if "%" not in path:
        return path
    plain = unquote(path)
    return plain if _route(plain) or plain.startswith(_MODELS) else path


def _route(path: str) -> Route | None:
    return _BY_PATH.get(path) or next((route for pattern, route in _BY_PATTERN if pattern.fullmatch(path)), None)


def label(path: str) -> str:
    """Return the route that a path leads to, of which there are few; other paths are called by the API they are in."""
    if route := _route(path):
        return route.path
    return next((f"{prefix}*" for prefix in PREFIXES if path.startswith(prefix)), OTHER_PATHS)


def upload(method: str, path: str) -> services.Upload | None:
    """Return the endpoint that receives a request's body as it comes; None if there is none."""
    route = _route(path)
    named = route.uploads.get(method) if route else None
    found: services.Upload | None = getattr(*named) if named else None
    return found


def allowed_methods(path: str) -> tuple[str, ...]:
    """Return the methods of a path; none for a path that does not exist."""
    route = _route(path)
    return _ALLOW[route.path] if route else ()


def needs_key(path: str) -> bool:
    """Return whether the option `api_key` is for a path, too."""
    route = _BY_PATH.get(path)
    return route is None or route.needs_key


def find(method: str, path: str, query: str = "") -> services.Endpoint | outcomes.Response:
    """Return the endpoint of a request, or Ollama's response where there is none: a redirect, 404 or 405."""
    # The paths of the table are clean.
    if path not in _BY_PATH and (clean := _clean(path)) != path:
        return _redirect(method, HTTPStatus.TEMPORARY_REDIRECT, clean, query)
    route = _route(path)
    if route is not None:
        if named := route.endpoints.get(method):
            found: services.Endpoint = getattr(*named)
            return found
        return outcomes.Response(
            HTTPStatus.METHOD_NOT_ALLOWED,
            b"405 method not allowed",
            outcomes.TEXT,
            (("Allow", ", ".join(route.allow)),),
        )
    without_slash = unquote(path).removesuffix("/")
    if path.endswith(("/", "%2F", "%2f")) and (route := _route(without_slash)):
        if method not in route.allow:
            return NOT_FOUND
        status = HTTPStatus.MOVED_PERMANENTLY if method == "GET" else HTTPStatus.TEMPORARY_REDIRECT
        return _redirect(method, status, without_slash, query)
    # LM Studio answers 200 on a path that it does not have, and only the body, which HEAD has not, says so. Nothing of
    # its on /v1 can be asked with HEAD.
    is_hidden = method == "HEAD" and path.startswith("/v1/")
    return passthrough.passthrough if is_passthrough(path) and not is_hidden else NOT_FOUND


def _clean(path: str) -> str:
    """Return a path without empty and dot segments, as net/http's mux cleans it before Gin sees it."""
    if not path.startswith("/"):
        return path
    clean = posixpath.normpath("/" + path.lstrip("/"))
    return clean + "/" if path.endswith("/") and clean != "/" else clean


def _redirect(method: str, status: HTTPStatus, path: str, query: str) -> outcomes.Response:
    """Return a redirect as net/http makes it: with a body for GET, and its type for HEAD as well."""
    # A backslash must not stay: browsers take it for a slash, and `/\\host` for another server.
    location = quote(path, safe=_IN_PATHS, errors="surrogateescape") + (f"?{query}" if query else "")
    html = f'<a href="{escape(location)}">{status.phrase}</a>.\n\n'.encode("utf-8", "replace")
    body, content_type = (html, "text/html; charset=utf-8") if method in ("GET", "HEAD") else (b"", "")
    return outcomes.Response(status, body, content_type, (("Location", location),))
