"""Ratings made up in the shape of MovieLens, of any size, with a structure planted that can be learned.

Movies belong to niches, points in a space of tastes, each with its own genres. Few movies are rated
often and most seldom; few users rate much and most little. A user goes through sessions; in each, most
movies are of one niche to the user's taste, and often one follows its planted successor. How a movie is
rated depends on the user's taste, the user, and the movie.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, Self

import numpy as np
import polars as pl

from twotower.arrays import Floats, Ints
from twotower.errors import SettingsError
from twotower.files import partial_folder, writing_into

_GENRES: Final = (
    *("Action", "Adventure", "Animation", "Children", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller"),
    *("War", "Western"),
)
_DIMENSIONS: Final = 8
"""Of the space of tastes."""
_MOST_NICHES: Final = 64
_MOVIES_OF_NICHE: Final = 40
"""Fewer niches there are where movies are few."""
_APART: Final = 0.4
"""How far movies lie from the middle of their niche, which is 1 from the origin."""
_PEAKED: Final = 2.0
"""How much more often users choose what is to their taste, in powers of e."""
_FLAT, _STEEP = 300.0, 2.0
"""A movie's weight is 1 / (rank + flat) ** steep (Zipf and Mandelbrot), as in MovieLens about."""
_UNEQUAL: Final = 1.1
"""Standard deviation of the logarithm of how much users rate."""
_LEAST: Final = 20
"""Ratings of every user, as in MovieLens, where there are as many."""
_SESSION: Final = 20.0
"""Ratings of a session, the mean."""
_WITHIN: Final = 0.75
"""The share of a session's movies that are of its niche; the others are of any."""
_FOLLOWS: Final = 0.4
"""How often a movie's planted successor comes next."""
_FIRST_TIME, _LAST_TIME = 820_454_400, 1_672_531_200
"""Users begin from 1996 to 2022, seconds."""
_PAUSE: Final = 2 * 86_400.0
"""Between sessions, the median, seconds."""
_QUICK: Final = 30
"""Between ratings of a session, the mean, seconds, where they are not of one page."""
_ANOTHER_PAGE: Final = 0.75
"""The share of ratings that are not given at the same time as the one before."""
_RATINGS_AT_ONCE: Final = 1_000_000
_TASTE_SPREAD, _USER_SPREAD, _MOVIE_SPREAD, _NOISE = 0.5, 0.4, 0.4, 0.7
"""Standard deviations of what a rating is made of."""
_MEAN: Final = 3.6


@dataclass(frozen=True)
class World:
    """What is planted. Movies are rows from 0; their ids are one more.

    niches: int64 (movies,), the niche of each. middles: float64 (niches, 8), of unit norm. factors:
    float64 (movies, 8), the movies in the space of tastes. weights: float64 (movies,), how often each is
    rated, in the sum 1. successors: int64 (movies,), which of the same niche often comes next. quality:
    float64 (movies,), how much better each is rated than others.
    """

    niches: Ints
    middles: Floats
    factors: Floats
    weights: Floats
    successors: Ints
    quality: Floats

    @classmethod
    def of(cls, movies: int, random: np.random.Generator) -> Self:
        """Plant a structure."""
        count = int(np.clip(movies // _MOVIES_OF_NICHE, 1, _MOST_NICHES))
        middles = random.normal(size=(count, _DIMENSIONS))
        middles /= np.linalg.norm(middles, axis=1, keepdims=True)
        niches = random.permutation(np.arange(movies) % count)
        apart = random.normal(size=(movies, _DIMENSIONS)) * _APART / np.sqrt(_DIMENSIONS)
        weights = 1 / (random.permutation(movies) + _FLAT) ** _STEEP
        # In a ring through each niche, from the often to the seldom rated, so that both are alike.
        ring = np.lexsort((-weights, niches))
        ends = np.flatnonzero(np.diff(niches[ring], append=-1))
        following = np.arange(1, movies + 1)
        following[ends] = np.concatenate([[0], ends[:-1] + 1])
        successors = np.empty(movies, dtype=np.int64)
        successors[ring] = ring[following]
        return cls(
            niches,
            middles,
            middles[niches] + apart,
            weights / weights.sum(),
            successors,
            _MOVIE_SPREAD * random.normal(size=movies),
        )

    def draw(self, niches: Ints, random: np.random.Generator) -> Ints:
        """A movie of each niche (n,), or of any where it is -1, by the movies' weights: (n,)."""
        order = np.argsort(self.niches, kind="stable")
        bounds = np.concatenate([[0.0], np.cumsum(self.weights[order])])
        starts = np.searchsorted(self.niches[order], np.arange(len(self.middles) + 1))
        within = niches >= 0
        low = np.where(within, bounds[starts[niches]], 0.0)
        high = np.where(within, bounds[starts[niches + 1]], bounds[-1])
        places = np.searchsorted(bounds, low + random.random(len(niches)) * (high - low), "right") - 1
        # Rounding can carry the highest past the end of its niche.
        last = np.where(within, starts[niches + 1], len(order)) - 1
        movies: Ints = order[np.minimum(places, last)]
        return movies


def synthesize(path: Path, *, users: int, movies: int, ratings: int, seed: int = 0) -> None:
    """Write `ratings.csv` and `movies.csv` into a new folder, as MovieLens lays them out.

    Each user has at least 20 ratings, or as many as there are for each, and at most half of the movies;
    some movies have none. The same arguments give the same bytes. The folder appears when it is whole.
    Memory does not grow with the ratings. Raises SettingsError where there is something at `path`
    already or the numbers do not fit each other, BundleError where it cannot be written.
    """
    most = max(movies // 2, 1)
    if not users <= ratings <= users * most:
        raise SettingsError(
            f"--ratings {ratings}: allowed are {users} to {users * most} of {users} users and {movies} "
            "movies: for each user one, up to half of the movies"
        )
    if path.exists():
        raise SettingsError(f"{path} is there already: name a folder that is not")
    random = np.random.default_rng([seed, 0])
    world = World.of(movies, random)
    counts = _share_out(ratings, users, most, random)
    parent = path.resolve().parent
    with writing_into(parent), partial_folder(parent, path.resolve().name) as folder:
        _write_csv(folder / "movies.csv", iter([_movie_table(world, random)]))
        _write_csv(folder / "ratings.csv", _rating_tables(world, counts, seed))


def _write_csv(path: Path, tables: Iterator[pl.DataFrame]) -> None:
    with path.open("wb") as file:
        for number, table in enumerate(tables):
            table.write_csv(file, include_header=number == 0, float_precision=1)
        file.flush()
        os.fsync(file.fileno())


def _share_out(ratings: int, users: int, most: int, random: np.random.Generator) -> Ints:
    """How much each user rates, in the sum `ratings`: int64 (users,)."""
    counts = np.full(users, min(_LEAST, ratings // users), dtype=np.int64)
    weights = np.exp(_UNEQUAL * random.normal(size=users))
    while left := ratings - int(counts.sum()):
        open_ = np.flatnonzero(counts < most)
        more = np.floor(left * weights[open_] / weights[open_].sum()).astype(np.int64)
        if not more.any():  # then there are fewer left than users
            more[:left] = 1
        counts[open_] = np.minimum(counts[open_] + more, most)
    return counts


def _movie_table(world: World, random: np.random.Generator) -> pl.DataFrame:
    """Ids, titles with years, and one to three genres, most of which are usual in the movie's niche."""
    movies, niches = len(world.niches), len(world.middles)
    chances = random.dirichlet(np.full(len(_GENRES), 0.3), niches) + 1e-3
    # the highest of Gumbel's variables added to logarithms are draws without replacement
    drawn = np.log(chances)[world.niches] + random.gumbel(size=(movies, len(_GENRES)))
    best = np.argsort(-drawn, axis=1)[:, :3]
    sizes = random.integers(1, 4, movies)
    years = 2022 - np.minimum(random.exponential(18, movies), 100).astype(np.int64)
    names = np.array(_GENRES)[best].tolist()
    return pl.DataFrame(
        {
            "movieId": np.arange(1, movies + 1),
            "title": [f"Movie {row} ({year})" for row, year in enumerate(years.tolist(), start=1)],
            "genres": [
                "|".join(sorted(of_movie[:size]))
                for of_movie, size in zip(names, sizes.tolist(), strict=True)
            ],
        }
    )


def _rating_tables(world: World, counts: Ints, seed: int) -> Iterator[pl.DataFrame]:
    """The ratings of some users after the others, each user's in the order of the movies."""
    block = np.cumsum(counts) // _RATINGS_AT_ONCE
    bounds = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(counts)]
    for number, (start, stop) in enumerate(pairwise(bounds), start=1):
        random = np.random.default_rng([seed, number])
        yield _rating_table(world, np.arange(start, stop), counts[start:stop], random)


def _rating_table(
    world: World, user_ids: Ints, counts: Ints, random: np.random.Generator
) -> pl.DataFrame:
    tastes = random.normal(size=(len(counts), _DIMENSIONS))
    users, movies, sessions = _choose(world, tastes, counts, random)
    of_user = _USER_SPREAD * random.normal(size=len(counts))
    liked = np.einsum("nd,nd->n", tastes[users], world.factors[movies])
    exact = _MEAN + of_user[users] + world.quality[movies] + _TASTE_SPREAD * liked
    exact += _NOISE * random.normal(size=len(users))
    table = pl.DataFrame(
        {
            "userId": user_ids[users] + 1,
            "movieId": movies + 1,
            "rating": np.clip(np.round(2 * exact) / 2, 0.5, 5.0),
            "timestamp": _times(users, sessions, random),
        }
    )
    return table.sort("userId", "movieId")


def _choose(
    world: World, tastes: Floats, counts: Ints, random: np.random.Generator
) -> tuple[Ints, Ints, Ints]:
    """Who rates what, each movie once, in the order of time: users, movies, sessions, each (n,).

    Drawn in rounds, of which each leaves out what was drawn before; from the second on of all movies
    alike, or those who rate much would find the few popular ones again and again.
    """
    users, movies, sessions = _draw(world, tastes, counts, random)
    while True:
        # of each user's draws of a movie the first, and of those as many as are wanted
        key = users * len(world.niches) + movies
        first = np.zeros(len(key), dtype=np.bool_)
        first[np.unique(key, return_index=True)[1]] = True
        users, movies, sessions = users[first], movies[first], sessions[first]
        drawn = np.bincount(users, minlength=len(counts))
        places = np.arange(len(users)) - (np.cumsum(drawn) - drawn)[users]
        wanted = places < counts[users]
        users, movies, sessions = users[wanted], movies[wanted], sessions[wanted]
        missing = counts - np.bincount(users, minlength=len(counts))
        if not missing.any():
            return users, movies, sessions
        more = np.repeat(np.arange(len(counts)), 2 * missing)
        last = np.zeros(len(counts), dtype=np.int64)
        np.maximum.at(last, users, sessions)
        order = np.argsort(np.concatenate([users, more]), kind="stable")
        users = np.concatenate([users, more])[order]
        movies = np.concatenate([movies, random.integers(0, len(world.niches), len(more))])[order]
        sessions = np.concatenate([sessions, last[more]])[order]


def _draw(
    world: World, tastes: Floats, counts: Ints, random: np.random.Generator
) -> tuple[Ints, Ints, Ints]:
    """Half as many draws again as there are to be ratings: users, movies, sessions, as of `_choose`."""
    users = np.repeat(np.arange(len(counts)), counts + counts // 2 + 1)
    begins = random.random(len(users)) < 1 / _SESSION
    begins[np.flatnonzero(np.diff(users, prepend=-1))] = True
    sessions = np.cumsum(begins) - 1
    logits = _PEAKED * tastes[users[begins]] @ world.middles.T
    niches = np.argmax(logits + random.gumbel(size=logits.shape), axis=1)
    within = random.random(len(users)) < _WITHIN
    movies = world.draw(np.where(within, niches[sessions], -1), random)
    follows = (random.random(len(users)) < _FOLLOWS) & ~begins
    follows[1:] &= ~follows[:-1].copy()
    after = np.flatnonzero(follows)
    movies[after] = world.successors[movies[after - 1]]
    return users, movies, sessions


def _times(users: Ints, sessions: Ints, random: np.random.Generator) -> Ints:
    """Seconds, ascending within a user: sessions some days apart, ratings some seconds: int64 (n,)."""
    starts = random.integers(_FIRST_TIME, _LAST_TIME, int(users.max()) + 1)
    steps = random.integers(0, 2 * _QUICK + 1, len(users))
    steps *= random.random(len(users)) < _ANOTHER_PAGE
    pauses = np.exp(np.log(_PAUSE) + random.normal(size=len(users))).astype(np.int64)
    steps = np.where(np.diff(sessions, prepend=-1) != 0, pauses, steps)
    begins = np.diff(users, prepend=-1) != 0
    steps[begins] = 0
    passed = np.cumsum(steps)
    times: Ints = starts[users] + passed - passed[begins][np.cumsum(begins) - 1]
    return times
