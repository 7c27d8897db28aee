"""How each error reads over gRPC and HTTP: one table, and the translations by it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple, cast

import grpc
from google.protobuf import any_pb2
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from twotower.errors import (
    BadAnswer,
    BodyTooLarge,
    DeadlineExceeded,
    HeadTooLarge,
    InternalError,
    InvalidRequest,
    MalformedBody,
    MalformedRequest,
    ModelNotServed,
    MovieNotFound,
    NotFound,
    NotReady,
    RequestError,
    TooSlow,
    Unavailable,
    UnsupportedMediaType,
    UserNotFound,
)
from twotower.v1 import embedding_pb2 as pb


class Code(NamedTuple):
    """How an error reads: its reason in a protobuf `Error`, its gRPC status, its HTTP status."""

    reason: pb.ErrorReason.ValueType
    grpc: grpc.StatusCode
    http: int


_STATUS = grpc.StatusCode
CODES: Final[Mapping[type[RequestError], Code]] = {
    InvalidRequest: Code(pb.ERROR_REASON_INVALID_REQUEST, _STATUS.INVALID_ARGUMENT, 422),
    MalformedRequest: Code(pb.ERROR_REASON_INVALID_REQUEST, _STATUS.INVALID_ARGUMENT, 400),
    HeadTooLarge: Code(pb.ERROR_REASON_INVALID_REQUEST, _STATUS.INVALID_ARGUMENT, 431),
    TooSlow: Code(pb.ERROR_REASON_INVALID_REQUEST, _STATUS.INVALID_ARGUMENT, 408),
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
    match error.code():
        case _STATUS.UNAVAILABLE | _STATUS.CANCELLED:
            return Unavailable(f"{service} cannot be reached")
        case _STATUS.DEADLINE_EXCEEDED:
            return DeadlineExceeded(f"{service} did not answer in time")
        case _STATUS.RESOURCE_EXHAUSTED:
            return Unavailable(f"{service} has too much to do")
        case _:
            # gRPC's own words are for the log of whoever called, not for a client.
            return BadAnswer(f"{service} failed")


def _shorten(text: str, most: int) -> str:
    encoded = text.encode(errors="replace")
    return text if len(encoded) <= most else f"{encoded[:most].decode(errors='ignore')}..."
