"""The table of movies: titles, years and genres as they are written, one row for each movie."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import polars as pl

from training.findings import Findings
from training.layouts import Table
from training.rows import LINE, PART, read_rows
from training.values import MISSING, Checker

_DIGIT: Final = r"[0-9\x{FF10}-\x{FF19}]"  # also as wide as the signs of East Asia
_YEAR: Final = rf"((?:[1\x{{FF11}}]{_DIGIT}|[2\x{{FF12}}][01\x{{FF10}}\x{{FF11}}]){_DIGIT}{{2}})"
# (1995), (1975-1979), (2007- ), (2018, (2004/II), and (1995) (V) for what went to video; other remarks
# may follow, and stay in the title.
_FINAL_YEAR: Final = (
    rf"\s*[(\x{{FF08}}]\s*{_YEAR}(?:/[IVX]+)?(?:\s*[-\u2010-\u2015/]\s*(?:{_DIGIT}{{2,4}}|present)?)?\s*"
    r"(?:[)\x{FF09}](?:\s*\([A-Z]{1,3}\))*((?:\s*\([^()0-9]+\))*))?$"
)
_ANY_YEAR: Final = rf"(?:^|[^0-9]){_YEAR}(?:[01][0-9][0-3][0-9])?(?:[^0-9]|$)"
_NO_GENRE: Final = ("", "(no genres listed)", "no genres listed", "unknown", *map(str.lower, MISSING))
_OTHER_SEPARATORS: Final = (";", ",", " / ")
_UNIT: Final = "\x1f"  # no text holds it
_LIST: Final = r"(?s)^\s*\[.*\]\s*$"
_QUOTED: Final = r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)\""""
_NAMED: Final = rf"""['"]name['"]\s*:\s*(?:{_QUOTED})"""
_ESCAPED: Final = r"\\(?:u([0-9a-fA-F]{4})|(.))"


def read_movies(tables: Sequence[Table], findings: Findings) -> pl.DataFrame:
    """The movies in the order of the file, or of its parts, each once.

    item: int64, or text where the layout allows it and not all ids are integers; title: text without the
    year; year: int16, null where there is none; genres: lists of text; part: uint16. Raises DataError as
    `read_rows`.
    """
    parts = [_read_part(table, number, findings) for number, table in enumerate(tables)]
    textual = any(part["item"].dtype == pl.String for part in parts)
    items = pl.col("item").cast(pl.String if textual else pl.Int64)
    rows = pl.concat([part.with_columns(items) for part in parts])
    repeated = ~rows["item"].is_first_distinct()
    again = rows.filter(repeated)
    for number, table in enumerate(tables):
        of_part = again.filter(pl.col(PART) == number)
        what = f"{table.layout.name_of('item')} is on an earlier line already"
        findings.add("dropped", table.source.name, what, of_part[LINE], of_part["item"])
    findings.check()
    return rows.filter(~repeated).drop(LINE)


def _read_part(table: Table, number: int, findings: Findings) -> pl.DataFrame:
    """The movies of one file, with the lines they stand on."""
    text = pl.concat(list(read_rows(table, findings)) or [pl.DataFrame()])
    if not text.height:
        return _EMPTY
    rows = Checker(table, findings).movies(text)
    missing = [name for name in ("title", "year", "genres") if name not in rows.columns]
    rows = rows.with_columns(pl.lit("").alias(name) for name in missing)
    return _titled(rows).select(
        "item",
        "title",
        _years(rows, table, findings),
        _genres(rows["genres"], table, findings),
        LINE,
        pl.lit(number, pl.UInt16).alias(PART),
    )


def _titled(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows, their titles without the years."""
    full = pl.col("title").str.strip_chars()
    title = full.str.replace(_FINAL_YEAR, "$2").str.strip_chars()
    return rows.with_columns(pl.when(title == "").then(full).otherwise(title).alias("title"))


def _years(rows: pl.DataFrame, table: Table, findings: Findings) -> pl.Series:
    """The last year in each title, or else what the column of years says: int16, null for none."""
    in_title = rows["title"].str.strip_chars().str.extract(_FINAL_YEAR)
    in_column = rows["year"].str.extract(_ANY_YEAR)
    years = in_title.fill_null(in_column).str.normalize("NFKC").cast(pl.Int16)
    unread = rows.filter(years.is_null() & ~rows["year"].str.strip_chars().is_in(MISSING))
    if unread.height:
        what = f"no year from 1000 to 2199 is in {table.layout.name_of('year')}: left empty"
        findings.add("noted", table.source.name, what, unread[LINE], unread["year"])
    return years.alias("year")


def _genres(written: pl.Series, table: Table, findings: Findings) -> pl.Series:
    """Each movie's genres: lists of text."""
    listed = written.str.contains(_LIST)
    separator = _separator(written.filter(~listed), table, findings)
    genres = written.str.replace_all(separator, _UNIT, literal=True)
    if listed.any():
        findings.note(table.source.name, "genres written as [lists]: read one by one", int(listed.sum()))
        joined = [_UNIT.join(_members(text)) for text in written.filter(listed)]
        genres = genres.scatter(listed.arg_true(), joined)
    genre = pl.element().str.strip_chars()
    some = genre.filter(~genre.str.to_lowercase().is_in(_NO_GENRE))
    return genres.str.split(_UNIT).list.eval(some).list.unique(maintain_order=True).alias("genres")


def _separator(written: pl.Series, table: Table, findings: Findings) -> str:
    """What is between genres: what the layout says, or, where no movie has it, another one."""
    usual = table.layout.genre_separator
    holding = {
        each: int(written.str.contains(each, literal=True).sum()) for each in (usual, *_OTHER_SEPARATORS)
    }
    separator = next((each for each, movies in holding.items() if movies), usual)
    if separator != usual:
        what = f"genres are separated by {separator!r}"
        findings.note(table.source.name, what, holding[separator])
    return separator


def _members(text: str) -> list[str]:
    """What a list holds that Python, NumPy or JSON wrote: texts, or objects with names."""
    found = re.findall(_NAMED, text) or re.findall(_QUOTED, text)
    if not found:
        return text.strip().strip("[]").split(",")
    return [re.sub(_ESCAPED, _unescaped, single or double) for single, double in found]


def _unescaped(escaped: re.Match[str]) -> str:
    return chr(int(escaped[1], 16)) if escaped[1] else escaped[2]


_EMPTY: Final = pl.DataFrame(
    schema={
        "item": pl.Int64,
        "title": pl.String,
        "year": pl.Int16,
        "genres": pl.List(pl.String),
        LINE: pl.UInt32,
        PART: pl.UInt16,
    }
)
