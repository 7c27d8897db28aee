"""What is asked: requests for recommendations, each another, the same for the same seed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from gateway.schemas import RecommendationRequest
from twotower.arrays import Ints
from twotower.files import write_atomically

K: Final = 10
_FEWEST, _MOST = 20, 200
_STARS: Final = np.arange(1, 11) / 2


def requests(
    movie_ids: Ints, rating_counts: Ints, user_ids: Ints, *, as_of: int, count: int, seed: int
) -> list[bytes]:
    """That many bodies of `POST /v1/recommendations`, no two the same.

    Every other is of a known user, where there are any; the rest are of strangers with 20 to 200 ratings
    of their own, of movies drawn by how often they were rated. The first asks at `as_of` (seconds, UTC),
    each later one a second after the one before.
    """
    random = np.random.default_rng(seed)
    bodies = _bodies(movie_ids, rating_counts / rating_counts.sum(), user_ids, random)
    return [
        json.dumps({**body, "as_of": as_of + place, "k": K}, separators=(",", ":")).encode()
        for place, body in enumerate(islice(bodies, count))
    ]


def raters(bodies: Sequence[bytes], count: int) -> list[RecommendationRequest]:
    """The requests of those who give their ratings, over and over until there are so many."""
    requests = [RecommendationRequest.model_validate_json(body) for body in bodies]
    return list(islice(cycle([each for each in requests if each.ratings]), count))


def write(path: Path, bodies: list[bytes]) -> None:
    """The bodies as wrk's script reads them: one a line."""
    write_atomically(path, b"".join(body + b"\n" for body in bodies))


def _bodies(
    movie_ids: Ints, weights: np.ndarray, user_ids: Ints, random: np.random.Generator
) -> Iterator[dict[str, Any]]:
    rated = int((weights > 0).sum())
    most = min(_MOST, rated // 2)
    while True:
        if len(user_ids):
            yield {"user_id": int(random.choice(user_ids))}
        size = int(random.integers(min(_FEWEST, most), most + 1))
        # The largest of weights to random powers: a weighted draw without replacement, at once.
        keys = random.exponential(size=len(weights)) / np.maximum(weights, 1e-12)
        chosen = movie_ids[np.argpartition(keys, size)[:size]]
        stars = random.choice(_STARS, size)
        yield {
            "ratings": [
                {"movie_id": movie_id, "rating": rating}
                for movie_id, rating in zip(chosen.tolist(), stars.tolist(), strict=True)
            ]
        }
