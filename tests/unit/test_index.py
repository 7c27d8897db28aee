from __future__ import annotations

import numpy as np
import pytest

from builders import rank, unit_rows
from retrieval_svc.approximate import ApproximateIndex, check_search
from retrieval_svc.index import ExactIndex, Hits, Search
from twotower.arrays import Embeddings
from twotower.partition import Partition

# Two rows to the right, two up, one between, one to the left.
ROWS = np.array([[1, 0], [0, 1], [0.6, 0.8], [1, 0], [-1, 0], [0, 1]], dtype=np.float32)
INDEX = ExactIndex(ROWS)
RIGHT = np.array([1, 0], dtype=np.float32)


def mask(*rows: int) -> np.ndarray:
    allowed = np.zeros(len(ROWS), dtype=np.bool_)
    allowed[list(rows)] = True
    return allowed


def find(index: ExactIndex | ApproximateIndex, search: Search) -> Hits:
    (hits,) = index.search([search])
    return hits


def pairs(hits: Hits) -> list[tuple[int, float]]:
    return list(zip(hits.rows.tolist(), hits.scores.tolist(), strict=True))


def test_best_first_and_equal_scores_by_row() -> None:
    hits = find(INDEX, Search(RIGHT, 6))
    assert hits.rows.tolist() == [0, 3, 2, 1, 5, 4]
    assert hits.scores.tolist() == pytest.approx([1, 1, 0.6, 0, 0, -1])
    assert hits.rows.dtype == np.int64
    assert hits.scores.dtype == np.float32


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_fewer_are_the_first_of_more(k: int) -> None:
    assert pairs(find(INDEX, Search(RIGHT, k))) == pairs(find(INDEX, Search(RIGHT, 6)))[:k]


@pytest.mark.parametrize("k", [6, 7, 100])
def test_all_where_there_are_fewer_than_asked_for(k: int) -> None:
    assert sorted(find(INDEX, Search(RIGHT, k)).rows.tolist()) == list(range(len(INDEX)))
    assert find(INDEX, Search(RIGHT, k, passing=mask(1, 2))).rows.tolist() == [2, 1]


def test_only_what_passes_is_found() -> None:
    assert find(INDEX, Search(RIGHT, 3, passing=mask(1, 3, 4, 5))).rows.tolist() == [3, 1, 5]


def test_what_is_excluded_is_not_found() -> None:
    excluded = np.array([3, 0, 3])
    assert find(INDEX, Search(RIGHT, 3, excluded)).rows.tolist() == [2, 1, 5]
    assert find(INDEX, Search(RIGHT, 3, excluded, mask(0, 1, 4))).rows.tolist() == [1, 4]


def test_nothing_allowed_is_nothing_found() -> None:
    hits = find(INDEX, Search(RIGHT, 3, passing=mask()))
    assert pairs(hits) == pairs(find(INDEX, Search(RIGHT, 3, np.arange(6)))) == []
    assert hits.rows.dtype == np.int64
    assert hits.scores.dtype == np.float32


def test_everything_allowed_is_no_condition() -> None:
    assert pairs(find(INDEX, Search(RIGHT, 4, passing=mask(*range(6))))) == pairs(
        find(INDEX, Search(RIGHT, 4))
    )


def test_each_query_has_its_own_answer() -> None:
    hits = INDEX.search([Search(RIGHT, 1), Search(-RIGHT, 2), Search(RIGHT, 1, np.array([0]))])
    assert [found.rows.tolist() for found in hits] == [[0], [4, 1], [3]]
    assert INDEX.search([]) == []


def crowded() -> tuple[Embeddings, np.ndarray]:
    """Rows of which many lie on one point, and which those are."""
    generator = np.random.default_rng(3)
    rows = unit_rows(generator, 3000, 32)
    crowd = np.sort(generator.choice(3000, 2000, replace=False))
    rows[crowd] = rows[crowd[0]]
    return rows, crowd


def halves(rows: Embeddings, probes: int = 1) -> Partition:
    """The rows by the sign of their first value."""
    centroids = np.eye(1, rows.shape[1], dtype=np.float32)
    return Partition(np.concatenate([centroids, -centroids]), (rows[:, 0] < 0).astype(np.int32), probes)


@pytest.mark.parametrize("approximate", [False, True])
def test_a_crowd_on_one_point_comes_by_row(approximate: bool) -> None:  # noqa: FBT001
    rows, crowd = crowded()
    index = ApproximateIndex(rows, halves(rows)) if approximate else ExactIndex(rows)
    vector = rows[crowd[0]]
    assert find(index, Search(vector, 10)).rows.tolist() == crowd[:10].tolist()
    for search in (
        Search(vector, 10, crowd[:5]),
        Search(vector, 10, passing=~np.isin(np.arange(3000), crowd[:5])),
    ):
        assert find(index, search).rows.tolist() == crowd[5:15].tolist()


def test_scores_that_differ_in_the_last_digit_keep_their_order() -> None:
    near = np.nextafter(np.float32(0.6), np.float32(1), dtype=np.float32)
    rows = np.array([[0.6, 0.8], [near, 0.8], [0.6, 0.8], [near, 0.8]], dtype=np.float32)
    hits = find(ExactIndex(rows), Search(RIGHT, 3))
    assert hits.rows.tolist() == [1, 3, 0]
    assert pairs(hits) == rank(rows, RIGHT, range(4))[:3]


def test_an_approximate_search_looks_through_the_cells_nearest() -> None:
    rows = unit_rows(np.random.default_rng(4), 400)
    up = np.flatnonzero(rows[:, 0] >= 0).tolist()
    vector = np.eye(1, 8, 1, dtype=np.float32)[0] + 0.1 * np.eye(1, 8, dtype=np.float32)[0]
    vector /= np.linalg.norm(vector)
    found = pairs(find(ApproximateIndex(rows, halves(rows)), Search(vector, 50)))
    assert found == rank(rows, vector, up)[:50]
    assert found != rank(rows, vector, range(400))[:50]
    assert (
        pairs(find(ApproximateIndex(rows, halves(rows, 2)), Search(vector, 50)))
        == rank(rows, vector, range(400))[:50]
    )


@pytest.mark.parametrize("probes", [1, 5, 20, 31])
def test_of_cells_as_near_the_first_are_looked_through(probes: int) -> None:
    generator = np.random.default_rng(6)
    rows = unit_rows(generator, 2000)
    centroids = unit_rows(generator, 40)
    centroids[5:30] = centroids[5]
    partition = Partition(centroids, generator.integers(40, size=2000).astype(np.int32), probes)
    index = ApproximateIndex(rows, partition)
    searches = [Search(vector, 10) for vector in (*unit_rows(generator, 30), centroids[5])]
    for search, together in zip(searches, index.search(searches), strict=True):
        near = np.flatnonzero(partition.near(search.vector, 2000)).tolist()
        assert pairs(together) == rank(rows, search.vector, near)[:10]
        assert pairs(find(index, search)) == pairs(together)


def test_what_the_cells_lack_is_sought_among_all_rows() -> None:
    rows = unit_rows(np.random.default_rng(5), 1000)
    index = ApproximateIndex(rows, halves(rows))
    near = np.flatnonzero(rows[:, 0] >= 0)
    vector = np.eye(1, 8, dtype=np.float32)[0]
    for excluded in (near[3:], near, np.arange(1000), near[::-1][:-100]):
        others = np.flatnonzero(~np.isin(np.arange(1000), excluded)).tolist()
        assert pairs(find(index, Search(vector, 20, excluded))) == rank(rows, vector, others)[:20]


def test_the_search_of_this_machine_is_sound() -> None:
    assert "finds what brute force finds" in check_search()
