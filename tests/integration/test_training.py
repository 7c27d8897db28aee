"""The training commands, as a user runs them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from rich.console import Console

from builders import forge
from conftest import Trained
from retrieval_svc.retriever import Retriever
from services import ROOT, wait_until
from training import pipeline
from training.checkpoint import FOLDER
from training.config import load_recipe
from training.dataset import EMBEDDED
from training.gate import check_good_enough
from training.partition import divide
from training.report import Reporter
from training.results import Results
from twotower.bundle import RETRIEVAL, list_versions, read_bundle, write_bundle
from twotower.errors import NoTimestamps, SettingsError, TooFewRatings
from twotower.manifest import read_manifest
from twotower.promotion import read_current
from twotower.statistics import MovieSums


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
    for method in ("mean", "popular", "bias", "svd", "ease", "quick"):
        assert re.search(rf"^ +{method} .*\d\.\d{{4}}", answer.stdout, re.MULTILINE), method
    assert "A, temporal" in answer.stdout
    assert "B, random" in answer.stdout
    assert re.search(
        rf"^model {trained.first}: its rmse is \d\.\d{{4}}, that of `bias` \d\.\d{{4}}$",
        answer.stdout,
        re.MULTILINE,
    )
    assert answer.stderr == ""


def test_the_bundle_is_what_was_evaluated(trained: Trained) -> None:
    manifest, bundle = read_bundle(trained.bundles, trained.first)
    assert manifest.recipe == "quick"
    metrics = manifest.metrics
    assert metrics["temporal quick rmse"] < metrics["temporal mean rmse"]
    assert 0 < metrics["temporal quick ndcg@10 margin"] < metrics["temporal quick ndcg@10"]
    assert "random quick ndcg@10" not in metrics
    folder = trained.bundles / trained.first
    evaluation = json.loads((folder / "evaluation.json").read_bytes())
    rankers, raters = {"popular", "ease"}, {"mean", "bias", "svd"}
    assert {(row["protocol"], row["method"]) for row in evaluation["rows"]} == {
        *(("temporal", method) for method in rankers | raters | {"quick"}),
        *(("random", method) for method in raters | {"quick"}),
    }
    assert {line["method"] for line in evaluation["differences"]} == {"quick"}
    assert {line["against"] for line in evaluation["differences"]} == rankers | raters
    assert evaluation["split_digests"].keys() == {"temporal", "random"}
    assert (folder / "user_tower.keras").stat().st_size > 0
    page = (folder / "report.html").read_bytes()
    assert manifest.files["report.html"].sha256 == hashlib.sha256(page).hexdigest()
    for words in (b"quick on few-users", b"Learning curves", b"Map of the movies", b"User "):
        assert words in page
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
    totals = np.nan_to_num(catalogue.mean_ratings) * catalogue.rating_counts
    rows = bundle.features.encode_movies(
        MovieSums(catalogue.rating_counts.astype(np.float64), totals),
        catalogue.years,
        catalogue.genre_matrix(bundle.features.genres),
    )
    assert np.abs(tower(rows)[RETRIEVAL].numpy() - bundle.item_embeddings).max() <= 1e-5


def test_many_movies_are_divided_and_the_golden_users_are_answered_so(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.export.divide", partial(divide, least_movies=1))
    monkeypatch.setattr("training.partition._WORTH", 0)
    reporter = Reporter(Console(quiet=True))
    exported = pipeline.train(trained.data, str(trained.recipe), tmp_path, 1, reporter)
    manifest, bundle = read_bundle(tmp_path, exported.manifest.model_version)
    assert bundle.partition is not None
    assert 1 <= bundle.partition.probes < len(bundle.partition.centroids)
    Retriever(manifest, bundle).replay()
    _, plain = read_bundle(trained.bundles, trained.first)
    assert plain.partition is None
    assert_array_equal(bundle.item_embeddings, plain.item_embeddings)


def test_promote_list_rollback(trained: Trained, tmp_path: Path) -> None:
    bundles = trained.copy(tmp_path / "bundles", promoted=None)
    promote = ("promote", "--bundles", bundles)
    assert f"model {trained.first} is promoted" in _training(*promote, trained.first).stdout
    answer = _training(*promote, trained.second)
    assert f"that of the promoted model {trained.first} " in answer.stdout
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
        (["evaluate", "--data", "no-such-folder"], "no-such-folder does not exist"),
        (["evaluate", "--recipe", "reference", "--recipe", "best"], "'best': no such recipe"),
        (["evaluate", "--json", "."], "--json . is a folder; name a file"),
        (["evaluate", "--report", "."], "--report . is a folder; name a file"),
        (["inspect-data", "no-such-folder"], "no-such-folder does not exist"),
        (["inspect-data", "--json", "."], "--json . is a folder; name a file"),
        (["inspect-data", "README.md"], "README.md holds README.md ('# Twotower'): needed is"),
        (["train", "--data", "README.md"], "README.md holds README.md ('# Twotower'): needed is"),
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


def test_evaluate_judges_recipes_beside_every_baseline(trained: Trained, tmp_path: Path) -> None:
    answer = _training(
        *("evaluate", "--data", trained.data, "--recipe", trained.recipe),
        *("--protocol", "temporal", "--json", tmp_path / "new" / "measured.json"),
        *("--report", tmp_path / "newer" / "report.html"),
        TWOTOWER_BUNDLES=str(tmp_path / "bundles"),
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == ""
    assert "A, temporal" in answer.stdout
    assert "B, random" not in answer.stdout
    assert "quick less each other" in answer.stdout
    assert "A, temporal: NDCG by how many ratings of the user were told" in answer.stdout
    assert "A, temporal: RMSE by the movie's ratings in training" in answer.stdout
    rows = json.loads((tmp_path / "new" / "measured.json").read_bytes())
    ranks, rates = ["popular", "item_knn", "ials", "ease"], ["bias", "svd", "hgb"]
    assert {row["method"] for row in rows} == {*ranks, *rates, "quick"}
    for row in rows:
        assert row["protocol"] == "temporal"
        ranked = {row[f"{name}@10"] for name in ("ndcg", "recall", "mrr", "coverage", "novelty")}
        rated = {row["rmse"], row["mae"]}
        assert (ranked == {None}) == (row["method"] in rates)
        assert (rated == {None}) == (row["method"] in ranks)
        assert row["train_seconds"] > 0
    measured = {row["method"]: row for row in rows}
    kept = read_manifest(trained.bundles, trained.first).metrics
    for method in ("popular", "ease", "bias", "svd"):
        for measure in ("ndcg@10", "rmse"):
            value = measured[method][measure]
            assert kept.get(f"temporal {method} {measure}") == (value and round(value, 6))
    assert not (tmp_path / "bundles").exists()
    page = (tmp_path / "newer" / "report.html").read_text()
    assert "quick on few-users" in page
    assert "Learning curves" in page
    assert "Map of the movies" not in page


def _evaluate_here(data: Path, recipe: Path, *protocols: str) -> tuple[Results, str]:
    """In this process, which has TensorFlow imported already; what it finds, and what it shows."""
    from training.pipeline import evaluate  # noqa: PLC0415 - TensorFlow takes seconds to import

    shown = Console(file=io.StringIO(), width=200)
    with shown.capture() as capture:
        found = evaluate(data, [str(recipe)], protocols or ["temporal"], [0, 1], Reporter(shown))
    return found, capture.get()


@pytest.mark.parametrize("name", ["mean", "popular", "bias", "svd", "item_knn", "ials", "ease", "hgb"])
def test_a_recipe_named_like_a_baseline_is_refused(trained: Trained, tmp_path: Path, name: str) -> None:
    from training.pipeline import train  # noqa: PLC0415 - TensorFlow takes seconds to import

    recipe = shutil.copy(trained.recipe, tmp_path / f"{name}.toml")
    with pytest.raises(SettingsError, match=f"recipe '{name}': a baseline has that name"):
        _evaluate_here(trained.data, recipe)
    with pytest.raises(SettingsError, match=f"recipe '{name}': a baseline has that name"):
        train(trained.data, str(recipe), tmp_path / "bundles", 0, Reporter(Console(quiet=True)))


def test_recipes_of_one_name_are_not_mixed(trained: Trained, tmp_path: Path) -> None:
    from training.pipeline import evaluate  # noqa: PLC0415 - TensorFlow takes seconds to import

    other = shutil.copy(trained.recipe, tmp_path / "quick.toml")
    with pytest.raises(SettingsError, match="recipe 'quick': two have that name"):
        evaluate(
            trained.data,
            [str(trained.recipe), str(other)],
            ["temporal"],
            [0],
            Reporter(Console(quiet=True)),
        )


_ORDERS = """customer_id,sku,stars,ts
ann,B-12,5,2024-03-01T09:30:00Z
bob,B-12,11,2024-03-02
cleo,B-99,4,1709596800000
"""
_OWN = ("--columns", "user=customer_id,item=sku,rating=stars,timestamp=ts", "--scale", "0,10")


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "orders.csv").write_text(_ORDERS)
    return folder


def test_inspect_data_tells_what_was_read_and_what_was_wrong(orders: Path, tmp_path: Path) -> None:
    answer = _training("inspect-data", orders, *_OWN, "--json", tmp_path / "found.json", COLUMNS="100")
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == ""
    for shown in (
        "orders.csv +ratings +table +3 +2 ",
        "users +2 ",
        "scale +0 to 10 ",
        "times +2024-03-01 to 2024-03-05 ",
        "dropped +1 +orders.csv +stars is not a number from 0 to 10 +3: 11 ",
        "converted +1 +orders.csv +ts in milliseconds +4: 1709596800000 ",
    ):
        assert re.search(shown, answer.stdout), shown
    document = json.loads((tmp_path / "found.json").read_bytes())
    assert document == json.loads(_training("inspect-data", orders, *_OWN, "--json", "-").stdout)
    assert document["files"][0]["kept"] == 2
    assert document["findings"][0] == {
        "deed": "dropped",
        "file": "orders.csv",
        "what": "stars is not a number from 0 to 10",
        "count": 1,
        "examples": [{"line": 3, "value": "11"}],
    }


def test_strict_reading_stops_at_the_first_row_at_fault(orders: Path, tmp_path: Path) -> None:
    for command in (["inspect-data", orders], ["train", "--data", orders, "--bundles", tmp_path / "b"]):
        line = _one_line(_training(*command, *_OWN, "--strict"))
        assert line == "error: orders.csv line 3: stars is not a number from 0 to 10: '11'"
    assert list_versions(tmp_path / "b") == []


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--columns", "user"),
        ("--columns", "customer=a"),
        ("--columns", "user=a,user=b"),
        ("--columns", "user=a,item=a"),
        ("--scale", "5"),
        ("--scale", "5,0"),
        ("--scale", "0,inf"),
        ("--scale", "low,high"),
    ],
)
def test_inspect_data_says_how_it_is_used(option: str, value: str) -> None:
    answer = _training("inspect-data", option, value)
    assert answer.returncode == 2
    assert f"argument {option}" in answer.stderr
    assert "allowed" in answer.stderr


def test_tune_finds_a_recipe_that_train_takes(trained: Trained, tmp_path: Path) -> None:
    recipe = tmp_path / "own.toml"
    recipe.write_text(
        trained.recipe.read_text()
        + 'tune."fit.learning_rate" = { low = 1e-3, high = 1e-2, log = true }\n'
    )
    paths = ("--journal", tmp_path / "own.journal", "--out", tmp_path / "tuned.toml")
    for trials in (1, 2):
        answer = _training(
            *("tune", "--data", trained.data, "--recipe", recipe, "--trials", trials), *paths
        )
        assert answer.returncode == 0, answer.stderr
        assert re.search(rf"^trial {trials - 1}: \d\.\d{{4}}$", answer.stdout, re.MULTILINE)
        assert answer.stdout.count("trial ") == 1
        assert f"the best of {trials} trials: rmse" in answer.stdout
    tuned = load_recipe(str(tmp_path / "tuned.toml"))
    assert 1e-3 <= tuned.fit.learning_rate <= 1e-2
    answer = _training("tune", "--data", EMBEDDED, "--recipe", recipe, *paths)
    assert "holds trials of another recipe or data set" in _one_line(answer)


def test_evaluate_says_what_is_not_installed(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.pipeline.find_spec", lambda _: None)
    with pytest.raises(SettingsError, match="evaluating needs implicit and sklearn: pip install -r"):
        _evaluate_here(trained.data, trained.recipe)


@pytest.mark.parametrize(
    ("option", "value"), [("--protocol", "yesterday"), ("--seeds", "0"), ("--seeds", "some")]
)
def test_evaluate_says_how_it_is_used(option: str, value: str) -> None:
    answer = _training("evaluate", option, value)
    assert answer.returncode == 2
    assert f"argument {option}" in answer.stderr
    assert value in answer.stderr


def test_data_too_few_to_hold_any_out_are_trained_on_with_a_warning(
    trained: Trained, tmp_path: Path
) -> None:
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,4.0,5\n2,1,3.0,5\n")
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n1,One (2001),Drama\n")
    answer = _training(
        *("train", "--data", tmp_path, "--recipe", trained.recipe, "--promote"),
        *("--bundles", tmp_path / "bundles"),
    )
    assert answer.returncode == 0, answer.stderr
    assert "warning: too few ratings" in answer.stdout
    assert "it was not evaluated: the data were too few to hold any out" in answer.stdout
    (version,) = list_versions(tmp_path / "bundles")
    manifest, _ = read_bundle(tmp_path / "bundles", version)
    assert manifest.metrics == {}
    assert "evaluation.json" not in manifest.files
    page = (tmp_path / "bundles" / version / "report.html").read_text()
    assert "The data were too few to hold any ratings out" in page
    assert "Map of the movies" in page
    current = read_current(tmp_path / "bundles")
    assert current is not None
    assert current.current == version
    with pytest.raises(TooFewRatings, match="the temporal protocol has none left"):
        _evaluate_here(tmp_path, trained.recipe)
    with pytest.raises(TooFewRatings, match="no protocol has anything to learn from or to judge by"):
        _evaluate_here(tmp_path, trained.recipe, "temporal", "random")


def test_ratings_without_times_are_learned_from_and_judged_at_random(
    trained: Trained, tmp_path: Path
) -> None:
    from training.pipeline import train  # noqa: PLC0415 - TensorFlow takes seconds to import

    lines = (trained.data / "ratings.csv").read_text().splitlines()
    untimed = "\n".join(line.rpartition(",")[0] for line in lines)
    (tmp_path / "ratings.csv").write_text(untimed)
    reporter = Reporter(Console(quiet=True))
    manifest = train(tmp_path, str(trained.recipe), tmp_path / "b", 1, reporter).manifest
    assert {name.partition(" ")[0] for name in manifest.metrics} == {"random"}
    assert "random quick ndcg@10" in manifest.metrics
    assert check_good_enough(manifest, None).startswith("its rmse is ")
    with pytest.raises(NoTimestamps, match="no timestamps: the temporal protocol needs them"):
        _evaluate_here(tmp_path, trained.recipe)


def test_likes_alone_are_no_ratings_to_learn_from(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "clicks.csv").write_text("user_id,item_id\na,x\nb,x\n")
    with pytest.raises(SettingsError, match=r"'quick' learns from ratings alone, and .* has none"):
        _evaluate_here(tmp_path, trained.recipe)


def test_likes_alone_are_ranked_by_two_heads(two_headed_recipe: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    pairs = [(u, i) for u in range(30) for i in generator.choice(20, 8, replace=False).tolist()]
    lines = [f"u{user},i{item},{time}" for time, (user, item) in enumerate(pairs)]
    (tmp_path / "clicks.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines]))
    results, _ = _evaluate_here(tmp_path, two_headed_recipe)
    measured = results.of_protocol("temporal")
    assert measured["ndcg@10"].loc["two-headed"] > 0
    assert not {"rmse", "mae"} & set(measured.columns)


def test_a_protocol_that_data_are_too_few_for_is_left_out_and_told(
    trained: Trained, tmp_path: Path
) -> None:
    movies = range(1, 31)
    ratings = "".join(f"1,{movie},{movie % 5 + 1},{movie}\n" for movie in movies)
    (tmp_path / "ratings.csv").write_text(f"userId,movieId,rating,timestamp\n{ratings}")
    titles = "".join(f"{movie},Number {movie} (2001),Drama\n" for movie in movies)
    (tmp_path / "movies.csv").write_text(f"movieId,title,genres\n{titles}")
    results, shown = _evaluate_here(tmp_path, trained.recipe, "temporal", "cold-user", "session-start")
    assert results.protocols == ["temporal"]
    assert set(results.by_seed.reset_index()["seed"]) == {0, 1}
    for left_out in ("cold-user", "session-start"):
        assert re.search(f"warning: too few ratings: the {left_out} protocol .* left out", shown)
    assert "A, temporal" in shown
    assert "quick less each other" in shown


def test_a_model_worse_than_the_biases_is_promoted_by_force_only(
    trained: Trained, tmp_path: Path
) -> None:
    manifest, bundle = read_bundle(trained.bundles, trained.first)
    write_bundle(
        tmp_path,
        bundle,
        recipe=manifest.recipe,
        dataset=manifest.dataset,
        metrics={"temporal quick rmse": 1.2, "temporal bias rmse": 1.1},
        libraries={},
    )
    promote = ("promote", "--bundles", tmp_path, trained.first)
    line = _one_line(_training(*promote))
    assert "its rmse is 1.2000, that of `bias` 1.1000: not good enough" in line
    assert read_current(tmp_path) is None
    assert _training(*promote, "--force").returncode == 0
    assert read_current(tmp_path) is not None


def test_a_model_worse_than_the_promoted_one_is_promoted_by_force_only(
    trained: Trained, tmp_path: Path
) -> None:
    bundles = trained.copy(tmp_path / "bundles", promoted=None)
    metrics = {"temporal quick rmse": 0.9, "temporal bias rmse": 1.1}
    better = forge(bundles, trained.first, metrics=metrics)
    worse = forge(bundles, trained.second, metrics=metrics | {"temporal quick rmse": 1.0})
    promote = ("promote", "--bundles", bundles)
    assert _training(*promote, better).returncode == 0
    line = _one_line(_training(*promote, worse))
    assert f"its rmse is 1.0000, that of `bias` 1.1000, that of the promoted model {better}" in line
    assert "worse by more than the noise" in line
    assert f"the previous one is {better}" in _training(*promote, worse, "--force").stdout


def test_a_promoted_model_that_is_gone_holds_no_other_back(trained: Trained, tmp_path: Path) -> None:
    bundles = trained.copy(tmp_path / "bundles", promoted=trained.first)
    shutil.rmtree(bundles / trained.first)
    answer = _training("promote", "--bundles", bundles, trained.second)
    assert answer.returncode == 0, answer.stderr
    assert f"the promoted model is not compared with: {trained.first}: there is no such" in answer.stdout


def test_many_users_are_trained_on_without_the_baselines_that_do_not_scale(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_MOST_FOR_EASE", 10)
    monkeypatch.setattr(pipeline, "_MOST_FOR_SVD", 100)
    monkeypatch.setattr(pipeline, "_MOST_JUDGED", 20)
    exported = pipeline.train(
        trained.data, str(trained.recipe), tmp_path, 1, Reporter(Console(quiet=True))
    )
    evaluation = tmp_path / exported.manifest.model_version / "evaluation.json"
    methods = {row["method"] for row in json.loads(evaluation.read_bytes())["rows"]}
    assert methods == {"popular", "mean", "bias", "quick"}


def test_an_interrupted_training_leaves_nothing_but_a_checkpoint(
    trained: Trained, tmp_path: Path
) -> None:
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
    assert "Traceback" not in (tmp_path / "output").read_text()
    assert {path.name for path in bundles.iterdir()} <= {FOLDER}


def test_a_bundles_path_that_is_a_file_is_told(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "bundles").write_text("")
    train = ("train", "--data", trained.data, "--recipe", trained.recipe)
    line = _one_line(_training(*train, "--bundles", tmp_path / "bundles"))
    assert "bundles cannot be written to: File exists" in line


def test_help_names_every_command() -> None:
    answer = _training("--help")
    assert answer.returncode == 0
    for command in ("train", "evaluate", "promote", "rollback", "list", "inspect"):
        assert command in answer.stdout
