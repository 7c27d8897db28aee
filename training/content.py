"""What is known of movies beside ratings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from training.dataset import Dataset
from twotower.arrays import Bools, Floats
from twotower.features import genre_matrix


@dataclass(frozen=True)
class MovieContent:
    """What is known of the movies beside ratings.

    vocabulary: the genres' names. genres: bool (movies, genres). years: float64 (movies,), NaN
    where missing.
    """

    vocabulary: tuple[str, ...]
    genres: Bools
    years: Floats

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        """The content of the movie table; genres in alphabetical order."""
        of_movies = dataset.movies["genres"].tolist()
        vocabulary = tuple(sorted(set().union(*of_movies)))
        years = dataset.movies["year"].to_numpy(dtype=np.float64, na_value=np.nan)
        return cls(vocabulary, genre_matrix(of_movies, vocabulary), years)
