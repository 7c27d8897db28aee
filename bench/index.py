"""How fast movies are found, and how many of the best: this index beside FAISS's and other libraries'.

Vectors are made up, in clusters of unequal width, as learned ones are. Each index is built in a process
of its own, given the least effort that finds so much of the exact top 10, and timed in one thread.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Final

import faiss
import numpy as np
from threadpoolctl import threadpool_limits

from bench.world import DIM, World
from retrieval_svc.approximate import ApproximateIndex
from retrieval_svc.index import ExactIndex, Rows, Search
from twotower.arrays import Embeddings
from twotower.files import write_atomically
from twotower.process import run

_BATCH: Final = 128
_EFFORTS: Final = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024)
_NEIGHBOURS: Final = 16
"""Of each movie in a graph (M)."""
_BREADTH: Final = 100
"""Of the search by which a graph is built (efConstruction)."""

Find = Callable[[Sequence[Search]], list[Rows]]
"""The rows that each search finds."""

Fetch = Callable[[Embeddings, int], Rows]
"""The rows of the k best for users (n, dim), by a library that knows of no exclusions: (n, k)."""


@dataclass(frozen=True)
class Built:
    """An index that can search; `filters` where it can search among what passes alone."""

    find: Find
    filters: bool = False


@dataclass(frozen=True)
class Measured:
    """An index of so many movies. Times are CPU microseconds a query, medians; NaN where it cannot."""

    index: str
    movies: int
    recall: float
    alone_us: float
    batch_us: float
    excluded_recall: float
    excluded_us: float
    filter_recall: float
    filter_us: float
    build_seconds: float
    megabytes: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    options = _parser().parse_args(arguments)
    for library in _LIBRARIES:
        if not importlib.util.find_spec(library):
            print(f"{library} is left out: it is not installed; requirements/bench.in has it")
    names = [name for name in options.indexes if importlib.util.find_spec(_library(name))]
    print(f"{'index':12}{''.join(f'{field.name:>17}' for field in fields(Measured)[1:])}", flush=True)
    measured: list[Measured] = []
    for movies in options.movies:
        world = World.of(movies, spread=options.spread, recall=options.recall)
        for name in names:
            with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as process:
                measured.append(process.submit(_measure, name, world).result())
            print(_line(measured[-1]), flush=True)
            if options.json:
                document = json.dumps([asdict(each) for each in measured], indent=1)
                write_atomically(options.json, document.encode() + b"\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.index", description=__doc__)
    parser.add_argument(
        "--movies",
        type=int,
        nargs="+",
        default=[10_000, 100_000],
        help="how many (default: %(default)s)",
    )
    parser.add_argument(
        "--indexes", nargs="+", choices=_INDEXES, default=[*_INDEXES], help="which (default: all)"
    )
    parser.add_argument(
        "--recall", type=float, default=0.99, help="how much is to be found (default: %(default)s)"
    )
    parser.add_argument(
        "--spread",
        type=float,
        default=0.9,
        help="how far from its middle a cluster's movies lie (default: %(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured to a file")
    return parser


def _library(index: str) -> str:
    return index if index in _LIBRARIES else "faiss"


def _line(row: Measured) -> str:
    return f"{row.index:12}" + "".join(f"{value:>17,}" for value in astuple(row)[1:])


def _measure(name: str, world: World) -> Measured:
    with threadpool_limits(1):
        before, start = _resident_megabytes(), time.process_time()
        built = _INDEXES[name](world)
        seconds, megabytes = time.process_time() - start, _resident_megabytes() - before
        plain = world.searches("plain")
        measured = {
            "recall": _recall(built.find, world, "plain"),
            "alone_us": _microseconds(built.find, plain, 1),
            "batch_us": _microseconds(built.find, plain, _BATCH),
        }
        for condition, can in (("excluded", True), ("filter", built.filters)):
            searches = world.searches(condition)
            measured[f"{condition}_recall"] = _recall(built.find, world, condition) if can else math.nan
            measured[f"{condition}_us"] = (
                _microseconds(built.find, searches, _BATCH) if can else math.nan
            )
    return Measured(
        index=name,
        movies=len(world.movies),
        build_seconds=round(seconds, 1),
        megabytes=round(megabytes, 1),
        **measured,
    )


def _recall(find: Find, world: World, condition: str) -> float:
    """The share of the exact top 10 that is found."""
    found = find(world.searches(condition))
    shares = [
        np.isin(best, rows).mean() for best, rows in zip(world.best[condition], found, strict=True)
    ]
    return round(float(np.mean(shares)), 4)


def _microseconds(find: Find, searches: Sequence[Search], size: int) -> float:
    """CPU time of one query among `size` that go together: the median over the users, three times."""
    times = []
    for start in 3 * [*range(0, len(searches), size)]:
        batch = searches[start : start + size]
        began = time.process_time()
        find(batch)
        times.append((time.process_time() - began) / len(batch))
    return round(1e6 * statistics.median(times), 1)


def _resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _with_least_effort(find: Find, world: World, set_effort: Callable[[int], object]) -> Find:
    """The same, set to find as much of the exact top 10 as the world asks for, or as it can."""
    for effort in _EFFORTS:
        set_effort(effort)
        if _recall(find, world, "plain") >= world.recall:
            break
    return find


def _dropping(fetch: Fetch) -> Find:
    """Fetches what is excluded too, and drops it."""

    def find(searches: Sequence[Search]) -> list[Rows]:
        users = np.stack([search.vector for search in searches])
        most = max(search.k + len(search.excluded) for search in searches)
        return [
            (rows[~np.isin(rows, search.excluded)] if len(search.excluded) else rows)[: search.k]
            for search, rows in zip(searches, fetch(users, most), strict=True)
        ]

    return find


def _own(index: ExactIndex | ApproximateIndex) -> Built:
    return Built(lambda searches: [hits.rows for hits in index.search(searches)], filters=True)


def _exact(world: World) -> Built:
    return _own(ExactIndex(world.movies))


def _divided(world: World) -> Built:
    partition = world.partition(least_movies=1)
    return _exact(world) if partition is None else _own(ApproximateIndex(world.movies, partition))


def _faiss_built(world: World, description: str, effort: str, **parameters: float) -> Built:
    index = faiss.index_factory(DIM, description, faiss.METRIC_INNER_PRODUCT)
    index.train(world.movies)
    index.add(world.movies)
    space = faiss.ParameterSpace()
    for name, value in parameters.items():
        space.set_index_parameter(index, name, value)
    find = _dropping(lambda users, k: index.search(users, k)[1])
    if effort:
        _with_least_effort(find, world, lambda value: space.set_index_parameter(index, effort, value))
    return Built(find)


def _cells(world: World) -> int:
    """As many as are tried second when a model is exported."""
    return 8 * math.isqrt(len(world.movies))


def _quantized(world: World) -> Built:
    """Sixteen bytes a movie are looked through, the best of these ranked by their vectors."""
    return _faiss_built(world, f"IVF{_cells(world)},PQ16x4fs,RFlat", "nprobe", k_factor_rf=64)


def _hnswlib(world: World) -> Built:
    index = importlib.import_module("hnswlib").Index("ip", DIM)
    index.init_index(len(world.movies), ef_construction=_BREADTH, M=_NEIGHBOURS)
    index.set_num_threads(1)
    index.add_items(world.movies)
    set_effort = index.set_ef

    def fetch(users: Embeddings, k: int) -> Rows:
        rows: Rows = index.knn_query(users, k)[0].astype(np.int64)
        return rows

    return Built(_with_least_effort(_dropping(fetch), world, set_effort))


def _usearch(world: World) -> Built:
    index = importlib.import_module("usearch.index").Index(
        ndim=DIM, metric="ip", dtype="f32", connectivity=_NEIGHBOURS, expansion_add=_BREADTH
    )
    index.add(np.arange(len(world.movies)), world.movies, threads=1)

    def set_effort(effort: int) -> None:
        index.expansion_search = effort

    def fetch(users: Embeddings, k: int) -> Rows:
        rows: Rows = index.search(users, k, threads=1).keys.astype(np.int64)
        return rows.reshape(len(users), -1)

    return Built(_with_least_effort(_dropping(fetch), world, set_effort))


def _voyager(world: World) -> Built:
    voyager = importlib.import_module("voyager")
    index = voyager.Index(voyager.Space.InnerProduct, DIM, M=_NEIGHBOURS, ef_construction=_BREADTH)
    index.add_items(world.movies, num_threads=1)
    effort = [1]

    def fetch(users: Embeddings, k: int) -> Rows:
        rows: Rows = index.query(users, k, num_threads=1, query_ef=max(k, effort[0]))[0].astype(np.int64)
        return rows

    def set_effort(value: int) -> None:
        effort[0] = value

    return Built(_with_least_effort(_dropping(fetch), world, set_effort))


_LIBRARIES: Final = ("hnswlib", "usearch", "voyager")
_INDEXES: Final[dict[str, Callable[[World], Built]]] = {
    "exact": _exact,
    "divided": _divided,
    "faiss flat": lambda world: _faiss_built(world, "Flat", ""),
    "faiss ivf": lambda world: _faiss_built(world, f"IVF{_cells(world)},Flat", "nprobe"),
    "faiss hnsw": lambda world: _faiss_built(world, f"HNSW{_NEIGHBOURS},Flat", "efSearch"),
    "faiss ivf-pq": _quantized,
    "hnswlib": _hnswlib,
    "usearch": _usearch,
    "voyager": _voyager,
}


if __name__ == "__main__":
    run(main)
