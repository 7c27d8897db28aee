"""Training where there is no room for what it writes: one line, and nothing taken for a bundle."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from builders import QUICK_RECIPE
from services import ROOT
from training.checkpoint import FOLDER
from twotower.bundle import read_bundle


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The least that is trained on."""
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,4,5\n2,1,3,5\n2,2,5,6\n")
    (tmp_path / "quick.toml").write_text(QUICK_RECIPE)
    return tmp_path


def _train(data: Path, largest_file: int | None, *options: str) -> tuple[int, str, str]:
    """The status, and what is written; no file may become larger than that."""

    def limit() -> None:
        if largest_file:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    train = ["train", "--data", "ratings.csv", "--recipe", "quick.toml", *options]
    done = subprocess.run(
        [sys.executable, "-m", "training", *train],
        cwd=data,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TWOTOWER_BUNDLES": "bundles"},
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("largest_file", "words"),
    [
        (20_000, "cannot be written to: "),  # not even a tower, where it is made
        (200_000, "bundles cannot be written to: File too large"),  # not the report, within the bundle
    ],
)
def test_training_without_room(data: Path, largest_file: int, words: str) -> None:
    status, out, error = _train(data, largest_file)
    assert status == 1
    (line,) = error.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert "File too large" in line
    assert "model " not in out.splitlines()[-1]
    assert {path.name for path in (data / "bundles").iterdir()} <= {FOLDER}
    status, _, error = _train(data, None, "--resume")
    assert (status, error) == (0, "")
    (version,) = (path.name for path in (data / "bundles").iterdir())
    read_bundle(data / "bundles", version)
