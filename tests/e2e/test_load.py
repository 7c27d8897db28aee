"""What `make load` runs, against the real services and against a server that is at fault."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from services import ROOT, Stack, free_port

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("locust") is None,
    reason="locust is not installed; `make load` installs requirements/bench.txt",
)

_TASKS = {"known user", "inline ratings", "features", "filter", "similar movies"}


def _load(host: str, users: int = 20, seconds: int = 5) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "locust", "--locustfile", "bench/locustfile.py", "--host", host),
            *("--headless", "--json", "--users", str(users), "--spawn-rate", str(users)),
            *("--run-time", f"{seconds}s", "--known-users", "40"),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def _statistics(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return {entry["name"]: entry for entry in json.loads(done.stdout)}


def test_every_kind_of_request_is_answered_whole(stack: Stack) -> None:
    done = _load(stack.url)
    assert done.returncode == 0, done.stderr
    asked = _statistics(done)
    assert asked.keys() == _TASKS
    assert all(entry["num_requests"] > 0 == entry["num_failures"] for entry in asked.values())


@pytest.fixture
def short_of_one() -> Iterator[str]:
    """The address of a server whose every answer lacks a movie, and does not say so."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            movies = [{"movie_id": place, "genres": ["Drama"]} for place in range(100, 109)]
            answer = json.dumps({"items": movies, "shortfall": None}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_answer_that_is_not_whole_is_a_failure(short_of_one: str) -> None:
    done = _load(short_of_one, users=4, seconds=2)
    assert done.returncode == 1
    assert all(
        entry["num_failures"] == entry["num_requests"] > 0 for entry in _statistics(done).values()
    )
    assert "9 movies for 10, and no shortfall" in done.stderr


def test_an_address_that_does_not_answer_is_named() -> None:
    host = f"http://127.0.0.1:{free_port()}"
    done = _load(host, users=1, seconds=60)
    assert done.returncode == 1
    assert f"error: {host}: no recommendations to be had" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
