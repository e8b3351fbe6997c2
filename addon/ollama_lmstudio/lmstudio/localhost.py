"""`localhost`, which is dialled at 127.0.0.1 first, then at ::1.

LM Studio listens on IPv4. Where the system names ::1 first, as Windows does, each new connection would wait there for
its refusal: two seconds.
"""

from __future__ import annotations

from typing import Final

import httpx

LOCALHOST: Final = "localhost"
ADDRESSES: Final = ("127.0.0.1", "::1")
OTHER_SECONDS: Final = 1.0
"""Timeout of a connection to the second address: where a program of this machine listens, the system connects at once.
It need not be waited for until Windows tells its refusal as well, which takes two seconds more."""


class LocalhostTransport(httpx.AsyncBaseTransport):
    """Send requests with another transport, and those to localhost to one of its addresses after the other."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the response of the first address that takes the connection; raise the error of the first."""
        if request.url.host != LOCALHOST:
            return await self._transport.handle_async_request(request)
        first_error: httpx.ConnectError | httpx.ConnectTimeout | None = None
        for address in ADDRESSES:
            try:
                return await self._transport.handle_async_request(
                    _at(request, address, is_other=first_error is not None)
                )
            except (httpx.ConnectError, httpx.ConnectTimeout) as e:
                first_error = first_error or e
        assert first_error is not None
        raise first_error

    async def aclose(self) -> None:
        await self._transport.aclose()


def _at(request: httpx.Request, address: str, *, is_other: bool) -> httpx.Request:
    """Return a request for an address that keeps the name in its Host header and for the certificate."""
    extensions = {**request.extensions, "sni_hostname": request.url.host}
    if is_other:
        extensions["timeout"] = {**extensions.get("timeout", {}), "connect": OTHER_SECONDS}
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions=extensions,
    )
