"""Every error as a problem document (RFC 9457), by the one table of codes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from gateway.schemas import Fault, Problem
from twotower.codes import CODES, code_of
from twotower.errors import InvalidRequest, NotReady, RequestError, Unavailable
from twotower.request_ids import REQUEST_ID_KEY, check_request_id, current_request_id

_SHOWN: Final = 80
"""Characters of a value or a name."""
_FAULTS_SHOWN: Final = 20
_RETRY_AFTER: Final = {"retry-after": "1"}

log = structlog.get_logger()

_MEANING: Final = {
    400: "The body is not JSON",
    404: "The user or movie is not known",
    408: "The body did not come whole in time",
    413: "The body is too long",
    415: "The body is not announced as JSON, or is compressed",
    422: "A field is not allowed",
    502: "A service failed, or answered with what cannot be",
    503: "A service cannot answer now",
    504: "A service did not answer in time",
}


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of a route that may answer with these problems."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _MEANING[status], "content": content} for status in statuses}


def register(app: FastAPI) -> None:
    """Answer every error that a route ends in on purpose with a problem document."""

    @app.exception_handler(RequestError)
    async def _on_request_error(_request: Request, error: RequestError) -> Response:
        return respond_to(error)

    @app.exception_handler(RequestValidationError)
    async def _on_validation_error(_request: Request, error: RequestValidationError) -> Response:
        return respond(problem_of_faults(error.errors()))

    @app.exception_handler(HTTPException)
    async def _on_http_error(request: Request, error: HTTPException) -> Response:
        phrase = HTTPStatus(error.status_code).phrase
        detail = (
            f"{request.method} {request.url.path[:_SHOWN]}: {phrase.lower()}; /docs lists what there is"
        )
        problem = _problem(phrase.lower().replace(" ", "-"), phrase, error.status_code, detail)
        return respond(problem, headers=dict(error.headers or {}))


def problem_of(error: RequestError) -> Problem:
    """The problem that an error of ours is."""
    faults = [Fault(field=error.field, value=None, message=error.message)] if error.field else []
    return _problem(_slug(type(error)), _title(type(error)), code_of(error).http, error.message, faults)


def problem_of_faults(faults: Sequence[Any]) -> Problem:
    """The problem that pydantic's complaints are; `loc` is stripped of where the value came from."""
    shown = [
        Fault(field=_path(fault["loc"]), value=_shorten(fault.get("input")), message=fault["msg"])
        for fault in faults[:_FAULTS_SHOWN]
    ]
    first = shown[0]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    detail = f"{first.field or 'the body'}: {first.message}; given: {first.value}{more}"
    kind = InvalidRequest
    return _problem(_slug(kind), _title(kind), CODES[kind].http, detail, shown)


def faults_of(error: ValidationError) -> list[Any]:
    """A model's complaints, in the form that `problem_of_faults` takes."""
    return [{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()]


def not_ready(reason: str) -> Response:
    """That requests cannot be answered now, and why."""
    return respond(problem_of(NotReady(reason)), retry=True)


def respond_to(error: RequestError) -> Response:
    """An error of ours as an HTTP response."""
    return respond(problem_of(error), retry=isinstance(error, Unavailable))


def respond_unobserved(error: RequestError) -> Response:
    """The same where no request is being observed: with an id of its own, in the log as well."""
    request_id = check_request_id("")
    with structlog.contextvars.bound_contextvars(request_id=request_id):
        response = respond_to(error)
        log.info("no request", status=response.status_code, reason=error.message)
    response.headers[REQUEST_ID_KEY] = request_id
    return response


def respond(problem: Problem, *, retry: bool = False, headers: dict[str, str] | None = None) -> Response:
    """The problem as an HTTP response."""
    return Response(
        problem.model_dump_json(),
        status_code=problem.status,
        media_type="application/problem+json",
        headers={**(headers or {}), **(_RETRY_AFTER if retry else {})},
    )


def _problem(slug: str, title: str, status: int, detail: str, faults: Sequence[Fault] = ()) -> Problem:
    return Problem(
        type=f"urn:twotower:problem:{slug}",
        title=title,
        status=status,
        detail=detail,
        request_id=current_request_id(),
        errors=list(faults),
    )


def _slug(kind: type[RequestError]) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", kind.__name__).lower()


def _title(kind: type[RequestError]) -> str:
    return _slug(kind).replace("-", " ").capitalize()


def _path(loc: Sequence[str | int]) -> str:
    """("body", "ratings", 2, "rating") as ratings[2].rating."""
    path = ""
    for part in loc[1:]:
        path += f"[{part}]" if isinstance(part, int) else f".{part[:_SHOWN]}"
    return path.lstrip(".")


def _shorten(value: object) -> str:
    # As JSON, and ASCII: what was given can be shown whatever it was, half a surrogate pair for one.
    text = json.dumps(value, default=str)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
