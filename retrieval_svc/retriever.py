"""A served model of movies: the index, the catalogue, and what a user or a movie is nearest to."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Final, NamedTuple

import numpy as np

from retrieval_svc.catalogue import NO_FILTER, Filter, MovieFinder
from retrieval_svc.index import NO_ROWS, ExactIndex, Hits, Index, Mask, Rows, Search
from twotower.arrays import Embeddings, Floats, Ints
from twotower.bundle import Bundle
from twotower.errors import InvalidRequest, MovieNotFound
from twotower.manifest import Manifest

MAX_K: Final = 100
MAX_EXCLUDED: Final = 100_000
_NORM_TOLERANCE: Final = 1e-3


class Query(NamedTuple):
    """One user's search.

    retrieval, rating: float32 (dim,) of unit norm; without `rating`, ratings are predicted by
    `retrieval`. excluded_movie_ids, rated_movie_ids: what never to
    find.
    """

    retrieval: Embeddings
    rating: Embeddings | None
    k: int
    excluded_movie_ids: Sequence[int] = ()
    filter: Filter = NO_FILTER
    rated_movie_ids: Sequence[int] | Ints = ()


class Scarcity(NamedTuple):
    """Why there are too few movies: how many passed the filter, how many of those were excluded."""

    filter_too_narrow: bool
    matching_filter: int
    excluded: int


class Found(NamedTuple):
    """The movies found, best first: rows and scores (n,), predicted ratings (n,) for users.

    predicted_ratings is empty where the model predicts none.
    """

    hits: Hits
    predicted_ratings: Floats
    scarcity: Scarcity | None


class Retriever:
    """A bundle's movie side."""

    def __init__(self, manifest: Manifest, bundle: Bundle) -> None:
        self.model_version = manifest.model_version
        self.catalogue = bundle.catalogue
        self.finder = MovieFinder(bundle.catalogue, bundle.features.genres)
        self._spec = bundle.features
        self._embeddings = bundle.item_embeddings
        self._has_rating_head = bundle.rating_embeddings is not None
        self._rating_embeddings = (
            bundle.item_embeddings if bundle.rating_embeddings is None else bundle.rating_embeddings
        )
        self._index = index_of(bundle)
        self._golden = bundle.golden
        self._shape = self._embeddings.shape[1:]

    def check(self, query: Query) -> Query:
        """The query itself. Raises InvalidRequest naming the field that is not allowed."""
        _check_k(query.k)
        self._check_embedding("embedding.retrieval", query.retrieval)
        if query.rating is not None:
            self._check_embedding("embedding.rating", query.rating)
        elif self._has_rating_head:
            raise InvalidRequest(
                "embedding.rating: is missing, and this model predicts ratings by it",
                field="embedding.rating",
            )
        if len(query.excluded_movie_ids) > MAX_EXCLUDED:
            raise InvalidRequest(
                f"exclude_movie_ids: {len(query.excluded_movie_ids)} movies, allowed are {MAX_EXCLUDED}",
                field="exclude_movie_ids",
            )
        if query.filter is not NO_FILTER:
            self.finder.check(query.filter)
        return query

    def retrieve(self, queries: Sequence[Query]) -> list[Found]:
        """Answer n checked queries at once; each comes out as it would alone."""
        excluded = self._excluded_rows(queries)
        filters = {query.filter for query in queries if query.filter}
        masks = {each: self.finder.passing(each) for each in filters}
        passing = [masks.get(query.filter) for query in queries]
        hits = self._index.search(
            [
                Search(query.retrieval, query.k, rows, mask)
                for query, rows, mask in zip(queries, excluded, passing, strict=True)
            ]
        )
        scarcities = [
            _scarcity(query.k, len(self.catalogue), rows, mask) if len(found.rows) < query.k else None
            for query, found, rows, mask in zip(queries, hits, excluded, passing, strict=True)
        ]
        return [
            Found(found, ratings, scarcity)
            for found, ratings, scarcity in zip(
                hits, self._predicted_ratings(queries, hits), scarcities, strict=True
            )
        ]

    def similar(self, movie_id: int, k: int) -> Found:
        """The k movies nearest to a movie. Raises MovieNotFound, InvalidRequest."""
        _check_k(k)
        row = self.catalogue.row_of(movie_id)
        if row is None:
            raise MovieNotFound(f"movie_id: {movie_id} is not a movie of this model", field="movie_id")
        embedding = self._embeddings[row]
        return self.retrieve([Query(embedding, None, k, excluded_movie_ids=(movie_id,))])[0]

    def replay(self) -> None:
        """Answer the golden users. Raises BundleError where the movies are not those recorded."""
        for golden in self._golden:
            retrieval = np.array(golden.retrieval, dtype=np.float32)
            query = Query(retrieval, None, len(golden.top_movie_ids) or 1, golden.excluded_movie_ids)
            (found,) = self.retrieve([query])
            golden.check_top(
                self.catalogue.movie_ids[found.hits.rows].tolist(), found.hits.scores.tolist()
            )

    def _excluded_rows(self, queries: Sequence[Query]) -> list[Rows]:
        """The rows of what each query excludes, and the catalogue has, looked up at once."""
        listed = [
            np.asarray(movie_ids, dtype=np.int64) if len(movie_ids) else NO_ROWS
            for query in queries
            for movie_ids in (query.rated_movie_ids, query.excluded_movie_ids)
        ]
        rows = self.catalogue.rows_of(np.concatenate(listed))
        known = rows >= 0
        counts = np.cumsum(known)
        ends = np.cumsum([len(movie_ids) for movie_ids in listed])[1::2]
        bounds = [0, *np.concatenate([[0], counts])[ends].tolist()]
        rows = rows[known]
        return [rows[start:end] for start, end in pairwise(bounds)]

    def _predicted_ratings(self, queries: Sequence[Query], hits: Sequence[Hits]) -> list[Floats]:
        if not self._spec.predicts_ratings:
            return [np.empty(0)] * len(queries)
        counts = [len(found.rows) for found in hits]
        rows = np.concatenate([found.rows for found in hits])
        users = np.array([q.retrieval if q.rating is None else q.rating for q in queries])
        of_users = users[np.repeat(np.arange(len(queries)), counts)]
        cosines = (self._rating_embeddings[rows].astype(np.float64) * of_users).sum(axis=1)
        ratings = self._spec.unscale_ratings(cosines)
        return [ratings[start:end] for start, end in pairwise([0, *accumulate(counts)])]

    def _check_embedding(self, path: str, embedding: Embeddings) -> None:
        if embedding.shape != self._shape:
            raise InvalidRequest(
                f"{path}: has {embedding.size} values, this model's embeddings have {self._shape[0]}",
                field=path,
            )
        # Beyond all floats it is infinite, and vdot alone says so without a warning.
        if abs(float(np.vdot(embedding, embedding)) - 1) < _NORM_TOLERANCE:
            return
        if not np.isfinite(embedding).all():
            raise InvalidRequest(f"{path}: has a value that is not finite", field=path)
        norm = float(np.linalg.norm(embedding.astype(np.float64)))  # which any square fits in
        if abs(norm - 1) > _NORM_TOLERANCE:
            raise InvalidRequest(f"{path}: has norm {norm:.4g}, allowed is 1", field=path)


def index_of(bundle: Bundle) -> Index:
    """What searches a bundle's movies: among all of them, or in the cells that they are divided into."""
    if bundle.partition is None:
        return ExactIndex(bundle.item_embeddings)
    # FAISS takes a tenth of a second to import, and 15 MB: only who has cells to look through has it.
    from retrieval_svc.approximate import ApproximateIndex  # noqa: PLC0415

    return ApproximateIndex(bundle.item_embeddings, bundle.partition)


def _scarcity(k: int, movies: int, excluded: Rows, passing: Mask | None) -> Scarcity:
    excluded = np.unique(excluded)
    return Scarcity(
        filter_too_narrow=passing is not None and movies - len(excluded) >= k,
        matching_filter=movies if passing is None else int(passing.sum()),
        excluded=len(excluded) if passing is None else int(passing[excluded].sum()),
    )


def _check_k(k: int) -> None:
    if not 1 <= k <= MAX_K:
        raise InvalidRequest(f"k: {k}, allowed are 1 to {MAX_K}", field="k")
