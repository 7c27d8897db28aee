"""What the features of a training part are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from training.interactions import Interactions
from training.movielens import Dataset
from twotower.features import (
    Bools,
    FeatureRows,
    FeatureSpec,
    Floats,
    Histories,
    MovieSums,
    UserSums,
    genre_matrix,
)

Inputs = tuple[FeatureRows, FeatureRows]
"""The user tower's rows and the item tower's."""


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


@dataclass(frozen=True)
class Statistics:
    """What the features of a training part are made of, each target left out of its own."""

    spec: FeatureSpec
    content: MovieContent
    users: UserSums
    movies: MovieSums

    @classmethod
    def of(
        cls,
        train: Interactions,
        content: MovieContent,
        rating_scale: tuple[float, float],
        damping: float,
    ) -> Self:
        """Sum a training part and measure its scaling; nothing else is ever looked at."""
        users = UserSums.of(train.histories(), content.genres)
        movies = train.movie_sums()
        spec = FeatureSpec.fit(
            genres=content.vocabulary,
            rating_scale=rating_scale,
            damping=damping,
            users=users,
            movies=movies,
            years=content.years,
            movie_genres=content.genres,
        )
        return cls(spec, content, users, movies)

    def leaving_out(self, targets: Interactions) -> Inputs:
        """Both towers' inputs for ratings of the training part, each without itself."""
        genres = self.content.genres[targets.movie_rows]
        users = self.users.leaving_out(targets.user_rows, targets.ratings, genres)
        movies = self.movies.leaving_out(targets.movie_rows, targets.ratings)
        years = self.content.years[targets.movie_rows]
        return (
            self.spec.encode_users(users.statistics()),
            self.spec.encode_movies(movies, years, genres),
        )

    def user_rows(self, histories: Histories) -> FeatureRows:
        """The user tower's input for users with these ratings, learned from or not."""
        users = UserSums.of(histories, self.content.genres)
        return self.spec.encode_users(users.statistics())

    def movie_rows(self) -> FeatureRows:
        """The item tower's input for every movie."""
        return self.spec.encode_movies(self.movies, self.content.years, self.content.genres)
