from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import training.partition
from builders import forge, make_bundle, rank, unit_rows, write
from retrieval_svc.approximate import ApproximateIndex
from retrieval_svc.index import Search
from retrieval_svc.retriever import Query, Retriever
from training.partition import divide
from twotower.arrays import Embeddings, Ints
from twotower.bundle import read_bundle
from twotower.errors import BundleError
from twotower.histories import Histories
from twotower.partition import Partition

BUNDLE = make_bundle()
HALVES = Partition(
    np.eye(1, 8, dtype=np.float32) * np.array([[1], [-1]], np.float32),
    (BUNDLE.item_embeddings[:, 0] < 0).astype(np.int32),
    probes=2,
)
DIVIDED = replace(BUNDLE, partition=HALVES)


def clustered(movies: int, users: int) -> tuple[Embeddings, Embeddings, Histories]:
    """Movies around a hundred points, users near movies, and ten movies that each user has rated."""
    generator = np.random.default_rng(2)
    points = unit_rows(generator, 100)
    rows = points[generator.integers(100, size=movies + users)]
    rows = rows + 0.2 * unit_rows(generator, movies + users)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rated = np.concatenate([generator.choice(movies, 10, replace=False) for _ in range(users)])
    histories = Histories.in_order(np.arange(users + 1) * 10, rated, np.ones(len(rated)))
    return rows[:movies], rows[movies:], histories


MOVIES, USERS, RATED = clustered(5000, 200)


def rated_by(user: int) -> Ints:
    return RATED.movie_rows[RATED.offsets[user] : RATED.offsets[user + 1]]


def test_few_movies_are_not_divided() -> None:
    assert divide(MOVIES, USERS.__getitem__, RATED) is None


def test_movies_lie_in_the_cell_whose_centroid_is_nearest() -> None:
    partition = divide(MOVIES, USERS.__getitem__, RATED, least_movies=5000)
    assert partition is not None
    partition.check(5000, 8)
    np.testing.assert_allclose(np.linalg.norm(partition.centroids, axis=1), 1, rtol=1e-5)
    scores = MOVIES @ partition.centroids.T
    np.testing.assert_allclose(scores[np.arange(5000), partition.cells], scores.max(axis=1), rtol=1e-5)


def test_among_many_cells_a_movie_is_in_nearly_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.partition, "_MANY_CELLS", 200)
    partition = divide(MOVIES, USERS.__getitem__, RATED, least_movies=5000)
    assert partition is not None
    assert len(partition.centroids) >= 200
    scores = MOVIES @ partition.centroids.T
    own, best = scores[np.arange(5000), partition.cells], scores.max(axis=1)
    assert (own == best).mean() > 0.95
    assert (best - own).mean() < 0.002


def test_of_numbers_of_cells_that_is_taken_by_which_least_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def cost(partition: Partition | None) -> float:
        assert partition is not None
        sizes = np.bincount(partition.cells, minlength=len(partition.centroids))
        looked_at = [sizes[cells].sum() for cells in partition.nearest(USERS, partition.probes)]
        return len(sizes) + 4 * float(np.mean(looked_at))

    chosen = cost(divide(MOVIES, USERS.__getitem__, RATED, least_movies=5000))
    others = []
    for by_root in (4, 8, 16):
        monkeypatch.setattr(training.partition, "_CELLS_BY_ROOT", (by_root,))
        others.append(cost(divide(MOVIES, USERS.__getitem__, RATED, least_movies=5000)))
    assert chosen == min(others) < max(others)


def test_users_find_almost_all_of_their_top_movies_that_they_have_not_rated() -> None:
    partition = divide(MOVIES, USERS.__getitem__, RATED, least_movies=5000)
    assert partition is not None
    index = ApproximateIndex(MOVIES, partition)
    found = index.search([Search(user, 10, rated_by(row)) for row, user in enumerate(USERS)])
    shares = []
    for row, (user, hits) in enumerate(zip(USERS, found, strict=True)):
        others = np.setdiff1d(np.arange(5000), rated_by(row)).tolist()
        best = {movie for movie, _ in rank(MOVIES, user, others)[:10]}
        shares.append(len(best & set(hits.rows.tolist())) / 10)
    assert 0.99 <= np.mean(shares) < 1


@pytest.mark.parametrize("rated", [0, 10, 150, 160, 700, 2500, 4500, 4985, 5000])
def test_what_is_found_is_the_best_of_the_movies_near(rated: int) -> None:
    partition = divide(MOVIES, USERS.__getitem__, RATED, least_movies=5000)
    assert partition is not None
    excluded = np.random.default_rng(rated).permutation(5000)[:rated]
    found = ApproximateIndex(MOVIES, partition).search(
        [Search(user, 10, excluded) for user in USERS[:50]]
    )
    allowed = np.setdiff1d(np.arange(5000), excluded)
    for user, hits in zip(USERS[:50], found, strict=True):
        near = allowed[partition.near(user, len(allowed))[allowed]]
        best = rank(MOVIES, user, (near if len(near) >= 10 else allowed).tolist())[:10]
        assert list(zip(hits.rows.tolist(), hits.scores.tolist(), strict=True)) == best


def test_the_same_movies_are_divided_alike() -> None:
    one, other = (divide(MOVIES, USERS.__getitem__, RATED, least_movies=5000) for _ in range(2))
    assert one is not None
    assert other is not None
    assert one.write() == other.write()


def test_what_would_look_through_too_much_is_not_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.partition, "_WORTH", 1000)
    assert divide(MOVIES, USERS.__getitem__, RATED, least_movies=5000) is None


def test_a_filter_has_more_cells_looked_through() -> None:
    partition = Partition(np.eye(48, dtype=np.float32), np.zeros(1000, np.int32), probes=6)
    probes = {movies: partition.probes_among(movies) for movies in (1000, 969, 968, 900, 500, 3, 0)}
    assert probes == {1000: 6, 969: 6, 968: 7, 900: 7, 500: 12, 3: 48, 0: 48}


def test_a_divided_bundle_is_read_as_written_and_answers(tmp_path: Path) -> None:
    version = write(tmp_path, DIVIDED)
    assert version != write(tmp_path, BUNDLE)
    manifest, again = read_bundle(tmp_path, version)
    assert again.serialise() == DIVIDED.serialise()
    retriever = Retriever(manifest, again)
    retriever.replay()
    user = unit_rows(np.random.default_rng(5), 1)[0]
    (found,) = retriever.retrieve([Query(user, user, 12)])
    assert found.hits.rows.tolist() == [row for row, _ in rank(BUNDLE.item_embeddings, user, range(12))]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (HALVES.write()[:-30], "partition.npz: "),
        (b"", "partition.npz: "),
        (replace(HALVES, centroids=HALVES.centroids[:, :7]).write(), "finite numbers in 8 dimensions"),
        (replace(HALVES, centroids=HALVES.centroids * np.float32(np.nan)).write(), "finite numbers"),
        (replace(HALVES, centroids=HALVES.centroids[0]).write(), "centroids is not float32 in 2 dim"),
        (replace(HALVES, centroids=HALVES.centroids * np.float32(20)).write(), "not of unit norm"),
        (replace(HALVES, cells=HALVES.cells[:-1]).write(), "has shape (11,), movies.csv has 12 movies"),
        (replace(HALVES, cells=HALVES.cells + 1).write(), "a movie lies in none of the 2 cells"),
        (replace(HALVES, cells=HALVES.cells - 1).write(), "a movie lies in none of the 2 cells"),
        (replace(HALVES, cells=HALVES.cells.astype(np.int64)).write(), "cells is not int32"),
        (replace(HALVES, probes=0).write(), "probes is 0, allowed are 1 to 2"),
        (replace(HALVES, probes=3).write(), "probes is 3, allowed are 1 to 2"),
        (BUNDLE.histories.write(), "partition.npz: "),
    ],
)
def test_a_partition_of_other_movies_is_refused(tmp_path: Path, content: bytes, fault: str) -> None:
    version = forge(tmp_path, write(tmp_path, DIVIDED), {"partition.npz": content})
    with pytest.raises(BundleError) as caught:
        read_bundle(tmp_path, version)
    assert fault in str(caught.value)
    assert "partition.npz: " in str(caught.value)
