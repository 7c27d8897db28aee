"""Promotions, seen from outside: no answer is ever lost, or of two models."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from conftest import Trained
from integration.oracle import golden_users
from services import NO_TLS, Service, Stack, model_service, running, running_stack, wait_until
from twotower.bundle import Bundle, read_bundle, write_bundle
from twotower.files import write_atomically
from twotower.promotion import CURRENT, Current, promote, rollback
from twotower.v1.retrieval_pb2 import RetrievalServiceListModelsRequest
from twotower.v1.retrieval_pb2_grpc import RetrievalServiceStub
from twotower.v1.user_tower_pb2 import UserTowerServiceListModelsRequest
from twotower.v1.user_tower_pb2_grpc import UserTowerServiceStub

Lists = dict[str, dict[int, tuple[int, ...]]]
"""By model version and user: the ids of the best ten movies."""


@pytest.fixture(scope="module")
def expected(trained: Trained) -> Lists:
    """What each model answers each of its recorded users; no two lists are alike."""
    lists = {
        version: {
            user_id: user.top_movie_ids
            for user_id, user in golden_users(read_bundle(trained.bundles, version)[1]).items()
        }
        for version in (trained.first, trained.second)
    }
    first, second = lists.values()
    assert len(first) >= 8
    assert first.keys() == second.keys()
    assert not {*first.values()} & {*second.values()}
    return lists


class Crowd:
    """Clients who keep asking, and check every answer."""

    def __init__(self, url: str, expected: Lists) -> None:
        self._url = url
        self._expected = expected
        self._stop = threading.Event()
        self.versions: list[str] = []
        """The model of every answer so far, in the order of their coming."""

    def keep_asking(self, first_user: int) -> None:
        """Ask until told to stop, for one user after the other."""
        users = [*next(iter(self._expected.values()))]
        with httpx.Client(base_url=self._url, timeout=10, verify=NO_TLS) as client:
            for turn in itertools.islice(itertools.count(first_user), 5000):
                if self._stop.wait(0.02):  # the machine is for the services
                    return
                self.versions.append(self._ask(client, users[turn % len(users)]))
        raise AssertionError("nobody told the clients to stop")

    def stop(self) -> None:
        self._stop.set()

    def wait_all(self, version: str, *, answers: int = 50, seconds: float = 10) -> None:
        """Wait until so many answers, one after the other from now on, are all of that model."""
        start = len(self.versions)

        def settled() -> bool:
            latest = self.versions[start:][-answers:]
            return len(latest) == answers and {*latest} == {version}

        wait_until(settled, f"all answers by {version}", seconds)

    def _ask(self, client: httpx.Client, user_id: int) -> str:
        answer = client.post("/v1/recommendations", json={"user_id": user_id})
        assert answer.status_code == 200, answer.text
        version: str = answer.json()["model_version"]
        found = tuple(item["movie_id"] for item in answer.json()["items"])
        assert found == self._expected[version][user_id], f"not wholly of {version}"
        return version


@contextmanager
def crowd(stack: Stack, expected: Lists, *, threads: int = 8) -> Iterator[Crowd]:
    """Several clients at once while the block runs; any answer that is not right fails it."""
    clients = Crowd(stack.url, expected)
    with ThreadPoolExecutor(threads) as pool:
        asking: list[Future[None]] = [pool.submit(clients.keep_asking, n) for n in range(threads)]
        try:
            yield clients
        finally:
            clients.stop()
    for client in asking:
        client.result()


def prefers(service: Service, version: str) -> bool:
    return service.metric("twotower_model", model_version=version, state="preferred") == 1


def refused(service: Service) -> dict[str, str]:
    """Why each model is refused, as the service lists it."""
    with grpc.insecure_channel(service.address) as channel:
        if service.module == "retrieval_svc":
            listed: Any = RetrievalServiceStub(channel).ListModels(RetrievalServiceListModelsRequest())
        else:
            listed = UserTowerServiceStub(channel).ListModels(UserTowerServiceListModelsRequest())
    return {model.model_version: model.message for model in listed.refused}


@pytest.mark.parametrize("early", ["user_tower", "retrieval"])
def test_a_promotion_that_one_service_sees_first(
    trained: Trained, tmp_path: Path, expected: Lists, early: str
) -> None:
    folders = {
        name: trained.copy(tmp_path / name, trained.first) for name in ("user_tower", "retrieval")
    }
    soon, late = folders.pop(early), *folders.values()
    user_tower, retrieval = (soon, late) if early == "user_tower" else (late, soon)
    with running_stack(user_tower, tmp_path, retrieval_bundles=retrieval) as stack:
        processes = [service.process.pid for service in stack.services]
        first_to_know = stack.user_tower if early == "user_tower" else stack.retrieval
        with crowd(stack, expected) as clients:
            clients.wait_all(trained.first)
            promote(soon, trained.second)
            wait_until(lambda: prefers(first_to_know, trained.second), "the second model there")
            asked = len(clients.versions)
            clients.wait_all(trained.first)
            assert {*clients.versions[asked:]} == {trained.first}
            promote(late, trained.second)
            clients.wait_all(trained.second)
        assert [service.process.pid for service in stack.services] == processes
        assert all(service.process.poll() is None for service in stack.services)


def test_a_rollback_under_load(bundles: Path, tmp_path: Path, trained: Trained, expected: Lists) -> None:
    promote(bundles, trained.second)
    with running_stack(bundles, tmp_path) as stack, crowd(stack, expected) as clients:
        clients.wait_all(trained.second)
        rollback(bundles)
        clients.wait_all(trained.first)
        promote(bundles, trained.second)
        clients.wait_all(trained.second)


def test_services_of_different_models_never_mix(trained: Trained, tmp_path: Path) -> None:
    one = trained.copy(tmp_path / "one", trained.first)
    other = trained.copy(tmp_path / "other", trained.second)
    with running_stack(one, tmp_path, retrieval_bundles=other, ready=False) as stack:
        for service in (stack.user_tower, stack.retrieval):
            wait_until(service.is_serving, f"{service.module} serving")
        with httpx.Client(base_url=stack.url, timeout=10) as client:
            wait_until(lambda: "in common" in client.get("/readyz").text, "the reason told")
            ready = client.get("/readyz")
            assert (ready.status_code, ready.headers["retry-after"]) == (503, "1")
            for user_id in (1, 6, 15):
                answer = client.post("/v1/recommendations", json={"user_id": user_id})
                assert answer.status_code == 503
                assert int(answer.headers["retry-after"]) > 0
                assert trained.first in answer.json()["detail"]
                assert trained.second in answer.json()["detail"]
            assert client.get("/v1/movies/1").json()["movie_id"] == 1
            promote(other, trained.first)
            wait_until(stack.is_ready, "ready once both have a model in common", 10)
            answer = client.post("/v1/recommendations", json={"user_id": 1})
            assert answer.json()["model_version"] == trained.first


def point_at(bundles: Path, version: str, previous: str) -> None:
    """Promote a bundle without looking at it, as nothing of ours does."""
    current = Current(current=version, previous=previous)
    write_atomically(bundles / CURRENT, current.model_dump_json().encode())


def test_a_damaged_model_is_refused(
    bundles: Path, tmp_path: Path, trained: Trained, expected: Lists
) -> None:
    embeddings = bundles / trained.second / "item_embeddings.npy"
    content = bytearray(embeddings.read_bytes())
    content[-1] ^= 1
    embeddings.write_bytes(content)
    with running_stack(bundles, tmp_path) as stack:
        with crowd(stack, expected, threads=2) as clients:
            point_at(bundles, trained.second, trained.first)
            for service in (stack.user_tower, stack.retrieval):
                wait_until(
                    lambda service=service: refused(service), f"{service.module} refuses", seconds=10
                )
            asked = len(clients.versions)
            clients.wait_all(trained.first)
            assert stack.is_ready()
        assert {*clients.versions[asked:]} == {trained.first}
        for service in (stack.user_tower, stack.retrieval):
            reason = refused(service)[trained.second]
            assert "item_embeddings.npy: its content does not match" in reason
            (line,) = service.events("model refused")
            assert (line["model_version"], line["reason"]) == (trained.second, reason)
            assert line["level"] == "error"
            assert service.metric("twotower_model", model_version=trained.second, state="refused") == 1
            assert prefers(service, trained.first)
            assert service.is_serving()


def test_nothing_promoted_at_the_start(trained: Trained, tmp_path: Path, expected: Lists) -> None:
    bundles = trained.copy(tmp_path / "bundles", None)
    with running_stack(bundles, tmp_path, ready=False) as stack:
        with httpx.Client(base_url=stack.url, timeout=10) as client:
            wait_until(lambda: "none is promoted" in client.get("/readyz").text, "the reason told")
            assert client.get("/readyz").status_code == 503
            assert client.get("/healthz").status_code == 200
            for service in (stack.user_tower, stack.retrieval):
                assert not service.is_serving()
            for path in ("/v1/users/1/recommendations", "/v1/movies/1", "/v1/movies/1/similar"):
                answer = client.get(path)
                assert answer.status_code == 503
                assert int(answer.headers["retry-after"]) > 0
                assert "none is promoted" in answer.json()["detail"]
        promote(bundles, trained.first)
        stack.wait_ready(10)
        assert all(service.is_serving() for service in (stack.user_tower, stack.retrieval))
        with crowd(stack, expected, threads=1) as clients:
            clients.wait_all(trained.first, answers=12)


def rewrite(bundles: Path, trained: Trained, bundle: Bundle) -> str:
    """Write a changed second bundle beside the first, with digests that are right."""
    manifest, _ = read_bundle(trained.bundles, trained.second)
    written = write_bundle(
        bundles,
        bundle,
        recipe=manifest.recipe,
        dataset=manifest.dataset,
        metrics=manifest.metrics,
        libraries=manifest.libraries,
    )
    return written.model_version


def changed_embedding(bundle: Bundle) -> Bundle:
    first, *others = bundle.golden
    vector = tuple(-value for value in first.retrieval)
    return dataclasses.replace(bundle, golden=(first.model_copy(update={"retrieval": vector}), *others))


def changed_top(bundle: Bundle) -> Bundle:
    first, *others = bundle.golden
    top = first.top_movie_ids[::-1]
    return dataclasses.replace(bundle, golden=(first.model_copy(update={"top_movie_ids": top}), *others))


@pytest.mark.parametrize(
    ("module", "change", "words"),
    [
        ("user_tower_svc", changed_embedding, "the embedding differs from the recorded one"),
        ("retrieval_svc", changed_top, "found movies"),
    ],
)
def test_a_model_that_does_not_replay_its_golden_requests(
    trained: Trained, tmp_path: Path, module: str, change: Any, words: str
) -> None:
    _, second = read_bundle(trained.bundles, trained.second)
    bundles = tmp_path / "bundles"
    version = rewrite(bundles, trained, change(second))
    promote(bundles, version)
    with running(model_service(module, bundles, tmp_path)) as service:
        wait_until(service.is_listening, "it listening")
        reason = service.events("model refused")[0]["reason"]
        assert "golden request of user " in reason
        assert words in reason
        assert not service.is_serving()
        assert refused(service) == {version: reason}


def test_a_model_that_only_one_service_takes(trained: Trained, tmp_path: Path, expected: Lists) -> None:
    bundles = trained.copy(tmp_path / "bundles", trained.first)
    _, second = read_bundle(trained.bundles, trained.second)
    with running_stack(bundles, tmp_path) as stack, crowd(stack, expected, threads=2) as clients:
        clients.wait_all(trained.first)
        aside = tmp_path / "aside"
        assert rewrite(aside, trained, changed_top(second)) == trained.second
        (bundles / trained.second).rename(tmp_path / "intact")
        (aside / trained.second).rename(bundles / trained.second)
        promote(bundles, trained.second)
        wait_until(lambda: prefers(stack.user_tower, trained.second), "the tower takes it", 10)
        wait_until(lambda: refused(stack.retrieval), "retrieval refuses it", 10)
        asked = len(clients.versions)
        clients.wait_all(trained.first)
        assert {*clients.versions[asked:]} == {trained.first}
        assert stack.is_ready()
