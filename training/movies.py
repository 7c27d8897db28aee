"""The table of movies: titles, years and genres as they are written, one row for each movie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from training.findings import Findings
from training.layouts import Table
from training.rows import LINE, PART, read_rows
from training.values import Checker

# (1995), (1975-1979), (2007-), (2018 and (1995) (V) for what went to video: the year of all of these.
_FINAL_YEAR: Final = r"\s*\(([0-9]{4})(?:[-\u2013](?:[0-9]{4})?)?(?:\)(?:\s*\([A-Z]{1,3}\))?)?$"
_ANY_YEAR: Final = r"\b((?:18|19|20|21)[0-9]{2})\b"
_NO_GENRE: Final = ("", "(no genres listed)", "unknown")


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
    rows = Checker(table, findings).ids(text, "item")
    return _cleaned(rows, table.layout.genre_separator).with_columns(
        rows[LINE], pl.lit(number, pl.UInt16).alias(PART)
    )


def _cleaned(rows: pl.DataFrame, genre_separator: str) -> pl.DataFrame:
    missing = [name for name in ("title", "year", "genres") if name not in rows.columns]
    rows = rows.with_columns(pl.lit("").alias(name) for name in missing)
    full_title = pl.col("title").str.strip_chars()
    title = full_title.str.replace(_FINAL_YEAR, "")
    year = pl.coalesce(full_title.str.extract(_FINAL_YEAR), pl.col("year").str.extract(_ANY_YEAR))
    genre = pl.element().str.strip_chars()
    genres = pl.col("genres").str.split(genre_separator).list.eval(genre.filter(~genre.is_in(_NO_GENRE)))
    return rows.select(
        "item",
        pl.when(title == "").then(full_title).otherwise(title).alias("title"),
        year.cast(pl.Int16).alias("year"),
        genres.list.unique(maintain_order=True).alias("genres"),
    )


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
