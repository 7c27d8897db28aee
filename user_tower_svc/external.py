"""Users and movies that a request names by what the data call them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Final

import numpy as np

from twotower.arrays import Ints
from twotower.errors import InvalidRequest, shown
from twotower.external import Names, named_twice

_LARGEST: Final = 2**63 - 1


def movie_ids_of(movie_ids: Sequence[int], external_ids: Sequence[str | None], movies: Names) -> Ints:
    """The movies of n ratings, int64 (n,); one not in the data gets a number that no movie has.

    movie_ids: of each, 0 where `external_ids` has another name than None. Raises InvalidRequest naming
    the first rating of which the movie is named twice, or was before.
    """
    given = list(movie_ids)
    first = next((place for place, name in enumerate(external_ids) if name is not None), None)
    if first is None:
        return np.array(given, dtype=np.int64)
    id_of = movies.check(_field(first))
    taken = set(given)
    unused = (n for n in count(_LARGEST, -1) if n not in taken and not movies.has(n))
    unknown: dict[str, int] = {}
    before: set[int] = set()
    for place, external_id in enumerate(external_ids):
        if external_id is not None:
            if given[place]:
                raise named_twice(_field(place), external_id, "movie_id")
            found = id_of.get(external_id, unknown.get(external_id))
            if found is None:
                found = unknown[external_id] = next(unused)
            if found in before:
                raise InvalidRequest(
                    f"{_field(place)}: movie {shown(external_id)} is rated twice", field=_field(place)
                )
            given[place] = found
        before.add(given[place])
    return np.array(given, dtype=np.int64)


def _field(place: int) -> str:
    return f"ratings[{place}].external_id"
