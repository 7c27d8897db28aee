"""The way around FastAPI, which must not show but by its speed."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import httpx

from services import NO_TLS, Service, Stack, running_stack, wait_until
from twotower.bundle import Bundle

ROUTE = "POST /v1/recommendations"


def ask(url: str, *, around: bool, body: bytes) -> httpx.Response:
    """Ask by the shortcut, or as a browser does, whom FastAPI answers."""
    headers = {"content-type": "application/json", "x-request-id": "one-id"}
    if not around:
        headers["origin"] = "https://a.page"
    return httpx.post(f"{url}/v1/recommendations", content=body, headers=headers, verify=NO_TLS)


def bodies(model: Bundle) -> list[bytes]:
    movies = model.catalogue.movie_ids[:40:3].tolist()
    ratings = [{"movie_id": movie, "rating": 1 + place % 5} for place, movie in enumerate(movies)]
    timed = [{**rating, "timestamp": place * 10} for place, rating in enumerate(ratings)]
    sound: list[Any] = [
        {"user_id": 1},
        {"user_id": 2**40, "k": 100},
        {"ratings": ratings, "k": 3},
        {"ratings": timed, "as_of": 1000, "exclude_rated": False},
        {"ratings": []},
        {"features": {"rating_count": 3, "mean_rating": 3.5, "genre_means": {"Drama": 4.5}}},
        {"user_id": 1, "filter": {"genres_any": ["Drama"], "year_min": 1990}, "exclude_movie_ids": [1]},
        {"user_id": 1, "filter": {"year_min": 9000}},
    ]
    faulty: list[Any] = [
        {},
        {"user_id": -1},
        {"user_id": 1.0},
        {"k": 0, "user_id": 1},
        {"ratings": [{"movie_id": 1, "rating": 99}]},
        {"ratings": [timed[0], ratings[1]]},
        {"ratings": [ratings[0], ratings[0]]},
        {"user_id": 1, "filter": {"genres_any": ["No such"]}},
        {"user_id": 1, "filter": {"year_min": 2, "year_max": 1}},
        {"user_id": 1, "what": 1},
        [1],
    ]
    return [json.dumps(each).encode() for each in (*sound, *faulty)] + [b"", b"{", b'{"user_id":NaN}']


def test_both_ways_lead_to_the_same(stack: Stack, model: Bundle) -> None:
    for body in bodies(model):
        quick, slow = (ask(stack.url, around=around, body=body) for around in (True, False))
        assert quick.status_code == slow.status_code, body
        assert quick.json() == slow.json(), body
        for name in ("content-type", "content-length", "x-request-id", "retry-after"):
            assert quick.headers.get(name) == slow.headers.get(name), (body, name)


def test_a_body_in_pieces(stack: Stack) -> None:
    pieces = [b'{"user', b'_id":', b"1}"]
    url = f"{stack.url}/v1/recommendations"
    answer = httpx.post(url, content=iter(pieces), headers={"content-type": "application/json"})
    assert answer.json() == httpx.post(url, json={"user_id": 1}).json()


def test_of_two_media_types_the_first_counts(stack: Stack) -> None:
    given = [("content-type", "text/plain"), ("content-type", "application/json")]
    url = f"{stack.url}/v1/recommendations"
    assert httpx.post(url, content=b'{"user_id":1}', headers=given).status_code == 415
    assert httpx.post(url, content=b'{"user_id":1}', headers=given[::-1]).status_code == 200


def test_a_body_announced_as_too_long_is_not_waited_for(stack: Stack) -> None:
    host, port = stack.gateway.address.split(":")
    head = (
        "POST /v1/recommendations HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
        "content-length: 2000000\r\nexpect: 100-continue\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(head.encode())
        assert connection.recv(65_536).startswith(b"HTTP/1.1 413 ")


def test_it_counts_as_the_route_that_it_stands_for(stack: Stack) -> None:
    gateway = stack.gateway
    before = gateway.metric("twotower_requests_total", method=ROUTE, code="200")
    assert ask(stack.url, around=True, body=b'{"user_id":1}').status_code == 200
    assert ask(stack.url, around=False, body=b'{"user_id":1}').status_code == 200
    assert gateway.metric("twotower_requests_total", method=ROUTE, code="200") == before + 2


def test_a_head_and_its_body_come_together(stack: Stack) -> None:
    host, port = stack.gateway.address.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        for _ in range(5):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
            assert connection.recv(65_536).endswith(b'{"status":"alive"}')


def stop_waiting(gateway: Service) -> None:
    """Ask, wait until the gateway has sent that on, and leave."""
    host, port = gateway.address.split(":")
    body = b'{"user_id":1}'
    head = (
        "POST /v1/recommendations HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(head.encode() + body)
        time.sleep(0.3)


def test_a_client_that_leaves_is_waited_for_no_longer(bundles: Path, tmp_path: Path) -> None:
    with running_stack(bundles, tmp_path, timeout_seconds="20") as stack:
        left = {"method": ROUTE, "code": "499"}
        with stack.retrieval.frozen():
            stop_waiting(stack.gateway)
            wait_until(
                lambda: stack.gateway.metric("twotower_requests_total", **left) == 1,
                "the request ended",
                10,
            )
        stack.wait_ready(10)
        assert ask(stack.url, around=True, body=b'{"user_id":1}').status_code == 200
        assert "Traceback" not in stack.gateway.log_path.read_text()
