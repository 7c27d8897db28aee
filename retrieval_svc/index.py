"""Search by inner product with repeatable order: exact, or among the cells nearest to the query.

    ExactIndex            ranks every row
    ApproximateIndex      ranks the rows of a few cells of a partition, found by FAISS

What either finds is scored anew in float64 and rounded to float32, so that neither the batch a query
goes in nor an order of summation shows in the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt

from twotower.arrays import Embeddings, Ints
from twotower.errors import OperationError
from twotower.kernels import Table
from twotower.partition import Partition

Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

NO_ROWS: Final = np.empty(0, np.int64)

# More than any difference between float32 sums and ours, for vectors of unit norm.
_ROUNDING: Final = 1e-5

_LOWEST: Final = -2.0
"""Below the score of any row that may be found."""

_PRODUCTS_AT_ONCE: Final = 2**19
"""How many products are held at once: memory for many more is had anew page by page."""

_MOST_FETCHED: Final = 512
"""Of what is fetched some is excluded; where more than that is to be, a bitmap leaves it out."""

_MORE_CELLS: Final = 8
"""So many more than are looked through are found, before it is settled exactly which are the nearest."""

# Two threads made a search 20 times slower on a busy machine; the service has threads of its own.
faiss.omp_set_num_threads(1)
# By default a few queries are compared with the centroids one by one, four times as slowly.
faiss.cvar.distance_compute_blas_threshold = 1


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
            rounding=_ROUNDING,
        )
        return [
            Hits(rows[place, :count], scores[place, :count])
            for place, count in enumerate(counts.tolist())
        ]


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
            return _search_rows(self._embeddings, search, np.flatnonzero(allowed))
        bits = np.packbits(allowed, bitorder="little")
        selector = faiss.IDSelectorBitmap(bits)  # type: ignore[call-arg, arg-type]
        among = [search._replace(excluded=NO_ROWS)]
        (hits,) = self._fetch(among, _fetch_size(search.k), probes, selector)
        return hits

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
        floors = _kth_best(scores, [search.k for search in searches]) - _ROUNDING
        settled = (floors > beyond) & (floors > _LOWEST)
        places, columns = np.nonzero(scores >= np.where(settled, floors, np.inf)[:, None])
        hits = _settle(self._embeddings, searches, vectors, places, rows[places, columns])
        return [each if sure else None for each, sure in zip(hits, settled, strict=True)]

    def _look_through(
        self, vectors: Embeddings, size: int, probes: int, selector: faiss.IDSelector | None
    ) -> tuple[Scores, Rows]:
        """The `size` best of the nearest cells, (n, size) each; row -1 where they have fewer."""
        cells = self._nearest_cells(vectors, probes)
        nearness = np.zeros(cells.shape, np.float32)  # of cells; these lists rank by their rows alone
        scores = np.empty((len(vectors), size), np.float32)
        rows = np.empty((len(vectors), size), np.int64)
        asked = len(vectors), faiss.swig_ptr(vectors), size
        arrays = [faiss.swig_ptr(array) for array in (cells, nearness, scores, rows)]
        parameters = faiss.SearchParametersIVF(sel=selector, nprobe=probes)  # type: ignore[call-arg]
        # FAISS's wrapper for Python takes no parameters.
        self._lists.search_preassigned_c(*asked, *arrays, False, parameters)  # type: ignore[attr-defined]
        return scores, rows

    def _nearest_cells(self, vectors: Embeddings, probes: int) -> Ints:
        """The cells to look through, (n, probes): the same for a vector alone as in any batch.

        A product of a whole batch rounds otherwise than of one vector, so what is nearest by it, and a
        few more, are compared exactly.
        """
        centroids = self._partition.centroids
        fetched = min(probes + _MORE_CELLS, len(centroids))
        _, found = self._lists.quantizer.search(vectors, fetched)
        near = np.empty(found.shape)
        step = max(1, _PRODUCTS_AT_ONCE // (fetched * centroids.shape[1]))
        for start in range(0, len(vectors), step):
            some = slice(start, start + step)
            near[some] = (centroids[found[some]].astype(np.float64) * vectors[some, None]).sum(axis=2)
        order = np.lexsort((found, -near), axis=1)
        cells: Ints = np.take_along_axis(found, order, axis=1)
        near = np.take_along_axis(near, order, axis=1)
        unsettled = near[:, probes - 1] - near[:, -1] < _ROUNDING
        if fetched < len(centroids):
            for place in np.flatnonzero(unsettled):
                cells[place] = self._partition.nearest(vectors[place], fetched)
        return np.ascontiguousarray(cells[:, :probes])

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
    return np.array(list(masks.values()), dtype=np.bool_).reshape(-1, count), of_search


def _kth_best(scores: Scores, ks: Sequence[int]) -> Scores:
    """The k-th best of each row of scores (n, width), where k <= width: (n,)."""
    ascending = np.sort(scores, axis=1)
    best: Scores = ascending[np.arange(len(scores)), scores.shape[1] - np.asarray(ks)]
    return best


def _search_rows(embeddings: Embeddings, search: Search, rows: Rows) -> Hits:
    """The hits of a search among these rows, ascending."""
    if search.k < len(rows):
        scores = embeddings[rows] @ search.vector
        rows = rows[scores >= _kth_best(scores[None], [search.k]) - _ROUNDING]
    (hits,) = _settle(embeddings, [search], search.vector[None], np.zeros(len(rows), np.int64), rows)
    return hits


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
