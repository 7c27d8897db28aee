"""Reads ratings and movies in the CSV layout of MovieLens.

A file is read as a whole, fast. Only when that fails is it walked line by line, to name the fault.
"""

from __future__ import annotations

import csv
import hashlib
import io
import lzma
import zipfile
import zlib
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from twotower.errors import DataError

EMBEDDED: Path = Path(__file__).parent / "datasets" / "ml-latest-small.zip"
"""MovieLens ml-latest-small, edition of 2016. Its terms are in the LICENSE.md beside it."""

_FILES = ("ratings.csv", "movies.csv")
_NO_GENRES = "(no genres listed)"
_FINAL_YEAR = r"\s*\(([0-9]{4})(?:[-\u2013](?:[0-9]{4})?)?\)$"  # (1995), (1975-1979), (2007-)
# RuntimeError means encrypted or compressed in an unknown way, ValueError an undecodable name.
_BAD_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError)


@dataclass(frozen=True)
class Dataset:
    """Ratings and the movies they are about. Two are equal when their names and digests are.

    ratings, in the order of the file; a user rates a movie at most once:
        user_id    int64
        movie_id   int64, one of movies
        rating     float32, finite
        timestamp  int64, seconds since 1970
    movies, in the order of movie_id:
        movie_id   int64, unique
        title      str, without the year; empty where the file has none
        year       Int16, the first of a range; NA where the title does not end in one
        genres     tuple[str, ...], in the order of the file; () where none are listed
    """

    name: str
    digest: str
    """SHA-256, in hex, of the bytes of ratings.csv followed by those of movies.csv."""
    ratings: pd.DataFrame = field(compare=False, repr=False)
    movies: pd.DataFrame = field(compare=False, repr=False)

    @property
    def rating_scale(self) -> tuple[float, float]:
        """The lowest and the highest rating given."""
        return float(self.ratings["rating"].min()), float(self.ratings["rating"].max())


def read_dataset(path: Path) -> Dataset:
    """Read a folder or a .zip with ratings.csv and movies.csv, at its top or one folder below.

    The data set is named after the folder, or after the zip without its suffix. The files are
    UTF-8, with or without a byte order mark. Other files and columns are ignored.

    Raises DataError, one line that names the file, line, column and value at fault, when there is
    no such folder or zip; when a file is missing, empty, not UTF-8 or not CSV; when a column is
    missing or a value is not allowed; when a movie, or a pair of user and movie, comes twice; and
    when a rated movie is not in movies.csv.
    """
    ratings_csv, movies_csv = _read_files(path)
    movies = _read_movies(movies_csv)
    ratings = _read_ratings(ratings_csv, movies["movie_id"])
    name = path.resolve().name if path.is_dir() else path.stem
    digest = hashlib.sha256(ratings_csv.content + movies_csv.content).hexdigest()
    return Dataset(name, digest, ratings, movies)


class _Source(NamedTuple):
    file: str
    content: bytes

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """The line where a row begins, and its fields: the header first, blank lines left out."""
        content = self.content.removeprefix(BOM_UTF8)
        reader = csv.reader(line.decode() for line in io.BytesIO(content))
        line = 1
        try:
            for fields in reader:
                if len(fields) > 1 or "".join(fields).strip():
                    yield line, fields
                line = reader.line_num + 1
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{self.file} line {line} is not CSV in UTF-8: {error}") from error


class _Number(NamedTuple):
    """What a column of numbers may hold."""

    parse: Callable[[str], float]
    dtypes: str  # by NumPy's letters for their kinds
    low: float
    high: float
    allowed: str

    def accepts(self, text: str) -> bool:
        if not text.isascii() or "_" in text:  # numbers to Python, but not to pandas
            return False
        try:
            return self.low <= self.parse(text) <= self.high
        except ValueError:
            return False

    def accepts_all(self, column: pd.Series[float]) -> bool:
        return column.dtype.kind in self.dtypes and bool(column.between(self.low, self.high).all())


_INTEGER = _Number(int, "i", 0, 2**63 - 1, f"an integer from 0 to {2**63 - 1}")
_FLOAT32 = np.finfo(np.float32)
_RATING = _Number(float, "iuf", float(_FLOAT32.min), float(_FLOAT32.max), "a finite number")

_Columns = Mapping[str, _Number | None]  # None is text
_MOVIE_COLUMNS: _Columns = {"movieId": _INTEGER, "title": None, "genres": None}
_RATING_COLUMNS: _Columns = {
    "userId": _INTEGER,
    "movieId": _INTEGER,
    "rating": _RATING,
    "timestamp": _INTEGER,
}


def _read_files(path: Path) -> list[_Source]:
    try:
        if path.is_dir():
            return _read_folder(path, path)
        with zipfile.ZipFile(path) as archive:
            return _read_folder(path, zipfile.Path(archive))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist: a folder or a .zip is needed") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except _BAD_ZIP as error:
        raise DataError(f"{path} is neither a folder nor a sound .zip: {error}") from error


def _read_folder(path: Path, root: Path | zipfile.Path) -> list[_Source]:
    folders = [root, *(entry for entry in root.iterdir() if entry.is_dir())]
    complete = [each for each in folders if all((each / file).is_file() for file in _FILES)]
    if len(complete) == 1 or root in complete:
        return [_Source(file, (complete[0] / file).read_bytes()) for file in _FILES]
    found = [entry.name for entry in root.iterdir()]
    found += [f"{each.name}/{entry.name}" for each in folders[1:] for entry in each.iterdir()]
    needed = f"{_listed(_FILES)} side by side, at the top or in just one folder below"
    raise DataError(f"{path} holds {_listed(sorted(found))}: needed are {needed}")


def _listed(names: Iterable[str], limit: int = 150) -> str:
    text = ", ".join(map(repr, names)) or "nothing"
    return text if len(text) <= limit else text[:limit] + "..."


def _read_table(source: _Source, columns: _Columns) -> pd.DataFrame:
    try:
        return _parse(source, columns)
    except (ValueError, KeyError, OverflowError) as error:
        reason = " ".join(str(error).split())
        fault = _first_fault(source, columns) or f"cannot be read as CSV: {reason}"
        raise DataError(f"{source.file} {fault}") from error


def _parse(source: _Source, columns: _Columns) -> pd.DataFrame:
    """The columns as they are in the file. Any fault is a ValueError, KeyError or OverflowError.

    pandas infers the dtypes of numbers: asked for integers, it would take 1.0 and True for some.
    """
    text = {name: "str" for name, number in columns.items() if number is None}
    content = io.BytesIO(source.content)
    table = pd.read_csv(content, dtype=text, keep_default_na=False, low_memory=False)
    if table.empty or not isinstance(table.index, pd.RangeIndex):  # surplus fields make an index
        raise ValueError("the rows do not match the header")
    for name, number in columns.items():
        if number and not number.accepts_all(table[name]):
            raise ValueError(f"a {name} is not {number.allowed}")
    return table[list(columns)]


def _first_fault(source: _Source, columns: _Columns) -> str | None:
    rows = source.rows()
    header = next(rows, (1, []))[1]
    if not header:
        return "is empty"
    if not set(columns) <= set(header):
        return f"has the columns {_listed(header)}: needed are {_listed(columns)}"
    line = 0
    for line, fields in rows:
        if len(fields) != len(header):
            return f"line {line} has {len(fields)} fields: the header has {len(header)}"
        for name, number in columns.items():
            value = fields[header.index(name)]
            if number and not number.accepts(value):
                return f"line {line}: {name} is {value[:40]!r}, allowed is {number.allowed}"
    return None if line else "has no rows"


def _refuse(source: _Source, table: pd.DataFrame, faulty: pd.Series[bool], fault: str) -> None:
    """Raise DataError for the first faulty row, whose values stand in for the names in `fault`."""
    if faulty.any():
        row = int(faulty.to_numpy().argmax())
        line, _ = next(islice(source.rows(), row + 1, None))
        values = table.iloc[[row]].to_dict("records")[0]
        raise DataError(f"{source.file} line {line}: {fault.format_map(values)}")


def _read_movies(source: _Source) -> pd.DataFrame:
    table = _read_table(source, _MOVIE_COLUMNS)
    has_gap = bool((table[["title", "genres"]] == "").any(axis=None))
    # Empty text may be what pandas made of a line that is cut short.
    if has_gap and (fault := _first_fault(source, _MOVIE_COLUMNS)):
        raise DataError(f"{source.file} {fault}")
    repeated = table["movieId"].duplicated()
    _refuse(source, table, repeated, "movieId {movieId} is on an earlier line already")
    full_title = table["title"].str.strip()
    title = full_title.str.replace(_FINAL_YEAR, "", regex=True)
    year = full_title.str.extract(_FINAL_YEAR, expand=False)
    columns = {
        "movie_id": table["movieId"],
        "title": title.where(title != "", full_title),
        "year": pd.to_numeric(year).astype("Int16"),
        "genres": table["genres"].map(_split_genres),
    }
    return pd.DataFrame(columns).sort_values("movie_id", ignore_index=True)


def _split_genres(text: str) -> tuple[str, ...]:
    return tuple(genre for genre in text.split("|") if genre and genre != _NO_GENRES)


def _read_ratings(source: _Source, movie_ids: pd.Series[int]) -> pd.DataFrame:
    table = _read_table(source, _RATING_COLUMNS)
    unknown = ~table["movieId"].isin(movie_ids)
    _refuse(source, table, unknown, "movieId {movieId} is not in movies.csv")
    repeated = table.duplicated(["userId", "movieId"])
    _refuse(source, table, repeated, "userId {userId} rated movieId {movieId} on an earlier line")
    ratings = table.rename(columns={"userId": "user_id", "movieId": "movie_id"})
    return ratings.astype({"rating": "float32"})
