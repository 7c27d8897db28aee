"""The routes of the REST API, operations apart."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Path, Query
from pydantic import BaseModel, BeforeValidator, ValidationError
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from gateway import schemas
from gateway.body import JsonRoute
from gateway.operations import recommender_of
from gateway.problems import faults_of, problem_of, problem_of_faults, problem_responses
from gateway.recommender import Recommendation, Recommender
from gateway.translation import ask_of, json_of
from twotower.errors import MovieNotFound, RequestError, shown
from twotower.request_ids import current_request_id

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
    "external ids, where the data have such": {
        "value": {
            "external_user_id": "ada.adler.1",
            "ratings": [{"external_id": "GAR-02/1", "rating": 5.0}],
            "exclude_external_ids": ["GAR-02/3"],
        }
    },
}

_BATCH_EXAMPLE: dict[str, Any] = {
    "one sound, one not": {"value": {"requests": [{"user_id": 2, "k": 3}, {"user_id": -1}]}}
}
_PREDICT_EXAMPLES: dict[str, Any] = {
    "known user": {"value": {"uid": 2}},
    "external id, where the data have such": {"value": {"external_user_id": "ada.adler.1"}},
}

_SERVICES = (502, 503, 504)
_BODY = (400, 408, 413, 415)

router = APIRouter(route_class=JsonRoute, responses=problem_responses(422, *_SERVICES))


def _check_digits(value: object) -> object:
    """Paths and queries are text: let through integers only as one would write them."""
    if isinstance(value, str) and not re.fullmatch(r"0|-?[1-9][0-9]*", value):
        raise PydanticCustomError("int_parsing", "Input should be a valid integer")
    return value


Service = Annotated[Recommender, Depends(recommender_of)]
Strict = Annotated[bool, Query(description="Make an unknown user id a 404, not a cold start.")]
UserId = Annotated[schemas.Id, BeforeValidator(_check_digits), Path()]
MovieId = Annotated[schemas.Id, BeforeValidator(_check_digits), Path()]
K = Annotated[schemas.K, BeforeValidator(_check_digits), Query()]
# Of any characters, slashes among them: as part of a path it could not be told from what follows.
ExternalId = Annotated[
    schemas.ExternalId, Query(description="What the data call the movie, where ids are no numbers.")
]
ExternalUserId = Annotated[
    schemas.ExternalId, Query(description="What the data call the user, where ids are no numbers.")
]


@router.post(
    "/v1/recommendations",
    summary="Top movies for anyone",
    response_model=schemas.RecommendationResponse,
    responses=problem_responses(404, *_BODY),
    tags=["users"],
)
async def recommend(
    service: Service,
    body: Annotated[schemas.RecommendationRequest, Body(openapi_examples=_EXAMPLES)],
    *,
    strict: Strict = False,
) -> Response:
    """Recommend movies to a user given by id, by ratings or by features."""
    return answer_of(await _recommend(service, body, strict=strict))


@router.get(
    "/v1/users/{user_id}/recommendations",
    summary="Top movies for a user of the training data",
    response_model=schemas.RecommendationResponse,
    responses=problem_responses(404),
    tags=["users"],
)
async def recommend_known(
    service: Service,
    user_id: UserId,
    k: K = 10,
    *,
    strict: Strict = False,
) -> Response:
    """Recommend movies to a user of the training data."""
    body = schemas.RecommendationRequest(user_id=user_id, k=k)
    return answer_of(await _recommend(service, body, strict=strict))


@router.get(
    "/v1/users:recommendations",
    summary="The same by external id",
    response_model=schemas.RecommendationResponse,
    responses=problem_responses(404),
    tags=["users"],
)
async def recommend_named(
    service: Service,
    external_user_id: ExternalUserId,
    k: K = 10,
    *,
    strict: Strict = False,
) -> Response:
    """Recommend movies to a user of the training data, by what the data call the user."""
    body = schemas.RecommendationRequest(external_user_id=external_user_id, k=k)
    return answer_of(await _recommend(service, body, strict=strict))


@router.post(
    "/v1/recommendations:batch",
    summary="Top movies for many users at once",
    response_model=schemas.BatchResponse,
    responses=problem_responses(*_BODY),
    tags=["users"],
)
async def recommend_batch(
    service: Service,
    body: Annotated[schemas.BatchRequest, Body(openapi_examples=_BATCH_EXAMPLE)],
    *,
    strict: Strict = False,
) -> Response:
    """Recommend movies to several users; a request at fault fails alone, with its problem."""
    results = await asyncio.gather(
        *(_recommend_or_problem(service, request, strict=strict) for request in body.requests)
    )
    content = b'{"results":[' + b",".join(results) + b"]}"
    return Response(content, media_type="application/json")


@router.get(
    "/v1/movies/{movie_id}/similar",
    summary="The nearest movies",
    response_model=schemas.SimilarResponse,
    responses=problem_responses(404),
    tags=["movies"],
)
async def similar(service: Service, movie_id: MovieId, k: K = 10) -> Response:
    """Find the movies nearest to a movie."""
    found = await service.retrieval.similar(movie_id, k, service.timeout)
    return _json(schemas.SimilarResponse.of(found))


@router.get(
    "/v1/movies:similar",
    summary="The nearest movies, by external id",
    response_model=schemas.SimilarResponse,
    responses=problem_responses(404),
    tags=["movies"],
)
async def similar_named(service: Service, external_id: ExternalId, k: K = 10) -> Response:
    """Find the movies nearest to a movie, by what the data call it."""
    found = await service.retrieval.similar(external_id, k, service.timeout)
    return _json(schemas.SimilarResponse.of(found))


@router.get(
    "/v1/movies/{movie_id}",
    summary="A movie",
    response_model=schemas.MovieDetails,
    responses=problem_responses(404),
    tags=["movies"],
)
async def movie(service: Service, movie_id: MovieId) -> Response:
    """Look a movie up."""
    found = await service.retrieval.movies([movie_id], "", service.timeout)
    if not found.movies:
        raise MovieNotFound(f"movie_id: {movie_id} is not a movie of this model", field="movie_id")
    return _json(schemas.MovieDetails.of(found.movies[0]))


@router.get(
    "/v1/movies:lookup",
    summary="A movie, by external id",
    response_model=schemas.MovieDetails,
    responses=problem_responses(404),
    tags=["movies"],
)
async def movie_named(service: Service, external_id: ExternalId) -> Response:
    """Look a movie up by what the data call it."""
    found = await service.retrieval.named(external_id, service.timeout)
    if not found.movies:
        raise MovieNotFound(
            f"external_id: {shown(external_id)} is not a movie of this model", field="external_id"
        )
    return _json(schemas.MovieDetails.of(found.movies[0]))


@router.get(
    "/v1/movies",
    summary="Movies by title",
    response_model=schemas.SearchResponse,
    tags=["movies"],
)
async def search(
    service: Service,
    title: Annotated[str, Query(min_length=1, max_length=200, description="Words of the title.")],
    limit: K = 10,
) -> Response:
    """Find movies by title; letter case and accents do not matter."""
    found = await service.retrieval.search(title, limit, service.timeout)
    items = [schemas.MovieDetails.of(movie) for movie in found.movies]
    return _json(schemas.SearchResponse(items=items, model_version=found.model_version))


@router.post(
    "/predict",
    summary="Top ten, as the first version answered",
    response_model=schemas.PredictResponse,
    responses=problem_responses(*_BODY),
    tags=["first version"],
)
async def predict(
    service: Service,
    body: Annotated[schemas.PredictRequest, Body(openapi_examples=_PREDICT_EXAMPLES)],
) -> Response:
    """Recommend ten movies to a user, as the first version of this system answered."""
    user = schemas.RecommendationRequest(user_id=body.uid, external_user_id=body.external_user_id)
    found = (await _recommend(service, user, strict=False)).found
    return _json(
        schemas.PredictResponse(
            Recommended=list(found.movie_ids), external_ids=list(found.external_ids) or None
        )
    )


async def _recommend(
    service: Recommender, body: schemas.RecommendationRequest, *, strict: bool
) -> Recommendation:
    return await service.recommend(ask_of(body, strict=strict, request_id=current_request_id()))


async def _recommend_or_problem(service: Recommender, request: object, *, strict: bool) -> bytes:
    try:
        body = schemas.RecommendationRequest.model_validate(request)
        return json_of(await _recommend(service, body, strict=strict))
    except ValidationError as error:
        problem = problem_of_faults(faults_of(error))
    except RequestError as error:
        problem = problem_of(error)
    return problem.model_dump_json().encode()


def answer_of(recommendation: Recommendation) -> Response:
    """A recommendation as HTTP has it."""
    return Response(json_of(recommendation), media_type="application/json")


def _json(answer: BaseModel) -> Response:
    """The answer as JSON, straight from pydantic: FastAPI would validate it once more."""
    return Response(answer.model_dump_json(), media_type="application/json")
