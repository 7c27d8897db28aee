"""The way around FastAPI for the request that is most of the traffic."""

from __future__ import annotations

import asyncio
from typing import Final

from fastapi import FastAPI
from fastapi.routing import APIRoute
from msgspec import MsgspecError
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api import router
from gateway.decoding import DECODER, RecommendationRequest
from gateway.observer import Observer, header
from gateway.problems import respond_to
from gateway.recommender import Recommender
from gateway.translation import ask_of, json_of
from twotower.errors import RequestError
from twotower.request_ids import current_request_id

_PATH: Final = "/v1/recommendations"
(_ROUTE,) = (each for each in router.routes if isinstance(each, APIRoute) and each.path == _PATH)
_JSON: Final = (b"content-type", b"application/json")
_CLIENT_LEFT: Final = 499
"""As nginx counts a request whose client did not wait for the answer."""
_PATIENCE: Final = 0.05
"""Seconds after which to look whether the client is still there."""


class Shortcut:
    """Answers plain requests for recommendations as the application would, at a fraction of the cost.

    What it does not take, a fault in the body among it, goes to the application as it came: that has the
    whole of the rules, and the words for what breaks them.
    """

    def __init__(self, app: FastAPI, max_body_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let the application."""
        if not (_is_plain(scope) and self._may_fit(scope)):
            await self._app(scope, receive, send)
            return
        body, last = await self._read(receive)
        whole = last["type"] == "http.request" and not last.get("more_body")
        request = _decode(body) if whole and len(body) <= self._max_body_bytes else None
        if request is None:
            await self._app(scope, _replay(body, last, receive), send)
            return
        scope["route"] = _ROUTE
        await Observer(_Answerer(self._app.state.recommender, request))(scope, receive, send)

    def _may_fit(self, scope: Scope) -> bool:
        announced = header(scope, b"content-length")
        return not announced.isdecimal() or int(announced) <= self._max_body_bytes

    async def _read(self, receive: Receive) -> tuple[bytes, Message]:
        """The body as far as it came, no further than is allowed, and the last message of it."""
        body = bytearray()
        message: Message = {"type": "http.request", "more_body": True}
        while message.get("more_body") and len(body) <= self._max_body_bytes:
            message = await receive()
            body += message.get("body", b"")
        return bytes(body), message


def _is_plain(scope: Scope) -> bool:
    return (
        scope["type"] == "http"
        and scope["path"] == _PATH
        and scope["method"] == "POST"
        and not scope["query_string"]
        and header(scope, b"content-type") == "application/json"
        # A browser's page is told whether it may read the answer: the application does.
        and not any(name == b"origin" for name, _ in scope["headers"])
    )


def _decode(body: bytes) -> RecommendationRequest | None:
    try:
        return DECODER.decode(body)
    except (MsgspecError, UnicodeDecodeError):
        return None


def _replay(body: bytes, last: Message, receive: Receive) -> Receive:
    """What was received, once more, and then what comes."""
    left = last["type"] == "http.disconnect"
    so_far = {"type": "http.request", "body": body, "more_body": left or last.get("more_body", False)}
    messages = iter([so_far, last] if left else [so_far])

    async def again() -> Message:
        message = next(messages, None)
        return await receive() if message is None else message

    return again


class _Answerer:
    """Answers one request, as an ASGI application."""

    def __init__(self, recommender: Recommender, request: RecommendationRequest) -> None:
        self._recommender, self._request = recommender, request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ask = ask_of(self._request, strict=False, request_id=current_request_id())
        response: ASGIApp
        client = _Client(receive)
        try:
            with client:
                response = _Answer(json_of(await self._recommender.recommend(ask)))
        except RequestError as error:
            response = respond_to(error)
        except asyncio.CancelledError:
            if not client.left:
                raise
            response = Response(status_code=_CLIENT_LEFT)
        await response(scope, receive, send)


class _Answer:
    """A JSON response, without what Starlette's does for every other kind."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        length = (b"content-length", b"%d" % len(self._content))
        await send({"type": "http.response.start", "status": 200, "headers": [_JSON, length]})
        await send({"type": "http.response.body", "body": self._content})


class _Client:
    """Who waits for the block: once gone, the task that runs it is cancelled."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._task = asyncio.current_task()
        self._watcher: asyncio.Task[None] | None = None
        self.left = False

    def __enter__(self) -> None:
        # Most are answered before it is worth a look.
        self._timer = asyncio.get_running_loop().call_later(_PATIENCE, self._watch)

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        if self._watcher:
            self._watcher.cancel()

    def _watch(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.left = True
        if self._task:
            self._task.cancel()
