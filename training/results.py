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

COVERAGE, NOVELTY, RMSE, MAE = f"coverage@{K}", f"novelty@{K}", "rmse", "mae"
SECONDS: Final = "train_seconds"
MEASURES: Final = (NDCG, RECALL, MRR, COVERAGE, NOVELTY, RMSE, MAE)
LOWER_IS_BETTER: Final = frozenset({RMSE, MAE})

MARGIN: Final = "margin"
"""Half the width of a 95 % interval, where a metric of a manifest is named so."""

_METHOD: Final = ["protocol", "method"]
_SEED: Final = [*_METHOD, "seed"]
_HISTORY_LENGTHS: Final = (-1, 29, 59, 119, 299, np.inf)
_POPULARITIES: Final = (-1, 0, 4, 19, 59, np.inf)


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
        """A method's NDCG, recall, MRR or RMSE itself, None where it was not judged by it."""
        return self._interval(protocol, measure, method)

    def difference(self, protocol: str, ours: str, theirs: str, measure: str) -> Interval | None:
        """One method's NDCG, recall, MRR or RMSE less another's, paired by user, of the seeds' means.

        None where one was not judged by it.
        """
        return self._interval(protocol, measure, ours, theirs)

    def _interval(
        self, protocol: str, measure: str, ours: str, theirs: str | None = None
    ) -> Interval | None:
        judged = self.of_protocol(protocol)
        if measure not in judged or judged[measure].reindex([ours, theirs or ours]).isna().any():
            return None
        if measure == RMSE:
            of_ours = self._squared_errors(protocol, ours)
            of_theirs = self._squared_errors(protocol, theirs) if theirs else 0 * of_ours
            users = of_ours.index.get_level_values("user_row").to_numpy()
            return metrics.paired_rmse_difference(of_ours.to_numpy(), of_theirs.to_numpy(), users)
        values = self.users.dropna(subset=[measure]).groupby([*_METHOD, "user_row"])[measure].mean()
        per_user = values.loc[protocol, ours]
        of_other = values.loc[protocol, theirs] if theirs else 0 * per_user
        return metrics.paired_mean_difference(per_user.to_numpy(), of_other.to_numpy())

    def _squared_errors(self, protocol: str, method: str) -> pd.DataFrame:
        """A column for each seed, a line for each rating."""
        table = self.ratings
        chosen = table[(table["protocol"] == protocol) & (table["method"] == method)]
        by_seed = chosen.set_index(["place", "user_row", "seed"])["squared_error"]
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
        names = [_range(low, high) for low, high in pairwise(edges)]
        chosen = chosen.assign(**{column: pd.cut(chosen[column], list(edges), labels=names)})
    grouped = chosen.groupby(["method", column], observed=False, sort=False)
    means: pd.DataFrame = grouped[value].mean().unstack()  # noqa: PD010 - pivot_table gives Any
    return means


def _range(low: float, high: float) -> str:
    first = int(low) + 1
    if np.isinf(high):
        return f"{first} or more"
    return str(first) if first == high else f"{first} to {int(high)}"
