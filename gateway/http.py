"""HTTP as uvicorn speaks it, but for requests that take the shortcut, and for how an answer leaves."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final, cast

from httptools import HttpParserError, HttpParserUpgrade
from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.shortcut import Passage, Shortcut
from twotower.request_ids import REQUEST_ID_KEY

_HEAD: Final = b"HTTP/1.1 200 OK\r\n"
_NO_HTTP: Final = "Invalid HTTP request received."
_JSON: Final = b"content-type: application/json\r\ncontent-length: %d\r\n"
_REQUEST_ID: Final = f"{REQUEST_ID_KEY}: ".encode()


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's own, which has the application answer as soon as the head of a request is there.

    A request that the shortcut may take is held back until its body is there too, and then answered
    without the application; or by it after all, as if nothing had been.

    What is no HTTP is refused after the answers to what came before it, not in their place. A wish to
    speak another protocol is passed over; uvicorn would pass over the body that comes with it, too.
    """

    def __init__(self, *args: Any, shortcut: Shortcut, **options: Any) -> None:
        super().__init__(*args, **options)
        self._shortcut = shortcut
        self._held: RequestResponseCycle | None = None
        self._passage: Passage | None = None
        self._is_broken = False
        """What came last is no HTTP, and nothing after it can be read."""

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

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        self._unset_keepalive_if_required()
        if self._is_broken:
            return
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            if self._wants_upgrade():
                self.data_received(self._plain_head() + data[upgrade.args[0] :])
        except HttpParserError:
            self._is_broken = True
            self._refuse_in_turn()

    def on_headers_complete(self) -> None:
        """Take the head of a request; one that wants another protocol will come again without that."""
        if not self._wants_upgrade():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        super().on_body(body)
        if self._held:
            self.flow.resume_reading()  # uvicorn stops where nobody has asked for the body yet
            if len(self._held.body) > self._shortcut.max_body_bytes:
                self._let_go()

    def on_message_complete(self) -> None:
        """Take the end of a request."""
        if self._wants_upgrade():
            return
        super().on_message_complete()
        if self._held is self.cycle:
            self._begin()

    def on_response_complete(self) -> None:
        """Go on to the next request of the connection, or to the refusal of what was none."""
        was_last = not self.pipeline
        super().on_response_complete()
        if self._is_broken and was_last and not self.transport.is_closing():
            self.send_400_response(_NO_HTTP)

    def answer(self, cycle: RequestResponseCycle, content: bytes, request_id: str) -> None:
        """Send JSON, with status 200, and make ready for the next request of the connection."""
        self._passage = None
        if cycle.disconnected:
            return
        cycle.response_started = cycle.response_complete = True
        head = [_HEAD]
        for name, value in self.server_state.default_headers:
            head += (name, b": ", value, b"\r\n")
        head += (_JSON % len(content), _REQUEST_ID, request_id.encode(), b"\r\n")
        head.append(b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n")
        self.transport.write(b"".join(head) + content)
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def hand_on(self, cycle: RequestResponseCycle, app: ASGIApp) -> None:
        """Have an ASGI application answer."""
        self._passage = None
        super()._start_asgi_task(cycle, app)  # type: ignore[arg-type]

    def _wants_upgrade(self) -> bool:
        """Whether the request whose head has come last would rather have another protocol."""
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def _plain_head(self) -> bytes:
        """The head that has come last, without what would have the parser end the request there."""
        version = self.parser.get_http_version().encode()
        head = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        head += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([*head, b"", b""])

    def _refuse_in_turn(self) -> None:
        """Refuse what is no HTTP, now or after the answers that are to come."""
        if self.pipeline and self.cycle.more_body:
            self.pipeline.popleft()  # it is what broke off
        elif not self._is_answering():
            self.send_400_response(_NO_HTTP)

    def _is_answering(self) -> bool:
        """Whether the request that came last is sound, and not answered yet."""
        cycle = self.cycle
        return bool(cycle) and not (cycle.response_complete or cycle.more_body or cycle is self._held)

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

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _flush(self) -> None:
        gathered, self._gathered = self._gathered, []
        if gathered:
            with suppress(RuntimeError):  # uvloop's, where the client has just gone
                self._transport.write(b"".join(gathered))
