"""Errors are measured as their formulas say, and a model must beat a constant to be promoted."""

from __future__ import annotations

import json

import numpy as np
import pytest

from training.evaluate import BASELINES, Evaluation, RatingError, check_good_enough, rate_baselines
from training.interactions import Interactions
from training.splits import Split, random_split
from twotower.errors import BundleError

_SCALE = (1.0, 5.0)


@pytest.fixture(scope="module")
def split() -> Split:
    rows = np.arange(60, dtype=np.int64)
    ratings = 1.0 + rows % 5
    return random_split(Interactions(rows % 6, rows // 6, ratings, rows, users=6, movies=10))


def test_rmse_and_mae_follow_their_formulas(split: Split) -> None:
    offset = np.where(np.arange(len(split.test)) % 2, 0.25, -0.75)
    inside = np.clip(split.test.ratings + offset, *_SCALE) - split.test.ratings
    error = RatingError.of(split, "off", split.test.ratings + offset, _SCALE)
    assert error.rmse == pytest.approx(np.sqrt(np.mean(inside**2)))
    assert error.mae == pytest.approx(np.mean(np.abs(inside)))
    assert RatingError.of(split, "exact", split.test.ratings, _SCALE).rmse == 0


def test_every_baseline_is_measured(split: Split) -> None:
    errors = list(rate_baselines(split, _SCALE))
    assert [error.method for error in errors] == list(BASELINES)
    assert all(0 < error.mae <= error.rmse < 4 for error in errors)


def test_an_evaluation_is_kept_by_name_and_as_a_document(split: Split) -> None:
    error = RatingError("random", "reference", rmse=0.8, mae=0.6)
    evaluation = Evaluation((error,), {split.name: split.digest})
    assert evaluation.metrics() == {"random reference rmse": 0.8, "random reference mae": 0.6}
    document = json.loads(evaluation.to_json())
    assert document["errors"] == [{"protocol": "random", "method": "reference", "rmse": 0.8, "mae": 0.6}]
    assert document["split_digests"] == {"random": split.digest}


@pytest.mark.parametrize(("rmse", "passes"), [(1.0, True), (1.03, True), (1.05, False), (np.nan, False)])
def test_a_model_must_not_be_worse_than_the_mean(rmse: float, passes: bool) -> None:  # noqa: FBT001
    metrics = {"temporal own rmse": rmse, "temporal global mean rmse": 1.0}
    if passes:
        check_good_enough(metrics, "own", _SCALE)
    else:
        with pytest.raises(BundleError, match="worse than the global mean's"):
            check_good_enough(metrics, "own", _SCALE)


def test_a_model_that_was_not_evaluated_passes() -> None:
    check_good_enough({}, "own", _SCALE)
