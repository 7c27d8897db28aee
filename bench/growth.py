"""How what a user costs grows: with ratings, with what goes together, with k, and with the catalogue."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from typing import Any, Final

import numpy as np

from bench.rivals.model import Model, query_for
from bench.workload import raters
from bench.world import World
from retrieval_svc.approximate import ApproximateIndex
from retrieval_svc.index import ExactIndex, Search
from user_tower_svc.embedder import Profile

_RATINGS: Final = (10, 30, 100, 300, 1_000, 3_000, 10_000)
_BATCHES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_KS: Final = (1, 3, 10, 30, 100)
_TOGETHER: Final = 32
"""Users of a batch where something else grows."""
_USERS: Final = 512

Call = Callable[[], int]
"""Does some work, and says for how many users."""


@dataclass(frozen=True)
class Growth:
    """Microseconds of CPU for a user, round by round, by how much there is of what grows."""

    name: str
    by: str
    rounds: Mapping[int, Sequence[float]]


@dataclass(frozen=True)
class _Curve:
    name: str
    by: str
    calls: Mapping[int, Call]


def measure_growth(
    model: Model,
    bodies: Sequence[bytes],
    movies: Sequence[int],
    *,
    rounds: int,
    seconds: float,
    say: Callable[[str], None],
) -> list[Growth]:
    """Measure every point of every curve in every round, for some seconds each.

    Users are those of the requests who give their ratings. movies: sizes of made-up catalogues.
    """
    curves = [*_of_users(model, bodies), *_of_catalogues(movies, say)]
    measured: list[dict[int, list[float]]] = [{size: [] for size in each.calls} for each in curves]
    for number in range(rounds):
        for curve, points in zip(curves, measured, strict=True):
            for size, call in curve.calls.items():
                points[size].append(_microseconds(call, seconds))
        say(f"growth: round {number + 1} of {rounds} is done")
    return [Growth(curve.name, curve.by, points) for curve, points in zip(curves, measured, strict=True)]


def _of_users(model: Model, bodies: Sequence[bytes]) -> Iterator[_Curve]:
    profiles = [model.profile_of(user) for user in raters(bodies, _USERS)]
    queries = [query_for(user, 10) for user in model.embedder.embed(profiles)]
    embed, retrieve = model.embedder.embed, model.retriever.retrieve
    most = len(model.bundle.catalogue)
    lengths = sorted({min(length, most) for length in _RATINGS})
    for together in (1, _TOGETHER):
        yield _Curve(
            f"encoder and tower, {together} at once",
            "ratings of a user",
            {length: _over([_rater(model, length)], together, embed) for length in lengths},
        )
    for name, users, work in (
        ("encoder and tower", profiles, embed),
        ("search with exclusions", queries, retrieve),
    ):
        yield _Curve(name, "users at once", {size: _over(users, size, work) for size in _BATCHES})
    yield _Curve(
        f"search with exclusions, {_TOGETHER} at once",
        "k",
        {k: _over([each._replace(k=k) for each in queries], _TOGETHER, retrieve) for k in _KS},
    )


def _of_catalogues(movies: Sequence[int], say: Callable[[str], None]) -> Iterator[_Curve]:
    searches: dict[int, Sequence[Search]] = {}
    finders: dict[int, Callable[[Sequence[Search]], object]] = {}
    for size in movies:
        say(f"growth: making {size} movies")
        world = World.of(size)
        partition = world.partition()
        searches[size] = world.searches("excluded")
        finders[size] = (
            ExactIndex(world.movies) if partition is None else ApproximateIndex(world.movies, partition)
        ).search
    for together in (1, 4 * _TOGETHER):
        yield _Curve(
            f"index with exclusions, {together} at once",
            "movies",
            {size: _over(searches[size], together, finders[size]) for size in movies},
        )


def _rater(model: Model, ratings: int) -> Profile:
    """Somebody who has rated so many of the movies."""
    random = np.random.default_rng(ratings)
    movie_ids = random.permutation(model.bundle.catalogue.movie_ids)[:ratings]
    low, high = model.bundle.features.rating_scale
    given = random.uniform(low, high, ratings).astype(np.float32)
    return model.embedder.rated(movie_ids, given, None, as_of=0)


def _over(users: Sequence[Any], size: int, work: Callable[[Any], object]) -> Call:
    """Work for so many of the users at once, from call to call for the next."""
    endless = cycle(users)
    batches = cycle([list(islice(endless, size)) for _ in range(max(1, len(users) // size))])
    return partial(_work, work, batches)


def _work(work: Callable[[Any], object], batches: Iterator[Sequence[Any]]) -> int:
    batch = next(batches)
    work(batch)
    return len(batch)


def _microseconds(call: Call, seconds: float) -> float:
    """CPU time for a user, called for some seconds; the first call does not count."""
    call()
    users, start = 0, time.process_time()
    while (passed := time.process_time() - start) < seconds or not users:
        users += call()
    return 1e6 * passed / users
