"""The way around FastAPI for the request that is most of the traffic."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Final, Protocol

from fastapi import FastAPI
from fastapi.routing import APIRoute
from msgspec import MsgspecError
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.api import answer_of, router
from gateway.decoding import DECODER, RecommendationRequest
from gateway.observer import NOT_WAITED_FOR, observe, record, request_id_of
from gateway.problems import respond_to
from gateway.recommender import Ask, Recommendation, Recommender
from gateway.translation import ask_of, json_of
from twotower.errors import ModelNotServed, RequestError

_PATH: Final = "/v1/recommendations"
_NOT_HERE: Final = (b"origin", b"content-encoding")
"""Headers: a browser's page is told whether it may read the answer; a body must be as it is."""
(_ROUTE,) = (each for each in router.routes if isinstance(each, APIRoute) and each.path == _PATH)


class Exchange(Protocol):
    """A request that has come whole, and is to be answered once."""

    @property
    def scope(self) -> Scope:
        """Of the request, as of ASGI."""
        ...

    def answer(self, content: bytes, request_id: str) -> None:
        """Send JSON, with status 200. A client that has left is sent nothing."""
        ...

    def hand_on(self, app: ASGIApp) -> None:
        """Have an ASGI application answer."""
        ...


class Shortcut:
    """Answers plain requests for recommendations as the application would, at a fraction of the cost.

    It works on what has come whole, and waits by callbacks: a task, and a message for each step, would
    cost more than all that it does. What it does not take, a fault in the body among it, goes to the
    application as it came: that has the whole of the rules, and the words for what breaks them.
    """

    def __init__(self, app: FastAPI, max_body_bytes: int) -> None:
        self._app = app
        self.max_body_bytes: Final = max_body_bytes

    def takes(self, scope: Scope) -> bool:
        """Whether a request may be answered here, by its head alone."""
        if scope["path"] != _PATH or scope["method"] != "POST" or scope["query_string"]:
            return False
        media_type = announced = None
        for name, value in scope["headers"]:
            if name == b"content-type":
                media_type = media_type or value
            elif name == b"content-length":
                announced = value
            elif name in _NOT_HERE:
                return False
        fits = announced is None or not announced.isdigit() or int(announced) <= self.max_body_bytes
        return media_type == b"application/json" and fits

    def begin(self, exchange: Exchange, body: bytes) -> Passage | None:
        """Set out to answer; None where the application must."""
        request = _decode(body)
        return None if request is None else Passage(self._app.state.recommender, exchange, request)


class Passage:
    """A request on its way to its answer."""

    def __init__(
        self, recommender: Recommender, exchange: Exchange, request: RecommendationRequest
    ) -> None:
        self._start = time.perf_counter()
        self._recommender, self._exchange = recommender, exchange
        self._request_id = request_id_of(exchange.scope)
        exchange.scope["route"] = _ROUTE
        self._ask: Ask = ask_of(request, strict=False, request_id=self._request_id)
        self._deadline = recommender.deadline()
        self._answer = recommender.submit(self._ask, self._deadline)
        self._answer.add_done_callback(self._end)

    def leave(self) -> None:
        """The client does not wait any longer."""
        self._answer.cancel()

    def _end(self, answer: asyncio.Future[Recommendation]) -> None:
        if answer.cancelled():
            self._record(NOT_WAITED_FOR)
            return
        error = answer.exception()
        if error is None:
            try:
                content = json_of(answer.result())
            except Exception as failure:  # noqa: BLE001 - whatever it is, it is observed as any other
                error = failure
            else:
                self._exchange.answer(content, self._request_id)
                self._record(200)
                return
        self._exchange.hand_on(
            partial(observe, partial(self._go_on, error), request_id=self._request_id, start=self._start)
        )

    async def _go_on(self, error: BaseException, scope: Scope, receive: Receive, send: Send) -> None:
        """After a first try that ended in an error, the rest, as an ASGI application."""
        try:
            if not isinstance(error, ModelNotServed):
                raise error
            found = await self._recommender.submit_again(self._ask, error, self._deadline)
            response = answer_of(found)
        except RequestError as refusal:
            response = respond_to(refusal)
        await response(scope, receive, send)

    def _record(self, status: int) -> None:
        seconds = time.perf_counter() - self._start
        record(self._exchange.scope, status, seconds, self._request_id)


def _decode(body: bytes) -> RecommendationRequest | None:
    try:
        return DECODER.decode(body)
    except (MsgspecError, UnicodeDecodeError):
        return None
