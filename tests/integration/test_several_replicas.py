"""Several replicas of a service: all are used, and one that fails is not waited for."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from clients import ask, load, wait_for_more
from integration.oracle import golden_users
from services import (
    Service,
    Stack,
    gateway_service,
    model_service,
    running,
    wait_until,
)
from twotower.bundle import Bundle


@contextmanager
def two_replicas(stack: Stack, folder: Path) -> Iterator[tuple[Service, list[Service]]]:
    """A gateway over two replicas of retrieval, and these, all of them ready."""
    replicas = [model_service("retrieval_svc", stack.bundles, folder) for _ in range(2)]
    target = "ipv4:" + ",".join(replica.address for replica in replicas)
    gateway = gateway_service(stack.user_tower.address, target, folder)
    with ExitStack() as services:
        for service in (*replicas, gateway):
            services.enter_context(running(service))
        for replica in replicas:
            wait_until(replica.is_serving, "a replica serving")
        wait_until(gateway.is_listening, "the gateway listening")
        yield gateway, replicas


def test_two_replicas(stack: Stack, model: Bundle, tmp_path: Path) -> None:
    with two_replicas(stack, tmp_path) as (gateway, replicas):
        url = f"http://{gateway.address}"
        with load(url) as outcomes:
            wait_for_more(outcomes, 100)
            calls = [
                replica.metric("twotower_requests_total", method="BatchRetrieveMovies", code="OK")
                for replica in replicas
            ]
            assert min(calls) > sum(calls) / 4, calls
            replicas[0].stop(signal.SIGKILL)
            wait_for_more(outcomes, 100)
            replicas[0].start()
            wait_until(replicas[0].is_serving, "the replica back")
            wait_until(
                lambda: replicas[0].metric("twotower_requests_total", method="BatchRetrieveMovies"),
                "the replica used again",
                10,
            )
            for _ in range(3):
                assert replicas[1].stop() == 0
                wait_for_more(outcomes, 20)
                replicas[1].start()
                wait_until(replicas[1].is_serving, "the other replica back")
                wait_for_more(outcomes, 20)
        assert {*outcomes} == {"200"}
        answer, _ = ask(url)
        top = tuple(item["movie_id"] for item in answer.json()["items"])
        assert top == golden_users(model)[1].top_movie_ids


def test_one_of_two_replicas_hangs(stack: Stack, tmp_path: Path) -> None:
    with two_replicas(stack, tmp_path) as (gateway, replicas):
        with load(f"http://{gateway.address}", threads=8) as outcomes:
            wait_for_more(outcomes, 100)
            with replicas[0].frozen():
                silent = "a replica does not answer"
                wait_until(lambda: gateway.events(silent), "the replica found silent", 10)
                wait_for_more(outcomes, 400)
            wait_until(lambda: gateway.events("a replica answers again"), "the replica back", 10)
            before = replicas[0].metric("twotower_requests_total", method="BatchRetrieveMovies")
            wait_for_more(outcomes, 100)
            after = replicas[0].metric("twotower_requests_total", method="BatchRetrieveMovies")
        assert after > before
    late = [json.loads(outcome)["status"] for outcome in outcomes if outcome != "200"]
    # What was under way at the replica: of three batches in flight, no more than two.
    assert {*late} <= {504}
    assert len(late) <= 8
    assert len(gateway.events(silent)) == 1


def test_a_replica_without_a_model_is_passed_over(stack: Stack, tmp_path: Path) -> None:
    empty = model_service("retrieval_svc", tmp_path / "none", tmp_path)
    target = f"ipv4:{empty.address},{stack.retrieval.address}"
    gateway = gateway_service(stack.user_tower.address, target, tmp_path)
    with running(empty), running(gateway):
        wait_until(empty.is_listening, "the empty replica listening")
        wait_until(gateway.is_listening, "the gateway listening")
        answers = [ask(f"http://{gateway.address}")[0] for _ in range(20)]
        assert empty.metric("twotower_requests_total", code="UNAVAILABLE") >= 5
    assert [answer.status_code for answer in answers] == [200] * 20
