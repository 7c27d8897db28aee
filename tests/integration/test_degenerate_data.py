"""Data without any spread, content or second user: trained on, and all that comes of them is finite."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose
from rich.console import Console

from builders import QUICK_RECIPE
from training.config import OnEpoch, load_recipe
from training.content import MovieContent
from training.dataset import Dataset, read_dataset
from training.export import export_bundle
from training.interactions import Interactions
from training.pipeline import train
from training.report import Reporter
from training.train import TwoTowers, fit
from twotower.arrays import Floats
from twotower.bundle import Bundle, list_versions, read_bundle
from twotower.errors import BundleError, SettingsError
from twotower.histories import NO_RATINGS

_TIMED = "userId,movieId,rating,timestamp\n"
_NO_GENRES = "movieId,title,genres\n" + "".join(
    f"{i},Film {i} (2000),(no genres listed)\n" for i in range(1, 6)
)

_WITHOUT_YEARS = "movieId,title,genres\n" + "".join(f"{i},Film {i},\n" for i in range(1, 13))


def _rows(of_user: Mapping[int, Mapping[int, float]]) -> str:
    return _TIMED + "".join(
        f"{user},{movie},{rating},1262304000\n"
        for user, ratings in of_user.items()
        for movie, rating in ratings.items()
    )


def _all(users: int, movies: int, rating: float) -> str:
    """Every user but for one movie each, all at one time."""
    return _rows(
        {u: {m: rating for m in range(1, movies + 1) if (u + m) % movies} for u in range(1, users + 1)}
    )


_DATA: Mapping[str, Mapping[str, str]] = {
    "one rating for all": {"ratings.csv": _all(6, 5, 4.0), "movies.csv": _NO_GENRES},
    "the lowest rating for all": {"ratings.csv": _all(4, 3, 0.5)},
    "the highest rating for all": {"ratings.csv": _all(12, 12, 5.0), "movies.csv": _WITHOUT_YEARS},
    "a scale of one rating": {
        "shop.csv": "user,item,rating\n" + "".join(f"{u},{i},7\n" for u in range(5) for i in range(4))
    },
    "movies without genres and users without an opinion": {
        "ratings.csv": _rows(
            {1: {1: 3, 2: 3}, 2: {1: 4, 3: 4}, 3: {3: 5, 4: 1}, 4: {2: 2, 4: 2}, 5: {1: 5}}
        ),
        "movies.csv": (
            "movieId,title,genres\n1,A,(no genres listed)\n2,B,(no genres listed)\n3,C,War\n4,D,Drama\n"
        ),
    },
    "users of one rating each": {
        "ratings.csv": _rows({user: {user % 5 + 1: user % 4 + 1.5} for user in range(1, 13)}),
        "movies.csv": _NO_GENRES,
    },
    "a single rating": {"a.csv": "user,item,rating\n1,1,4\n"},
    "users who have rated everything": {
        "ratings.csv": _rows({u: {m: 1 + (u * m) % 5 for m in range(1, 7)} for u in range(1, 7)})
    },
    "a single user": {"ratings.csv": _rows({1: {1: 1, 2: 3, 3: 5}}), "movies.csv": _NO_GENRES},
}


class Made(NamedTuple):
    """What came of a data set."""

    dataset: Dataset
    losses: list[float]
    towers: TwoTowers
    bundle: Bundle
    interactions: Interactions


_MADE = [
    ("one rating for all", "two heads"),
    ("the highest rating for all", "two heads"),
    ("a scale of one rating", "two heads"),
    ("users of one rating each", "two heads"),
    ("a single user", "two heads"),
    ("movies without genres and users without an opinion", "two heads"),
    ("movies without genres and users without an opinion", "reference"),
    ("a single user", "reference"),
]


@pytest.fixture(scope="module", params=_MADE, ids=lambda made: f"{made[1]}: {made[0]}")
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, two_headed_recipe: Path
) -> Made:
    data, recipe_name = request.param
    folder = tmp_path_factory.mktemp("degenerate")
    (folder / "data").mkdir()
    for name, text in _DATA[data].items():
        (folder / "data" / name).write_text(text)
    dataset = read_dataset(folder / "data")
    interactions = Interactions.of(dataset)
    losses: list[float] = []

    def watch(_stage: str, _most: int, _measure: str) -> nullcontext[OnEpoch]:
        return nullcontext(lambda _epoch, loss, _held_out: losses.append(loss))

    if recipe_name == "reference":
        (folder / "quick.toml").write_text(QUICK_RECIPE)
    recipe = load_recipe(str(two_headed_recipe if recipe_name == "two heads" else folder / "quick.toml"))
    content = MovieContent.of(dataset)
    towers = fit(interactions, content, recipe, seed=1, watch=watch)
    exported = export_bundle(folder / "bundles", towers, dataset, recipe.name, None, extras={})
    _, bundle = read_bundle(folder / "bundles", exported.manifest.model_version)
    return Made(dataset, losses, towers, bundle, interactions)


def _predicted(made: Made) -> Floats:
    """Everyone's ratings of everything: (users * movies,)."""
    fitted = made.towers.asked_by(made.interactions.histories())
    assert fitted.ratings
    users, movies = np.indices((made.interactions.users, made.interactions.movies)).reshape(2, -1)
    return fitted.ratings(users, movies)


def test_every_number_is_finite(made: Made) -> None:
    assert made.losses
    assert np.isfinite(made.losses).all()
    weights = [*made.towers.user_tower.get_weights(), *made.towers.item_tower.get_weights()]
    assert all(np.isfinite(each).all() for each in weights)
    vectors = [
        made.bundle.item_embeddings,
        made.bundle.rating_embeddings,
        *made.towers.embed_users(NO_RATINGS),
        *made.towers.embed_users(made.interactions.histories()),
    ]
    for each in vectors:
        if each is not None:
            assert each.shape[1] == 32
            assert_allclose(np.linalg.norm(each, axis=1), 1, atol=1e-4)


def test_predictions_stay_on_the_scale_and_near_a_rating_that_all_give(made: Made) -> None:
    predicted, given = _predicted(made), made.interactions.ratings
    low, high = made.bundle.features.rating_scale
    assert ((low <= predicted) & (predicted <= high)).all()
    if given.min() == given.max() and made.bundle.rating_embeddings is not None:
        assert_allclose(predicted, given[0], atol=0.5)


@pytest.mark.parametrize("made", [("a single user", "two heads")], indirect=True, ids=["two heads"])
@pytest.mark.parametrize("place", [0, -1], ids=["retrieval", "rating"])
def test_towers_with_weights_that_are_no_numbers_are_not_written(
    made: Made, place: int, tmp_path: Path
) -> None:
    tower = made.towers.user_tower
    weights = tower.get_weights()
    weights[place] = np.full_like(weights[place], np.nan)
    faulty = keras.models.clone_model(tower)
    faulty.set_weights(weights)
    with pytest.raises(BundleError, match="the user tower gives other embeddings"):
        export_bundle(
            tmp_path, replace(made.towers, user_tower=faulty), made.dataset, "any", None, extras={}
        )
    assert list_versions(tmp_path) == []


@pytest.mark.parametrize("name", ["the highest rating for all", "users who have rated everything"])
def test_a_model_of_data_without_spread_is_judged_and_written(
    name: str, tmp_path: Path, two_headed_recipe: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for file, text in _DATA[name].items():
        (data / file).write_text(text)
    reporter = Reporter(Console(quiet=True))
    exported = train(data, str(two_headed_recipe), tmp_path / "bundles", 1, reporter)
    assert exported.manifest.metrics
    assert all(np.isfinite(each) for each in exported.manifest.metrics.values())
    assert list_versions(tmp_path / "bundles") == [exported.manifest.model_version]


@pytest.mark.parametrize(
    "data",
    ["one rating for all", "the lowest rating for all", "a scale of one rating", "a single rating"],
)
def test_identical_ratings_are_refused_where_nothing_else_is_learned_from(
    data: str, tmp_path: Path
) -> None:
    for name, text in _DATA[data].items():
        (tmp_path / name).write_text(text)
    reporter = Reporter(Console(quiet=True))
    with pytest.raises(SettingsError, match=r"are identical, all [\d.]+: hybrid does without"):
        train(tmp_path, "reference", tmp_path / "bundles", 0, reporter)
    assert list_versions(tmp_path / "bundles") == []


def test_a_row_of_zeros_has_an_embedding_and_a_gradient() -> None:
    from training.config import TowerConfig  # noqa: PLC0415
    from training.towers import build_tower  # noqa: PLC0415

    tower = build_tower("user", 4, TowerConfig(hidden=(8,), dim=6))
    assert tower(np.zeros((2, 4), np.float32)).numpy().tolist() == [[1, 0, 0, 0, 0, 0]] * 2
    rows = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    assert_allclose(np.linalg.norm(tower(rows), axis=1), 1, atol=1e-6)
    tower.compile(optimizer=keras.optimizers.Adam(), loss="mse")
    tower.train_on_batch(np.zeros((3, 4), np.float32), np.ones((3, 6), np.float32))
    assert all(np.isfinite(each).all() for each in tower.get_weights())
