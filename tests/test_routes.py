"""The routes: the endpoint of a method and a path, or Ollama's answer where there is none."""

from __future__ import annotations

import pytest

from ollama_lmstudio import outcomes, routes, services
from ollama_lmstudio.endpoints import (
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

FOUND: list[tuple[str, str, services.Endpoint]] = [
    ("GET", "/", version.root),
    ("HEAD", "/", version.root),
    ("GET", "/api/version", version.version),
    ("HEAD", "/api/version", version.version),
    ("GET", "/api/status", status.status),
    ("GET", "/health", health.health),
    ("HEAD", "/health/live", health.live),
    ("GET", "/metrics", metrics.metrics),
    ("GET", "/api/tags", tags.tags),
    ("HEAD", "/api/tags", tags.tags),
    ("GET", "/api/ps", ps.ps),
    ("POST", "/api/show", show.show),
    ("POST", "/api/chat", chat.chat),
    ("POST", "/api/generate", generate.generate),
    ("POST", "/api/embed", embed.embed),
    ("POST", "/api/embeddings", embeddings.embeddings),
    ("POST", "/api/create", create.create),
    ("POST", "/api/copy", copy.copy),
    ("DELETE", "/api/delete", delete.delete),
    ("POST", "/api/pull", pull.pull),
    ("POST", "/api/push", push.push),
    ("HEAD", "/api/blobs/:digest", blobs.head),
    ("POST", "/api/me", account.me),
    ("POST", "/api/signout", account.signout),
    ("DELETE", "/api/user/keys/:key", account.signout),
    ("POST", "/api/experimental/web_search", web.web_search),
    ("POST", "/api/experimental/web_fetch", web.web_fetch),
    ("GET", "/api/experimental/model-recommendations", recommendations.recommendations),
    ("GET", "/v1/models", passthrough.passthrough),
    ("GET", "/v1/models/x:7b", passthrough.passthrough),
    ("GET", "/v1/models/publisher/x", passthrough.passthrough),
    ("POST", "/v1/chat/completions", passthrough.passthrough),
    ("POST", "/v1/systemone", systemone.systemone),
    *[
        (method, path, passthrough.passthrough)
        for method in ("GET", "POST", "DELETE", "PUT", "OPTIONS")
        for path in ("/v1/x", "/v1/a/b/", "/api/v0/models", "/api/v1/models/load", "/v1/%63hat%2Fx")
    ],
    ("HEAD", "/api/v0/models", passthrough.passthrough),
]


@pytest.mark.parametrize(("method", "path", "endpoint"), FOUND)
def test_found(method: str, path: str, endpoint: services.Endpoint) -> None:
    assert routes.find(method, path) is endpoint


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/", "HEAD, GET"),
        ("DELETE", "/api/tags", "HEAD, GET"),
        ("POST", "/api/version", "HEAD, GET"),
        ("OPTIONS", "/api/tags", "HEAD, GET"),
        ("HEAD", "/api/ps", "GET"),
        ("HEAD", "/api/status", "GET"),
        ("GET", "/api/chat", "POST"),
        ("HEAD", "/api/chat", "POST"),
        ("PUT", "/api/embed", "POST"),
        ("post", "/api/chat", "POST"),
        ("POST", "/api/delete", "DELETE"),
        ("HEAD", "/v1/models", "GET"),
        ("OPTIONS", "/v1/models/x", "GET"),
        ("GET", "/v1/messages", "POST"),
    ],
)
def test_wrong_methods(method: str, path: str, allow: str) -> None:
    found = routes.find(method, path)
    assert found == outcomes.Response(405, b"405 method not allowed", "text/plain", (("Allow", allow),))
    assert ", ".join(routes.allowed_methods(path)) == allow


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize(
    "path",
    [
        "",
        "*",
        "/nothing",
        "/API/TAGS",
        "/api",
        "/api/",
        "/api/tags2",
        "/api/chat/more",
        "/v1",
        "/v2/models",
        "/api/v2/models",
        "/v1models",
        "/metric",
        "/api/nothing/",
        "/v1/",
        "/api/v0/",
        "/api/v1/",
        "/%2e%2e/api/tags",
    ],
)
def test_unknown_paths(method: str, path: str) -> None:
    assert routes.find(method, path) == outcomes.Response(404, b"404 page not found", "text/plain")
    assert routes.allowed_methods(path) == ()


def test_head_of_what_lm_studio_might_have_is_not_found() -> None:
    for path in ("/v1/x", "/v1/modelsx", "/v1/a/b/"):
        assert routes.find("HEAD", path) == routes.NOT_FOUND


@pytest.mark.parametrize(
    ("method", "path", "query", "status", "location", "body"),
    [
        ("GET", "/api/tags/", "", 301, "/api/tags", b'<a href="/api/tags">Moved Permanently</a>.\n\n'),
        ("GET", "/api/tags%2F", "", 301, "/api/tags", b'<a href="/api/tags">Moved Permanently</a>.\n\n'),
        ("GET", "//api/tags", "", 307, "/api/tags", b'<a href="/api/tags">Temporary Redirect</a>.\n\n'),
        ("GET", "/api//tags", "", 307, "/api/tags", b'<a href="/api/tags">Temporary Redirect</a>.\n\n'),
        ("GET", "//nothing", "", 307, "/nothing", b'<a href="/nothing">Temporary Redirect</a>.\n\n'),
        ("GET", "//", "", 307, "/", b'<a href="/">Temporary Redirect</a>.\n\n'),
        ("GET", "/api/ps/", "a=1&b", 301, "/api/ps?a=1&b", b'<a href="/api/ps?a=1&amp;b">Moved Permanently</a>.\n\n'),
        ("POST", "/api/chat/", "", 307, "/api/chat", b""),
        ("POST", "/v1/chat/completions/", "", 307, "/v1/chat/completions", b""),
        ("GET", "/v1/models/", "", 301, "/v1/models", b'<a href="/v1/models">Moved Permanently</a>.\n\n'),
        ("HEAD", "/api/tags/", "", 307, "/api/tags", b'<a href="/api/tags">Temporary Redirect</a>.\n\n'),
        ("POST", "/api/blobs/sha256-0/", "", 307, "/api/blobs/sha256-0", b""),
        ("DELETE", "/api/delete/", "x", 307, "/api/delete?x", b""),
        ("POST", "//api/chat", "", 307, "/api/chat", b""),
        ("POST", "//api/chat/", "", 307, "/api/chat/", b""),
        ("POST", "/v1//chat/completions", "", 307, "/v1/chat/completions", b""),
        ("OPTIONS", "/v1//x", "", 307, "/v1/x", b""),
        ("POST", "/v1/./a/../../api/chat", "", 307, "/api/chat", b""),
        ("PUT", "//api/%74ags", "", 307, "/api/%74ags", b""),
        ("POST", '//v1/"><b>', "", 307, "/v1/%22%3E%3Cb%3E", b""),
        ("POST", "//\\evil.com", "", 307, "/%5Cevil.com", b""),
        ("POST", "//\udce9", "", 307, "/%E9", b""),
        (
            "GET",
            "//nothing",
            '"><b>&',
            307,
            '/nothing?"><b>&',
            b'<a href="/nothing?&quot;&gt;&lt;b&gt;&amp;">Temporary Redirect</a>.\n\n',
        ),
    ],
)
def test_redirects(method: str, path: str, query: str, status: int, location: str, body: bytes) -> None:
    found = routes.find(method, path, query)
    content_type = "text/html; charset=utf-8" if body else ""
    assert found == outcomes.Response(status, body, content_type, (("Location", location),))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/tags/"),
        ("GET", "/api/chat/"),
        ("PUT", "/api/chat/"),
        ("DELETE", "/api/tags%2F"),
        ("HEAD", "/v1/models/"),
        ("GET", "/v1/chat/completions/"),
    ],
)
def test_a_slash_at_the_end_is_no_redirect_for_a_method_that_the_path_lacks(method: str, path: str) -> None:
    assert routes.find(method, path) == routes.NOT_FOUND


@pytest.mark.parametrize(
    ("path", "decoded"),
    [
        ("/api/%74ags", "/api/tags"),
        ("/%61pi/chat", "/api/chat"),
        ("/v1/%63hat/completions", "/v1/chat/completions"),
        ("/v1/models/qwen%2Fqwen3-8b", "/v1/models/qwen/qwen3-8b"),
        ("/api/blobs/sha256%3A00", "/api/blobs/sha256:00"),
        ("/api/v0/models/qwen%2Fqwen3-8b", "/api/v0/models/qwen%2Fqwen3-8b"),
        ("/api/tags%2F", "/api/tags%2F"),
        ("/api/nothing%", "/api/nothing%"),
        ("/api/%54ags", "/api/%54ags"),
    ],
)
def test_percent_encoded_paths_lead_to_their_routes(path: str, decoded: str) -> None:
    assert routes.decoded(path) == decoded


def test_a_redirect_leads_to_an_endpoint_and_not_away() -> None:
    for path in ("//api/tags", "/api/tags/", "///api///tags", "//v1//models"):
        found = routes.find("GET", path)
        assert isinstance(found, outcomes.Response)
        ((name, location),) = found.headers
        assert name == "Location"
        assert not location.startswith("//")
        assert not isinstance(routes.find("GET", location), outcomes.Response)


def test_every_route_is_tested_and_told() -> None:
    tested = {path for _, path, _ in FOUND}
    assert {route.path for route in routes.ROUTES} <= tested
    assert len({route.path for route in routes.ROUTES}) == len(routes.ROUTES)
    for route in routes.ROUTES:
        assert route.becomes
        assert set(route.endpoints) <= set(routes.METHODS)
        assert not routes.is_passthrough(route.path)


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("/api/chat", "/api/chat"),
        ("/api/blobs/sha256:abc", "/api/blobs/:digest"),
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/models/a", "/v1/models/:model"),
        ("/v1/models/a/b", "/v1/*"),
        ("/v1/made/up", "/v1/*"),
        ("/api/v0/models/made-up", "/api/v0/*"),
        ("/api/v1/chat", "/api/v1/*"),
        ("/api/made-up", "(other)"),
        ("/", "/"),
        ("", "(other)"),
    ],
)
def test_paths_have_few_labels(path: str, label: str) -> None:
    assert routes.label(path) == label
