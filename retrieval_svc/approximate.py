"""Search among the cells nearest to the query, for catalogues too large to rank whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import faiss
import numpy as np

from retrieval_svc.index import NO_ROWS, ExactIndex, Hits, Rows, Scores, Search
from twotower.arrays import Embeddings, Ints
from twotower.errors import OperationError
from twotower.loops import ROUNDING
from twotower.partition import Partition

_LOWEST: Final = -2.0
"""Below the score of any row that may be found."""

_MOST_FETCHED: Final = 512
"""Of what is fetched some is excluded; where more than that is to be, a bitmap leaves it out."""

# Two threads made a search 20 times slower on a busy machine; the service has threads of its own.
faiss.omp_set_num_threads(1)


def check_search() -> str:
    """FAISS's version and instruction set, once both indexes have found what brute force finds.

    Raises OperationError where one has not.
    """
    random = np.random.default_rng(0)
    rows = random.normal(size=(1_000, 32)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    partition = Partition(rows[:10], (rows @ rows[:10].T).argmax(axis=1).astype(np.int32), probes=10)
    for index in (ExactIndex(rows), ApproximateIndex(rows, partition)):
        (found,) = index.search([Search(rows[0], 10)])
        if found.rows.tolist() != np.argsort(-(rows @ rows[0]))[:10].tolist():
            raise OperationError("a search does not find what brute force finds")
    options = faiss.get_compile_options().split()
    return f"{faiss.__version__} ({' '.join(options)}), finds what brute force finds"


class ApproximateIndex:
    """The rows nearest to a query among those of the partition's cells nearest to it.

    A filter that passes few rows has more cells looked through, and one that passes very few all of
    those rows. Where the cells have fewer than k rows, or rows level with the k-th may have been missed,
    the search is made among all rows: so k are found wherever there are k.
    """

    def __init__(self, embeddings: Embeddings, partition: Partition) -> None:
        """`embeddings`: float32 (rows, dim) of unit norm."""
        self._embeddings = embeddings
        self._partition = partition
        self._exact = ExactIndex(embeddings)
        self._lists = _inverted_lists(embeddings, partition)

    def __len__(self) -> int:
        return len(self._embeddings)

    def search(self, searches: Sequence[Search]) -> list[Hits]:
        """The hits of each search."""
        found: dict[int, Hits | None] = {}
        for size, places in self._by_size(searches).items():
            together = [searches[place] for place in places]
            if size:
                hits = self._fetch(together, size, self._partition.probes)
                found.update(zip(places, hits, strict=True))
            else:
                found.update(zip(places, map(self._search_allowed, together), strict=True))
        missed = [place for place, hits in found.items() if hits is None]
        exact = self._exact.search([searches[place] for place in missed])
        settled = {place: hits for place, hits in found.items() if hits is not None}
        settled.update(zip(missed, exact, strict=True))
        return [settled[place] for place in range(len(searches))]

    def _by_size(self, searches: Sequence[Search]) -> dict[int, list[int]]:
        """The places of the searches by how much each fetches, alone as in a batch; 0 for a bitmap."""
        by_size: dict[int, list[int]] = {}
        for place, search in enumerate(searches):
            size = _fetch_size(search.k + len(search.excluded))
            probes = self._partition.probes_among(len(self) - len(search.excluded))
            masked = search.passing is not None or size > _MOST_FETCHED
            masked = masked or probes != self._partition.probes
            by_size.setdefault(0 if masked else size, []).append(place)
        return by_size

    def _search_allowed(self, search: Search) -> Hits | None:
        allowed = np.ones(len(self), np.bool_) if search.passing is None else search.passing.copy()
        allowed[search.excluded] = False
        count = int(np.count_nonzero(allowed))
        probes = self._partition.probes_among(count)
        if probes == len(self._partition.centroids):
            return self._search_rows(search, np.flatnonzero(allowed))
        bits = np.packbits(allowed, bitorder="little")
        selector = faiss.IDSelectorBitmap(bits)  # type: ignore[call-arg, arg-type]
        among = [search._replace(excluded=NO_ROWS)]
        (hits,) = self._fetch(among, _fetch_size(search.k), probes, selector)
        return hits

    def _search_rows(self, search: Search, rows: Rows) -> Hits:
        """The hits among these rows, ascending."""
        (hits,) = ExactIndex(self._embeddings[rows]).search(
            [search._replace(excluded=NO_ROWS, passing=None)]
        )
        return Hits(rows[hits.rows], hits.scores)

    def _fetch(
        self,
        searches: Sequence[Search],
        size: int,
        probes: int,
        selector: faiss.IDSelector | None = None,
    ) -> list[Hits | None]:
        """The hits among the `size` best of the cells; None where these do not settle them."""
        vectors = np.array([search.vector for search in searches])
        scores, rows = self._look_through(vectors, size, probes, selector)
        beyond = np.where(rows[:, -1] < 0, -np.inf, scores[:, -1])
        if any(len(search.excluded) for search in searches):
            self._strike_excluded(searches, scores, rows)
        floors = _kth_best(scores, [search.k for search in searches]) - ROUNDING
        settled = (floors > beyond) & (floors > _LOWEST)
        places, columns = np.nonzero(scores >= np.where(settled, floors, np.inf)[:, None])
        hits = _settle(self._embeddings, searches, vectors, places, rows[places, columns])
        return [each if sure else None for each, sure in zip(hits, settled, strict=True)]

    def _look_through(
        self, vectors: Embeddings, size: int, probes: int, selector: faiss.IDSelector | None
    ) -> tuple[Scores, Rows]:
        """The `size` best of the nearest cells, (n, size) each; row -1 where they have fewer."""
        cells = self._partition.nearest(vectors, probes)
        nearness = np.zeros(cells.shape, np.float32)  # of cells; these lists rank by their rows alone
        scores = np.empty((len(vectors), size), np.float32)
        rows = np.empty((len(vectors), size), np.int64)
        asked = len(vectors), faiss.swig_ptr(vectors), size
        arrays = [faiss.swig_ptr(array) for array in (cells, nearness, scores, rows)]
        parameters = faiss.SearchParametersIVF(sel=selector, nprobe=probes)  # type: ignore[call-arg]
        # FAISS's wrapper for Python takes no parameters.
        self._lists.search_preassigned_c(*asked, *arrays, False, parameters)  # type: ignore[attr-defined]
        return scores, rows

    def _strike_excluded(self, searches: Sequence[Search], scores: Scores, rows: Rows) -> None:
        struck = np.zeros(len(self), np.bool_)
        for place, search in enumerate(searches):
            struck[search.excluded] = True
            scores[place, struck[rows[place]]] = -np.inf
            struck[search.excluded] = False


def _inverted_lists(embeddings: Embeddings, partition: Partition) -> faiss.IndexIVFFlat:
    rows, dim = embeddings.shape
    centroids = faiss.IndexFlatIP(dim)
    centroids.add(partition.centroids)
    lists = faiss.IndexIVFFlat(centroids, dim, len(partition.centroids), faiss.METRIC_INNER_PRODUCT)
    cells = partition.cells.astype(np.int64)
    lists.add_core(rows, faiss.swig_ptr(np.ascontiguousarray(embeddings)), None, faiss.swig_ptr(cells))
    return lists


def _fetch_size(least: int) -> int:
    """A power of two, one more than `least` at least: searches of about the same size go together."""
    return 1 << least.bit_length()


def _kth_best(scores: Scores, ks: Sequence[int]) -> Scores:
    """The k-th best of each row of scores (n, width), where k <= width: (n,)."""
    ascending = np.sort(scores, axis=1)
    best: Scores = ascending[np.arange(len(scores)), scores.shape[1] - np.asarray(ks)]
    return best


def _settle(
    embeddings: Embeddings,
    searches: Sequence[Search],
    vectors: Embeddings,
    places: Ints,
    rows: Rows,
) -> list[Hits]:
    """Order the candidates, pairs of a search's place and a row, by exact scores; k of each search."""
    exact = (embeddings[rows].astype(np.float64) * vectors[places]).sum(axis=1).astype(np.float32)
    order = np.lexsort((rows, -exact, places))
    rows, exact = rows[order], exact[order]
    ends = np.searchsorted(places[order], np.arange(1, len(searches) + 1)).tolist()
    starts = [0, *ends[:-1]]
    return [
        Hits(rows[start : min(end, start + search.k)], exact[start : min(end, start + search.k)])
        for search, start, end in zip(searches, starts, ends, strict=True)
    ]
