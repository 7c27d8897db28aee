"""Users and movies that a request names by what the data call them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Final

import numpy as np

from twotower.arrays import Ints
from twotower.errors import InvalidRequest, shown
from twotower.external import Names
from twotower.v1 import embedding_pb2 as pb

_LARGEST: Final = 2**63 - 1


def movie_ids_of(ratings: Sequence[pb.Rating], movies: Names) -> Ints:
    """The movies rated, int64 (n,); one that the data do not have gets a number that no movie has.

    Raises InvalidRequest naming the first rating of which the movie is named twice, or was before.
    """
    given = [rating.movie_id for rating in ratings]
    if not any(rating.HasField("external_id") for rating in ratings):
        return np.array(given, dtype=np.int64)
    taken = set(given)
    unused = (n for n in count(_LARGEST, -1) if n not in taken and not movies.has(n))
    unknown: dict[str, int] = {}
    before: set[int] = set()
    for place, rating in enumerate(ratings):
        if rating.HasField("external_id"):
            external_id, field = rating.external_id, f"ratings[{place}].external_id"
            if rating.movie_id:
                raise InvalidRequest(f"{field}: goes not with movie_id", field=field)
            found = movies.find(external_id, field)
            if found is None:
                found = unknown.get(external_id)
            if found is None:
                found = unknown[external_id] = next(unused)
            if found in before:
                raise InvalidRequest(f"{field}: movie {shown(external_id)} is rated twice", field=field)
            given[place] = found
        before.add(given[place])
    return np.array(given, dtype=np.int64)
