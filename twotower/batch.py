"""Answering the rows of a batch together, each with its own model, deadline and error."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

import structlog

from twotower.errors import DeadlineExceeded, InternalError, InvalidRequest, NotReady, RequestError
from twotower.metrics import BATCH_SIZE
from twotower.request_ids import MAX_REQUEST_ID
from twotower.server import ARRIVAL

MAX_ROWS: Final = 1024

log = structlog.get_logger()


class Row(Protocol):
    """What every row of a batch carries."""

    @property
    def request_id(self) -> str:
        """Names the row in logs and in the answer."""
        ...

    @property
    def timeout_ms(self) -> int:
        """Milliseconds from the call's arrival; 0 for no limit."""
        ...


R = TypeVar("R", bound=Row)
Model = TypeVar("Model")
Prepared = TypeVar("Prepared")
Answer = TypeVar("Answer")


def answer_rows(
    rows: Sequence[R],
    *,
    prepare: Callable[[R], tuple[Model, Prepared]],
    compute: Callable[[Model, list[Prepared]], Sequence[Answer]],
) -> list[Answer | RequestError]:
    """Answer every row, those of one model in one computation; a row at fault fails alone.

    `prepare` checks a row and names its model, or raises RequestError; `compute` answers rows of one
    model, in their order. Raises InvalidRequest where there are no rows, or more than MAX_ROWS, and
    NotReady where there is no model at all.
    """
    if not 0 < len(rows) <= MAX_ROWS:
        raise InvalidRequest(f"users: {len(rows)} rows, allowed are 1 to {MAX_ROWS}", field="users")
    answers: list[Answer | RequestError] = [_UNANSWERED] * len(rows)
    groups: dict[Model, list[tuple[int, Prepared]]] = defaultdict(list)
    now = time.perf_counter()
    for place, row in enumerate(rows):
        try:
            _check_row(row, now)
            model, prepared = prepare(row)
        except NotReady:
            raise  # it is of this replica, not of the row: the client tries the call on another
        except RequestError as error:
            answers[place] = error
        else:
            groups[model].append((place, prepared))
    for model, members in groups.items():
        for (place, _), answer in zip(
            members, compute(model, [prepared for _, prepared in members]), strict=True
        ):
            answers[place] = answer
    for place, late in late_rows(rows):
        answers[place] = late
    return answers


def late_rows(rows: Sequence[Row]) -> list[tuple[int, DeadlineExceeded]]:
    """The places of the rows that are past their deadline, and the error of each."""
    now = time.perf_counter()
    late = [(place, _late(row, now)) for place, row in enumerate(rows)]
    return [(place, error) for place, error in late if error]


def record_batch(method: str, rows: Sequence[Row], answers: Sequence[object]) -> None:
    """Count the rows of a batch, and put their request ids, and their failures, into the log."""
    BATCH_SIZE.labels(method).observe(len(rows))
    ids = [row.request_id[:MAX_REQUEST_ID] for row in rows if row.request_id]
    structlog.contextvars.bind_contextvars(rows=len(rows), request_ids=ids)
    for row, answer in zip(rows, answers, strict=True):
        if isinstance(answer, RequestError):
            log.info("row failed", request_id=row.request_id[:MAX_REQUEST_ID], reason=answer.message)


def only_answer(answers: Sequence[Answer | RequestError]) -> Answer:
    """The answer of a batch of one; raises its error."""
    (answer,) = answers
    if isinstance(answer, RequestError):
        raise answer
    return answer


_UNANSWERED = InternalError("the row was not answered")


def _check_row(row: Row, now: float) -> None:
    if late := _late(row, now):
        raise late
    if len(row.request_id) > MAX_REQUEST_ID:
        raise InvalidRequest(
            f"request_id: has {len(row.request_id)} characters, allowed are {MAX_REQUEST_ID}",
            field="request_id",
        )


def _late(row: Row, now: float) -> DeadlineExceeded | None:
    if row.timeout_ms and (now - ARRIVAL.get()) * 1000 > row.timeout_ms:
        return DeadlineExceeded(f"not answered within timeout_ms={row.timeout_ms}")
    return None
