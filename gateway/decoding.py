"""The body of `POST /v1/recommendations`, decoded by msgspec: many times as fast as by pydantic.

It takes nothing that `gateway.schemas` would refuse, and reads what it takes as the same values. What it
refuses is left to pydantic, which takes it after all or says why not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Final

from msgspec import Meta, Struct
from msgspec.json import Decoder

from gateway.schemas import (
    LARGEST_NUMBER,
    LARGEST_YEAR,
    MAX_COUNT,
    MAX_EXCLUDED,
    MAX_GENRE_LENGTH,
    MAX_GENRES,
    MAX_ID,
    MAX_K,
    MAX_RATINGS,
)

_Id = Annotated[int, Meta(ge=0, le=MAX_ID)]
_Number = Annotated[float, Meta(ge=-LARGEST_NUMBER, le=LARGEST_NUMBER)]
_Genre = Annotated[str, Meta(min_length=1, max_length=MAX_GENRE_LENGTH)]
_Genres = Annotated[list[_Genre], Meta(max_length=MAX_GENRES)]
_Year = Annotated[int, Meta(ge=-LARGEST_YEAR, le=LARGEST_YEAR)]


class Rating(Struct, forbid_unknown_fields=True, gc=False):
    """As `schemas.Rating`, of a movie that is named by number."""

    movie_id: _Id
    rating: _Number
    timestamp: _Id | None = None
    external_id: ClassVar[None] = None


class Features(Struct, forbid_unknown_fields=True, gc=False):
    """As `schemas.Features`."""

    rating_count: Annotated[int, Meta(ge=1, le=MAX_COUNT)]
    mean_rating: _Number
    genre_means: Annotated[dict[_Genre, _Number], Meta(max_length=MAX_GENRES)] = {}


class MovieFilter(Struct, forbid_unknown_fields=True, gc=False):
    """As `schemas.MovieFilter`."""

    genres_any: _Genres = []
    genres_all: _Genres = []
    genres_none: _Genres = []
    year_min: _Year | None = None
    year_max: _Year | None = None


class RecommendationRequest(Struct, forbid_unknown_fields=True, gc=False):
    """As `schemas.RecommendationRequest`, where all is named by number."""

    user_id: _Id | None = None
    ratings: Annotated[list[Rating], Meta(max_length=MAX_RATINGS)] | None = None
    features: Features | None = None
    as_of: _Id | None = None
    k: Annotated[int, Meta(ge=1, le=MAX_K)] = 10
    exclude_rated: bool = True
    exclude_movie_ids: Annotated[list[_Id], Meta(max_length=MAX_EXCLUDED)] = []
    filter: MovieFilter | None = None
    external_user_id: ClassVar[None] = None
    exclude_external_ids: ClassVar[Sequence[str]] = ()


DECODER: Final = Decoder(RecommendationRequest)
"""Raises msgspec.MsgspecError for what is left to pydantic."""
