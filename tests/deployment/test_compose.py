"""The stack of docker-compose.yml on a real engine: it comes up, it scales, and no request is lost."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import grpc
import httpx
import pytest

from deployment.engine import SERVING, Stack
from deployment.load import under_load
from services import NO_TLS, ROOT, wait_until
from twotower.v1 import embedding_pb2 as pb
from twotower.v1 import retrieval_pb2, retrieval_pb2_grpc, user_tower_pb2, user_tower_pb2_grpc

pytestmark = pytest.mark.timeout(1_800)
_METRICS = {"user_tower_svc": 9151, "retrieval_svc": 9152, "gateway": 8000}
_METHODS = {"user_tower_svc": "BatchEmbedUsers", "retrieval_svc": "BatchRetrieveMovies"}
_CONNECTION_AGE_SECONDS = 12


@pytest.fixture
def client(composed: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=composed.url, verify=NO_TLS, trust_env=False, timeout=10) as client:
        yield client


def answered(stack: Stack, service: str) -> dict[str, float]:
    """How many calls of the gateway each container of a service has answered."""
    code = (
        "import urllib.request as u;"
        f"print(u.urlopen('http://127.0.0.1:{_METRICS[service]}/metrics').read().decode())"
    )
    counts = {}
    for container in stack.containers(service):
        lines = stack.engine.run("exec", container, "python", "-c", code).splitlines()
        name = f'twotower_requests_total{{code="OK",method="{_METHODS[service]}"}}'
        counts[container] = sum(float(line.split()[-1]) for line in lines if line.startswith(name))
    return counts


def test_recommendations_come_through_the_published_port(client: httpx.Client) -> None:
    answer = client.post(
        "/v1/recommendations", json={"ratings": [{"movie_id": 1, "rating": 5}], "k": 7}
    ).json()
    assert len(answer["items"]) == 7
    assert answer["strategy"] == "inline_ratings"
    assert 1 not in [item["movie_id"] for item in answer["items"]]


def test_the_gateways_own_words_and_ids_pass_unchanged(client: httpx.Client) -> None:
    answer = client.post("/v1/recommendations", json={"k": 0}, headers={"X-Request-Id": "mine"})
    assert answer.status_code == 422
    assert answer.headers["X-Request-Id"] == "mine"
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_direct_clients_reach_both_grpc_services_over_tls(composed: Stack) -> None:
    credentials = grpc.ssl_channel_credentials((ROOT / "secrets" / "tls.crt").read_bytes())
    towers = f"localhost:{composed.settings['USER_TOWER_PORT']}"
    movies = f"localhost:{composed.settings['RETRIEVAL_PORT']}"
    with (
        grpc.secure_channel(towers, credentials) as tower_channel,
        grpc.secure_channel(movies, credentials) as movie_channel,
    ):
        user = user_tower_pb2_grpc.UserTowerServiceStub(tower_channel).EmbedUser(
            user_tower_pb2.EmbedUserRequest(ratings=[pb.Rating(movie_id=1, rating=5)]), timeout=5
        )
        request = retrieval_pb2.RetrieveMoviesRequest(embedding=user.embedding, k=3, exclude_rated=True)
        found = retrieval_pb2_grpc.RetrievalServiceStub(movie_channel).RetrieveMovies(request, timeout=5)
    assert len(found.movies) == 3
    with grpc.insecure_channel(towers) as channel, pytest.raises(grpc.RpcError):
        user_tower_pb2_grpc.UserTowerServiceStub(channel).EmbedUser(
            user_tower_pb2.EmbedUserRequest(user_id=1), timeout=2
        )


def test_containers_have_no_rights_and_bounds(composed: Stack) -> None:
    for service in (*SERVING, "edge", "grpc_edge"):
        for container in composed.containers(service):
            found = composed.engine.inspect(container)
            host = found["HostConfig"]
            assert host["ReadonlyRootfs"], service
            assert host["CapDrop"] == ["ALL"], service
            assert host["RestartPolicy"]["Name"] == "unless-stopped", service
            assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}, service
            assert found["Config"]["User"] == "65532:65532", service
            if service in SERVING:
                assert host["Memory"] == 512 * 2**20, service
                assert host["NanoCpus"] == 1e9, service


def test_only_the_edges_publish_ports(composed: Stack) -> None:
    published = {
        service: len(
            composed.engine.inspect(composed.containers(service)[0])["HostConfig"]["PortBindings"] or ()
        )
        for service in (*SERVING, "edge", "grpc_edge")
    }
    assert published == {**dict.fromkeys(SERVING, 0), "edge": 1, "grpc_edge": 2}


def test_a_promoted_model_is_not_trained_again(composed: Stack) -> None:
    said = composed.run("run", "--rm", "trainer", "train", "--promote", "--unless-promoted")
    assert said.endswith("is promoted already: nothing to do")


@pytest.mark.parametrize("service", ["retrieval_svc", "user_tower_svc"])
def test_three_replicas_share_the_work_evenly(composed: Stack, service: str) -> None:
    with under_load(composed.url) as load:
        composed.scale(service, 3)
        time.sleep(_CONNECTION_AGE_SECONDS)  # by then the gateway has looked for new replicas
        before = answered(composed, service)
        time.sleep(10)
        after = answered(composed, service)
    assert load.failed == {}
    calls = [after[container] - before[container] for container in before]
    shares = [count / sum(calls) for count in calls]
    print(f"{service}: " + ", ".join(f"{share:.0%}" for share in shares))  # noqa: T201
    assert len(shares) == 3
    assert all(0.25 <= share <= 0.42 for share in shares), shares


def test_a_replica_that_is_killed_costs_no_request(composed: Stack) -> None:
    composed.scale("retrieval_svc", 3)
    with under_load(composed.url) as load:
        time.sleep(3)
        killed, *_ = composed.containers("retrieval_svc")
        composed.engine.run("kill", killed)
        time.sleep(5)
    print(json.dumps(load.outcomes))  # noqa: T201
    assert load.failed == {}
    assert load.outcomes["200"] > 500
    composed.engine.run("start", killed)
    wait_until(lambda: composed.healthy("retrieval_svc") == 3, "all three healthy", 60)


@pytest.mark.parametrize("service", SERVING)
def test_a_service_is_replaced_without_losing_a_request(composed: Stack, service: str) -> None:
    before = composed.containers(service)
    with under_load(composed.url) as load:
        time.sleep(2)
        composed.roll(service)
        time.sleep(3)
    print(json.dumps(load.outcomes))  # noqa: T201
    after = composed.containers(service)
    assert len(after) == len(before)
    assert not set(before) & set(after)
    assert load.failed == {}
    assert load.outcomes["200"] > 500


def test_replicas_that_do_not_become_healthy_are_taken_back(composed: Stack) -> None:
    before = composed.containers("gateway")
    broken = {**composed.settings, "GATEWAY_BATCHES_IN_FLIGHT": "none", "PATIENCE_SECONDS": "15"}
    with (
        under_load(composed.url) as load,
        pytest.raises(AssertionError, match="old containers go on"),
    ):
        Stack(composed.engine, composed.compose, broken, composed.files).roll("gateway")
    assert composed.containers("gateway") == before
    assert load.failed == {}
