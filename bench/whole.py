"""Whether an answer of the REST API is whole, by what its client can tell."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any


def fault_of(answer: Mapping[str, Any], k: int, *, barred: Collection[int] = (), genre: str = "") -> str:
    """What is wrong with `items` and `shortfall` of an answer, or nothing.

    There are exactly `k` movies, or fewer and the reason why; each is another, none is `barred` by its
    id, and all have the genre, if one is named.
    """
    items, shortfall = answer["items"], answer["shortfall"]
    ids = [movie["movie_id"] for movie in items]
    if shortfall is None and len(ids) != k:
        return f"{len(ids)} movies for {k}, and no shortfall"
    if shortfall and not shortfall["returned"] == len(ids) < k == shortfall["requested"]:
        return f"{len(ids)} movies for {k}, and a shortfall of another count"
    if len(set(ids)) != len(ids):
        return "a movie comes twice"
    if back := set(ids) & set(barred):
        return f"movie {min(back)} comes back"
    if genre and any(genre not in movie["genres"] for movie in items):
        return f"a movie is no {genre}"
    return ""
