"""The routes that whoever runs the gateway asks: is it alive, is it ready, how is it doing."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from gateway.problems import not_ready, problem_responses
from gateway.recommender import Recommender
from gateway.schemas import Alive, Ready

router = APIRouter(tags=["operations"])


def recommender_of(request: Request) -> Recommender:
    """The recommender of the application that a request came to."""
    recommender: Recommender = request.app.state.recommender
    return recommender


@router.get("/healthz", summary="Is the gateway alive?")
async def alive() -> Alive:
    """Whether this process is alive; says nothing of the services."""
    return Alive(status="alive")


@router.get(
    "/readyz",
    summary="Can requests be answered?",
    response_model=Ready,
    responses=problem_responses(503),
)
async def ready(service: Annotated[Recommender, Depends(recommender_of)]) -> Ready | Response:
    """Whether both services can be reached and share a loaded model; 503 with the reason if not."""
    readiness = await service.readiness()
    if readiness.reason:
        return not_ready(readiness.reason)
    return Ready(status="ready", model_version=readiness.model_version)


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics() -> Response:
    """Prometheus metrics of the gateway."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
