from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import structlog
from fastapi import FastAPI

from gateway.app import create_app
from gateway.problems import faults_of, problem_of, problem_of_faults, respond
from gateway.schemas import RecommendationRequest
from gateway.settings import GatewaySettings
from twotower import errors
from twotower.logs import set_up_logging

FRIEND = "https://friend.example"


@pytest.mark.parametrize(
    ("error", "status", "kind", "title"),
    [
        (errors.InvalidRequest("m"), 422, "invalid-request", "Invalid request"),
        (errors.MalformedBody("m"), 400, "malformed-body", "Malformed body"),
        (errors.BodyTooLarge("m"), 413, "body-too-large", "Body too large"),
        (errors.UnsupportedMediaType("m"), 415, "unsupported-media-type", "Unsupported media type"),
        (errors.UserNotFound("m"), 404, "user-not-found", "User not found"),
        (errors.MovieNotFound("m"), 404, "movie-not-found", "Movie not found"),
        (errors.Unavailable("m"), 503, "unavailable", "Unavailable"),
        (errors.NotReady("m"), 503, "not-ready", "Not ready"),
        (errors.ModelNotServed("m"), 503, "model-not-served", "Model not served"),
        (errors.DeadlineExceeded("m"), 504, "deadline-exceeded", "Deadline exceeded"),
        (errors.InternalError("m"), 500, "internal-error", "Internal error"),
        (errors.BadAnswer("m"), 502, "bad-answer", "Bad answer"),
    ],
)
def test_every_error_is_a_problem(
    error: errors.RequestError, status: int, kind: str, title: str
) -> None:
    problem = problem_of(error)
    assert problem.status == status
    assert problem.type == f"urn:twotower:problem:{kind}"
    assert problem.title == title
    assert problem.detail == "m"


def test_the_field_at_fault_is_named() -> None:
    assert problem_of(errors.InvalidRequest("no such k")).errors == []
    (fault,) = problem_of(errors.InvalidRequest("no such k", field="k")).errors
    assert (fault.field, fault.message) == ("k", "no such k")


def faults(*locations: tuple[str | int, ...], value: object = 1) -> Any:
    """Complaints as pydantic makes them."""
    return [{"loc": location, "input": value, "msg": "no"} for location in locations]


@pytest.mark.parametrize(
    ("location", "path"),
    [
        (("body", "k"), "k"),
        (("query", "k"), "k"),
        (("body", "ratings", 2, "rating"), "ratings[2].rating"),
        (("body", "exclude_movie_ids", 0), "exclude_movie_ids[0]"),
        (("body", "features", "genre_means", "Sci-Fi"), "features.genre_means.Sci-Fi"),
        (("body",), ""),
        (("body", "x" * 10_000), "x" * 80),
    ],
)
def test_a_field_is_named_by_its_path(location: tuple[str | int, ...], path: str) -> None:
    problem = problem_of_faults(faults(location))
    assert problem.errors[0].field == path
    assert problem.detail == f"{path or 'the body'}: no; given: 1"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (True, "true"),
        (None, "null"),
        ("ten", '"ten"'),
        (2.5, "2.5"),
        (float("nan"), "NaN"),
        (float("inf"), "Infinity"),
        ({"a": [1]}, '{"a": [1]}'),
        ("\N{SNOWMAN}", r'"\u2603"'),
        ("\ud800", r'"\ud800"'),
        (b"\xff", "\"b'\\\\xff'\""),
        ("x" * 1000, '"' + "x" * 79 + "..."),
        ([1] * 1000, "[" + "1, " * 26 + "1..."),
    ],
)
def test_what_was_given_is_shown_as_json(value: object, shown: str) -> None:
    problem = problem_of_faults(faults(("body", "k"), value=value))
    assert problem.errors[0].value == shown
    assert problem.model_dump_json().isascii()


def test_many_faults_are_counted_and_some_are_shown() -> None:
    problem = problem_of_faults(faults(*[("body", "ratings", place) for place in range(1000)]))
    assert problem.detail.endswith("(and 999 more)")
    assert problem.errors[0].field == "ratings[0]"
    assert len(problem.errors) == 20


def test_a_model_complains_as_a_request_does() -> None:
    with pytest.raises(ValueError, match="k") as caught:
        RecommendationRequest.model_validate({"user_id": 1, "k": 0})
    assert problem_of_faults(faults_of(caught.value)).errors[0].field == "k"


@pytest.mark.parametrize("retry", [False, True])
def test_a_problem_as_a_response(*, retry: bool) -> None:
    problem = problem_of(errors.Unavailable("gone"))
    response = respond(problem, retry=retry, headers={"allow": "GET"})
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["allow"] == "GET"
    assert ("retry-after" in response.headers) == retry
    assert json.loads(bytes(response.body)) == problem.model_dump()


@pytest.fixture
def app() -> FastAPI:
    """The gateway's application, with routes that fail."""
    app = create_app(GatewaySettings(cors_origins=[FRIEND]))

    async def fail() -> None:
        raise ZeroDivisionError("the secret")

    async def fail_on_purpose() -> None:
        raise errors.NotReady("not yet")

    app.add_api_route("/fails", fail)
    app.add_api_route("/fails-on-purpose", fail_on_purpose)
    return app


@pytest.fixture
def _restored() -> Iterator[None]:
    """Logging as it was, once the test is over."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def get(app: FastAPI, path: str, **headers: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(ask())


@pytest.mark.usefixtures("_restored")
def test_an_unexpected_error_shows_nothing_but_a_request_id(
    app: FastAPI, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up_logging("gateway", "info")
    answer = get(app, "/fails", **{"x-request-id": "abc-1"})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "abc-1"
    assert answer.json()["detail"] == "internal error"
    assert "secret" not in answer.text
    lines = map(json.loads, capsys.readouterr().out.splitlines())
    logged = {line["event"]: line for line in lines if line.get("request_id") == "abc-1"}
    assert "ZeroDivisionError: the secret" in logged["request failed"]["exception"]
    assert logged["request"]["status"] == 500


@pytest.mark.parametrize(("path", "status"), [("/fails", 500), ("/fails-on-purpose", 503), ("/", 404)])
@pytest.mark.parametrize(("origin", "allowed"), [(FRIEND, FRIEND), ("https://foe.example", None)])
def test_a_browser_may_read_every_failure(
    app: FastAPI, path: str, status: int, origin: str, allowed: str | None
) -> None:
    answer = get(app, path, origin=origin)
    assert answer.status_code == status
    assert answer.headers.get("access-control-allow-origin") == allowed
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_only_what_may_succeed_later_asks_for_a_retry(app: FastAPI) -> None:
    assert get(app, "/fails-on-purpose").headers["retry-after"] == "1"
    assert "retry-after" not in get(app, "/fails").headers
