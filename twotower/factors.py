"""What the encoding of histories knows of each movie: the tables of `factors.npz` in a bundle."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Final, Self

import numpy as np

from twotower.arrays import FeatureRows, Floats, Ints
from twotower.errors import BundleError
from twotower.npz import read_arrays, write_arrays

_DIMENSIONS: Final = {
    "places": 1,
    "successors": 2,
    "landmark_vectors": 2,
    "base_ratings": 1,
    "rating_factors": 2,
    "rating_precision": 2,
}
_OF_RATINGS: Final = ("rating_factors", "rating_precision")


@dataclass(frozen=True)
class MovieFactors:
    """Learned tables.

    places: int64 (movies,), the row of each movie in `successors`, the most liked first, from 1; 0, the
    row of zeros, for those too seldom liked to say anything.
    successors: float32 (told, landmarks), how much each of the first movies of `places`, the landmarks,
    is liked after this one.
    landmark_vectors: float32 (landmarks, v), the vectors on which users' own ones are sought.
    base_ratings: float32 (movies,), the average user's rating of it, less the global mean.
    rating_factors: float32 (movies, r), times a user's own factors what that user's rating deviates.
    rating_precision: float32 (r, r), how narrowly users' factors lie around 0, as against the noise of
    a rating. r is 0 where no ratings are predicted.
    """

    places: Ints
    successors: FeatureRows
    landmark_vectors: FeatureRows
    base_ratings: FeatureRows
    rating_factors: FeatureRows
    rating_precision: FeatureRows

    def check(self, movies: int) -> None:
        """Raise BundleError unless the tables are finite, of one model, and have `movies` rows."""
        self._check_shapes(movies)
        told = len(self.successors)
        if self.successors[0].any():
            raise BundleError("factors.npz: the first row of successors is not 0")
        if self.places.shape != (movies,) or self.places.dtype != np.int64:
            raise BundleError(f"factors.npz: places is not int64 {(movies,)}")
        if not np.array_equal(np.sort(self.places[self.places != 0]), np.arange(1, told)):
            raise BundleError("factors.npz: places has not one movie for each row of successors")
        if len(self.landmark_vectors) >= told:
            raise BundleError("factors.npz: there are more landmarks than movies in successors")
        if np.linalg.eigvalsh(self.precision).min(initial=1) <= 0:
            raise BundleError("factors.npz: rating_precision is not positive definite")

    def _check_shapes(self, movies: int) -> None:
        for name, dimensions in _DIMENSIONS.items():
            array = getattr(self, name)
            if array.ndim != dimensions or not (array.size or name in _OF_RATINGS):
                raise BundleError(f"factors.npz: {name} is not filled in {dimensions} dimensions")
        told, landmarks = self.successors.shape
        r = self.rating_factors.shape[1]
        shapes = {
            "successors": (told, landmarks),
            "landmark_vectors": (landmarks, self.landmark_vectors.shape[1]),
            "base_ratings": (movies,),
            "rating_factors": (movies, r),
            "rating_precision": (r, r),
        }
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != np.float32:
                raise BundleError(f"factors.npz: {name} is not float32 {shape}")
            if not np.isfinite(array).all():
                raise BundleError(f"factors.npz: {name} is not finite")

    @property
    def landmarks(self) -> Ints:
        """The rows of the movies that are landmarks, as in their tables: int64 (landmarks,)."""
        order = np.argsort(self.places, kind="stable")
        wanted = np.arange(1, len(self.landmark_vectors) + 1)
        return order[np.searchsorted(self.places[order], wanted)]

    @cached_property
    def precision(self) -> Floats:
        """rating_precision, symmetric: float64 (r, r)."""
        precision = self.rating_precision.astype(np.float64)
        return (precision + precision.T) / 2

    def write(self) -> bytes:
        """The tables as an uncompressed npz."""
        return write_arrays({field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def read(cls, content: bytes) -> Self:
        """Parse `factors.npz`, without pickle. Raises BundleError."""
        return cls(**read_arrays("factors.npz", content, [field.name for field in fields(cls)]))
