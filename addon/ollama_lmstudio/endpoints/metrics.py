"""`/metrics`: numbers for Prometheus, with the option `metrics`."""

from __future__ import annotations

import ipaddress
from http import HTTPStatus

from ..options import METRICS_OFF, METRICS_TO_ALL
from ..outcomes import NOT_FOUND, Request, Response
from ..services import Services

# What reverse proxies add: such a request comes from elsewhere, though its connection is this machine's.
FORWARDED = frozenset({"forwarded", "via", "x-forwarded-for", "x-real-ip"})
NOT_FROM_HERE = (
    f"/metrics is served to this machine only: to let others have it, set the option metrics={METRICS_TO_ALL}"
)


async def metrics(request: Request, services: Services) -> Response:
    """Return the numbers; a 404 where the option is off, and a 403 for a client that may not have them."""
    chosen = services.settings.metrics
    if chosen == METRICS_OFF or services.metrics is None:
        return NOT_FOUND
    if chosen != METRICS_TO_ALL and not is_from_here(request):
        return Response.error(HTTPStatus.FORBIDDEN, NOT_FROM_HERE)
    body, content_type = await services.metrics.exposition(request.headers.get("accept", ""))
    return Response(HTTPStatus.OK, body, content_type)


def is_from_here(request: Request) -> bool:
    """Return whether a request comes from this machine, as far as its connection and its headers tell."""
    try:
        address = ipaddress.ip_address(request.peer)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        # A socket for both versions has IPv4 addresses in this form (RFC 4291 2.5.5.2).
        address = address.ipv4_mapped or address
    return address.is_loopback and FORWARDED.isdisjoint(request.headers)
