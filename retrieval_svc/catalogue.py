"""The catalogue as retrieval uses it: which movies pass a filter, and which match a title."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from twotower.arrays import Bools
from twotower.errors import InvalidRequest
from twotower.tables import Catalogue

MAX_GENRES: Final = 100


@dataclass(frozen=True)
class Filter:
    """Which movies may be found; an empty genre list or an absent year sets no condition."""

    genres_any: tuple[str, ...] = ()
    genres_all: tuple[str, ...] = ()
    genres_none: tuple[str, ...] = ()
    year_min: int | None = None
    year_max: int | None = None

    def __bool__(self) -> bool:
        return any(
            [
                self.genres_any,
                self.genres_all,
                self.genres_none,
                self.year_min is not None,
                self.year_max is not None,
            ]
        )


NO_FILTER: Final = Filter()


class MovieFinder:
    """Finds rows of a catalogue by filter and by title."""

    def __init__(self, catalogue: Catalogue, genres: Sequence[str]) -> None:
        """`genres`: the genre vocabulary."""
        self._catalogue = catalogue
        self._column = {genre: column for column, genre in enumerate(genres)}
        self._genres = catalogue.genre_matrix(genres)
        self._titles = [_fold(title) for title in catalogue.titles]

    def check(self, condition: Filter) -> None:
        """Raise InvalidRequest for an unknown genre, too many, or a year_min above year_max."""
        for name in ("genres_any", "genres_all", "genres_none"):
            self._check_genres(f"filter.{name}", getattr(condition, name))
        low, high = condition.year_min, condition.year_max
        if low is not None and high is not None and low > high:
            raise InvalidRequest(
                f"filter.year_min: {low} is above year_max, {high}", field="filter.year_min"
            )

    def passing(self, condition: Filter) -> Bools:
        """Which movies pass a checked filter: bool (movies,)."""
        years = self._catalogue.years
        passing = np.ones(len(years), dtype=np.bool_)
        if condition.genres_any:
            passing &= self._having(condition.genres_any).any(axis=1)
        if condition.genres_all:
            passing &= self._having(condition.genres_all).all(axis=1)
        if condition.genres_none:
            passing &= ~self._having(condition.genres_none).any(axis=1)
        if condition.year_min is not None:
            passing &= years >= condition.year_min  # False for NaN: no year, no pass
        if condition.year_max is not None:
            passing &= years <= condition.year_max
        return passing

    def titled(self, title: str, limit: int) -> list[int]:
        """The rows whose title has all the words of `title`, the closest first.

        A title that is the words comes before one that starts with them, and that before any
        other; among those as close, the most rated comes first.
        """
        sought = _fold(title)
        words = sought.split()
        if not words:
            return []
        found = [
            (_distance(folded, sought), -int(self._catalogue.rating_counts[row]), row)
            for row, folded in enumerate(self._titles)
            if all(word in folded for word in words)
        ]
        return [row for _, _, row in sorted(found)[:limit]]

    def _having(self, genres: Sequence[str]) -> Bools:
        return self._genres[:, [self._column[genre] for genre in genres]]

    def _check_genres(self, path: str, genres: Sequence[str]) -> None:
        if len(genres) > MAX_GENRES:
            raise InvalidRequest(f"{path}: {len(genres)} genres, allowed are {MAX_GENRES}", field=path)
        for place, genre in enumerate(genres):
            if genre not in self._column:
                known = ", ".join(self._column)
                raise InvalidRequest(
                    f"{path}[{place}]: no such genre as {genre!r}, the genres are {known}",
                    field=f"{path}[{place}]",
                )


def _distance(title: str, sought: str) -> int:
    if title == sought:
        return 0
    return 1 if title.startswith(sought) else 2


def _fold(text: str) -> str:
    """Text without letter case, accents and repeated spaces."""
    decomposed = unicodedata.normalize("NFKD", text).casefold()  # "№" is "No" only then
    return " ".join("".join(c for c in decomposed if not unicodedata.combining(c)).split())
