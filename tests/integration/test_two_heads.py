"""A model of two heads, trained and served for real: one embedding ranks, the other predicts ratings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from rich.console import Console

from conftest import Trained
from integration.oracle import (
    as_ratings,
    features_of,
    golden_rater,
    golden_stranger,
    golden_users,
    history_of,
)
from services import NO_TLS, Stack, running_stack
from twotower.bundle import Bundle, read_bundle, write_bundle
from twotower.errors import BundleError
from twotower.manifest import Manifest
from twotower.promotion import promote
from twotower.v1 import embedding_pb2 as pb
from twotower.v1 import retrieval_pb2, user_tower_pb2
from twotower.v1.retrieval_pb2_grpc import RetrievalServiceStub
from twotower.v1.user_tower_pb2_grpc import UserTowerServiceStub
from user_tower_svc.embedder import UserEmbedder

DAY = 86_400
USER = 1
K = 10


@dataclass(frozen=True)
class TwoHeaded:
    """The bundle, and the services over it."""

    manifest: Manifest
    bundle: Bundle
    stack: Stack

    def recommend(self, **body: Any) -> Any:
        answer = httpx.post(f"{self.stack.url}/v1/recommendations", json=body, verify=NO_TLS)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def best(self, user: user_tower_pb2.EmbedUserRequest) -> list[tuple[int, float, float]]:
        """The best movies, their scores and predicted ratings: of the embeddings, by plain sums."""
        with grpc.insecure_channel(self.stack.user_tower.address) as channel:
            embedding = UserTowerServiceStub(channel).EmbedUser(user).embedding
        assert self.bundle.rating_embeddings is not None
        scores = self.bundle.item_embeddings @ np.array(embedding.retrieval, np.float32)
        cosines = self.bundle.rating_embeddings @ np.array(embedding.rating, np.float32)
        spec, ids = self.bundle.features, self.bundle.catalogue.movie_ids
        at_zero, per_cosine = spec.line
        ratings = np.clip(at_zero + cosines * per_cosine, *spec.rating_scale)
        left = ~np.isin(ids, embedding.rated_movie_ids)
        order = [row for row in np.lexsort((ids, -scores)) if left[row]][:K]
        return [(int(ids[row]), float(scores[row]), float(ratings[row])) for row in order]


@pytest.fixture(scope="module")
def served(
    trained: Trained, two_headed_recipe: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TwoHeaded]:
    from training.pipeline import train  # noqa: PLC0415 - TensorFlow takes seconds to import
    from training.report import Reporter  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("two-heads")
    root = folder / "bundles"
    reporter = Reporter(Console(quiet=True))
    version = train(trained.data, str(two_headed_recipe), root, 1, reporter).manifest.model_version
    manifest, bundle = read_bundle(root, version)
    promote(root, version)
    with running_stack(root, folder) as stack:
        yield TwoHeaded(manifest, bundle, stack)


def check_items(items: list[dict[str, Any]], expected: list[tuple[int, float, float]]) -> None:
    assert [item["movie_id"] for item in items] == [movie_id for movie_id, _, _ in expected]
    for item, (_, score, rating) in zip(items, expected, strict=True):
        assert item["score"] == pytest.approx(score, abs=1e-5)
        assert item["predicted_rating"] == pytest.approx(rating, abs=0.0051)


def test_the_bundle_is_judged_by_its_ranking_and_holds_both_heads(served: TwoHeaded) -> None:
    metrics, bundle = served.manifest.metrics, served.bundle
    assert metrics["temporal two-headed ndcg@10"] > 0
    assert metrics["temporal two-headed rmse"] < metrics["temporal mean rmse"]
    assert bundle.rating_embeddings is not None
    assert bundle.rating_embeddings.shape == bundle.item_embeddings.shape == (len(bundle.catalogue), 32)
    assert bundle.factors is not None
    assert all(golden.rating is not None for golden in bundle.golden)


def test_movies_of_different_content_or_raters_have_vectors_of_their_own(served: TwoHeaded) -> None:
    """Ratings that count alike make no difference, nor do years before the first decade told apart."""
    bundle = served.bundle
    raters: dict[int, list[tuple[float, ...]]] = {movie: [] for movie in bundle.catalogue.movie_ids}
    counts = np.diff(bundle.histories.offsets)
    given = zip(
        np.repeat(bundle.histories.user_ids, counts).tolist(),
        bundle.histories.movie_ids.tolist(),
        bundle.histories.ratings.tolist(),
        strict=True,
    )
    assert bundle.features.history
    for user, movie, rating in given:
        raters[movie].append((user, *bundle.features.history.values(np.array([rating]))))
    kinds = {
        (float(np.nan_to_num(year)), tuple(sorted(genres)), tuple(raters[movie]))
        for movie, year, genres in zip(
            bundle.catalogue.movie_ids, bundle.catalogue.years, bundle.catalogue.genres, strict=True
        )
    }
    assert len(np.unique(bundle.item_embeddings, axis=0)) >= len(kinds)


@pytest.mark.parametrize("as_of", [None, 2_000_000_000])
def test_a_known_user_over_rest_is_ranked_by_one_head_and_rated_by_the_other(
    served: TwoHeaded, as_of: int | None
) -> None:
    for user_id in golden_users(served.bundle):
        when = {} if as_of is None else {"as_of": as_of}
        answer = served.recommend(user_id=user_id, k=K, **when)
        assert answer["strategy"] == "known_user"
        check_items(
            answer["items"], served.best(user_tower_pb2.EmbedUserRequest(user_id=user_id, **when))
        )


def test_ratings_and_features_over_rest(served: TwoHeaded) -> None:
    history = history_of(served.bundle, USER)
    pairs: list[Any] = as_ratings(history.items())
    given = user_tower_pb2.EmbedUserRequest(ratings=[pb.Rating(**pair) for pair in pairs], as_of=5)
    check_items(served.recommend(ratings=pairs, as_of=5)["items"], served.best(given))
    features = features_of(served.bundle, history)
    described = user_tower_pb2.EmbedUserRequest(features=user_tower_pb2.UserFeatures(**features))
    check_items(served.recommend(features=features)["items"], served.best(described))


def test_golden_users_come_out_as_recorded(served: TwoHeaded) -> None:
    rater, stranger = golden_rater(served.bundle), golden_stranger(served.bundle)
    assert rater.ratings
    pairs = as_ratings(rater.ratings)
    for answer, golden in (
        (served.recommend(ratings=pairs, as_of=rater.as_of), rater),
        (served.recommend(ratings=[]), stranger),
        *(
            (served.recommend(user_id=user_id, as_of=golden.as_of), golden)
            for user_id, golden in golden_users(served.bundle).items()
        ),
    ):
        assert [item["movie_id"] for item in answer["items"]] == list(golden.top_movie_ids)


def test_one_new_rating_changes_what_is_recommended_and_predicted(served: TwoHeaded) -> None:
    pairs = [{"movie_id": int(movie), "rating": 5.0} for movie in served.bundle.catalogue.movie_ids[:4]]
    before, after = (served.recommend(ratings=ratings) for ratings in (pairs[:3], pairs))
    assert before["items"] != after["items"]
    predicted = [
        {item["movie_id"]: item["predicted_rating"] for item in answer["items"]}
        for answer in (before, after)
    ]
    assert any(
        predicted[0][movie] != predicted[1][movie] for movie in predicted[0].keys() & predicted[1]
    )


def test_the_order_of_ratings_and_the_time_since_the_last_one_count(served: TwoHeaded) -> None:
    history = [*history_of(served.bundle, USER).items()]
    start = 1_000_000_000

    def embed(order: list[tuple[int, float]], pause: int) -> np.ndarray:
        timed = [
            {"movie_id": movie_id, "rating": rating, "timestamp": start + place}
            for place, (movie_id, rating) in enumerate(order)
        ]
        request = user_tower_pb2.EmbedUserRequest(ratings=timed, as_of=start + len(timed) + pause)
        with grpc.insecure_channel(served.stack.user_tower.address) as channel:
            return np.array(UserTowerServiceStub(channel).EmbedUser(request).embedding.retrieval)

    at_once, again = embed(history, 0), embed(history, 0)
    assert (at_once == again).all()
    assert np.abs(embed(history[::-1], 0) - at_once).max() > 1e-3
    assert np.abs(embed(history, 3600) - at_once).max() > 1e-3
    assert np.abs(embed(history, DAY) - embed(history, 9 * DAY)).max() < 1e-6


def test_users_come_out_of_a_batch_as_alone(served: TwoHeaded) -> None:
    """But for the last bits, in which a product of matrices depends on their size."""
    users = [user_tower_pb2.EmbedUserRequest(user_id=user, as_of=5) for user in range(1, 41)]
    with grpc.insecure_channel(served.stack.user_tower.address) as channel:
        stub = UserTowerServiceStub(channel)
        batch = stub.BatchEmbedUsers(user_tower_pb2.BatchEmbedUsersRequest(users=users)).results
        for user, result in zip(users, batch, strict=True):
            alone = stub.EmbedUser(user).embedding
            assert result.embedding.retrieval == pytest.approx(alone.retrieval, abs=1e-5)
            assert result.embedding.rating == pytest.approx(alone.rating, abs=1e-5)


def test_an_embedding_without_its_rating_head_is_refused(served: TwoHeaded) -> None:
    with (
        grpc.insecure_channel(served.stack.user_tower.address) as tower,
        grpc.insecure_channel(served.stack.retrieval.address) as retrieval,
    ):
        user = user_tower_pb2.EmbedUserRequest(user_id=USER)
        embedding = UserTowerServiceStub(tower).EmbedUser(user).embedding
        del embedding.rating[:]
        request = retrieval_pb2.RetrieveMoviesRequest(embedding=embedding, k=K)
        with pytest.raises(grpc.RpcError) as caught:
            RetrievalServiceStub(retrieval).RetrieveMovies(request)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "embedding.rating: is missing" in (caught.value.details() or "")


@pytest.mark.parametrize("dropped", ["factors", "rating_embeddings"])
def test_a_bundle_that_lacks_a_part_of_its_second_head_is_refused(
    served: TwoHeaded, tmp_path: Path, dropped: str
) -> None:
    maimed = replace(served.bundle, **{dropped: None}, extras={})
    fields = {"recipe": "maimed", "dataset": served.manifest.dataset, "metrics": {}, "libraries": {}}
    with pytest.raises(BundleError, match=r"there is but one|has a rating head, the other none"):
        UserEmbedder(write_bundle(tmp_path, maimed, **fields), maimed)


def test_a_user_long_away_comes_out_the_same_each_time(served: TwoHeaded) -> None:
    embedder = UserEmbedder(served.manifest, served.bundle)
    span = served.bundle.histories.span_of(USER)
    last = int(served.bundle.histories.timestamps[span][-1])
    (now,) = embedder.embed([embedder.known_user(USER, as_of=last + 60, strict=True)])
    (first,) = embedder.embed([embedder.known_user(USER, as_of=last + DAY, strict=True)])
    (again,) = embedder.embed([embedder.known_user(USER, as_of=last + 30 * DAY, strict=True)])
    (soon,) = embedder.embed([embedder.known_user(USER, as_of=last + 60, strict=True)])
    assert np.array_equal(first.retrieval, again.retrieval)
    assert first.rated_movie_ids.tolist() == again.rated_movie_ids.tolist()
    assert np.array_equal(now.retrieval, soon.retrieval)
    assert not np.array_equal(now.retrieval, first.retrieval)
