"""Each image's own requirements are enough to start it: no service leans on another's packages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from services import ROOT

_REQUIREMENTS = ROOT / "requirements"
_FORBIDDEN_TO_SERVE = {
    *("tensorflow", "keras", "pandas", "polars", "scipy"),
    *("scikit-surprise", "scikit-learn", "implicit"),
    *("bokeh", "jinja2"),
}
_POOLS = "from threadpoolctl import threadpool_info"
_START = """
import sys
absent = set(sys.argv[2:])
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"{name} is not among the requirements")
sys.meta_path.insert(0, Absent())
__import__(sys.argv[1])
"""


def _names(requirements: Path) -> set[str]:
    """The packages of a hashed set, by their normalised names."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==", requirements.read_text(), re.MULTILINE)
    return {_normalised(name) for name in found}


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _absent_modules(requirements: Path) -> list[str]:
    """The top-level modules installed here that the requirements do not bring."""
    names = _names(requirements)
    return [
        module
        for module, distributions in packages_distributions().items()
        if not names & {_normalised(distribution) for distribution in distributions}
    ]


@pytest.mark.parametrize(
    ("module", "requirements"),
    [
        ("user_tower_svc.service", "user_tower.txt"),
        ("retrieval_svc.service", "retrieval.txt"),
        ("gateway.service", "gateway.txt"),
        ("training.pipeline", "training.txt"),
        ("training.__main__", "training.txt"),
        ("implicit.als", "evaluation.txt"),
        ("sklearn.ensemble", "evaluation.txt"),
    ],
)
def test_starts_with_its_own_requirements(module: str, requirements: str) -> None:
    absent = _absent_modules(_REQUIREMENTS / requirements)
    assert "pytest" in absent  # or nothing is held back here
    answer = subprocess.run(
        [sys.executable, "-c", _START, module, *absent],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("service", ["user_tower_svc", "retrieval_svc"])
def test_a_service_computes_in_the_thread_that_it_is_asked_in(service: str, tmp_path: Path) -> None:
    threads = "{pool['num_threads'] for pool in threadpool_info()}"
    script = f"from {service}.__main__ import main\nmain()\n{_POOLS}\nprint({threads})"
    assert _said(script, "doctor", bundles=tmp_path).splitlines()[-1] == "{1}"


def test_what_runs_beside_the_services_keeps_its_threads(tmp_path: Path) -> None:
    script = (
        "import os\nimport deploy.local\nprint([n for n in os.environ if n.endswith('_NUM_THREADS')])"
    )
    assert _said(script, bundles=tmp_path) == "[]\n"


def _said(script: str, *arguments: str, bundles: Path) -> str:
    """The standard output of a script that nobody has told how many threads to use."""
    settings = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        env={**settings, "TWOTOWER_BUNDLES": str(bundles)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.mark.parametrize("service", ["user_tower", "retrieval", "gateway"])
def test_no_serving_image_holds_what_trains(service: str) -> None:
    assert not _names(_REQUIREMENTS / f"{service}.txt") & _FORBIDDEN_TO_SERVE


def test_all_sets_agree_and_every_line_is_hashed() -> None:
    pinned: dict[str, set[str]] = {}
    for path in _REQUIREMENTS.glob("*.txt"):
        text = path.read_text()
        assert "://" not in text
        for line in re.findall(r"^[A-Za-z0-9].*$", text, re.MULTILINE):
            assert line.endswith("\\"), line  # its hashes follow
            pin, _, marker = line.rstrip(" \\").partition(" ; ")
            name, _, version = pin.partition("==")
            pinned.setdefault(f"{name} {marker}", set()).add(version)  # some differ by Python's version
    assert all(len(versions) == 1 for versions in pinned.values())


def test_nothing_is_missing_though_nothing_is_installed_beside_what_is_listed() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout
