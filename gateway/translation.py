"""Requests for recommendations to protobuf, and the services' answers to JSON."""

from __future__ import annotations

import struct
from typing import Final

from gateway import decoding, schemas
from gateway.recommender import Ask, Recommendation
from twotower.errors import BadAnswer
from twotower.v1 import embedding_pb2 as pb
from twotower.v1 import retrieval_pb2 as retrieval
from twotower.v1 import user_tower_pb2 as user_tower

_STRATEGIES: Final = {
    value: name.removeprefix("STRATEGY_").lower() for name, value in pb.Strategy.items() if value
}

Request = schemas.RecommendationRequest | decoding.RecommendationRequest
"""Both have the same fields, of which the latter leaves those of external ids as they are by default."""


def ask_of(request: Request, *, strict: bool, request_id: str) -> Ask:
    """What to ask both services."""
    user = user_tower.EmbedUserRequest(
        user_id=request.user_id,
        external_user_id=request.external_user_id,
        strict=strict,
        as_of=request.as_of,
        as_arrays=True,
        request_id=request_id,
    )
    if request.ratings is not None:
        _add_ratings(user, request.ratings)
    if (features := request.features) is not None:
        user.features.rating_count = features.rating_count
        user.features.mean_rating = features.mean_rating
        user.features.genre_means.update(features.genre_means)
    search = retrieval.RetrieveMoviesRequest(
        k=request.k,
        exclude_rated=request.exclude_rated,
        exclude_movie_ids=request.exclude_movie_ids,
        exclude_external_ids=request.exclude_external_ids,
        ids_only=True,
        request_id=request_id,
    )
    if request.filter is not None:
        search.filter.CopyFrom(_filter(request.filter))
    return Ask(user, search)


def json_of(recommendation: Recommendation) -> bytes:
    """The answer as the JSON of a `schemas.RecommendationResponse`. Raises BadAnswer."""
    user, found, texts = recommendation
    strategy = _STRATEGIES.get(user.strategy)
    if strategy is None:
        raise BadAnswer(f"the user tower answered with a strategy that is not known, {user.strategy}")
    # None at all where the model predicts none.
    ratings = [f"{rating:.2f}" for rating in found.predicted_ratings] or ["null"] * len(found.movie_ids)
    items = ",".join(
        [
            f'{texts[movie_id]},"predicted_rating":{rating},"score":{score:.6f}}}'
            for movie_id, rating, score in zip(found.movie_ids, ratings, found.scores, strict=True)
        ]
    )
    shortfall = "null"
    if found.HasField("shortfall"):
        with schemas.service_answer():
            shortfall = schemas.Shortfall.of(found.shortfall).model_dump_json()
    return (
        f'{{"items":[{items}],"model_version":"{found.model_version}",'
        f'"strategy":"{strategy}","ignored_ratings":{user.ignored_count},'
        f'"shortfall":{shortfall}}}'
    ).encode()


def _add_ratings(
    user: user_tower.EmbedUserRequest, ratings: list[schemas.Rating] | list[decoding.Rating]
) -> None:
    movie_ids = [rating.movie_id for rating in ratings]
    timed = [rating.timestamp for rating in ratings if rating.timestamp is not None]
    if (timed and len(timed) < len(ratings)) or None in movie_ids:
        # Arrays cannot tell which rating has no time, as the user tower does in its refusal; nor do they
        # mix ids of both kinds.
        user.has_ratings = True
        for each in ratings:
            user.ratings.add(
                movie_id=each.movie_id,
                external_id=each.external_id,
                rating=each.rating,
                timestamp=each.timestamp,
            )
        return
    arrays = user.rating_arrays
    arrays.movie_ids = struct.pack(f"<{len(ratings)}q", *movie_ids)
    arrays.ratings = struct.pack(f"<{len(ratings)}f", *[rating.rating for rating in ratings])
    arrays.timestamps = struct.pack(f"<{len(timed)}q", *timed)
    arrays.SetInParent()


def _filter(condition: schemas.MovieFilter | decoding.MovieFilter) -> retrieval.MovieFilter:
    return retrieval.MovieFilter(
        genres_any=condition.genres_any,
        genres_all=condition.genres_all,
        genres_none=condition.genres_none,
        year_min=condition.year_min,
        year_max=condition.year_max,
    )
