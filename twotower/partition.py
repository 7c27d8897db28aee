"""The partition of a bundle with many movies (partition.npz): which cell of the space each lies in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from twotower.arrays import Bools, Embeddings, Ints
from twotower.errors import BundleError
from twotower.loops import Table
from twotower.npz import read_arrays, write_arrays

PARTITION: Final = "partition.npz"
_ARRAYS: Final = ("centroids", "cells", "probes")
_NORM_TOLERANCE: Final = 1e-3
_NEARLY_ALL: Final = 31 / 32
_MANY: Final = 0.25
"""Of the cells; to look through more takes no less than to look through all movies that may be found."""


@dataclass(frozen=True)
class Partition:
    """An inverted file: a search looks through the movies of the cells nearest to the user alone.

    centroids: float32 (cells, dim); a cell is near where the inner product with its centroid is high.
    cells: int32 (movies,), which cell a movie lies in. probes: how many cells a search looks through.
    Source: Sivic and Zisserman, Video Google, ICCV 2003.
    """

    centroids: Embeddings
    cells: npt.NDArray[np.int32]
    probes: int

    def probes_among(self, movies: int) -> int:
        """How many cells to look through where only so many of the movies may be found.

        As many more as leaves the number of those looked through the same, unless nearly all may be; and
        all of them rather than many.
        """
        if movies >= _NEARLY_ALL * len(self.cells):
            return self.probes
        cells = len(self.centroids)
        wanted = math.ceil(self.probes * len(self.cells) / max(movies, 1))
        return wanted if wanted <= _MANY * cells else cells

    def near(self, user: Embeddings, movies: int) -> Bools:
        """The movies that a search for a user, float32 (dim,), looks through: bool (movies,).

        movies: how many of them may be found.
        """
        return np.isin(self.cells, self.nearest(user[None], self.probes_among(movies)))

    def nearest(self, users: Embeddings, cells: int) -> Ints:
        """So many of the cells, the nearest to each user first: int64 (n, cells).

        users: float32 (n, dim). Of two cells as near the first comes first.
        """
        return self._table.best(users, cells)

    @cached_property
    def _table(self) -> Table:
        return Table(self.centroids)

    def check(self, movies: int, dim: int) -> None:
        """Raise BundleError where this is no partition of so many movies of that dimension."""
        cells = len(self.centroids)
        if self.centroids.shape != (cells, dim) or not np.isfinite(self.centroids).all():
            raise BundleError(f"{PARTITION}: centroids is not of finite numbers in {dim} dimensions")
        norms = np.linalg.norm(self.centroids.astype(np.float64), axis=1)
        if not (np.abs(norms - 1) <= _NORM_TOLERANCE).all():
            raise BundleError(f"{PARTITION}: a centroid is not of unit norm")
        if self.cells.shape != (movies,):
            raise BundleError(
                f"{PARTITION}: cells has shape {self.cells.shape}, movies.csv has {movies} movies"
            )
        if not ((self.cells >= 0) & (self.cells < cells)).all():
            raise BundleError(f"{PARTITION}: a movie lies in none of the {cells} cells")
        if not 1 <= self.probes <= cells:
            raise BundleError(f"{PARTITION}: probes is {self.probes}, allowed are 1 to {cells}")

    def write(self) -> bytes:
        """The arrays as an uncompressed npz."""
        return write_arrays({name: getattr(self, name) for name in _ARRAYS})

    @classmethod
    def read(cls, content: bytes) -> Self:
        """Parse `partition.npz`, without pickle. Raises BundleError."""
        arrays = read_arrays(PARTITION, content, _ARRAYS)
        expected = {"centroids": (np.float32, 2), "cells": (np.int32, 1), "probes": (np.int64, 0)}
        for name, (kind, dimensions) in expected.items():
            if arrays[name].dtype != kind or arrays[name].ndim != dimensions:
                raise BundleError(
                    f"{PARTITION}: {name} is not {kind.__name__} in {dimensions} dimensions"
                )
        return cls(arrays["centroids"], arrays["cells"], int(arrays["probes"]))
