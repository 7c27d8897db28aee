"""Splits share no rating, lose none, and cut where the protocols say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.baselines import damped_bias
from training.evaluate import RatingError
from training.interactions import Interactions
from training.movielens import EMBEDDED, read_dataset
from training.splits import Split, random_split, temporal_split

_EDITION_2018 = Path(__file__).parents[3] / "shared" / "data" / "ml-latest-small"


def _interactions(counts: list[int], seed: int = 0) -> Interactions:
    random = np.random.default_rng(seed)
    users = np.repeat(np.arange(len(counts)), counts)
    order = random.permutation(len(users))
    return Interactions(
        user_rows=users[order],
        movie_rows=np.arange(len(users), dtype=np.int64)[order],  # so that each rating is told apart
        ratings=random.integers(1, 11, len(users)) / 2,
        timestamps=random.integers(0, 5, len(users)),
        users=len(counts),
        movies=max(len(users), 1),
    )


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.integers(0, 100))
def test_parts_are_disjoint_and_complete(counts: list[int], seed: int) -> None:
    interactions = _interactions(counts, seed)
    for split in (temporal_split(interactions), random_split(interactions)):
        parts = [split.train, split.validation, split.test]
        together = np.concatenate([part.movie_rows for part in parts])
        assert sorted(together.tolist()) == list(range(len(interactions)))
        refit = np.concatenate([split.train.movie_rows, split.validation.movie_rows])
        assert sorted(split.refit.movie_rows.tolist()) == sorted(refit.tolist())


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(0, 100))
def test_temporal_split_tests_each_users_last_ratings(counts: list[int], seed: int) -> None:
    split = temporal_split(_interactions(counts, seed))
    for user, count in enumerate(counts):
        times = [part.timestamps[part.user_rows == user] for part in (split.train, split.validation)]
        tested = split.test.timestamps[split.test.user_rows == user]
        assert len(tested) == np.round(0.2 * count)
        assert len(times[1]) == np.round(0.1 * count)
        earlier = np.concatenate(times)
        if len(tested) and len(earlier):
            assert earlier.max() <= tested.min()


def test_random_split_tests_a_fifth() -> None:
    split = random_split(_interactions([100]))
    assert [len(part) for part in (split.train, split.validation, split.test)] == [70, 10, 20]


def test_splits_are_the_same_each_time() -> None:
    interactions = Interactions.of(read_dataset(EMBEDDED))
    assert temporal_split(interactions).digest == temporal_split(interactions).digest
    assert temporal_split(interactions).digest[:16] == "64a7c8af91aa3a7a"
    assert random_split(interactions).digest[:16] == "6c0eaf3dda448b3b"


@pytest.mark.parametrize(
    ("split", "rmse", "mae"), [(temporal_split, 0.8997, 0.6925), (random_split, 0.8776, 0.6732)]
)
def test_bias_baseline_has_its_published_error(split: object, rmse: float, mae: float) -> None:
    """The damped bias on the edition of 2018, as measured by another implementation."""
    if not _EDITION_2018.exists():
        pytest.skip("the 2018 edition of ml-latest-small is not here")
    made: Split = split(Interactions.of(read_dataset(_EDITION_2018)))  # type: ignore[operator]
    predicted = damped_bias(made.refit, made.test)
    error = RatingError.of(made, "bias", predicted, (0.5, 5.0))
    assert error.rmse == pytest.approx(rmse, abs=5e-5)
    assert error.mae == pytest.approx(mae, abs=5e-5)
