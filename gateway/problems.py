"""Every error as a problem document (RFC 9457), by the one table of codes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from gateway.schemas import Fault, Problem
from twotower.errors import InvalidRequest, RequestError, Unavailable, code_of

_SHOWN: Final = 80
_RETRY_AFTER: Final = {"retry-after": "1"}


def register(app: FastAPI) -> None:
    """Answer every error that a route ends in on purpose with a problem document."""

    @app.exception_handler(RequestError)
    async def _on_request_error(_request: Request, error: RequestError) -> Response:
        return respond(problem_of(error), retry=isinstance(error, Unavailable))

    @app.exception_handler(RequestValidationError)
    async def _on_validation_error(_request: Request, error: RequestValidationError) -> Response:
        return respond(problem_of_faults(error.errors()))

    @app.exception_handler(HTTPException)
    async def _on_http_error(request: Request, error: HTTPException) -> Response:
        phrase = HTTPStatus(error.status_code).phrase
        detail = f"{request.method} {request.url.path}: {phrase.lower()}; /docs lists what there is"
        problem = _problem(phrase.lower().replace(" ", "-"), phrase, error.status_code, detail)
        return respond(problem, headers=dict(error.headers or {}))


def problem_of(error: RequestError) -> Problem:
    """The problem that an error of ours is."""
    faults = [Fault(field=error.field, value=None, message=error.message)] if error.field else []
    return _problem(_slug(type(error)), _title(type(error)), code_of(error).http, error.message, faults)


def problem_of_faults(faults: Iterable[Any]) -> Problem:
    """The problem that pydantic's complaints are; `loc` is stripped of where the value came from."""
    shown = [
        Fault(field=_path(fault["loc"]), value=_shorten(fault.get("input")), message=fault["msg"])
        for fault in faults
    ]
    first = shown[0]
    more = f" (and {len(shown) - 1} more)" if len(shown) > 1 else ""
    detail = f"{first.field or 'the body'}: {first.message}; given: {first.value}{more}"
    kind = InvalidRequest
    status = code_of(InvalidRequest("")).http
    return _problem(_slug(kind), _title(kind), status, detail, shown[:_SHOWN])


def faults_of(error: ValidationError) -> list[Any]:
    """A model's complaints, in the form that `problem_of_faults` takes."""
    return [{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()]


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
        request_id=structlog.contextvars.get_contextvars().get("request_id", ""),
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
