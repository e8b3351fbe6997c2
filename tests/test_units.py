"""Numbers with units."""

from __future__ import annotations

import pytest

from ollama_lmstudio.units import elapsed, part_of, plural, size, speed

SIZES = {
    0: "0 bytes",
    1: "1 byte",
    999: "999 bytes",
    1000: "1.0 kB",
    999_949: "999.9 kB",
    999_950: "1.0 MB",
    10**15: "1000.0 TB",
}


@pytest.mark.parametrize(("count", "text"), SIZES.items())
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


def test_a_noun_has_the_number_of_its_count() -> None:
    assert [plural(count, "model") for count in (0, 1, 2)] == ["models", "model", "models"]


@pytest.mark.parametrize(
    ("count", "total", "text"),
    [
        (1_190_000_000, 2_279_145_003, "52 %, 1.2 of 2.3 GB"),
        (900_000_000, 2_279_145_003, "39 %, 900.0 MB of 2.3 GB"),
        (0, 5, "0 %, 0 of 5 bytes"),
        (5_000, 5_000, "100 %, 5.0 of 5.0 kB"),
    ],
)
def test_a_part_of_a_whole(count: int, total: int, text: str) -> None:
    assert part_of(count, total) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (23.4, "23 s"), (59.6, "1 min 0 s"), (185, "3 min 5 s"), (7260, "2 h 1 min")]
)
def test_a_time_that_somebody_waits(seconds: float, text: str) -> None:
    assert elapsed(seconds) == text


@pytest.mark.parametrize(("given", "text"), [(24.63, "24.6 tok/s"), (3, "3 tok/s"), (1204.4, "1,204 tok/s")])
def test_a_speed(given: float, text: str) -> None:
    assert speed(given) == text
