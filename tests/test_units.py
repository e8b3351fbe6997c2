"""Numbers with units."""

from __future__ import annotations

import pytest

from ollama_lmstudio.units import plural, size

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
