"""What is interrupted goes on to the same end, wherever it was."""

from __future__ import annotations

import io
import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from conftest import Trained
from services import ROOT, wait_until
from training import pipeline
from training.checkpoint import FOLDER, Arrays, Checkpoint
from training.report import Reporter
from twotower.bundle import list_versions
from twotower.manifest import Manifest

_STEPS_AT_ONCE = 4


class Interruptions:
    """Ctrl-C whenever so much more is kept, until a run comes to its end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._left = 0
        save = Checkpoint.save

        def save_and_interrupt(checkpoint: Checkpoint, name: str, arrays: Arrays) -> None:
            save(checkpoint, name, arrays)
            self._left -= 1
            if not self._left:
                raise KeyboardInterrupt

        monkeypatch.setattr(Checkpoint, "save", save_and_interrupt)

    def be_near(self) -> None:
        self._left = _STEPS_AT_ONCE

    def run(self, run: Callable[[], Any]) -> Any:
        while True:
            self.be_near()
            try:
                return run()
            except KeyboardInterrupt:
                self.count += 1


def _evaluation(bundles: Path, version: str) -> list[dict[str, Any]]:
    """What a bundle says of its evaluation, but for the time that took."""
    rows = json.loads((bundles / version / "evaluation.json").read_text())["rows"]
    return [{**row, "train_seconds": None} for row in rows]


@pytest.mark.parametrize("heads", [1, 2])
def test_training_goes_on_to_the_same_model(
    trained: Trained,
    two_headed_recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    heads: int,
) -> None:
    recipe = trained.recipe if heads == 1 else two_headed_recipe

    def train(bundles: Path, *, resume: bool) -> Manifest:
        reporter = Reporter(Console(quiet=True))
        return pipeline.train(trained.data, str(recipe), bundles, 1, reporter, resume=resume).manifest

    whole = train(tmp_path / "whole", resume=False)
    interruptions = Interruptions(monkeypatch)
    resumed = interruptions.run(lambda: train(tmp_path / "parts", resume=True))
    assert interruptions.count >= 3
    assert resumed.model_version == whole.model_version
    assert _evaluation(tmp_path / "parts", resumed.model_version) == _evaluation(
        tmp_path / "whole", whole.model_version
    )
    assert [path.name for path in (tmp_path / "parts").iterdir()] == [resumed.model_version]


def test_evaluating_goes_on_to_the_same_results(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate(bundles: Path | None) -> list[dict[str, Any]]:
        results = pipeline.evaluate(
            trained.data,
            [str(trained.recipe)],
            ["temporal", "cold-user"],
            [0, 1],
            Reporter(Console(quiet=True)),
            bundles=bundles,
            resume=bundles is not None,
        )
        return [{**row, "train_seconds": None} for row in results.rows()]

    whole = evaluate(None)
    interruptions = Interruptions(monkeypatch)
    assert interruptions.run(lambda: evaluate(tmp_path)) == whole
    assert interruptions.count >= 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_process_that_ended_is_gone_on_from_by_the_command_it_tells(
    trained: Trained, tmp_path: Path, number: int
) -> None:
    output, bundles = tmp_path / "output", tmp_path / "a folder"
    train = ["train", "--data", trained.data, "--recipe", trained.recipe, "--seed", "1"]
    arguments = [*map(str, train), "--bundles", str(bundles)]
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "training", *arguments], cwd=ROOT, stdout=file, stderr=file
        )
    wait_until(lambda: any(bundles.glob(f"{FOLDER}/*/temporal-*")), "something kept", 100)
    process.send_signal(number)
    ended = process.wait(timeout=20)
    assert list_versions(bundles) == []
    command = ["python", "-m", "training", *arguments, "--resume"]
    if number == signal.SIGKILL:
        assert ended == -number
    else:
        assert ended == 130
        told = output.read_text().splitlines()[-1]
        assert told == f"interrupted; to go on from there: {shlex.join(command)}"
    resumed = subprocess.run(
        [sys.executable, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=True, timeout=200
    )
    assert "temporal: popular (as it was found before)" in resumed.stdout
    assert [path.name for path in bundles.iterdir()] == [trained.first]


def test_without_resume_it_starts_at_the_beginning_and_tells_of_the_checkpoint(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*, resume: bool, seed: int = 1) -> str:
        console = Console(record=True, quiet=False, file=io.StringIO(), width=100)
        with suppress(KeyboardInterrupt):
            pipeline.train(
                trained.data, str(trained.recipe), tmp_path, seed, Reporter(console), resume=resume
            )
        return console.export_text()

    Interruptions(monkeypatch).be_near()
    assert "none like this was interrupted: it starts at the beginning" in said(resume=True)
    again = said(resume=False)
    assert "one like this was interrupted: --resume would go on from there" in again
    assert "as it was found before" not in again
    assert "none like this was interrupted" in said(resume=True, seed=2)  # another run's is left alone
