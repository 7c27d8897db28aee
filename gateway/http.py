"""HTTP as uvicorn speaks it, but for requests that take the shortcut, and for how an answer leaves."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from gateway.body import BROKEN_OFF
from gateway.problems import respond_unobserved
from gateway.shortcut import Passage, Shortcut
from twotower.errors import HeadTooLarge, MalformedRequest, RequestError, TooSlow
from twotower.request_ids import REQUEST_ID_KEY

_MOST_BARE_BYTES: Final = 2**16
"""Of a head, or of what else is no body."""
_LINGER_SECONDS: Final = 1.0
"""How long a client may go on sending what is not read."""
_READ_AHEAD: Final = 16
"""Requests of a connection that are read while one is answered."""
_HEAD: Final = b"HTTP/1.1 200 OK\r\n"
_JSON: Final = b"content-type: application/json\r\ncontent-length: %d\r\n"
_REQUEST_ID: Final = f"{REQUEST_ID_KEY}: ".encode()


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's own, which has the application answer as soon as the head of a request is there.

    A request that the shortcut may take is held back until its body is there too, and then answered
    without the application; or by it after all, as if nothing had been.

    What is no HTTP, or does not come whole in time, is refused after the answers to what came before it,
    not in their place. A wish to speak another protocol is passed over; uvicorn would pass over the body
    that comes with it, too. Who leaves is answered no longer.
    """

    def __init__(self, *args: Any, shortcut: Shortcut, read_seconds: float, **options: Any) -> None:
        super().__init__(*args, **options)
        self._shortcut = shortcut
        self._read_seconds = read_seconds
        self._held: RequestResponseCycle | None = None
        self._passage: Passage | None = None
        self._under_way: tuple[RequestResponseCycle, asyncio.Task[None]] | None = None
        """The request that the application answers, or was the last to be answered by it."""
        self._is_unread = False
        """A request has begun to come, and is not there whole."""
        self._has_head = False
        """Its head is there."""
        self._bare_bytes: int | None = None
        """How much has come after what had its beginning or a piece of its body; None in that itself."""
        self._patience: asyncio.TimerHandle | None = None
        """Runs out where a request does not come, or not whole."""
        self._refusal: RequestError | None = None
        """What is wrong with what came last; nothing after it can be read."""
        self._outgoing: _Outgoing

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to serve a connection."""
        super().connection_made(transport)
        self._outgoing = _Outgoing(transport, self.loop)
        self.transport = self._outgoing  # type: ignore[assignment]
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up whatever is under way."""
        self._stop_waiting()
        if self._under_way and not self._under_way[0].response_complete:
            cycle, task = self._under_way
            cycle.disconnected = True
            task.cancel()
        self._let_go()
        super().connection_lost(exc)
        if self._passage:
            self._passage.leave()

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        self._unset_keepalive_if_required()
        if self._refusal:
            return
        try:
            self._parse(data)
        except HttpParserError as error:
            self._refuse_in_turn(MalformedRequest(f"what came is no HTTP request: {error}"))
            return
        if self._is_unread:
            self._bare_bytes = 0 if self._bare_bytes is None else self._bare_bytes + len(data)
            if self._bare_bytes > _MOST_BARE_BYTES:
                self._refuse_in_turn(HeadTooLarge(f"the head is longer than {_MOST_BARE_BYTES} bytes"))
                return
        if not self._patience and (self._is_unread or not self.cycle or self.cycle.response_complete):
            self._wait()

    def on_message_begin(self) -> None:
        """Take the first byte of a request."""
        super().on_message_begin()
        self._is_unread, self._has_head, self._bare_bytes = True, False, None

    def on_headers_complete(self) -> None:
        """Take the head of a request; one that wants another protocol will come again without that."""
        if not self._wants_upgrade():
            super().on_headers_complete()
            self._has_head = True
            if self.pipeline and len(self.pipeline) <= _READ_AHEAD:
                self.flow.resume_reading()  # uvicorn reads on after the answer, and misses who leaves

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        super().on_body(body)
        self._bare_bytes = None
        if self._held:
            self.flow.resume_reading()  # uvicorn stops where nobody has asked for the body yet
            if len(self._held.body) > self._shortcut.max_body_bytes:
                self._let_go()

    def on_message_complete(self) -> None:
        """Take the end of a request."""
        if self._wants_upgrade():
            return
        super().on_message_complete()
        self._is_unread = False
        if self._patience:
            self._stop_waiting()
        if self._held is self.cycle:
            self._begin()

    def on_response_complete(self) -> None:
        """Go on to the next request of the connection, or to the refusal of what was none."""
        was_last = not self.pipeline
        super().on_response_complete()
        if self._is_unread:
            self._unset_keepalive_if_required()  # its own time runs
        if self._refusal and was_last and not self.transport.is_closing():
            self._refuse(self._refusal)

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
        self._run(cycle, app)

    def _parse(self, data: bytes) -> None:
        """Parse what has come. Raises HttpParserError."""
        left = memoryview(data)
        while True:
            try:
                self.parser.feed_data(left)
            except HttpParserUpgrade as upgrade:
                if not self._wants_upgrade():
                    return
                left = left[upgrade.args[0] :]
                head = self._plain_head()
                self.parser = HttpRequestParser(self)  # the old one may have taken its last request
                self.parser.feed_data(head)
            else:
                return

    def _wants_upgrade(self) -> bool:
        """Whether the request whose head has come last would rather have another protocol."""
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def _plain_head(self) -> bytes:
        """The head that has come last, without what would have the parser end the request there."""
        version = self.parser.get_http_version().encode()
        head = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        head += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([*head, b"", b""])

    def _wait(self) -> None:
        """For so long, and no longer, for a request, or for the rest of one."""
        self._patience = self.loop.call_later(self._read_seconds, self._run_out)

    def _stop_waiting(self) -> None:
        """Wait no longer."""
        if self._patience:
            self._patience.cancel()
            self._patience = None

    def _run_out(self) -> None:
        """Go on without what has not come."""
        self._patience = None
        if self.flow.read_paused:
            self._wait()  # it may have come, and was not looked at
            return
        error = TooSlow(f"the request did not come whole within {self._read_seconds:g} s")
        if not self._is_unread:
            self.transport.close()
        elif self._has_head and not self.cycle.response_complete:
            self._break_off(self.cycle, error)
        else:
            self._refuse_in_turn(error)

    def _break_off(self, cycle: RequestResponseCycle, error: RequestError) -> None:
        """Have a request without the rest of its body answered, by the application."""
        self._read_no_more(error)
        cycle.more_body = cycle.keep_alive = False
        _scope_of(cycle)[BROKEN_OFF] = error
        cycle.message_event.set()
        if cycle is self._held:
            self._let_go()

    def _refuse_in_turn(self, error: RequestError) -> None:
        """Refuse what has come, now or after the answers that are to come."""
        self._read_no_more(error)
        self._stop_waiting()
        if self._is_unread and self._has_head and self.cycle.response_complete:
            self.transport.close()  # it had its answer before it was there
        elif self.pipeline and self.cycle.more_body:
            self.pipeline.popleft()  # it is what broke off
        elif not self._is_answering():
            self._refuse(error)

    def _read_no_more(self, error: RequestError) -> None:
        """Pass over whatever else comes."""
        self._refusal = error
        self._outgoing.lingers = True

    def _refuse(self, error: RequestError) -> None:
        """Send a problem that is of no request, and close."""
        self._let_go()
        if self.cycle and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        response = respond_unobserved(error)
        head = [STATUS_LINE[response.status_code]]
        for name, value in (*self.server_state.default_headers, *response.raw_headers):
            head += (name, b": ", value, b"\r\n")
        head.append(b"connection: close\r\n\r\n")
        self.transport.write(b"".join(head) + bytes(response.body))
        self.transport.close()

    def _is_answering(self) -> bool:
        """Whether the request that came last is sound, and not answered yet."""
        cycle = self.cycle
        return bool(cycle) and not (cycle.response_complete or cycle.more_body or cycle is self._held)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        scope = _scope_of(cycle)
        waits = cycle.waiting_for_100_continue or BROKEN_OFF in scope
        if app is not self.app or waits or not self._shortcut.takes(scope):
            self._run(cycle, app)
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
            self._run(cycle, self.app)

    def _run(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Have an application answer, until its client leaves."""
        task = self.loop.create_task(cycle.run_asgi(app))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        self._under_way = cycle, task


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


class _Outgoing:
    """A transport that writes what one round of the event loop gave it in one piece.

    uvicorn writes the head of an answer and then its body. A write is a call of the system, and a
    packet, and wakes up the client.

    Where it `lingers`, it does not close at once: closing upon what is still coming would reset the
    connection, and take answers away that the client has not read.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._gathered: list[bytes] = []
        self._has_ended = False
        self.lingers = False

    def write(self, data: bytes) -> None:
        if not self._gathered:
            self._loop.call_soon(self._flush)
        self._gathered.append(data)

    def close(self) -> None:
        self._flush()
        if not self.lingers or self.is_closing():
            self._transport.close()
            return
        self._has_ended = True
        with suppress(OSError, RuntimeError):  # uvloop's, where the client has just gone
            self._transport.write_eof()
        self._transport.resume_reading()
        self._loop.call_later(_LINGER_SECONDS, self._transport.close)

    def is_closing(self) -> bool:
        return self._has_ended or self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _flush(self) -> None:
        gathered, self._gathered = self._gathered, []
        if gathered:
            with suppress(RuntimeError):  # uvloop's, where the client has just gone
                self._transport.write(b"".join(gathered))
