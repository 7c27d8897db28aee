"""The movies that answers name, each as JSON: asked of retrieval once, and then at hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

from gateway.schemas import Movie, service_answer
from twotower.errors import BadAnswer
from twotower.v1.retrieval_pb2 import GetMoviesResponse

_AT_ONCE: Final = 1_000
"""Most movies that retrieval tells of in one call."""
_MOST: Final = 100_000
"""Movies kept, of all models together: some 40 MB."""

Ask = Callable[[list[int], str, float], Awaitable[GetMoviesResponse]]
"""Movies by id, of a model version, within so many seconds."""


class MovieTexts:
    """Each movie as the JSON of a `schemas.Movie`, its last brace left off."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._known: dict[str, dict[int, str]] = {}

    async def of(
        self, model_version: str, movie_ids: Iterable[int], seconds: float
    ) -> Mapping[int, str]:
        """Texts by id, at least of these movies of a model. Raises RequestError."""
        known = self._known.get(model_version, {})
        missing = {movie_id for movie_id in movie_ids if movie_id not in known}
        if not missing:
            return known
        told = {**known, **await self._fetch(sorted(missing), model_version, seconds)}
        self._keep(model_version, told)
        return told

    async def _fetch(self, movie_ids: list[int], model_version: str, seconds: float) -> dict[int, str]:
        texts = {}
        for start in range(0, len(movie_ids), _AT_ONCE):
            answer = await self._ask(movie_ids[start : start + _AT_ONCE], model_version, seconds)
            if answer.model_version != model_version:
                raise BadAnswer("retrieval told of another model's movies")
            with service_answer():
                for movie in answer.movies:
                    text = Movie(**Movie.fields_of(movie)).model_dump_json()
                    texts[movie.movie_id] = text.removesuffix("}")
        if any(movie_id not in texts for movie_id in movie_ids):
            raise BadAnswer("retrieval found movies that its catalogue does not have")
        return texts

    def _keep(self, model_version: str, texts: dict[int, str]) -> None:
        others = {version: t for version, t in self._known.items() if version != model_version}
        if sum(map(len, others.values())) + len(texts) > _MOST:
            others = {}
        self._known = {**others, model_version: texts} if len(texts) <= _MOST else {}
