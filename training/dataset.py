"""Reads ratings, and the movies they are about, from whatever people keep them in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import pandas as pd
import polars as pl

from training.findings import MOST_EXAMPLES, Finding, Findings
from training.layouts import Columns, Scale, Table
from training.movies import read_movies
from training.parts import find_tables
from training.rows import LINE, PART, read_rows
from training.sources import open_sources
from training.stars import span
from training.values import LIKE, NO_RATINGS, Checker
from twotower.errors import DataError

EMBEDDED: Path = Path(__file__).parent / "datasets" / "ml-latest-small.zip"
"""MovieLens ml-latest-small, edition of 2016. Its terms are in the LICENSE.md beside it."""

_LIKES: Final[Scale] = (LIKE, LIKE)
_HASHED: Final = 1 << 20
_NO_PARTS: Final = NO_RATINGS.with_columns(pl.lit(0, pl.UInt16).alias(PART))


@dataclass(frozen=True)
class FileRead:
    """A file that was read: what it holds, its format, its rows, and how many of them were kept.

    columns: what the file calls the columns that were read, by what they are here.
    """

    name: str
    holds: Literal["ratings", "movies"]
    format: str
    rows: int
    kept: int
    columns: Mapping[str, str]


@dataclass(frozen=True)
class Dataset:
    """Ratings and the movies they are about. Two are equal when their names and digests are.

    ratings, in the order of the file; a user rates a movie at most once:
        user_id    int64, one of users
        movie_id   int64, one of movies
        rating     float32, finite; `LIKE` where there are none
        timestamp  int64, seconds since 1970; 0 where there are none
    movies, in the order of movie_id:
        movie_id     int64, unique
        title        str, without the year; empty where the file has none
        year         Int16, the first of a range; NA where the title does not end in one
        genres       tuple[str, ...], in the order of the file; () where none are listed
        external_id  str, what the file calls it
    users, those with ratings, in the order of user_id:
        user_id      int64, unique
        external_id  str, what the file calls it
    Ids that are integers in the file stay what they are; others are numbered in alphabetical order.
    """

    name: str
    digest: str
    """SHA-256, in hex, of the bytes of the file of ratings (all its parts) followed by those of the
    movies' file, and by how they are read, where that was asked for."""
    ratings: pd.DataFrame = field(compare=False, repr=False)
    movies: pd.DataFrame = field(compare=False, repr=False)
    users: pd.DataFrame = field(compare=False, repr=False)
    allowed: Scale | None
    """The lowest and the highest rating allowed, where that is known."""
    timed: bool
    """Whether the file says when ratings were given."""
    rated: bool
    """Whether the file says how things were rated, or only that they were taken."""
    files: tuple[FileRead, ...] = field(compare=False, repr=False)
    findings: tuple[Finding, ...] = field(compare=False, repr=False)
    """What was dropped, repaired or converted, and why."""

    @property
    def rating_scale(self) -> Scale:
        """What is allowed, or else from the lowest to the highest rating in the file."""
        return self.allowed or span(self.ratings["rating"].to_numpy())


@dataclass(frozen=True)
class Reading:
    """How files are to be read, where that is not for them to say.

    columns: the user's own names of columns. scale: what ratings may be. strict: whether the first row
    that is dropped or repaired is an error.
    """

    columns: Columns = field(default_factory=dict)
    scale: Scale | None = None
    strict: bool = False

    @property
    def told(self) -> bytes:
        """What changes the data read."""
        named = [f"{role}={name}" for role, name in sorted(self.columns.items())]
        return " ".join([*named, *map(str, self.scale or ())]).encode()


def read_dataset(path: Path, reading: Reading | None = None) -> Dataset:
    """Read ratings and movies from a folder, an archive or a file; formats are told by their content.

    The data set is named after the folder or file, without its suffix. What is faulty is repaired or
    dropped, and told in `findings`: of ratings, those without sound ids, off the scale, without a sound
    time, of a movie that is not in the file of movies, and those that the same user gave again later.

    Raises DataError, in one line, where there is nothing to read, or no file of ratings among it; where
    a file is damaged; where no row is left; and, in strict mode, for the first row at fault.
    """
    reading = reading or Reading()
    findings = Findings(strict=reading.strict)
    with open_sources(path) as sources:
        chosen = find_tables(path, sources, reading.columns)
        of_ratings, of_movies = chosen.ratings, chosen.movies
        layout = of_ratings[0].layout
        scale = reading.scale or layout.scale
        ratings = _read_ratings(of_ratings, scale, findings)
        movies = read_movies(of_movies, findings) if of_movies else _untitled(ratings)
        digest = _digest(of_ratings, of_movies, reading)
    for note in chosen.notes:
        findings.note(note.file, note.what, note.count)
    ratings, movies = _alike(ratings, movies)
    if of_movies:
        ratings = _of_known_movies(ratings, of_ratings, movies, of_movies, findings)
    ratings = _latest(ratings, of_ratings, findings)
    if not ratings.height:
        raise DataError(_nothing_left(of_ratings, findings))
    files = [
        *_files_read(of_ratings, "ratings", ratings, findings),
        *_files_read(of_movies, "movies", movies, findings),
    ]
    users = _numbered(ratings["user"].unique().sort())
    items = _numbered(movies["item"])
    rated = "rating" in layout.columns
    return Dataset(
        name=path.resolve().name if path.is_dir() else path.name.partition(".")[0],
        digest=digest,
        ratings=_ratings_table(ratings, users, items),
        movies=_movies_table(movies, items),
        users=pd.DataFrame({"user_id": users["number"].to_numpy(), "external_id": _texts(users["id"])}),
        allowed=scale if rated else _LIKES,
        timed="timestamp" in layout.columns,
        rated=rated,
        files=tuple(files),
        findings=findings.all(),
    )


def _read_ratings(tables: Sequence[Table], scale: Scale | None, findings: Findings) -> pl.DataFrame:
    """The sound ratings, part by part, in the order of the file: user, item, rating, timestamp, line."""
    blocks = []
    for part, table in enumerate(tables):
        checker = Checker(table, findings)
        for rows in read_rows(table, findings):
            blocks.append(checker.ratings(rows, scale).with_columns(pl.lit(part, pl.UInt16).alias(PART)))
            findings.check()
    return pl.concat(_with_ids_alike(blocks, "user", "item")) if blocks else _NO_PARTS


def _alike(ratings: pl.DataFrame, movies: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    ratings, movies = _with_ids_alike([ratings, movies], "item")
    return ratings, movies.sort("item")


def _with_ids_alike(tables: Sequence[pl.DataFrame], *columns: str) -> list[pl.DataFrame]:
    """The tables with ids of one kind: text where those of any are."""
    texts = [name for name in columns if any(table[name].dtype == pl.String for table in tables)]
    return [table.with_columns(pl.col(texts).cast(pl.String)) for table in tables]


def _untitled(ratings: pl.DataFrame) -> pl.DataFrame:
    """A table of movies where there is no file of them: their titles are their ids."""
    item = ratings["item"].unique()
    return pl.DataFrame({"item": item, "title": item.cast(pl.String)}).with_columns(
        year=pl.lit(None, pl.Int16), genres=pl.lit([], pl.List(pl.String))
    )


def _of_known_movies(
    ratings: pl.DataFrame,
    tables: Sequence[Table],
    movies: pl.DataFrame,
    of_movies: Sequence[Table],
    findings: Findings,
) -> pl.DataFrame:
    known = ratings["item"].is_in(movies["item"].implode())
    where = " or ".join(table.source.name for table in of_movies)
    for table, unknown in _by_part(ratings.filter(~known), tables):
        what = f"{table.layout.name_of('item')} is not in {where}"
        findings.add("dropped", table.source.name, what, unknown[LINE], unknown["item"])
    findings.check()
    return ratings.filter(known)


def _latest(ratings: pl.DataFrame, tables: Sequence[Table], findings: Findings) -> pl.DataFrame:
    """Each user's latest rating of each movie; of those at one time, the last in the file."""
    users, items = _codes(ratings["user"]), _codes(ratings["item"])
    pair = (users * (items.max() or 0) + users + items).alias("pair")
    in_order = pair.sort()
    repeated = pair.is_in(in_order.filter(in_order == in_order.shift(1)).unique().implode())
    if not repeated.any():
        return ratings
    place = pl.int_range(ratings.height, eager=True).alias("place")
    candidates = ratings.with_columns(pair, place).filter(repeated).sort("timestamp", "place")
    last = candidates.unique("pair", keep="last")["place"]
    dropped = repeated & ~place.is_in(last.implode())
    for table, earlier in _by_part(ratings.filter(dropped), tables):
        user, item = table.layout.name_of("user"), table.layout.name_of("item")
        what = f"{user} rated {item} again: the latest rating is kept"
        first = earlier.head(MOST_EXAMPLES).select("user", "item").rows()
        shown = [f"{u} {i}" for u, i in first]
        findings.add("dropped", table.source.name, what, earlier[LINE], shown)
    findings.check()
    return ratings.filter(~dropped)


def _by_part(rows: pl.DataFrame, tables: Sequence[Table]) -> Iterator[tuple[Table, pl.DataFrame]]:
    """The rows of each part."""
    for part, table in enumerate(tables):
        yield table, rows.filter(pl.col(PART) == part)


def _codes(ids: pl.Series) -> pl.Series:
    """Each id's place among all of them in order: int64."""
    known = ids.unique().sort()
    if ids.dtype == pl.String:
        return ids.cast(pl.Enum(known)).to_physical().cast(pl.Int64)
    return known.search_sorted(ids).cast(pl.Int64)


def _numbered(ids: pl.Series) -> pl.DataFrame:
    """Ids, in order, and their numbers: themselves where they are integers."""
    numbers = pl.int_range(len(ids), eager=True) if ids.dtype == pl.String else ids
    return pl.DataFrame({"id": ids, "number": numbers})


def _ratings_table(ratings: pl.DataFrame, users: pl.DataFrame, items: pl.DataFrame) -> pd.DataFrame:
    columns = {
        "user_id": _numbers(ratings["user"], users),
        "movie_id": _numbers(ratings["item"], items),
        "rating": ratings["rating"],
        "timestamp": ratings["timestamp"],
    }
    return pd.DataFrame({name: column.to_numpy() for name, column in columns.items()})


def _numbers(ids: pl.Series, numbered: pl.DataFrame) -> pl.Series:
    if ids.dtype != pl.String:
        return ids
    return ids.cast(pl.Enum(numbered["id"])).to_physical().cast(pl.Int64)


def _movies_table(movies: pl.DataFrame, items: pl.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "movie_id": items["number"].to_numpy(),
            "title": _texts(movies["title"]),
            "year": pd.array(movies["year"].to_list(), dtype="Int16"),
            "genres": [tuple(genres) for genres in movies["genres"].to_list()],
            "external_id": _texts(items["id"]),
        }
    )


def _texts(values: pl.Series) -> pd.Series[str]:
    return pd.Series(values.cast(pl.String).to_list(), dtype="str")


def _digest(of_ratings: Sequence[Table], of_movies: Sequence[Table], reading: Reading) -> str:
    digest = hashlib.sha256()
    for table in (*of_ratings, *of_movies):
        for block in table.source.blocks(_HASHED, f"hashing {table.source.name}"):
            digest.update(block)
    digest.update(reading.told)
    return digest.hexdigest()


def _files_read(
    tables: Sequence[Table], holds: Literal["ratings", "movies"], kept: pl.DataFrame, findings: Findings
) -> Iterator[FileRead]:
    for part, table in enumerate(tables):
        name, layout = str(table.source.path), table.layout
        columns: dict[str, str] = {role: layout.name_of(role) for role in layout.columns}
        left = int((kept[PART] == part).sum())
        there = left + findings.dropped(table.source.name)
        yield FileRead(name, holds, layout.format, there, left, columns)


def _nothing_left(tables: Sequence[Table], findings: Findings) -> str:
    dropped = [each for each in findings.all() if each.deed == "dropped"]
    if not dropped:
        names = " and ".join(table.source.name for table in tables)
        return f"{names} has no rows" if len(tables) == 1 else f"{names} have no rows"
    return f"no rating is left: {'; '.join(map(str, dropped))}"
