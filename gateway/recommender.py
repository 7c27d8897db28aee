"""The way of a request: embed, retrieve, and once more where the two disagree on the model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from operator import methodcaller
from typing import Any, NamedTuple, Self

from gateway.batching import Batcher
from gateway.clients import Models, RetrievalClient, UserTowerClient
from gateway.settings import GatewaySettings
from twotower.errors import BadAnswer, ModelNotServed, NotReady, RequestError
from twotower.v1.embedding_pb2 import UserEmbedding
from twotower.v1.retrieval_pb2 import RetrieveMoviesRequest, RetrieveMoviesResponse
from twotower.v1.user_tower_pb2 import EmbedUserRequest


class Recommendation(NamedTuple):
    """Both services' answers for one user, of one model."""

    user: UserEmbedding
    found: RetrieveMoviesResponse


class Readiness(NamedTuple):
    """Whether requests can be answered: the model both services share, or the reason why not."""

    model_version: str
    reason: str


class Recommender:
    """Recommends movies through both services. Made within a running event loop."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.timeout = settings.timeout_seconds
        self._ready_timeout = settings.ready_timeout_seconds
        self._user_tower = UserTowerClient(settings.user_tower)
        self.retrieval = RetrievalClient(settings.retrieval)
        limits: dict[str, Any] = {
            "max_rows": settings.max_batch_rows,
            "max_bytes": settings.max_batch_bytes,
            "size": methodcaller("ByteSize"),
            "in_flight": settings.batches_in_flight,
        }
        self._embed = Batcher[EmbedUserRequest, UserEmbedding](
            UserTowerClient.name, self._user_tower.embed, **limits
        )
        self._retrieve = Batcher[RetrieveMoviesRequest, RetrieveMoviesResponse](
            RetrievalClient.name, self.retrieval.retrieve, **limits
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._user_tower.close()
        await self.retrieval.close()

    async def recommend(self, user: EmbedUserRequest, search: RetrieveMoviesRequest) -> Recommendation:
        """Embed the user and find movies, wholly by one model. `search` comes without an embedding.

        Raises RequestError: of the request itself, or where the services cannot answer in time.
        """
        deadline = asyncio.get_running_loop().time() + self.timeout
        try:
            return await self._once(user, search, deadline)
        except ModelNotServed as refusal:
            user.model_version = await self._shared_version(refusal.served, deadline)
            return await self._once(user, search, deadline)

    async def readiness(self) -> Readiness:
        """Whether both services can be reached and share a loaded model."""
        try:
            towers, indexes = await asyncio.gather(
                self._user_tower.models(self._ready_timeout),
                self.retrieval.models(self._ready_timeout),
            )
        except RequestError as error:
            return Readiness("", error.message)
        for service, listed in ((UserTowerClient.name, towers), (RetrievalClient.name, indexes)):
            if not listed.models:
                refused = "; ".join(model.message for model in listed.refused)
                return Readiness("", f"{service} has no model: {refused or 'none is promoted'}")
        shared = _shared(indexes, towers)
        if not shared:
            return Readiness("", "the user tower and retrieval serve no model in common")
        return Readiness(shared[0], "")

    async def _once(
        self, user: EmbedUserRequest, search: RetrieveMoviesRequest, deadline: float
    ) -> Recommendation:
        user.timeout_ms = _milliseconds_until(deadline)
        embedding = await self._embed.submit(user, deadline)
        search.embedding.CopyFrom(embedding)
        search.timeout_ms = _milliseconds_until(deadline)
        found = await self._retrieve.submit(search, deadline)
        _check(embedding, found)
        return Recommendation(embedding, found)

    async def _shared_version(self, retrievable: Sequence[str], deadline: float) -> str:
        """The best of the versions that retrieval serves which the user tower serves too."""
        seconds = _milliseconds_until(deadline) / 1000
        embeddable = [model.model_version for model in (await self._user_tower.models(seconds)).models]
        for version in retrievable:
            if version in embeddable:
                return version
        raise NotReady(
            f"the user tower serves {', '.join(embeddable) or 'no model'}, retrieval "
            f"{', '.join(retrievable) or 'none'}: no model in common"
        )


def _milliseconds_until(deadline: float) -> int:
    """By the event loop's clock; at least 1, since 0 would mean no limit."""
    return max(int((deadline - asyncio.get_running_loop().time()) * 1000), 1)


def _shared(indexes: Models, towers: Models) -> list[str]:
    embeddable = {model.model_version for model in towers.models}
    return [m.model_version for m in indexes.models if m.model_version in embeddable]


def _check(embedding: UserEmbedding, found: RetrieveMoviesResponse) -> None:
    if found.model_version != embedding.model_version:
        raise BadAnswer("retrieval answered by another model than the user tower's")
