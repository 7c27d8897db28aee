"""Which files of a data set are read: that of the ratings, or all its parts, and that of the movies."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Literal

from training.layouts import Columns, Table, lacking, passed_over, recognise
from training.sources import Source
from twotower.errors import DataError

_MOST_SHOWN: Final = 300
_MOST_OF_LINE: Final = 60
_USUAL_NAMES: Final = frozenset(
    {"ratings.csv", "movies.csv", "ratings.dat", "movies.dat", "u.data", "u.item"}
)
"""Which of several files is meant, such as u.data beside its own parts u1.base and u1.test."""
_WORKBOOK: Final = "[Content_Types].xml"
_ARCHIVE: Final = "an archive: unpack it"
_PACKED: Final[Mapping[bytes, str]] = {
    b"PK\x03\x04": "an archive or a workbook: unpack it, or save its sheet as CSV",
    **dict.fromkeys(
        (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf", b"Rar!"), _ARCHIVE
    ),
}
"""What a file is that cannot be looked into, by how it begins."""

Holds = Literal["ratings", "movies"]


@dataclass(frozen=True)
class Note:
    """What is no fault, but good to know: of which file, and how many files it is about."""

    file: str
    what: str
    count: int = 1


@dataclass(frozen=True)
class Chosen:
    """The files that are read: of ratings at least one, of movies perhaps none; parts in their order."""

    ratings: tuple[Table, ...]
    movies: tuple[Table, ...]
    notes: tuple[Note, ...]


def find_tables(path: Path, sources: Sequence[Source], columns: Columns) -> Chosen:
    """Find the file of ratings, and that of movies beside it; either may be in several parts.

    Parts lie in one folder, and are called alike but for numbers. Raises DataError where no file holds
    ratings; where several do that are no parts, and none is the usual one; where parts do not have the
    same columns, or one has none that are known; and where no column is called as the user says.
    """
    layouts = {source: recognise(source, columns) for source in sources}
    tables = [Table(source, layout) for source, layout in layouts.items() if layout]
    of_ratings = [table for table in tables if table.layout.of_ratings]
    if not of_ratings:
        alone = _listed(table.source.name for table in tables)
        raise DataError(
            _without_ratings(path, sources) + (f"; {alone} holds movies alone" if tables else "")
        )
    ratings = _preferred(path, "ratings", of_ratings)
    of_movies = [table for table in tables if table.layout.of_movies]
    movies = _preferred(path, "movies", _beside(ratings, of_ratings, of_movies))
    chosen = (*ratings, *movies)
    unknown = [source for source, layout in layouts.items() if not layout]
    _check_complete(path, chosen, unknown)
    _check_named(columns, chosen)
    like_chosen = [table for table in of_ratings if _rated(table) == _rated(ratings[0])]
    aside = [table.source for table in (*like_chosen, *of_movies) if table not in chosen]
    notes = (*_ambiguous(chosen, columns), *_left_aside(aside, filter(_is_usual, unknown)))
    return Chosen(ratings, movies, notes)


def _ambiguous(tables: Sequence[Table], columns: Columns) -> list[Note]:
    return [
        Note(table.source.name, what)
        for table in tables
        for what in (*passed_over(table.layout, columns), lacking(table.layout))
        if what
    ]


def _left_aside(tables: Sequence[Source], unknown: Iterable[Source]) -> list[Note]:
    what = "neither ratings nor movies are found in it: left aside"
    notes = [Note(source.name, what) for source in unknown]
    if tables:
        listed = _listed(str(source.path) for source in tables)
        notes.append(Note(listed, "left aside, though ratings or movies are in it", len(tables)))
    return notes


def _rated(table: Table) -> bool:
    return "rating" in table.layout.columns


def _is_usual(source: Source) -> bool:
    return source.path.name.removesuffix(".gz") in _USUAL_NAMES


def _beside(
    ratings: Sequence[Table], of_ratings: Sequence[Table], of_movies: Sequence[Table]
) -> Sequence[Table]:
    """The files of movies in the folder of the ratings: movies of one data set are not another's.

    Where ratings are in parts that are all there is in a folder, movies may be in another one.
    """
    folder = ratings[0].source.path.parent
    beside = [table for table in of_movies if table.source.path.parent == folder]
    elsewhere = any(table.source.path.parent != folder for table in of_ratings)
    return beside if beside or elsewhere or len(ratings) == 1 else of_movies


def _preferred(path: Path, holds: Holds, tables: Sequence[Table]) -> tuple[Table, ...]:
    """Ratings before mere likes, the top before the folders below, usual names before others."""

    def rank(table: Table) -> tuple[bool, int, bool]:
        unrated = holds == "ratings" and not _rated(table)
        return unrated, len(table.source.path.parts), not _is_usual(table.source)

    best = [table for table in tables if rank(table) == min(map(rank, tables))]
    if len({_but_for_numbers(table.source.path) for table in best}) > 1:
        found = _listed(str(table.source.path) for table in best)
        raise DataError(
            f"{path} holds several files of {holds}, {found}: leave just one of them, or name them as "
            f"parts of one, {holds}_1.csv, {holds}_2.csv and so on"
        )
    parts = sorted(best, key=lambda table: _numbers(table.source.path))
    for part in parts[1:]:
        _check_alike(path, parts[0], part)
    return tuple(parts)


def _but_for_numbers(place: PurePosixPath) -> tuple[PurePosixPath, str]:
    return place.parent, re.sub(r"[0-9]+", "0", place.name)


def _numbers(place: PurePosixPath) -> list[int]:
    return [int(number) for number in re.findall(r"[0-9]+", place.name)]


def _check_alike(path: Path, first: Table, other: Table) -> None:
    if first.layout.format == other.layout.format and first.layout.columns.keys() == (
        other.layout.columns.keys()
    ):
        return
    told = " and ".join(
        f"{table.source.name} ({table.layout.format}: {', '.join(sorted(table.layout.columns))})"
        for table in (first, other)
    )
    raise DataError(f"{path} holds {told}: parts must have the same columns; leave just one of them")


def _check_complete(path: Path, chosen: Sequence[Table], unknown: Sequence[Source]) -> None:
    """Raise DataError for a file that is called like a part, and has no columns to read it by."""
    parts = {_but_for_numbers(table.source.path): table.source for table in reversed(chosen)}
    for source in unknown:
        part = parts.get(_but_for_numbers(source.path))
        if part and source.head().strip():
            raise DataError(
                f"{path} holds {source.path}, which is called like a part of {part.path}, but has not "
                "its columns: give it the same header, or leave it out"
            )


def _check_named(columns: Columns, tables: Sequence[Table]) -> None:
    """Raise DataError for a name that the user gives and no file has."""
    for role, own in columns.items():
        named = {table.layout.name_of(role).strip() for table in tables if role in table.layout.columns}
        if not named & {own, own.partition(":")[0]}:
            there = _listed(
                f"{name!r} in {table.source.name}" for table in tables for name in table.layout.names
            )
            raise DataError(f"--columns {role}={own}: no column is called so, there are {there}")


def _without_ratings(path: Path, sources: Sequence[Source]) -> str:
    if any(source.path.name == _WORKBOOK for source in sources):
        return f"{path} is a workbook: save its sheet as CSV"
    return (
        f"{path} holds {_listed(map(_described, sources))}: needed is a file with a user, an item and "
        "mostly a rating on each line, with columns such as userId, movieId, rating, timestamp, or "
        "named by --columns (by their numbers where there is no header)"
    )


def _described(source: Source) -> str:
    """A file and how it begins."""
    head = source.head()
    packed = next((kind for magic, kind in _PACKED.items() if head.startswith(magic)), None)
    if packed:
        return f"{source.path} ({packed})"
    if b"\0" in head:
        return f"{source.path} (no text)"
    lines = [line for line in head.decode("utf-8-sig", errors="replace").splitlines() if line.strip()]
    return f"{source.path} ({lines[0][:_MOST_OF_LINE]!r})" if lines else f"{source.path} (empty)"


def _listed(names: Iterable[str]) -> str:
    text = ", ".join(names) or "nothing"
    return text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "..."
