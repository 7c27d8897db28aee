from __future__ import annotations

import numpy as np
import pytest

from builders import rank, search_allowed, unit_rows
from retrieval_svc.index import ExactIndex, Hits

# Two rows to the right, two up, one between, one to the left.
ROWS = np.array([[1, 0], [0, 1], [0.6, 0.8], [1, 0], [-1, 0], [0, 1]], dtype=np.float32)
INDEX = ExactIndex(ROWS)
RIGHT = np.array([1, 0], dtype=np.float32)


def mask(*rows: int) -> np.ndarray:
    allowed = np.zeros(len(ROWS), dtype=np.bool_)
    allowed[list(rows)] = True
    return allowed


def pairs(hits: Hits) -> list[tuple[int, float]]:
    return list(zip(hits.rows.tolist(), hits.scores.tolist(), strict=True))


def test_best_first_and_equal_scores_by_row() -> None:
    (hits,) = INDEX.search(RIGHT[None], 6)
    assert hits.rows.tolist() == [0, 3, 2, 1, 5, 4]
    assert hits.scores.tolist() == pytest.approx([1, 1, 0.6, 0, 0, -1])
    assert hits.rows.dtype == np.int64
    assert hits.scores.dtype == np.float32


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_fewer_are_the_first_of_more(k: int) -> None:
    (all_hits,) = INDEX.search(RIGHT[None], 6)
    (hits,) = INDEX.search(RIGHT[None], k)
    assert pairs(hits) == pairs(all_hits)[:k]


@pytest.mark.parametrize("k", [6, 7, 100])
def test_all_where_there_are_fewer_than_asked_for(k: int) -> None:
    (hits,) = INDEX.search(RIGHT[None], k)
    assert sorted(hits.rows.tolist()) == list(range(len(INDEX)))
    assert sorted(search_allowed(INDEX, RIGHT, k, mask(1, 2)).rows.tolist()) == [1, 2]


def test_only_what_is_allowed_is_found() -> None:
    hits = search_allowed(INDEX, RIGHT, 3, mask(1, 3, 4, 5))
    assert hits.rows.tolist() == [3, 1, 5]


def test_nothing_allowed_is_nothing_found() -> None:
    hits = search_allowed(INDEX, RIGHT, 3, mask())
    assert pairs(hits) == []
    assert hits.rows.dtype == np.int64
    assert hits.scores.dtype == np.float32


def test_everything_allowed_is_no_condition() -> None:
    (hits,) = INDEX.search(RIGHT[None], 4)
    assert pairs(search_allowed(INDEX, RIGHT, 4, mask(*range(6)))) == pairs(hits)


def test_each_query_has_its_own_answer() -> None:
    hits = INDEX.search(np.stack([RIGHT, -RIGHT]), 1)
    assert [found.rows.tolist() for found in hits] == [[0], [4]]


def test_a_crowd_on_one_point_comes_by_row() -> None:
    generator = np.random.default_rng(3)
    rows = unit_rows(generator, 3000, 32)
    crowd = np.sort(generator.choice(3000, 2000, replace=False))
    rows[crowd] = rows[crowd[0]]
    index = ExactIndex(rows)
    (hits,) = index.search(rows[crowd[:1]], 10)
    assert hits.rows.tolist() == crowd[:10].tolist()
    allowed = np.ones(3000, dtype=np.bool_)
    allowed[crowd[:5]] = False
    hits = search_allowed(index, rows[crowd[0]], 10, allowed)
    assert hits.rows.tolist() == crowd[5:15].tolist()


def test_scores_that_differ_in_the_last_digit_keep_their_order() -> None:
    near = np.nextafter(np.float32(0.6), np.float32(1), dtype=np.float32)
    rows = np.array([[0.6, 0.8], [near, 0.8], [0.6, 0.8], [near, 0.8]], dtype=np.float32)
    (hits,) = ExactIndex(rows).search(RIGHT[None], 3)
    assert hits.rows.tolist() == [1, 3, 0]
    assert pairs(hits) == rank(rows, RIGHT, range(4))[:3]
