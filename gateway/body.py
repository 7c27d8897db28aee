"""Reading a JSON body: bounded, and announced as JSON."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json

from twotower.errors import (
    BodyTooLarge,
    InvalidRequest,
    MalformedBody,
    UnsupportedMediaType,
    shown,
)

BROKEN_OFF: Final = "twotower.broken_off"
"""In the scope of a request whose body will not come whole: the RequestError that it ends in."""


class JsonRoute(APIRoute):
    """A route whose query and body are read by the rules of this module."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Refuse query parameters that the route does not have, and read the body before FastAPI."""
        handle = super().get_route_handler()
        known = [parameter.alias for parameter in self.dependant.query_params]

        async def handle_json(request: Request) -> Response:
            _check_query(request, known)
            if self.body_field is None:
                return await handle(request)
            limit: int = request.app.state.settings.max_body_bytes
            return await handle(await _JsonRequest.read(request, limit))

        return handle_json


def _check_query(request: Request, known: Sequence[str]) -> None:
    given = request.query_params.multi_items()
    for place, (name, value) in enumerate(given):
        if name not in known:
            there_are = f"there are {', '.join(known)}" if known else "there is none"
            raise InvalidRequest(f"{name[:80]!r}: no such query parameter, {there_are}", field=name[:80])
        if name in dict(given[:place]):
            raise InvalidRequest(f"{name}: is given twice, the second is {shown(value)}", field=name)


class _JsonRequest(Request):
    """A request whose body has been read and parsed."""

    content: bytes
    document: Any

    @classmethod
    async def read(cls, request: Request, limit: int) -> _JsonRequest:
        """Read and parse. Raises RequestError where it cannot be."""
        read = cls(request.scope, request.receive)
        read.content = await _read(read, limit)
        if not read.content:
            raise MalformedBody("the body is empty; a JSON object is expected")
        media_type = request.headers.get("content-type", "")
        if media_type.partition(";")[0].strip().lower() != "application/json":
            raise UnsupportedMediaType(
                f"content-type is {media_type[:80]!r}; application/json is expected"
            )
        coding = request.headers.get("content-encoding", "identity")
        if coding.strip().lower() != "identity":
            raise UnsupportedMediaType(f"content-encoding is {coding[:80]!r}; none is expected")
        try:
            # NaN and 1e999 are let through here, to be refused by the field that holds them.
            read.document = from_json(read.content, allow_inf_nan=True)
        except ValueError as error:
            raise MalformedBody(f"the body is not JSON: {error}") from error
        return read

    async def body(self) -> bytes:
        return self.content

    async def json(self) -> Any:
        return self.document


async def _read(request: Request, limit: int) -> bytes:
    too_large = BodyTooLarge(f"the body is longer than {limit} bytes")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise too_large
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > limit:
            raise too_large
    if error := request.scope.get(BROKEN_OFF):
        raise error
    return bytes(content)
