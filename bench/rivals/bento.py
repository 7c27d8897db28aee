"""BentoML: one service, with the product's own LiteRT tower and FAISS index in it."""

from __future__ import annotations

import os
from typing import Annotated, Any

import bentoml
from bentoml.validators import ContentType

from bench.rivals.model import Model
from gateway.schemas import RecommendationRequest
from twotower.settings import BundleSettings


@bentoml.service(
    workers=os.cpu_count(),
    traffic={"timeout": 120},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
class Recommendations:
    """Answers in the event loop: a request takes less than handing it to a thread would."""

    def __init__(self) -> None:
        self._model = Model(BundleSettings().folder)

    @bentoml.api(route="/v1/recommendations", input_spec=RecommendationRequest)
    async def recommend(self, **fields: Any) -> Annotated[str, ContentType("application/json")]:
        """The answer as JSON, made already."""
        return self._model.answer(RecommendationRequest.model_construct(**fields)).decode()
