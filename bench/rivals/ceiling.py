"""What HTTP alone comes to: no tower and no search, but the bytes of an answer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.schemas import RecommendationRequest
from twotower.process import settle_heap

_HEADER: Final = (b"content-type", b"application/json")


def create_fastapi() -> FastAPI:
    """A route that reads the request as the gateway's schema has it, and answers as it always does."""
    app = FastAPI()
    answer = _answer()

    @app.post("/v1/recommendations")
    async def recommend(_request: RecommendationRequest) -> Response:
        return Response(answer, media_type="application/json")

    settle_heap()
    return app


def create_bare() -> ASGIApp:
    """No framework at all: the body is received, not read."""
    answer = _answer()
    headers = [_HEADER, (b"content-length", b"%d" % len(answer))]

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    settle_heap()
    return respond


def _answer() -> bytes:
    return Path(os.environ["BENCH_ANSWER"]).read_bytes()
