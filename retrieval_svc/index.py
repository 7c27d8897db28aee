"""Search by inner product with repeatable order.

    ExactIndex            here: ranks every row
    ApproximateIndex      approximate.py: ranks the rows of a few cells of a partition, found by FAISS

What either finds is scored in float64 and rounded to float32, so that neither the batch a query goes in
nor an order of summation shows in the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from twotower.arrays import Embeddings, Ints
from twotower.loops import Table

Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

NO_ROWS: Final = np.empty(0, np.int64)


class Search(NamedTuple):
    """What to find: the k best rows for `vector`, float32 (dim,) of unit norm; all where fewer.

    excluded: rows never to find, in any order, some perhaps repeatedly. passing: which rows may be
    found, bool (rows,), or None for all.
    """

    vector: Embeddings
    k: int
    excluded: Rows = NO_ROWS
    passing: Mask | None = None


class Hits(NamedTuple):
    """What a search found, best first: rows (n,), and their scores (n,)."""

    rows: Rows
    scores: Scores


class Index(Protocol):
    """What searches the rows of a table."""

    def search(self, searches: Sequence[Search]) -> list[Hits]:
        """The hits of each search."""
        ...


class ExactIndex:
    """The rows nearest to a query, exactly: score descending, equal scores by ascending row."""

    def __init__(self, embeddings: Embeddings) -> None:
        """`embeddings`: float32 (rows, dim) of unit norm."""
        self._count = len(embeddings)
        self._table = Table(embeddings)

    def __len__(self) -> int:
        return self._count

    def search(self, searches: Sequence[Search]) -> list[Hits]:
        """The hits of each search."""
        if not searches:
            return []
        offsets, excluded = _excluded_in_order(searches)
        masks, mask_of = _masks(searches, self._count)
        rows, scores, counts = self._table.search(
            np.array([search.vector for search in searches]),
            ks=np.array([search.k for search in searches]),
            excluded_offsets=offsets,
            excluded=excluded,
            masks=masks,
            mask_of=mask_of,
        )
        return [
            Hits(rows[place, :count], scores[place, :count])
            for place, count in enumerate(counts.tolist())
        ]


def _excluded_in_order(searches: Sequence[Search]) -> tuple[Ints, Rows]:
    """What is excluded, each search's rows ascending: offsets (n + 1,), and the rows, (m,)."""
    counts = [len(search.excluded) for search in searches]
    rows = np.concatenate([search.excluded for search in searches])
    offsets = np.cumsum([0, *counts])
    places = np.repeat(np.arange(len(searches)), counts)
    descends = (rows[1:] < rows[:-1]) & (places[1:] == places[:-1])
    return offsets, rows[np.lexsort((rows, places))] if descends.any() else rows


def _masks(searches: Sequence[Search], count: int) -> tuple[Mask, Ints]:
    """The masks of searches that have one: bool (m, count), and which is whose (n,), -1 for none."""
    masks = {id(search.passing): search.passing for search in searches if search.passing is not None}
    numbers = {key: number for number, key in enumerate(masks)}
    of_search = np.array([numbers.get(id(search.passing), -1) for search in searches])
    return np.array(list(masks.values()), dtype=np.bool_).reshape(len(masks), count), of_search
