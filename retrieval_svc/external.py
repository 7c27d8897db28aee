"""Movies that a request names by what the data call them."""

from __future__ import annotations

from collections.abc import Sequence

from retrieval_svc.retriever import MAX_EXCLUDED
from twotower.errors import InvalidRequest, MovieNotFound, shown
from twotower.external import named_twice
from twotower.tables import Catalogue
from twotower.v1 import retrieval_pb2 as rpc


def excluded_by(row: rpc.RetrieveMoviesRequest, catalogue: Catalogue) -> Sequence[int]:
    """The ids of the movies that a row excludes, those by external id that the catalogue has included.

    Raises InvalidRequest where they are too many, or where no movie has an external id.
    """
    names = row.exclude_external_ids
    if not names:
        return row.exclude_movie_ids
    count = len(names) + len(row.exclude_movie_ids)
    if count > MAX_EXCLUDED:
        field = "exclude_external_ids"
        raise InvalidRequest(
            f"{field}: {count} movies with those of exclude_movie_ids, allowed are {MAX_EXCLUDED}",
            field=field,
        )
    found, _ = find_named(names, catalogue, "exclude_external_ids")
    return [*row.exclude_movie_ids, *found]


def find_named(names: Sequence[str], catalogue: Catalogue, field: str) -> tuple[list[int], list[str]]:
    """The ids of movies by external id, and the names of those that the catalogue has not.

    Raises InvalidRequest, naming the field, where no movie has an external id.
    """
    found, missing = [], []
    for name in names:
        movie_id = catalogue.names.find(name, field)
        if movie_id is None:
            missing.append(name)
        else:
            found.append(movie_id)
    return found, missing


def movie_id_of(request: rpc.FindSimilarMoviesRequest, catalogue: Catalogue) -> int:
    """The movie that is asked about, by either id. Raises MovieNotFound, InvalidRequest."""
    if not request.HasField("external_id"):
        return request.movie_id
    field = "external_id"
    if request.movie_id:
        raise named_twice(field, request.external_id, "movie_id")
    movie_id = catalogue.names.find(request.external_id, field)
    if movie_id is None:
        raise MovieNotFound(
            f"{field}: {shown(request.external_id)} is not a movie of this model", field=field
        )
    return movie_id
