"""What the parts of an answer cost, each on its own: the encoder, the tower, the search, gRPC."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any, Final

import grpc

from bench.rivals.model import Model, query_for
from bench.workload import raters
from gateway.recommender import Ask
from gateway.schemas import RecommendationRequest
from gateway.translation import ask_of
from retrieval_svc.retriever import Query
from twotower.errors import OperationError
from twotower.v1.retrieval_pb2 import BatchRetrieveMoviesRequest, RetrieveMoviesRequest
from twotower.v1.retrieval_pb2_grpc import RetrievalServiceStub
from twotower.v1.user_tower_pb2 import BatchEmbedUsersRequest
from twotower.v1.user_tower_pb2_grpc import UserTowerServiceStub
from user_tower_svc.embedder import histories_of
from user_tower_svc.tower import UserTower

_TOWER_BATCHES: Final = (1, 8, 32, 128)
_SEARCH_BATCHES: Final = (1, 128)
_DIRECT_BATCH: Final = 128
_DIRECT_CLIENTS: Final = 2
"""Batches under way at once: while one is embedded, the other is searched for."""
_TIMEOUT_SECONDS: Final = 60
_USERS: Final = 512
"""Users that the parts are measured on."""


@dataclass(frozen=True)
class Part:
    """A part of the way of a request; `run(seconds)` gives how many users a second it is good for."""

    name: str
    run: Callable[[float], float]


@contextmanager
def parts(
    model: Model, bodies: Sequence[bytes], user_tower: int, retrieval: int
) -> Iterator[list[Part]]:
    """The parts, for users who give their ratings; the services' gRPC ports serve the same model."""
    users = raters(bodies, _USERS)
    with (
        grpc.insecure_channel(f"127.0.0.1:{user_tower}") as towers,
        grpc.insecure_channel(f"127.0.0.1:{retrieval}") as movies,
        ThreadPoolExecutor(_DIRECT_CLIENTS) as clients,
    ):
        recommend = partial(_recommend, UserTowerServiceStub(towers), RetrievalServiceStub(movies))
        asks = [ask_of(user, strict=False, request_id="") for user in users]
        rounds = _batches(_batches(asks, _DIRECT_BATCH), _DIRECT_CLIENTS)
        direct = partial(
            _rate,
            rounds,
            lambda batches: list(clients.map(recommend, batches)),
            users_each=_DIRECT_BATCH,
        )
        yield [
            *_embedding(model, users),
            *_searching(model, users),
            Part(
                f"gRPC, both services, batches of {_DIRECT_BATCH}, {_DIRECT_CLIENTS} under way", direct
            ),
        ]


def _embedding(model: Model, users: Sequence[RecommendationRequest]) -> list[Part]:
    profiles = [model.profile_of(user) for user in users]
    tower = UserTower(model.bundle.user_tower)
    features = model.bundle.encoder().encode(histories_of(profiles), {})
    return [
        *(
            Part(f"user tower, {size} at once", partial(_rate, _batches(features, size), tower.embed))
            for size in _TOWER_BATCHES
        ),
        *(
            Part(
                f"encoder and user tower, {size} at once",
                partial(_rate, _batches(profiles, size), model.embedder.embed),
            )
            for size in _TOWER_BATCHES
        ),
    ]


def _searching(model: Model, users: Sequence[RecommendationRequest]) -> list[Part]:
    embedded = model.embedder.embed([model.profile_of(user) for user in users])
    free = [Query(user.retrieval, user.rating, 10) for user in embedded]
    excluding = [query_for(user, 10) for user in embedded]
    return [
        Part(
            f"search{kind}, {size} at once",
            partial(_rate, _batches(queries, size), model.retriever.retrieve),
        )
        for kind, queries in (("", free), (" with exclusions", excluding))
        for size in _SEARCH_BATCHES
    ]


def _recommend(towers: UserTowerServiceStub, movies: RetrievalServiceStub, batch: Sequence[Ask]) -> None:
    """Embed the users, find movies for them, and read what is found. Raises OperationError."""
    users = towers.BatchEmbedUsers(
        BatchEmbedUsersRequest(users=[ask.user for ask in batch]), timeout=_TIMEOUT_SECONDS
    )
    searches = []
    for ask, user in zip(batch, users.results, strict=True):
        search = RetrieveMoviesRequest()
        search.CopyFrom(ask.search)
        search.embedding.CopyFrom(user.embedding)
        searches.append(search)
    found = movies.BatchRetrieveMovies(
        BatchRetrieveMoviesRequest(users=searches), timeout=_TIMEOUT_SECONDS
    )
    for search, result in zip(searches, found.results, strict=True):
        answer = list(zip(result.response.movie_ids, result.response.scores, strict=True))
        if len(answer) != search.k:
            raise OperationError(f"gRPC: {len(answer)} movies for {search.k}: {result.error.message}")


def _batches(rows: Any, size: int) -> list[Any]:
    """The rows in batches of one size; what does not fill one is left out."""
    return [rows[start : start + size] for start in range(0, len(rows) - size + 1, size)]


def _rate(
    batches: Sequence[Sized], call: Callable[[Any], object], seconds: float, *, users_each: int = 1
) -> float:
    """Users a second, the batches being called with in turn for some seconds."""
    users, start = 0, time.perf_counter()
    for batch in cycle(batches):
        call(batch)
        users += len(batch) * users_each
        passed = time.perf_counter() - start
        if passed >= seconds:
            return users / passed
    raise ValueError("there is no batch")
