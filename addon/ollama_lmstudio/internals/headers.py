"""Headers that show a mask and send the secret.

They rely on mitmproxy writing a request's headers as `bytes(headers)`: `check` asserts that at start, since without it
LM Studio would get the mask in place of the token, and the loopback service would refuse every request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mitmproxy import http
from mitmproxy.net.http import http1

MASK = "***"
BEARER = "Bearer "
MASKED_BEARER = BEARER + MASK


class SealedHeaders(http.Headers):
    """Headers that show `***` for a secret, and send it.

    Everything that reads the fields (the user interfaces, a saved flow, an export, a copy) gets the mask only; a header
    that was edited is sent as it is. Call `forget` when the request has been sent.
    """

    def __init__(self, fields: Iterable[tuple[bytes, bytes]] = (), secrets: Mapping[str, str] | None = None) -> None:
        """Add a header for each secret."""
        super().__init__(fields)
        self._sealed: dict[tuple[bytes, bytes], bytes] = {}
        for name, secret in (secrets or {}).items():
            mask = MASKED_BEARER if secret.startswith(BEARER) else MASK
            self[name] = mask
            self._sealed[name.lower().encode(), mask.encode()] = secret.encode()

    def __bytes__(self) -> bytes:
        shown = self.fields
        try:
            self.fields = tuple((name, self._sealed.get((name.lower(), value), value)) for name, value in shown)
            return super().__bytes__()
        finally:
            self.fields = shown

    def forget(self) -> None:
        """Forget the secrets."""
        self._sealed.clear()

    def sealed_again(self, fields: http.Headers) -> SealedHeaders:
        """Return headers of these fields with the same secrets, where the mask is still in place.

        A revert in a user interface replaces a flow's headers by plain ones.
        """
        again = SealedHeaders(fields.fields)
        again._sealed = dict(self._sealed)
        return again


class NotSealed(Exception):  # noqa: N818
    """This mitmproxy does not write headers in the way that sealed headers rely on."""


def check() -> None:
    """Raise NotSealed unless mitmproxy sends the secret of sealed headers, and only the secret."""
    secret = "check-of-sealed-headers"
    request = http.Request.make("GET", "http://localhost/")
    request.headers = SealedHeaders(request.headers.fields, {"Authorization": BEARER + secret})
    # What mitmproxy's HTTP/1 layer sends.
    head: bytes = http1.assemble_request_head(request)
    if secret.encode() not in head or MASK.encode() in head:
        raise NotSealed("this version of mitmproxy cannot be used: it would send *** in place of the token")
