"""The tables of a bundle: the catalogue (movies.csv) and the known users' ratings (histories.npz)."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

from twotower.arrays import Bools, Floats, Ints
from twotower.errors import BundleError
from twotower.external import Names
from twotower.features import genre_matrix
from twotower.histories import Histories
from twotower.lookup import RowsById
from twotower.npz import read_arrays, write_arrays

_COLUMNS = ["movie_id", "title", "year", "genres", "rating_count", "mean_rating"]
_GENRE_SEPARATOR = "|"
_HISTORY_ARRAYS = ["user_ids", "offsets", "movie_ids", "ratings", "timestamps"]


@dataclass(frozen=True)
class Catalogue:
    """The movies of a model, ascending by id; a movie's place is its row in every array of the model.

    movie_ids: int64 (movies,). titles: str, may be empty. years: float64, NaN where missing.
    genres: a tuple of names each. rating_counts: int64. mean_ratings: float64, NaN without ratings.
    external_ids: what the data call each, where that is no number; kept in a file of their own.
    """

    movie_ids: Ints
    titles: tuple[str, ...]
    years: Floats
    genres: tuple[tuple[str, ...], ...]
    rating_counts: Ints
    mean_ratings: Floats
    external_ids: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.movie_ids)

    def genre_matrix(self, vocabulary: Sequence[str]) -> Bools:
        """Which movie has which genre: bool (movies, genres), columns as in `vocabulary`."""
        return genre_matrix(self.genres, vocabulary)

    def rows_of(self, movie_ids: Ints) -> Ints:
        """The rows, int64 (n,), of movies (n,); -1 for those that the catalogue has not."""
        return self._rows.of(movie_ids)

    def row_of(self, movie_id: int) -> int | None:
        """The row of a movie, or None."""
        row = int(self.rows_of(np.array([movie_id]))[0])
        return None if row < 0 else row

    @cached_property
    def _rows(self) -> RowsById:
        return RowsById(self.movie_ids)

    @cached_property
    def names(self) -> Names:
        """Movie ids by external id."""
        return Names("movies", self.movie_ids, self.external_ids)

    def write(self) -> bytes:
        """The table as CSV, UTF-8."""
        text = io.StringIO()
        writer = csv.writer(text)  # its own line ends: with others, a title's are not quoted
        writer.writerow(_COLUMNS)
        for row, movie_id in enumerate(self.movie_ids.tolist()):
            year, mean = self.years[row], self.mean_ratings[row]
            writer.writerow(
                [
                    movie_id,
                    self.titles[row],
                    "" if np.isnan(year) else int(year),
                    _GENRE_SEPARATOR.join(self.genres[row]),
                    int(self.rating_counts[row]),
                    "" if np.isnan(mean) else repr(float(mean)),
                ]
            )
        return text.getvalue().encode()

    @classmethod
    def read(cls, content: bytes) -> Self:
        """Parse `movies.csv`. Raises BundleError naming the line at fault."""
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            raise BundleError(f"movies.csv: {error}") from error
        reader = csv.reader(io.StringIO(text, newline=""))
        try:
            header = next(reader, None)
            rows = [_parse_movie(row) for row in reader] if header == _COLUMNS else []
        except (ValueError, OverflowError, csv.Error) as error:
            raise BundleError(f"movies.csv, line {reader.line_num}: {error}") from error
        if header != _COLUMNS:
            raise BundleError(f"movies.csv: the first line is not {','.join(_COLUMNS)}")
        ids, titles, years, genres, counts, means = zip(*rows, strict=True) if rows else ((),) * 6
        catalogue = cls(
            movie_ids=np.array(ids, dtype=np.int64),
            titles=titles,
            years=np.array(years, dtype=np.float64),
            genres=genres,
            rating_counts=np.array(counts, dtype=np.int64),
            mean_ratings=np.array(means, dtype=np.float64),
        )
        if not len(catalogue) or catalogue.movie_ids[0] < 0 or (np.diff(catalogue.movie_ids) <= 0).any():
            raise BundleError("movies.csv: movie ids must be 0 or more, ascending, without repetition")
        return catalogue


def _parse_movie(row: list[str]) -> tuple[int, str, float, tuple[str, ...], int, float]:
    movie_id, title, year, genres, rating_count, mean_rating = row
    return (
        _parse_int64(movie_id),
        title,
        float(_parse_int64(year) if year else "nan"),
        tuple(genres.split(_GENRE_SEPARATOR)) if genres else (),
        _parse_int64(rating_count),
        float(mean_rating or "nan"),
    )


def _parse_int64(text: str) -> int:
    return int(np.int64(int(text)))  # an OverflowError where it does not fit


@dataclass(frozen=True)
class UserHistories:
    """The known users' ratings, users ascending by id, each user's ratings oldest first.

    user_ids: int64 (users,). offsets: int64 (users + 1,). movie_ids, timestamps (seconds, UTC): int64
    (ratings,). ratings: float32 (ratings,). external_ids: what the data call each user, where that is no
    number; kept in a file of their own.
    """

    user_ids: Ints
    offsets: Ints
    movie_ids: Ints
    ratings: np.ndarray[tuple[int], np.dtype[np.float32]]
    timestamps: Ints
    external_ids: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.user_ids)

    @cached_property
    def names(self) -> Names:
        """User ids by external id."""
        return Names("users", self.user_ids, self.external_ids)

    def span_of(self, user_id: int) -> slice | None:
        """Where the user's ratings lie, or None for an unknown user."""
        place = int(np.searchsorted(self.user_ids, user_id))
        if place == len(self) or self.user_ids[place] != user_id:
            return None
        return slice(int(self.offsets[place]), int(self.offsets[place + 1]))

    def rows_in(self, catalogue: Catalogue) -> Histories:
        """The same ratings by catalogue row."""
        return Histories.in_order(
            self.offsets,
            np.searchsorted(catalogue.movie_ids, self.movie_ids),
            self.ratings.astype(np.float64),
            self.timestamps,
        )

    def write(self) -> bytes:
        """The table as an uncompressed npz."""
        return write_arrays({name: getattr(self, name) for name in _HISTORY_ARRAYS})

    @classmethod
    def read(cls, content: bytes) -> Self:
        """Parse `histories.npz`, without pickle. Raises BundleError."""
        arrays: dict[str, Any] = read_arrays("histories.npz", content, _HISTORY_ARRAYS)
        histories = cls(**arrays)
        for name in _HISTORY_ARRAYS:
            kind = np.float32 if name == "ratings" else np.int64
            array = getattr(histories, name)
            if array.ndim != 1 or array.dtype != kind:
                raise BundleError(f"histories.npz: {name} is not a row of {kind.__name__}")
        ratings = len(histories.movie_ids)
        if (
            histories.offsets.shape != (len(histories) + 1,)
            or histories.offsets[0] != 0
            or histories.offsets[-1] != ratings
            or (np.diff(histories.offsets) < 0).any()
            or (np.diff(histories.user_ids) <= 0).any()
            or len(histories.ratings) != ratings
            or len(histories.timestamps) != ratings
        ):
            raise BundleError("histories.npz: its arrays do not fit each other")
        return histories
