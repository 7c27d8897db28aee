"""The errors of Twotower, and how each reads over gRPC and HTTP.

TwotowerError
├── RequestError               a request ends in it
│   ├── InvalidRequest         a field is missing, of the wrong kind, or outside what is allowed
│   │   ├── MalformedBody      the body is not JSON
│   │   ├── BodyTooLarge
│   │   └── UnsupportedMediaType
│   ├── NotFound
│   │   ├── UserNotFound
│   │   └── MovieNotFound
│   ├── Unavailable            a service cannot be reached, or is shutting down
│   │   ├── NotReady           no model is loaded yet
│   │   └── ModelNotServed     the named model version is not loaded here
│   ├── DeadlineExceeded
│   └── InternalError          a fault of our own
│       └── BadAnswer          a service answered with what cannot be
└── OperationError             a command or a start-up ends in it
    ├── BundleError            a bundle is missing, damaged or of another format
    ├── DataError              ratings or movies cannot be read
    └── SettingsError          a setting is missing or not allowed
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, cast

import grpc
from google.protobuf import any_pb2
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from twotower.v1 import embedding_pb2 as pb


class TwotowerError(Exception):
    """Any error that Twotower raises on purpose. Its text is one sentence for people."""


class RequestError(TwotowerError):
    """A request ends in it. `field` is the path of the field at fault, or empty."""

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class InvalidRequest(RequestError):
    """A field is missing, of the wrong kind, or outside what is allowed."""


class MalformedBody(InvalidRequest):
    """The body of an HTTP request is not JSON."""


class BodyTooLarge(InvalidRequest):
    """The body of an HTTP request is longer than allowed."""


class UnsupportedMediaType(InvalidRequest):
    """The body of an HTTP request is not announced as JSON."""


class NotFound(RequestError):
    """What the request names does not exist."""


class UserNotFound(NotFound):
    """The user id is not in the model."""


class MovieNotFound(NotFound):
    """The movie id is not in the catalogue."""


class Unavailable(RequestError):
    """A service cannot be reached or is shutting down; a later try may succeed."""


class NotReady(Unavailable):
    """No model is loaded yet."""


class ModelNotServed(Unavailable):
    """The named model version is not loaded here; `served` lists what is, the preferred one first."""

    def __init__(self, message: str, *, served: Sequence[str] = ()) -> None:
        super().__init__(message, field="model_version")
        self.served = tuple(served)


class DeadlineExceeded(RequestError):
    """The request's time ran out."""


class InternalError(RequestError):
    """A fault of our own. The client sees an opaque text and the request id."""


class BadAnswer(InternalError):
    """A service answered with what cannot be, such as a score that is not finite."""


class OperationError(TwotowerError):
    """A command or a start-up ends in it: one line, exit status 1."""


class BundleError(OperationError):
    """A bundle is missing, damaged or of another format."""


class DataError(OperationError):
    """Ratings or movies cannot be read."""


class SettingsError(OperationError):
    """A setting is missing or not allowed."""


class Code(NamedTuple):
    """How an error reads: its reason in a protobuf `Error`, its gRPC status, its HTTP status."""

    reason: pb.ErrorReason.ValueType
    grpc: grpc.StatusCode
    http: int


_STATUS = grpc.StatusCode
CODES: dict[type[RequestError], Code] = {
    InvalidRequest: Code(pb.ERROR_REASON_INVALID_REQUEST, _STATUS.INVALID_ARGUMENT, 422),
    MalformedBody: Code(pb.ERROR_REASON_INVALID_REQUEST, _STATUS.INVALID_ARGUMENT, 400),
    BodyTooLarge: Code(pb.ERROR_REASON_INVALID_REQUEST, _STATUS.INVALID_ARGUMENT, 413),
    UnsupportedMediaType: Code(pb.ERROR_REASON_INVALID_REQUEST, _STATUS.INVALID_ARGUMENT, 415),
    UserNotFound: Code(pb.ERROR_REASON_USER_NOT_FOUND, _STATUS.NOT_FOUND, 404),
    MovieNotFound: Code(pb.ERROR_REASON_MOVIE_NOT_FOUND, _STATUS.NOT_FOUND, 404),
    NotFound: Code(pb.ERROR_REASON_INVALID_REQUEST, _STATUS.NOT_FOUND, 404),
    ModelNotServed: Code(pb.ERROR_REASON_MODEL_NOT_SERVED, _STATUS.FAILED_PRECONDITION, 503),
    NotReady: Code(pb.ERROR_REASON_NOT_READY, _STATUS.UNAVAILABLE, 503),
    Unavailable: Code(pb.ERROR_REASON_NOT_READY, _STATUS.UNAVAILABLE, 503),
    DeadlineExceeded: Code(pb.ERROR_REASON_DEADLINE_EXCEEDED, _STATUS.DEADLINE_EXCEEDED, 504),
    InternalError: Code(pb.ERROR_REASON_INTERNAL, _STATUS.INTERNAL, 500),
    BadAnswer: Code(pb.ERROR_REASON_INTERNAL, _STATUS.INTERNAL, 502),
}
_BY_GRPC_CODE = {code.grpc: kind for kind, code in reversed(CODES.items())} | {
    _STATUS.UNAVAILABLE: Unavailable,
    _STATUS.CANCELLED: Unavailable,
}


# What a client gave may be in an error, and a status travels in headers, which hold but 8 KB.
_MESSAGE_BYTES: Final = 1000
_FIELD_BYTES: Final = 200


def code_of(error: RequestError) -> Code:
    """How the error reads; a kind without an entry of its own reads as its nearest ancestor."""
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


def to_proto(error: RequestError) -> pb.Error:
    """The error as a row of a batch carries it."""
    served = error.served if isinstance(error, ModelNotServed) else ()
    return pb.Error(
        reason=code_of(error).reason,
        message=_shorten(error.message, _MESSAGE_BYTES),
        field=_shorten(error.field, _FIELD_BYTES),
        served_model_versions=served,
    )


def from_proto(error: pb.Error) -> RequestError:
    """The error that a row of a batch carries."""
    kind = next((kind for kind, code in CODES.items() if code.reason == error.reason), InternalError)
    if kind is ModelNotServed:
        return ModelNotServed(error.message, served=error.served_model_versions)
    return kind(error.message, field=error.field)


def to_status(error: RequestError) -> grpc.Status:
    """The error as a gRPC status, its `Error` packed as a detail for programs."""
    packed = to_proto(error)
    detail = any_pb2.Any()
    detail.Pack(packed)
    status = Status(code=code_of(error).grpc.value[0], message=packed.message, details=[detail])
    return cast("grpc.Status", rpc_status.to_status(status))


def from_rpc_error(error: grpc.aio.AioRpcError, service: str) -> RequestError:
    """The error that a call to `service` ended in, whether the service sent it or gRPC itself."""
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        packed = pb.Error()
        if detail.Unpack(packed):
            return from_proto(packed)
    kind = _BY_GRPC_CODE.get(error.code(), InternalError)
    if kind is Unavailable:
        return Unavailable(f"{service} cannot be reached")
    if kind is DeadlineExceeded:
        return DeadlineExceeded(f"{service} did not answer in time")
    return kind(f"{service}: {error.details()}")


def _shorten(text: str, most: int) -> str:
    encoded = text.encode(errors="replace")
    return text if len(encoded) <= most else f"{encoded[:most].decode(errors='ignore')}..."
