"""Movies' vectors: those learned as they are, the others where their content and their raters say."""

from __future__ import annotations

import numpy as np
import pytest

from training.config import load_recipe
from training.content import MovieContent
from training.interactions import Interactions
from training.placement import PlacedMovies, place_movies, sum_evidence
from twotower.arrays import Embeddings, FeatureRows, Floats, Ints

MOVIES, KNOWN, DIM, GENRES, USERS = 300, 250, 7, 4, 30
RANDOM = np.random.default_rng(0)
CONTENT = MovieContent(
    tuple("abcd"),
    np.eye(GENRES, dtype=np.bool_)[RANDOM.integers(0, GENRES, MOVIES)],
    RANDOM.integers(1950, 2010, MOVIES).astype(np.float64),
)
OF_GENRE = RANDOM.normal(size=(GENRES, DIM))
LEARNED: FeatureRows = (
    CONTENT.genres[:KNOWN] @ OF_GENRE + RANDOM.normal(scale=0.1, size=(KNOWN, DIM))
).astype(np.float32)
ORDER: Ints = RANDOM.permutation(KNOWN)


def _place(evidence: Floats) -> PlacedMovies:
    recipe = load_recipe("hybrid")
    assert recipe.hybrid
    return place_movies(
        LEARNED[ORDER],
        ORDER,
        CONTENT,
        evidence,
        towers=recipe.towers,
        config=recipe.hybrid.placement,
    )


@pytest.fixture(scope="module")
def vectors() -> Embeddings:
    placed = _place(np.zeros((MOVIES, DIM)))
    made: Embeddings = placed.tower(placed.rows).numpy()
    return made


def test_what_was_learned_comes_out_at_one_scale(vectors: Embeddings) -> None:
    scale = 0.98 / np.linalg.norm(LEARNED, axis=1).max()
    assert vectors[:KNOWN, :DIM] == pytest.approx(LEARNED * scale, abs=1e-5)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)


def test_an_unknown_movie_lies_where_its_genre_does(vectors: Embeddings) -> None:
    unknown = vectors[KNOWN:, :DIM]
    cosines = unknown @ OF_GENRE.T / np.linalg.norm(unknown, axis=1, keepdims=True)
    cosines /= np.linalg.norm(OF_GENRE, axis=1)
    right = CONTENT.genres[KNOWN:]
    assert cosines[right].min() > 0.9
    assert (cosines.argmax(axis=1) == right.argmax(axis=1)).all()


def test_unknown_movies_of_one_content_differ_by_their_raters() -> None:
    evidence = np.zeros((MOVIES, DIM))
    evidence[ORDER] = LEARNED[ORDER] - (CONTENT.genres[:KNOWN] @ OF_GENRE)[ORDER]
    evidence[KNOWN] = 0.5 * np.eye(DIM)[0]
    with_and_without = [
        _place(e) for e in (evidence, np.where(np.arange(MOVIES)[:, None] == KNOWN, 0, evidence))
    ]
    one, other = (placed.tower(placed.rows).numpy()[KNOWN, :DIM] for placed in with_and_without)
    moved = one - other
    assert moved.argmax() == 0
    assert moved[0] > 0.05


def test_evidence_is_how_raters_differ_from_the_average_user_and_grows_with_their_number() -> None:
    users = np.concatenate([np.eye(DIM), np.full((USERS - DIM, DIM), 9.0)]).astype(np.float32)
    rows = np.array([0, 1, 0, 0, 2])
    train = Interactions(rows, np.array([3, 3, 4, 5, 5]), np.full(5, 4.0), np.arange(5), USERS, MOVIES)
    values = np.array([1.0, 0.5, 1.0, 1.0, 1.0])
    evidence = sum_evidence(train, values, users, 2.0)
    centred = users[:DIM] - users[:3].mean(axis=0)  # strangers, who have rated nothing, do not count
    assert evidence[3] == pytest.approx((centred[0] + 0.5 * centred[1]) / 3.5)
    assert evidence[4] == pytest.approx(centred[0] / 3)
    assert evidence[5] == pytest.approx((centred[0] + centred[2]) / 4)
    assert not evidence[6:].any()
