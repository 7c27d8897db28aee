"""What the services must answer, computed from the bundle alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from twotower.bundle import Bundle
from twotower.golden import GoldenUser


class Movie(NamedTuple):
    """A movie of the catalogue."""

    movie_id: int
    title: str
    year: int | None
    genres: tuple[str, ...]


class Place(NamedTuple):
    """A movie's place in a ranking."""

    movie: Movie
    score: float
    predicted_rating: float


def movies_of(model: Bundle) -> list[Movie]:
    """The catalogue, row by row."""
    catalogue = model.catalogue
    years = [None if np.isnan(year) else int(year) for year in catalogue.years]
    columns = (catalogue.movie_ids.tolist(), catalogue.titles, years, catalogue.genres)
    return [Movie(*fields) for fields in zip(*columns, strict=True)]


def ranking(
    model: Bundle,
    embedding: Sequence[float],
    *,
    without: Collection[int] = (),
    passing: Callable[[Movie], bool] = lambda _movie: True,
) -> list[Place]:
    """Every movie that passes and is not left out: score descending, equal scores by ascending id."""
    query = np.array(embedding, dtype=np.float32)
    scores = (model.item_embeddings.astype(np.float64) * query).sum(axis=1)
    low, high = model.features.rating_scale
    ratings = np.clip(low + (scores + 1) / 2 * (high - low), low, high)
    places = map(Place, movies_of(model), scores.astype(np.float32).tolist(), ratings.tolist())
    left_out = set(without)
    found = [p for p in places if passing(p.movie) and p.movie.movie_id not in left_out]
    return sorted(found, key=lambda place: (-place.score, place.movie.movie_id))


def ids(places: Iterable[Place]) -> list[int]:
    """The movie ids of a ranking, in its order."""
    return [place.movie.movie_id for place in places]


def golden_users(model: Bundle) -> dict[int, GoldenUser]:
    """The known users among the recorded ones, by id."""
    return {user.user_id: user for user in model.golden if user.user_id is not None}


def golden_rater(model: Bundle) -> GoldenUser:
    """A recorded user who is given by ratings."""
    return next(user for user in model.golden if user.ratings)


def golden_stranger(model: Bundle) -> GoldenUser:
    """The recorded user who has rated nothing."""
    return next(user for user in model.golden if user.ratings == ())


def history_of(model: Bundle, user_id: int) -> dict[int, float]:
    """A known user's rating by movie id, the oldest first."""
    span = model.histories.span_of(user_id)
    assert span is not None, user_id
    histories = model.histories
    return dict(zip(histories.movie_ids[span].tolist(), histories.ratings[span].tolist(), strict=True))


def as_ratings(ratings: Iterable[tuple[int, float]]) -> list[dict[str, Any]]:
    """(movie id, rating) pairs as a request has them."""
    return [{"movie_id": movie_id, "rating": rating} for movie_id, rating in ratings]


def features_of(model: Bundle, history: dict[int, float]) -> dict[str, Any]:
    """The aggregates of these ratings as a request has them."""
    genres_of = {movie.movie_id: movie.genres for movie in movies_of(model)}
    by_genre = defaultdict(list)
    for movie_id, rating in history.items():
        for genre in genres_of[movie_id]:
            by_genre[genre].append(rating)
    return {
        "rating_count": len(history),
        "mean_rating": sum(history.values()) / len(history),
        "genre_means": {genre: sum(given) / len(given) for genre, given in by_genre.items()},
    }
