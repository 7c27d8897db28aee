"""Which file of a data set holds the ratings and which the movies, and how each is laid out."""

from __future__ import annotations

import csv
import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import dropwhile
from typing import Final, Literal

from training.parquet import is_parquet, parquet_columns
from training.sources import Source, decoded
from twotower.errors import DataError

Role = Literal["user", "item", "rating", "timestamp", "title", "genres", "year"]
Scale = tuple[float, float]

ROLES: Final[tuple[Role, ...]] = ("user", "item", "rating", "timestamp", "title", "genres", "year")
HALF_STARS: Final[Scale] = (0.5, 5.0)
_STARS: Final[Scale] = (1.0, 5.0)
_SEPARATORS: Final = (",", "\t", ";", "|")
_RECBOLE: Final = r"\w+:(?:token|token_seq|float|float_seq)"
_BEFORE_HEADER: Final = r"[^\S\n]*(?:#.*|sep=.\s*)?"
"""What may stand on lines before the header: nothing, a comment, or what spreadsheets are told."""
_UTF16_UNMARKED: Final = rb"(?:[\t -~]\0){8}|(?:\0[\t -~]){8}"
_LOOKED_AT: Final = 20
"""Lines of a file without a header by which it is recognised."""

_NAMES: Final[Mapping[Role, frozenset[str]]] = {
    "user": frozenset({"user", "userid"}),
    "item": frozenset({"item", "itemid", "movie", "movieid"}),
    "rating": frozenset({"rating"}),
    "timestamp": frozenset({"timestamp"}),
    "title": frozenset({"title", "movietitle"}),
    "genres": frozenset({"genres", "genre", "class"}),
    "year": frozenset({"year", "releaseyear", "releasedate"}),
}
"""What columns are called, in lower case and with nothing between words."""

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

Columns = Mapping[Role, str]
"""The user's own names of columns; numbers, from 1, for files without a header."""


@dataclass(frozen=True)
class Table:
    """A file and its layout."""

    source: Source
    layout: Layout = field(compare=False)


def recognise(source: Source, columns: Columns) -> Layout | None:
    """The layout of a file by how it begins, or None where it is none of ratings or movies."""
    head = source.head()
    layouts: list[Layout | None]
    if is_parquet(source):
        layouts = [_parquet(source, columns)]
    else:
        lines = _lines(source, head)
        layouts = _of_first_line(lines[0], columns) if lines else []
        layouts += [layout for pattern, layout in _WITHOUT_HEADER.items() if _most(lines, pattern)]
    return next((each for each in layouts if each and (each.of_ratings or each.of_movies)), None)


def _of_first_line(line: str, columns: Columns) -> list[Layout | None]:
    """As a header, and as a row of columns that are numbered; first as what it rather is."""
    header, numbered = _with_header(line, columns), _numbered(line, columns)
    if header and all(header.name_of(role).isdecimal() for role in header.columns):
        return [numbered, header]
    return [header, numbered]


def _lines(source: Source, head: bytes) -> list[str]:
    """The first lines that are not blank, from the header on."""
    if head.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) or re.match(_UTF16_UNMARKED, head):
        raise DataError(f"{source.within}: {source.path} is in UTF-16: save it in UTF-8")
    lines = decoded(head.removeprefix(BOM_UTF8))[0].splitlines()
    return list(dropwhile(re.compile(_BEFORE_HEADER).fullmatch, filter(str.strip, lines)))


def rows_start(text: str) -> int:
    """Where the rows of a text with a header begin."""
    header = re.match(rf"(?:{_BEFORE_HEADER}\n)*.*\n?", text)
    return header.end() if header else 0


def _most(lines: Sequence[str], pattern: str) -> bool:
    """Whether more than half of the first lines match: a few may be faulty."""
    looked_at = lines[:_LOOKED_AT]
    return 2 * sum(bool(re.fullmatch(pattern, line)) for line in looked_at) > len(looked_at)


def _with_header(line: str, columns: Columns) -> Layout | None:
    """The layout that a header tells, by the separator that tells most of its columns."""
    layouts = [
        _named([name.strip() for name in names], separator, columns)
        for separator in _SEPARATORS
        for names in csv.reader([line], delimiter=separator, skipinitialspace=True)
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
    """Where each role's column is: the one named by the user, or else the first of a usual name."""
    return {role: places[0] for role, places in _candidates(names, bare, columns).items()}


def _candidates(
    names: Sequence[str], bare: Sequence[str], columns: Columns
) -> Mapping[Role, Sequence[int]]:
    """The columns that may be meant, by role, in their order."""
    found: dict[Role, list[int]] = {}
    for place, (name, plain) in enumerate(zip(names, bare, strict=True)):
        usual = _usual(plain)
        for role in ROLES:
            own = columns.get(role)
            if own in (name.strip(), plain.strip()) or (own not in names and usual in _NAMES[role]):
                found.setdefault(role, []).append(place)
    return found


def _usual(name: str) -> str:
    """A name as `_NAMES` has it."""
    return re.sub(r"[\s_-]", "", name).lower()


def passed_over(layout: Layout, columns: Columns) -> list[str]:
    """Of roles that several columns may have, which one is read, in words."""
    if not layout.header and layout.separator:
        return []
    candidates = _candidates(layout.names, layout.names, columns)
    return [
        f"{role} is read from column {first + 1}, {layout.names[first]!r}, and not from "
        + " or ".join(f"column {place + 1}, {layout.names[place]!r}" for place in others)
        for role, (first, *others) in candidates.items()
        if others and layout.columns.get(role) == first
    ]


def lacking(layout: Layout) -> str:
    """Which columns there are not, though others are not read, in words."""
    if not layout.header and layout.separator:
        return ""
    wanted: tuple[Role, ...] = ("rating", "timestamp") if layout.of_ratings else ("title", "genres")
    missing = [role for role in wanted if role not in layout.columns]
    known = {layout.name_of(role) for role in layout.columns}.union(*_NAMES.values(), {""})
    unread = [repr(name) for name in layout.names if known.isdisjoint({name, _usual(name)})]
    if not missing or not unread:
        return ""
    return (
        f"no column is called {' or '.join(missing)}, and not read are {', '.join(unread)}: "
        "--columns says what they are"
    )


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
