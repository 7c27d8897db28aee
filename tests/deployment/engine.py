"""A Docker engine for the tests: the one that runs, or one started for them; and Compose on it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from services import ROOT, wait_until

PYTHON_IMAGE = os.environ.get("PYTHON_IMAGE", "python:3.11-slim-bookworm")
_STAND_IN = "twotower-test/python"
SERVING = ("user_tower_svc", "retrieval_svc", "gateway")
IMAGES = (*SERVING, "training")
_CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "twotower-tests"


def missing(reason: str) -> None:
    """Skip what this machine cannot do; where CI must have it, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have it: {reason}", pytrace=False)
    pytest.skip(reason)


@dataclass(frozen=True)
class Engine:
    """A Docker engine, by the environment that its clients need."""

    docker: str
    environment: Mapping[str, str]

    def run(self, *arguments: str, seconds: float = 120) -> str:
        """The standard output of a docker command. Fails the test where that fails."""
        return self.call([self.docker, *arguments], seconds=seconds)

    def call(self, command: Sequence[str], *, seconds: float = 120, **environment: str) -> str:
        """The standard output of any command that talks to the engine."""
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout.strip()

    def inspect(self, thing: str) -> dict[str, Any]:
        """What the engine knows of an image or a container."""
        (found,) = json.loads(self.run("inspect", thing))
        return dict(found)

    def has_image(self, image: str) -> bool:
        return bool(self.run("images", "--quiet", image))


@contextmanager
def started_engine(folder: Path) -> Iterator[Engine]:
    """The engine that answers already, or one of its own in `folder`, stopped at the end."""
    docker = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else shutil.which("docker")
    if docker is None:
        missing("there is no docker command; Debian has it in docker.io")
        raise AssertionError
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    if _answers(docker, environment):
        yield Engine(docker, environment)
        return
    if os.geteuid() != 0 or not shutil.which("dockerd"):
        missing("no Docker engine answers, and none can be started: that takes root and dockerd")
    socket = folder / "docker.sock"
    environment["DOCKER_HOST"] = f"unix://{socket}"
    with (folder / "dockerd.log").open("wb") as log:
        daemon = subprocess.Popen(
            [
                "dockerd",
                *("--data-root", str(_CACHE / "docker")),
                *("--exec-root", str(folder / "exec")),
                *("--pidfile", str(folder / "pid")),
                *("--host", environment["DOCKER_HOST"]),
            ],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 60
        while not _answers(docker, environment):
            if daemon.poll() is not None or time.monotonic() > deadline:
                missing(f"dockerd does not start: {(folder / 'dockerd.log').read_text()[-500:]}")
            time.sleep(0.2)
        yield Engine(docker, environment)
    finally:
        daemon.terminate()
        daemon.wait(timeout=60)


def _answers(docker: str, environment: Mapping[str, str]) -> bool:
    return not subprocess.run(
        [docker, "version"], env=dict(environment), capture_output=True, check=False, timeout=30
    ).returncode


def base_image(engine: Engine) -> str:
    """The Python image that ours stand on; where it cannot be pulled, one made of Debian's packages."""
    if engine.has_image(PYTHON_IMAGE):
        return PYTHON_IMAGE
    pulled = subprocess.run(
        [engine.docker, "pull", "--quiet", PYTHON_IMAGE],
        env=dict(engine.environment),
        capture_output=True,
        check=False,
        timeout=300,
    )
    if pulled.returncode:
        if os.geteuid() != 0 or not shutil.which("mmdebstrap"):
            missing(f"{PYTHON_IMAGE} cannot be pulled, nor made: that takes root and mmdebstrap")
        script = Path(__file__).parent / "make_python_image.sh"
        engine.call([str(script), _STAND_IN, str(_CACHE)], seconds=600, DOCKER=engine.docker)
        return _STAND_IN
    return PYTHON_IMAGE


@dataclass
class Stack:
    """The whole of docker-compose.yml, as a project of its own."""

    engine: Engine
    compose: Sequence[str]
    settings: Mapping[str, str]
    files: Sequence[Path] = ()
    project: str = field(default="twotower-test")

    def run(self, *arguments: str, seconds: float = 240) -> str:
        return self.engine.call([*self.command, *arguments], seconds=seconds, **self.settings)

    @property
    def command(self) -> list[str]:
        named = [word for file in self.files for word in ("--file", str(file))]
        return [*self.compose, "--project-name", self.project, *named]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings['TWOTOWER_PORT']}"

    def containers(self, service: str) -> list[str]:
        """The ids of a service's containers."""
        return self.run("ps", "-q", service).split()

    def scale(self, service: str, replicas: int) -> None:
        """Have that many, all of them healthy."""
        scale = f"{service}={replicas}"
        self.run("up", "-d", "--no-deps", "--no-recreate", "--scale", scale, service)
        wait_until(lambda: self.healthy(service) == replicas, f"{scale} healthy", 60)

    def healthy(self, service: str) -> int:
        """How many containers of a service say that they are healthy."""
        states = [self.engine.inspect(container)["State"] for container in self.containers(service)]
        return sum(state["Health"]["Status"] == "healthy" for state in states)

    def roll(self, service: str) -> str:
        """Replace a service's containers without a gap."""
        return self.engine.call(
            [str(ROOT / "deploy" / "compose" / "roll.sh"), service],
            seconds=240,
            COMPOSE=" ".join(self.command),
            DOCKER=self.engine.docker,
            **self.settings,
        )


def compose_command(engine: Engine) -> list[str]:
    """Compose v2, or else 1.29."""
    for command in ([engine.docker, "compose"], ["docker-compose"]):
        if (
            shutil.which(command[0])
            and not subprocess.run(
                [*command, "version"], env=dict(engine.environment), capture_output=True, check=False
            ).returncode
        ):
            return command
    missing("there is no Compose; Debian has it in docker-compose")
    raise AssertionError
