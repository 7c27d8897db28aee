"""A served model of movies: the index, the catalogue, and what a user or a movie is nearest to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from retrieval_svc.catalogue import Filter, MovieFinder
from retrieval_svc.index import ExactIndex, Hits, Mask
from twotower.arrays import Embeddings, Floats, Ints
from twotower.bundle import Bundle
from twotower.errors import InvalidRequest, MovieNotFound
from twotower.manifest import Manifest

MAX_K: Final = 100
MAX_EXCLUDED: Final = 100_000
_NORM_TOLERANCE: Final = 1e-3


@dataclass(frozen=True)
class Query:
    """One user's search.

    retrieval, rating: float32 (dim,) of unit norm; without `rating`, ratings are predicted by
    `retrieval`. excluded_movie_ids, rated_movie_ids: what never to
    find.
    """

    retrieval: Embeddings
    rating: Embeddings | None
    k: int
    excluded_movie_ids: Sequence[int] = ()
    filter: Filter = field(default_factory=Filter)
    rated_movie_ids: Sequence[int] = ()


class Scarcity(NamedTuple):
    """Why there are too few movies: how many passed the filter, how many of those were excluded."""

    filter_too_narrow: bool
    matching_filter: int
    excluded: int


@dataclass(frozen=True)
class Found:
    """The movies found, best first: rows and scores (n,), predicted ratings (n,) for users."""

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
        self._index = ExactIndex(bundle.item_embeddings)
        self._golden = bundle.golden

    @property
    def dim(self) -> int:
        """The length of the embeddings."""
        return int(self._embeddings.shape[1])

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
        self.finder.check(query.filter)
        return query

    def retrieve(self, queries: Sequence[Query]) -> list[Found]:
        """Answer n checked queries at once; each comes out as it would alone."""
        masks = [self._allowed(query) for query in queries]
        free = [place for place, mask in enumerate(masks) if mask is None]
        hits_of: dict[int, Hits] = {}
        if free:
            vectors = np.stack([queries[place].retrieval for place in free])
            most = max(queries[place].k for place in free)
            for place, hits in zip(free, self._index.search(vectors, most), strict=True):
                k = queries[place].k
                hits_of[place] = Hits(hits.rows[:k], hits.scores[:k])
        for place, mask in enumerate(masks):
            if mask is not None:
                query = queries[place]
                hits_of[place] = self._index.search_allowed(query.retrieval, query.k, mask)
        return [self._found(query, hits_of[place]) for place, query in enumerate(queries)]

    def similar(self, movie_id: int, k: int) -> Found:
        """The k movies nearest to a movie. Raises MovieNotFound, InvalidRequest."""
        _check_k(k)
        row = self.catalogue.row_of.get(movie_id)
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

    def _allowed(self, query: Query) -> Mask | None:
        """Which movies may be found, bool (movies,), or None for all."""
        excluded = self._excluded_rows(query)
        if not query.filter and not len(excluded):
            return None
        allowed = self.finder.passing(query.filter)
        allowed[excluded] = False
        return allowed

    def _excluded_rows(self, query: Query) -> Ints:
        return self.finder.rows_of([*query.rated_movie_ids, *query.excluded_movie_ids])

    def _found(self, query: Query, hits: Hits) -> Found:
        rating = query.retrieval if query.rating is None else query.rating
        cosines = (self._rating_embeddings[hits.rows].astype(np.float64) * rating).sum(axis=1)
        scarcity = self._scarcity(query) if len(hits.rows) < query.k else None
        return Found(hits, self._spec.unscale_ratings(cosines), scarcity)

    def _scarcity(self, query: Query) -> Scarcity:
        passing = self.finder.passing(query.filter)
        excluded = np.zeros_like(passing)
        excluded[self._excluded_rows(query)] = True
        return Scarcity(
            filter_too_narrow=bool(query.filter) and int((~excluded).sum()) >= query.k,
            matching_filter=int(passing.sum()),
            excluded=int((passing & excluded).sum()),
        )

    def _check_embedding(self, path: str, embedding: Embeddings) -> None:
        if embedding.shape != (self.dim,):
            raise InvalidRequest(
                f"{path}: has {embedding.size} values, this model's embeddings have {self.dim}",
                field=path,
            )
        if not np.isfinite(embedding).all():
            raise InvalidRequest(f"{path}: has a value that is not finite", field=path)
        norm = float(np.linalg.norm(embedding.astype(np.float64)))
        if abs(norm - 1) > _NORM_TOLERANCE:
            raise InvalidRequest(f"{path}: has norm {norm:.4g}, allowed is 1", field=path)


def _check_k(k: int) -> None:
    if not 1 <= k <= MAX_K:
        raise InvalidRequest(f"k: {k}, allowed are 1 to {MAX_K}", field="k")
