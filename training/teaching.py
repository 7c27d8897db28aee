"""What the retrieval towers are taught: made-up histories, and what a closed form says comes next.

The histories are parts of real ones, each scored and encoded by regressions that have never seen its
user: they say of them what they will say of strangers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse.linalg import eigsh

from training.config import Bounds, RetrievalConfig
from training.progress import track
from training.statistics import Statistics, Told
from training.successors import Pairs, Scorer, longest_window
from twotower.arrays import Bools, FeatureRows, Ints
from twotower.features import HistorySpec, UserEncoder, best_scores, genre_directions, seconds_away
from twotower.histories import NO_RATINGS, Histories
from twotower.statistics import UserSums

_MOST_PREFIXES: Final = 4_096
_PREFIXES: Final = (0.75, 1.0)
_FEWEST: Final = 3
"""Ratings of a made-up history, where its user has as many."""
_UNCUT: Final = 0.25
"""The share of made-up histories that go on to the last rating; the others end somewhere before."""
_WINDOWS: Final = 0.25
"""The share that have lost their beginning."""
_THINNED: Final = 0.5
"""The share that have lost some ratings anywhere."""
_THINNEST: Final = 0.3
"""How much is left of these at least, about."""
_DEVIATION: Final = 0.3
"""Of movies' vectors at the start."""
_DESCRIBED: Final = 0.05
"""The share of examples of which aggregates alone are told."""
_STRANGERS: Final = 0.01
"""The share of examples of which nothing is told."""
_TINY: Final = 1e-6
_HIDDEN: Final = -1e4
"""The logit of what is left out: its softmax is 0."""
_ALL_FOUND: Final = 2_048
"""Prefixes up to which all directions are found; of twice as many that takes a minute, the first ones a
second."""


class Examples(NamedTuple):
    """What the towers learn from: inputs (n, width), targets (n, kept), and what is rated (n, kept)."""

    inputs: FeatureRows
    targets: npt.NDArray[np.float16]
    rated: Bools


class Teacher:
    """The closed form of all users, those of all but a part of them, and what the towers see of each."""

    def __init__(
        self,
        statistics: Statistics,
        history: HistorySpec,
        config: RetrievalConfig,
        bounds: Bounds,
        *,
        random: np.random.Generator,
        out: int,
    ) -> None:
        self.statistics, self.history, self.config = statistics, history, config
        train = statistics.train
        self.histories = train.histories()
        liked = train.ratings >= history.liked
        likes = np.bincount(train.movie_rows[liked], minlength=train.movies)
        self.kept = _most_liked(likes, config.min_likes, bounds.movies)
        rated = np.flatnonzero(self.histories.counts)
        self._places = np.zeros(train.movies, dtype=np.int64)
        self._places[self.kept] = np.arange(1, len(self.kept) + 1)
        self._landmarks = config.count_landmarks(likes[self.kept])
        self._parts = np.array_split(random.permutation(rated), min(config.parts, len(rated)))
        window = longest_window(self.histories.counts, bounds.pairs)
        pairs = [
            Pairs.of(self.histories, np.sort(part), self.kept, history, config, window=window)
            for part in self._parts
        ]
        every = Pairs.total(pairs)
        prefixes = self._prefixes(random)
        tables = [every.solve(penalty) for penalty in config.penalties]
        self._units = [
            float(np.median(best_scores(self._scorer(table).follow(prefixes, train.movies))))
            for table in tables
        ]
        self.scorer = self._scorer(self._mean(tables))
        del tables  # each is as large as the sums
        self._others = [self._without(every, own) for own in pairs]
        self.start = self._find_start(prefixes, out)

    @cached_property
    def encoder(self) -> UserEncoder:
        """What encodes users by the closed form of all of them."""
        return self._encoder(self.scorer.table)

    def _encoder(self, table: FeatureRows) -> UserEncoder:
        successors = table[:, : self._landmarks]
        successors = np.concatenate([np.zeros_like(successors[:1]), successors])
        told = Told(self._places, successors, self.start[: self._landmarks])
        return self.statistics.encoder(told)

    def examples(self, random: np.random.Generator) -> Examples:
        """Made-up histories, each taught by the closed form that has not seen its user."""
        parts = list(self._taught(random))
        inputs, targets, rated = (np.concatenate(each) for each in zip(*parts, strict=True))
        examples = Examples(inputs, targets, rated)
        strangers = random.choice(len(inputs), round(_STRANGERS * len(inputs)), replace=False)
        columns = self.encoder.columns.retrieval
        examples.inputs[strangers] = self.encoder.encode(NO_RATINGS)[:, columns]
        examples.targets[strangers] = targets.mean(axis=0, dtype=np.float32)
        examples.rated[strangers] = False
        return examples

    def _taught(self, random: np.random.Generator) -> Iterator[Examples]:
        genres = self.statistics.content.genres
        users = sum(len(part) for part in self._parts)
        parts = zip(self._parts, self._others, strict=True)
        for part, scorer in track(parts, "making up histories", len(self._parts)):
            histories = self._made_up(part, round(self.config.examples * len(part) / users), random)
            encoder = self._encoder(scorer.table)
            rows = encoder.encode(histories)
            described = np.flatnonzero(random.random(len(histories)) < _DESCRIBED)
            rows[described] = _encode_described(encoder, histories, described)
            rated = np.zeros((len(histories), len(self.kept) + 1), dtype=np.bool_)
            rated[histories.users, self._places[histories.movie_rows]] = True
            rated = rated[:, 1:]
            scores = scorer.scores(histories, genres)
            targets = softmax(scores / np.float32(self.history.temperature), rated)
            yield Examples(rows[:, encoder.columns.retrieval], targets.astype(np.float16), rated)

    def _made_up(self, users: Ints, count: int, random: np.random.Generator) -> Histories:
        """Prefixes, windows and thinned prefixes of the users' histories, some asked after a pause."""
        offsets = self.histories.offsets
        chosen = [
            offsets[user] + _some_places(int(offsets[user + 1] - offsets[user]), random)
            for user in random.choice(users, count)
        ]
        histories = self._taken(chosen)
        away = np.minimum(2 * random.random(count), 1)  # every second one for a day or more
        pauses = np.where(random.random(count) < self.config.away, seconds_away(away), 0.0)
        return replace(histories, idle=pauses)

    def _prefixes(self, random: np.random.Generator) -> Histories:
        offsets = self.histories.offsets
        users = np.flatnonzero(self.histories.counts)
        most = _MOST_PREFIXES // len(_PREFIXES)
        if len(users) > most:
            users = np.sort(random.choice(users, most, replace=False))
        return self._taken(
            [
                np.arange(offsets[user], offsets[user] + max(_FEWEST, int(share * count)))[:count]
                for user in users
                for share in _PREFIXES
                for count in [int(offsets[user + 1] - offsets[user])]
            ]
        )

    def _taken(self, chosen: list[Ints]) -> Histories:
        """Histories of these ratings of the training part, oldest first."""
        places = np.concatenate(chosen)
        train = self.statistics.train
        return Histories.in_order(
            np.cumsum([0, *map(len, chosen)], dtype=np.int64),
            train.movie_rows[places],
            train.ratings[places],
            train.timestamps[places],
        )

    def _find_start(self, prefixes: Histories, out: int) -> FeatureRows:
        """Movies' vectors at the start: float32 (kept, out), the leading directions of the scores."""
        scores = self.scorer.scores(prefixes, self.statistics.content.genres)
        spread = (np.maximum(scores, 0).mean(axis=0) + np.float32(1e-3)) ** self.config.popularity
        rows = scores * spread
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _TINY)
        gram = rows @ rows.T
        gram.flat[:: len(gram) + 1] += _TINY  # or nothing would lead where all scores are 0
        size = min(out, *rows.shape)
        if len(gram) > _ALL_FOUND:
            values, left = eigsh(gram, size, v0=np.ones(len(gram), gram.dtype))
        else:
            values, left = np.linalg.eigh(gram)
        values, left = values[::-1][:size], left[:, ::-1][:, :size]
        vectors = rows.T @ left / np.sqrt(np.maximum(values, _TINY))
        start = np.zeros((len(vectors), out), dtype=np.float32)
        start[:, :size] = vectors / spread[:, None]
        start *= _DEVIATION / max(float(np.sqrt((start[:, :size] ** 2).mean())), _TINY)
        return start

    def _scorer(self, table: FeatureRows) -> Scorer:
        directions = genre_directions(self.statistics.content.genres)
        return Scorer(self.kept, table, directions[self.kept], self.history)

    def _without(self, every: Pairs, own: Pairs) -> Scorer:
        """What all users but those of a part say."""
        others = every.without(own)
        return self._scorer(self._mean([others.solve(penalty) for penalty in self.config.penalties]))

    def _mean(self, tables: list[FeatureRows]) -> FeatureRows:
        mean = np.zeros_like(tables[0])
        for table, unit in zip(tables, self._units, strict=True):
            mean += table / unit
        mean /= len(tables)
        return mean


def _most_liked(likes: Ints, min_likes: int, most: int) -> Ints:
    """The rows of the movies that are liked often enough, or at all, the most liked first."""
    fewest = min(min_likes, int(likes.max(initial=0)))
    order = np.argsort(-likes, kind="stable")[:most]
    return order[likes[order] >= fewest]


def _some_places(count: int, random: np.random.Generator) -> Ints:
    """A prefix, a window, or a thinned prefix of `count` places, as int64."""
    end = count
    if count > _FEWEST and random.random() >= _UNCUT:
        end = int(random.integers(_FEWEST, count + 1))
    kind = random.random()
    places = np.arange(end)
    if kind < _WINDOWS:
        return places[int(random.integers(0, max(1, end - _FEWEST))) :]
    if kind < _WINDOWS + _THINNED:
        thinned = places[random.random(end) < random.uniform(_THINNEST, 1)]
        if len(thinned) >= _FEWEST:
            return thinned
    return places


def _encode_described(encoder: UserEncoder, histories: Histories, chosen: Ints) -> FeatureRows:
    """Rows of some of the users as if their aggregates alone were known."""
    statistics = UserSums.of(histories, encoder.genres).statistics()
    nobody = Histories.join([NO_RATINGS] * len(chosen))
    return encoder.encode(
        nobody, {place: statistics.of_user(int(user)) for place, user in enumerate(chosen)}
    )


def softmax(logits: FeatureRows, hidden: Bools) -> FeatureRows:
    """Over each row, 0 where hidden unless all is: float32, of the same shape."""
    shown = np.where(hidden, np.float32(_HIDDEN), logits)
    shown -= shown.max(axis=1, keepdims=True)
    powers = np.exp(shown, out=shown)
    powers /= powers.sum(axis=1, keepdims=True)
    return powers
