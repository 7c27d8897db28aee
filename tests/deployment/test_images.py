"""The images: small, of one user without rights, the same from build to build, and enough to serve."""

from __future__ import annotations

import subprocess
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import pytest

from deployment.engine import IMAGES, SERVING, Engine, missing
from services import ROOT, wait_until

_MOST_BYTES = {"gateway": 100e6, "user_tower_svc": 150e6, "retrieval_svc": 160e6}
"""Over the base image."""


def run_python(engine: Engine, image: str, code: str) -> str:
    return engine.run(
        "run", "--rm", "--read-only", "--cap-drop", "ALL", "--entrypoint", "python", image, "-c", code
    )


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("name", SERVING)
def test_a_serving_image_is_small(engine: Engine, images: Mapping[str, str], name: str) -> None:
    sizes = [engine.inspect(image)["Size"] for image in (images[name], images["base"])]
    assert sizes[0] - sizes[1] <= _MOST_BYTES[name]


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_says_what_it_is_and_runs_without_rights(
    engine: Engine, images: Mapping[str, str], name: str
) -> None:
    config = engine.inspect(images[name])["Config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["python", "-m", name]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] not in ("", "0")
    assert labels["org.opencontainers.image.revision"] != ""
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


@pytest.mark.parametrize("name", SERVING)
def test_no_training_package_is_in_a_serving_image(
    engine: Engine, images: Mapping[str, str], name: str
) -> None:
    heavy = ("tensorflow", "keras", "pandas", "scipy", "training", "pip")
    code = f"import importlib.util as u; print([n for n in {heavy} if u.find_spec(n)])"
    assert run_python(engine, images[name], code) == "[]"


@pytest.mark.parametrize("name", IMAGES)
def test_all_of_an_image_is_compiled_and_owned_by_root(
    engine: Engine, images: Mapping[str, str], name: str
) -> None:
    code = """
import pathlib
roots = [pathlib.Path('/app'), pathlib.Path('/opt/venv')]
files = [path for root in roots for path in root.rglob('*') if not path.is_symlink()]
assert all(path.stat().st_uid == 0 for path in files)
assert not any(path.stat().st_mode & 0o022 for path in files)
package = roots[0] / 'twotower'
sources = list(package.rglob('*.py'))
compiled = {path.name.partition('.')[0] for path in package.rglob('__pycache__/*.pyc')}
print(len(sources) > 10 and {path.stem for path in sources} <= compiled)
"""
    assert run_python(engine, images[name], code) == "True"


@pytest.mark.parametrize("name", SERVING)
def test_a_doctor_approves_of_each_serving_image(
    engine: Engine, images: Mapping[str, str], name: str
) -> None:
    said = engine.run("run", "--rm", "--read-only", "--cap-drop", "ALL", images[name], "doctor")
    assert "FAILED" not in said
    assert "reads what it writes" in said


@pytest.mark.parametrize("name", SERVING)
def test_a_container_stops_in_order_when_told(
    engine: Engine, images: Mapping[str, str], name: str
) -> None:
    container = engine.run("run", "--detach", "--read-only", "--cap-drop", "ALL", images[name])
    try:
        wait_until(lambda: "listening" in engine.run("logs", container), "it listening")
        engine.run("stop", "--time", "20", container)
        assert engine.inspect(container)["State"]["ExitCode"] == 0
    finally:
        engine.run("rm", "--force", container)


@pytest.mark.timeout(600)
def test_two_builds_give_the_same_layers(engine: Engine, images: Mapping[str, str]) -> None:
    again = "twotower-test/gateway:again"
    engine.run(
        *("build", "--quiet", "--no-cache", "--network", "host", "--tag", again),
        *("--build-arg", f"PYTHON_IMAGE={images['base']}"),
        *("--file", "gateway/Dockerfile", "."),
        seconds=500,
    )
    first, second = (engine.inspect(image)["RootFS"]["Layers"] for image in (images["gateway"], again))
    assert first == second


@pytest.mark.parametrize("name", IMAGES)
def test_hadolint_finds_nothing(name: str) -> None:
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    if not hadolint.exists():
        missing("hadolint is not installed: `make test-deploy` does it")
    found = subprocess.run(
        [hadolint, ROOT / name / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (0, "")
