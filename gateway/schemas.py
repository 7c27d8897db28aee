"""What the REST API takes and gives, as pydantic models, and their protobuf counterparts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from twotower.errors import BadAnswer
from twotower.v1 import retrieval_pb2

MAX_K: Final = 100
MAX_RATINGS: Final = 10_000
MAX_EXCLUDED: Final = 100_000
MAX_GENRES: Final = 100
MAX_GENRE_LENGTH: Final = 100
MAX_ID: Final = 2**63 - 1
MAX_COUNT: Final = 2**32 - 1
LARGEST_YEAR: Final = 2**31 - 1
LARGEST_NUMBER: Final = 3.4e38
"""That a float32 holds."""
_CANNOT_BE: Final = "a service answered with what cannot be"

# The format says what is the greatest: FastAPI writes bounds as floats, of which none is just that.
Id = Annotated[int, Field(ge=0, le=MAX_ID, json_schema_extra={"format": "int64"})]
ExternalId = Annotated[str, Field(min_length=1)]
Seconds = Annotated[Id, Field(description="Seconds since 1970 (UTC).")]
Number = Annotated[float, Field(allow_inf_nan=False, ge=-LARGEST_NUMBER, le=LARGEST_NUMBER)]
Genre = Annotated[str, Field(min_length=1, max_length=MAX_GENRE_LENGTH)]
# The first fault of a long list is told, not all of thousands.
Genres = Annotated[list[Genre], Field(max_length=MAX_GENRES, fail_fast=True)]
Year = Annotated[int, Field(ge=-LARGEST_YEAR, le=LARGEST_YEAR)]
K = Annotated[int, Field(ge=1, le=MAX_K, description="How many movies.")]


class _Request(BaseModel):
    # Strict: true is no id, "10" no number. An unknown field is more likely a slip than meant.
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


def _one_with(external: str) -> AfterValidator:
    """Just one of a number and of an external id, of the field `external` before it, must be given."""

    def check(number: int | None, others: ValidationInfo) -> int | None:
        # An external id that is at fault is not among the others.
        if external in others.data and (number is None) == (others.data[external] is None):
            names = {"number": others.field_name, "external": external}
            if number is None:
                raise PydanticCustomError(
                    "missing", "Field required: a valid {number}, or an {external} in its place", names
                )
            raise PydanticCustomError("two_ids", "Goes not with {external}: give one of them", names)
        return number

    return AfterValidator(check)


def _given(name: str) -> dict[str, Any]:
    """The JSON Schema of an object in which this field is neither absent nor null."""
    return {"required": [name], "properties": {name: {"not": {"type": "null"}}}}


def _check_external_user_id(external_id: str | None, others: ValidationInfo) -> str | None:
    if external_id is not None and others.data.get("user_id") is not None:
        raise PydanticCustomError("two_ids", "Goes not with user_id: give one of them")
    return external_id


class Rating(_Request):
    """One rating of one movie, which either `movie_id` or `external_id` names."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [_given("movie_id"), _given("external_id")]})

    external_id: ExternalId | None = Field(
        None, description="What the data call the movie, where ids are no numbers there."
    )
    movie_id: Annotated[Id | None, _one_with("external_id")] = Field(
        None, validate_default=True, description="In place of `external_id`."
    )
    rating: Number = Field(
        description="Within the model's rating scale; MovieLens: 0.5 to 5; 1 where the data have no "
        "ratings."
    )
    timestamp: Seconds | None = Field(
        None,
        description="When it was given. All ratings have one, or none: then the list is in time's "
        "order, oldest first.",
    )


class Features(_Request):
    """Aggregates of a user's ratings, where the ratings themselves are not at hand."""

    rating_count: Annotated[int, Field(ge=1, le=MAX_COUNT)]
    mean_rating: Number
    genre_means: Annotated[dict[Genre, Number], Field(max_length=MAX_GENRES)] = Field(
        {}, description="Mean rating by genre; an absent genre counts as not rated."
    )


class MovieFilter(_Request):
    """Which movies may be recommended; all that is given must hold."""

    genres_any: Genres = Field([], description="At least one of these.")
    genres_all: Genres = Field([], description="All of these.")
    genres_none: Genres = Field([], description="None of these.")
    year_min: Year | None = Field(None, description="Released then or later.")
    year_max: Year | None = Field(None, description="Released then or earlier.")


class RecommendationRequest(_Request):
    """A user - an id, `ratings`, both, or `features` alone - and what to recommend."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                _given("user_id"),
                _given("external_user_id"),
                _given("features"),
                {**_given("ratings"), "not": {"anyOf": [_given("user_id"), _given("external_user_id")]}},
            ]
        }
    )

    user_id: Id | None = Field(None, description="A user of the training data.")
    external_user_id: Annotated[ExternalId | None, AfterValidator(_check_external_user_id)] = Field(
        None,
        description="In place of `user_id`: what the data call the user, where ids are no numbers.",
    )
    ratings: Annotated[list[Rating], Field(max_length=MAX_RATINGS, fail_fast=True)] | None = Field(
        None,
        description="The user's ratings; with an id they stand in for those known. An empty list "
        "is a user who has rated nothing.",
    )
    features: Features | None = Field(None, description="In place of an id and `ratings`.")
    as_of: Seconds | None = Field(None, description="The time of the request; absent: now.")
    k: K = 10
    exclude_rated: bool = Field(True, description="Leave out the movies the user has rated.")
    exclude_movie_ids: Annotated[list[Id], Field(max_length=MAX_EXCLUDED, fail_fast=True)] = Field(
        [], description="More movies to leave out."
    )
    exclude_external_ids: Annotated[list[ExternalId], Field(max_length=MAX_EXCLUDED, fail_fast=True)] = (
        Field([], description="More, by what the data call them.")
    )
    filter: MovieFilter | None = None


# Taken as it comes, so that a request at fault fails alone; shown as what it should be.
_AnyRequest = Annotated[Any, WithJsonSchema({"$ref": "#/components/schemas/RecommendationRequest"})]


class BatchRequest(_Request):
    """Several requests, each answered or failing on its own."""

    requests: Annotated[list[_AnyRequest], Field(min_length=1, max_length=128)] = Field(
        description="Bodies of `POST /v1/recommendations`."
    )


class PredictRequest(BaseModel):
    """The first version's request, of a user whom either `uid` or `external_user_id` names."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        json_schema_extra={"oneOf": [_given("uid"), _given("external_user_id")]},
    )

    external_user_id: ExternalId | None = Field(
        None, description="What the data call the user, where ids are no numbers there."
    )
    uid: Annotated[Id | None, _one_with("external_user_id")] = Field(
        None, validate_default=True, description="In place of `external_user_id`."
    )


@contextmanager
def service_answer() -> Iterator[None]:
    """Around the making of an answer from a service's: one that cannot be is a BadAnswer."""
    try:
        yield
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise BadAnswer(f"{_CANNOT_BE}: {fault['loc'][0]}: {fault['msg']}") from error
    except ValueError as error:  # an enum value that this release does not know
        raise BadAnswer(f"{_CANNOT_BE}: {error}") from error


class Movie(BaseModel):
    """A movie of the catalogue."""

    movie_id: Id
    external_id: str | None = Field(
        None,
        exclude_if=lambda external_id: external_id is None,
        description="What the data call it; absent where that is its number.",
    )
    title: str = Field(description="Without the year; empty where the data has none.")
    year: int | None
    genres: list[str]

    @staticmethod
    def fields_of(movie: retrieval_pb2.Movie) -> dict[str, Any]:
        """The fields of a movie from protobuf."""
        return {
            "movie_id": movie.movie_id,
            "external_id": movie.external_id if movie.HasField("external_id") else None,
            "title": movie.title,
            "year": movie.year if movie.HasField("year") else None,
            "genres": list(movie.genres),
        }


class MovieDetails(Movie):
    """A movie of the catalogue, and how it was rated."""

    rating_count: int = Field(description="Ratings the model was trained on.")
    mean_rating: Number | None = Field(description="Null where there are none.")

    @classmethod
    @service_answer()
    def of(cls, movie: retrieval_pb2.Movie) -> MovieDetails:
        """From protobuf."""
        mean = round(movie.mean_rating, 2) if movie.HasField("mean_rating") else None
        return cls(**cls.fields_of(movie), rating_count=movie.rating_count, mean_rating=mean)


class RecommendedMovie(Movie):
    """A recommended movie."""

    predicted_rating: Number | None = Field(
        description="The rating the user would give, within the model's rating scale; null where the "
        "data have no ratings."
    )
    score: Number = Field(description="What it was ranked by; -1 to 1, descending.")


class SimilarMovie(Movie):
    """A movie near to another."""

    score: Number = Field(description="Cosine of both movies' embeddings, descending.")


class Shortfall(BaseModel):
    """Why there are fewer movies than asked for."""

    reason: Literal["filter_too_narrow", "catalogue_exhausted"]
    requested: int
    returned: int

    @classmethod
    def of(cls, shortfall: retrieval_pb2.Shortfall) -> Shortfall:
        """From protobuf."""
        return cls(
            reason=_name(retrieval_pb2.ShortfallReason.Name(shortfall.reason), "SHORTFALL_REASON_"),
            requested=shortfall.requested,
            returned=shortfall.returned,
        )


class RecommendationResponse(BaseModel):
    """Exactly k movies, best first; fewer only with a `shortfall`."""

    items: list[RecommendedMovie]
    model_version: str = Field(description="The one model that all of the answer is of.")
    strategy: Literal["known_user", "inline_ratings", "features", "cold_start"] = Field(
        description="What the recommendation rests on."
    )
    ignored_ratings: int = Field(description="Ratings of movies unknown to the model.")
    shortfall: Shortfall | None


class SimilarResponse(BaseModel):
    """The movies nearest to a movie, nearest first."""

    items: list[SimilarMovie]
    model_version: str
    shortfall: Shortfall | None

    @classmethod
    @service_answer()
    def of(cls, found: retrieval_pb2.FindSimilarMoviesResponse) -> SimilarResponse:
        """From protobuf."""
        items = [
            SimilarMovie(**Movie.fields_of(near.movie), score=round(near.score, 6))
            for near in found.movies
        ]
        return cls(items=items, model_version=found.model_version, shortfall=_shortfall(found))


class SearchResponse(BaseModel):
    """The movies whose title matches, the closest first."""

    items: list[MovieDetails]
    model_version: str


class Fault(BaseModel):
    """One field at fault."""

    field: str
    value: str | None = Field(description="What was given, shortened, if the message does not say.")
    message: str


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = Field(description="Names the kind of problem, for programs.")
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[Fault] = Field([], description="The fields at fault, if any.")


class Alive(BaseModel):
    """The process is alive."""

    status: Literal["alive"]


class Ready(BaseModel):
    """Requests can be answered."""

    status: Literal["ready"]
    model_version: str = Field(description="The best model that both services serve.")


class BatchResponse(BaseModel):
    """As many results as requests, in their order."""

    results: list[RecommendationResponse | Problem]


class PredictResponse(BaseModel):
    """The first version's answer: movie ids, best first."""

    Recommended: list[int]
    external_ids: list[str] | None = Field(
        None,
        exclude_if=lambda external_ids: external_ids is None,
        description="What the data call each; absent where that is its number.",
    )


def _shortfall(
    found: retrieval_pb2.RetrieveMoviesResponse | retrieval_pb2.FindSimilarMoviesResponse,
) -> Shortfall | None:
    return Shortfall.of(found.shortfall) if found.HasField("shortfall") else None


def _name(constant: str, prefix: str) -> Any:
    return constant.removeprefix(prefix).lower()
