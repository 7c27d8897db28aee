"""The first version's way: one process does it all, Keras predicts, and every movie is sorted."""

from __future__ import annotations

import keras
import numpy as np
from fastapi import FastAPI
from starlette.responses import Response

from bench.rivals.model import Model
from gateway.schemas import RecommendationRequest
from twotower.arrays import Embeddings
from twotower.bundle import RATING, RETRIEVAL
from twotower.settings import BundleSettings
from user_tower_svc.embedder import histories_of


def create_app() -> FastAPI:
    """The application over the promoted model."""
    bundles = BundleSettings().folder
    model = Model(bundles)
    bundle = model.bundle
    encoder = bundle.encoder()
    tower = keras.saving.load_model(
        bundles / model.manifest.model_version / "user_tower.keras", compile=False
    )
    movies = bundle.item_embeddings
    rated_movies = movies if bundle.rating_embeddings is None else bundle.rating_embeddings
    app = FastAPI()

    @app.post("/v1/recommendations")
    async def recommend(request: RecommendationRequest) -> Response:
        profile = model.profile_of(request)
        features = encoder.encode(histories_of([profile]), {})
        retrieval, rating = _heads(tower.predict(features, verbose=0))
        scores = movies @ retrieval
        scores[profile.movie_rows] = -np.inf
        top = np.argsort(-scores, kind="stable")[: request.k]
        predicted = np.empty(0)
        if bundle.features.predicts_ratings:
            predicted = bundle.features.unscale_ratings(rated_movies[top] @ rating)
        answer = model.describe(profile, top, scores[top], predicted)
        return Response(answer, media_type="application/json")

    return app


def _heads(predicted: dict[str, Embeddings] | Embeddings) -> tuple[Embeddings, Embeddings]:
    """The only row's embeddings for search and for ratings, which are the same with one head."""
    if not isinstance(predicted, dict):
        return predicted[0], predicted[0]
    retrieval = predicted[RETRIEVAL][0]
    return retrieval, predicted[RATING][0] if RATING in predicted else retrieval
