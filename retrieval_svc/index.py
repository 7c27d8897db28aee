"""Exact search by inner product on FAISS, with repeatable order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt

from twotower.arrays import Embeddings
from twotower.errors import OperationError

Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_ROUNDING: Final = 1e-5
"""More than any difference between sums in single precision and ours, for vectors of unit norm."""
_SPARE: Final = 8
"""Candidates beside those asked for: rarely are more level with the last of these."""
_BLOCK: Final = 32
_MOST_SCORES: Final = 2**20
"""In memory at once: 4 MB."""

# Two threads made a search 20 times slower on a busy machine; the service has threads of its own.
faiss.omp_set_num_threads(1)
# From so many queries on, it multiplies matrices, which takes a fraction of the time.
faiss.cvar.distance_compute_blas_threshold = 8


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


class Hidden(NamedTuple):
    """What not to find.

    queries, rows: int64 (m,), queries ascending: the row is hidden from the query of that number.
    allowed: by the number of a query, bool (rows,): all else is hidden from it.
    """

    queries: Rows
    rows: Rows
    allowed: Mapping[int, Mask]


class ExactIndex:
    """The rows nearest to a query, exactly: score descending, equal scores by ascending row.

    Some candidates more than asked for are found by single precision, by FAISS or, where rows are
    hidden, among all scores at once. Their scores are then summed anew in double precision and rounded,
    so that neither the batch a query goes in nor the order of summation shows in the answer.
    """

    def __init__(self, embeddings: Embeddings) -> None:
        """`embeddings`: float32 (rows, dim) of unit norm."""
        self._embeddings = embeddings
        self._index = faiss.IndexFlatIP(embeddings.shape[1])
        self._index.add(embeddings)

    def __len__(self) -> int:
        return len(self._embeddings)

    def search(self, queries: Embeddings, k: int, hidden: Hidden | None = None) -> list[Hits]:
        """The k best rows for each of n queries (n, dim); fewer where no more may be found."""
        if hidden is None:
            scores, rows = self._index.search(queries, min(k + _SPARE, len(self)))
            return self._settle(queries, k, rows, scores, lambda query: self._scores(queries, query))
        found: list[Hits] = []
        at_once = max(_MOST_SCORES // len(self), 1)
        for start in range(0, len(queries), at_once):
            found += self._search_shown(queries[start : start + at_once], k, _of(hidden, start, at_once))
        return found

    def _search_shown(self, queries: Embeddings, k: int, hidden: Hidden) -> list[Hits]:
        scores = self._scores(queries, slice(None))
        scores[hidden.queries, hidden.rows] = -np.inf
        for query, allowed in hidden.allowed.items():
            scores[query, ~allowed] = -np.inf
        rows = _best(scores, min(k + _SPARE, len(self)))
        best = np.take_along_axis(scores, rows, axis=1)
        return self._settle(queries, k, rows, best, lambda query: scores[query])

    def _scores(self, queries: Embeddings, some: int | slice) -> Scores:
        scores: Scores = queries[some] @ self._embeddings.T
        return scores

    def _settle(
        self,
        queries: Embeddings,
        k: int,
        rows: Rows,
        scores: Scores,
        all_scores: Callable[[int], Scores],
    ) -> list[Hits]:
        """The best of the candidates (n, m), taking in all that are level with the k-th."""
        rows, exact = self._order(queries, rows, scores)
        kept = np.isfinite(exact[:, :k]).sum(axis=1)
        last = np.minimum(kept, k) - 1
        level = exact[np.arange(len(exact)), last] <= scores.min(axis=1) + _ROUNDING
        found = []
        for query, count in enumerate(kept.tolist()):
            if count and level[query] and rows.shape[1] < len(self):
                found.append(
                    self._settle_level(queries[query], k, all_scores(query), exact[query, last[query]])
                )
            else:
                found.append(Hits(rows[query, :count], exact[query, :count]))
        return found

    def _settle_level(self, query: Embeddings, k: int, scores: Scores, least: np.float32) -> Hits:
        rows = np.flatnonzero(scores >= least - 2 * _ROUNDING)
        ordered, exact = self._order(query[None], rows[None], scores[rows][None])
        return Hits(ordered[0, :k], exact[0, :k])

    def _order(self, queries: Embeddings, rows: Rows, scores: Scores) -> tuple[Rows, Scores]:
        """The candidates (n, m) by their scores summed anew; those of minus infinity keep that."""
        exact = np.einsum(
            "nmd,nd->nm", self._embeddings[rows].astype(np.float64), queries.astype(np.float64)
        ).astype(np.float32)
        exact[np.isneginf(scores)] = -np.inf
        order = np.lexsort((rows, -exact), axis=1)
        return np.take_along_axis(rows, order, axis=1), np.take_along_axis(exact, order, axis=1)


def _best(scores: Scores, count: int) -> Rows:
    """The rows of the `count` best of each query's scores (n, rows), in no order.

    They lie in the blocks with the best maxima, and maxima are found many at a time.
    """
    blocks = scores.shape[1] // _BLOCK
    if blocks <= count:
        return np.argpartition(scores, scores.shape[1] - count, axis=1)[:, scores.shape[1] - count :]
    maxima = scores[:, : blocks * _BLOCK].reshape(len(scores), _BLOCK, blocks).max(axis=1)
    best = np.argpartition(maxima, blocks - count, axis=1)[:, blocks - count :]
    members = best[:, None, :] + (np.arange(_BLOCK) * blocks)[None, :, None]
    left_over = np.broadcast_to(
        np.arange(blocks * _BLOCK, scores.shape[1]), (len(scores), scores.shape[1] % _BLOCK)
    )
    rows = np.concatenate([members.reshape(len(scores), -1), left_over], axis=1)
    their = np.take_along_axis(scores, rows, axis=1)
    chosen = np.argpartition(their, rows.shape[1] - count, axis=1)[:, rows.shape[1] - count :]
    return np.take_along_axis(rows, chosen, axis=1)


def _of(hidden: Hidden, start: int, count: int) -> Hidden:
    """What is hidden from some of the queries, numbered anew; `queries` ascend."""
    first, last = np.searchsorted(hidden.queries, [start, start + count])
    allowed = {
        query - start: mask for query, mask in hidden.allowed.items() if 0 <= query - start < count
    }
    return Hidden(hidden.queries[first:last] - start, hidden.rows[first:last], allowed)
