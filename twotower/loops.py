"""The inner loops of encoding and of search, compiled from `loops.c`: NumPy's arrays in and out.

Each user is worked through alone and in one order, by operations that round alike on every processor: an
answer has the same bits alone, in any batch, anywhere. What is said here is of shapes; what is computed,
where each is called.

Arrays of another type or order are copied. Raises ValueError for a shape that does not fit, and
IndexError for a row that is not there: no loop leaves its arrays.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from twotower.arrays import Bools, Embeddings, FeatureRows, Floats, Ints
from twotower.manifest import sha256

ROUNDING: Final = 1e-5
"""More than twice what an inner product of float32 is off by, of unit norm in up to 640 dimensions."""
_INT, _FLOAT, _DOUBLE, _ARRAY = ctypes.c_int64, ctypes.c_float, ctypes.c_double, ctypes.c_void_p
_BUFFER: Final = ctypes.c_char * 0
_SIGNATURES: Final = {
    "project": [
        *([_INT] * 5 + [_ARRAY] * 3),
        *(_DOUBLE, _FLOAT, _DOUBLE, _FLOAT, _FLOAT, _DOUBLE, _DOUBLE),
        *[_ARRAY] * 3,
    ],
    "best_means": [_INT, _INT, _ARRAY, _INT, _FLOAT, _FLOAT, _ARRAY],
    "score": [
        *(_INT, _ARRAY, _ARRAY, _ARRAY, _INT, _ARRAY, _INT, _ARRAY, _ARRAY),
        *(_INT, _FLOAT, _FLOAT, _ARRAY, _ARRAY),
    ],
    "sum_flags": [_INT, _ARRAY, _INT, _INT, _ARRAY, _ARRAY, _INT, _ARRAY, _ARRAY],
    "regress": [_INT, _ARRAY, _ARRAY, _INT, _INT, *[_ARRAY] * 4, _DOUBLE, *[_ARRAY] * 3],
    "search": [*([_INT] * 3 + [_ARRAY] * 7), _FLOAT, _INT, *[_ARRAY] * 3],
}


def _load() -> ctypes.CDLL:
    names = "libloops.so", "loops.c", "compile_loops.sh"
    file, source, script = (Path(__file__).with_name(name) for name in names)
    try:
        library = ctypes.CDLL(str(file))
    except OSError as error:
        raise ImportError(f"{file} cannot be loaded, `make loops` compiles it: {error}") from error
    try:
        digest = (ctypes.c_char * 64).in_dll(library, "source").value.decode()
    except ValueError:
        digest = "none"
    if digest != sha256(source.read_bytes() + script.read_bytes()):
        raise ImportError(f"{file} is of another {source.name}, `make loops` compiles it anew")
    for name, types in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = types, None
    return library


_LIBRARY: Final = _load()
_ROWS: Final = int(_INT.in_dll(_LIBRARY, "rows_at_once").value)


class Landmarks:
    """Vectors that users' own ones are sought on: float32 (movies, size)."""

    def __init__(self, vectors: FeatureRows) -> None:
        self._movies, self._size = vectors.shape
        self._vectors = np.zeros((_up_to(self._movies, 8), _up_to(self._size, 16)), dtype=np.float32)
        self._vectors[: self._movies, : self._size] = vectors

    def project(
        self,
        scores: FeatureRows,
        hidden: Bools,
        *,
        most_hidden: float,
        temperature: float,
        ridge: float,
        flatter: float,
        spread: float,
        longest_step: float,
        shortest_bound: float,
    ) -> FeatureRows:
        """`SoftmaxProjection.nearest`. scores, hidden: (n, movies). Gives float32 (n, size)."""
        users, (padded, width) = len(scores), self._vectors.shape
        scores, hidden = _array(scores, np.float32), _array(hidden, np.bool_)
        _check_shape(scores, (users, self._movies))
        _check_shape(hidden, (users, self._movies))
        found = np.empty((users, self._size), dtype=np.float32)
        doubles = np.empty((width + 2) * width)
        floats = np.empty(4 * padded + (width + 2 * _ROWS + 2) * width, dtype=np.float32)
        _LIBRARY.project(
            *(users, self._movies, self._size, padded, width),
            *_at(self._vectors, scores, hidden),
            *(most_hidden, temperature, ridge, flatter, spread, longest_step, shortest_bound),
            *_at(found, doubles, floats),
        )
        return found


def best_means(scores: FeatureRows, *, best: int, share: float, least: float) -> FeatureRows:
    """`features.best_scores`. scores: (n, movies). Gives float32 (n, 1)."""
    scores = _array(scores, np.float32)
    users, movies = scores.shape
    means = np.empty((users, 1), dtype=np.float32)
    _LIBRARY.best_means(users, movies, *_at(scores), best, share, least, *_at(means))
    return means


def score_landmarks(
    offsets: Ints,
    places: Ints,
    successors: FeatureRows,
    *,
    weights: Floats,
    shares: FeatureRows,
    directions: FeatureRows,
    best: int,
    share: float,
    least: float,
) -> tuple[FeatureRows, Bools]:
    """The scores of landmarks for n users, as `UserEncoder` has them, and which of them are rated.

    places, weights: (ratings,), rows of successors (movies, landmarks), landmark i at i + 1. shares:
    (n, genres). directions: (genres, landmarks). Gives float32 and bool (n, landmarks).
    """
    users, (movies, landmarks), genres = len(offsets) - 1, successors.shape, len(directions)
    offsets, places = _segments(offsets, places, movies)
    weights = _array(weights, np.float64)
    successors, shares = _array(successors, np.float32), _array(shares, np.float32)
    directions = _array(directions, np.float32)
    _check_shape(weights, places.shape)
    _check_shape(shares, (users, genres))
    _check_shape(directions, (genres, landmarks))
    scores = np.empty((users, landmarks), dtype=np.float32)
    rated = np.empty((users, landmarks), dtype=np.bool_)
    _LIBRARY.score(
        *(users, *_at(offsets, weights, places), landmarks, *_at(successors)),
        *(genres, *_at(shares, directions)),
        *(best, share, least, *_at(scores, rated)),
    )
    return scores, rated


def flag_sums(offsets: Ints, rows: Ints, flags: Bools, *, weights: Floats) -> Floats:
    """Sums of rows of flags over each segment, under each of k weights: float64 (n, k, columns).

    rows: (ratings,), of the table (movies, columns). weights: (k, ratings).
    """
    users, (movies, columns), kinds = len(offsets) - 1, flags.shape, len(weights)
    offsets, rows = _segments(offsets, rows, movies)
    weights, flags = _array(weights, np.float64), _array(flags, np.bool_)
    _check_shape(weights, (kinds, len(rows)))
    sums = np.empty((users, kinds, columns))
    _LIBRARY.sum_flags(
        *(users, *_at(offsets), kinds, len(rows), *_at(weights, rows)), columns, *_at(flags, sums)
    )
    return sums


def weighted_ridge(
    offsets: Ints,
    rows: Ints,
    table: FeatureRows,
    *,
    targets: Floats,
    weights: Floats,
    precision: Floats,
) -> FeatureRows:
    """The most probable coefficients of each segment's targets, prior mean 0: float32 (n, k).

    rows, targets, weights: (ratings,), rows of the table (movies, k). precision: (k, k), of the prior,
    in units of the noise's.
    """
    users, (movies, size) = len(offsets) - 1, table.shape
    offsets, rows = _segments(offsets, rows, movies)
    table, precision = _array(table, np.float32), _array(precision, np.float64)
    targets, weights = _array(targets, np.float64), _array(weights, np.float64)
    _check_shape(targets, rows.shape)
    _check_shape(weights, rows.shape)
    _check_shape(precision, (size, size))
    width = _up_to(size, 16)
    found = np.empty((users, size), dtype=np.float32)
    doubles = np.empty((width + 1) * width)
    floats = np.empty((width + 2 * _ROWS) * width, dtype=np.float32)
    _LIBRARY.regress(
        *(users, *_at(offsets, rows), size, width, *_at(table, targets, weights, precision)),
        *(_TINY, *_at(found, doubles, floats)),
    )
    return found


_TINY: Final = float(np.finfo(np.float64).tiny)


class Table:
    """Embeddings to search among: float32 (rows, dim), not copied where dim is a multiple of 8."""

    def __init__(self, embeddings: Embeddings) -> None:
        self._rows, self._dim = embeddings.shape
        self._embeddings = self._widened(embeddings)

    def search(
        self,
        vectors: Embeddings,
        *,
        ks: Ints,
        excluded_offsets: Ints,
        excluded: Ints,
        masks: Bools,
        mask_of: Ints,
    ) -> tuple[Ints, Embeddings, Ints]:
        """`ExactIndex.search`: rows and scores (n, largest k), and how many of each are found, (n,).

        vectors: (n, dim). ks: (n,). excluded: rows, those of search i ascending, from
        excluded_offsets[i] to excluded_offsets[i + 1]. masks: bool (m, rows), what may be found;
        mask_of: (n,), which of them holds, -1 for none.
        """
        count, most = len(vectors), int(ks.max(initial=1))
        _check_shape(vectors, (count, self._dim))
        vectors, ks = self._widened(vectors), _array(ks, np.int64)
        masks, mask_of = _array(masks, np.bool_), _array(mask_of, np.int64)
        excluded_offsets, excluded = _segments(excluded_offsets, excluded, self._rows)
        _check_shape(excluded_offsets, (count + 1,))
        _check_shape(ks, (count,))
        _check_shape(mask_of, (count,))
        _check_shape(masks, (len(masks), self._rows))
        _check_range(ks, 1, most)
        _check_range(mask_of, -1, len(masks) - 1)
        rows = np.empty((count, most), dtype=np.int64)
        scores = np.empty((count, most), dtype=np.float32)
        found = np.empty(count, dtype=np.int64)
        _LIBRARY.search(
            *(count, *self._embeddings.shape),
            *_at(self._embeddings, vectors, ks, excluded_offsets, excluded, mask_of, masks),
            *(ROUNDING, most, *_at(rows, scores, found)),
        )
        return rows, scores, found

    def best(self, vectors: Embeddings, k: int) -> Ints:
        """The k best rows for each vector: int64 (n, k). Raises ValueError where there are fewer."""
        count = len(vectors)
        rows, _, found = self.search(
            vectors,
            ks=np.full(count, k),
            excluded_offsets=np.zeros(count + 1, np.int64),
            excluded=np.empty(0, np.int64),
            masks=np.empty((0, self._rows), np.bool_),
            mask_of=np.full(count, -1),
        )
        if (found < k).any():
            raise ValueError(f"there are no {k} rows with a score, only {found.min()}")
        return rows

    def _widened(self, vectors: Embeddings) -> Embeddings:
        width = max(_up_to(self._dim, 8), 8)
        if width == self._dim:
            return _array(vectors, np.float32)
        widened = np.zeros((len(vectors), width), dtype=np.float32)
        widened[:, : self._dim] = vectors
        return widened


def _array(values: npt.NDArray[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    return np.ascontiguousarray(values, dtype=dtype)


def _at(*arrays: npt.NDArray[Any]) -> list[int]:
    return [
        # A third of the time of `array.ctypes`; a read-only array allows that alone.
        ctypes.addressof(_BUFFER.from_buffer(array.data)) if array.flags.writeable else array.ctypes.data
        for array in arrays
    ]


def _up_to(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def _segments(offsets: Ints, rows: Ints, count: int) -> tuple[Ints, Ints]:
    """Offsets (n + 1,) of segments of rows, each of them one of so many."""
    offsets, rows = _array(offsets, np.int64), _array(rows, np.int64)
    _check_offsets(offsets, len(rows))
    _check_range(rows, 0, count - 1)
    return offsets, rows


def _check_offsets(offsets: Ints, count: int) -> None:
    if offsets[0] != 0 or offsets[-1] != count or (offsets[1:] < offsets[:-1]).any():
        raise ValueError(f"offsets do not ascend from 0 to {count}, the number of rows")


def _check_shape(array: npt.NDArray[Any], shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"an array is of shape {array.shape}, not {shape}")


def _check_range(values: Ints, low: int, high: int) -> None:
    if len(values) and not low <= values.min() <= values.max() <= high:
        raise IndexError(f"{values.min()} to {values.max()}, allowed are {low} to {high}")
