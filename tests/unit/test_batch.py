from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import structlog

from twotower.batch import MAX_ROWS, answer_rows, only_answer, record_batch
from twotower.errors import DeadlineExceeded, InvalidRequest, ModelNotServed, RequestError
from twotower.metrics import BATCH_SIZE
from twotower.server import ARRIVAL


@dataclass(frozen=True)
class FakeRow:
    """A row that asks a model for the square of a number."""

    number: int = 0
    model: str = "a"
    request_id: str = ""
    timeout_ms: int = 0


def prepare(row: FakeRow) -> tuple[str, int]:
    if row.number < 0:
        raise InvalidRequest("number: allowed is 0 or more", field="number")
    if row.model not in "abc":
        raise ModelNotServed("not here", served=("a", "b", "c"))
    return row.model, row.number


def compute(model: str, numbers: list[int]) -> list[str]:
    return [f"{model}{number**2}" for number in numbers]


def answer(*rows: FakeRow) -> list[str | RequestError]:
    return answer_rows(rows, prepare=prepare, compute=compute)


def shown(answers: list[str | RequestError]) -> list[str]:
    """Answers as they are, errors by kind."""
    return [type(a).__name__ if isinstance(a, RequestError) else a for a in answers]


@pytest.fixture
def _arrived_a_second_ago() -> Iterator[None]:
    token = ARRIVAL.set(time.perf_counter() - 1)
    yield
    ARRIVAL.reset(token)


def test_answers_stay_in_order_over_models() -> None:
    rows = [FakeRow(number, "abc"[number % 3]) for number in range(10)]
    assert answer(*rows) == [f"{'abc'[number % 3]}{number**2}" for number in range(10)]


def test_rows_of_one_model_go_together() -> None:
    calls: dict[str, list[int]] = {}

    def note(model: str, numbers: list[int]) -> list[int]:
        assert model not in calls
        calls[model] = numbers
        return numbers

    rows = [FakeRow(1, "b"), FakeRow(2, "a"), FakeRow(-1, "a"), FakeRow(3, "b")]
    answer_rows(rows, prepare=prepare, compute=note)
    assert calls == {"b": [1, 3], "a": [2]}


def test_a_faulty_row_fails_alone() -> None:
    answers = answer(FakeRow(2), FakeRow(-1), FakeRow(3, "z"), FakeRow(4, "b"))
    assert shown(answers) == ["a4", "InvalidRequest", "ModelNotServed", "b16"]
    assert isinstance(answers[2], ModelNotServed)
    assert answers[2].served == ("a", "b", "c")


def test_nothing_is_computed_where_every_row_is_faulty() -> None:
    def fail(_model: str, _numbers: list[int]) -> list[str]:
        raise AssertionError

    answers = answer_rows([FakeRow(-1), FakeRow(-2)], prepare=prepare, compute=fail)
    assert shown([*answers]) == ["InvalidRequest", "InvalidRequest"]


@pytest.mark.usefixtures("_arrived_a_second_ago")
def test_each_row_has_its_own_deadline() -> None:
    rows = [FakeRow(number, timeout_ms=ms) for number, ms in enumerate([0, 500, 60_000])]
    answers = answer(*rows)
    assert shown(answers) == ["a0", "DeadlineExceeded", "a4"]
    assert str(answers[1]) == "not answered within timeout_ms=500"


@pytest.mark.usefixtures("_arrived_a_second_ago")
def test_a_row_that_is_late_already_is_not_computed() -> None:
    numbers_seen: list[int] = []

    def note(_model: str, numbers: list[int]) -> list[int]:
        numbers_seen.extend(numbers)
        return numbers

    answer_rows([FakeRow(1, timeout_ms=500), FakeRow(2)], prepare=prepare, compute=note)
    assert numbers_seen == [2]


@pytest.mark.usefixtures("_arrived_a_second_ago")
def test_a_row_that_becomes_late_while_computed_says_so() -> None:
    def slow(model: str, numbers: list[int]) -> list[str]:
        ARRIVAL.set(ARRIVAL.get() - 60)
        return compute(model, numbers)

    rows = [FakeRow(1, timeout_ms=30_000), FakeRow(2, timeout_ms=0)]
    answers = answer_rows(rows, prepare=prepare, compute=slow)
    assert shown([*answers]) == ["DeadlineExceeded", "a4"]


@pytest.mark.parametrize("count", [1, MAX_ROWS])
def test_batches_within_the_limit(count: int) -> None:
    assert answer(*[FakeRow(3)] * count) == ["a9"] * count


@pytest.mark.parametrize("count", [0, MAX_ROWS + 1])
def test_batches_beyond_the_limit(count: int) -> None:
    with pytest.raises(InvalidRequest, match=f"users: {count} rows, allowed are 1 to 1024") as caught:
        answer(*[FakeRow()] * count)
    assert caught.value.field == "users"


def test_a_request_id_has_a_limit() -> None:
    answers = answer(FakeRow(1, request_id="x" * 64), FakeRow(1, request_id="x" * 65))
    assert shown(answers) == ["a1", "InvalidRequest"]
    assert str(answers[1]) == "request_id: has 65 characters, allowed are 64"


@pytest.mark.parametrize("too_many", [-1, 1])
def test_an_answer_too_few_or_too_many_is_a_fault(too_many: int) -> None:
    with pytest.raises(ValueError, match="zip"):
        answer_rows([FakeRow()] * 3, prepare=prepare, compute=lambda *_: [0] * (3 + too_many))


def test_the_only_answer() -> None:
    assert only_answer(["a1"]) == "a1"
    with pytest.raises(DeadlineExceeded, match="too late"):
        only_answer([DeadlineExceeded("too late")])


def test_a_batch_is_recorded_with_its_failures() -> None:
    rows = [FakeRow(1, request_id="one"), FakeRow(-1, request_id="two"), FakeRow(2)]
    with structlog.testing.capture_logs() as lines, structlog.contextvars.bound_contextvars():
        record_batch("TestBatch", rows, answer(*rows))
        bound = structlog.contextvars.get_contextvars()
        structlog.contextvars.unbind_contextvars("rows", "request_ids")
    assert (bound["rows"], bound["request_ids"]) == (3, ["one", "two"])
    assert [(line["request_id"], line["reason"]) for line in lines] == [
        ("two", "number: allowed is 0 or more")
    ]
    (family,) = BATCH_SIZE.labels("TestBatch").collect()
    assert {s.name: s.value for s in family.samples}["twotower_batch_size_sum"] == 3


def test_a_request_id_is_logged_as_it_came_but_shortened() -> None:
    rows = [FakeRow(request_id="order 12\n" * 20)]
    with structlog.contextvars.bound_contextvars():
        record_batch("TestBatch", rows, ["answer"])
        (request_id,) = structlog.contextvars.get_contextvars()["request_ids"]
        structlog.contextvars.unbind_contextvars("rows", "request_ids")
    assert request_id == ("order 12\n" * 20)[:64]
