"""Times as Ollama writes them: RFC 3339 with a fraction, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime

_SECOND = 1_000_000_000

# The longest span a Go duration can hold, in nanoseconds (292 years): Ollama's "forever".
FOREVER = 2**63 - 1


class _Clock:
    """Remember how the last second was written: the lines of a stream share it."""

    def __init__(self) -> None:
        self.second = -1
        self.prefix = ""

    def rfc3339(self, nanoseconds: int) -> str:
        second, fraction = divmod(nanoseconds, _SECOND)
        if second != self.second:
            self.prefix = f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}."
            self.second = second
        digits = f"{fraction:09d}"
        # Ollama trims every trailing zero; some clients want at least microseconds.
        return f"{self.prefix}{digits[:6]}{digits[6:].rstrip('0')}Z"


rfc3339 = _Clock().rfc3339
