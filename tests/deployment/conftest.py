"""One engine, one set of images and one running stack for all tests of containers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from deployment.aws import Aws, running_aws, running_moto, running_registry
from deployment.engine import (
    IMAGES,
    Engine,
    Stack,
    base_image,
    compose_command,
    missing,
    started_engine,
)
from services import NO_TLS, ROOT, free_port, wait_until

REGISTRY = "twotower-test"

# Where make runs the tests, the ones that they run are not below it.
for _name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
    os.environ.pop(_name, None)


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    # Sockets have short names only: pytest's own folders may be too deep.
    with (
        tempfile.TemporaryDirectory(prefix="twotower-") as folder,
        started_engine(Path(folder)) as engine,
    ):
        yield engine


@pytest.fixture(scope="session")
def images(engine: Engine) -> dict[str, str]:
    """The tags of our images, just built, and of the `base` that they stand on."""
    base = base_image(engine)
    made = subprocess.run(
        [
            *("make", "--jobs", "2", "images"),
            *(f"REGISTRY={REGISTRY}", f"PYTHON_IMAGE={base}", "BUILD_ARGS=--network host"),
        ],
        cwd=ROOT,
        env={**engine.environment, "DOCKER": engine.docker},
        capture_output=True,
        text=True,
        check=False,
        timeout=1_500,
    )
    assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-4000:]
    return {"base": base, **{name: f"{REGISTRY}/{name}:latest" for name in IMAGES}}


@pytest.fixture(scope="session")
def envoy_image(
    engine: Engine, images: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> str:
    """Envoy on our base image, from the package that the tests bring."""
    binary = Path(sysconfig.get_path("purelib")) / "envoy" / "_bin" / "envoy"
    if not binary.exists():
        missing("Envoy is not installed: `make test-deploy` does it")
    folder = tmp_path_factory.mktemp("envoy")
    shutil.copy(binary, folder)
    (folder / "Dockerfile").write_text(
        f"FROM {images['base']}\nCOPY --chmod=755 envoy /usr/local/bin/envoy\n"
    )
    engine.run("build", "--quiet", "--tag", f"{REGISTRY}/envoy", str(folder))
    return f"{REGISTRY}/envoy"


@pytest.fixture(scope="session")
def composed(engine: Engine, envoy_image: str, data: Path, two_headed_recipe: Path) -> Iterator[Stack]:
    """The stack of docker-compose.yml, gRPC for direct clients included, with a model of few ratings."""
    engine.call([str(ROOT / "deploy" / "secrets.sh")])
    ports = {name: str(free_port()) for name in ("TWOTOWER_PORT", "USER_TOWER_PORT", "RETRIEVAL_PORT")}
    stack = Stack(
        engine,
        compose_command(engine),
        files=[ROOT / "docker-compose.yml", ROOT / "tests" / "deployment" / "compose.yml"],
        settings={
            **ports,
            "TWOTOWER_REGISTRY": REGISTRY,
            "ENVOY_IMAGE": envoy_image,
            "TEST_DATA": str(data),
            "TEST_RECIPE": str(two_headed_recipe),
        },
    )
    try:
        stack.run("--profile", "grpc", "up", "-d", seconds=600)
        wait_until(lambda: _answers(stack), "the published port answering", 60)
        yield stack
    finally:
        stack.run("--profile", "grpc", "down", "--volumes", "--remove-orphans")


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture(scope="session")
def all_of_aws(registry: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with (
        running_moto("127.0.0.1", tmp_path_factory.mktemp("moto")) as moto,
        running_aws(moto, registry) as aws,
    ):
        yield aws


@pytest.fixture
def aws(all_of_aws: Aws) -> Iterator[Aws]:
    yield all_of_aws
    all_of_aws.answers.clear()


def _answers(stack: Stack) -> bool:
    try:
        return httpx.get(f"{stack.url}/readyz", timeout=5, verify=NO_TLS, trust_env=False).is_success
    except httpx.TransportError:
        return False
