"""The movies that answers name, each as JSON: asked of retrieval once, and then at hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

from gateway.batching import seconds_until
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
        self, model_version: str, movie_ids: Iterable[int], deadline: float
    ) -> Mapping[int, str]:
        """Texts by id, at least of these movies of a model. Raises RequestError.

        `deadline` is by the event loop's clock.
        """
        known = self._known.get(model_version, {})
        missing = {movie_id for movie_id in movie_ids if movie_id not in known}
        if not missing:
            return known
        told = await self._fetch(sorted(missing), model_version, deadline)
        if sum(map(len, self._known.values())) + len(told) > _MOST:
            self._known = {}  # whoever reads what was known still has it
            return {**known, **told}
        known = self._known.setdefault(model_version, known)
        known.update(told)
        return known

    async def _fetch(self, movie_ids: list[int], model_version: str, deadline: float) -> dict[int, str]:
        texts = {}
        for start in range(0, len(movie_ids), _AT_ONCE):
            some = movie_ids[start : start + _AT_ONCE]
            answer = await self._ask(some, model_version, seconds_until(deadline))
            if answer.model_version != model_version:
                raise BadAnswer("retrieval told of another model's movies")
            with service_answer():
                for movie in answer.movies:
                    text = Movie(**Movie.fields_of(movie)).model_dump_json()
                    texts[movie.movie_id] = text.removesuffix("}")
        if any(movie_id not in texts for movie_id in movie_ids):
            raise BadAnswer("retrieval found movies that its catalogue does not have")
        return texts
