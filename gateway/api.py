"""The routes of the REST API."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Body, Depends, Path, Query, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ValidationError
from starlette.responses import JSONResponse, Response

from gateway import schemas
from gateway.body import JsonRoute
from gateway.problems import faults_of, problem_of, problem_of_faults
from gateway.recommender import Recommender
from twotower.errors import MovieNotFound, RequestError

_PROBLEM_SCHEMA = {"schema": {"$ref": "#/components/schemas/Problem"}}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": description, "content": {"application/problem+json": _PROBLEM_SCHEMA}}
    for status, description in (
        (400, "The body is not JSON"),
        (404, "The user or movie is not known"),
        (413, "The body is too long"),
        (415, "The body is not announced as JSON"),
        (422, "A field is not allowed"),
        (502, "A service answered with what cannot be"),
        (503, "A service cannot answer now"),
        (504, "A service did not answer in time"),
    )
}
_EXAMPLES: dict[str, Any] = {
    "known user": {"value": {"user_id": 2, "k": 5}},
    "inline ratings": {
        "value": {
            "ratings": [{"movie_id": 260, "rating": 5.0}, {"movie_id": 1196, "rating": 4.5}],
            "k": 10,
            "filter": {"genres_any": ["Sci-Fi"], "year_min": 1990},
        }
    },
    "features": {
        "value": {"features": {"rating_count": 40, "mean_rating": 3.6, "genre_means": {"Drama": 4.2}}}
    },
}

router = APIRouter(route_class=JsonRoute, responses=_PROBLEMS)


def _recommender(request: Request) -> Recommender:
    recommender: Recommender = request.app.state.recommender
    return recommender


Service = Annotated[Recommender, Depends(_recommender)]
Strict = Annotated[bool, Query(description="Make an unknown user id a 404, not a cold start.")]
UserId = Annotated[schemas.Id, Path()]
MovieId = Annotated[schemas.Id, Path()]


@router.post("/v1/recommendations", response_model=schemas.RecommendationResponse, tags=["users"])
async def recommend(
    service: Service,
    body: Annotated[schemas.RecommendationRequest, Body(openapi_examples=_EXAMPLES)],
    *,
    strict: Strict = False,
) -> Response:
    """Recommend movies to a user given by id, by ratings or by features."""
    return _json(await _recommend(service, body, strict=strict))


@router.get(
    "/v1/users/{user_id}/recommendations",
    response_model=schemas.RecommendationResponse,
    tags=["users"],
)
async def recommend_known(
    service: Service,
    user_id: UserId,
    k: Annotated[schemas.K, Query()] = 10,
    *,
    strict: Strict = False,
) -> Response:
    """Recommend movies to a user of the training data."""
    body = schemas.RecommendationRequest(user_id=user_id, k=k)
    return _json(await _recommend(service, body, strict=strict))


@router.post("/v1/recommendations:batch", response_model=schemas.BatchResponse, tags=["users"])
async def recommend_batch(
    service: Service, body: schemas.BatchRequest, *, strict: Strict = False
) -> Response:
    """Recommend movies to several users; a request at fault fails alone, with its problem."""
    results = await asyncio.gather(
        *(_recommend_or_problem(service, request, strict=strict) for request in body.requests)
    )
    return _json(schemas.BatchResponse(results=results))


@router.get("/v1/movies/{movie_id}/similar", response_model=schemas.SimilarResponse, tags=["movies"])
async def similar(
    service: Service, movie_id: MovieId, k: Annotated[schemas.K, Query()] = 10
) -> Response:
    """Find the movies nearest to a movie."""
    found = await service.retrieval.similar(movie_id, k, service.timeout)
    return _json(schemas.SimilarResponse.of(found))


@router.get("/v1/movies/{movie_id}", response_model=schemas.MovieDetails, tags=["movies"])
async def movie(service: Service, movie_id: MovieId) -> Response:
    """Look a movie up."""
    found = await service.retrieval.movies([movie_id], service.timeout)
    if not found.movies:
        raise MovieNotFound(f"movie_id: {movie_id} is not a movie of this model", field="movie_id")
    return _json(schemas.MovieDetails.of(found.movies[0]))


@router.get("/v1/movies", response_model=schemas.SearchResponse, tags=["movies"])
async def search(
    service: Service,
    title: Annotated[str, Query(min_length=1, max_length=200, description="Words of the title.")],
    limit: Annotated[schemas.K, Query()] = 10,
) -> Response:
    """Find movies by title; letter case and accents do not matter."""
    found = await service.retrieval.search(title, limit, service.timeout)
    items = [schemas.MovieDetails.of(movie) for movie in found.movies]
    return _json(schemas.SearchResponse(items=items, model_version=found.model_version))


@router.post("/predict", response_model=schemas.PredictResponse, tags=["first version"])
async def predict(service: Service, body: schemas.PredictRequest) -> Response:
    """Recommend ten movies to a user, as the first version of this system answered."""
    answer = await _recommend(service, schemas.RecommendationRequest(user_id=body.uid), strict=False)
    return _json(schemas.PredictResponse(Recommended=[item.movie_id for item in answer.items]))


@router.get("/healthz", tags=["operations"])
async def alive() -> dict[str, str]:
    """Whether this process is alive; says nothing of the services."""
    return {"status": "alive"}


@router.get("/readyz", tags=["operations"])
async def ready(service: Service) -> Response:
    """Whether both services can be reached and share a loaded model; 503 with the reason if not."""
    readiness = await service.readiness()
    if readiness.reason:
        return JSONResponse(
            {"status": "not ready", "reason": readiness.reason}, 503, {"retry-after": "1"}
        )
    return JSONResponse({"status": "ready", "model_version": readiness.model_version})


@router.get("/metrics", tags=["operations"], response_class=Response)
async def metrics() -> Response:
    """Prometheus metrics of the gateway."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


async def _recommend(
    service: Recommender, body: schemas.RecommendationRequest, *, strict: bool
) -> schemas.RecommendationResponse:
    request_id = structlog.contextvars.get_contextvars().get("request_id", "")
    recommendation = await service.recommend(
        body.user(strict=strict, request_id=request_id), body.search(request_id=request_id)
    )
    return schemas.RecommendationResponse.of(recommendation)


async def _recommend_or_problem(
    service: Recommender, request: object, *, strict: bool
) -> schemas.RecommendationResponse | schemas.Problem:
    try:
        body = schemas.RecommendationRequest.model_validate(request)
        return await _recommend(service, body, strict=strict)
    except ValidationError as error:
        return problem_of_faults(faults_of(error))
    except RequestError as error:
        return problem_of(error)


def _json(answer: BaseModel) -> Response:
    """The answer as JSON, straight from pydantic: FastAPI would validate it once more."""
    return Response(answer.model_dump_json(), media_type="application/json")
