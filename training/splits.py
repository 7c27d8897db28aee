"""Protocols: what a model may learn from, what it is told of the users who ask, what it is judged by.

Each judges by the test part, which is touched to report only, or by the validation part, on which
recipes are chosen; the ratings of the test part then stay out altogether.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from training.interactions import Interactions
from twotower.arrays import Bools, Ints
from twotower.errors import NoTimestamps, TooFewRatings

Parts = npt.NDArray[np.int8]


class Part(IntEnum):
    """Which part of the split ratings a rating belongs to, or a protocol judges by."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2


DAY: Final = 86_400
SOON, LATER = "within a day", "a day or more later"
_COLD_FOLDS: Final = 5
_SESSION_HISTORY: Final = 10
"""Ratings that a user must have before the last session to be judged on its start."""


@dataclass(frozen=True)
class Fold:
    """One fit of a protocol; no rating of `test` is in `train` or `history`."""

    train: Interactions
    """What a model learns from."""
    history: Interactions
    """What it is told of the users of `test` when they ask, learned from or not."""
    test: Interactions

    def on_one_scale(self) -> Self:
        """All on that of what is learned from: what is held out has no say in what a like is."""
        parts = (self.train, self.history, self.test)
        return type(self)(*(replace(part, allowed=self.train.scale) for part in parts))

    @property
    def known(self) -> Interactions:
        """Train and all other history, for models that can only answer for users they learned from."""
        learned_from = np.isin(self.history.user_rows, np.unique(self.train.user_rows))
        return self.train.join(self.history.take(~learned_from))

    @cached_property
    def asked_at(self) -> Ints:
        """When each user asks, seconds: the time of the first rating judged, int64 (users,)."""
        asked = np.full(self.test.users, np.iinfo(np.int64).max)
        np.minimum.at(asked, self.test.user_rows, self.test.timestamps)
        return asked

    @cached_property
    def popularity(self) -> Ints:
        """How many ratings each movie has in `train`: int64 (movies,)."""
        return np.bincount(self.train.movie_rows, minlength=self.train.movies)


@dataclass(frozen=True)
class Protocol:
    """Folds that share no test rating, judged as one."""

    name: str
    folds: tuple[Fold, ...]
    digest: str
    """SHA-256 of which rating is where; the same digest, the same split of the same data."""
    groups: npt.NDArray[np.str_]
    """The group in which each user is judged apart as well (users,)."""
    ranked: bool = True
    """Whether rankings are judged, or predicted ratings alone."""
    rated: bool = True
    """Whether predicted ratings are judged, or rankings alone."""

    def judged_by(self, most: int) -> Self:
        """The same, judged by at most so many of its users, drawn at random with a fixed seed."""
        asking = np.unique(np.concatenate([fold.test.user_rows for fold in self.folds]))
        if len(asking) <= most:
            return self
        drawn = np.sort(np.random.RandomState(0).choice(asking, most, replace=False))
        folds = tuple(
            replace(fold, test=fold.test.take(np.isin(fold.test.user_rows, drawn)))
            for fold in self.folds
        )
        digest = hashlib.sha256(self.digest.encode() + drawn.astype("<i8").tobytes()).hexdigest()
        return replace(self, folds=_checked(self.name, *folds), digest=digest)

    @property
    def tested(self) -> int:
        """Ratings judged."""
        return sum(len(fold.test) for fold in self.folds)


def temporal(interactions: Interactions, part: Part = Part.TEST) -> Protocol:
    """Each user's last 20 % by time are the test, the 10 % before validation; equal times at random."""
    _check_timed("temporal", interactions)
    parts = _temporal_parts(interactions)
    train = interactions.take(parts < part)
    (fold,) = folds = _checked("temporal", Fold(train, train, interactions.take(parts == part)))
    return Protocol("temporal", folds, _digest(parts, part), _by_gap(fold))


def random(interactions: Interactions, part: Part = Part.TEST) -> Protocol:
    """20 % of all ratings are the test, 10 % validation, at random with a fixed seed: ratings only.

    Rankings, too, where it is not known what came later. The parts stay shuffled: what learns in the
    order of the data (SVD by SGD) learns better so.
    """
    order = np.random.RandomState(0).permutation(len(interactions))
    tested, validated = len(order) // 5, len(order) // 10
    parts = np.full(len(order), Part.TRAIN, dtype=np.int8)
    parts[order[:tested]] = Part.TEST
    parts[order[tested : tested + validated]] = Part.VALIDATION
    sequence = parts[order]
    train = interactions.take(order[sequence < part])
    fold = Fold(train, train, interactions.take(order[sequence == part]))
    return Protocol(
        "random",
        _checked("random", fold),
        _digest(parts, part),
        _by_gap(fold),
        ranked=not interactions.timed,
    )


def usual(interactions: Interactions, part: Part = Part.TEST) -> Protocol:
    """What models are judged and chosen by: the temporal protocol, or the random one without times."""
    return temporal(interactions, part) if interactions.timed else random(interactions, part)


def cold_user(interactions: Interactions, part: Part = Part.TEST) -> Protocol:
    """Users never learned from, in five folds: their first 80 % are told, their last 20 % judged.

    For validation, nobody's last 20 % is seen: the first 70 % are told, the next 10 % judged.
    """
    parts = _temporal_parts(interactions)
    seen = parts <= part
    judged = parts[seen] == part
    folds = _cold_folds("cold-user", interactions.take(seen), told=~judged, judged=judged)
    digest = _digest(parts, part, _user_folds(interactions.users))
    return Protocol("cold-user", folds, digest, _by_gap(*folds))


def global_time(interactions: Interactions, part: Part = Part.TEST) -> Protocol:
    """Learn from everything before a date, when 80 % of the ratings were given; ratings only.

    Users known by then are judged on all they rated afterwards; of those who joined later the first
    80 % of ratings are told and the last 20 % judged. For validation, the ratings before that date
    are all there are. Nothing is learned from anybody's later ratings, as it is in the other protocols.
    """
    _check_timed("global-time", interactions)
    if part == Part.VALIDATION:
        interactions = interactions.take(interactions.timestamps < _cutoff(interactions))
    before = interactions.timestamps < _cutoff(interactions)
    train = interactions.take(before)
    known = np.isin(np.arange(interactions.users), train.user_rows)
    of_known = known[interactions.user_rows]
    told = np.where(of_known, before, _temporal_parts(interactions) < Part.TEST)
    folds = _checked("global-time", Fold(train, interactions.take(told), interactions.take(~told)))
    groups = np.where(known, "known users", "users who joined later")
    return Protocol("global-time", folds, _digest(told, part), groups, ranked=False)


def session_start(interactions: Interactions, part: Part = Part.TEST) -> Protocol:
    """Users never learned from who come back after a day or more: judged on what they rate then.

    Told is all before the last pause of a day or more, ten ratings at least. For validation, neither
    what comes after it nor anybody's last 20 % is seen. Rankings only.
    """
    _check_timed("session-start", interactions)
    seen = interactions
    if part == Part.VALIDATION:
        unseen = _since_return(interactions) | (_temporal_parts(interactions) == Part.TEST)
        seen = interactions.take(~unseen)
    judged = _since_return(seen)
    told = ~judged & np.isin(seen.user_rows, np.unique(seen.user_rows[judged]))
    folds = _cold_folds("session-start", seen, told=told, judged=judged)
    digest = _digest(judged, part, _user_folds(interactions.users))
    return Protocol("session-start", folds, digest, _by_gap(*folds), rated=False)


Split = Callable[[Interactions, Part], Protocol]

PROTOCOLS: Final[Mapping[str, Split]] = {
    "temporal": temporal,
    "random": random,
    "cold-user": cold_user,
    "global-time": global_time,
    "session-start": session_start,
}


def _check_timed(name: str, interactions: Interactions) -> None:
    if not interactions.timed:
        raise NoTimestamps(f"the ratings have no timestamps: the {name} protocol needs them")


def _cutoff(interactions: Interactions) -> float:
    return float(np.quantile(interactions.timestamps, 0.8)) if len(interactions) else 0.0


def _temporal_parts(interactions: Interactions) -> Parts:
    ties = np.random.RandomState(0).random_sample(len(interactions))
    order = np.lexsort((ties, interactions.timestamps, interactions.user_rows))
    users = interactions.user_rows[order]
    counts = np.bincount(users, minlength=interactions.users)
    left = counts[users] - _positions(users)  # 1 for the user's last rating
    tested = np.round(0.2 * counts)[users]
    validated = np.round(0.1 * counts)[users]
    parts = np.full(len(order), Part.TRAIN, dtype=np.int8)
    parts[order[left <= tested + validated]] = Part.VALIDATION
    parts[order[left <= tested]] = Part.TEST
    return parts


def _cold_folds(name: str, seen: Interactions, *, told: Bools, judged: Bools) -> tuple[Fold, ...]:
    """Folds of users: each learns from all ratings of the others, and is told and judged on its own."""
    fold_of_rating = _user_folds(seen.users)[seen.user_rows]
    folds = []
    for number in range(_COLD_FOLDS):
        own = fold_of_rating == number
        folds.append(Fold(seen.take(~own), seen.take(own & told), seen.take(own & judged)))
    return _checked(name, *folds)


def _user_folds(users: int) -> Ints:
    """The fold of each user: int64 (users,)."""
    fold_of_user = np.empty(users, dtype=np.int64)
    for number, members in enumerate(
        np.array_split(np.random.RandomState(0).permutation(users), _COLD_FOLDS)
    ):
        fold_of_user[members] = number
    return fold_of_user


def _since_return(interactions: Interactions) -> Bools:
    """Which ratings come after their user's last pause of a day or more: bool (n,).

    None of a user who never paused so, or had rated too little before.
    """
    order = np.lexsort((interactions.timestamps, interactions.user_rows))
    users, times = interactions.user_rows[order], interactions.timestamps[order]
    position = _positions(users)
    returns = np.flatnonzero((np.diff(times) >= DAY) & (np.diff(users) == 0)) + 1
    last = np.full(interactions.users, -1)
    last[users[returns]] = position[returns]  # ascending: the last one stays
    since = np.zeros(len(order), dtype=np.bool_)
    since[order] = (position >= last[users]) & (last >= _SESSION_HISTORY)[users]
    return since


def _positions(ordered_users: Ints) -> Ints:
    """The number of each rating among its user's, from 0; the user rows come in order: int64 (n,)."""
    counts = np.bincount(ordered_users)
    starts = np.cumsum(counts) - counts
    positions: Ints = np.arange(len(ordered_users)) - starts[ordered_users]
    return positions


def _by_gap(*folds: Fold) -> npt.NDArray[np.str_]:
    """Whether each user asks within a day of the last rating told, or later: (users,)."""
    returns = np.zeros(folds[0].test.users, dtype=np.bool_)
    for fold in folds:
        last_told = np.full(fold.test.users, np.iinfo(np.int64).min // 2)
        np.maximum.at(last_told, fold.history.user_rows, fold.history.timestamps)
        asking = np.unique(fold.test.user_rows)
        returns[asking] = fold.asked_at[asking] - last_told[asking] >= DAY
    return np.where(returns, LATER, SOON)


def _checked(name: str, *folds: Fold) -> tuple[Fold, ...]:
    filled = tuple(fold.on_one_scale() for fold in folds if len(fold.test) and len(fold.train))
    if not filled:
        raise TooFewRatings(
            f"too few ratings: the {name} protocol has none left to learn from or to judge by"
        )
    return filled


def _digest(parts: npt.NDArray[np.generic], part: Part, *more: Ints) -> str:
    digest = hashlib.sha256(parts.tobytes())
    for array in more:
        digest.update(array.tobytes())
    if part == Part.VALIDATION:
        digest.update(b"validation")
    return digest.hexdigest()
