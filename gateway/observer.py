"""What every request has around it, whichever way it is answered."""

from __future__ import annotations

import asyncio
import time
from functools import lru_cache
from typing import Final

import structlog
from prometheus_client import Counter
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway import problems
from twotower.errors import InternalError
from twotower.metrics import REQUESTS, STAGE_SECONDS
from twotower.request_ids import REQUEST_ID_KEY, check_request_id

_REQUEST_ID: Final = REQUEST_ID_KEY.encode()
NOT_WAITED_FOR: Final = 499
"""As nginx counts a request whose connection ended before its answer."""
_SECONDS: Final = STAGE_SECONDS.labels("request")

log = structlog.get_logger()


class Observer:
    """Around every request to an application: `observe`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        request_id = request_id_of(scope)
        await observe(self._app, scope, receive, send, request_id=request_id, start=start)


async def observe(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, *, request_id: str, start: float
) -> None:
    """Let an application answer, with the request's id in context, answer and log; count and time it.

    `start` is by time.perf_counter(). An unexpected error becomes an answer too.
    """
    status = 0

    async def observed_send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            message["headers"].append((_REQUEST_ID, request_id.encode()))
        await send(message)

    # Never taken back: uvicorn gives every request a context of its own.
    structlog.contextvars.bind_contextvars(request_id=request_id)
    try:
        await app(scope, receive, observed_send)
    except (asyncio.CancelledError, ClientDisconnect):
        # The connection has ended: nothing has failed.
        status = status or NOT_WAITED_FOR
    except Exception:
        if status:
            raise  # an answer broken off can only be broken off
        log.exception("request failed")
        answer = problems.respond(problems.problem_of(InternalError("internal error")))
        await answer(scope, receive, observed_send)
    finally:
        record(scope, status or 500, time.perf_counter() - start, request_id)


def header(scope: Scope, name: bytes) -> str:
    """A header of a request, by its name in lower case; empty where there is none."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def request_id_of(scope: Scope) -> str:
    """The id that a request brings along, or a new one."""
    return check_request_id(header(scope, _REQUEST_ID))


def record(scope: Scope, status: int, seconds: float, request_id: str) -> None:
    """Count a request that is answered, time it, and write its line of the log."""
    # The route's template, not the path: a metric per movie would be one too many.
    route = getattr(scope.get("route"), "path", "none")
    _counter(scope["method"], route, status).inc()
    _SECONDS.observe(seconds)
    log.info(
        "request",
        request_id=request_id,
        method=scope["method"],
        path=scope["path"],
        status=status,
        ms=round(seconds * 1000, 3),
    )


@lru_cache
def _counter(method: str, route: str, status: int) -> Counter:
    counter: Counter = REQUESTS.labels(f"{method} {route}", str(status))
    return counter
