from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from builders import LAW, rank, unit_rows
from retrieval_svc.approximate import ApproximateIndex
from retrieval_svc.index import ExactIndex, Hits, Search
from twotower.arrays import Embeddings
from twotower.partition import Partition


@dataclass(frozen=True)
class World:
    """Rows, of which some lie on the same points, and searches, of which some begin on a row."""

    rows: Embeddings
    searches: list[Search]
    seed: int

    def allowed(self, search: Search) -> list[int]:
        """The rows that a search may find."""
        allowed = np.ones(len(self.rows), np.bool_) if search.passing is None else search.passing.copy()
        allowed[search.excluded] = False
        return np.flatnonzero(allowed).tolist()

    def best(self, search: Search, among: list[int]) -> list[tuple[int, float]]:
        """What a search must find among these rows."""
        return rank(self.rows, search.vector, among)[: search.k]

    def partition(self) -> Partition:
        """Cells around some of the rows, no two of them on one point."""
        generator = np.random.default_rng(self.seed)
        points = np.unique(self.rows, axis=0)
        centroids = points[generator.permutation(len(points))[: generator.integers(1, 20)]]
        cells = (self.rows @ centroids.T).argmax(axis=1).astype(np.int32)
        return Partition(centroids, cells, int(generator.integers(1, len(centroids) + 1)))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    seed = draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    size, dim = draw(st.sampled_from([1, 7, 150, 900, 3000])), draw(st.sampled_from([2, 7, 8, 32]))
    points = unit_rows(generator, draw(st.sampled_from([1, size // 2 + 1, size])), dim)
    rows = points[generator.integers(len(points), size=size)]
    vectors = unit_rows(generator, draw(st.integers(1, 20)), dim)
    if draw(st.booleans()):
        vectors[0] = rows[-1]
    density = st.sampled_from([0, 0.02, 0.3, 0.9, 1])
    return World(
        rows,
        [
            Search(
                vector,
                draw(st.sampled_from([1, 3, 10, 100, 200])),
                generator.integers(size, size=draw(st.sampled_from([0, 1, 50, 600]))),
                generator.random(size) < draw(density) if draw(st.booleans()) else None,
            )
            for vector in vectors
        ],
        seed,
    )


def pairs(hits: Hits) -> list[tuple[int, float]]:
    return list(zip(hits.rows.tolist(), hits.scores.tolist(), strict=True))


@LAW
@given(worlds())
def test_an_exact_search_is_ranking_every_row_allowed(world: World) -> None:
    found = ExactIndex(world.rows).search(world.searches)
    for search, hits in zip(world.searches, found, strict=True):
        assert pairs(hits) == world.best(search, world.allowed(search))


@LAW
@given(worlds())
def test_an_approximate_search_finds_k_allowed_or_all_and_scores_them_exactly(world: World) -> None:
    found = ApproximateIndex(world.rows, world.partition()).search(world.searches)
    for search, hits in zip(world.searches, found, strict=True):
        allowed = world.allowed(search)
        assert len(hits.rows) == min(search.k, len(allowed))
        assert set(hits.rows.tolist()) <= set(allowed)
        assert pairs(hits) == world.best(search, hits.rows.tolist())


@LAW
@given(worlds())
def test_an_approximate_search_of_all_cells_is_exact(world: World) -> None:
    partition = world.partition()
    everywhere = replace(partition, probes=len(partition.centroids))
    found = ApproximateIndex(world.rows, everywhere).search(world.searches)
    for search, hits in zip(world.searches, found, strict=True):
        assert pairs(hits) == world.best(search, world.allowed(search))


@LAW
@given(worlds(), st.booleans())
def test_a_batch_finds_what_its_queries_find_alone(world: World, approximate: bool) -> None:  # noqa: FBT001
    index = ApproximateIndex(world.rows, world.partition()) if approximate else ExactIndex(world.rows)
    for search, hits in zip(world.searches, index.search(world.searches), strict=True):
        (alone,) = index.search([search])
        assert pairs(alone) == pairs(hits)
