from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from builders import DIM, MOVIE_IDS, MOVIES, TWINS, make_bundle, rank, unit_rows, write
from retrieval_svc.catalogue import Filter
from retrieval_svc.retriever import MAX_EXCLUDED, Found, Query, Retriever, Scarcity
from twotower.bundle import Bundle, read_bundle
from twotower.errors import BundleError, InvalidRequest, MovieNotFound

BUNDLE = make_bundle()
ALL_IDS = tuple(MOVIE_IDS.tolist())
ACTION = Filter(genres_any=("Action",))
ACTION_IDS = [movie_id for movie_id, _, _, genres in MOVIES if "Action" in genres]
USER = unit_rows(np.random.default_rng(5), 1)[0]


@pytest.fixture(scope="module")
def retriever(tmp_path_factory: pytest.TempPathFactory) -> Retriever:
    root = tmp_path_factory.mktemp("bundles")
    return Retriever(*read_bundle(root, write(root, BUNDLE)))


def of(root: Path, bundle: Bundle) -> Retriever:
    manifest, _ = read_bundle(root, write(root, BUNDLE))
    return Retriever(manifest, bundle)


def query(k: int = 3, *, excluded: tuple[int, ...] = (), condition: Filter | None = None) -> Query:
    return Query(USER, USER, k, excluded, condition or Filter())


def found_ids(found: Found) -> list[int]:
    ids: list[int] = MOVIE_IDS[found.hits.rows].tolist()
    return ids


def best_ids(k: int, *, but: tuple[int, ...] = ()) -> list[int]:
    """The ids that a search for `USER` must find."""
    rows = np.flatnonzero(~np.isin(MOVIE_IDS, but)).tolist()
    return [int(MOVIE_IDS[row]) for row, _ in rank(BUNDLE.item_embeddings, USER, rows)[:k]]


@pytest.mark.parametrize("k", [1, 5, 12])
def test_the_best_movies_are_found(retriever: Retriever, k: int) -> None:
    (found,) = retriever.retrieve([query(k)])
    assert found_ids(found) == best_ids(k)
    assert found.scarcity is None


def test_excluded_movies_are_not_found(retriever: Retriever) -> None:
    excluded = tuple(best_ids(2))
    (found,) = retriever.retrieve([query(5, excluded=excluded)])
    assert found_ids(found) == best_ids(5, but=excluded) == best_ids(7)[2:]


def test_excluding_unknown_or_repeated_movies_has_no_further_effect(retriever: Retriever) -> None:
    (first, *_) = best_ids(1)
    (found,) = retriever.retrieve([query(5, excluded=(first, 3, first, -1, 2**62))])
    assert found_ids(found) == best_ids(5, but=(first,))


def test_rated_movies_are_left_out_like_excluded_ones(retriever: Retriever) -> None:
    first, second, *_ = best_ids(3)
    asked = query(12, excluded=(first,))._replace(rated_movie_ids=(second, first, 3))
    (found,) = retriever.retrieve([asked])
    assert found_ids(found) == best_ids(12)[2:]
    assert found.scarcity == Scarcity(filter_too_narrow=False, matching_filter=12, excluded=2)


def test_only_movies_that_pass_the_filter_are_found(retriever: Retriever) -> None:
    (found,) = retriever.retrieve([query(3, condition=ACTION)])
    assert found_ids(found) == [movie_id for movie_id in best_ids(12) if movie_id in ACTION_IDS]
    assert found.scarcity is None


def test_each_query_of_a_batch_is_answered_as_it_would_be_alone(retriever: Retriever) -> None:
    vectors = unit_rows(np.random.default_rng(6), 4)
    queries = [
        Query(vector, other, k, excluded, condition)
        for vector, other in zip(vectors, vectors[::-1], strict=True)
        for k in (1, 4, 100)
        for excluded in ((), ALL_IDS[:3])
        for condition in (Filter(), ACTION)
    ]
    for one, together in zip(queries, retriever.retrieve(queries), strict=True):
        (alone,) = retriever.retrieve([one])
        assert alone.hits.rows.tolist() == together.hits.rows.tolist()
        assert alone.hits.scores.tolist() == together.hits.scores.tolist()
        assert alone.predicted_ratings.tolist() == together.predicted_ratings.tolist()
        assert alone.scarcity == together.scarcity


@pytest.mark.parametrize(
    ("asked", "returned", "scarcity"),
    [
        # the catalogue has 12 movies, 3 of them of Action
        (query(12), 12, None),
        (query(13), 12, Scarcity(filter_too_narrow=False, matching_filter=12, excluded=0)),
        (
            query(12, excluded=(1, 2, 3)),
            10,
            Scarcity(filter_too_narrow=False, matching_filter=12, excluded=2),
        ),
        (query(1, excluded=ALL_IDS), 0, Scarcity(False, matching_filter=12, excluded=12)),
        (query(3, condition=ACTION), 3, None),
        (query(4, condition=ACTION), 3, Scarcity(True, matching_filter=3, excluded=0)),
        (
            query(4, condition=ACTION, excluded=(1, 2)),
            2,
            Scarcity(filter_too_narrow=True, matching_filter=3, excluded=1),
        ),
        (query(12, condition=ACTION), 3, Scarcity(True, matching_filter=3, excluded=0)),
        (query(13, condition=ACTION), 3, Scarcity(False, matching_filter=3, excluded=0)),
        (query(11, condition=ACTION, excluded=(1, 2)), 2, Scarcity(False, 3, 1)),
        (query(1, condition=Filter(year_min=3000)), 0, Scarcity(True, 0, 0)),
    ],
)
def test_fewer_than_k_come_with_the_reason_and_the_counts(
    retriever: Retriever, asked: Query, returned: int, scarcity: Scarcity | None
) -> None:
    (found,) = retriever.retrieve([asked])
    assert len(found.hits.rows) == len(found.predicted_ratings) == returned
    assert found.scarcity == scarcity


def test_similar_movies_leave_the_movie_itself_out(retriever: Retriever) -> None:
    for movie_id in ALL_IDS:
        found = retriever.similar(movie_id, 11)
        assert sorted([movie_id, *found_ids(found)]) == list(ALL_IDS)
        assert found.scarcity is None
    assert retriever.similar(ALL_IDS[0], 12).scarcity == Scarcity(False, 12, 1)


def test_a_twin_is_the_most_similar(retriever: Retriever) -> None:
    one, other = (int(MOVIE_IDS[row]) for row in TWINS)
    for movie_id, twin in ((one, other), (other, one)):
        found = retriever.similar(movie_id, 1)
        assert found_ids(found) == [twin]
        assert found.hits.scores[0] == pytest.approx(1, abs=1e-6)


def test_an_unknown_movie_has_no_similar_ones(retriever: Retriever) -> None:
    with pytest.raises(MovieNotFound, match="movie_id: 3 is not a movie of this model") as caught:
        retriever.similar(3, 1)
    assert caught.value.field == "movie_id"


@pytest.mark.parametrize("k", [0, 101, -1])
def test_k_has_limits(retriever: Retriever, k: int) -> None:
    for refused in (lambda: retriever.similar(1, k), lambda: retriever.check(query(k))):
        with pytest.raises(InvalidRequest, match=f"k: {k}, allowed are 1 to 100") as caught:
            refused()
        assert caught.value.field == "k"


@pytest.mark.parametrize("k", [1, 100])
def test_a_sound_query_is_passed_on(retriever: Retriever, k: int) -> None:
    asked = query(k, excluded=ALL_IDS, condition=ACTION)
    assert retriever.check(asked) is asked


NAN = USER * np.where(np.arange(DIM) == 2, np.float32(np.nan), np.float32(1))


@pytest.mark.parametrize("name", ["retrieval", "rating"])
@pytest.mark.parametrize(
    ("embedding", "message"),
    [
        (USER[:-1], "has 7 values, this model's embeddings have 8"),
        (np.append(USER, USER), "has 16 values, this model's embeddings have 8"),
        (USER[:0], "has 0 values, this model's embeddings have 8"),
        (NAN, "has a value that is not finite"),
        (USER * np.float32(np.inf), "has a value that is not finite"),
        (USER * 2, "has norm 2, allowed is 1"),
        (USER * 0, "has norm 0, allowed is 1"),
        (USER * np.float32(1.002), "has norm 1.002, allowed is 1"),
    ],
)
def test_a_faulty_embedding_is_named(
    retriever: Retriever, name: str, embedding: np.ndarray, message: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        retriever.check(Query(**{"retrieval": USER, "rating": USER, "k": 1, name: embedding}))
    assert str(caught.value) == f"embedding.{name}: {message}"
    assert caught.value.field == f"embedding.{name}"


def test_a_norm_rounded_to_float32_is_accepted(retriever: Retriever) -> None:
    retriever.check(query()._replace(retrieval=USER * np.float32(1.0005)))


def test_exclusions_have_a_limit(retriever: Retriever) -> None:
    retriever.check(query(excluded=(1,) * MAX_EXCLUDED))
    with pytest.raises(InvalidRequest, match="100001 movies, allowed are 100000") as caught:
        retriever.check(query(excluded=(1,) * (MAX_EXCLUDED + 1)))
    assert caught.value.field == "exclude_movie_ids"


def test_a_faulty_filter_is_named(retriever: Retriever) -> None:
    with pytest.raises(InvalidRequest, match="no such genre as 'Farce'") as caught:
        retriever.check(query(condition=Filter(genres_none=("Farce",))))
    assert caught.value.field == "filter.genres_none[0]"


def test_predicted_ratings_are_the_cosine_on_the_rating_scale(retriever: Retriever) -> None:
    embedding = BUNDLE.item_embeddings[6]
    alike, opposite = retriever.retrieve(
        [Query(embedding, embedding, 12), Query(embedding, -embedding, 12)]
    )
    assert alike.hits.rows[0] == opposite.hits.rows[0] == 6
    assert alike.predicted_ratings[0] == pytest.approx(5, abs=1e-5)
    assert opposite.predicted_ratings[0] == pytest.approx(0.5, abs=1e-5)
    np.testing.assert_allclose(alike.predicted_ratings + opposite.predicted_ratings, 5.5)
    for found in (alike, opposite):
        assert ((found.predicted_ratings >= 0.5) & (found.predicted_ratings <= 5)).all()


def test_a_second_head_predicts_ratings_and_ranks_nothing(tmp_path: Path) -> None:
    opposite = of(tmp_path, replace(BUNDLE, rating_embeddings=-BUNDLE.item_embeddings))
    (found,), (plain,) = (r.retrieve([query(12)]) for r in (opposite, of(tmp_path, BUNDLE)))
    assert found.hits.rows.tolist() == plain.hits.rows.tolist()
    np.testing.assert_allclose(found.predicted_ratings, 5.5 - plain.predicted_ratings)


def test_a_model_of_data_without_ratings_predicts_none(tmp_path: Path) -> None:
    none = {"rating_at_zero": None, "rating_per_cosine": None}
    ranks = of(tmp_path, replace(BUNDLE, features=BUNDLE.features.model_copy(update=none)))
    (found,), (plain,) = (r.retrieve([query(12)]) for r in (ranks, of(tmp_path, BUNDLE)))
    assert found.hits.rows.tolist() == plain.hits.rows.tolist()
    assert found.predicted_ratings.shape == (0,)


def test_golden_requests_are_answered_as_recorded(retriever: Retriever) -> None:
    retriever.replay()


def test_golden_requests_notice_a_changed_embedding(tmp_path: Path) -> None:
    (first, *_) = BUNDLE.golden[0].top_movie_ids
    row = BUNDLE.catalogue.row_of(first)
    embeddings = BUNDLE.item_embeddings.copy()
    embeddings[row] = -embeddings[row]
    with pytest.raises(BundleError, match="golden request of user 3: found movies"):
        of(tmp_path, replace(BUNDLE, item_embeddings=embeddings)).replay()


def test_golden_requests_notice_a_changed_score(tmp_path: Path) -> None:
    golden = BUNDLE.golden[2]
    scores = tuple(score - 1e-4 for score in golden.top_scores)
    changed = replace(BUNDLE, golden=(golden.model_copy(update={"top_scores": scores}),))
    with pytest.raises(BundleError, match="a user with 0 ratings: the scores differ"):
        of(tmp_path, changed).replay()


def test_golden_requests_leave_excluded_movies_out(tmp_path: Path) -> None:
    golden = BUNDLE.golden[0]
    other = golden.model_copy(update={"excluded_movie_ids": golden.top_movie_ids[:1]})
    with pytest.raises(BundleError, match="found movies"):
        of(tmp_path, replace(BUNDLE, golden=(other,))).replay()
