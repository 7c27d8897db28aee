"""Retrieval as a service: from a user's embedding to the movies nearest to it."""

import os

# A batch is too small to be worth two threads: they only wait for each other, at twice the work.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
