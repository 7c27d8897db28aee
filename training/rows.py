"""The rows of a file as text, with the lines they stand on, block by block.

A block is parsed as a whole, fast. One that is not wholly regular is halved until what is irregular is
small, and that is walked line by line.
"""

from __future__ import annotations

import csv
import io
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from typing import Final

import polars as pl

from training.findings import Findings
from training.layouts import Layout, Table
from training.parquet import is_parquet, parquet_rows

LINE: Final = "line"
PART: Final = "part"
"""Which of several files of one kind a row is from, by its number from 0."""
_BLOCK: Final = 8 << 20
_WALKED: Final = 1 << 16
_MOST_OPEN: Final = 4 * _BLOCK
_ROWS_OF_PARQUET: Final = 500_000
_FIELD: Final = b"\x1f"
"""Stands in for a separator of several bytes: no text holds it."""
_MOST_LINES: Final = 5
"""How many more lines a quoted field may go over; a quote open for longer is a mere character."""

_SURPLUS: Final = "a separator inside the title, which is not quoted: the title is whole again"
_SHORT: Final = "the line is cut short: what is missing is left empty"
_OPEN_QUOTE: Final = "a quote that is not closed: taken as an ordinary character"


def read_rows(table: Table, findings: Findings, *, block: int = _BLOCK) -> Iterator[pl.DataFrame]:
    """Some rows after the other: the columns of the layout by role, as text, and `line`, uint32.

    Lines are counted from 1; the rows of Parquet are, where lines are asked for. Blank lines are left
    out. A row of ratings with another number of fields than the header is dropped; one of movies is
    repaired. Bytes that are no UTF-8 are taken as Latin-1 from there on, and that is noted.
    Raises DataError where the file is damaged.
    """
    if is_parquet(table.source):
        return _parquet_rows(table)
    return _text_rows(table, findings, block)


def _parquet_rows(table: Table) -> Iterator[pl.DataFrame]:
    layout, first = table.layout, 1
    names = {layout.names[place]: role for role, place in layout.columns.items()}
    for rows in parquet_rows(table.source, list(names), layout.genre_separator, _ROWS_OF_PARQUET):
        yield rows.rename(names).with_columns(_numbered(first, rows.height))
        first += rows.height


def _text_rows(table: Table, findings: Findings, size: int) -> Iterator[pl.DataFrame]:
    layout, line, encoding = table.layout, 1, "utf-8"
    for number, content in enumerate(_whole_lines(table, size)):
        if encoding == "utf-8" and not _is_utf8(content):
            encoding = "latin-1"
            findings.note(table.source.name, "not in UTF-8: read as Latin-1", 1)
        text = content.decode(encoding)
        start = 0
        if layout.header and not number:
            start = text.find("\n", len(text) - len(text.lstrip())) + 1
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
            yield content[:end].replace(b"\r\n", b"\n")
    if kept.strip():
        yield kept.replace(b"\r\n", b"\n").rstrip(b"\n") + b"\n"


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _parse(layout: Layout, text: bytes, first: int) -> pl.DataFrame | None:
    """The rows of a regular block, one a line and each with all its fields; None where it is not."""
    separator = layout.separator.encode()
    if len(separator) > 1:
        text = text.replace(separator, _FIELD)
        separator = _FIELD
    lines, width = text.count(b"\n"), len(layout.names)
    if not lines or text.count(separator) != lines * (width - 1):
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
            fields = _mended(layout, read)
            what = _SURPLUS if len(read) > len(fields) else _SHORT
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
        for stop in range(place, min(start + _MOST_LINES, len(lines)) + 1):
            fields = _unquoted("\n".join(lines[start:stop]), layout.separator)
            if fields:
                place = stop
                yield first + start, fields, True
                break
        else:
            yield first + start, line.split(layout.separator), False


def _unquoted(row: str, separator: str) -> list[str] | None:
    """The fields of a row of CSV, or None where its quotes do not close."""
    try:
        (fields,) = csv.reader(io.StringIO(row, newline=""), delimiter=separator, strict=True)
    except (csv.Error, ValueError):  # ValueError where there are several rows, or none
        return None
    return fields


def _mended(layout: Layout, fields: Sequence[str]) -> list[str]:
    """A movie's fields, as many as there should be: the surplus goes to the title, if there is one."""
    width = len(layout.names)
    surplus = len(fields) - width
    if surplus < 0:
        return [*fields, *[""] * -surplus]
    title = layout.columns.get("title", width - 1)
    whole = layout.separator.join(fields[title : title + surplus + 1])
    return [*fields[:title], whole, *fields[title + surplus + 1 :]]


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
