"""The rows of a file as text, with the lines they stand on, block by block.

A block is parsed as a whole, fast. One that is not wholly regular is halved until what is irregular is
small, and that is walked line by line.
"""

from __future__ import annotations

import csv
import io
import re
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from typing import Final

import polars as pl

from training.findings import Findings
from training.layouts import Layout, Table, rows_start
from training.parquet import is_parquet, parquet_rows
from training.sources import decoded

LINE: Final = "line"
PART: Final = "part"
"""Which of several files of one kind a row is from, by its number from 0."""
_BLOCK: Final = 8 << 20
_WALKED: Final = 1 << 16
_MOST_OPEN: Final = 4 * _BLOCK
_ROWS_OF_PARQUET: Final = 500_000
_FIELD: Final = b"\x1f"
"""Stands in for a separator of several bytes: no text holds it."""
_OPEN: Final = "unexpected end of data"
"""What Python says of a quote that a later line might close."""
_MOST_LINES: Final = 100
"""How many more lines a quoted field may go over; a quote open for longer is a mere character."""

_SURPLUS: Final = "a separator inside the title, which is not quoted: the title is whole again"
_SURPLUS_GENRES: Final = "separators between the genres, which are not quoted: they are together again"
_SHORT: Final = "the line is cut short: what is missing is left empty"
_LATIN_1: Final = "not in UTF-8: read as Latin-1"
_TITLE_ENDS: Final = r"\([0-9]{4}\)\s*$"
_OPEN_QUOTE: Final = "a quote that is not closed: taken as an ordinary character"


def read_rows(table: Table, findings: Findings, *, block: int = _BLOCK) -> Iterator[pl.DataFrame]:
    """Some rows after the other: the columns of the layout by role, as text, and `line`, uint32.

    Lines are counted from 1; the rows of Parquet are, where lines are asked for. Blank lines are left
    out. A row of ratings with another number of fields than the header is dropped; one of movies is
    repaired. Lines that are no UTF-8 are taken as Latin-1, and that is noted.
    Raises DataError where the file is damaged.
    """
    if is_parquet(table.source):
        return _parquet_rows(table)
    return _text_rows(table, findings, block)


def _parquet_rows(table: Table) -> Iterator[pl.DataFrame]:
    layout, first = table.layout, 1
    names = {layout.names[place]: role for role, place in layout.columns.items()}
    times = [name for name, role in names.items() if role == "timestamp"]
    for rows in parquet_rows(
        table.source, list(names), layout.genre_separator, _ROWS_OF_PARQUET, times=times
    ):
        yield rows.rename(names).with_columns(_numbered(first, rows.height))
        first += rows.height


def _text_rows(table: Table, findings: Findings, size: int) -> Iterator[pl.DataFrame]:
    layout, line, name = table.layout, 1, table.source.name
    for number, content in enumerate(_whole_lines(table, size)):
        text, others = decoded(content)
        if others:
            lines = text.split("\n")
            shown = [lines[place] for place in others]
            findings.add("noted", name, _LATIN_1, [line + place for place in others], shown)
        start = 0
        if layout.header and not number:
            start = rows_start(text)
            before = [each for each in text[:start].splitlines()[:-1] if each.strip()]
            findings.note(name, "lines before the header: left out", len(before))
        first = line + text.count("\n", 0, start)
        yield from _rows_of(table, findings, text[start:], first)
        line = first + text.count("\n", start)


def _rows_of(table: Table, findings: Findings, text: str, first: int) -> Iterator[pl.DataFrame]:
    layout = table.layout
    rows = _parse(layout, text.encode(), first) if layout.of_ratings else None
    if rows is not None:
        yield rows
        return
    half = text.find("\n", len(text) // 2) + 1
    within_quotes = layout.quoted and text.count('"', 0, half) % 2
    if layout.of_movies or len(text) <= _WALKED or half in {0, len(text)} or within_quotes:
        yield _walk(table, findings, text, first)
        return
    yield from _rows_of(table, findings, text[:half], first)
    yield from _rows_of(table, findings, text[half:], first + text.count("\n", 0, half))


def _whole_lines(table: Table, size: int) -> Iterator[bytes]:
    """The content in blocks that end with a line, and not within a quoted field."""
    kept = b""
    head = table.source.head()
    by_returns_alone = b"\r" in head and b"\n" not in head  # as spreadsheets once did on Macs
    for number, block in enumerate(table.source.blocks(size, f"reading {table.source.name}")):
        read = block.replace(b"\r", b"\n") if by_returns_alone else block
        content = kept + (read if number else read.removeprefix(BOM_UTF8))
        end = content.rfind(b"\n") + 1
        if table.layout.quoted and content.count(b'"', 0, end) % 2 and len(content) < _MOST_OPEN:
            end = content.rfind(b"\n", 0, content.rfind(b'"', 0, end)) + 1
        kept = content[end:]
        if end:
            yield _with_newlines(content[:end])
    if kept.strip():
        yield _with_newlines(kept).rstrip(b"\n") + b"\n"


def _with_newlines(content: bytes) -> bytes:
    """With every line ended in the same way."""
    content = content.replace(b"\r\n", b"\n")
    return re.sub(rb"\r+\n?", b"\n", content) if b"\r" in content else content


def _parse(layout: Layout, text: bytes, first: int) -> pl.DataFrame | None:
    """The rows of a regular block, one a line and each with all its fields; None where it is not."""
    separator = layout.separator.encode()
    if len(separator) > 1:
        text = text.replace(separator, _FIELD)
        separator = _FIELD
    lines, width = text.count(b"\n"), len(layout.names)
    if not lines or text.count(separator) != lines * (width - 1):
        return None
    if layout.quoted and separator + b' "' in text:  # the quotes would be taken for part of the value
        return None
    try:
        rows = pl.read_csv(
            text,
            has_header=False,
            separator=separator.decode(),
            quote_char='"' if layout.quoted else None,
            infer_schema=False,
        )
    except pl.exceptions.PolarsError:
        return None
    if rows.shape != (lines, width):
        return None
    return rows.select(
        *(pl.nth(place).fill_null("").alias(role) for role, place in layout.columns.items()),
        _numbered(first, lines),
    )


def _walk(table: Table, findings: Findings, text: str, first: int) -> pl.DataFrame:
    """The rows of any block, with what is wrong about their form told."""
    layout = table.layout
    wanted: list[list[str]] = []
    numbers: list[int] = []
    for line, read, closed in _split(layout, text, first):
        fields = read
        if not closed:
            findings.add(
                "repaired", table.source.name, _OPEN_QUOTE, [line], [layout.separator.join(read)]
            )
        if len(fields) != len(layout.names):
            if layout.of_ratings:
                what = f"another number of fields than {len(layout.names)}"
                findings.add("dropped", table.source.name, what, [line], [len(fields)])
                continue
            fields, what = _mended(layout, read)
            findings.add("repaired", table.source.name, what, [line], [layout.separator.join(read)])
        wanted.append([fields[place] for place in layout.columns.values()] + _flagged(layout, fields))
        numbers.append(line)
    names = [*layout.columns, *(["genres"] if layout.genre_flags else [])]
    rows = pl.DataFrame(wanted, schema=dict.fromkeys(names, pl.String), orient="row")
    return rows.with_columns(pl.Series(LINE, numbers, dtype=pl.UInt32))


def _split(layout: Layout, text: str, first: int) -> Iterator[tuple[int, list[str], bool]]:
    """Each row's line, its fields, and whether every quote in it is closed; blank lines left out."""
    lines = text.split("\n")[:-1]
    place = 0
    while place < len(lines):
        start, line = place, lines[place]
        place += 1
        if not line.strip():
            continue
        if not layout.quoted or '"' not in line:
            yield first + start, line.split(layout.separator), True
            continue
        stop, fields = _unquoted(lines, start, layout)
        place = max(place, stop)
        yield first + start, fields or line.split(layout.separator), bool(fields)


def _unquoted(lines: Sequence[str], start: int, layout: Layout) -> tuple[int, list[str]]:
    """Where the row of CSV that begins at a line stops, and its fields; none where no quote closes it.

    A row over several lines has as many fields as there should be, or the quote is not its own.
    """
    for stop in range(start + 1, min(start + _MOST_LINES, len(lines)) + 1):
        row = io.StringIO("\n".join(lines[start:stop]), newline="")
        try:
            reader = csv.reader(row, delimiter=layout.separator, skipinitialspace=True, strict=True)
            rows = list(reader)
        except csv.Error as error:
            if _OPEN not in str(error):
                break
            continue
        if len(rows) == 1 and (stop == start + 1 or len(rows[0]) == len(layout.names)):
            return stop, rows[0]
        break
    return start, []


def _mended(layout: Layout, fields: Sequence[str]) -> tuple[list[str], str]:
    """A movie's fields, as many as there should be, and what was wrong.

    The surplus goes to the title, if there is one; where it ends before, by a year, to the genres.
    """
    width = len(layout.names)
    surplus = len(fields) - width
    if surplus < 0:
        return [*fields, *[""] * -surplus], _SHORT
    title = layout.columns.get("title", width - 1)
    after = title + surplus + 1
    ends = [place + 1 for place in range(title, after) if re.search(_TITLE_ENDS, fields[place])]
    if ends and ends[-1] < after and layout.columns.get("genres") == title + 1:
        whole = layout.separator.join(fields[title : ends[-1]])
        genres = layout.genre_separator.join(fields[ends[-1] : after + 1])
        return [*fields[:title], whole, genres, *fields[after + 1 :]], _SURPLUS_GENRES
    whole = layout.separator.join(fields[title:after])
    return [*fields[:title], whole, *fields[after:]], _SURPLUS


def _flagged(layout: Layout, fields: Sequence[str]) -> list[str]:
    """The genres that a movie's flags say, as one field; no field where the format has no flags."""
    if not layout.genre_flags:
        return []
    flags = fields[-len(layout.genre_flags) :]
    named = zip(layout.genre_flags, flags, strict=True)
    return [layout.genre_separator.join(genre for genre, flag in named if flag.strip() == "1")]


def _numbered(first: int, rows: int) -> pl.Series:
    """The numbers of consecutive lines."""
    return pl.int_range(first, first + rows, dtype=pl.UInt32, eager=True).alias(LINE)
