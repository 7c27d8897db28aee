"""What was wrong with the data, and what was done about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import polars as pl

from twotower.errors import DataError

Deed = Literal["dropped", "repaired", "converted", "noted"]
"""A row left out; mended; a value written in another way, of the same meaning; good to know."""

MOST_EXAMPLES: Final = 100
SHOWN: Final = 10
"""How many of these are enough for people."""
_MOST_SHOWN: Final = 40


@dataclass(frozen=True)
class Finding:
    """One kind of fault, as often as it was found, and the first lines where it was.

    examples: pairs of a line, counted from 1, and what stands there, in the order of the lines; none
    where it is not about single lines.
    """

    deed: Deed
    file: str
    what: str
    count: int
    examples: tuple[tuple[int, str], ...] = ()

    def __str__(self) -> str:
        where = ", ".join(f"line {line}: {value!r}" for line, value in self.examples[:SHOWN])
        return f"{self.file}: {self.count} {self.deed}: {self.what}" + (f" ({where})" if where else "")


class Findings:
    """Faults, gathered kind by kind. In strict mode the first row dropped or repaired is an error."""

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._found: dict[tuple[Deed, str, str], Finding] = {}

    def add(
        self,
        deed: Deed,
        file: str,
        what: str,
        lines: Sequence[int] | pl.Series,
        values: Sequence[object] | pl.Series,
    ) -> None:
        """Count faults of one kind, a line and what stands there, in the order of the lines.

        Of what stands there, the first `MOST_EXAMPLES` are enough.
        """
        if not len(lines):
            return
        known = self._found.get((deed, file, what), Finding(deed, file, what, 0))
        missing = MOST_EXAMPLES - len(known.examples)
        shown = [str(value)[:_MOST_SHOWN] for value in values[:missing]]
        examples = (*known.examples, *zip(lines[:missing], shown, strict=False))
        self._found[deed, file, what] = Finding(deed, file, what, known.count + len(lines), examples)

    def note(self, file: str, what: str, count: int) -> None:
        """Tell what is no fault, but good to know; nothing where there is none of it."""
        if count:
            self._found["noted", file, what] = Finding("noted", file, what, count)

    def check(self) -> None:
        """Raise DataError for the first row at fault so far, by line, in strict mode."""
        faults = [each for each in self._found.values() if each.deed in {"dropped", "repaired"}]
        if self._strict and faults:
            first = min(faults, key=lambda fault: fault.examples[0])
            line, value = first.examples[0]
            raise DataError(f"{first.file} line {line}: {first.what}: {value!r}")

    def dropped(self, file: str) -> int:
        """How many rows of a file were dropped."""
        found = self._found.values()
        return sum(each.count for each in found if (each.deed, each.file) == ("dropped", file))

    def all(self) -> tuple[Finding, ...]:
        """Every kind: what was dropped first, what is merely noted last."""
        order = get_args(Deed)
        return tuple(sorted(self._found.values(), key=lambda each: order.index(each.deed)))
