"""Exact search by inner product on FAISS, with repeatable order."""

from __future__ import annotations

from typing import Final, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt

from twotower.arrays import Embeddings
from twotower.errors import OperationError

Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

# More than any difference between FAISS's float32 sums and ours, for vectors of unit norm.
_ROUNDING: Final = 1e-5

# Two threads made a search 20 times slower on a busy machine; the service has threads of its own.
faiss.omp_set_num_threads(1)


def check_search() -> str:
    """FAISS's version and instruction set, once it has found what brute force finds.

    Raises OperationError where it has not.
    """
    random = np.random.default_rng(0)
    rows = random.normal(size=(1_000, 32)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    (found,) = ExactIndex(rows).search(rows[:1], 10)
    if found.rows.tolist() != np.argsort(-(rows @ rows[0]))[:10].tolist():
        raise OperationError("a search does not find what brute force finds")
    options = faiss.get_compile_options().split()
    return f"{faiss.__version__} ({' '.join(options)}), finds what brute force finds"


class Hits(NamedTuple):
    """What a search found, best first: rows (n,), and their scores (n,)."""

    rows: Rows
    scores: Scores


class ExactIndex:
    """The rows nearest to a query, exactly: score descending, equal scores by ascending row.

    FAISS finds the candidates; their scores are then summed anew in float64 and rounded to float32,
    so that neither the batch a query goes in nor FAISS's order of summation shows in the answer.
    """

    def __init__(self, embeddings: Embeddings) -> None:
        """`embeddings`: float32 (rows, dim) of unit norm."""
        self._embeddings = embeddings
        self._index = faiss.IndexFlatIP(embeddings.shape[1])
        self._index.add(embeddings)

    def __len__(self) -> int:
        return len(self._embeddings)

    def search(self, queries: Embeddings, k: int) -> list[Hits]:
        """The k best rows for each of n queries (n, dim); all rows where there are fewer."""
        candidates = min(k + 1, len(self))
        scores, rows = self._index.search(queries, candidates)
        return [
            self._settle(query, k, row, score, allowed=None)
            for query, row, score in zip(queries, rows, scores, strict=True)
        ]

    def search_allowed(self, query: Embeddings, k: int, allowed: Mask) -> Hits:
        """The k best of the rows allowed, bool (rows,), for one query (dim,); all where fewer."""
        candidates = min(k + 1, int(allowed.sum()))
        if candidates == 0:
            return Hits(np.empty(0, np.int64), np.empty(0, np.float32))
        scores, rows = self._search_selected(query, candidates, allowed)
        return self._settle(query, k, rows, scores, allowed)

    def _search_selected(self, query: Embeddings, k: int, allowed: Mask) -> tuple[Scores, Rows]:
        bits = np.packbits(allowed, bitorder="little")
        selector = faiss.IDSelectorBitmap(bits)  # type: ignore[call-arg, arg-type]
        allowed_only = faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
        scores, rows = self._index.search(query[None], k, params=allowed_only)
        return scores[0], rows[0]

    def _settle(
        self, query: Embeddings, k: int, rows: Rows, scores: Scores, allowed: Mask | None
    ) -> Hits:
        """Order the candidates, taking in all that are level with the k-th."""
        if len(rows) > k and scores[k - 1] - scores[-1] <= _ROUNDING:
            everything = self._embeddings @ query
            level = everything >= scores[k - 1] - _ROUNDING
            rows = np.flatnonzero(level if allowed is None else level & allowed)
        exact = (self._embeddings[rows].astype(np.float64) * query).sum(axis=1).astype(np.float32)
        order = np.lexsort((rows, -exact))[:k]
        return Hits(rows[order], exact[order])
