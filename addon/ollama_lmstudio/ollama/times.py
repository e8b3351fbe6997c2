"""Times as Ollama writes them: RFC 3339 with a fraction, in UTC (Go's time.RFC3339Nano)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime.fromtimestamp(0, UTC)
_SECOND = 1_000_000_000
# How many digits of a fraction are microseconds.
_MICROSECONDS = 6

# The longest Go duration (int64), in nanoseconds: 292 years. Ollama keeps a model for so long if asked to for ever.
FOREVER = 2**63 - 1


class _Clock:
    """Format times; keep the text of the last second, which many lines of a stream share."""

    def __init__(self) -> None:
        self.second: int | None = None
        self.prefix = ""

    def rfc3339(self, nanoseconds: int) -> str:
        second, fraction = divmod(nanoseconds, _SECOND)
        if second != self.second:
            # datetime.fromtimestamp refuses times before 1970 on Windows.
            self.prefix = f"{_EPOCH + timedelta(seconds=second):%Y-%m-%dT%H:%M:%S}."
            self.second = second
        digits = f"{fraction:09d}"
        # Go removes all trailing zeros. Microseconds are kept, as the date parsers of some clients need them.
        return f"{self.prefix}{digits[:_MICROSECONDS]}{digits[_MICROSECONDS:].rstrip('0')}Z"


rfc3339 = _Clock().rfc3339
