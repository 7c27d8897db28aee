"""What the features of a training part are made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np

from training.config import Bounds, HybridConfig
from training.content import MovieContent
from training.interactions import Interactions
from training.rating_factors import RatingFactors
from training.stars import rules_on, star_of
from twotower.arrays import FeatureRows, Floats, Ints
from twotower.factors import MovieFactors
from twotower.features import FeatureSpec, HistorySpec, UserEncoder
from twotower.histories import Histories
from twotower.statistics import MovieSums, UserSums

Inputs = tuple[FeatureRows, FeatureRows]
"""The user tower's rows and the item tower's."""


class Told(NamedTuple):
    """The tables of `MovieFactors` that retrieval learns."""

    places: Ints
    successors: FeatureRows
    landmark_vectors: FeatureRows


@dataclass(frozen=True)
class Statistics:
    """What the rating towers' features are made of, each target left out of its own."""

    spec: FeatureSpec
    content: MovieContent
    train: Interactions
    learned: Interactions
    """Those ratings of `train` that are targets: all, or those of some of the users."""
    users: UserSums
    movies: MovieSums
    factors: RatingFactors | None

    @classmethod
    def of(
        cls,
        train: Interactions,
        content: MovieContent,
        damping: float,
        hybrid: HybridConfig | None = None,
        *,
        bounds: Bounds = Bounds(),  # noqa: B008 - it is frozen
    ) -> Self:
        """Sum a training part and measure its scaling; nothing else is ever looked at.

        Where there are to be factors (`hybrid`), the ratings must come ordered by user and time.
        """
        chosen = draw_users(train, bounds.ratings)
        learned = train if len(chosen) == len(train) else train.take(chosen)
        users = UserSums.of(train.histories(), content.genres)
        movies = train.movie_sums()
        spec = FeatureSpec.fit(
            genres=content.vocabulary,
            rating_scale=train.scale,
            damping=damping,
            users=users,
            movies=movies,
            years=content.years,
            movie_genres=content.genres,
        )
        if hybrid is None:
            return cls(spec, content, train, learned, users, movies, None)
        rated = users.count > 0
        shares = (users.genre_count[rated] / users.count[rated, None]).mean(axis=0)
        history = HistorySpec(
            **rules_on(hybrid.history, train.scale).model_dump(),
            usual_shares=tuple(shares.tolist()),
            factors=0,
        )
        if not train.rated:
            none = {"history": history, "rating_at_zero": None, "rating_per_cosine": None}
            return cls(spec.model_copy(update=none), content, train, learned, users, movies, None)
        star = star_of(train.scale)
        in_stars = replace(train, ratings=train.ratings / star)
        factors = RatingFactors.of(
            in_stars, content, hybrid.factors, hybrid.history.ratings, chosen
        ).times(star)
        spec = spec.model_copy(
            update={
                "history": history.model_copy(update={"factors": factors.movies.shape[1]}),
                "rating_at_zero": spec.global_mean,
                "rating_per_cosine": 1.0 / (factors.user_scale * factors.movie_scale),
            }
        )
        return cls(spec, content, train, learned, users, movies, factors)

    def leaving_out(self, places: Ints) -> Inputs:
        """Both rating towers' inputs for some of the ratings learned from, each without itself."""
        targets = self.learned.take(places)
        genres = self.content.genres[targets.movie_rows]
        users = self.users.leaving_out(targets.user_rows, targets.ratings, genres)
        movies = self.movies.leaving_out(targets.movie_rows, targets.ratings)
        years = self.content.years[targets.movie_rows]
        user_rows = self.spec.encode_users(users.statistics())
        movie_rows = self.spec.encode_movies(movies, years, genres)
        if self.factors is None:
            return user_rows, movie_rows
        return (
            np.column_stack([self.factors.users_without[places].astype(np.float32), user_rows]),
            np.column_stack(
                [
                    movie_rows,
                    self.factors.base_without[places].astype(np.float32),
                    self.factors.movies_without[places].astype(np.float32),
                ]
            ),
        )

    def encoder(self, told: Told | None = None) -> UserEncoder:
        """What encodes users; for the rating head alone where the tables for retrieval are left out."""
        if self.spec.history is None:
            return UserEncoder(self.spec, self.content.genres)
        none = np.empty((1, 0), dtype=np.float32)
        told = told or Told(np.zeros(self.train.movies, dtype=np.int64), none, none)
        movies, of_ratings = self.train.movies, self.factors
        factors = MovieFactors(
            **told._asdict(),
            base_ratings=_single(np.zeros(movies) if of_ratings is None else of_ratings.base),
            rating_factors=_single(np.empty((movies, 0)) if of_ratings is None else of_ratings.movies),
            rating_precision=_single(np.empty((0, 0)) if of_ratings is None else of_ratings.precision),
        )
        return UserEncoder(self.spec, self.content.genres, factors)

    def user_rows(self, histories: Histories) -> FeatureRows:
        """The rating user tower's input for users with these ratings."""
        encode = self.encoder().encode_for_rating
        return np.concatenate([encode(block) for block in histories.blocks()])

    @cached_property
    def movie_rows(self) -> FeatureRows:
        """The rating item tower's input for every movie."""
        factors = (self.factors.base, self.factors.movies) if self.factors else ()
        return self._movie_rows(self.movies, factors)

    @cached_property
    def unrated_movie_rows(self) -> FeatureRows:
        """The same as if nobody had rated it."""
        none = np.zeros(self.train.movies)
        factors = (self.factors.base_unrated, self.factors.movies_unrated) if self.factors else ()
        return self._movie_rows(MovieSums(count=none, total=none), factors)

    def _movie_rows(self, movies: MovieSums, factors: tuple[Floats, ...]) -> FeatureRows:
        rows = self.spec.encode_movies(movies, self.content.years, self.content.genres)
        return np.column_stack([rows, *(each.astype(np.float32) for each in factors)])


def _single(table: Floats) -> FeatureRows:
    return table.astype(np.float32)


def draw_users(train: Interactions, most: int) -> Ints:
    """The places, ascending, of all ratings of users drawn at random, who have at most `most` together.

    Those of one user at least; all there are where these are no more.
    """
    if len(train) <= most:
        return np.arange(len(train))
    counts = np.bincount(train.user_rows, minlength=train.users)
    drawn = np.random.default_rng(0).permutation(np.flatnonzero(counts))
    fitting = int(np.searchsorted(np.cumsum(counts[drawn]), most, side="right"))
    belongs = np.zeros(train.users, dtype=np.bool_)
    belongs[drawn[: max(fitting, 1)]] = True
    return np.flatnonzero(belongs[train.user_rows])
