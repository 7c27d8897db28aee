"""gRPC to the embedder and back; nothing else."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import grpc
import numpy as np
import numpy.typing as npt

from twotower.arrays import FLOAT32, INT64, Ints, array_of, bytes_of
from twotower.batch import answer_rows, only_answer, record_batch
from twotower.codes import to_proto
from twotower.errors import InvalidRequest, RequestError
from twotower.external import Names, named_twice
from twotower.metrics import stage
from twotower.models import ModelPool
from twotower.v1 import embedding_pb2 as pb
from twotower.v1 import user_tower_pb2 as rpc
from twotower.v1.user_tower_pb2_grpc import UserTowerServiceServicer
from user_tower_svc.embedder import EmbeddedUser, Profile, UserEmbedder
from user_tower_svc.external import movie_ids_of


class Ratings(NamedTuple):
    """One user's ratings: int64 (n,), float32 (n,), and int64 (n,) or None, as `UserEmbedder.rated`."""

    movie_ids: Ints
    ratings: npt.NDArray[np.float32]
    timestamps: Ints | None


class _Ask(NamedTuple):
    """Who is to be embedded, and whether the answer is to have arrays."""

    profile: Profile
    as_arrays: bool


class _Answer(NamedTuple):
    """A user embedded, by which model, and whether that is to be told in arrays."""

    model_version: str
    user: EmbeddedUser
    as_arrays: bool


class UserTowerServicer(UserTowerServiceServicer):
    """`twotower.v1.UserTowerService` over a pool of models."""

    def __init__(self, models: ModelPool[UserEmbedder]) -> None:
        self._models = models

    def EmbedUser(  # noqa: N802 - the name is the contract's
        self, request: rpc.EmbedUserRequest, _context: grpc.ServicerContext
    ) -> rpc.EmbedUserResponse:
        """Embed one user: a batch of one."""
        response = rpc.EmbedUserResponse()
        _fill(response.embedding, only_answer(self._embed([request])))
        return response

    def BatchEmbedUsers(  # noqa: N802
        self, request: rpc.BatchEmbedUsersRequest, _context: grpc.ServicerContext
    ) -> rpc.BatchEmbedUsersResponse:
        """Embed several users; a faulty row fails alone."""
        answers = self._embed(request.users)
        record_batch("BatchEmbedUsers", request.users, answers)
        response = rpc.BatchEmbedUsersResponse()
        for row, answer in zip(request.users, answers, strict=True):
            result = response.results.add(request_id=row.request_id)
            if isinstance(answer, RequestError):
                result.error.CopyFrom(to_proto(answer))
            else:
                _fill(result.embedding, answer)  # in place: a message set is a message copied
        return response

    def ListModels(  # noqa: N802
        self, _request: rpc.UserTowerServiceListModelsRequest, _context: grpc.ServicerContext
    ) -> rpc.UserTowerServiceListModelsResponse:
        """List the models served and refused."""
        return rpc.UserTowerServiceListModelsResponse(
            models=self._models.models(), refused=self._models.refused()
        )

    def _embed(self, rows: Sequence[rpc.EmbedUserRequest]) -> list[_Answer | RequestError]:
        return answer_rows(rows, prepare=self._prepare, compute=_compute)

    def _prepare(self, row: rpc.EmbedUserRequest) -> tuple[UserEmbedder, _Ask]:
        embedder = self._models.get(row.model_version)
        return embedder, _Ask(_profile(embedder, row), row.as_arrays)


def _profile(embedder: UserEmbedder, row: rpc.EmbedUserRequest) -> Profile:
    ratings = _ratings(row, embedder.movies)
    named = row.HasField("external_user_id")
    if named and row.HasField("user_id"):
        raise named_twice("external_user_id", row.external_user_id, "user_id")
    if row.HasField("features"):
        if ratings is not None or named or row.HasField("user_id"):
            user = "external_user_id" if named else "user_id"
            raise InvalidRequest(f"features: goes with neither {user} nor ratings", field="features")
        return embedder.described(
            row.features.rating_count, row.features.mean_rating, row.features.genre_means
        )
    if row.HasField("user_id") and row.user_id < 0:
        raise InvalidRequest(f"user_id: {row.user_id}, allowed is 0 or more", field="user_id")
    if row.as_of < 0:
        raise InvalidRequest(f"as_of: {row.as_of}, allowed is 0 or more", field="as_of")
    as_of = row.as_of if row.HasField("as_of") else int(time.time())
    if named:
        embedder.users.check("external_user_id")
    if ratings is not None:
        return embedder.rated(*ratings, as_of=as_of)
    if named:
        return embedder.known_by_name(row.external_user_id, as_of=as_of, strict=row.strict)
    if not row.HasField("user_id"):
        raise InvalidRequest("user_id, ratings or features: one of them is needed", field="user_id")
    return embedder.known_user(row.user_id, as_of=as_of, strict=row.strict)


def _ratings(row: rpc.EmbedUserRequest, movies: Names) -> Ratings | None:
    """The ratings given, in whichever form; None where none are meant."""
    if row.HasField("rating_arrays"):
        if row.ratings:
            raise InvalidRequest("rating_arrays: goes not with ratings", field="rating_arrays")
        return _read_arrays(row.rating_arrays, movies)
    if not row.ratings and not row.has_ratings:
        return None
    return Ratings(
        movie_ids_of(
            [rating.movie_id for rating in row.ratings],
            [rating.external_id if rating.HasField("external_id") else None for rating in row.ratings],
            movies,
        ),
        np.array([rating.rating for rating in row.ratings], dtype=np.float32),
        _timestamps(row.ratings),
    )


def _read_arrays(arrays: rpc.RatingArrays, movies: Names) -> Ratings:
    movie_ids = _rated_movies(arrays, movies)
    ratings = array_of("rating_arrays.ratings", arrays.ratings, FLOAT32)
    if len(ratings) != len(movie_ids):
        raise _unequal("ratings", len(ratings), arrays, len(movie_ids))
    if not arrays.timestamps:
        return Ratings(movie_ids, ratings, None)
    timestamps = array_of("rating_arrays.timestamps", arrays.timestamps, INT64)
    if len(timestamps) != len(movie_ids):
        raise _unequal("timestamps", len(timestamps), arrays, len(movie_ids))
    _check_timestamps(timestamps)
    return Ratings(movie_ids, ratings, timestamps)


def _rated_movies(arrays: rpc.RatingArrays, movies: Names) -> Ints:
    if not arrays.external_ids:
        return array_of("rating_arrays.movie_ids", arrays.movie_ids, INT64)
    if arrays.movie_ids:
        raise named_twice("rating_arrays.external_ids", arrays.external_ids[0], "movie_ids")
    return movie_ids_of([0] * len(arrays.external_ids), arrays.external_ids, movies)


def _unequal(name: str, count: int, arrays: rpc.RatingArrays, movies: int) -> InvalidRequest:
    path, names = f"rating_arrays.{name}", "external_ids" if arrays.external_ids else "movie_ids"
    return InvalidRequest(f"{path}: has {count}, {names} has {movies}", field=path)


def _timestamps(ratings: Sequence[pb.Rating]) -> Ints | None:
    timed = [rating.HasField("timestamp") for rating in ratings]
    if any(timed) and not all(timed):
        path = f"ratings[{timed.index(False)}].timestamp"
        raise InvalidRequest(f"{path}: is missing; all ratings have a timestamp, or none", field=path)
    if not any(timed):
        return None
    timestamps = np.array([rating.timestamp for rating in ratings], dtype=np.int64)
    _check_timestamps(timestamps)
    return timestamps


def _check_timestamps(timestamps: Ints) -> None:
    if (timestamps < 0).any():
        place = int(np.argmax(timestamps < 0))
        path = f"ratings[{place}].timestamp"
        raise InvalidRequest(f"{path}: {timestamps[place]}, allowed is 0 or more", field=path)


def _compute(embedder: UserEmbedder, asks: list[_Ask]) -> list[_Answer]:
    with stage("embed"):
        embedded = embedder.embed([ask.profile for ask in asks])
    return [
        _Answer(embedder.model_version, user, ask.as_arrays)
        for ask, user in zip(asks, embedded, strict=True)
    ]


def _fill(embedding: pb.UserEmbedding, answer: _Answer) -> None:
    user = answer.user
    embedding.model_version = answer.model_version
    embedding.ignored_count = user.ignored_count
    embedding.strategy = user.strategy
    if answer.as_arrays:
        arrays = embedding.arrays
        arrays.retrieval = bytes_of(user.retrieval, FLOAT32)
        arrays.rating = b"" if user.rating is None else bytes_of(user.rating, FLOAT32)
        arrays.rated_movie_ids = bytes_of(user.rated_movie_ids, INT64)
    else:
        embedding.retrieval.extend(user.retrieval.tolist())
        if user.rating is not None:
            embedding.rating.extend(user.rating.tolist())
        embedding.rated_movie_ids.extend(user.rated_movie_ids.tolist())
