"""The kinds of NumPy arrays that are passed around."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

FeatureRows = npt.NDArray[np.float32]
"""What a tower takes: (n, width)."""

Embeddings = npt.NDArray[np.float32]
"""What a tower gives: (n, dim), each row of unit norm."""
