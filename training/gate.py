"""Whether a model is good enough to be promoted, by what was measured before it was exported."""

from __future__ import annotations

import math

from training.evaluate import NDCG
from training.results import LOWER_IS_BETTER, MARGIN, RMSE
from twotower.errors import BundleError
from twotower.manifest import Manifest

_TOLERANCE = 0.01
_OF_RANKING = {"rating_embeddings.npy", "factors.npz"}
"""Either is there only where an embedding ranks and does not rate."""


def check_good_enough(manifest: Manifest, promoted: Manifest | None) -> str:
    """Say what a model was measured to be worth. Raises BundleError where that is too little.

    By NDCG@10 a model must beat the most popular movies; one whose single embedding is made to predict
    ratings, by RMSE the user and movie biases. Nor may it be worse than the promoted model on
    the same data by more than the noise: the 95 % intervals of both, as independent. A hundredth of the
    rating scale is let pass in RMSE, or data without any variance would fail.
    """
    ranks = not _OF_RANKING.isdisjoint(manifest.files)
    measure, rival = (NDCG, "popular") if ranks else (RMSE, "bias")
    own, floor = _metric(manifest, manifest.recipe, measure), _metric(manifest, rival, measure)
    if own is None or floor is None:
        return "it was not evaluated: the data were too few to hold any out"
    tolerance = _TOLERANCE * (manifest.rating_scale[1] - manifest.rating_scale[0])
    told = f"its {measure} is {own:.4f}, that of `{rival}` {floor:.4f}"
    if _worse(measure, own, floor, tolerance if measure == RMSE else 0.0):
        raise BundleError(f"{told}: not good enough; --force promotes it all the same")
    if promoted is None or promoted.dataset.digest != manifest.dataset.digest:
        return told
    before = _metric(promoted, promoted.recipe, measure)
    if before is None or promoted.model_version == manifest.model_version:
        return told
    noise = math.hypot(_margin(manifest, measure), _margin(promoted, measure))
    told = f"{told}, that of the promoted model {promoted.model_version} {before:.4f}"
    if _worse(measure, own, before, noise):
        raise BundleError(
            f"{told}: worse by more than the noise, {noise:.4f}; --force promotes it all the same"
        )
    return told


def _worse(measure: str, own: float, other: float, tolerance: float) -> bool:
    """Whether a measure is worse by more than is tolerated; not being a number is worse."""
    gain = other - own if measure in LOWER_IS_BETTER else own - other
    return not gain >= -tolerance


def _metric(manifest: Manifest, method: str, measure: str) -> float | None:
    """What was measured by the temporal protocol, or by the random one of data without times."""
    metrics = manifest.metrics
    return metrics.get(f"temporal {method} {measure}", metrics.get(f"random {method} {measure}"))


def _margin(manifest: Manifest, measure: str) -> float:
    return _metric(manifest, manifest.recipe, f"{measure} {MARGIN}") or 0.0
