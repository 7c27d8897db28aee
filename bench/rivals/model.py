"""The promoted model in one process: the product's own encoder, tower and search, without a service."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from gateway import schemas
from gateway.recommender import Recommendation
from gateway.translation import json_of
from retrieval_svc.retriever import Query, Retriever
from twotower.bundle import read_bundle
from twotower.errors import SettingsError
from twotower.process import settle_heap
from twotower.promotion import read_current
from twotower.tables import Catalogue
from twotower.v1.embedding_pb2 import UserEmbedding
from twotower.v1.retrieval_pb2 import RetrieveMoviesResponse
from user_tower_svc.embedder import EmbeddedUser, Profile, UserEmbedder


class Model:
    """Answers requests for recommendations by direct calls."""

    def __init__(self, bundles: Path) -> None:
        """Raises BundleError; SettingsError where no model is promoted."""
        promoted = read_current(bundles)
        if promoted is None:
            raise SettingsError(f"no model is promoted in {bundles}")
        self.manifest, self.bundle = read_bundle(bundles, promoted.current)
        self.embedder: Final = UserEmbedder(self.manifest, self.bundle)
        self.retriever: Final = Retriever(self.manifest, self.bundle)
        self._texts: Final = _texts(self.bundle.catalogue)
        settle_heap()  # as the services do

    def profile_of(self, request: schemas.RecommendationRequest) -> Profile:
        """What is known of who asks, by `user_id` or by `ratings` without timestamps, at `as_of`."""
        as_of = request.as_of or 0
        if request.ratings is None:
            return self.embedder.known_user(request.user_id or 0, as_of=as_of, strict=False)
        return self.embedder.rated(
            np.array([rating.movie_id for rating in request.ratings], dtype=np.int64),
            np.array([rating.rating for rating in request.ratings], dtype=np.float32),
            None,
            as_of=as_of,
        )

    def answer(self, request: schemas.RecommendationRequest) -> bytes:
        """The answer, as the gateway's."""
        profile = self.profile_of(request)
        (user,) = self.embedder.embed([profile])
        (found,) = self.retriever.retrieve([query_for(user, request.k)])
        return self.describe(profile, found.hits.rows, found.hits.scores, found.predicted_ratings)

    def describe(
        self, profile: Profile, rows: np.ndarray, scores: np.ndarray, predicted_ratings: np.ndarray
    ) -> bytes:
        """The movies found, by row, best first, as the gateway's JSON."""
        found = RetrieveMoviesResponse(
            movie_ids=self.bundle.catalogue.movie_ids[rows].tolist(),
            scores=scores.tolist(),
            predicted_ratings=predicted_ratings.tolist(),
            model_version=self.manifest.model_version,
        )
        user = UserEmbedding(strategy=profile.strategy, ignored_count=profile.ignored_count)
        return json_of(Recommendation(user, found, self._texts))


def query_for(user: EmbeddedUser, k: int) -> Query:
    """The search for movies that a user has not rated."""
    return Query(user.retrieval, user.rating, k, rated_movie_ids=user.rated_movie_ids)


def _texts(catalogue: Catalogue) -> dict[int, str]:
    """As `gateway.catalogue.MovieTexts` has them."""
    return {
        movie_id: schemas.Movie(
            movie_id=movie_id,
            external_id=external_id,
            title=title,
            year=None if np.isnan(year) else int(year),
            genres=list(genres),
        )
        .model_dump_json()
        .removesuffix("}")
        for movie_id, external_id, title, year, genres in zip(
            catalogue.movie_ids.tolist(),
            catalogue.external_ids or [None] * len(catalogue),
            catalogue.titles,
            catalogue.years.tolist(),
            catalogue.genres,
            strict=True,
        )
    }
