"""Golden requests: recorded users with their embeddings and top movies, replayed before serving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, model_validator

from twotower.arrays import Embeddings
from twotower.errors import BundleError

EMBEDDING_TOLERANCE: Final = 1e-5
"""Largest difference of what comes of the same numbers, by another library or on another processor."""
_REPLAY_TOLERANCE: Final = 1e-3
"""Largest difference of a replayed embedding from the recorded one.

Another release may round otherwise on the way to it, and for some users little rounding moves much: 4e-5
was seen. Another model, or a feature encoded otherwise, is off by far more.
"""


class GoldenUser(BaseModel):
    """One recorded user: the request, the embedding it gave, and the top movies of that embedding.

    Exactly one of `user_id` and `ratings` is set; no ratings at all record the cold start.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    user_id: int | None = None
    ratings: tuple[tuple[int, float], ...] | None = None
    """(movie id, rating) pairs, oldest first."""
    as_of: int
    """When the user asked, seconds since 1970 (UTC)."""
    retrieval: tuple[float, ...]
    rating: tuple[float, ...] | None = None
    """The rating embedding, where the model has one of its own."""
    excluded_movie_ids: tuple[int, ...]
    """The movies the user has rated, which the top leaves out."""
    top_movie_ids: tuple[int, ...]
    top_scores: tuple[float, ...]

    @model_validator(mode="after")
    def _is_one_user(self) -> Self:
        if (self.user_id is None) == (self.ratings is None):
            raise ValueError("exactly one of user_id and ratings must be set")
        return self

    def check_embedding(self, retrieval: Embeddings, rating: Embeddings | None) -> None:
        """Raise BundleError unless the embeddings (dim,) are those recorded."""
        for recorded, replayed in ((self.retrieval, retrieval), (self.rating or (), rating)):
            again = np.empty(0) if replayed is None else replayed
            difference = _largest_difference(np.array(recorded), again)
            if not difference <= _REPLAY_TOLERANCE:
                raise BundleError(
                    f"golden request of {self}: the embedding differs from the recorded one by "
                    f"{difference:.1e}, more than {_REPLAY_TOLERANCE:.0e}"
                )

    def check_top(self, movie_ids: Sequence[int], scores: Sequence[float]) -> None:
        """Raise BundleError unless the movies found are the recorded ones, in their order."""
        if tuple(movie_ids) != self.top_movie_ids:
            raise BundleError(
                f"golden request of {self}: found movies {list(movie_ids)}, recorded "
                f"{list(self.top_movie_ids)}"
            )
        if not _largest_difference(np.array(self.top_scores), np.array(scores)) <= EMBEDDING_TOLERANCE:
            raise BundleError(f"golden request of {self}: the scores differ from the recorded ones")

    def __str__(self) -> str:
        if self.user_id is not None:
            return f"user {self.user_id}"
        return f"a user with {len(self.ratings or ())} ratings"


def _largest_difference(recorded: npt.NDArray[np.float64], replayed: npt.NDArray[np.floating]) -> float:
    if recorded.shape != replayed.shape:
        return np.inf
    return float(np.abs(recorded - replayed).max(initial=0.0))
