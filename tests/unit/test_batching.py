from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import ContextVar
from typing import Any

import pytest

from gateway.batching import Batcher
from twotower.errors import BadAnswer, DeadlineExceeded, InvalidRequest, RequestError, Unavailable

Task = asyncio.Future[str]


class Service:
    """Answers the batches sent to it when it is told to, each request by its own name."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.seconds: list[float] = []
        self._sent_at: list[float] = []
        self._answers: list[asyncio.Future[None]] = []
        self.errors: dict[str, RequestError] = {}
        """What to answer instead, by request."""

    async def send(self, requests: list[str], seconds: float) -> Sequence[str | RequestError]:
        self.batches.append(requests)
        self.seconds.append(seconds)
        self._sent_at.append(asyncio.get_running_loop().time())
        self._answers.append(asyncio.get_running_loop().create_future())
        await self._answers[-1]
        return [self.errors.get(request, f"answer to {request}") for request in requests]

    async def answer(self, batch: int = -1, error: Exception | None = None) -> None:
        """Answer a batch, or fail as a whole; then let whoever waits for that go on.

        Nobody who was answered asks again, and they have been waited for when this returns.
        """
        sent_at = self._sent_at[batch]
        self.answer_now(batch, error)
        await settle()
        await asyncio.sleep(asyncio.get_running_loop().time() - sent_at)
        await settle()

    def answer_now(self, batch: int = -1, error: Exception | None = None) -> None:
        """Answer a batch, or fail as a whole, and leave it at that."""
        if error:
            self._answers[batch].set_exception(error)
        else:
            self._answers[batch].set_result(None)


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


class Desk:
    """A batcher before the service, and those who ask it."""

    def __init__(self, *, max_rows: int = 100, max_bytes: int = 10**6, in_flight: int = 1) -> None:
        self.service = Service()
        self.batcher = Batcher[str, str](
            "the service",
            self.service.send,
            max_rows=max_rows,
            max_bytes=max_bytes,
            size=len,
            in_flight=lambda: in_flight,
        )

    def ask(self, request: str, seconds: float = 5.0) -> Task:
        deadline = asyncio.get_running_loop().time() + seconds
        return self.batcher.submit(request, deadline)

    async def ask_one_by_one(self, *requests: str) -> list[Task]:
        """Each in a round of the loop of its own."""
        asked = []
        for request in requests:
            asked.append(self.ask(request))
            await settle()
        return asked


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test within a loop; nothing may be left over, and no error unseen."""
    unseen: list[dict[str, Any]] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        await asyncio.wait_for(test(), 10)
        await settle()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(watched())
    assert unseen == []


async def outcome(asked: Awaitable[str]) -> str:
    """The answer, or the error as text."""
    try:
        return await asked
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the outcome
        return f"{type(error).__name__}: {error}"


def test_alone_a_request_leaves_at_once() -> None:
    async def test() -> None:
        desk = Desk()
        asked = desk.ask("a", seconds=3)
        await settle()
        assert desk.service.batches == [["a"]]
        assert desk.service.seconds == [pytest.approx(3, abs=0.5)]
        await desk.service.answer()
        assert await asked == "answer to a"

    run(test)


def test_requests_of_one_moment_go_together() -> None:
    async def test() -> None:
        desk = Desk()
        asked = [desk.ask(name) for name in "abc"]
        await settle()
        assert desk.service.batches == [["a", "b", "c"]]
        await desk.service.answer()
        assert [await task for task in asked] == [f"answer to {name}" for name in "abc"]

    run(test)


def test_what_arrives_while_a_batch_is_away_goes_in_the_next() -> None:
    async def test() -> None:
        desk = Desk()
        asked = await desk.ask_one_by_one("a", "b", "c", "d")
        assert desk.service.batches == [["a"]]
        await desk.service.answer()
        assert desk.service.batches == [["a"], ["b", "c", "d"]]
        assert [task.done() for task in asked] == [True, False, False, False]
        await desk.service.answer()
        assert [await task for task in asked] == [f"answer to {name}" for name in "abcd"]

    run(test)


def test_who_is_answered_and_asks_again_goes_with_those_who_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.batching._GATHERING", 1e6)
    monkeypatch.setattr("gateway.batching._LONGEST_GATHERING", 1e6)

    async def test() -> None:
        desk = Desk()
        asked = [desk.ask("a"), desk.ask("b")]
        await settle()
        asked.append(desk.ask("c"))
        await asyncio.sleep(0.001)
        desk.service.answer_now()
        await settle()
        again = [desk.ask("a again")]
        await settle()
        assert desk.service.batches == [["a", "b"]]
        again.append(desk.ask("b again"))
        await settle()  # there is nobody left to wait for
        assert desk.service.batches == [["a", "b"], ["c", "a again", "b again"]]
        await desk.service.answer()
        answers = [await task for task in (*asked, *again)]
        assert answers == [f"answer to {name}" for name in ("a", "b", "c", "a again", "b again")]

    run(test)


def test_nobody_is_waited_for_once_they_had_time_to_come() -> None:
    async def test() -> None:
        desk = Desk()
        asked = [desk.ask("a"), desk.ask("b")]
        await settle()
        await desk.service.answer()
        late = desk.ask("c")
        await settle()
        assert desk.service.batches == [["a", "b"], ["c"]]
        await desk.service.answer()
        assert [await task for task in (*asked, late)] == [f"answer to {name}" for name in "abc"]

    run(test)


def test_a_batch_has_at_most_max_rows_and_the_order_is_kept() -> None:
    async def test() -> None:
        desk = Desk(max_rows=2)
        asked = await desk.ask_one_by_one("a", "b", "c", "d", "e", "f")
        for _ in range(4):
            await desk.service.answer()
        assert desk.service.batches == [["a"], ["b", "c"], ["d", "e"], ["f"]]
        assert [await task for task in asked] == [f"answer to {name}" for name in "abcdef"]

    run(test)


def test_more_than_max_rows_at_once_fill_all_the_batches_there_may_be() -> None:
    async def test() -> None:
        desk = Desk(max_rows=2, in_flight=2)
        asked = [desk.ask(name) for name in "abcde"]
        await settle()
        assert desk.service.batches == [["a", "b"], ["c", "d"]]
        await desk.service.answer(0)
        await desk.service.answer(1)
        await desk.service.answer(2)
        assert [await task for task in asked] == [f"answer to {name}" for name in "abcde"]

    run(test)


def test_a_batch_has_at_most_max_bytes_but_one_row_goes_however_large() -> None:
    async def ask() -> None:
        desk = Desk(max_bytes=10)
        await desk.ask_one_by_one("first")
        waiting = [desk.ask(request) for request in ("12345", "67890", "1", "far too long a row", "2")]
        await settle()
        for _ in range(4):
            await desk.service.answer()
        assert desk.service.batches == [
            ["first"],
            ["12345", "67890"],
            ["1"],
            ["far too long a row"],
            ["2"],
        ]
        await desk.service.answer()
        assert await asyncio.gather(*waiting) == [
            f"answer to {request}" for request in ("12345", "67890", "1", "far too long a row", "2")
        ]

    asyncio.run(ask())


def test_a_batch_is_sent_in_the_context_of_no_request() -> None:
    request_id = ContextVar("request_id", default="none")
    seen = []

    async def send(requests: list[str], _seconds: float) -> list[str]:
        seen.append(request_id.get())
        await asyncio.sleep(0)
        return requests

    async def ask(batcher: Batcher[str, str], name: str) -> None:
        request_id.set(name)
        await batcher.submit(name, asyncio.get_running_loop().time() + 5)

    async def ask_three() -> None:
        batcher = Batcher[str, str](
            "the service", send, max_rows=1, max_bytes=100, size=len, in_flight=lambda: 1
        )
        await asyncio.gather(*(ask(batcher, name) for name in "abc"))

    asyncio.run(ask_three())
    assert seen == ["none"] * 3


@pytest.mark.parametrize("in_flight", [1, 2, 3])
def test_at_most_in_flight_batches_are_away(in_flight: int) -> None:
    async def test() -> None:
        desk = Desk(in_flight=in_flight)
        asked = await desk.ask_one_by_one("a", "b", "c", "d", "e")
        assert desk.service.batches == [[name] for name in "abcde"[:in_flight]]
        await desk.service.answer(0)
        assert desk.service.batches[in_flight:] == [[*"abcde"[in_flight:]]]
        for batch in range(1, in_flight + 1):
            await desk.service.answer(batch)
        assert [await task for task in asked] == [f"answer to {name}" for name in "abcde"]

    run(test)


def test_answers_find_their_callers_whatever_comes_first() -> None:
    async def test() -> None:
        desk = Desk(in_flight=2)
        first, second = await desk.ask_one_by_one("a", "b")
        await desk.service.answer(1)
        assert (first.done(), second.done()) == (False, True)
        await desk.service.answer(0)
        assert (await first, await second) == ("answer to a", "answer to b")

    run(test)


def test_who_has_given_up_is_not_asked_for() -> None:
    async def test() -> None:
        desk = Desk()
        first, second, third = await desk.ask_one_by_one("a", "b", "c")
        second.cancel()
        await desk.service.answer()
        assert desk.service.batches == [["a"], ["c"]]
        await desk.service.answer()
        assert (await first, await third) == ("answer to a", "answer to c")
        assert second.cancelled()

    run(test)


def test_given_up_rows_take_no_place_in_a_batch() -> None:
    async def test() -> None:
        desk = Desk(max_rows=2)
        first, *others, fourth, fifth = await desk.ask_one_by_one("a", "b", "c", "d", "e")
        for task in others:
            task.cancel()
        await desk.service.answer()
        assert desk.service.batches == [["a"], ["d", "e"]]
        await desk.service.answer()
        assert [await task for task in (first, fourth, fifth)] == [f"answer to {n}" for n in "ade"]

    run(test)


def test_no_batch_leaves_where_all_have_given_up() -> None:
    async def test() -> None:
        desk = Desk()
        first, second = await desk.ask_one_by_one("a", "b")
        second.cancel()
        await desk.service.answer()
        assert desk.service.batches == [["a"]]
        assert await first == "answer to a"
        (third,) = await desk.ask_one_by_one("c")
        await desk.service.answer()
        assert await third == "answer to c"

    run(test)


def test_who_gives_up_midway_does_not_take_the_others_along() -> None:
    async def test() -> None:
        desk = Desk()
        first, second = desk.ask("a"), desk.ask("b")
        await settle()
        first.cancel()
        await desk.service.answer()
        assert await second == "answer to b"
        assert first.cancelled()

    run(test)


def test_an_error_is_that_of_its_row_alone() -> None:
    async def test() -> None:
        desk = Desk()
        desk.service.errors["b"] = InvalidRequest("not so", field="k")
        first, second, third = (desk.ask(name) for name in "abc")
        await settle()
        await desk.service.answer()
        assert (await first, await third) == ("answer to a", "answer to c")
        with pytest.raises(InvalidRequest, match="not so") as caught:
            await second
        assert caught.value.field == "k"

    run(test)


@pytest.mark.parametrize("error", [Unavailable("gone"), BadAnswer("odd"), ValueError("what")])
def test_a_batch_that_fails_takes_only_its_rows_along(error: Exception) -> None:
    async def test() -> None:
        desk = Desk()
        asked = [desk.ask("a"), desk.ask("b")]
        await settle()
        asked.append(desk.ask("c"))
        await desk.service.answer(error=error)
        text = f"{type(error).__name__}: {error}"
        assert [await outcome(task) for task in asked[:2]] == [text, text]
        assert desk.service.batches == [["a", "b"], ["c"]]
        await desk.service.answer()
        assert await asked[2] == "answer to c"

    run(test)


def test_past_its_deadline_a_request_ends() -> None:
    async def test() -> None:
        desk = Desk()
        away, waiting = desk.ask("a", seconds=0.02), desk.ask("b", seconds=5)
        await settle()
        late = desk.ask("c", seconds=0.02)
        assert await outcome(away) == "DeadlineExceeded: the service did not answer in time"
        assert await outcome(late) == "DeadlineExceeded: the service did not answer in time"
        await desk.service.answer()
        assert await waiting == "answer to b"
        assert desk.service.batches == [["a", "b"]], "a request left after its deadline"

    run(test)


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_a_deadline_that_has_passed_already(seconds: float) -> None:
    async def test() -> None:
        desk = Desk()
        with pytest.raises(DeadlineExceeded, match="the service did not answer in time"):
            await desk.ask("a", seconds)
        assert desk.service.batches == []

    run(test)


def test_a_batch_has_as_long_as_its_most_patient_row() -> None:
    async def test() -> None:
        desk = Desk()
        asked = [desk.ask("a", 1), desk.ask("b", 7), desk.ask("c", 3)]
        await settle()
        assert desk.service.seconds == [pytest.approx(7, abs=0.5)]
        await desk.service.answer()
        await asyncio.gather(*asked)

    run(test)


def test_many_requests_each_get_their_own_answer() -> None:
    async def test() -> None:
        sizes: list[int] = []

        async def send(numbers: list[int], _seconds: float) -> list[int]:
            sizes.append(len(numbers))
            await asyncio.sleep(0.001)
            return [number * number for number in numbers]

        batcher = Batcher[int, int](
            "the service", send, max_rows=16, max_bytes=10**6, size=lambda _: 8, in_flight=lambda: 3
        )
        deadline = asyncio.get_running_loop().time() + 5

        async def ask(number: int) -> int:
            await asyncio.sleep(number % 7 / 1000)
            return await batcher.submit(number, deadline)

        answers = await asyncio.gather(*map(ask, range(500)))
        assert answers == [number * number for number in range(500)]
        assert sum(sizes) == 500
        assert max(sizes) == 16

    run(test)
