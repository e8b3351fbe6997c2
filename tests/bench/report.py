"""The table of results: for the terminal, and for the README."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.bench.measurements import Key, Row

BASE = "plain"
GAP = "  "
MANY = 1000
TENS = 100


@dataclass(frozen=True)
class Report:
    """What is shown: the labels of the environments, and the names of what was measured in each beside `direct`.

    `bases` are what a variant is compared with that is not compared with the plain one.
    """

    labels: Sequence[str]
    names: Sequence[str]
    bases: Mapping[str, str] = field(default_factory=dict)

    def _columns(self) -> Iterator[tuple[str, int]]:
        """Yield what is shown of each environment: variants, and the ratio beside each but the plain one."""
        for line in range(len(self.labels)):
            for name in self.names:
                yield name, line
                if name != BASE:
                    yield f"/ {self._base(name)}", line

    def _base(self, name: str) -> str:
        return self.bases.get(name, BASE)

    def cells(self, row: Row) -> list[str]:
        """Return the texts of a row: its title, the number without a proxy, and those of each environment."""
        texts = [row.title, number(row.values.get(("direct", None), math.nan))]
        shown: Key = ("", None)
        for name, line in self._columns():
            if name in self.names:
                shown = (name, line)
                texts.append(number(row.values.get(shown, math.nan)))
            else:
                texts.append(
                    ratio(row.values.get(shown, math.nan), row.values.get((self._base(shown[0]), line), math.nan))
                )
        return texts

    def text(self, rows: Iterable[Row]) -> str:
        """Return the table with aligned columns."""
        head = ["", "direct", *(name for name, _ in self._columns())]
        table = [head, *map(self.cells, rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        per_line = (len(widths) - 2) // len(self.labels)
        above = " " * (widths[0] + len(GAP) + widths[1])
        for line, label in enumerate(self.labels):
            part = widths[2 + line * per_line :][:per_line]
            missing = len(label) - (sum(part) + len(GAP) * (per_line - 1))
            if missing > 0:
                widths[2 + line * per_line] += missing
                part[0] += missing
            above += GAP + label.rjust(sum(part) + len(GAP) * (per_line - 1))
        lines = [GAP.join([title.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]) for title, *rest in table]
        return "\n".join([above, *lines])

    def markdown(self, rows: Iterable[Row]) -> str:
        """Return the table as the README has it."""
        head = [
            "",
            "direct",
            *(f"{name}, {self.labels[line]}" if name == BASE else name for name, line in self._columns()),
        ]
        table = [head, ["---", *["---:"] * (len(head) - 1)], *map(self.cells, rows)]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in table)


def number(value: float) -> str:
    """Write a number with about three digits."""
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if value >= MANY else f"{value:.0f}" if value >= TENS else f"{value:.2f}"


def ratio(value: float, base: float) -> str:
    """Write a ratio."""
    return "-" if math.isnan(value) or math.isnan(base) or not base else f"{value / base:.2f}"
