"""Ridge regressions of many groups at once, their prior learned from all of them.

A group's coefficients are drawn from a normal distribution around a mean (empirical Bayes: Efron and
Morris, 1973), which is estimated by expectation maximisation (Dempster, Laird and Rubin, 1977).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from training.progress import track
from twotower.arrays import Floats, Ints

_INDEPENDENT: Final = 0.1
"""How much of the estimated covariance is taken without its correlations, which few groups overstate."""
_CONTENT_PENALTY: Final = 10.0
_CONTENT_TRUST: Final = 5.0
"""How many rows a group must have for its coefficients to count half of what they could."""
_NUMBERS_AT_ONCE: Final = 2**25
"""In the matrices of groups that are held together (of 8 bytes)."""


@dataclass(frozen=True)
class Prior:
    """What is known of coefficients before any row.

    mean: float64 (groups, k). precision: float64 (k, k), the inverse covariance in units of the noise's.
    """

    mean: Floats
    precision: Floats


class Design(Protocol):
    """Rows (n, k), of which some (m,) are had by their places, as float64 (m, k): an array, or what
    makes them when they are asked for.
    """  # noqa: D205

    def __getitem__(self, places: Ints, /) -> Floats:
        """Rows by their places."""
        ...


@dataclass(frozen=True)
class GroupedRows:
    """Rows of many regressions: targets (n,) on design (n, k), each of a group (n,)."""

    groups: Ints
    design: Design
    targets: Floats
    name: str = "regressions"
    """What to call them while they are worked at."""

    def learn_prior(
        self, prior: Prior, *, noise: float, steps: int, content: Floats | None = None
    ) -> Prior:
        """Estimate a prior from these groups, in some steps from a first guess.

        noise: the variance of a target. content: float64 (groups, c), what the mean is regressed on;
        without it, all groups share one. Learned from some of the groups where they are very many.
        """
        width = len(prior.precision)
        spans = self._spans(self._some_groups(len(prior.mean), width))
        grams, moments = self._moments(spans, width)
        groups = np.array([group for group, _ in spans])
        counts = np.array([len(rows) for _, rows in spans], dtype=np.float64)
        for _ in range(steps):
            covariances = np.linalg.inv(grams + prior.precision)
            means = prior.mean[groups]
            coefficients = np.einsum("gkl,gl->gk", covariances, moments + means @ prior.precision)
            mean = _mean(coefficients, counts, groups, len(prior.mean), content)
            deviations = coefficients - mean[groups]
            covariance = (deviations.T @ deviations + noise * covariances.sum(axis=0)) / len(groups)
            covariance -= _INDEPENDENT * (covariance - np.diag(np.diag(covariance)))
            prior = Prior(mean, noise * np.linalg.inv(covariance))
        return prior

    def coefficients(self, prior: Prior, wanted: Ints | None = None) -> tuple[Floats, Floats]:
        """The most probable coefficients: of each group, (groups, k); and of each row's group had it
        not had that row, (n, k), which is exact for a given prior.

        wanted: int64 (m,), the rows of which the second is told, (m, k); without, of all.
        """  # noqa: D205
        width = len(prior.precision)
        wanted = np.arange(len(self.groups)) if wanted is None else wanted
        slots = np.full(len(self.groups), -1, dtype=np.int64)
        slots[wanted] = np.arange(len(wanted))
        of_group = prior.mean.copy()
        without = np.empty((len(wanted), width))
        for span in self._batches(self._spans(np.arange(len(prior.mean))), width):
            grams, moments = self._moments(span, width)
            covariances = np.linalg.inv(grams + prior.precision)
            for place, (group, rows) in enumerate(self._tracked(span, "solving")):
                pull = moments[place] + prior.precision @ prior.mean[group]
                of_group[group] = covariances[place] @ pull
                told = rows[slots[rows] >= 0]
                design = self.design[told]
                reach = design @ covariances[place]
                missed = self.targets[told] - design @ of_group[group]
                leverage = (reach * design).sum(axis=1)
                # Sherman and Morrison, 1950
                without[slots[told]] = of_group[group] - reach * (missed / (1 - leverage))[:, None]
        return of_group, without

    def _tracked(self, spans: list[tuple[int, Ints]], doing: str) -> Iterator[tuple[int, Ints]]:
        rows = sum(len(rows) for _, rows in spans)
        return track(spans, f"{doing} {self.name}", rows, lambda span: len(span[1]))

    def _spans(self, groups: Ints) -> list[tuple[int, Ints]]:
        order = np.argsort(self.groups, kind="stable")
        bounds = np.searchsorted(self.groups[order], [groups, groups + 1])
        return [
            (int(group), order[start:stop])
            for group, start, stop in zip(groups, *bounds, strict=True)
            if stop > start
        ]

    def _some_groups(self, groups: int, width: int) -> Ints:
        most = max(_NUMBERS_AT_ONCE // width**2, 1)
        return np.unique(np.linspace(0, groups - 1, min(groups, most)).round().astype(np.int64))

    def _batches(self, spans: list[tuple[int, Ints]], width: int) -> Iterator[list[tuple[int, Ints]]]:
        size = max(_NUMBERS_AT_ONCE // width**2, 1)
        return (spans[start : start + size] for start in range(0, len(spans), size))

    def _moments(self, spans: list[tuple[int, Ints]], width: int) -> tuple[Floats, Floats]:
        grams, moments = np.empty((len(spans), width, width)), np.empty((len(spans), width))
        for place, (_, rows) in enumerate(self._tracked(spans, "summing")):
            design = self.design[rows]
            grams[place] = design.T @ design
            moments[place] = design.T @ self.targets[rows]
        return grams, moments


def _mean(
    coefficients: Floats, counts: Floats, groups: Ints, total: int, content: Floats | None
) -> Floats:
    if content is None:
        return np.tile(coefficients.mean(axis=0), (total, 1))
    trust = (counts / (counts + _CONTENT_TRUST))[:, None]
    known = content[groups]
    normal = known.T @ (known * trust) + _CONTENT_PENALTY * np.eye(content.shape[1])
    mean: Floats = content @ np.linalg.solve(normal, (known * trust).T @ coefficients)
    return mean
