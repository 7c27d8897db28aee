"""`make run`, as a new user meets it: trains once, shows a real answer, stops without a trace."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from services import ROOT, free_port, wait_until
from twotower.bundle import list_versions

_PORTS = (
    "GATEWAY_PORT",
    "USER_TOWER_PORT",
    "RETRIEVAL_PORT",
    "USER_TOWER_METRICS_PORT",
    "RETRIEVAL_METRICS_PORT",
)


@pytest.fixture
def ports() -> dict[str, int]:
    return {name: free_port() for name in _PORTS}


@contextmanager
def _local(bundles: Path, output: Path, ports: dict[str, int]) -> Iterator[subprocess.Popen[bytes]]:
    """The process behind `make run`, its output in a file."""
    with output.open("wb") as written:
        process = subprocess.Popen(
            [sys.executable, "-m", "deploy.local"],
            cwd=ROOT,
            env={
                **os.environ,
                "TWOTOWER_BUNDLES": str(bundles),
                **{name: str(port) for name, port in ports.items()},
            },
            stdout=written,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)


def _processes_over(bundles: Path) -> list[str]:
    """The command lines of the processes that were started with this folder of bundles."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if f"TWOTOWER_BUNDLES={bundles}".encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def _check_stopped(process: subprocess.Popen[bytes], bundles: Path, ports: dict[str, int]) -> None:
    assert process.wait(timeout=15) == 0
    wait_until(lambda: not _processes_over(bundles), "no process left", 5)
    for port in ports.values():
        socket.create_server(("127.0.0.1", port)).close()


def test_the_first_start_trains_and_the_second_does_not(tmp_path: Path, ports: dict[str, int]) -> None:
    bundles, output = tmp_path / "bundles", tmp_path / "output"
    for start in (1, 2):
        with _local(bundles, output, ports) as process:
            wait_until(
                lambda process=process: b"Ctrl-C" in output.read_bytes() or process.poll() is not None,
                "everything up",
                600,
            )
            text = output.read_text()
            assert ("training one" in text) == (start == 1), text
            assert len(re.findall(r"^ +\d+\. .+ \(\d{4}\)   rating \d\.\d\d$", text, re.MULTILINE)) >= 8
            assert f"http://127.0.0.1:{ports['GATEWAY_PORT']}/docs" in text
            url = f"http://127.0.0.1:{ports['GATEWAY_PORT']}/v1/users/2/recommendations?k=3"
            assert len(httpx.get(url).json()["items"]) == 3
            process.send_signal(signal.SIGINT)
            _check_stopped(process, bundles, ports)
    assert len(list_versions(bundles)) == 1


def test_a_taken_port_gives_one_line(bundles: Path, tmp_path: Path, ports: dict[str, int]) -> None:
    taken = ports["RETRIEVAL_PORT"]
    with (
        socket.create_server(("127.0.0.1", taken)),
        _local(bundles, tmp_path / "output", ports) as process,
    ):
        assert process.wait(timeout=30) == 1
    (line,) = (tmp_path / "output").read_text().splitlines()
    assert line == f"error: port {taken}: address already in use; set RETRIEVAL_PORT to another"


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (
            {"GATEWAY_PORT": 0},
            "error: GATEWAY_PORT=0: here the port must be known; set it to a free one",
        ),
        (
            {"GATEWAY_PORT": 18000, "RETRIEVAL_PORT": 18000},
            "error: port 18000: is both RETRIEVAL_PORT and GATEWAY_PORT; set one to another",
        ),
    ],
)
def test_ports_that_cannot_be_give_one_line(
    bundles: Path, tmp_path: Path, ports: dict[str, int], changed: dict[str, int], line: str
) -> None:
    with _local(bundles, tmp_path / "output", ports | changed) as process:
        assert process.wait(timeout=30) == 1
    assert (tmp_path / "output").read_text() == f"{line}\n"


def test_a_closed_terminal_leaves_nothing(bundles: Path, tmp_path: Path, ports: dict[str, int]) -> None:
    output = tmp_path / "output"
    with _local(bundles, output, ports) as process:
        wait_until(lambda: b"Ctrl-C" in output.read_bytes(), "everything up")
        process.send_signal(signal.SIGHUP)
        _check_stopped(process, bundles, ports)


def test_a_service_that_dies_ends_all(bundles: Path, tmp_path: Path, ports: dict[str, int]) -> None:
    output = tmp_path / "output"
    with _local(bundles, output, ports) as process:
        wait_until(lambda: b"Ctrl-C" in output.read_bytes(), "everything up")
        (pid,) = re.findall(r"retrieval\.1 started \(pid=(\d+)\)", output.read_text())
        os.kill(int(pid), signal.SIGKILL)
        assert process.wait(timeout=20) == 1
        assert "error: a service ended" in output.read_text()
    wait_until(lambda: not _processes_over(bundles), "no process left", 5)
