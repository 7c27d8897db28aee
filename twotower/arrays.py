"""The kinds of NumPy arrays that are passed around, and arrays as bytes."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from twotower.errors import InvalidRequest

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

FeatureRows = npt.NDArray[np.float32]
"""What a tower takes: (n, width)."""

Embeddings = npt.NDArray[np.float32]
"""What a tower gives: (n, dim), each row of unit norm."""

INT64: Final = np.dtype("<i8")
FLOAT32: Final = np.dtype("<f4")


def array_of(path: str, content: bytes, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The array (n,) of these bytes, read-only. Raises InvalidRequest naming the field, `path`."""
    if len(content) % dtype.itemsize:
        raise InvalidRequest(
            f"{path}: has {len(content)} bytes, allowed are multiples of {dtype.itemsize}", field=path
        )
    return np.frombuffer(content, dtype)


def bytes_of(array: npt.NDArray[Any], dtype: np.dtype[Any]) -> bytes:
    """The bytes of an array (n,), of a type that `array_of` reads."""
    return array.astype(dtype, copy=False).tobytes()
