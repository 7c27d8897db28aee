"""Which file of a data set holds the ratings and which the movies, and how each is laid out."""

from __future__ import annotations

import csv
import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from training.parquet import is_parquet, parquet_columns
from training.sources import Source
from twotower.errors import DataError

Role = Literal["user", "item", "rating", "timestamp", "title", "genres", "year"]
Scale = tuple[float, float]

ROLES: Final[tuple[Role, ...]] = ("user", "item", "rating", "timestamp", "title", "genres", "year")
HALF_STARS: Final[Scale] = (0.5, 5.0)
_STARS: Final[Scale] = (1.0, 5.0)
_SEPARATORS: Final = (",", "\t", ";", "|")
_RECBOLE: Final = r"\w+:(?:token|token_seq|float|float_seq)"
_LOOKED_AT: Final = 20
"""Lines of a file without a header by which it is recognised."""
_MOST_SHOWN: Final = 300
_MOST_OF_LINE: Final = 60

_NAMES: Final[Mapping[Role, frozenset[str]]] = {
    "user": frozenset({"user", "userid"}),
    "item": frozenset({"item", "itemid", "movie", "movieid"}),
    "rating": frozenset({"rating"}),
    "timestamp": frozenset({"timestamp"}),
    "title": frozenset({"title", "movietitle"}),
    "genres": frozenset({"genres", "genre", "class"}),
    "year": frozenset({"year", "releaseyear"}),
}
"""What columns are called, in lower case and without underscores."""

_ML_100K_GENRES: Final = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary"),
    *("Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi"),
    *("Thriller", "War", "Western"),
)


@dataclass(frozen=True)
class Layout:
    """How a file is laid out.

    columns: the places of those that are read. names: what all columns are called. scale: what ratings
    may be, where the format says so. whole_ids: whether ids are always integers. genre_flags: what the
    last columns say, each 1 where the movie is of that genre.
    """

    format: str
    columns: Mapping[Role, int]
    separator: str
    names: tuple[str, ...]
    header: bool = False
    quoted: bool = False
    scale: Scale | None = None
    whole_ids: bool = False
    genre_separator: str = "|"
    genre_flags: tuple[str, ...] = ()

    def name_of(self, role: Role) -> str:
        """What the file calls a column that is read."""
        return self.names[self.columns[role]]

    @property
    def of_ratings(self) -> bool:
        """Whether it says who rated, or took, what."""
        return {"user", "item"} <= self.columns.keys()

    @property
    def of_movies(self) -> bool:
        """Whether it says what movies are."""
        return (
            "item" in self.columns
            and "user" not in self.columns
            and not self.columns.keys().isdisjoint({"title", "genres"})
        )


_NUMBER: Final = r"-?[0-9.]+"
_RATING: Final[Mapping[Role, int]] = {"user": 0, "item": 1, "rating": 2, "timestamp": 3}
_MOVIE: Final[Mapping[Role, int]] = {"item": 0, "title": 1, "genres": 2}

_WITHOUT_HEADER: Final[Mapping[str, Layout]] = {
    "::".join([_NUMBER] * 4): Layout(
        "MovieLens 1M or 10M", _RATING, "::", tuple(_RATING), scale=HALF_STARS, whole_ids=True
    ),
    r"[0-9]+::(?:(?!::).)*::(?:(?!::).)*": Layout(
        "MovieLens 1M or 10M", _MOVIE, "::", tuple(_MOVIE), whole_ids=True
    ),
    r"\t".join([_NUMBER] * 4): Layout(
        "MovieLens 100K", _RATING, "\t", tuple(_RATING), scale=_STARS, whole_ids=True
    ),
    r"[0-9]+(?:\|[^|]*){4}(?:\|[01]){19}": Layout(
        "MovieLens 100K",
        {"item": 0, "title": 1, "year": 2},
        "|",
        ("item", "title", "year", "video_release", "url", *_ML_100K_GENRES),
        whole_ids=True,
        genre_flags=_ML_100K_GENRES,
    ),
}
"""What the lines of a format without a header look like."""

_USUAL_NAMES: Final = frozenset(
    {"ratings.csv", "movies.csv", "ratings.dat", "movies.dat", "u.data", "u.item"}
)
"""Which of several files is meant, such as u.data beside its own parts u1.base and u1.test."""

Columns = Mapping[Role, str]
"""The user's own names of columns; numbers, from 1, for files without a header."""


@dataclass(frozen=True)
class Table:
    """A file and its layout."""

    source: Source
    layout: Layout = field(compare=False)


def find_tables(path: Path, sources: Sequence[Source], columns: Columns) -> tuple[Table, Table | None]:
    """The file of ratings, and the one of movies beside it, if there is one.

    Raises DataError where none holds ratings, or several do and none is the usual one.
    """
    layouts = {source: recognise(source, columns) for source in sources}
    tables = [Table(source, layout) for source, layout in layouts.items() if layout]
    ratings = _preferred(path, "ratings", [table for table in tables if table.layout.of_ratings])
    if ratings is None:
        found = _listed(_described(source) for source in sources)
        raise DataError(
            f"{path} holds {found}: needed is a file with a user, an item and mostly a rating on each "
            "line, with columns such as userId, movieId, rating, timestamp, or named by --columns"
        )
    beside = [
        table
        for table in tables
        if table.layout.of_movies and table.source.path.parent == ratings.source.path.parent
    ]
    return ratings, _preferred(path, "movies", beside)


def _preferred(path: Path, what: str, tables: Sequence[Table]) -> Table | None:
    """Ratings before mere likes, the top before the folders below, usual names before others."""

    def rank(table: Table) -> tuple[bool, int, bool]:
        unrated = what == "ratings" and "rating" not in table.layout.columns
        usual = table.source.name.removesuffix(".gz") in _USUAL_NAMES
        return unrated, len(table.source.path.parts), not usual

    best = sorted(tables, key=rank)
    if len(best) > 1 and rank(best[0]) == rank(best[1]):
        found = _listed(str(table.source.path) for table in best if rank(table) == rank(best[0]))
        raise DataError(f"{path} holds several files of {what}, {found}: leave just one of them")
    return best[0] if best else None


def recognise(source: Source, columns: Columns) -> Layout | None:
    """The layout of a file by how it begins, or None where it is none of ratings or movies."""
    head = source.head()
    layouts: list[Layout | None]
    if is_parquet(source):
        layouts = [_parquet(source, columns)]
    else:
        lines = _lines(source, head)
        layouts = [_with_header(lines[0], columns), _numbered(lines[0], columns)] if lines else []
        layouts += [layout for pattern, layout in _WITHOUT_HEADER.items() if _most(lines, pattern)]
    return next((each for each in layouts if each and (each.of_ratings or each.of_movies)), None)


def _lines(source: Source, head: bytes) -> list[str]:
    """The first lines that are not blank."""
    if head.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        raise DataError(f"{source.within}: {source.path} is in UTF-16: save it in UTF-8")
    text = head.removeprefix(BOM_UTF8).decode("utf-8", errors="replace")
    return [line for line in text.splitlines() if line.strip()]


def _most(lines: Sequence[str], pattern: str) -> bool:
    """Whether more than half of the first lines match: a few may be faulty."""
    looked_at = lines[:_LOOKED_AT]
    return 2 * sum(bool(re.fullmatch(pattern, line)) for line in looked_at) > len(looked_at)


def _with_header(line: str, columns: Columns) -> Layout | None:
    """The layout that a header tells, by the separator that tells most of its columns."""
    layouts = [
        _named(next(csv.reader([line], delimiter=separator)), separator, columns)
        for separator in _SEPARATORS
    ]
    best = max(layouts, key=lambda layout: len(layout.columns))
    return best if best.columns else None


def _named(names: Sequence[str], separator: str, columns: Columns) -> Layout:
    if all(re.fullmatch(_RECBOLE, name) for name in names):
        bare = [name.partition(":")[0] for name in names]
        found = _find_columns(names, bare, columns)
        # Its fields are never quoted, and its lists have spaces between.
        return Layout("RecBole", found, separator, tuple(bare), header=True, genre_separator=" ")
    found = _find_columns(names, names, columns)
    movielens = not columns and "movieId" in names
    return Layout(
        "MovieLens CSV" if movielens else "table",
        found,
        separator,
        tuple(names),
        header=True,
        quoted=True,
        scale=HALF_STARS if movielens else None,
        whole_ids=movielens,
    )


def _find_columns(names: Sequence[str], bare: Sequence[str], columns: Columns) -> dict[Role, int]:
    """Where each role's column is: the one named by the user, or else one of a usual name."""
    found: dict[Role, int] = {}
    for place, (name, plain) in enumerate(zip(names, bare, strict=True)):
        usual = plain.strip().lower().replace("_", "")
        for role in ROLES:
            own = columns.get(role)
            if own in (name.strip(), plain.strip()) or (own not in names and usual in _NAMES[role]):
                found.setdefault(role, place)
    return found


def _numbered(line: str, columns: Columns) -> Layout | None:
    """The layout of a file without a header whose columns the user has named by their numbers."""
    if not columns or not all(number.isdecimal() for number in columns.values()):
        return None
    separator = max(_SEPARATORS, key=line.count)
    names = [str(place) for place, _ in enumerate(line.split(separator), start=1)]
    found = {role: names.index(number) for role, number in columns.items() if number in names}
    return Layout("table", found, separator, tuple(names), quoted=True)


def _parquet(source: Source, columns: Columns) -> Layout:
    names = parquet_columns(source)
    return Layout("Parquet", _find_columns(names, names, columns), "", tuple(names))


def _described(source: Source) -> str:
    """A file and how it begins."""
    head = source.head()
    if is_parquet(source):
        return str(source.path)
    lines = _lines(source, head)
    return f"{source.path} ({lines[0][:_MOST_OF_LINE]!r})" if lines else f"{source.path} (empty)"


def _listed(names: Iterable[str]) -> str:
    text = ", ".join(names) or "nothing"
    return text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "..."
