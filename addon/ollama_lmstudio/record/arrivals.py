"""When the bytes of a stream came: the size of each read, and the time since the one before it.

What is added for each read is two numbers: all else is worked out at the end, and for display. Saved, a read takes
eight bytes: its size and its time, in microseconds since the read before, the first since the client's request.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from itertools import islice, repeat
from operator import floordiv, sub
from typing import NamedTuple

# Unsigned, of four bytes, and signed, of eight.
_INT, _LONG = "I", "q"
_BYTES = array(_INT).itemsize
_NS_PER_US = 1000
# 71 minutes; what takes longer is written as that.
_MOST_US = 2 ** (8 * _BYTES) - 1


class Arrival(NamedTuple):
    """One read: its number of bytes, and when it came, in microseconds from the client's request on."""

    size: int
    at_us: int


class Pause(NamedTuple):
    """The longest time for which nothing came: its ns, the time at which it began, and the bytes that had come."""

    duration: int
    began_at: int
    size: int


class Arrivals:
    """The reads of one stream; times are ns of the monotonic clock."""

    __slots__ = ("sizes", "times")

    def __init__(self) -> None:
        self.sizes = array(_INT)
        self.times = array(_LONG)

    @property
    def first(self) -> int:
        """When the first read came; 0 if none has."""
        return self.times[0] if self.times else 0

    def clear(self) -> None:
        """Forget all reads."""
        del self.sizes[:], self.times[:]

    def packed(self, started: int) -> bytes:
        """Return the reads as they are saved; `started` is when the client's request came."""
        times = array(_LONG, (started,)) + self.times
        gaps = map(floordiv, map(sub, self.times, times), repeat(_NS_PER_US))
        # The user may have held the request after the first bytes of its answer had come: `started` is later then.
        packed = self.sizes + array(_INT, map(min, map(max, gaps, repeat(0)), repeat(_MOST_US)))
        return _little_endian(packed).tobytes()

    def longest_pause(self, ended: int = 0) -> Pause | None:
        """Return the longest pause after the first read; `ended` is when a stream was given up that had not ended."""
        times = self.times + array(_LONG, (ended,)) if ended and self.times else self.times
        gaps = list(map(sub, islice(times, 1, None), times))
        longest = max(gaps, default=0)
        if longest <= 0:
            return None
        last = gaps.index(longest)
        return Pause(longest, times[last], sum(self.sizes[: last + 1]))


def unpacked(saved: bytes, skip: int = 0) -> Iterator[Arrival]:
    """Yield the reads that were saved, without the first `skip`; nothing if they cannot be read."""
    count, rest = divmod(len(saved), 2 * _BYTES)
    if rest:
        return
    numbers = array(_INT)
    numbers.frombytes(saved)
    numbers = _little_endian(numbers)
    at = sum(numbers[count : count + skip])
    for size, gap in zip(numbers[skip:count], numbers[count + skip :], strict=True):
        at += gap
        yield Arrival(size, at)


def _little_endian(numbers: array[int]) -> array[int]:
    if sys.byteorder == "big":  # pragma: no cover
        numbers.byteswap()
    return numbers
