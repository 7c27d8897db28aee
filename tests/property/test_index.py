from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import LAW, rank, search_allowed, unit_rows
from retrieval_svc.index import ExactIndex, Hidden, Hits, Mask
from twotower.arrays import Embeddings


@dataclass(frozen=True)
class Search:
    """Rows, of which some lie on the same points, and queries, of which some lie on rows."""

    rows: Embeddings
    queries: Embeddings
    k: int
    seed: int


@st.composite
def searches(draw: st.DrawFn) -> Search:
    seed = draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    size, dim = draw(st.integers(1, 150)), draw(st.sampled_from([2, 7, 8, 32]))
    points = unit_rows(generator, draw(st.integers(1, size)), dim)
    rows = points[generator.integers(len(points), size=size)]
    queries = unit_rows(generator, draw(st.integers(1, 5)), dim)
    if draw(st.booleans()):
        queries[0] = rows[-1]
    return Search(rows, queries, draw(st.integers(1, 200)), seed)


def pairs(hits: Hits) -> list[tuple[int, float]]:
    return list(zip(hits.rows.tolist(), hits.scores.tolist(), strict=True))


def hidden_by(excluded: Mask, allowed: dict[int, Mask]) -> Hidden:
    queries, rows = np.nonzero(excluded)
    return Hidden(queries, rows, allowed)


@LAW
@given(searches())
def test_search_is_ranking_every_row(search: Search) -> None:
    found = ExactIndex(search.rows).search(search.queries, search.k)
    for query, hits in zip(search.queries, found, strict=True):
        assert pairs(hits) == rank(search.rows, query, range(len(search.rows)))[: search.k]


@LAW
@given(searches(), st.sampled_from([0, 0.02, 0.3, 0.9, 1]))
def test_search_allowed_is_ranking_every_row_allowed(search: Search, density: float) -> None:
    allowed = np.random.default_rng(search.seed + 1).random(len(search.rows)) < density
    index = ExactIndex(search.rows)
    for query in search.queries:
        expected = rank(search.rows, query, np.flatnonzero(allowed).tolist())[: search.k]
        assert pairs(search_allowed(index, query, search.k, allowed)) == expected


@LAW
@given(searches())
def test_a_batch_finds_what_its_queries_find_alone(search: Search) -> None:
    index = ExactIndex(search.rows)
    everything = np.ones(len(search.rows), dtype=np.bool_)
    together = index.search(search.queries, search.k)
    for query, hits in zip(search.queries, together, strict=True):
        (alone,) = index.search(query[None], search.k)
        assert pairs(alone) == pairs(hits) == pairs(search_allowed(index, query, search.k, everything))


@LAW
@given(searches(), st.floats(0, 1), st.data())
def test_each_query_of_a_batch_is_spared_what_is_hidden_from_it(
    search: Search, share: float, data: st.DataObject
) -> None:
    generator = np.random.default_rng(search.seed + 2)
    size, count = len(search.rows), len(search.queries)
    excluded = generator.random((count, size)) < share
    masked = data.draw(st.sets(st.integers(0, count - 1)))
    allowed = {query: generator.random(size) < 0.5 for query in masked}
    found = ExactIndex(search.rows).search(search.queries, search.k, hidden_by(excluded, allowed))
    for number, (query, hits) in enumerate(zip(search.queries, found, strict=True)):
        shown = ~excluded[number] & allowed.get(number, True)
        expected = rank(search.rows, query, np.flatnonzero(shown).tolist())[: search.k]
        assert pairs(hits) == expected


def test_a_batch_too_large_for_one_step_is_answered_in_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = np.random.default_rng(5)
    rows, queries = unit_rows(generator, 2_000, 8), unit_rows(generator, 9, 8)
    hidden = hidden_by(generator.random((9, 2_000)) < 0.1, {4: generator.random(2_000) < 0.01})
    index = ExactIndex(rows)
    together = index.search(queries, 12, hidden)
    monkeypatch.setattr("retrieval_svc.index._MOST_SCORES", 4_000)
    for whole, part in zip(together, index.search(queries, 12, hidden), strict=True):
        assert pairs(whole) == pairs(part)
