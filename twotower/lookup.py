"""Rows by id."""

from __future__ import annotations

from typing import Final

import numpy as np

from twotower.arrays import Ints

_SPARSEST: Final = 64
"""How many times more ids than rows a table may have; to seek an id takes 40 times as long."""


class RowsById:
    """Rows by id: read off a table, where ids leave no great gaps, or else sought among them."""

    def __init__(self, ids: Ints) -> None:
        """`ids`: int64 (rows,), at least one, ascending, none below 0."""
        self._ids = ids
        self._table: Ints | None = None
        if ids[-1] < _SPARSEST * len(ids):
            # One place more at either end, for what lies beyond.
            self._table = np.full(ids[-1] + 3, -1, dtype=np.int64)
            self._table[ids + 1] = np.arange(len(ids))

    def of(self, ids: Ints) -> Ints:
        """The rows of ids, int64 (n,); -1 for those there are none of."""
        if self._table is not None:
            return self._table.take(ids + 1, mode="clip")
        rows = self._ids[:-1].searchsorted(ids)
        return np.where(self._ids[rows] == ids, rows, -1)
