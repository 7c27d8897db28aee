from __future__ import annotations

import numpy as np
import pytest

from twotower.lookup import RowsById


@pytest.mark.parametrize("last", [89, 2**40])
def test_unknown_ids_have_no_row(last: int) -> None:
    rows = RowsById(np.array([0, 2, 5, 8, last]))
    sought = np.array([8, 3, 0, -1, last, last + 1, 2**63 - 1, -(2**63), 2, 8])
    assert rows.of(sought).tolist() == [3, -1, 0, -1, 4, -1, -1, -1, 1, 3]
    assert rows.of(sought[:0]).dtype == np.int64
