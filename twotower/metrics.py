"""Prometheus metrics, of the same names in every process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("twotower_requests", "Requests by method and outcome.", ["method", "code"])
STAGE_SECONDS = Histogram(
    "twotower_stage_seconds",
    "Seconds spent by stage of a request.",
    ["stage"],
    buckets=(1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
BATCH_SIZE = Histogram(
    "twotower_batch_size",
    "Rows that went together.",
    ["method"],
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
)
MODELS = Gauge(
    "twotower_model",
    "1 for each model version known, by state: preferred, loaded or refused.",
    ["model_version", "state"],
)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Time the block as a stage of a request."""
    start = time.perf_counter()
    try:
        yield
    finally:
        STAGE_SECONDS.labels(name).observe(time.perf_counter() - start)
