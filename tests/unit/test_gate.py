"""A model is promoted only where it beats the simplest rival and is no worse than what is served."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from builders import MOVIES, make_bundle, unit_rows, write
from training.gate import check_good_enough
from twotower.errors import BundleError
from twotower.manifest import Manifest, read_manifest

_NDCG, _RMSE = "ndcg@10", "rmse"
_REFUSED = "not good enough; --force promotes it all the same"


@pytest.fixture(scope="module")
def rates(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Of a model with a single embedding, whose ratings go from 0.5 to 5."""
    root = tmp_path_factory.mktemp("bundles")
    return read_manifest(root, write(root, make_bundle()))


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Of a model with embeddings of their own for ratings."""
    root = tmp_path_factory.mktemp("bundles")
    ratings = unit_rows(np.random.default_rng(1), len(MOVIES))
    return read_manifest(root, write(root, replace(make_bundle(), rating_embeddings=ratings)))


@pytest.fixture(scope="module")
def only_ranks(ranks: Manifest) -> Manifest:
    """Of a model of data without ratings."""
    factors = {"factors.npz": ranks.files["rating_embeddings.npy"]}
    return ranks.model_copy(update={"files": factors})


def _measured(
    manifest: Manifest, metrics: Mapping[str, float], version: str = "f" * 16, digest: str = "0" * 64
) -> Manifest:
    """The same model but for these metrics, named without their protocol."""
    named = {f"temporal {name}": value for name, value in metrics.items()}
    dataset = manifest.dataset.model_copy(update={"digest": digest})
    return manifest.model_copy(update={"metrics": named, "model_version": version, "dataset": dataset})


def _of_ranking(own: float, popular: float = 0.1, margin: float = 0.0) -> dict[str, float]:
    return {
        f"made-up {_NDCG}": own,
        f"popular {_NDCG}": popular,
        f"made-up {_NDCG} margin": margin,
        f"made-up {_RMSE}": 4.0,  # which a model that ranks is not asked for
        f"bias {_RMSE}": 1.0,
    }


def _of_rating(own: float, bias: float = 1.0, margin: float = 0.0) -> dict[str, float]:
    return {
        f"made-up {_RMSE}": own,
        f"bias {_RMSE}": bias,
        f"made-up {_RMSE} margin": margin,
        f"made-up {_NDCG}": 0.0,  # which a model that rates is not asked for
        f"popular {_NDCG}": 0.5,
    }


@pytest.mark.parametrize("own", [0.1, 0.1001, 0.9])
def test_what_ranks_as_well_as_the_most_popular_movies_passes(ranks: Manifest, own: float) -> None:
    told = check_good_enough(_measured(ranks, _of_ranking(own)), None)
    assert told == f"its ndcg@10 is {own:.4f}, that of `popular` 0.1000"


@pytest.mark.parametrize("own", [0.0, 0.0999, math.nan])
def test_what_ranks_worse_than_the_most_popular_movies_is_refused(ranks: Manifest, own: float) -> None:
    with pytest.raises(BundleError) as caught:
        check_good_enough(_measured(ranks, _of_ranking(own)), None)
    assert str(caught.value) == f"its ndcg@10 is {own:.4f}, that of `popular` 0.1000: {_REFUSED}"


@pytest.mark.parametrize(("own", "passes"), [(0.2, True), (0.05, False)])
def test_what_predicts_no_ratings_is_asked_for_its_ranking(
    only_ranks: Manifest, own: float, *, passes: bool
) -> None:
    measured = _measured(only_ranks, {f"made-up {_NDCG}": own, f"popular {_NDCG}": 0.1})
    if passes:
        assert check_good_enough(measured, None).startswith(f"its ndcg@10 is {own:.4f}")
    else:
        with pytest.raises(BundleError, match="not good enough"):
            check_good_enough(measured, None)


@pytest.mark.parametrize("own", [0.8, 1.0, 1.04])
def test_what_rates_nearly_as_well_as_the_biases_passes(rates: Manifest, own: float) -> None:
    told = check_good_enough(_measured(rates, _of_rating(own)), None)
    assert told == f"its rmse is {own:.4f}, that of `bias` 1.0000"


@pytest.mark.parametrize("own", [1.05, 4.0, math.nan])
def test_what_rates_worse_than_the_biases_is_refused(rates: Manifest, own: float) -> None:
    with pytest.raises(BundleError) as caught:
        check_good_enough(_measured(rates, _of_rating(own)), None)
    assert str(caught.value) == f"its rmse is {own:.4f}, that of `bias` 1.0000: {_REFUSED}"


@pytest.mark.parametrize(("high", "passes"), [(5.0, False), (100.0, True)])
def test_a_hundredth_of_the_scale_is_let_pass(rates: Manifest, high: float, *, passes: bool) -> None:
    manifest = _measured(rates, _of_rating(1.9)).model_copy(update={"rating_scale": (0.0, high)})
    if passes:
        check_good_enough(manifest, None)
    else:
        with pytest.raises(BundleError, match="not good enough"):
            check_good_enough(manifest, None)


def test_ratings_without_any_variance_pass(rates: Manifest) -> None:
    manifest = _measured(rates, _of_rating(0.0, bias=0.0)).model_copy(
        update={"rating_scale": (4.0, 4.0)}
    )
    assert check_good_enough(manifest, None) == "its rmse is 0.0000, that of `bias` 0.0000"


@pytest.mark.parametrize("missing", ["made-up", "popular", "both"])
def test_a_model_that_was_not_evaluated_passes_and_that_is_said(ranks: Manifest, missing: str) -> None:
    metrics = {
        name: value
        for name, value in _of_ranking(0.0).items()
        if missing not in name and missing != "both"
    }
    served = _measured(ranks, _of_ranking(0.5), version="1" * 16)
    for promoted in (None, served):
        told = check_good_enough(_measured(ranks, metrics), promoted)
        assert told == "it was not evaluated: the data were too few to hold any out"


def test_a_rival_that_is_no_number_is_not_beaten(ranks: Manifest, rates: Manifest) -> None:
    for manifest in (
        _measured(ranks, _of_ranking(0.5, popular=math.nan)),
        _measured(rates, _of_rating(0.5, bias=math.nan)),
    ):
        with pytest.raises(BundleError, match="not good enough"):
            check_good_enough(manifest, None)


@pytest.mark.parametrize(("own", "passes"), [(0.6, True), (0.3, True), (0.26, True), (0.24, False)])
def test_a_ranking_may_be_worse_than_the_promoted_one_by_the_noise_of_both(
    ranks: Manifest, own: float, *, passes: bool
) -> None:
    served = _measured(ranks, _of_ranking(0.3, margin=0.03), version="1" * 16)
    manifest = _measured(ranks, _of_ranking(own, margin=0.04))
    numbers = (
        f"its ndcg@10 is {own:.4f}, that of `popular` 0.1000, "
        f"that of the promoted model {'1' * 16} 0.3000"
    )
    if passes:
        assert check_good_enough(manifest, served) == numbers
        return
    with pytest.raises(BundleError) as caught:
        check_good_enough(manifest, served)
    assert str(caught.value) == (
        f"{numbers}: worse by more than the noise, 0.0500; --force promotes it all the same"
    )


@pytest.mark.parametrize(("own", "passes"), [(0.5, True), (0.8, True), (0.84, True), (0.86, False)])
def test_an_error_may_be_worse_than_the_promoted_models_by_the_noise_of_both(
    rates: Manifest, own: float, *, passes: bool
) -> None:
    served = _measured(rates, _of_rating(0.8, margin=0.03), version="1" * 16)
    manifest = _measured(rates, _of_rating(own, margin=0.04))
    if passes:
        assert f"{own:.4f}" in check_good_enough(manifest, served)
        return
    with pytest.raises(BundleError, match=r"is 0\.8600, .* 0\.8000: worse by more than the noise"):
        check_good_enough(manifest, served)


def test_without_margins_nothing_worse_than_the_promoted_model_passes(ranks: Manifest) -> None:
    metrics = {name: value for name, value in _of_ranking(0.3).items() if "margin" not in name}
    served = _measured(ranks, metrics, version="1" * 16)
    check_good_enough(_measured(ranks, metrics), served)
    with pytest.raises(BundleError, match=r"worse by more than the noise, 0\.0000"):
        check_good_enough(_measured(ranks, metrics | {f"made-up {_NDCG}": 0.2999}), served)


def test_a_model_must_beat_its_rival_however_bad_the_promoted_one_is(ranks: Manifest) -> None:
    served = _measured(ranks, _of_ranking(0.01), version="1" * 16)
    with pytest.raises(BundleError, match="not good enough"):
        check_good_enough(_measured(ranks, _of_ranking(0.05)), served)


def test_a_promoted_model_is_no_measure_on_other_data_or_unmeasured_or_as_itself(
    ranks: Manifest,
) -> None:
    manifest = _measured(ranks, _of_ranking(0.2))
    better = _of_ranking(0.9)
    for promoted in (
        _measured(ranks, better, version="1" * 16, digest="1" * 64),
        _measured(ranks, {}, version="1" * 16),
        _measured(ranks, better),
    ):
        told = check_good_enough(manifest, promoted)
        assert told == "its ndcg@10 is 0.2000, that of `popular` 0.1000"


def test_the_promoted_model_is_compared_by_its_own_recipe_and_the_new_ones_measure(
    ranks: Manifest, rates: Manifest
) -> None:
    metrics = {f"plain {_NDCG}": 0.4, f"plain {_NDCG} margin": 0.0, f"made-up {_NDCG}": 0.0}
    served = _measured(rates, metrics, version="1" * 16).model_copy(update={"recipe": "plain"})
    assert "0.4000" in check_good_enough(_measured(ranks, _of_ranking(0.5)), served)
    with pytest.raises(BundleError, match="worse by more than the noise"):
        check_good_enough(_measured(ranks, _of_ranking(0.3)), served)


def test_other_protocols_do_not_count(ranks: Manifest) -> None:
    manifest = _measured(ranks, _of_ranking(0.5))
    other = {name.replace("temporal", "cold-user"): 0.0 for name in manifest.metrics}
    check_good_enough(manifest.model_copy(update={"metrics": {**other, **manifest.metrics}}), None)
    told = check_good_enough(manifest.model_copy(update={"metrics": other}), None)
    assert "was not evaluated" in told


def test_a_model_of_data_without_times_is_judged_by_the_random_protocol(ranks: Manifest) -> None:
    def untimed(own: float) -> Manifest:
        metrics = _measured(ranks, _of_ranking(own)).metrics
        named = {name.replace("temporal", "random"): value for name, value in metrics.items()}
        return ranks.model_copy(update={"metrics": named})

    assert check_good_enough(untimed(0.2), None) == "its ndcg@10 is 0.2000, that of `popular` 0.1000"
    with pytest.raises(BundleError, match=_REFUSED):
        check_good_enough(untimed(0.05), None)
