"""The script of a host where something is wrong, by stand-ins for Docker and AWS that note each call."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from services import ROOT

PASSWORD = "of-twelve-hours"  # noqa: S105 - a stand-in
_AWS = f"""#!/bin/sh
echo "aws $*" >>"$CALLS"
case $* in *get-login-password*) echo {PASSWORD} ;; esac
"""
_DOCKER = f"""#!/bin/sh
echo "docker $*" >>"$CALLS"
case $* in
    "image inspect --format "*) echo "$IMAGE" ;;
    "image inspect "*) [ -e "$PULLED" ] ;;
    login*) [ "$LOGIN" = works ] && [ "$(cat)" = {PASSWORD} ] && touch "$LOGGED_IN" ;;
    pull*) [ -e "$LOGGED_IN" ] && touch "$PULLED" ;;
esac
"""
_UNAME = """#!/bin/sh
echo "$MACHINE"
"""
_CURL = """#!/bin/sh
echo ready
"""


@dataclass
class Host:
    """A home of the script, and a PATH that begins with the stand-ins."""

    home: Path
    tools: Path

    def up(self, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.home / "app/deploy/aws/host.sh", "up"],
            env={
                "PATH": f"{self.tools}:{os.environ['PATH']}",
                "TWOTOWER_HOME": str(self.home),
                "CALLS": str(self.home / "calls"),
                "PULLED": str(self.home / "pulled"),
                "LOGGED_IN": str(self.home / "logged-in"),
                "LOGIN": "works",
                "IMAGE": "linux/amd64",
                "MACHINE": "x86_64",
                **changes,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def calls(self) -> list[str]:
        """What was called so far, but for looks at images."""
        lines = (self.home / "calls").read_text().splitlines()
        return [line for line in lines if not line.startswith("docker image inspect")]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    home, tools = tmp_path / "home", tmp_path / "tools"
    (home / "app/deploy/aws").mkdir(parents=True)
    shutil.copy(ROOT / "deploy/aws/host.sh", home / "app/deploy/aws")
    settings = {
        "REGISTRY": "1.dkr.ecr.eu-west-1.amazonaws.com/twotower",
        "REGION": "eu-west-1",
        "TAG": "1.4",
        "BUNDLES": "s3://movies/models",
        "RELEASES": "s3://movies/releases",
        "GRPC": "false",
        "STACK": "movies",
    }
    (home / "env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    tools.mkdir()
    for name, script in {"aws": _AWS, "docker": _DOCKER, "uname": _UNAME, "curl": _CURL}.items():
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)
    return Host(home, tools)


def place(calls: list[str], start: str) -> int:
    """Where the first call lies that begins so."""
    return next(place for place, call in enumerate(calls) if call.startswith(start))


def test_each_run_logs_in_before_it_pulls_and_pulls_before_it_starts(host: Host) -> None:
    for _ in range(2):
        ended = host.up()
        assert ended.returncode == 0, ended.stderr
        calls = host.calls()
        assert (
            place(calls, "docker login")
            < place(calls, "docker pull")
            < place(calls, "docker compose up")
        )
        assert PASSWORD not in "".join([*calls, ended.stdout, ended.stderr])
        for name in ("calls", "pulled", "logged-in"):
            (host.home / name).unlink()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"LOGIN": "fails"}, "ECR does not let this host in"),
        ({"LOGGED_IN": "/dev/null/nowhere"}, "ECR does not let this host in"),
        ({"IMAGE": "linux/arm64"}, "is for linux/arm64, and this host is linux/amd64"),
        ({"MACHINE": "aarch64"}, "is for linux/amd64, and this host is linux/arm64"),
        ({"MACHINE": "riscv64"}, "is for linux/amd64, and this host is linux/riscv64"),
    ],
)
def test_what_runs_stays_where_the_images_will_not_do(
    host: Host, changes: dict[str, str], said: str
) -> None:
    ended = host.up(**changes)
    assert ended.returncode == 1
    assert said in ended.stderr
    assert PASSWORD not in ended.stdout + ended.stderr
    assert not [call for call in host.calls() if " up " in call or " down" in call or " stop" in call]


def test_images_of_this_processor_start_on_arm_too(host: Host) -> None:
    assert host.up(IMAGE="linux/arm64", MACHINE="aarch64").returncode == 0
