"""What a container is asked: is it healthy, and will this machine do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from builders import damage
from services import ROOT, Service, Stack, free_port, running, running_stack

SERVICES = ["user_tower", "retrieval", "gateway"]


def ask(service: Service, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the module of a service, with its settings, to its end."""
    return subprocess.run(
        [sys.executable, "-m", service.module, *arguments],
        cwd=ROOT,
        env={**service.environment, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_that_serves_is_healthy(stack: Stack, name: str) -> None:
    asked = ask(getattr(stack, name), "--health")
    assert (asked.returncode, asked.stdout, asked.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["user_tower", "gateway"])
def test_it_is_asked_on_this_machine_where_it_listens_on_all(stack: Stack, name: str) -> None:
    service: Service = getattr(stack, name)
    assert ask(service, "--health", "--host", "0.0.0.0").returncode == 0  # noqa: S104


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_that_is_not_there_is_unhealthy(stack: Stack, name: str) -> None:
    port = str(free_port())
    asked = ask(getattr(stack, name), "--health", "--port", port)
    assert asked.returncode == 1
    assert asked.stderr.startswith(f"error: unhealthy: 127.0.0.1:{port} does not answer (")
    assert asked.stderr.count("\n") == 1


def test_services_without_a_model_are_unhealthy_and_say_why(tmp_path: Path) -> None:
    with running_stack(tmp_path, tmp_path, ready=False) as stack:
        asked = ask(stack.user_tower, "--health")
        assert asked.returncode == 1
        assert asked.stderr == f"error: unhealthy: {stack.user_tower.address} is NOT_SERVING\n"
        asked = ask(stack.gateway, "--health")
        assert asked.returncode == 1
        assert asked.stderr.endswith("has no model: none is promoted\n")


def test_a_gateway_without_services_is_unhealthy(stack: Stack) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    alone = Service(
        "gateway",
        port := free_port(),
        port,
        stack.gateway.log_path.with_name("alone.log"),
        {**stack.gateway.environment, "GATEWAY_PORT": str(port), "GATEWAY_RETRIEVAL": nowhere},
    )
    with running(alone):
        assert ask(alone, "--health").returncode == 1


@pytest.mark.parametrize("name", SERVICES)
def test_a_doctor_says_what_a_service_stands_on(stack: Stack, name: str) -> None:
    asked = ask(getattr(stack, name), "doctor", TWOTOWER_REVISION="abc123")
    assert asked.returncode == 0, asked.stdout
    lines = dict(line.split(maxsplit=1) for line in asked.stdout.splitlines())
    assert lines["twotower"].endswith(", revision abc123")
    assert lines["protobuf"].endswith("reads what it writes")
    own = {"user_tower": {"LiteRT", "model"}, "retrieval": {"FAISS", "model"}, "gateway": {"FastAPI"}}
    assert lines.keys() == {"twotower", "Python", "CPU", "protobuf", "gRPC"} | own[name]
    if "model" in lines:
        assert "answers its golden requests" in lines["model"]


@pytest.mark.parametrize("name", ["user_tower", "retrieval"])
def test_a_doctor_finds_a_damaged_model(stack: Stack, bundles: Path, name: str) -> None:
    for file in bundles.glob("*/features.json"):
        damage(file)
    asked = ask(getattr(stack, name), "doctor", TWOTOWER_BUNDLES=str(bundles))
    assert asked.returncode == 1
    assert "/features.json: its content does not match" in asked.stdout
    assert asked.stderr == "error: this will not do: model\n"


def test_a_doctor_without_a_model_says_so(stack: Stack, tmp_path: Path) -> None:
    asked = ask(stack.retrieval, "doctor", TWOTOWER_BUNDLES=str(tmp_path))
    assert asked.returncode == 0
    assert f"none is promoted in {tmp_path}: not tried" in asked.stdout
