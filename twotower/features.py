"""Encoding of users and movies as the towers' inputs: the only implementation, for training and serving.

A user's ratings are summed (`UserSums`), the sums become statistics (`UserStatistics`: count, mean,
mean per genre), and the statistics become a feature row. Sums can leave one rating out exactly, which
is how training sees them: a row never contains its own target. Statistics can also come straight from
a request, and then encode to the same row as the ratings behind them would.

Where the spec has a `history`, more columns follow, from the ratings one by one (`UserEncoder`): the
user's own factors, by a ridge regression of the ratings, and the vector that ranks movies most like
the sum over what each rated one says of the next (`MovieFactors.successors`), the newest counting most.

Missing is not zero: a genre without ratings is encoded as the user's own mean and flagged as missing.
Without any rating, the row is the average user's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from twotower.arrays import Bools, FeatureRows, Floats
from twotower.factors import MovieFactors
from twotower.histories import Histories, segment_sums
from twotower.loops import best_means, flag_sums, score_landmarks, weighted_ridge
from twotower.projection import SoftmaxProjection
from twotower.statistics import MovieSums, UserStatistics, UserSums, ratio

_CONSTANT: Final = 1e-6
"""A feature that deviates less than this is taken for constant."""
_BEST: Final = 100
_LEAST_OF_LARGEST: Final = 0.05
_HOUR = 3_600.0
LONG_AWAY: Final = 86_400.0
"""Seconds since the last rating from which on time changes nothing any more."""


class Scaling(BaseModel):
    """Mean and standard deviation of each feature; a constant feature has deviation 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def of(cls, rows: Floats) -> Self:
        """Measure the columns of rows (n, features)."""
        deviation = rows.std(axis=0)
        deviation[deviation < _CONSTANT] = 1.0
        return cls(mean=tuple(rows.mean(axis=0).tolist()), deviation=tuple(deviation.tolist()))

    def apply(self, rows: Floats) -> FeatureRows:
        """Rows to mean 0 and deviation 1, as float32."""
        scaled: Floats = (rows - np.array(self.mean)) / np.array(self.deviation)
        return scaled.astype(np.float32)


class Fading(BaseModel):
    """Weights that fall from 1 to `floor`, half of the way every `half_life` ratings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    half_life: Annotated[float, Field(gt=0)]
    floor: Annotated[float, Field(gt=0, le=1)]
    """Above 0, or a long history of one moment, none of it the newest, would count for nothing."""

    def weights(self, ages: Floats) -> Floats:
        """The weight of ratings that are `ages` ratings old: the same shape."""
        weights: Floats = self.floor + (1 - self.floor) * np.exp2(ages / -self.half_life)
        return weights


class HistoryRules(BaseModel):
    """How much each rating counts for where ratings are encoded one by one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    liked: float
    """A rating from here up is a like."""
    disliked: float
    """A rating below says that the movie was watched, and little more."""
    neutral_weight: Annotated[float, Field(ge=0, le=1)]
    """What a rating between the two counts for, as against a like's 1."""
    disliked_weight: Annotated[float, Field(ge=0, le=1)]
    successors: Fading
    """How much a rating says of what comes next; the longer a user stays away, the less it fades."""
    genres: Fading
    """How much a like counts for the shares of genres."""
    ratings: Fading
    """How much a rating says of the user's factors."""
    temperature: Annotated[float, Field(gt=0)]
    """Of the softmax over scores of what comes next; a user's best hundred scores have a mean of 1."""
    ridge: Annotated[float, Field(gt=0)]
    """How much a user's vector is drawn to 0, in squares of the movies' vectors."""

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if self.disliked > self.liked:
            raise ValueError(f"disliked: {self.disliked}, allowed is {self.liked} (liked) or less")
        return self

    def values(self, ratings: Floats) -> Floats:
        """What ratings say of what comes next: the same shape."""
        faint = np.where(ratings < self.disliked, self.disliked_weight, self.neutral_weight)
        return np.where(ratings >= self.liked, 1.0, faint)

    def successor_weights(self, histories: Histories) -> Floats:
        """What each rating counts for in the sum over its movie's successors: (ratings,)."""
        away = time_away(histories.idle)[histories.users]
        weights = away + (1 - away) * self.successors.weights(histories.ages)
        return weights * self.values(histories.ratings)


class HistorySpec(HistoryRules):
    """How ratings are encoded one by one."""

    usual_shares: tuple[float, ...]
    """The share of each genre in a user's ratings, the mean over users."""
    factors: Annotated[int, Field(ge=0)]
    """How many factors of its own a user has; 0 where no ratings are predicted."""

    def genre_shares(self, histories: Histories, genres: Bools) -> Floats:
        """The share of each genre in the newest likes, less the usual one; 0 without: (n, genres)."""
        likes = (histories.ratings >= self.liked) * self.genres.weights(histories.ages)
        total = segment_sums(likes, histories.offsets)[:, None]
        sums = flag_sums(histories.offsets, histories.movie_rows, genres, weights=likes[None, :])[:, 0]
        return np.where(
            total > 0, sums / np.maximum(total, _CONSTANT) - np.array(self.usual_shares), 0.0
        )


class FeatureSpec(BaseModel):
    """Everything that encoding depends on beside its input, written to `features.json` of a bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    genres: tuple[str, ...]
    """The genre vocabulary, in the order of the columns."""
    rating_scale: tuple[float, float]
    """The lowest and the highest rating."""
    global_mean: float
    """The mean of all ratings of the training part."""
    damping: float
    """How many ratings at the global mean a user's or a movie's mean is damped by."""
    year_mean: float
    """The year that a movie without one is given, beside its flag."""
    rating_at_zero: float | None
    """The rating predicted where the embeddings are orthogonal; None where none is predicted at all."""
    rating_per_cosine: float | None
    """How much higher the rating predicted is where they are the same; more than 0."""
    user_scaling: Scaling
    movie_scaling: Scaling
    history: HistorySpec | None = None
    """How ratings are encoded one by one, or None where only their statistics are."""

    @model_validator(mode="after")
    def _predicts_or_not(self) -> Self:
        if (self.rating_at_zero is None) != (self.rating_per_cosine is None):
            raise ValueError("of rating_at_zero and rating_per_cosine one is null, the other not")
        return self

    @property
    def predicts_ratings(self) -> bool:
        """Whether ratings are predicted: not of data that have none."""
        return self.rating_per_cosine is not None

    @property
    def line(self) -> tuple[float, float]:
        """The rating at cosine 0, and how much it grows by 1. Raises ValueError where there is none."""
        if self.rating_at_zero is None or self.rating_per_cosine is None:
            raise ValueError("this model predicts no ratings")
        return self.rating_at_zero, self.rating_per_cosine

    @property
    def user_width(self) -> int:
        """Statistics of a user: log count, mean, and per genre a mean and a flag."""
        return 2 + 2 * len(self.genres)

    @property
    def movie_width(self) -> int:
        """Statistics of a movie: year, year flag, log count, mean, and a flag per genre."""
        return 4 + len(self.genres)

    @classmethod
    def fit(
        cls,
        *,
        genres: tuple[str, ...],
        rating_scale: tuple[float, float],
        damping: float,
        users: UserSums,
        movies: MovieSums,
        years: Floats,
        movie_genres: Bools,
    ) -> Self:
        """Measure the training part, the scale of ratings spread over all cosines.

        years: float64 (movies,), NaN where missing.
        """
        global_mean = float(movies.total.sum() / movies.count.sum())
        year_mean = float(np.nanmean(years)) if np.isfinite(years).any() else 0.0
        low, high = rating_scale
        return cls(
            genres=genres,
            rating_scale=rating_scale,
            global_mean=global_mean,
            damping=damping,
            year_mean=year_mean,
            rating_at_zero=(low + high) / 2,
            rating_per_cosine=(high - low) / 2 or 1.0,
            user_scaling=Scaling.of(_user_columns(users.statistics(), global_mean, damping)),
            movie_scaling=Scaling.of(
                _movie_columns(
                    movies,
                    years,
                    movie_genres,
                    global_mean=global_mean,
                    damping=damping,
                    year_mean=year_mean,
                )
            ),
        )

    def encode_users(self, users: UserStatistics) -> FeatureRows:
        """Feature rows of n users: float32 (n, user_width). Without ratings: the average user's."""
        rows = self.user_scaling.apply(_user_columns(users, self.global_mean, self.damping))
        rows[users.count == 0] = 0.0  # scaled, the mean of all users is 0
        return rows

    def encode_movies(self, movies: MovieSums, years: Floats, movie_genres: Bools) -> FeatureRows:
        """Feature rows of n movies: float32 (n, movie_width).

        years: float64 (n,), NaN where missing. movie_genres: bool (n, genres).
        """
        return self.movie_scaling.apply(
            _movie_columns(
                movies,
                years,
                movie_genres,
                global_mean=self.global_mean,
                damping=self.damping,
                year_mean=self.year_mean,
            )
        )

    def scale_ratings(self, ratings: Floats) -> Floats:
        """Ratings to the cosines that predict them."""
        at_zero, per_cosine = self.line
        return (ratings - at_zero) / per_cosine

    def unscale_ratings(self, cosines: npt.NDArray[np.floating]) -> Floats:
        """Cosines to ratings, within the rating scale."""
        at_zero, per_cosine = self.line
        ratings = at_zero + cosines.astype(np.float64) * per_cosine
        return np.clip(ratings, *self.rating_scale)


class Columns(NamedTuple):
    """Where in a user's row what lies. Each head looks at a part of its own."""

    rating: slice
    retrieval: slice
    width: int


@dataclass(frozen=True)
class UserEncoder:
    """Users' ratings, or aggregates of them, to rows of the user tower.

    genres: bool (movies, genres). `factors` is given where the spec has a `history`, and then only.
    """

    spec: FeatureSpec
    genres: Bools
    factors: MovieFactors | None = None

    @property
    def columns(self) -> Columns:
        """For ratings, where they are predicted: [own factors | statistics]. For retrieval: [count, and
        statistics where no ratings are told | vector of what is next, its length, genre shares, time
        away].
        """  # noqa: D205
        statistics, history = self.spec.user_width, self.spec.history
        if history is None or self.factors is None:
            return Columns(slice(0, statistics), slice(0, statistics), statistics)
        vector = self.factors.landmark_vectors.shape[1]
        rating = history.factors + statistics if self.spec.predicts_ratings else 0
        width = rating + statistics + vector + 1 + len(self.spec.genres) + 1
        return Columns(slice(0, rating), slice(rating, width), width)

    def encode(
        self, histories: Histories, described: Mapping[int, UserStatistics] | None = None
    ) -> FeatureRows:
        """Rows of n users: float32 (n, width), each the same as alone.

        `described`: aggregates in place of the ratings of some, who have none, by their number.
        """
        rows = self.encode_for_rating(histories, described)
        if self.spec.history is None or self.factors is None:
            return rows
        told = rows[:, self.spec.history.factors :].copy()
        # Where ratings are told, what they say of the next is more than their means, which would but
        # give away which user of the training data this is.
        told[histories.counts > 0, 1:] = 0.0
        next_ones = self._encode_next(histories, self.spec.history, self.factors)
        if not self.spec.predicts_ratings:
            return np.column_stack([told, next_ones])
        return np.column_stack([rows, told, next_ones])

    def encode_for_rating(
        self, histories: Histories, described: Mapping[int, UserStatistics] | None = None
    ) -> FeatureRows:
        """The columns of n users that the rating head sees."""
        statistics = UserSums.of(histories, self.genres).statistics()
        for user, given in (described or {}).items():
            statistics.count[user] = given.count[0]
            statistics.mean[user] = given.mean[0]
            statistics.genre_means[user] = given.genre_means[0]
        rows = self.spec.encode_users(statistics)
        if self.spec.history is None or self.factors is None or not self.spec.predicts_ratings:
            return rows
        factors = self._own_factors(histories, self.spec.history, self.factors)
        return np.column_stack([factors, rows])

    def _own_factors(
        self, histories: Histories, history: HistorySpec, factors: MovieFactors
    ) -> FeatureRows:
        """Users' factors, 0 without ratings: float32 (n, r).

        The most probable ones, if users' factors are drawn from a normal distribution around 0 and
        ratings deviate from them normally (a ridge regression for each user).
        """
        rows = histories.movie_rows
        surprises = histories.ratings - self.spec.global_mean - factors.base_ratings[rows]
        return weighted_ridge(
            histories.offsets,
            rows,
            factors.rating_factors,
            targets=surprises,
            weights=history.ratings.weights(histories.ages),
            precision=factors.precision,
        )

    def _encode_next(
        self, histories: Histories, history: HistorySpec, factors: MovieFactors
    ) -> FeatureRows:
        shares = history.genre_shares(histories, self.genres).astype(np.float32)
        scores, rated = score_landmarks(
            histories.offsets,
            factors.places[histories.movie_rows],
            factors.successors,
            weights=history.successor_weights(histories),
            shares=shares,
            directions=self._landmark_genres,
            best=_BEST,
            share=_LEAST_OF_LARGEST,
            least=_CONSTANT,
        )
        vectors = self._projection.nearest(scores, rated)
        away = time_away(histories.idle).astype(np.float32)
        return np.column_stack([vectors, np.linalg.norm(vectors, axis=1), shares, away])

    @cached_property
    def _projection(self) -> SoftmaxProjection:
        history, factors = self.spec.history, self.factors
        if history is None or factors is None:
            raise ValueError("without a history, nothing is projected")
        return SoftmaxProjection(factors.landmark_vectors, history.temperature, history.ridge)

    @cached_property
    def _landmark_genres(self) -> FeatureRows:
        """Float32 (genres, landmarks)."""
        if self.factors is None:
            raise ValueError("without a history, there are no landmarks")
        return genre_directions(self.genres[self.factors.landmarks]).T.copy()


def genre_matrix(genres_of_movies: Sequence[Sequence[str]], vocabulary: Sequence[str]) -> Bools:
    """Which movie has which genre: bool (movies, genres), columns as in `vocabulary`."""
    column = {genre: index for index, genre in enumerate(vocabulary)}
    matrix = np.zeros((len(genres_of_movies), len(column)), dtype=np.bool_)
    for row, genres in enumerate(genres_of_movies):
        matrix[row, [column[genre] for genre in genres]] = True
    return matrix


def genre_directions(genres: Bools) -> FeatureRows:
    """Each movie's genres, divided by the root of their number: float32 (movies, genres)."""
    counts = np.maximum(genres.sum(axis=1, keepdims=True), 1)
    directions: FeatureRows = (genres / np.sqrt(counts)).astype(np.float32)
    return directions


def best_scores(scores: FeatureRows) -> FeatureRows:
    """The mean of each row's highest hundred, above 0: float32 (n, 1).

    At least a part of the largest number of the row, by which nothing much is said where that is low.
    """
    return best_means(scores, best=_BEST, share=_LEAST_OF_LARGEST, least=_CONSTANT)


def time_away(idle: Floats) -> Floats:
    """Seconds since the last rating to 0 (just now) to 1 (a day or more), evenly in their logarithm."""
    away: Floats = np.minimum(np.log1p(idle / _HOUR) / np.log1p(LONG_AWAY / _HOUR), 1.0)
    return away


def seconds_away(away: Floats) -> Floats:
    """The inverse of `time_away`; a day of 1."""
    seconds: Floats = _HOUR * np.expm1(away * np.log1p(LONG_AWAY / _HOUR))
    return seconds


def _user_columns(users: UserStatistics, global_mean: float, damping: float) -> Floats:
    known = np.isfinite(users.genre_means)
    mean = np.where(users.count > 0, users.mean, global_mean)
    return np.column_stack(
        [
            np.log1p(users.count),
            ratio((mean - global_mean) * users.count, users.count + damping, missing=0.0),
            np.where(known, users.genre_means - mean[:, None], 0.0),
            known,
        ]
    )


def _movie_columns(
    movies: MovieSums,
    years: Floats,
    movie_genres: Bools,
    *,
    global_mean: float,
    damping: float,
    year_mean: float,
) -> Floats:
    return np.column_stack(
        [
            np.where(np.isfinite(years), years, year_mean),
            np.isfinite(years),
            np.log1p(movies.count),
            ratio(movies.total - global_mean * movies.count, movies.count + damping, missing=0.0),
            movie_genres,
        ]
    )
