"""When the bytes of a stream came."""

from __future__ import annotations

import pytest

from ollama_lmstudio.record.arrivals import Arrival, Arrivals, Pause, unpacked

MS = 1_000_000
STARTED = 5_000_000_000_000


def arrivals(*reads: tuple[int, int]) -> Arrivals:
    """Return reads of a size and of a time in ms from the request on."""
    made = Arrivals()
    for size, at in reads:
        made.sizes.append(size)
        made.times.append(STARTED + at * MS)
    return made


READS = ((300, 602), (12, 602), (70_000, 640), (1, 5_640))


def test_what_is_saved_is_read_again() -> None:
    saved = arrivals(*READS).packed(STARTED)
    assert len(saved) == 8 * len(READS)
    assert list(unpacked(saved)) == [Arrival(size, at * 1000) for size, at in READS]


def test_no_reads() -> None:
    assert arrivals().packed(STARTED) == b""
    assert list(unpacked(b"")) == []
    assert arrivals().longest_pause(STARTED) is None


@pytest.mark.parametrize("saved", [b"x", b"abcdefghi"])
def test_what_is_none_is_left_out(saved: bytes) -> None:
    assert list(unpacked(saved)) == []


def test_times_that_do_not_fit() -> None:
    """The request began later than its answer, since the user held it; or hours lie between two reads."""
    saved = arrivals((1, -5), (1, 10), (1, 3 * 3600 * 1000)).packed(STARTED)
    assert [arrival.at_us for arrival in unpacked(saved)] == [0, 15_000, 15_000 + 2**32 - 1]


@pytest.mark.parametrize(
    ("reads", "ended", "expected"),
    [
        (READS, 0, Pause(5_000 * MS, STARTED + 640 * MS, 70_312)),
        (READS, 15_000, Pause(9_360 * MS, STARTED + 5_640 * MS, 70_313)),
        (((5, 10), (5, 10)), 0, None),
        (((5, 10),), 0, None),
        (((5, 10),), 30, Pause(20 * MS, STARTED + 10 * MS, 5)),
    ],
)
def test_the_longest_pause(reads: tuple[tuple[int, int], ...], ended: int, expected: Pause | None) -> None:
    assert arrivals(*reads).longest_pause(ended and STARTED + ended * MS) == expected
