from __future__ import annotations

import re

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc.status_pb2 import Status
from grpc.aio import AioRpcError, Metadata
from grpc_status import rpc_status

import twotower.errors
from twotower.codes import CODES, code_of, from_proto, from_rpc_error, to_proto, to_status
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
    NotFound,
    NotReady,
    RequestError,
    TooSlow,
    TwotowerError,
    Unavailable,
    UnsupportedMediaType,
    UserNotFound,
)
from twotower.v1 import embedding_pb2 as pb


def descendants(kind: type[TwotowerError]) -> list[type[TwotowerError]]:
    return [below for child in kind.__subclasses__() for below in (child, *descendants(child))]


KINDS = [kind for kind in descendants(RequestError) if issubclass(kind, RequestError)]
READ_AS = {
    MalformedRequest: InvalidRequest,
    HeadTooLarge: InvalidRequest,
    TooSlow: InvalidRequest,
    MalformedBody: InvalidRequest,
    BodyTooLarge: InvalidRequest,
    UnsupportedMediaType: InvalidRequest,
    NotFound: InvalidRequest,
    Unavailable: NotReady,
    BadAnswer: InternalError,
}
"""Kinds that share their reason with another, and so come over the wire as that."""


def make(kind: type[RequestError]) -> RequestError:
    if kind is ModelNotServed:
        return ModelNotServed("a message", served=("b" * 16, "a" * 16))
    return kind("a message", field="ratings[2].rating")


def parts(error: RequestError) -> tuple[type[RequestError], str, str, tuple[str, ...]]:
    return type(error), error.message, error.field, getattr(error, "served", ())


def as_received(error: RequestError) -> AioRpcError:
    """The error as the caller of a service gets it."""
    status = to_status(error)
    trailing = Metadata(*(status.trailing_metadata or ()))
    return AioRpcError(status.code, Metadata(), trailing, details=status.details)


def test_the_tree_drawn_is_the_tree_there_is() -> None:
    drawn: dict[str, str] = {}
    path: list[str] = []
    text = str(twotower.errors.__doc__)
    for indent, name in re.findall(r"^([│├└─ ]*)(\w+)(?=\n|  )", text, re.MULTILINE):
        depth = len(indent) // 4
        path = [*path[:depth], name]
        drawn[name] = path[depth - 1] if depth else "Exception"
    there: list[type] = [TwotowerError, *descendants(TwotowerError)]
    assert drawn == {kind.__name__: kind.__bases__[0].__name__ for kind in there}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_code_of_its_own_or_its_ancestors(kind: type[RequestError]) -> None:
    code = code_of(make(kind))
    assert code == CODES.get(kind, code)
    assert 400 <= code.http <= 599
    assert code.grpc is not grpc.StatusCode.OK
    assert (code.http >= 500) == (
        code.grpc.name in {"UNAVAILABLE", "INTERNAL", "DEADLINE_EXCEEDED", "FAILED_PRECONDITION"}
    )


def test_a_kind_without_an_entry_reads_as_its_nearest_ancestor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(CODES, UserNotFound)
    assert code_of(UserNotFound("nobody")) == CODES[NotFound]


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_carries_an_error_there_and_back(kind: type[RequestError]) -> None:
    error = make(kind)
    received = from_proto(pb.Error.FromString(to_proto(error).SerializeToString()))
    assert parts(received) == (READ_AS.get(kind, kind), *parts(error)[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_a_status_carries_an_error_there_and_back(kind: type[RequestError]) -> None:
    error = make(kind)
    received = as_received(error)
    assert received.code() is code_of(error).grpc
    assert received.details() == "a message"
    assert parts(from_rpc_error(received, "the user tower")) == (
        READ_AS.get(kind, kind),
        *parts(error)[1:],
    )


def test_a_reason_of_a_later_release_is_a_fault_of_the_server() -> None:
    later = pb.Error(message="a message")
    later.MergeFromString(b"\x08\x63")  # reason 99
    assert parts(from_proto(later)) == (InternalError, "a message", "", ())


def test_a_detail_that_is_not_ours_is_passed_over() -> None:
    detail = any_pb2.Any()
    detail.Pack(pb.Rating(movie_id=1))
    status = rpc_status.to_status(Status(code=14, message="raw details", details=[detail]))
    trailing = Metadata(*status.trailing_metadata)
    error = AioRpcError(status.code, Metadata(), trailing, details=status.details)
    assert str(from_rpc_error(error, "the user tower")) == "the user tower cannot be reached"


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (grpc.StatusCode.UNAVAILABLE, Unavailable, "the user tower cannot be reached"),
        (grpc.StatusCode.CANCELLED, Unavailable, "the user tower cannot be reached"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded, "the user tower did not answer in time"),
        (grpc.StatusCode.INVALID_ARGUMENT, BadAnswer, "the user tower failed"),
        (grpc.StatusCode.NOT_FOUND, BadAnswer, "the user tower failed"),
        (grpc.StatusCode.UNIMPLEMENTED, BadAnswer, "the user tower failed"),
        (grpc.StatusCode.INTERNAL, BadAnswer, "the user tower failed"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Unavailable, "the user tower has too much to do"),
    ],
)
def test_an_error_of_grpc_itself(code: grpc.StatusCode, kind: type[RequestError], message: str) -> None:
    error = AioRpcError(code, Metadata(), Metadata(), details="raw details")
    assert parts(from_rpc_error(error, "the user tower"))[:2] == (kind, message)


def test_text_and_field_of_an_error() -> None:
    error = InvalidRequest("k: 0, allowed are 1 to 100", field="k")
    assert str(error) == error.message == "k: 0, allowed are 1 to 100"
    assert ModelNotServed("not here").field == "model_version"
