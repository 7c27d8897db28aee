"""A served model of users: what is known of who asks, and the embedding of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from twotower.bundle import Bundle
from twotower.errors import BundleError, InvalidRequest, UserNotFound
from twotower.features import Floats, Histories, Ints, UserStatistics, UserSums
from twotower.golden import GoldenUser
from twotower.manifest import Manifest
from twotower.v1 import embedding_pb2 as pb
from user_tower_svc.tower import UserTower

MAX_RATINGS: Final = 10_000

_NOTHING_RATED: Final = Histories(np.zeros(1, np.int64), np.empty(0, np.int64), np.empty(0))


@dataclass(frozen=True)
class Profile:
    """What is known of one user.

    movie_rows: int64 (m,), ascending; ratings: float64 (m,). `features` stand in for them where the
    user gave aggregates instead.
    """

    strategy: pb.Strategy.ValueType
    movie_rows: Ints
    ratings: Floats
    ignored_count: int = 0
    features: UserStatistics | None = None


@dataclass(frozen=True)
class EmbeddedUser:
    """One user's embedding, float32 (dim,) of unit norm, and what it rests on."""

    retrieval: npt.NDArray[np.float32]
    rated_movie_ids: Ints
    ignored_count: int
    strategy: pb.Strategy.ValueType


class UserEmbedder:
    """A bundle's user side: its feature spec, its known users, and its tower."""

    def __init__(self, manifest: Manifest, bundle: Bundle) -> None:
        """Raises ValueError where the tower is not a LiteRT model, BundleError for a second head."""
        if bundle.rating_embeddings is not None:
            raise BundleError("rating_embeddings.npy: this user tower gives no rating embedding")
        self.model_version = manifest.model_version
        self._spec = bundle.features
        self._movie_ids = bundle.catalogue.movie_ids
        self._genres = bundle.catalogue.genre_matrix(bundle.features.genres)
        self._histories = bundle.histories
        self._golden = bundle.golden
        self._tower = UserTower(bundle.user_tower)

    def known_user(self, user_id: int, *, strict: bool) -> Profile:
        """The ratings stored for a user; one unknown is a cold start, or UserNotFound if strict."""
        span = self._histories.span_of(user_id)
        if span is None:
            if strict:
                raise UserNotFound(f"user_id: {user_id} is not a user of this model", field="user_id")
            return self.cold_start()
        return self._rated(
            self._histories.movie_ids[span], self._histories.ratings[span], pb.STRATEGY_KNOWN_USER
        )

    def rated(self, movie_ids: Ints, ratings: npt.NDArray[np.float32]) -> Profile:
        """The ratings given, oldest first: int64 (n,), float32 (n,). Unknown movies are ignored.

        Raises InvalidRequest naming the first rating that is not allowed.
        """
        self._check_ratings(movie_ids, ratings)
        return self._rated(movie_ids, ratings, pb.STRATEGY_INLINE_RATINGS)

    def described(self, count: int, mean: float, genre_means: Mapping[str, float]) -> Profile:
        """Aggregates of a user's ratings. Raises InvalidRequest naming what is not allowed."""
        if count < 1:
            raise InvalidRequest(
                f"features.rating_count: {count}, allowed is 1 or more (for no ratings at all, "
                "give an empty list of ratings)",
                field="features.rating_count",
            )
        self._check_scale("features.mean_rating", mean)
        means = np.full((1, len(self._spec.genres)), np.nan)
        for genre, genre_mean in genre_means.items():
            path = f"features.genre_means.{genre}"
            if genre not in self._spec.genres:
                known = ", ".join(self._spec.genres)
                raise InvalidRequest(f"{path}: no such genre, the genres are {known}", field=path)
            self._check_scale(path, genre_mean)
            means[0, self._spec.genres.index(genre)] = genre_mean
        statistics = UserStatistics(np.array([float(count)]), np.array([mean]), means)
        return Profile(
            pb.STRATEGY_FEATURES,
            _NOTHING_RATED.movie_rows,
            _NOTHING_RATED.ratings,
            features=statistics,
        )

    def cold_start(self, ignored_count: int = 0) -> Profile:
        """A user of whom nothing is known: embedded as the average user."""
        return Profile(
            pb.STRATEGY_COLD_START,
            _NOTHING_RATED.movie_rows,
            _NOTHING_RATED.ratings,
            ignored_count,
        )

    def embed(self, profiles: Sequence[Profile]) -> list[EmbeddedUser]:
        """Embed n users at once; each comes out as it would alone."""
        features = self._spec.encode_users(self._statistics(profiles))
        return [
            EmbeddedUser(
                embedding,
                self._movie_ids[profile.movie_rows],
                profile.ignored_count,
                profile.strategy,
            )
            for profile, embedding in zip(profiles, self._tower.embed(features), strict=True)
        ]

    def replay(self) -> None:
        """Embed the golden users. Raises BundleError where one comes out otherwise."""
        for golden in self._golden:
            (embedded,) = self.embed([self._golden_profile(golden)])
            golden.check_embedding(embedded.retrieval)

    def _golden_profile(self, golden: GoldenUser) -> Profile:
        if golden.user_id is not None:
            return self.known_user(golden.user_id, strict=False)
        ratings = golden.ratings or ()
        return self.rated(
            np.array([movie_id for movie_id, _ in ratings], dtype=np.int64),
            np.array([rating for _, rating in ratings], dtype=np.float32),
        )

    def _rated(
        self, movie_ids: Ints, ratings: npt.NDArray[np.float32], strategy: pb.Strategy.ValueType
    ) -> Profile:
        rows = np.minimum(np.searchsorted(self._movie_ids, movie_ids), len(self._movie_ids) - 1)
        known = self._movie_ids[rows] == movie_ids
        ignored_count = int(len(rows) - known.sum())
        if ignored_count == len(rows):
            return self.cold_start(ignored_count)
        rows, ratings = rows[known], ratings[known]
        order = np.argsort(rows)
        return Profile(strategy, rows[order], ratings[order].astype(np.float64), ignored_count)

    def _statistics(self, profiles: Sequence[Profile]) -> UserStatistics:
        counts = [len(profile.movie_rows) for profile in profiles]
        histories = Histories(
            np.cumsum([0, *counts], dtype=np.int64),
            np.concatenate([profile.movie_rows for profile in profiles]),
            np.concatenate([profile.ratings for profile in profiles]),
        )
        statistics = UserSums.of(histories, self._genres).statistics()
        for place, profile in enumerate(profiles):
            if profile.features:
                statistics.count[place] = profile.features.count[0]
                statistics.mean[place] = profile.features.mean[0]
                statistics.genre_means[place] = profile.features.genre_means[0]
        return statistics

    def _check_ratings(self, movie_ids: Ints, ratings: npt.NDArray[np.float32]) -> None:
        if len(ratings) > MAX_RATINGS:
            raise InvalidRequest(
                f"ratings: {len(ratings)} ratings, allowed are {MAX_RATINGS}", field="ratings"
            )
        if (movie_ids < 0).any():
            place = int(np.argmax(movie_ids < 0))
            path = f"ratings[{place}].movie_id"
            raise InvalidRequest(f"{path}: {movie_ids[place]}, allowed is 0 or more", field=path)
        low, high = map(np.float32, self._spec.rating_scale)
        on_scale = (ratings >= low) & (ratings <= high)  # False for NaN
        if not on_scale.all():
            place = int(np.argmin(on_scale))
            self._check_scale(f"ratings[{place}].rating", float(ratings[place]))
        _, first, counts = np.unique(movie_ids, return_index=True, return_counts=True)
        if len(first) < len(movie_ids):
            movie_id = movie_ids[first[np.argmax(counts > 1)]]
            place = int(np.flatnonzero(movie_ids == movie_id)[1])
            path = f"ratings[{place}].movie_id"
            raise InvalidRequest(f"{path}: movie {movie_id} is rated twice", field=path)

    def _check_scale(self, path: str, rating: float) -> None:
        low, high = map(np.float32, self._spec.rating_scale)
        given = np.float32(rating)  # whose text tells it from the bound that it only just exceeds
        if not low <= given <= high:
            raise InvalidRequest(f"{path}: {given!s}, allowed are {low!s} to {high!s}", field=path)
