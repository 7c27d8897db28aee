from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.recommender import Ask, Recommendation, Recommender, _check
from gateway.settings import GatewaySettings
from twotower.errors import BadAnswer, RequestError, Unavailable, UserNotFound
from twotower.v1 import embedding_pb2 as pb
from twotower.v1 import retrieval_pb2 as rpc
from twotower.v1 import user_tower_pb2 as tower

A, B = "a" * 16, "b" * 16


@pytest.mark.parametrize(("ratings", "may_be"), [([], True), ([4.0], True), ([4.0, 4.0], False)])
def test_a_rating_is_predicted_of_every_movie_or_of_none(ratings: list[float], *, may_be: bool) -> None:
    found = rpc.RetrieveMoviesResponse(movie_ids=[7], scores=[0.5], predicted_ratings=ratings)
    assert isinstance(_check(rpc.RetrieveMoviesRequest(k=1), found), BadAnswer) != may_be


class Services:
    """Stand in for both services: embed each user by the model that it names, or fail it."""

    def __init__(self) -> None:
        self.failed_users: dict[int, RequestError] = {}
        self.failed_search: RequestError | None = None
        self.failed_catalogues: dict[str, RequestError] = {}
        self.searched = 0

    async def embed(self, users: list[tower.EmbedUserRequest], _seconds: float) -> Sequence[Any]:
        return [
            self.failed_users.get(user.user_id)
            or pb.UserEmbedding(model_version=user.model_version, strategy=pb.STRATEGY_KNOWN_USER)
            for user in users
        ]

    async def retrieve(
        self, searches: list[rpc.RetrieveMoviesRequest], _seconds: float
    ) -> Sequence[Any]:
        self.searched += len(searches)
        if self.failed_search:
            raise self.failed_search
        return [
            rpc.RetrieveMoviesResponse(
                movie_ids=[7],
                scores=[0.5],
                predicted_ratings=[4.0],
                model_version=search.embedding.model_version,
            )
            for search in searches
        ]

    async def movies(self, movie_ids: list[int], version: str, _seconds: float) -> rpc.GetMoviesResponse:
        if version in self.failed_catalogues:
            raise self.failed_catalogues[version]
        movies = [rpc.Movie(movie_id=movie_id, title=version) for movie_id in movie_ids]
        return rpc.GetMoviesResponse(movies=movies, model_version=version)


@pytest.fixture
def services() -> Services:
    return Services()


def recommend(
    services: Services, monkeypatch: pytest.MonkeyPatch, *users: tuple[int, str]
) -> list[Recommendation | BaseException]:
    """What users, each with a model, get when they ask at once."""

    async def ask_all() -> list[Recommendation | BaseException]:
        async with Recommender(GatewaySettings.load("the program", [])) as recommender:
            monkeypatch.setattr(recommender._user_tower, "embed", services.embed)
            monkeypatch.setattr(recommender.retrieval, "retrieve", services.retrieve)
            monkeypatch.setattr(recommender._texts, "_ask", services.movies)
            asks = [
                Ask(
                    tower.EmbedUserRequest(user_id=user, model_version=version),
                    rpc.RetrieveMoviesRequest(k=1, ids_only=True),
                )
                for user, version in users
            ]
            return await asyncio.gather(*map(recommender.recommend, asks), return_exceptions=True)

    return asyncio.run(ask_all())


def test_who_fails_at_the_user_tower_has_that_error_whatever_befalls_the_others(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.failed_users = {2: UserNotFound("no such user")}
    services.failed_search = Unavailable("retrieval cannot be reached")
    first, second, third = recommend(services, monkeypatch, (1, A), (2, A), (3, A))
    assert isinstance(first, Unavailable)
    assert isinstance(second, UserNotFound)
    assert isinstance(third, Unavailable)
    assert services.searched == 2


def test_where_all_fail_at_the_user_tower_nothing_is_searched(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.failed_users = {1: UserNotFound("no such user")}
    (only,) = recommend(services, monkeypatch, (1, A))
    assert isinstance(only, UserNotFound)
    assert services.searched == 0


def test_a_catalogue_that_cannot_be_told_fails_those_of_its_model(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.failed_catalogues = {A: BadAnswer("no catalogue")}
    first, second = recommend(services, monkeypatch, (1, A), (2, B))
    assert isinstance(first, BadAnswer)
    assert isinstance(second, Recommendation)
    assert second.found.model_version == B
    assert B in second.texts[7]
