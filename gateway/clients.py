"""The two services as the gateway calls them: requests, deadlines, errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Generic, Protocol, TypeVar

import grpc
import structlog

from gateway.replicas import Replicas
from twotower.codes import from_proto, from_rpc_error
from twotower.errors import BadAnswer, InvalidRequest, RequestError
from twotower.metrics import BATCH_SIZE, stage
from twotower.request_ids import REQUEST_ID_KEY, current_request_id
from twotower.v1 import embedding_pb2 as pb
from twotower.v1 import retrieval_pb2, user_tower_pb2
from twotower.v1.retrieval_pb2_grpc import RetrievalServiceStub
from twotower.v1.user_tower_pb2_grpc import UserTowerServiceStub

if TYPE_CHECKING:
    from twotower.v1.retrieval_pb2_grpc import RetrievalServiceAsyncStub
    from twotower.v1.user_tower_pb2_grpc import UserTowerServiceAsyncStub

R = TypeVar("R")
Stub = TypeVar("Stub")

log = structlog.get_logger()


class Row(Protocol):
    """A row of a batch."""

    @property
    def request_id(self) -> str:
        """The request it is of."""
        ...


class Models(Protocol):
    """The models of a service, as both services list them."""

    @property
    def models(self) -> Sequence[pb.Model]:
        """Those served, the preferred one first."""
        ...

    @property
    def refused(self) -> Sequence[pb.RefusedModel]:
        """Those refused."""
        ...


class _Client(Generic[Stub]):
    """A service's replicas, and calls to them. Made within a running event loop."""

    name: ClassVar[str]

    def __init__(
        self,
        target: str,
        stub: Callable[[grpc.aio.Channel], Stub],
        list_models: Callable[[Stub, float], Awaitable[Models]],
    ) -> None:
        self.replicas = Replicas(target, stub, list_models)
        self._list_models = list_models

    async def models(self, seconds: float) -> Models:
        """The models served and refused. Raises RequestError."""
        return await self._call(self._list_models, seconds)

    async def _call(self, call: Callable[[Stub, float], Awaitable[R]], seconds: float) -> R:
        try:
            answer = await self.replicas.call(call, seconds)
        except grpc.aio.AioRpcError as error:
            log.warning(
                "call failed", service_called=self.name, code=error.code().name, details=error.details()
            )
            raise from_rpc_error(error, self.name) from error
        if answer is None:  # as gRPC has what it cannot parse
            raise BadAnswer(f"{self.name} answered with what is no message of the method")
        return answer


class UserTowerClient(_Client["UserTowerServiceAsyncStub"]):
    """The user tower's replicas. Made within a running event loop."""

    name = "the user tower"

    def __init__(self, target: str) -> None:
        super().__init__(target, UserTowerServiceStub, self._list)

    async def embed(
        self, users: list[user_tower_pb2.EmbedUserRequest], seconds: float
    ) -> list[pb.UserEmbedding | RequestError]:
        """Embed users as one batch. Raises RequestError where the whole call fails."""
        request = user_tower_pb2.BatchEmbedUsersRequest(users=users)
        BATCH_SIZE.labels("BatchEmbedUsers").observe(len(users))
        metadata = _metadata(users)
        with stage("embed"):
            response = await self._call(
                lambda stub, left: stub.BatchEmbedUsers(request, timeout=left, metadata=metadata),
                seconds,
            )
        _check_rows(self.name, len(users), len(response.results))
        return [
            from_proto(row.error) if row.HasField("error") else row.embedding for row in response.results
        ]

    @staticmethod
    def _list(
        stub: UserTowerServiceAsyncStub, seconds: float
    ) -> Awaitable[user_tower_pb2.UserTowerServiceListModelsResponse]:
        request = user_tower_pb2.UserTowerServiceListModelsRequest()
        return stub.ListModels(request, timeout=seconds, metadata=_metadata())


class RetrievalClient(_Client["RetrievalServiceAsyncStub"]):
    """Retrieval's replicas. Made within a running event loop."""

    name = "retrieval"

    def __init__(self, target: str) -> None:
        super().__init__(target, RetrievalServiceStub, self._list)

    async def retrieve(
        self, users: list[retrieval_pb2.RetrieveMoviesRequest], seconds: float
    ) -> list[retrieval_pb2.RetrieveMoviesResponse | RequestError]:
        """Search for users as one batch. Raises RequestError where the whole call fails."""
        request = retrieval_pb2.BatchRetrieveMoviesRequest(users=users)
        BATCH_SIZE.labels("BatchRetrieveMovies").observe(len(users))
        metadata = _metadata(users)
        with stage("retrieve"):
            response = await self._call(
                lambda stub, left: stub.BatchRetrieveMovies(request, timeout=left, metadata=metadata),
                seconds,
            )
        _check_rows(self.name, len(users), len(response.results))
        return [
            from_proto(row.error) if row.HasField("error") else row.response for row in response.results
        ]

    async def similar(
        self, movie: int | str, k: int, seconds: float
    ) -> retrieval_pb2.FindSimilarMoviesResponse:
        """The movies nearest to a movie, by its id or its external id. Raises RequestError."""
        request = retrieval_pb2.FindSimilarMoviesRequest(k=k)
        if isinstance(movie, str):
            request.external_id = movie
        else:
            request.movie_id = movie
        found = await self._call(
            lambda stub, left: stub.FindSimilarMovies(request, timeout=left, metadata=_metadata()),
            seconds,
        )
        if error := check_count(len(found.movies), k, found):
            raise error
        return found

    async def movies(
        self, movie_ids: list[int], model_version: str, seconds: float
    ) -> retrieval_pb2.GetMoviesResponse:
        """Movies by id, of a model; of the preferred one where that is empty. Raises RequestError."""
        request = retrieval_pb2.GetMoviesRequest(movie_ids=movie_ids, model_version=model_version)
        return await self._call(
            lambda stub, left: stub.GetMovies(request, timeout=left, metadata=_metadata()),
            seconds,
        )

    async def named(self, external_id: str, seconds: float) -> retrieval_pb2.GetMoviesResponse:
        """A movie by external id, of the preferred model. Raises RequestError."""
        request = retrieval_pb2.GetMoviesRequest(external_ids=[external_id])
        try:
            return await self._call(
                lambda stub, left: stub.GetMovies(request, timeout=left, metadata=_metadata()),
                seconds,
            )
        except InvalidRequest as error:  # of the field of several, where here there is but one
            message = error.message.replace("external_ids", "external_id", 1)
            raise InvalidRequest(message, field="external_id") from error

    async def search(self, title: str, limit: int, seconds: float) -> retrieval_pb2.SearchMoviesResponse:
        """Movies by title. Raises RequestError."""
        request = retrieval_pb2.SearchMoviesRequest(title=title, limit=limit)
        return await self._call(
            lambda stub, left: stub.SearchMovies(request, timeout=left, metadata=_metadata()),
            seconds,
        )

    @staticmethod
    def _list(
        stub: RetrievalServiceAsyncStub, seconds: float
    ) -> Awaitable[retrieval_pb2.RetrievalServiceListModelsResponse]:
        request = retrieval_pb2.RetrievalServiceListModelsRequest()
        return stub.ListModels(request, timeout=seconds, metadata=_metadata())


def _metadata(rows: Sequence[Row] = ()) -> tuple[tuple[str, str], ...]:
    """The request id of a call: that of its only row, or of the request being answered."""
    request_id = rows[0].request_id if len(rows) == 1 else current_request_id()
    return ((REQUEST_ID_KEY, request_id),) if request_id else ()


def check_count(
    count: int,
    k: int,
    found: retrieval_pb2.RetrieveMoviesResponse | retrieval_pb2.FindSimilarMoviesResponse,
) -> BadAnswer | None:
    """There must be k movies, or fewer and the reason why."""
    if count == k or (found.HasField("shortfall") and count < k):
        return None
    return BadAnswer(f"retrieval answered with {count} movies for {k}, and no reason")


def _check_rows(service: str, sent: int, received: int) -> None:
    if sent != received:
        raise BadAnswer(f"{service} answered {received} rows of {sent}")
