"""Ids, ratings and times as people write them, to numbers; what cannot be one is dropped, and told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import polars as pl

from training.findings import Deed, Findings
from training.layouts import Role, Scale, Table
from training.rows import LINE

LIKE: Final = 1.0
"""What a row without a rating counts as, on a scale of nothing else."""
NO_RATINGS: Final = pl.DataFrame(
    schema={
        "user": pl.Int64,
        "item": pl.Int64,
        "rating": pl.Float32,
        "timestamp": pl.Int64,
        LINE: pl.UInt32,
    }
)
"""Ratings, none of them."""
LARGEST_ID: Final = 2**63 - 1
_WHOLE: Final = r"^\+?([0-9]+)(?:\.0*)?$"  # what spreadsheets and pandas make of whole numbers, too
MISSING: Final = ("", "NA", "N/A", "#N/A", "<NA>", "nan", "NaN", "null", "NULL", "None", "none", "\\N")
"""What programs write where there is nothing."""
_FROM: Final[Mapping[str, tuple[int, int]]] = {
    "nanoseconds": (10**17, 10**9),
    "microseconds": (10**14, 10**6),
    "milliseconds": (10**11, 10**3),
}
"""From which number on a time is not in seconds, and how many of them a second has.

Seconds as many as the least number of milliseconds would be the year 5138; milliseconds, 1973.
"""
_LATEST: Final = 4_102_444_800
"""The year 2100, in seconds since 1970: what comes later is in a unit of its own, or a mistake."""
_COMPACT: Final = (19_000_101, 21_001_231)
"""Numbers that may be dates, year first: in seconds they would all be of August 1970."""
_DECIMAL_COMMA: Final = r"^([0-9]+),([0-9]{1,2})$"
_DATES: Final = ("%Y-%m-%d", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f%#z")
_IN_FULL: Final[Mapping[str, str]] = {
    r"^([0-9]{4})/([0-9]{1,2})/([0-9]{1,2})": "$1-$2-$3",
    r"^([0-9]{4})([0-9]{2})([0-9]{2})[Tt ]([0-9]{2})([0-9]{2})([0-9]{2})": "$1-$2-$3 $4:$5:$6",
    r"^([0-9-]{8,10})[Tt]": "$1 ",
    r",([0-9]+)": ".$1",
    r" ?(?:[Zz]|UTC|GMT)$": "+00:00",
    r" ([+-][0-9:]+)$": "$1",
    r"( [0-9]{2}:[0-9]{2})([+-].*)?$": "${1}:00$2",
}
"""Other ways to write a date and time, and how they become one of `_DATES`."""


class Checker:
    """Turns the rows of one file into numbers, row by row the same, whatever is beside them."""

    def __init__(self, table: Table, findings: Findings) -> None:
        self._file = table.source.name
        self._layout = table.layout
        self._findings = findings

    def ratings(self, rows: pl.DataFrame, scale: Scale | None) -> pl.DataFrame:
        """The sound ones of rows of text, as `NO_RATINGS` has them; ids as `ids` does.

        Where the file has no such column, ratings are `LIKE` and timestamps 0.
        """
        rows = self._without_headers(rows)
        if "rating" in rows.columns:
            rows = self._ratings(rows, scale)
        else:
            rows = rows.with_columns(rating=pl.lit(LIKE, pl.Float32))
        if "timestamp" in rows.columns:
            rows = self._timestamps(rows)
        else:
            rows = rows.with_columns(timestamp=pl.lit(0, pl.Int64))
        # Ids come last: a text in a row that is dropped makes no texts of all.
        rows = self.ids(self.ids(rows, "user"), "item")
        return rows.select(NO_RATINGS.columns)

    def movies(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows of text with sound ids, as `ids` does."""
        return self.ids(self._without_headers(rows), "item")

    def _without_headers(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows but for the header where it comes again, as in files that were put together."""
        if not self._layout.header:
            return rows
        names = (pl.col(role) == self._layout.name_of(role) for role in self._layout.columns)
        again = rows.select(pl.all_horizontal(names)).to_series()
        return self._keep(rows, "item", ~again, "the header again") if again.any() else rows

    def ids(self, rows: pl.DataFrame, role: Role) -> pl.DataFrame:
        """The ids of a column: int64, or text where the layout allows it and not all are integers."""
        numbers = rows[role].cast(pl.Int64, strict=False)
        whole_only = self._layout.whole_ids
        regular = not numbers.null_count() and _least(numbers) >= 0
        if regular and (whole_only or not _has_leading_zero(rows[role])):
            return rows.with_columns(numbers)
        rows = rows.with_columns(rows[role].str.strip_chars())
        if not whole_only:
            what = f"{self._layout.name_of(role)} is missing"
            rows = self._keep(rows, role, ~rows[role].is_in(MISSING), what)
        whole = rows[role].str.extract(_WHOLE)
        numbers = whole.cast(pl.Int64, strict=False)
        if whole_only:
            what = f"{self._layout.name_of(role)} is not an integer from 0 to {LARGEST_ID}"
            allowed = numbers.is_not_null()
            rows, whole, numbers = (
                self._keep(rows, role, allowed, what),
                whole.filter(allowed),
                numbers.filter(allowed),
            )
        written = rows[role].str.contains(".", literal=True) & whole.is_not_null()
        self._tell(
            "converted", rows.filter(written), role, f"{self._layout.name_of(role)} with decimals"
        )
        if numbers.null_count() or (not whole_only and _has_leading_zero(rows[role])):
            return rows.with_columns(whole.fill_null(rows[role]).alias(role))
        return rows.with_columns(numbers.alias(role))

    def _ratings(self, rows: pl.DataFrame, scale: Scale | None) -> pl.DataFrame:
        numbers = rows["rating"].cast(pl.Float32, strict=False)
        if numbers.null_count():
            text = rows["rating"].str.strip_chars()
            with_comma = text.str.contains(_DECIMAL_COMMA)
            numbers = text.str.replace(_DECIMAL_COMMA, "$1.$2").cast(pl.Float32, strict=False)
            name = self._layout.name_of("rating")
            self._tell("converted", rows.filter(with_comma), "rating", f"{name} with a decimal comma")
        allowed = numbers.is_finite().fill_null(value=False)
        what = "not a finite number"
        if scale:
            low, high = scale
            allowed &= numbers.is_between(low, high).fill_null(value=False)
            what = f"not a number from {low:g} to {high:g}"
        if allowed.all():
            return rows.with_columns(numbers)
        kept = self._keep(rows, "rating", allowed, f"{self._layout.name_of('rating')} is {what}")
        return kept.with_columns(numbers.filter(allowed))

    def _timestamps(self, rows: pl.DataFrame) -> pl.DataFrame:
        numbers = rows["timestamp"].cast(pl.Int64, strict=False)
        seconds = numbers.is_between(0, _LATEST) & ~numbers.is_between(*_COMPACT)
        if seconds.fill_null(value=False).all():
            return rows.with_columns(numbers)
        text = rows["timestamp"].str.strip_chars()
        decimal = text.cast(pl.Float64, strict=False)
        representable = decimal.is_between(-(2.0**63), 2.0**63, closed="left")
        decimal = decimal.set(~representable, None).floor().cast(pl.Int64)
        numbers = text.cast(pl.Int64, strict=False).fill_null(decimal)
        of_dates = _seconds_of_compact(numbers)
        others = numbers.is_null()
        of_dates = of_dates.scatter(others.arg_true(), _seconds_of_dates(text.filter(others)))
        seconds = of_dates.fill_null(numbers)
        written = {"is a date": of_dates.is_not_null()}
        for unit, (least, per_second) in _FROM.items():
            of_unit = (seconds == numbers) & (numbers >= least)  # or it is of a larger one
            of_unit = of_unit.fill_null(value=False) & of_dates.is_null()
            seconds = (numbers // per_second).zip_with(of_unit, seconds)
            written[f"in {unit}"] = of_unit
        name = self._layout.name_of("timestamp")
        faults = {
            "is neither seconds since 1970 nor a date like 2001-12-31 23:59:59": seconds.is_null(),
            "is before 1970": seconds < 0,
            "is after the year 2100": seconds > _LATEST,
        }
        for what, at_fault in faults.items():
            self._tell("dropped", rows.filter(at_fault), "timestamp", f"{name} {what}")
        allowed = seconds.is_between(0, _LATEST).fill_null(value=False)
        for what, converted in written.items():
            self._tell("converted", rows.filter(converted & allowed), "timestamp", f"{name} {what}")
        return rows.with_columns(seconds.alias("timestamp")).filter(allowed)

    def _keep(self, rows: pl.DataFrame, role: Role, allowed: pl.Series, what: str) -> pl.DataFrame:
        self._tell("dropped", rows.filter(~allowed), role, what)
        return rows.filter(allowed)

    def _tell(self, deed: Deed, rows: pl.DataFrame, role: Role, what: str) -> None:
        self._findings.add(deed, self._file, what, rows[LINE], rows[role])


def _least(numbers: pl.Series) -> int:
    return int(numbers.min() or 0)  # type: ignore[arg-type]


def _has_leading_zero(text: pl.Series) -> bool:
    return bool(text.str.contains(r"^\s*\+?0[0-9]").any())


def _seconds_of_compact(numbers: pl.Series) -> pl.Series:
    """Seconds since 1970 of dates like 20011231: int64, null for other numbers."""
    text = numbers.set(~numbers.is_between(*_COMPACT), None).cast(pl.String)
    return text.str.to_datetime("%Y%m%d", strict=False, time_unit="ms").dt.epoch("s")


def _seconds_of_dates(text: pl.Series) -> pl.Series:
    """Seconds since 1970 of ISO dates and times, UTC where they do not say: int64, null for others."""
    plain = text
    for pattern, in_full in _IN_FULL.items():
        plain = plain.str.replace(pattern, in_full)
    seconds = pl.Series([None], dtype=pl.Int64).new_from_index(0, len(text))
    for form in _DATES:
        left = seconds.is_null()
        parsed = plain.filter(left).str.to_datetime(form, strict=False, time_unit="ms")
        seconds = seconds.scatter(left.arg_true(), parsed.dt.epoch("s"))
    return seconds
