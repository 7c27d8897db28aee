"""The gateway's ASGI application."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import twotower
from gateway import api, operations, problems
from gateway.recommender import Recommender
from gateway.settings import GatewaySettings
from gateway.shortcut import PATH, Shortcut
from twotower.errors import InternalError
from twotower.metrics import REQUESTS, STAGE_SECONDS
from twotower.request_ids import REQUEST_ID_KEY, check_request_id

_DESCRIPTION: Final = """
Movies for anyone, in real time: for a user of the training data, for ratings given in the request, or
for aggregates of them. Errors are problem documents (RFC 9457) that name the field, the value and what
is allowed.
"""

_REQUEST_ID: Final = REQUEST_ID_KEY.encode()

log = structlog.get_logger()


def create_app(settings: GatewaySettings) -> FastAPI:
    """The application; it connects to the services when it is started."""

    @asynccontextmanager
    async def connected(app: FastAPI) -> AsyncIterator[None]:
        async with Recommender(settings) as recommender:
            app.state.recommender = recommender
            yield

    app = FastAPIOffline(  # the page at /docs needs nothing from elsewhere
        redoc_url=None,
        title="Twotower",
        description=_DESCRIPTION,
        version=twotower.__version__,
        lifespan=connected,
        redirect_slashes=False,  # a redirected POST would lose its body
    )
    app.state.settings = settings
    app.include_router(api.router)
    app.include_router(operations.router)
    problems.register(app)
    app.add_middleware(Shortcut, max_body_bytes=settings.max_body_bytes)
    app.add_middleware(_Observer)
    # Outermost: a browser shows its page no answer without these headers, an unexpected error included.
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.cors_origins,
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=[REQUEST_ID_KEY],
    )
    return app


class _Observer:
    """Around every request: its id in context, answer and log; its metrics; its unexpected error."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        request_id = check_request_id(_header(scope, _REQUEST_ID))
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
            await self._app(scope, receive, observed_send)
        except Exception:
            if status:
                raise  # an answer broken off can only be broken off
            log.exception("request failed")
            answer = problems.respond(problems.problem_of(InternalError("internal error")))
            await answer(scope, receive, observed_send)
        finally:
            _record(scope, status or 500, time.perf_counter() - start)


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def _record(scope: Scope, status: int, seconds: float) -> None:
    # The route's template, not the path: a metric per movie would be one too many.
    route = scope["path"] if scope["path"] == PATH else getattr(scope.get("route"), "path", "none")
    REQUESTS.labels(f"{scope['method']} {route}", str(status)).inc()
    STAGE_SECONDS.labels("request").observe(seconds)
    log.info(
        "request",
        method=scope["method"],
        path=scope["path"],
        status=status,
        ms=round(seconds * 1000, 3),
    )
