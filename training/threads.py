"""How many threads BLAS computes in: one for many small products, all there are for a large one.

Threads that share a small product wait for each other in a loop, at the cost of a core each; beside
other work on the same cores that made sums over ratings ten times slower.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np  # noqa: F401 - their BLAS libraries must be loaded to be asked
import scipy.linalg  # noqa: F401
from threadpoolctl import threadpool_info, threadpool_limits

_BLAS: Final = "blas"
_ALL: Final = max(
    (pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == _BLAS), default=1
)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Within the block, or the function that it decorates, who asks for a product computes it alone."""
    with threadpool_limits(1, _BLAS):
        yield


@contextmanager
def all_blas_threads() -> Iterator[None]:
    """Within the block, or the function that it decorates, as if nothing had been limited."""
    with threadpool_limits(_ALL, _BLAS):
        yield
