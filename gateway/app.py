"""The gateway's ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

import twotower
from gateway import api, operations, problems
from gateway.observer import Observer
from gateway.recommender import Recommender
from gateway.settings import GatewaySettings
from twotower.errors import InvalidRequest
from twotower.process import settle_heap
from twotower.request_ids import REQUEST_ID_KEY

_DESCRIPTION: Final = """
Movies for anyone, in real time: for a user of the training data, for ratings given in the request, or
for aggregates of them. Errors are problem documents (RFC 9457) that name the field, the value and what
is allowed.
"""


class _Origins(CORSMiddleware):
    """Which pages may ask, and read the answers."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Tell a browser whether its page may ask; a refusal is a problem as any other."""
        response = super().preflight_response(request_headers)
        if response.status_code == HTTPStatus.OK:
            return response
        refusal = problems.respond_unobserved(
            InvalidRequest(bytes(response.body).decode(), field="origin")
        )
        refusal.headers["vary"] = response.headers["vary"]
        return refusal


def create_app(settings: GatewaySettings) -> FastAPI:
    """The application; it connects to the services when it is started."""

    @asynccontextmanager
    async def connected(app: FastAPI) -> AsyncIterator[None]:
        async with Recommender(settings) as recommender:
            app.state.recommender = recommender
            settle_heap()
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
    app.add_middleware(Observer)
    # Outermost: a browser shows its page no answer without these headers, an unexpected error included.
    app.add_middleware(
        _Origins,
        allow_origins=settings.cors_origins,
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=[REQUEST_ID_KEY],
    )
    return app
