"""HTTP as uvicorn speaks it, but for requests that take the shortcut, and for how an answer leaves."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final, cast

from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.shortcut import Passage, Shortcut

_HEAD: Final = b"HTTP/1.1 200 OK\r\n"
_JSON: Final = b"content-type: application/json\r\ncontent-length: %d\r\nx-request-id: %s\r\n"


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's own, which has the application answer as soon as the head of a request is there.

    A request that the shortcut may take is held back until its body is there too, and then answered
    without the application; or by it after all, as if nothing had been.
    """

    def __init__(self, *args: Any, shortcut: Shortcut, **options: Any) -> None:
        super().__init__(*args, **options)
        self._shortcut = shortcut
        self._held: RequestResponseCycle | None = None
        self._passage: Passage | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to serve a connection."""
        super().connection_made(transport)
        self.transport = _Gathering(transport, self.loop)  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up whatever is under way."""
        self._let_go()
        super().connection_lost(exc)
        if self._passage:
            self._passage.leave()

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        super().on_body(body)
        if self._held:
            self.flow.resume_reading()  # uvicorn stops where nobody has asked for the body yet
            if len(self._held.body) > self._shortcut.max_body_bytes:
                self._let_go()

    def on_message_complete(self) -> None:
        """Take the end of a request."""
        super().on_message_complete()
        if self._held is self.cycle:
            self._begin()

    def answer(self, cycle: RequestResponseCycle, content: bytes, request_id: str) -> None:
        """Send JSON, with status 200, and make ready for the next request of the connection."""
        self._passage = None
        if cycle.disconnected:
            return
        cycle.response_started = cycle.response_complete = True
        head = [_HEAD]
        for name, value in self.server_state.default_headers:
            head += (name, b": ", value, b"\r\n")
        head.append(_JSON % (len(content), request_id.encode()))
        head.append(b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n")
        self.transport.write(b"".join(head) + content)
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def hand_on(self, cycle: RequestResponseCycle, app: ASGIApp) -> None:
        """Have an ASGI application answer."""
        self._passage = None
        super()._start_asgi_task(cycle, app)  # type: ignore[arg-type]

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        takes = app is self.app and not cycle.waiting_for_100_continue
        if not (takes and self._shortcut.takes(_scope_of(cycle))):
            super()._start_asgi_task(cycle, app)
            return
        self._held = cycle
        if not cycle.more_body:
            self._begin()

    def _begin(self) -> None:
        cycle = self._held
        if cycle is None:
            return
        # Who takes no answers is made to wait by the application.
        if not self.flow.write_paused:
            self._passage = self._shortcut.begin(_Exchange(self, cycle), bytes(cycle.body))
        if self._passage:
            self._held = None
        else:
            self._let_go()

    def _let_go(self) -> None:
        cycle, self._held = self._held, None
        if cycle:
            super()._start_asgi_task(cycle, self.app)


class _Exchange:
    """A request of a connection, as the shortcut sees it."""

    def __init__(self, protocol: HttpProtocol, cycle: RequestResponseCycle) -> None:
        self._protocol, self._cycle = protocol, cycle

    @property
    def scope(self) -> Scope:
        return _scope_of(self._cycle)

    def answer(self, content: bytes, request_id: str) -> None:
        self._protocol.answer(self._cycle, content, request_id)

    def hand_on(self, app: ASGIApp) -> None:
        self._protocol.hand_on(self._cycle, app)


def _scope_of(cycle: RequestResponseCycle) -> Scope:
    return cast("Scope", cycle.scope)


class _Gathering:
    """A transport that writes what one round of the event loop gave it in one piece.

    uvicorn writes the head of an answer and then its body. A write is a call of the system, and a
    packet, and wakes up the client.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._gathered: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._gathered:
            self._loop.call_soon(self._flush)
        self._gathered.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _flush(self) -> None:
        gathered, self._gathered = self._gathered, []
        if gathered:
            with suppress(RuntimeError):  # uvloop's, where the client has just gone
                self._transport.write(b"".join(gathered))
