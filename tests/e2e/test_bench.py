"""`python -m bench` on a small model: what it measures and writes, and what it does not let pass."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench import wrk
from bench.processes import Command, Program, wait_until_idle
from bench.variants import VARIANTS, Layout, Running, Variant, running
from conftest import Trained
from deployment.engine import missing
from services import ROOT, free_port, wait_until
from twotower.errors import OperationError

_VARIANTS = [variant.name for variant in VARIANTS if not variant.missing()]


@pytest.fixture
def _wrk() -> None:
    if not shutil.which("wrk"):
        missing("wrk is not installed; Debian has it in wrk")


def _bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return _run("bench", *arguments)


def _run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )


@contextmanager
def _server(status: int, answer: bytes) -> Iterator[int]:
    """The port of a server that always answers so."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def _is_alive(pid: int) -> bool:
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())  # of one ended, nothing
    except FileNotFoundError:
        return False


def _answer(*movies: tuple[int, float]) -> bytes:
    items = [{"movie_id": movie_id, "score": score} for movie_id, score in movies]
    return json.dumps({"items": items}).encode()


@pytest.mark.usefixtures("_wrk")
def test_every_variant_is_measured_at_every_number_of_connections(
    trained: Trained, tmp_path: Path
) -> None:
    bundles = trained.copy(tmp_path / "bundles", trained.first)
    done = _bench(
        *("--quick", "--bundles", str(bundles), "--output", str(tmp_path), "--variants", *_VARIANTS)
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["model_version"] == trained.first
    assert [variant["name"] for variant in results["variants"]] == _VARIANTS
    assert results["skipped"].keys() == {variant.name for variant in VARIANTS} - {*_VARIANTS}
    assert {"stack", "two-calls", "monolith", "fastapi", "asgi"} <= {*_VARIANTS}
    for variant in results["variants"]:
        assert variant["start_seconds"] > 0
        assert variant["rounds"].keys() == {"1", "8"}
        for rounds in variant["rounds"].values():
            for measured in rounds:
                assert measured["requests_per_second"] > 0
                assert 0 < measured["p50_ms"] <= measured["p99_ms"]
        assert variant["cpu_ms"].keys() == variant["memory"].keys()
        assert all(
            any(rounds) for by_number in variant["cpu_ms"].values() for rounds in by_number.values()
        )
        for memory in variant["memory"].values():
            assert memory["rss_mb"] >= memory["pss_mb"] > 1
    assert len(results["variants"][0]["memory"]) == 3
    assert len(results["users_per_second"]) == 13
    assert all(rate > 0 for rates in results["users_per_second"].values() for rate in rates)
    assert (tmp_path / "results.md").read_text() == done.stdout
    for name in (*_VARIANTS, *results["skipped"]):
        assert name in done.stdout
    assert {growth["by"] for growth in results["growth"]} == {
        "ratings of a user",
        "users at once",
        "k",
        "movies",
    }
    for growth in results["growth"]:
        assert len(growth["rounds"]) > 1
        assert all(cost > 0 for rounds in growth["rounds"].values() for cost in rounds)
    for name, texts in (("results", _VARIANTS), ("growth", ("connections", "movies", "k"))):
        picture = ET.parse(tmp_path / f"{name}.svg")  # noqa: S314 - we made it
        assert set(texts) <= {text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")}


@pytest.mark.usefixtures("_wrk")
def test_flame_graphs_of_each_service(trained: Trained, tmp_path: Path) -> None:
    if not (Path(sys.executable).parent / "py-spy").exists():
        pytest.skip("py-spy is not installed: it is of requirements/bench.txt")
    bundles = trained.copy(tmp_path / "bundles", trained.first)
    places = ("--bundles", str(bundles), "--output", str(tmp_path))
    done = _run("bench.flame", *places, "--seconds", "1", "--connections", "2")
    assert done.returncode == 0, done.stderr
    for service in ("user_tower_svc", "retrieval_svc", "gateway"):
        assert f"{service}/" in (tmp_path / f"flame-{service}.svg").read_text()


def test_numpy_is_told_of_threads_before_it_is_imported() -> None:
    script = "import sys, bench.__main__; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "--rounds: '0': allowed is a whole number, 1 or more"),
        (["--variants", "magic"], "invalid choice: 'magic'"),
    ],
)
def test_an_option_that_is_not_allowed_is_named(arguments: list[str], message: str) -> None:
    done = _bench(*arguments)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.usefixtures("_wrk")
def test_a_folder_without_a_promoted_model_is_named(tmp_path: Path) -> None:
    done = _bench("--quick", "--bundles", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"error: no model is promoted in {tmp_path}"


@pytest.mark.usefixtures("_wrk")
def test_a_failure_under_load_is_an_error(tmp_path: Path) -> None:
    requests = tmp_path / "requests"
    requests.write_bytes(b"{}\n")
    with _server(503, b"") as port, pytest.raises(OperationError, match=r"\d+ requests failed"):
        wrk.load(f"http://127.0.0.1:{port}", requests, connections=2, seconds=1)
    with _server(200, b"{}") as port:
        assert wrk.load(f"http://127.0.0.1:{port}", requests, connections=2, seconds=1).p50_ms > 0


_REFERENCE = _answer((1, 0.9), (2, 0.5), (3, 0.2))
_LEVEL = _answer((1, 0.9), (2, 0.5), (4, 0.2 - 1e-6))


def _check(answer: bytes, *, constant: bool) -> None:
    with _server(200, answer) as port:
        variant = Variant("odd", "", lambda: Layout(port, {}), constant=constant)
        Running(variant, variant.lay_out(), [], 0.0).check([b"{}"], [_REFERENCE])


@pytest.mark.parametrize(
    "answer",
    [
        _answer((1, 0.9), (3, 0.5), (2, 0.2)),
        _answer((1, 0.9), (2, 0.5)),
        _answer((1, 0.9), (2, 0.5), (2, 0.2)),
        _answer((1, 0.9), (2, 0.5), (4, 0.1)),
    ],
)
def test_a_variant_that_finds_other_movies_is_not_measured(answer: bytes) -> None:
    with pytest.raises(OperationError, match=r"^odd answers \{\} by 200 "):
        _check(answer, constant=False)


def test_movies_of_level_scores_may_change_places_but_no_byte_of_a_constant_answer() -> None:
    for constant in (False, True):
        _check(_REFERENCE, constant=constant)
    _check(_LEVEL, constant=False)
    with pytest.raises(OperationError, match=r"^odd answers"):
        _check(_LEVEL, constant=True)


def test_a_variant_that_cannot_start_says_why(tmp_path: Path) -> None:
    command = Command([sys.executable, "-c", "raise SystemExit('no such model')"], {})
    variant = Variant("broken", "", lambda: Layout(free_port(), {"it": command}))
    with (
        pytest.raises(OperationError, match=r"^it ended with status 1: no such model$"),
        running(variant, {}, b"{}", tmp_path),
    ):
        pass


def test_what_a_program_starts_is_counted_waited_for_and_stopped(tmp_path: Path) -> None:
    busy = "import time\nwhile time.process_time() < 1: pass\n"
    child = f"{busy}print('idle', flush=True); time.sleep(60)"
    parent = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])"
    log = tmp_path / "log"
    with Program.running("parent", Command([sys.executable, "-c", parent], {}), log) as program:
        while program.cpu_seconds() < 0.5:
            program.check_running()
        wait_until_idle([program])
        assert program.last_words() == "idle"
        assert program.memory().rss_mb >= program.memory().pss_mb > 0
        pids = program._pids()
        assert len(pids) == 2
    wait_until(lambda: not any(map(_is_alive, pids)), "both ended")
