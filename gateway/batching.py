"""Natural batching: what arrives while a batch is away goes together in the next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from itertools import chain
from typing import Final, Generic, TypeVar

from twotower.errors import DeadlineExceeded, RequestError

Request = TypeVar("Request")
Answer = TypeVar("Answer")

_PATIENCE: Final = 0.01
"""Seconds between looks for requests past their deadlines."""

_GATHERING: Final = 0.25
_LONGEST_GATHERING: Final = 0.005
"""How long those just answered are waited for: a share of their batch's time, and seconds at most."""

Send = Callable[[list[Request], float], Awaitable[Sequence[Answer | RequestError]]]
"""Sends requests as one batch, within so many seconds; answers or errors come back in their order."""


def seconds_until(deadline: float) -> float:
    """By the event loop's clock; a thousandth at least, since 0 would mean no limit."""
    return max(deadline - asyncio.get_running_loop().time(), 0.001)


@dataclass(frozen=True, slots=True, eq=False)
class _Row(Generic[Request, Answer]):
    request: Request
    deadline: float
    answered: asyncio.Future[Answer]


@dataclass(frozen=True, slots=True)
class _Batch(Generic[Request, Answer]):
    rows: list[_Row[Request, Answer]]
    sent_at: float


class Batcher(Generic[Request, Answer]):
    """Sends requests in batches, at most `in_flight()` at a time.

    A request that comes alone leaves at once. What comes while batches are away leaves together when one
    returns, with what those who were answered ask next, if they ask it soon: clients in a loop would
    otherwise fall apart into groups that take turns, and batches would be half as large for ever. A row
    past its deadline, or that its caller has given up, does not leave at all.
    """

    def __init__(
        self,
        name: str,
        send: Send[Request, Answer],
        *,
        max_rows: int,
        max_bytes: int,
        size: Callable[[Request], int],
        in_flight: Callable[[], int],
    ) -> None:
        """`name` is of what answers, for error texts; `size` gives the bytes of a request.

        `in_flight` may say otherwise at any time.
        """
        self._name = name
        self._send = send
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._size = size
        self._in_flight = in_flight
        self._waiting: deque[_Row[Request, Answer]] = deque()
        self._away: dict[asyncio.Task[None], _Batch[Request, Answer]] = {}
        self._dispatching = self._watching = False
        self._expected = 0
        """With fewer rows than that, none leaves."""
        self._gathering: asyncio.TimerHandle | None = None

    def submit(self, request: Request, deadline: float) -> asyncio.Future[Answer]:
        """Send a request with others; the future is its own answer, or its own error.

        `deadline` is by the event loop's clock; past it, DeadlineExceeded. Who cancels the future wants
        no answer any longer.
        """
        loop = asyncio.get_running_loop()
        row: _Row[Request, Answer] = _Row(request, deadline, loop.create_future())
        self._waiting.append(row)
        if not self._dispatching:
            # After this round of the loop, so that requests read in the same round go together.
            self._dispatching = True
            loop.call_soon(self._dispatch)
        if not self._watching:
            # One look at all now and then costs less than a timer for each.
            self._watching = True
            loop.call_later(_PATIENCE, self._expire)
        return row.answered

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for row in chain(self._waiting, *(batch.rows for batch in self._away.values())):
            self._give_up_late(row, now)
        self._watching = bool(self._waiting or self._away)
        if self._watching:
            loop.call_later(_PATIENCE, self._expire)

    def _dispatch(self) -> None:
        self._dispatching = False
        if len(self._waiting) < self._expected:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._waiting and len(self._away) < self._in_flight():
            rows = self._next_rows(now)
            if rows:
                # A context of its own: the batch is of no one request, the one that set it off least.
                task = loop.create_task(self._deliver(rows), context=Context())
                self._away[task] = _Batch(rows, now)
                task.add_done_callback(self._return)

    def _next_rows(self, now: float) -> list[_Row[Request, Answer]]:
        """Take as many of the rows waiting as may go together; one goes however large it is."""
        rows: list[_Row[Request, Answer]] = []
        left = self._max_bytes
        while self._waiting and len(rows) < self._max_rows:
            row = self._waiting[0]
            self._give_up_late(row, now)
            if not row.answered.done():
                left -= self._size(row.request)
                if rows and left < 0:
                    break
                rows.append(row)
            self._waiting.popleft()
        return rows

    def _give_up_late(self, row: _Row[Request, Answer], now: float) -> None:
        if row.deadline <= now and not row.answered.done():
            row.answered.set_exception(DeadlineExceeded(f"{self._name} did not answer in time"))

    def _return(self, task: asyncio.Task[None]) -> None:
        loop = asyncio.get_running_loop()
        batch = self._away.pop(task)
        if self._gathering:
            self._gathering.cancel()
        patience = min(_GATHERING * (loop.time() - batch.sent_at), _LONGEST_GATHERING)
        self._expected = min(len(self._waiting) + len(batch.rows), self._max_rows)
        self._gathering = loop.call_later(patience, self._expect_nobody)
        self._dispatch()

    def _expect_nobody(self) -> None:
        self._expected = 0
        self._dispatch()

    async def _deliver(self, rows: list[_Row[Request, Answer]]) -> None:
        seconds = seconds_until(max(row.deadline for row in rows))
        answers: Sequence[Answer | Exception]
        try:
            answers = await self._send([row.request for row in rows], seconds)
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the rows' callers
            answers = [error] * len(rows)
        for row, answer in zip(rows, answers, strict=True):
            if row.answered.done():
                continue
            if isinstance(answer, Exception):
                row.answered.set_exception(answer)
            else:
                row.answered.set_result(answer)
