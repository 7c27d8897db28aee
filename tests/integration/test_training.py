"""The training commands, as a user runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from conftest import Trained
from services import ROOT, wait_until
from twotower.bundle import list_versions, read_bundle, write_bundle
from twotower.promotion import read_current


def _training(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "training", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


def _one_line(answer: subprocess.CompletedProcess[str]) -> str:
    """The single line that a refused command writes."""
    assert answer.returncode == 1, answer
    (line,) = answer.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def test_train_writes_the_same_bundle_for_the_same_seed(trained: Trained, tmp_path: Path) -> None:
    answer = _training(
        *("train", "--data", trained.data, "--recipe", trained.recipe, "--seed", "1", "--promote"),
        TWOTOWER_BUNDLES=str(tmp_path / "new"),
    )
    assert answer.returncode == 0, answer.stderr
    assert list_versions(tmp_path / "new") == [trained.first]
    current = read_current(tmp_path / "new")
    assert current is not None
    assert current.current == trained.first
    for method in ("global mean", "user + movie bias", "SVD", "quick"):
        assert method in answer.stdout
    assert "A temporal" in answer.stdout
    assert "B random" in answer.stdout
    assert answer.stderr == ""


def test_the_bundle_is_what_was_evaluated(trained: Trained) -> None:
    manifest, bundle = read_bundle(trained.bundles, trained.first)
    assert manifest.recipe == "quick"
    assert manifest.metrics["temporal quick rmse"] < manifest.metrics["temporal global mean rmse"]
    folder = trained.bundles / trained.first
    evaluation = json.loads((folder / "evaluation.json").read_bytes())
    assert {row["protocol"] for row in evaluation["errors"]} == {"temporal", "random"}
    assert evaluation["split_digests"].keys() == {"temporal", "random"}
    assert (folder / "user_tower.keras").stat().st_size > 0
    assert bundle.item_embeddings.shape == (len(bundle.catalogue), 32)
    assert [golden.user_id is None for golden in bundle.golden].count(True) > 1
    assert bundle.golden[-1].ratings == ()


def test_another_seed_gives_another_model(trained: Trained) -> None:
    assert trained.first != trained.second


def test_served_movies_are_what_the_item_tower_gives(trained: Trained) -> None:
    import keras  # noqa: PLC0415 - TensorFlow takes seconds to import

    _, bundle = read_bundle(trained.bundles, trained.first)
    tower = keras.models.load_model(trained.bundles / trained.first / "item_tower.keras")
    catalogue = bundle.catalogue
    from twotower.features import MovieSums  # noqa: PLC0415

    totals = np.nan_to_num(catalogue.mean_ratings) * catalogue.rating_counts
    rows = bundle.features.encode_movies(
        MovieSums(catalogue.rating_counts.astype(np.float64), totals),
        catalogue.years,
        catalogue.genre_matrix(bundle.features.genres),
    )
    assert np.abs(tower(rows).numpy() - bundle.item_embeddings).max() <= 1e-5


def test_promote_list_rollback(trained: Trained, tmp_path: Path) -> None:
    bundles = trained.copy(tmp_path / "bundles", promoted=None)
    promote = ("promote", "--bundles", bundles)
    assert f"model {trained.first} is promoted" in _training(*promote, trained.first).stdout
    answer = _training(*promote, trained.second)
    assert f"the previous one is {trained.first}" in answer.stdout
    listed = _training("list", "--bundles", bundles).stdout
    assert trained.first in listed
    assert trained.second in listed
    assert "current" in listed
    assert "previous" in listed
    answer = _training("rollback", "--bundles", bundles)
    assert f"model {trained.first} is promoted" in answer.stdout
    manifest = json.loads(_training("inspect", "--bundles", bundles).stdout)
    assert manifest["model_version"] == trained.first


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--data", "no-such-folder"], "no-such-folder does not exist"),
        (["train", "--recipe", "best"], "'best': no such recipe"),
        (["promote", "0123456789abcdef"], "there is no such bundle"),
        (["rollback"], "no previous model"),
        (["list"], "there is no bundle"),
        (["inspect"], "no model is promoted"),
        (["promote", "../../elsewhere"], "there is no such bundle"),
    ],
)
def test_a_command_that_cannot_be_done_says_so_in_one_line(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    assert words in _one_line(_training(*arguments, TWOTOWER_BUNDLES=str(tmp_path)))


def test_too_few_ratings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,4.0,5\n2,1,3.0,5\n")
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n1,One (2001),Drama\n")
    line = _one_line(_training("train", "--data", tmp_path, "--bundles", tmp_path / "bundles"))
    assert "too few ratings" in line
    assert list((tmp_path / "bundles").iterdir()) == []


def test_a_model_worse_than_a_constant_is_promoted_by_force_only(
    trained: Trained, tmp_path: Path
) -> None:
    manifest, bundle = read_bundle(trained.bundles, trained.first)
    write_bundle(
        tmp_path,
        bundle,
        recipe=manifest.recipe,
        dataset=manifest.dataset,
        metrics={"temporal quick rmse": 1.2, "temporal global mean rmse": 1.1},
        libraries={},
    )
    promote = ("promote", "--bundles", tmp_path, trained.first)
    line = _one_line(_training(*promote))
    assert "test RMSE of 1.2000 is worse than the global mean's, 1.1000" in line
    assert read_current(tmp_path) is None
    assert _training(*promote, "--force").returncode == 0
    assert read_current(tmp_path) is not None


def test_an_interrupted_training_leaves_nothing(trained: Trained, tmp_path: Path) -> None:
    bundles = tmp_path / "bundles"
    arguments = ["train", "--bundles", str(bundles), "--data", str(trained.data)]
    with (tmp_path / "output").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "training", *arguments], cwd=ROOT, stdout=output, stderr=output
        )
    wait_until(lambda: b"ratings of" in (tmp_path / "output").read_bytes(), "the data read")
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    assert (tmp_path / "output").read_text().endswith("interrupted\n")
    assert "Traceback" not in (tmp_path / "output").read_text()
    assert list(bundles.iterdir()) == []


def test_a_bundles_path_that_is_a_file_is_told(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "bundles").write_text("")
    train = ("train", "--data", trained.data, "--recipe", trained.recipe)
    line = _one_line(_training(*train, "--bundles", tmp_path / "bundles"))
    assert "bundles cannot be written to: File exists" in line


def test_help_names_every_command() -> None:
    answer = _training("--help")
    assert answer.returncode == 0
    for command in ("train", "promote", "rollback", "list", "inspect"):
        assert command in answer.stdout
