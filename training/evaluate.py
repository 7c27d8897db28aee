"""Judging a method on a protocol: it is fitted, asked, and compared with what the users did."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from training import metrics
from training.interactions import Interactions
from training.methods import Method, Ratings, Scores
from training.progress import track
from training.splits import Fold, Protocol
from twotower.arrays import Ints
from twotower.errors import TrainingError

K: Final = 10
"""How many movies are recommended where rankings are judged."""

NDCG, RECALL, MRR = f"ndcg@{K}", f"recall@{K}", f"mrr@{K}"

_USERS_AT_ONCE: Final = 256
_TABLES: Final = ("users", "likes", "shown", "ratings")
_COLUMNS: Final = (
    ("user_row", "history", NDCG, RECALL, MRR, "group"),
    ("movie_row", "popularity", "found"),
    ("movie_row", "surprise"),
    ("user_row", "popularity", "rating", "predicted", "group"),
)


@dataclass(frozen=True)
class Judged:
    """What a method was worth on a protocol with one seed. A table is empty where it was not judged.

    users: a line for each who asked: user_row, history (how many ratings were told), ndcg@10,
    recall@10, mrr@10 (NaN where the user liked nothing afterwards), group (the protocol's).
    likes: a line for each movie liked afterwards: movie_row, popularity (its ratings in training),
    found (among the ten).
    shown: a line for each movie recommended: movie_row, surprise (its self-information, bits).
    ratings: a line for each rating predicted: user_row, group, popularity, rating, predicted.
    """

    users: pd.DataFrame
    likes: pd.DataFrame
    shown: pd.DataFrame
    ratings: pd.DataFrame
    train_seconds: float
    """Of one fit, the mean over the folds."""

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Every column of every table by the names of both, texts as such."""
        arrays = {"train_seconds": np.array(self.train_seconds)}
        for table in _TABLES:
            for name, column in getattr(self, table).items():
                values = column.to_numpy()
                arrays[f"{table}.{name}"] = values.astype(np.str_) if values.dtype == object else values
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """What `to_arrays` gave."""
        columns: dict[str, dict[str, npt.NDArray[Any]]] = {table: {} for table in _TABLES}
        for name, values in arrays.items():
            table, _, column = name.partition(".")
            if column:
                columns[table][column] = values.astype(object) if values.dtype.kind == "U" else values
        tables = {table: pd.DataFrame(columns[table]) for table in _TABLES}
        return cls(**tables, train_seconds=float(arrays["train_seconds"]))


def judge(protocol: Protocol, method: Method) -> Judged:
    """Fit a method on each fold of a protocol, ask it, and compare with what the users did."""
    folds = [_judge_fold(fold, method, protocol) for fold in protocol.folds]
    return Judged(
        users=pd.concat([fold.users for fold in folds], ignore_index=True),
        likes=pd.concat([fold.likes for fold in folds], ignore_index=True),
        shown=pd.concat([fold.shown for fold in folds], ignore_index=True),
        ratings=pd.concat([fold.ratings for fold in folds], ignore_index=True),
        train_seconds=float(np.mean([fold.train_seconds for fold in folds])),
    )


def _judge_fold(fold: Fold, method: Method, protocol: Protocol) -> Judged:
    start = time.perf_counter()
    fitted = method(fold)
    seconds = time.perf_counter() - start
    users, likes, shown, ratings = (pd.DataFrame(columns=columns) for columns in _COLUMNS)
    if protocol.ranked and fitted.scores:
        asking = np.unique(fold.test.user_rows)
        recommended = recommend(fitted.scores, fold.history, asking)
        users = _users(fold, asking, recommended).assign(group=protocol.groups[asking])
        likes = _likes(fold, asking, recommended)
        shown = _shown(fold, recommended)
    if protocol.rated and fitted.ratings:
        ratings = _ratings(fold, fitted.ratings)
        ratings["group"] = protocol.groups[fold.test.user_rows]
    return Judged(users, likes, shown, ratings, seconds)


def recommend(scores: Scores, history: Interactions, asking: Ints) -> Ints:
    """The ten best movies that each asking user (n,) has not rated yet: int64 (n, k), -1 for none."""
    rated = history.matrix()
    recommended = []
    starts = range(0, len(asking), _USERS_AT_ONCE)
    for start in track(starts, "recommending", len(starts)):
        users = asking[start : start + _USERS_AT_ONCE]
        scored = np.array(scores(users), dtype=np.float32)
        scored[rated[users].nonzero()] = -np.inf
        recommended.append(metrics.top_k(scored, K))
    return np.concatenate(recommended)


def _users(fold: Fold, asking: Ints, recommended: Ints) -> pd.DataFrame:
    liked = _liked(fold).matrix()[asking]
    relevant = np.diff(liked.indptr)
    hits = np.zeros(recommended.shape, dtype=np.bool_)
    for start in range(0, len(asking), _USERS_AT_ONCE):
        some = slice(start, start + _USERS_AT_ONCE)
        hits[some] = np.take_along_axis(liked[some].toarray() > 0, recommended[some], axis=1)
    hits &= recommended >= 0
    judged = relevant > 0
    measured = {
        NDCG: metrics.ndcg(hits[judged], relevant[judged]),
        RECALL: metrics.recall(hits[judged], relevant[judged]),
        MRR: metrics.reciprocal_rank(hits[judged]),
    }
    told = np.bincount(fold.history.user_rows, minlength=fold.history.users)
    table = pd.DataFrame({"user_row": asking, "history": told[asking]})
    return table.join(pd.DataFrame(measured, index=np.flatnonzero(judged)))


def _likes(fold: Fold, asking: Ints, recommended: Ints) -> pd.DataFrame:
    liked = _liked(fold)
    places = np.searchsorted(asking, liked.user_rows)
    found = (recommended[places] == liked.movie_rows[:, None]).any(axis=1)
    return pd.DataFrame(
        {
            "movie_row": liked.movie_rows,
            "popularity": fold.popularity[liked.movie_rows],
            "found": found,
        }
    )


def _shown(fold: Fold, recommended: Ints) -> pd.DataFrame:
    learned_from = len(np.unique(fold.train.user_rows))
    information = metrics.self_information(fold.popularity, learned_from)
    rows = recommended[recommended >= 0]
    return pd.DataFrame({"movie_row": rows, "surprise": information[rows]})


def _ratings(fold: Fold, ratings: Ratings) -> pd.DataFrame:
    test = fold.test
    predicted = np.clip(ratings(test.user_rows, test.movie_rows), *fold.train.scale)
    unknown = int(np.isnan(predicted).sum())
    if unknown:
        raise TrainingError(f"{unknown} of {len(test)} predicted ratings are not numbers")
    return pd.DataFrame(
        {
            "user_row": test.user_rows,
            "popularity": fold.popularity[test.movie_rows],
            "rating": test.ratings,
            "predicted": predicted,
        }
    )


def _liked(fold: Fold) -> Interactions:
    return fold.test.take(fold.test.liked)
