"""Headers that show a mask and send the secret."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mitmproxy import http

MASK = "***"
BEARER = "Bearer "
MASKED_BEARER = BEARER + MASK


class SealedHeaders(http.Headers):
    """Headers that show `***` for a secret, and send it.

    Whatever looks at the fields (the user interfaces, a saved flow, an export, a copy) sees the mask only; who puts
    something else there sends that. `forget` is for when the request has been sent.
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
        """Give headers with these secrets, where the mask still stands for them; a person may have reverted an edit."""
        again = SealedHeaders(fields.fields)
        again._sealed = dict(self._sealed)
        return again
