"""The way of a request: embed, retrieve, and once more where the two disagree on the model."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

from gateway.batching import Batcher, seconds_until
from gateway.catalogue import MovieTexts
from gateway.clients import Models, RetrievalClient, UserTowerClient, check_count
from gateway.settings import GatewaySettings
from twotower.errors import BadAnswer, InvalidRequest, ModelNotServed, NotReady, RequestError
from twotower.v1.embedding_pb2 import UserEmbedding
from twotower.v1.retrieval_pb2 import RetrieveMoviesRequest, RetrieveMoviesResponse
from twotower.v1.user_tower_pb2 import EmbedUserRequest


class Ask(NamedTuple):
    """What to ask of both services for one user; `search` is `ids_only`, and has no embedding yet."""

    user: EmbedUserRequest
    search: RetrieveMoviesRequest


class Recommendation(NamedTuple):
    """Both services' answers for one user, of one model, and the JSON of the movies, as `MovieTexts`."""

    user: UserEmbedding
    found: RetrieveMoviesResponse
    texts: Mapping[int, str]


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
        self._replicas = (self._user_tower.replicas, self.retrieval.replicas)
        self._texts = MovieTexts(self.retrieval.movies)
        self._batcher = Batcher[Ask, Recommendation](
            "the service",
            self._recommend_together,
            max_rows=settings.max_batch_rows,
            max_bytes=settings.max_batch_bytes,
            size=_bytes_of,
            in_flight=lambda: (
                settings.batches_in_flight
                or len(self._user_tower.replicas) + len(self.retrieval.replicas)
            ),
        )

    async def __aenter__(self) -> Self:
        for replicas in self._replicas:
            replicas.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(replicas.close() for replicas in self._replicas))

    async def recommend(self, ask: Ask) -> Recommendation:
        """Embed the user and find movies, wholly by one model.

        Raises RequestError: of the request itself, or where the services cannot answer in time.
        """
        deadline = self.deadline()
        try:
            return await self.submit(ask, deadline)
        except ModelNotServed as refusal:
            return await self.submit_again(ask, refusal, deadline)

    def deadline(self) -> float:
        """Until when a request that comes now is to be answered, by the event loop's clock."""
        return asyncio.get_running_loop().time() + self.timeout

    def submit(self, ask: Ask, deadline: float) -> asyncio.Future[Recommendation]:
        """Embed the user and find movies, by whichever model the user tower prefers.

        Fails with RequestError; ModelNotServed where retrieval does not serve that model.
        """
        ask.user.timeout_ms = ask.search.timeout_ms = int(seconds_until(deadline) * 1000) or 1
        return self._batcher.submit(ask, deadline)

    async def submit_again(self, ask: Ask, refusal: ModelNotServed, deadline: float) -> Recommendation:
        """The same by a model that both services serve. Raises RequestError."""
        ask.user.model_version = await self._shared_version(refusal.served, deadline)
        return await self.submit(ask, deadline)

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

    async def _recommend_together(
        self, asks: list[Ask], seconds: float
    ) -> Sequence[Recommendation | RequestError]:
        """Answer a batch, each row on its own. Raises RequestError where a call fails as a whole."""
        deadline = asyncio.get_running_loop().time() + seconds
        users = await self._user_tower.embed([ask.user for ask in asks], seconds)
        embedded = [
            (ask.search, user)
            for ask, user in zip(asks, users, strict=True)
            if isinstance(user, UserEmbedding)
        ]
        found = iter(await self._search_or_fail(embedded, deadline))
        return [user if isinstance(user, RequestError) else next(found) for user in users]

    async def _search_or_fail(
        self, embedded: list[tuple[RetrieveMoviesRequest, UserEmbedding]], deadline: float
    ) -> Sequence[Recommendation | RequestError]:
        """The rest of the way for those embedded; what fails it is theirs, not of who failed before."""
        if not embedded:
            return []
        try:
            return await self._search(embedded, deadline)
        except RequestError as error:
            return [error] * len(embedded)

    async def _search(
        self, embedded: list[tuple[RetrieveMoviesRequest, UserEmbedding]], deadline: float
    ) -> list[Recommendation | RequestError]:
        for search, user in embedded:
            search.embedding.CopyFrom(user)
        found = await self.retrieval.retrieve(
            [search for search, _ in embedded], seconds_until(deadline)
        )
        checked = [_check(search, row) for (search, _), row in zip(embedded, found, strict=True)]
        texts = await self._texts_of(checked, deadline)
        return [
            movies if isinstance(movies, RequestError) else _join(user, movies, texts)
            for (_, user), movies in zip(embedded, checked, strict=True)
        ]

    async def _texts_of(
        self, found: Sequence[RetrieveMoviesResponse | RequestError], deadline: float
    ) -> dict[str, Mapping[int, str] | RequestError]:
        """The JSON of every movie found, by model version, or why there is none."""
        wanted: defaultdict[str, set[int]] = defaultdict(set)
        for movies in found:
            if isinstance(movies, RetrieveMoviesResponse):
                wanted[movies.model_version].update(movies.movie_ids)
        texts: dict[str, Mapping[int, str] | RequestError] = {}
        for version, movie_ids in wanted.items():
            try:
                texts[version] = await self._texts.of(version, movie_ids, deadline)
            except RequestError as error:
                texts[version] = error
        return texts

    async def _shared_version(self, retrievable: Sequence[str], deadline: float) -> str:
        """The best of the versions that retrieval serves which the user tower serves too."""
        seconds = seconds_until(deadline)
        embeddable = [model.model_version for model in (await self._user_tower.models(seconds)).models]
        for version in retrievable:
            if version in embeddable:
                return version
        raise NotReady(
            f"the user tower serves {', '.join(embeddable) or 'no model'}, retrieval "
            f"{', '.join(retrievable) or 'none'}: no model in common"
        )


def _bytes_of(ask: Ask) -> int:
    """What a row comes to in the two calls, but for what the user tower adds: a few bytes a rating."""
    return ask.user.ByteSize() + ask.search.ByteSize()


def _shared(indexes: Models, towers: Models) -> list[str]:
    embeddable = {model.model_version for model in towers.models}
    return [m.model_version for m in indexes.models if m.model_version in embeddable]


def _join(
    user: UserEmbedding,
    movies: RetrieveMoviesResponse,
    texts: Mapping[str, Mapping[int, str] | RequestError],
) -> Recommendation | RequestError:
    of_movies = texts[movies.model_version]
    if isinstance(of_movies, RequestError):
        return of_movies
    return Recommendation(user, movies, of_movies)


def _check(
    search: RetrieveMoviesRequest, found: RetrieveMoviesResponse | RequestError
) -> RetrieveMoviesResponse | RequestError:
    """The answer itself, unless it cannot be, or is the refusal of an embedding that cannot be."""
    if isinstance(found, RequestError):
        # The client has given no embedding: that it is at fault must not be the client's.
        is_towers = isinstance(found, InvalidRequest) and found.field.startswith("embedding.")
        return BadAnswer(f"the user tower's answer is refused: {found.message}") if is_towers else found
    count = len(found.movie_ids)
    if found.model_version != search.embedding.model_version:
        return BadAnswer("retrieval answered by another model than the user tower's")
    if count != len(set(found.movie_ids)):
        return BadAnswer("retrieval answered with a movie twice")
    optional = len(found.predicted_ratings), len(found.external_ids)
    if count != len(found.scores) or not {0, count}.issuperset(optional):
        return BadAnswer(
            "retrieval answered with more scores, ratings or external ids than movies, or fewer"
        )
    if not math.isfinite(sum(found.scores) + sum(found.predicted_ratings)):
        return BadAnswer("retrieval answered with a score or a rating that is not finite")
    return check_count(count, search.k, found) or found
