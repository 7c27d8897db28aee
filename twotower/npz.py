"""Arrays by name in one file, read without pickle."""

from __future__ import annotations

import io
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from twotower.errors import BundleError

_UNREADABLE = (
    *(ValueError, KeyError, OSError, EOFError, MemoryError, SyntaxError, tokenize.TokenError),
    *(zipfile.BadZipFile, zlib.error, RuntimeError),
)
"""What NumPy and its helpers raise for a file that is none of theirs, or damaged."""


def write_arrays(arrays: Mapping[str, Any]) -> bytes:
    """An uncompressed npz."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def read_arrays(
    file: str, content: bytes, names: Sequence[str] | None = None
) -> dict[str, npt.NDArray[Any]]:
    """The arrays of these names, or all there are.

    Raises BundleError naming `file` where they cannot be read.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise BundleError(f"{file}: is compressed, and could be of any size")
        with np.lib.npyio.NpzFile(io.BytesIO(content), allow_pickle=False) as arrays:
            read = {name: arrays[name] for name in names or arrays.files}
    except _UNREADABLE as error:
        raise BundleError(f"{file}: {error}") from error
    for name, array in read.items():
        if not isinstance(array, np.ndarray):
            raise BundleError(f"{file}: {name} is not an array")
    return read
