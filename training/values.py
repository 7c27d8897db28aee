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
_MISSING: Final = ("", "NA", "N/A", "<NA>", "nan", "NaN", "null", "NULL", "None")
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
_DATES: Final = ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f%#z")


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
        rows = self.ids(self.ids(rows, "user"), "item")
        if "rating" in rows.columns:
            rows = self._ratings(rows, scale)
        else:
            rows = rows.with_columns(rating=pl.lit(LIKE, pl.Float32))
        if "timestamp" in rows.columns:
            rows = self._timestamps(rows)
        else:
            rows = rows.with_columns(timestamp=pl.lit(0, pl.Int64))
        return rows.select(NO_RATINGS.columns)

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
            rows = self._keep(rows, role, ~rows[role].is_in(_MISSING), what)
        whole = rows[role].str.extract(_WHOLE)
        numbers = whole.cast(pl.Int64, strict=False)
        if whole_only:
            what = f"{self._layout.name_of(role)} is not an integer from 0 to {LARGEST_ID}"
            rows = self._keep(rows, role, numbers.is_not_null(), what)
            numbers = numbers.drop_nulls()
        written = rows[role].str.contains(".", literal=True) & numbers.is_not_null()
        self._tell(
            "converted", rows.filter(written), role, f"{self._layout.name_of(role)} with decimals"
        )
        if numbers.null_count() or (not whole_only and _has_leading_zero(rows[role])):
            return rows.with_columns(pl.when(written).then(whole).otherwise(pl.col(role)).alias(role))
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
        representable = decimal.is_between(0, 2.0**63, closed="left")
        decimal = decimal.set(~representable, None).cast(pl.Int64)
        numbers = text.cast(pl.Int64, strict=False).fill_null(decimal)
        compact = _seconds_of_compact(numbers)
        dates = numbers.is_null() | compact.is_not_null()
        numbers = compact.fill_null(numbers)
        written = numbers.is_null()
        numbers = numbers.scatter(written.arg_true(), _seconds_of_dates(text.filter(written)))
        allowed = (numbers >= 0).fill_null(value=False)
        name = self._layout.name_of("timestamp")
        what = f"{name} is neither seconds since 1970 nor a date like 2001-12-31 23:59:59"
        rows = self._keep(rows, "timestamp", allowed, what)
        numbers, dates = numbers.filter(allowed), dates.filter(allowed)
        self._tell("converted", rows.filter(dates), "timestamp", f"{name} is a date")
        seconds = numbers
        for unit, (least, per_second) in _FROM.items():
            of_unit = (seconds == numbers) & (numbers >= least)  # or it is of a larger one
            seconds = (numbers // per_second).zip_with(of_unit, seconds)
            self._tell("converted", rows.filter(of_unit), "timestamp", f"{name} in {unit}")
        allowed = seconds <= _LATEST
        rows = self._keep(rows, "timestamp", allowed, f"{name} is after the year 2100")
        return rows.with_columns(seconds.filter(allowed).alias("timestamp"))

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
    plain = text.str.replace(r"^([0-9]{4})/([0-9]{2})/([0-9]{2})", "$1-$2-$3")
    plain = plain.str.replace(r"^([0-9-]{10})T", "$1 ").str.replace("Z$", "+00:00")
    seconds = pl.Series([None], dtype=pl.Int64).new_from_index(0, len(text))
    for form in _DATES:
        left = seconds.is_null()
        parsed = plain.filter(left).str.to_datetime(form, strict=False, time_unit="ms")
        seconds = seconds.scatter(left.arg_true(), parsed.dt.epoch("s"))
    return seconds
