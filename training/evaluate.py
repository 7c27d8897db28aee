"""How well ratings are predicted, beside what one would pick otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np

from training import baselines
from training.interactions import Interactions
from training.splits import Split
from twotower.errors import BundleError
from twotower.features import Floats

BASELINES: Final[Mapping[str, Callable[[Interactions, Interactions], Floats]]] = {
    "global mean": baselines.global_mean,
    "user + movie bias": baselines.damped_bias,
    "SVD": baselines.svd,
}

_MARGIN: Final = 0.01


@dataclass(frozen=True)
class RatingError:
    """How far predicted ratings are off on the test part of a protocol."""

    protocol: str
    method: str
    rmse: float
    """Root of the mean squared error (Koren, Bell and Volinsky 2009)."""
    mae: float
    """Mean absolute error."""

    @classmethod
    def of(cls, split: Split, method: str, predicted: Floats, scale: tuple[float, float]) -> RatingError:
        """Measure predictions for the test part, clipped to the rating scale."""
        error = np.clip(predicted, *scale) - split.test.ratings
        return cls(
            protocol=split.name,
            method=method,
            rmse=float(np.sqrt(np.mean(error**2))),
            mae=float(np.mean(np.abs(error))),
        )


def rate_baselines(split: Split, scale: tuple[float, float]) -> Iterator[RatingError]:
    """Fit each baseline on all but the test part, and measure it."""
    for method, predict in BASELINES.items():
        yield RatingError.of(split, method, predict(split.refit, split.test), scale)


@dataclass(frozen=True)
class Evaluation:
    """What was measured, and on which splits."""

    errors: tuple[RatingError, ...]
    split_digests: Mapping[str, str]
    """By protocol: two evaluations of the same digest are of the same split of the same data."""

    def metrics(self) -> dict[str, float]:
        """The measured errors by name, as a manifest keeps them."""
        return {
            f"{error.protocol} {error.method} {measure}": round(value, 6)
            for error in self.errors
            for measure, value in (("rmse", error.rmse), ("mae", error.mae))
        }

    def to_json(self) -> bytes:
        """The whole as a document."""
        return json.dumps(asdict(self), indent=1).encode()


def check_good_enough(metrics: Mapping[str, float], recipe: str, scale: tuple[float, float]) -> None:
    """Raise BundleError for a model that predicts worse than the global mean does.

    A hundredth of the rating scale is let pass, or data without any variance would fail. A model that
    was not evaluated passes.
    """
    rmse = metrics.get(f"temporal {recipe} rmse")
    floor = metrics.get("temporal global mean rmse")
    if rmse is None or floor is None:
        return
    if not rmse <= floor + _MARGIN * (scale[1] - scale[0]):  # nor is NaN
        raise BundleError(
            f"its test RMSE of {rmse:.4f} is worse than the global mean's, {floor:.4f}; "
            "--force promotes it all the same"
        )
