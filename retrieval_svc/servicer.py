"""gRPC to the retriever and back; nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import grpc
import numpy as np

from retrieval_svc.catalogue import NO_FILTER, Filter
from retrieval_svc.external import excluded_by, find_named, movie_id_of
from retrieval_svc.retriever import MAX_K, Found, Query, Retriever, Scarcity
from twotower.arrays import FLOAT32, INT64, Embeddings, Ints, array_of
from twotower.batch import answer_rows, late_rows, only_answer, record_batch
from twotower.codes import to_proto
from twotower.errors import InvalidRequest, RequestError
from twotower.metrics import stage
from twotower.models import ModelPool
from twotower.tables import Catalogue
from twotower.v1 import embedding_pb2 as pb
from twotower.v1 import retrieval_pb2 as rpc
from twotower.v1.retrieval_pb2_grpc import RetrievalServiceServicer

_MAX_MOVIE_IDS = 1000
_MAX_TITLE = 200


class _Search(NamedTuple):
    """A query, and whether the answer is to have movies' ids alone."""

    query: Query
    ids_only: bool


class _Answer(NamedTuple):
    """What a search found, and in which model."""

    retriever: Retriever
    search: _Search
    found: Found


class _User(NamedTuple):
    """An embedding: float32 (dim,), float32 (dim,) or (0,), and the ids of movies."""

    retrieval: Embeddings
    rating: Embeddings
    rated_movie_ids: Sequence[int] | Ints


class RetrievalServicer(RetrievalServiceServicer):
    """`twotower.v1.RetrievalService` over a pool of models."""

    def __init__(self, models: ModelPool[Retriever]) -> None:
        self._models = models

    def RetrieveMovies(  # noqa: N802 - the name is the contract's
        self, request: rpc.RetrieveMoviesRequest, _context: grpc.ServicerContext
    ) -> rpc.RetrieveMoviesResponse:
        """Search for one user: a batch of one."""
        answer, response = only_answer(self._retrieve([request])), rpc.RetrieveMoviesResponse()
        with stage("describe"):
            _fill(response, answer)
        return response

    def BatchRetrieveMovies(  # noqa: N802
        self, request: rpc.BatchRetrieveMoviesRequest, _context: grpc.ServicerContext
    ) -> rpc.BatchRetrieveMoviesResponse:
        """Search for several users; a faulty row fails alone."""
        answers = self._retrieve(request.users)
        record_batch("BatchRetrieveMovies", request.users, answers)
        response = rpc.BatchRetrieveMoviesResponse()
        with stage("describe"):
            for row, answer in zip(request.users, answers, strict=True):
                result = response.results.add(request_id=row.request_id)
                if isinstance(answer, RequestError):
                    result.error.CopyFrom(to_proto(answer))
                else:
                    _fill(result.response, answer)  # in place: a message set is a message copied
        for place, error in late_rows(request.users):  # many whole movies take their time
            response.results[place].error.CopyFrom(to_proto(error))
        return response

    def FindSimilarMovies(  # noqa: N802
        self, request: rpc.FindSimilarMoviesRequest, _context: grpc.ServicerContext
    ) -> rpc.FindSimilarMoviesResponse:
        """Find the movies nearest to a movie."""
        retriever = self._models.get(request.model_version)
        found = retriever.similar(movie_id_of(request, retriever.catalogue), request.k)
        movies = [
            rpc.SimilarMovie(movie=_movie(retriever.catalogue, row), score=score)
            for row, score in zip(found.hits.rows.tolist(), found.hits.scores.tolist(), strict=True)
        ]
        return rpc.FindSimilarMoviesResponse(
            movies=movies,
            model_version=retriever.model_version,
            shortfall=found.scarcity and _shortfall(found.scarcity, request.k, len(movies)),
        )

    def GetMovies(  # noqa: N802
        self, request: rpc.GetMoviesRequest, _context: grpc.ServicerContext
    ) -> rpc.GetMoviesResponse:
        """Look movies up by id."""
        count = len(request.movie_ids) + len(request.external_ids)
        if not 0 < count <= _MAX_MOVIE_IDS:
            field = "external_ids" if request.external_ids else "movie_ids"
            raise InvalidRequest(f"{field}: {count} ids, allowed are 1 to {_MAX_MOVIE_IDS}", field=field)
        retriever = self._models.get(request.model_version)
        named, missing = find_named(request.external_ids, retriever.catalogue, "external_ids")
        movie_ids = np.array([*request.movie_ids, *named], dtype=np.int64)
        rows = retriever.catalogue.rows_of(movie_ids)
        return rpc.GetMoviesResponse(
            movies=[_movie(retriever.catalogue, row) for row in rows[rows >= 0].tolist()],
            missing_movie_ids=movie_ids[rows < 0].tolist(),
            missing_external_ids=missing,
            model_version=retriever.model_version,
        )

    def SearchMovies(  # noqa: N802
        self, request: rpc.SearchMoviesRequest, _context: grpc.ServicerContext
    ) -> rpc.SearchMoviesResponse:
        """Find movies by title."""
        if not 0 < len(request.title) <= _MAX_TITLE:
            raise InvalidRequest(
                f"title: has {len(request.title)} characters, allowed are 1 to {_MAX_TITLE}",
                field="title",
            )
        if not 0 < request.limit <= MAX_K:
            raise InvalidRequest(f"limit: {request.limit}, allowed are 1 to {MAX_K}", field="limit")
        retriever = self._models.get(request.model_version)
        rows = retriever.finder.titled(request.title, request.limit)
        return rpc.SearchMoviesResponse(
            movies=[_movie(retriever.catalogue, row) for row in rows],
            model_version=retriever.model_version,
        )

    def ListModels(  # noqa: N802
        self, _request: rpc.RetrievalServiceListModelsRequest, _context: grpc.ServicerContext
    ) -> rpc.RetrievalServiceListModelsResponse:
        """List the models served and refused."""
        return rpc.RetrievalServiceListModelsResponse(
            models=self._models.models(), refused=self._models.refused()
        )

    def _retrieve(self, rows: Sequence[rpc.RetrieveMoviesRequest]) -> list[_Answer | RequestError]:
        return answer_rows(rows, prepare=self._prepare, compute=_compute)

    def _prepare(self, row: rpc.RetrieveMoviesRequest) -> tuple[Retriever, _Search]:
        if not row.embedding.model_version:
            raise InvalidRequest(
                "embedding.model_version: is empty, the user tower's answer has it",
                field="embedding.model_version",
            )
        retriever = self._models.get(row.embedding.model_version)
        query = _query(row, excluded_by(row, retriever.catalogue))
        return retriever, _Search(retriever.check(query), row.ids_only)


def _query(row: rpc.RetrieveMoviesRequest, excluded_movie_ids: Sequence[int]) -> Query:
    user = _user(row.embedding)
    return Query(
        retrieval=user.retrieval,
        rating=user.rating if user.rating.size else None,
        k=row.k,
        excluded_movie_ids=excluded_movie_ids,
        rated_movie_ids=user.rated_movie_ids if row.exclude_rated else (),
        filter=_filter(row.filter) if row.HasField("filter") else NO_FILTER,
    )


def _user(embedding: pb.UserEmbedding) -> _User:
    """The embedding, in whichever form it is given."""
    if not embedding.HasField("arrays"):
        return _User(
            np.array(embedding.retrieval, dtype=np.float32),
            np.array(embedding.rating, dtype=np.float32),
            embedding.rated_movie_ids,
        )
    if embedding.retrieval or embedding.rating or embedding.rated_movie_ids:
        raise InvalidRequest("embedding.arrays: goes not with lists", field="embedding.arrays")
    arrays = embedding.arrays
    return _User(
        array_of("embedding.arrays.retrieval", arrays.retrieval, FLOAT32),
        array_of("embedding.arrays.rating", arrays.rating, FLOAT32),
        array_of("embedding.arrays.rated_movie_ids", arrays.rated_movie_ids, INT64),
    )


def _filter(condition: rpc.MovieFilter) -> Filter:
    return Filter(
        genres_any=tuple(condition.genres_any),
        genres_all=tuple(condition.genres_all),
        genres_none=tuple(condition.genres_none),
        year_min=condition.year_min if condition.HasField("year_min") else None,
        year_max=condition.year_max if condition.HasField("year_max") else None,
    )


def _compute(retriever: Retriever, searches: list[_Search]) -> list[_Answer]:
    with stage("search"):
        found = retriever.retrieve([search.query for search in searches])
    return [_Answer(retriever, search, answer) for search, answer in zip(searches, found, strict=True)]


def _fill(response: rpc.RetrieveMoviesResponse, answer: _Answer) -> None:
    retriever, search, found = answer
    catalogue, rows = retriever.catalogue, found.hits.rows
    scores, ratings = found.hits.scores.tolist(), found.predicted_ratings.tolist()
    response.model_version = retriever.model_version
    if found.scarcity:
        response.shortfall.CopyFrom(_shortfall(found.scarcity, search.query.k, len(rows)))
    if search.ids_only:
        response.movie_ids.extend(catalogue.movie_ids[rows].tolist())
        response.scores.extend(scores)
        response.predicted_ratings.extend(ratings)
        if catalogue.external_ids:
            response.external_ids.extend(catalogue.external_ids[row] for row in rows.tolist())
    else:
        response.movies.extend(
            rpc.ScoredMovie(movie=_movie(catalogue, row), score=score, predicted_rating=rating)
            for row, score, rating in zip(
                rows.tolist(), scores, ratings or [None] * len(scores), strict=True
            )
        )


def _shortfall(scarcity: Scarcity, k: int, returned: int) -> rpc.Shortfall:
    return rpc.Shortfall(
        reason=(
            rpc.SHORTFALL_REASON_FILTER_TOO_NARROW
            if scarcity.filter_too_narrow
            else rpc.SHORTFALL_REASON_CATALOGUE_EXHAUSTED
        ),
        requested=k,
        returned=returned,
        matching_filter=scarcity.matching_filter,
        excluded=scarcity.excluded,
    )


def _movie(catalogue: Catalogue, row: int) -> rpc.Movie:
    year, mean = catalogue.years[row], catalogue.mean_ratings[row]
    return rpc.Movie(
        movie_id=int(catalogue.movie_ids[row]),
        title=catalogue.titles[row],
        year=None if np.isnan(year) else int(year),
        genres=catalogue.genres[row],
        rating_count=int(catalogue.rating_counts[row]),
        mean_rating=None if np.isnan(mean) else float(mean),
        external_id=catalogue.external_ids[row] if catalogue.external_ids else None,
    )
