"""Who may have /metrics."""

from __future__ import annotations

import asyncio

import pytest
from tests.services import MakeServices

from ollama_lmstudio import routes
from ollama_lmstudio.endpoints.metrics import metrics
from ollama_lmstudio.outcomes import Request, Response


class Numbers:
    """Numbers that are told as what was accepted."""

    async def exposition(self, accept: str) -> tuple[bytes, str]:
        return accept.encode(), "text/plain; version=0.0.4"


def ask(make_services: MakeServices, chosen: str, peer: str, **headers: str) -> Response:
    services = make_services(metrics=chosen)
    services.metrics = Numbers() if chosen != "off" else None
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return asyncio.run(metrics(Request("GET", "/metrics", "", given, b"", 0, peer), services))


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"])
def test_this_machine(make_services: MakeServices, peer: str) -> None:
    found = ask(make_services, "local", peer, accept="text/plain")
    assert (found.status, found.body, found.content_type) == (200, b"text/plain", "text/plain; version=0.0.4")


@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        ("192.168.1.2", {}),
        ("::ffff:192.168.1.2", {}),
        ("2001:db8::1", {}),
        ("", {}),
        # A reverse proxy on this machine passes on what comes from elsewhere.
        *[("127.0.0.1", {name: "x"}) for name in ("forwarded", "via", "x_forwarded_for", "x_real_ip")],
    ],
)
def test_others_have_it_only_where_they_may(make_services: MakeServices, peer: str, headers: dict[str, str]) -> None:
    refused = ask(make_services, "local", peer, **headers)
    assert refused.status == 403
    assert b"metrics=network" in refused.body
    assert ask(make_services, "network", peer, **headers).status == 200


def test_it_is_not_there_while_it_is_off(make_services: MakeServices) -> None:
    assert ask(make_services, "off", "127.0.0.1") == routes.NOT_FOUND
