"""What an evaluation found: every method beside every other, over all seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd

from training import metrics
from training.evaluate import MRR, NDCG, RECALL, Judged, K
from training.metrics import Interval
from twotower.arrays import Ints

COVERAGE, NOVELTY, RMSE, MAE = f"coverage@{K}", f"novelty@{K}", "rmse", "mae"
SECONDS: Final = "train_seconds"
MEASURES: Final = (NDCG, RECALL, MRR, COVERAGE, NOVELTY, RMSE, MAE)
LOWER_IS_BETTER: Final = frozenset({RMSE, MAE})
WITH_INTERVAL: Final = (NDCG, RECALL, MRR, RMSE, MAE)
"""The measures that are means over users, or of errors, so that users can be resampled."""
NEITHER_IS_BETTER: Final = frozenset({NOVELTY, SECONDS})

LIKED_AFTERWARDS, ALL_MOVIES = "liked afterwards", "all movies"
"""What the popularity of recommended movies is compared with."""

MARGIN: Final = "margin"
"""Half the width of a 95 % interval, where a metric of a manifest is named so."""

_OF_ERRORS: Final = {
    RMSE: ("squared_error", metrics.paired_rmse_difference),
    MAE: ("absolute_error", metrics.paired_mae_difference),
}
_METHOD: Final = ["protocol", "method"]
_SEED: Final = [*_METHOD, "seed"]
_HISTORY_LENGTHS: Final = (-1, 29, 59, 119, 299, np.inf)
_POPULARITIES: Final = (-1, 0, 4, 19, 59, np.inf)
_COUNTS: Final = (*_POPULARITIES[:-1], 199, np.inf)
_RATING_BINS: Final = 10


class Run(NamedTuple):
    """One method judged on one protocol with one seed."""

    protocol: str
    method: str
    seed: int
    judged: Judged


class Results:
    """The judgements of many runs, in tables."""

    def __init__(self, runs: Sequence[Run], movies: int, split_digests: Mapping[str, str]) -> None:
        """`movies`: how many the catalogue has. `split_digests`: by protocol, what was split how."""
        self._runs = runs
        self._movies = movies
        self._split_digests = split_digests
        self._intervals: dict[tuple[str, str, str, str | None], Interval | None] = {}

    @property
    def protocols(self) -> list[str]:
        """The protocols judged on."""
        return list(dict.fromkeys(run.protocol for run in self._runs))

    @cached_property
    def by_seed(self) -> pd.DataFrame:
        """A column for each of MEASURES, NaN where not judged, and train_seconds.

        Indexed by protocol, method and seed.
        """
        measures = {
            **{measure: self.users.groupby(_SEED)[measure].mean() for measure in (NDCG, RECALL, MRR)},
            COVERAGE: self.shown.groupby(_SEED)["movie_row"].nunique() / self._movies,
            NOVELTY: self.shown.groupby(_SEED)["surprise"].mean(),
            RMSE: self.ratings.groupby(_SEED)["squared_error"].mean().pow(0.5),
            MAE: self.ratings.groupby(_SEED)["absolute_error"].mean(),
        }
        index = pd.MultiIndex.from_tuples([run[:3] for run in self._runs], names=_SEED)
        seconds = [run.judged.train_seconds for run in self._runs]
        return pd.DataFrame(measures).reindex(index).assign(**{SECONDS: seconds})

    def of_protocol(self, protocol: str) -> pd.DataFrame:
        """`measures` of one protocol, indexed by method, without what was not judged on it."""
        table = self.measures.reset_index()
        table = table[table["protocol"] == protocol].drop(columns="protocol").set_index("method")
        judged: pd.DataFrame = table.dropna(axis="columns", how="all")
        measures = [name for name in judged if name != SECONDS]
        return judged.dropna(axis="index", how="all", subset=measures)

    def best(self, protocol: str) -> dict[str, float]:
        """The best value of each measure of which more, or less, is better."""
        return {
            str(name): float(column.min() if name in LOWER_IS_BETTER else column.max())
            for name, column in self.of_protocol(protocol).items()
            if name not in NEITHER_IS_BETTER
        }

    @cached_property
    def measures(self) -> pd.DataFrame:
        """The means of `by_seed` over the seeds, indexed by protocol and method."""
        return self.by_seed.groupby(level=_METHOD, sort=False).mean()

    def rows(self) -> list[dict[str, Any]]:
        """`measures` line by line, with None where a method was not judged."""
        table = self.measures.reset_index().astype(object)
        return [
            {str(name): None if pd.isna(value) else value for name, value in row.items()}
            for row in table.to_dict("records")
        ]

    def interval(self, protocol: str, method: str, measure: str) -> Interval | None:
        """A method's NDCG, recall, MRR, RMSE or MAE itself, None where it was not judged by it."""
        return self._interval(protocol, measure, method)

    def difference(self, protocol: str, ours: str, theirs: str, measure: str) -> Interval | None:
        """One method's NDCG, recall, MRR, RMSE or MAE less another's, paired by user.

        Both are the means of their seeds. None where one was not judged by it.
        """
        return self._interval(protocol, measure, ours, theirs)

    def _interval(
        self, protocol: str, measure: str, ours: str, theirs: str | None = None
    ) -> Interval | None:
        key = protocol, measure, ours, theirs
        if key not in self._intervals:
            self._intervals[key] = self._resample(*key)
        return self._intervals[key]

    def _resample(self, protocol: str, measure: str, ours: str, theirs: str | None) -> Interval | None:
        judged = self.of_protocol(protocol)
        if measure not in judged or judged[measure].reindex([ours, theirs or ours]).isna().any():
            return None
        if measure in _OF_ERRORS:
            column, paired_difference = _OF_ERRORS[measure]
            of_ours = self._errors(protocol, ours, column)
            of_theirs = self._errors(protocol, theirs, column) if theirs else 0 * of_ours
            users = of_ours.index.get_level_values("user_row").to_numpy()
            return paired_difference(of_ours.to_numpy(), of_theirs.to_numpy(), users)
        values = self.users.dropna(subset=[measure]).groupby([*_METHOD, "user_row"])[measure].mean()
        per_user = values.loc[protocol, ours]
        of_other = values.loc[protocol, theirs] if theirs else 0 * per_user
        return metrics.paired_mean_difference(per_user.to_numpy(), of_other.to_numpy())

    def _errors(self, protocol: str, method: str, column: str) -> pd.DataFrame:
        """A column for each seed, a line for each rating."""
        table = self.ratings
        chosen = table[(table["protocol"] == protocol) & (table["method"] == method)]
        by_seed = chosen.set_index(["place", "user_row", "seed"])[column]
        return pd.DataFrame(by_seed.unstack("seed"))  # noqa: PD010 - each is one value, not a mean

    def metrics(self, recipe: str) -> dict[str, float]:
        """What was measured, by name, as a manifest keeps it: "temporal popular ndcg@10" and so on.

        NDCG and RMSE of the recipe itself come with their margin, half of the 95 % interval.
        """
        measured = {
            f"{row['protocol']} {row['method']} {measure}": row[measure]
            for row in self.rows()
            for measure in MEASURES
        }
        for protocol in self.protocols:
            for measure in (NDCG, RMSE):
                found = self.interval(protocol, recipe, measure)
                measured[f"{protocol} {recipe} {measure} {MARGIN}"] = found and found.margin
        return {name: round(value, 6) for name, value in measured.items() if value is not None}

    def to_json(self, recipe: str) -> bytes:
        """The whole as a document: the rows, a recipe's differences to all others, the digests."""
        differences = [
            {
                "protocol": protocol,
                "method": recipe,
                "against": other,
                "measure": measure,
                **asdict(found),
            }
            for protocol, other in self.measures.index
            if other != recipe
            for measure in (NDCG, RECALL, MRR, RMSE)
            if (found := self.difference(protocol, recipe, other, measure))
        ]
        document = {
            "rows": self.rows(),
            "differences": differences,
            "split_digests": self._split_digests,
        }
        return json.dumps(document, indent=1).encode()

    def ndcg_by_history(self, protocol: str) -> pd.DataFrame:
        """NDCG by how many ratings were told of the user: methods down, lengths across."""
        return _mean_by(self.users, protocol, NDCG, "history", _HISTORY_LENGTHS)

    def ndcg_intervals_by_history(self, protocol: str) -> dict[tuple[str, str], Interval]:
        """The values of `ndcg_by_history` by method and length, as intervals; users are resampled."""
        judged = self.users[self.users["protocol"] == protocol].dropna(subset=[NDCG])
        cut = _cut(judged, "history", _HISTORY_LENGTHS)
        slices = cut.groupby(["method", "history"], observed=True, sort=False)
        found = {}
        for (method, length), rows in slices:
            per_user = rows.groupby("user_row")[NDCG].mean().to_numpy()
            found[str(method), str(length)] = metrics.paired_mean_difference(per_user, 0 * per_user)
        return found

    def popularity_shares(self, protocol: str, rating_counts: Ints) -> pd.DataFrame:
        """How often movies were recommended by how often they are rated: shares that sum to one.

        rating_counts: int64 (movies,). Methods down, ranges of ratings across; below them what was
        liked afterwards, and the catalogue. Empty where nothing was ranked.
        """
        shown, likes = (
            table[table["protocol"] == protocol].assign(
                count=lambda rows: rating_counts[rows["movie_row"].to_numpy(dtype=np.int64)]
            )
            for table in (self.shown, self.likes)
        )
        if shown.empty:
            return pd.DataFrame()
        shares = {
            str(method): _shares(rows["count"]) for method, rows in shown.groupby("method", sort=False)
        }
        shares |= {LIKED_AFTERWARDS: _shares(likes["count"])} if len(likes) else {}
        shares[ALL_MOVIES] = _shares(pd.Series(rating_counts))
        return pd.DataFrame(shares).T

    def calibration(self, protocol: str) -> pd.DataFrame:
        """Predicted ratings beside the true ones, in ten equal bins of the scale by what was predicted.

        Columns method, bin (from 0), predicted and rating (their means), count (of all seeds).
        """
        table = self.ratings[self.ratings["protocol"] == protocol]
        low, high = table["rating"].min(), table["rating"].max()
        place = (table["predicted"] - low) / ((high - low) or 1.0) * _RATING_BINS
        bins = place.clip(0, _RATING_BINS - 1).astype(np.int64)
        methods = pd.Categorical(table["method"], table["method"].unique())  # which keep their order
        grouped = table.assign(bin=bins, method=methods).groupby(["method", "bin"], observed=True)
        means = grouped[["predicted", "rating"]].mean().assign(count=grouped.size()).reset_index()
        return means.astype({"method": "str"})

    def recall_by_popularity(self, protocol: str) -> pd.DataFrame:
        """Share of liked movies that were recommended, by the movies' ratings in training."""
        return _mean_by(self.likes, protocol, "found", "popularity", _POPULARITIES)

    def rmse_by_popularity(self, protocol: str) -> pd.DataFrame:
        """RMSE by the movies' ratings in training."""
        squares = _mean_by(self.ratings, protocol, "squared_error", "popularity", _POPULARITIES)
        return squares.pow(0.5)

    def ndcg_by_group(self, protocol: str) -> pd.DataFrame:
        """NDCG by the protocol's groups of users: methods down, groups across."""
        return _mean_by(self.users, protocol, NDCG, "group")

    def rmse_by_group(self, protocol: str) -> pd.DataFrame:
        """RMSE by the protocol's groups of users."""
        return _mean_by(self.ratings, protocol, "squared_error", "group").pow(0.5)

    @cached_property
    def users(self) -> pd.DataFrame:
        """`Judged.users` of every run, beside its protocol, method and seed."""
        return self._of_all("users")

    @cached_property
    def likes(self) -> pd.DataFrame:
        """`Judged.likes` of every run."""
        return self._of_all("likes")

    @cached_property
    def shown(self) -> pd.DataFrame:
        """`Judged.shown` of every run."""
        return self._of_all("shown")

    @cached_property
    def ratings(self) -> pd.DataFrame:
        """`Judged.ratings` of every run, with squared and absolute errors.

        `place` numbers the ratings of a protocol, the same for all methods.
        """
        table = self._of_all("ratings")
        error = (table["predicted"] - table["rating"]).astype(np.float64)
        return table.assign(squared_error=error**2, absolute_error=error.abs())

    def _of_all(self, name: str) -> pd.DataFrame:
        tables: list[pd.DataFrame] = [
            table.assign(
                protocol=run.protocol, method=run.method, seed=run.seed, place=np.arange(len(table))
            )
            for run in self._runs
            for table in [getattr(run.judged, name)]
        ]
        return pd.concat([table for table in tables if len(table)] or tables, ignore_index=True)


def _mean_by(
    table: pd.DataFrame, protocol: str, value: str, column: str, edges: Sequence[float] = ()
) -> pd.DataFrame:
    """Means by method and by a column, cut into ranges at the edges where there are any."""
    chosen = table[table["protocol"] == protocol]
    if edges:
        chosen = _cut(chosen, column, edges)
    grouped = chosen.groupby(["method", column], observed=False, sort=False)
    means: pd.DataFrame = grouped[value].mean().unstack()  # noqa: PD010 - pivot_table gives Any
    return means


def _cut(table: pd.DataFrame, column: str, edges: Sequence[float]) -> pd.DataFrame:
    """With the names of ranges for the values of a column."""
    names = [_range(low, high) for low, high in pairwise(edges)]
    return table.assign(**{column: pd.cut(table[column], list(edges), labels=names)})


def _shares(counts: pd.Series[int]) -> pd.Series[float]:
    """The share of movies in each range of rating counts, the least rated first."""
    cut = _cut(counts.to_frame("count"), "count", _COUNTS)
    return cut["count"].value_counts(normalize=True, sort=False)


def _range(low: float, high: float) -> str:
    first = int(low) + 1
    if np.isinf(high):
        return f"{first} or more"
    return str(first) if first == high else f"{first} to {int(high)}"
