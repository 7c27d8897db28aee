"""A served model of users: what is known of who asks, and the embedding of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from twotower.arrays import Embeddings, Ints
from twotower.bundle import Bundle
from twotower.errors import BundleError, InvalidRequest, UserNotFound, shown
from twotower.features import LONG_AWAY
from twotower.golden import GoldenUser
from twotower.histories import Histories
from twotower.manifest import Manifest
from twotower.statistics import UserStatistics
from twotower.v1 import embedding_pb2 as pb
from user_tower_svc.tower import UserTower

MAX_RATINGS: Final = 10_000
_MOST_SETTLED: Final = 10_000
"""Known users whose embeddings are kept: some 20 MB."""

_NONE: Final = np.empty(0, dtype=np.int64)


class EmbeddedUser(NamedTuple):
    """One user's embeddings, float32 (dim,) of unit norm, and what they rest on.

    `rating` is None where one embedding serves both. rated_movie_ids: int64, ascending.
    """

    retrieval: Embeddings
    rating: Embeddings | None
    rated_movie_ids: Ints
    ignored_count: int
    strategy: pb.Strategy.ValueType


class _Settled(NamedTuple):
    """A known user's embeddings, which change no more from some time on: seconds, UTC."""

    user: EmbeddedUser
    since: float


class Profile(NamedTuple):
    """What is known of one user: ratings, oldest first, or `described`, aggregates in their place.

    movie_rows: int64 (n,), row numbers of the catalogue. ratings: float (n,). times: int64 (n,), when
    they were given, to be seen as of `as_of`; by any clock, if only the order is known. rated_movie_ids:
    int64 (n,), of the same movies, ascending. settles: a known user who has been away for so long that
    time changes nothing any more, and since when. embedded: what comes out, where that is known from
    before; nothing else is then needed.
    """

    strategy: pb.Strategy.ValueType
    movie_rows: Ints = _NONE
    ratings: npt.NDArray[np.floating] = np.empty(0)
    times: Ints = _NONE
    as_of: int = 0
    rated_movie_ids: Ints = _NONE
    ignored_count: int = 0
    described: UserStatistics | None = None
    settles: tuple[int, float] | None = None
    embedded: EmbeddedUser | None = None


class UserEmbedder:
    """A bundle's user side: its encoder, its known users, and its tower."""

    def __init__(self, manifest: Manifest, bundle: Bundle) -> None:
        """Raises ValueError where the tower is no LiteRT model, BundleError where a head is missing."""
        self.model_version = manifest.model_version
        self._spec = bundle.features
        low, high = bundle.features.rating_scale
        self._scale = np.float32(low), np.float32(high)
        self._encoder = bundle.encoder()
        self._rows_of = bundle.catalogue.rows_of
        self.movies = bundle.catalogue.names
        self.users = bundle.histories.names
        self._histories = bundle.histories
        self._golden = bundle.golden
        self._settled: dict[int, _Settled] = {}
        self._tower = UserTower(bundle.user_tower)
        if self._tower.rates != (bundle.rating_embeddings is not None):
            raise BundleError(
                "of user_tower.tflite and rating_embeddings.npy one has a rating head, the other none"
            )

    def known_user(self, user_id: int, *, as_of: int, strict: bool) -> Profile:
        """The ratings stored for a user, who asks at a time (seconds, UTC).

        A user unknown is a cold start, or UserNotFound if strict.
        """
        kept = self._settled.get(user_id)
        if kept and as_of >= kept.since:
            return Profile(pb.STRATEGY_KNOWN_USER, embedded=kept.user)
        span = self._histories.span_of(user_id)
        if span is None:
            if strict:
                raise UserNotFound(f"user_id: {user_id} is not a user of this model", field="user_id")
            return self.cold_start()
        timestamps = self._histories.timestamps[span]
        profile = self._rated(
            self._histories.movie_ids[span],
            self._histories.ratings[span],
            timestamps,
            as_of,
            pb.STRATEGY_KNOWN_USER,
        )
        if not len(timestamps) or as_of < timestamps[-1] + LONG_AWAY:
            return profile
        return profile._replace(settles=(user_id, float(timestamps[-1]) + LONG_AWAY))

    def known_by_name(self, external_id: str, *, as_of: int, strict: bool) -> Profile:
        """As `known_user`, of what the data call the user. InvalidRequest where that is a number."""
        field = "external_user_id"
        user_id = self.users.find(external_id, field)
        if user_id is not None:
            return self.known_user(user_id, as_of=as_of, strict=strict)
        if strict:
            raise UserNotFound(f"{field}: {shown(external_id)} is not a user of this model", field=field)
        return self.cold_start()

    def rated(
        self,
        movie_ids: Ints,
        ratings: npt.NDArray[np.float32],
        timestamps: Ints | None,
        *,
        as_of: int,
    ) -> Profile:
        """The ratings given, by a user who asks at a time (seconds, UTC). Unknown movies are ignored.

        movie_ids: int64 (n,). ratings: float32 (n,). timestamps: int64 (n,), or None, and the ratings
        come oldest first. Raises InvalidRequest naming the first rating that is not allowed.
        """
        if len(ratings) > MAX_RATINGS:
            raise InvalidRequest(
                f"ratings: {len(ratings)} ratings, allowed are {MAX_RATINGS}", field="ratings"
            )
        if not len(ratings):
            return self.cold_start()
        self._check_ratings(ratings)
        _check_movies(movie_ids)
        return self._rated(movie_ids, ratings, timestamps, as_of, pb.STRATEGY_INLINE_RATINGS)

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
        return Profile(pb.STRATEGY_FEATURES, described=statistics)

    def cold_start(self, ignored_count: int = 0) -> Profile:
        """A user of whom nothing is known: embedded as the average user."""
        return Profile(pb.STRATEGY_COLD_START, ignored_count=ignored_count)

    def embed(self, profiles: Sequence[Profile]) -> list[EmbeddedUser]:
        """Embed n users at once; each comes out as it would alone, but for the last bits."""
        unknown = [profile for profile in profiles if profile.embedded is None]
        computed = iter(self._compute(unknown) if unknown else ())
        embedded = [profile.embedded or next(computed) for profile in profiles]
        for profile, user in zip(profiles, embedded, strict=True):
            if profile.settles:
                self._keep(*profile.settles, user)
        return embedded

    def replay(self) -> None:
        """Embed the golden users. Raises BundleError where one comes out otherwise."""
        for golden in self._golden:
            (embedded,) = self.embed([self._golden_profile(golden)])
            golden.check_embedding(embedded.retrieval, embedded.rating)

    def _compute(self, profiles: Sequence[Profile]) -> list[EmbeddedUser]:
        features = self._encoder.encode(
            histories_of(profiles),
            {user: p.described for user, p in enumerate(profiles) if p.described},
        )
        retrieval, rating = self._tower.embed(features)
        return [
            EmbeddedUser(
                retrieval[user],
                None if rating is None else rating[user],
                profile.rated_movie_ids,
                profile.ignored_count,
                profile.strategy,
            )
            for user, profile in enumerate(profiles)
        ]

    def _keep(self, user_id: int, since: float, user: EmbeddedUser) -> None:
        if len(self._settled) >= _MOST_SETTLED:
            self._settled.clear()
        # Copies: a row of its batch would keep the whole of that.
        rating = None if user.rating is None else user.rating.copy()
        own = user._replace(retrieval=user.retrieval.copy(), rating=rating)
        self._settled[user_id] = _Settled(own, since)

    def _golden_profile(self, golden: GoldenUser) -> Profile:
        if golden.user_id is not None:
            return self.known_user(golden.user_id, as_of=golden.as_of, strict=False)
        ratings = golden.ratings or ()
        return self.rated(
            np.array([movie_id for movie_id, _ in ratings], dtype=np.int64),
            np.array([rating for _, rating in ratings], dtype=np.float32),
            None,
            as_of=golden.as_of,
        )

    def _rated(
        self,
        movie_ids: Ints,
        ratings: npt.NDArray[np.float32],
        timestamps: Ints | None,
        as_of: int,
        strategy: pb.Strategy.ValueType,
    ) -> Profile:
        rows = self._rows_of(movie_ids)
        known = rows >= 0
        ignored_count = len(rows) - int(np.count_nonzero(known))
        if ignored_count:
            rows, movie_ids, ratings = rows[known], movie_ids[known], ratings[known]
            timestamps = None if timestamps is None else timestamps[known]
        if not len(rows):
            return self.cold_start(ignored_count)
        if timestamps is None:
            # A clock that ticks once a rating, the last one just now.
            times, as_of = np.arange(len(rows)), len(rows) - 1
        else:
            order = timestamps.argsort(kind="stable")
            rows, ratings, times = rows[order], ratings[order], timestamps[order]
        return Profile(strategy, rows, ratings, times, as_of, np.sort(movie_ids), ignored_count)

    def _check_ratings(self, ratings: npt.NDArray[np.float32]) -> None:
        low, high = self._scale
        if not low <= ratings.min() <= ratings.max() <= high:  # neither is NaN then
            place = int(np.argmin((ratings >= low) & (ratings <= high)))
            self._check_scale(f"ratings[{place}].rating", float(ratings[place]))

    def _check_scale(self, path: str, rating: float) -> None:
        low, high = self._scale
        given = np.float32(rating)  # whose text tells it from the bound that it only just exceeds
        if not low <= given <= high:
            allowed = f"are {low!s} to {high!s}" if low < high else f"is {low!s}"
            raise InvalidRequest(f"{path}: {given!s}, allowed {allowed}", field=path)


def _check_movies(movie_ids: Ints) -> None:
    in_order = np.sort(movie_ids)
    if in_order[0] < 0:
        place = int(np.argmax(movie_ids < 0))
        path = f"ratings[{place}].movie_id"
        raise InvalidRequest(f"{path}: {movie_ids[place]}, allowed is 0 or more", field=path)
    repeated = in_order[1:] == in_order[:-1]
    if repeated.any():
        movie_id = in_order[repeated.argmax()]
        place = int(np.flatnonzero(movie_ids == movie_id)[1])
        path = f"ratings[{place}].movie_id"
        raise InvalidRequest(f"{path}: movie {movie_id} is rated twice", field=path)


def histories_of(profiles: Sequence[Profile]) -> Histories:
    """What n users have rated, as the encoder takes it. None of them may be `embedded` already."""
    offsets = np.cumsum([0, *(len(profile.movie_rows) for profile in profiles)])
    return Histories.in_order(
        offsets,
        np.concatenate([profile.movie_rows for profile in profiles]),
        np.concatenate([profile.ratings for profile in profiles]).astype(np.float64),
        np.concatenate([profile.times for profile in profiles]),
        np.array([profile.as_of for profile in profiles]),
    )
