"""The two services as the gateway calls them: channels, deadlines, retries, errors."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Sequence
from typing import Final, Protocol, TypeVar

import grpc
import structlog

from twotower.codes import from_proto, from_rpc_error
from twotower.errors import BadAnswer, InvalidRequest, RequestError
from twotower.metrics import BATCH_SIZE, stage
from twotower.request_ids import REQUEST_ID_KEY, current_request_id
from twotower.v1 import embedding_pb2 as pb
from twotower.v1 import retrieval_pb2, user_tower_pb2
from twotower.v1.retrieval_pb2_grpc import RetrievalServiceStub
from twotower.v1.user_tower_pb2_grpc import UserTowerServiceStub

# Every call is a pure function, so a replica that cannot be reached is simply left for another.
_SERVICE_CONFIG: Final = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                # Replicas listen once they have a model: few that are connected to cannot answer.
                "maxAttempts": 3,
                "initialBackoff": "0.02s",
                "maxBackoff": "0.2s",
                "backoffMultiplier": 2,
                # A server that ends cancels the calls that reach it while it closes.
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ],
}
_OPTIONS: Final = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),  # the services are at hand, whatever the environment says
    # A replica that begins to listen must be found at once: those it replaces go within the second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1_000),  # despite its name, what an attempt may take
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    # A host that vanished without a word must be noticed.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 2_000),
)

R = TypeVar("R")

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


class UserTowerClient:
    """The user tower's replicas. Made within a running event loop."""

    name: Final = "the user tower"

    def __init__(self, target: str) -> None:
        self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        self._stub = UserTowerServiceStub(self._channel)

    async def embed(
        self, users: list[user_tower_pb2.EmbedUserRequest], seconds: float
    ) -> list[pb.UserEmbedding | RequestError]:
        """Embed users as one batch. Raises RequestError where the whole call fails."""
        request = user_tower_pb2.BatchEmbedUsersRequest(users=users)
        BATCH_SIZE.labels("BatchEmbedUsers").observe(len(users))
        with stage("embed"):
            response = await _call(
                self.name,
                self._stub.BatchEmbedUsers(request, timeout=seconds, metadata=_metadata(users)),
            )
        _check_rows(self.name, len(users), len(response.results))
        return [
            from_proto(row.error) if row.HasField("error") else row.embedding for row in response.results
        ]

    async def models(self, seconds: float) -> Models:
        """The models served and refused. Raises RequestError."""
        request = user_tower_pb2.UserTowerServiceListModelsRequest()
        return await _call(
            self.name, self._stub.ListModels(request, timeout=seconds, metadata=_metadata())
        )

    async def close(self) -> None:
        """Let the connections go."""
        await self._channel.close()


class RetrievalClient:
    """Retrieval's replicas. Made within a running event loop."""

    name: Final = "retrieval"

    def __init__(self, target: str) -> None:
        self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        self._stub = RetrievalServiceStub(self._channel)

    async def retrieve(
        self, users: list[retrieval_pb2.RetrieveMoviesRequest], seconds: float
    ) -> list[retrieval_pb2.RetrieveMoviesResponse | RequestError]:
        """Search for users as one batch. Raises RequestError where the whole call fails."""
        request = retrieval_pb2.BatchRetrieveMoviesRequest(users=users)
        BATCH_SIZE.labels("BatchRetrieveMovies").observe(len(users))
        with stage("retrieve"):
            response = await _call(
                self.name,
                self._stub.BatchRetrieveMovies(request, timeout=seconds, metadata=_metadata(users)),
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
        return await _call(
            self.name, self._stub.FindSimilarMovies(request, timeout=seconds, metadata=_metadata())
        )

    async def movies(
        self, movie_ids: list[int], model_version: str, seconds: float
    ) -> retrieval_pb2.GetMoviesResponse:
        """Movies by id, of a model; of the preferred one where that is empty. Raises RequestError."""
        request = retrieval_pb2.GetMoviesRequest(movie_ids=movie_ids, model_version=model_version)
        return await _call(
            self.name, self._stub.GetMovies(request, timeout=seconds, metadata=_metadata())
        )

    async def named(self, external_id: str, seconds: float) -> retrieval_pb2.GetMoviesResponse:
        """A movie by external id, of the preferred model. Raises RequestError."""
        request = retrieval_pb2.GetMoviesRequest(external_ids=[external_id])
        try:
            return await _call(
                self.name, self._stub.GetMovies(request, timeout=seconds, metadata=_metadata())
            )
        except InvalidRequest as error:  # of the field of several, where here there is but one
            message = error.message.replace("external_ids", "external_id", 1)
            raise InvalidRequest(message, field="external_id") from error

    async def search(self, title: str, limit: int, seconds: float) -> retrieval_pb2.SearchMoviesResponse:
        """Movies by title. Raises RequestError."""
        request = retrieval_pb2.SearchMoviesRequest(title=title, limit=limit)
        return await _call(
            self.name, self._stub.SearchMovies(request, timeout=seconds, metadata=_metadata())
        )

    async def models(self, seconds: float) -> Models:
        """The models served and refused. Raises RequestError."""
        request = retrieval_pb2.RetrievalServiceListModelsRequest()
        return await _call(
            self.name, self._stub.ListModels(request, timeout=seconds, metadata=_metadata())
        )

    async def close(self) -> None:
        """Let the connections go."""
        await self._channel.close()


def _metadata(rows: Sequence[Row] = ()) -> tuple[tuple[str, str], ...]:
    """The request id of a call: that of its only row, or of the request being answered."""
    request_id = rows[0].request_id if len(rows) == 1 else current_request_id()
    return ((REQUEST_ID_KEY, request_id),) if request_id else ()


async def _call(service: str, call: Awaitable[R]) -> R:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        log.warning(
            "call failed", service_called=service, code=error.code().name, details=error.details()
        )
        raise from_rpc_error(error, service) from error


def _check_rows(service: str, sent: int, received: int) -> None:
    if sent != received:
        raise BadAnswer(f"{service} answered {received} rows of {sent}")
