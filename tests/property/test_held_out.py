"""Changing held-out ratings, and nothing else, changes what is measured on them, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from training import baselines
from training.config import Recipe, load_recipe
from training.dataset import Dataset, Reading, read_dataset
from training.interactions import Interactions
from training.methods import Fitted
from training.pipeline import _Task
from training.report import Reporter
from training.results import Results
from training.splits import PROTOCOLS, Fold, Part
from training.train import fit
from twotower.arrays import Floats

_COLUMNS = {"user": "customer", "item": "sku", "rating": "stars", "timestamp": "when", "title": "name"}


@pytest.fixture(scope="module")
def dataset(data: Path) -> Dataset:
    """As if it had been a table whose scale nobody gives."""
    return replace(read_dataset(data), allowed=None)


@pytest.fixture(scope="module")
def one_headed() -> Recipe:
    """It looks for how long to be fitted."""
    shipped = load_recipe("reference")
    return shipped.model_copy(update={"fit": shipped.fit.model_copy(update={"max_epochs": 3})})


def _altered(dataset: Dataset, fold: Fold, seed: int) -> Floats:
    """All ratings, those held out at the ends of the scale or far beyond it."""
    interactions = Interactions.of(dataset)
    parts = (interactions, fold.test)
    keys, held_out = (each.user_rows * each.movies + each.movie_rows for each in parts)
    low, high = interactions.scale
    random = np.random.default_rng(seed)
    others = random.choice([low, high, low - 100, high * 200], len(interactions))
    return np.where(np.isin(keys, held_out), others, interactions.ratings)


def _fold(dataset: Dataset, protocol: str, number: int = 0) -> Fold:
    folds = PROTOCOLS[protocol](Interactions.of(dataset), Part.TEST).folds
    return folds[number % len(folds)]


class _Judged(NamedTuple):
    results: Results
    fits: list[tuple[bytes, ...]]
    """The features, embeddings and weights that each fit made."""


def _judge(folder: Path, dataset: Dataset, ratings: Floats, recipes: list[Recipe]) -> _Judged:
    """Write the data with these ratings as tables of somebody's own, read and judge them."""
    table = dataset.ratings.assign(rating=ratings)
    table.set_axis(["customer", "sku", "stars", "when"], axis=1).to_csv(folder / "orders.csv")
    movies = dataset.movies.assign(genres=dataset.movies["genres"].map("|".join))
    named = movies[["movie_id", "title", "genres"]].set_axis(["sku", "name", "genres"], axis=1)
    named.to_csv(folder / "items.csv")
    fits = []

    def kept_fit(*arguments: Any, **settings: Any) -> Any:
        towers = fit(*arguments, **settings)
        arrays = [*towers.user_tower.get_weights(), *towers.embed_movies()]
        spec = towers.encoder.spec.model_dump_json().encode()
        fits.append((spec, *(each.tobytes() for each in arrays if each is not None)))
        return towers

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.pipeline.fit", kept_fit)
        read = read_dataset(folder, Reading(_COLUMNS))
        task = _Task(read, recipes, Reporter(Console(quiet=True)))
        results = task.compare(
            task.protocols(["temporal"]),
            {"popular": baselines.popular, "ease": baselines.ease},
            {"bias": baselines.bias, "svd": baselines.svd},
            {recipe.name: task.method(recipe) for recipe in recipes},
            [1],
        )
    return _Judged(results, fits)


def test_only_what_is_measured_changes(
    dataset: Dataset,
    one_headed: Recipe,
    two_headed_recipe: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    recipes = [one_headed, load_recipe(str(two_headed_recipe))]
    given, altered = (
        _judge(tmp_path_factory.mktemp("shop"), dataset, ratings, recipes)
        for ratings in (
            dataset.ratings["rating"].to_numpy(),
            _altered(dataset, _fold(dataset, "temporal"), seed=0),
        )
    )
    assert len(given.fits) == len(altered.fits) == 3  # that of one head finds out for how long before
    assert given.fits == altered.fits
    pd.testing.assert_frame_equal(given.results.shown, altered.results.shown)
    predicted, same = (each.results.ratings["predicted"] for each in (given, altered))
    pd.testing.assert_series_equal(predicted, same)
    errors, larger = (each.results.measures["rmse"].dropna() for each in (given, altered))
    assert (errors < larger).all()


class _Towers:
    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def asked_by(self, _: object) -> Fitted:
        return Fitted()


def _learned_from(
    dataset: Dataset, recipe: Recipe, protocol: str, number: int
) -> list[tuple[object, ...]]:
    """What the fits of a fold are given; each says that as many epochs are best as hang on that."""
    seen: list[tuple[object, ...]] = []

    def seen_fit(
        train: Interactions,
        *_: object,
        validation: Interactions | None,
        epochs: int | None,
        **__: object,
    ) -> _Towers:
        digests = [part.digest for part in (train, validation) if part is not None]
        seen.append((train.scale, epochs, *digests))
        return _Towers(int("".join(digests), 16) % 1_000 + 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.pipeline.fit", seen_fit)
        task = _Task(dataset, [recipe], Reporter(Console(quiet=True)))
        (judged,) = task.protocols([protocol])
        task.method(recipe)(judged, 0)(judged.folds[number % len(judged.folds)])
    return seen


@pytest.mark.parametrize("protocol", PROTOCOLS)
@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 99), number=st.integers(0, 4))
def test_no_fit_is_given_other_ratings_another_scale_or_more_epochs(
    dataset: Dataset, one_headed: Recipe, protocol: str, seed: int, number: int
) -> None:
    ratings = _altered(dataset, _fold(dataset, protocol, number), seed).astype(np.float32)
    altered = replace(dataset, ratings=dataset.ratings.assign(rating=ratings))
    before, after = (_learned_from(each, one_headed, protocol, number) for each in (dataset, altered))
    assert len(before) == 2  # the first one tells for how long
    assert before == after
