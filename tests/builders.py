"""A small made-up model, for tests that need a bundle but no trained towers."""

from __future__ import annotations

import errno
import hashlib
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from hypothesis import settings

from training.dataset import Dataset
from twotower.arrays import Embeddings
from twotower.bundle import Bundle, write_bundle
from twotower.features import FeatureSpec
from twotower.files import write_atomically
from twotower.golden import GoldenUser
from twotower.manifest import MANIFEST, DatasetEntry, FileEntry, read_manifest
from twotower.statistics import MovieSums, UserSums
from twotower.tables import Catalogue, UserHistories

LAW: Final = settings(deadline=None, max_examples=60)
"""How often a law is tried, and no time limit for a try: machines differ."""

QUICK_RECIPE: Final = """
description = "small and quick, for tests"
features.damping = 5.0
towers.hidden = [32, 16]
towers.dim = 32
fit.learning_rate = 3e-3
fit.batch_size = 128
fit.max_epochs = 3
fit.patience = 1
"""

DIM: Final = 8
RATING_SCALE: Final = (0.5, 5.0)
GENRES: Final = ("Action", "Comedy", "Drama", "Sci-Fi")

MOVIES: Final[tuple[tuple[int, str, int | None, tuple[str, ...]], ...]] = (
    (1, "Toy Story", 1995, ("Comedy",)),
    (2, "Heat", 1995, ("Action", "Drama")),
    (5, "Amélie", 2001, ("Comedy",)),
    (8, "Matrix, The", 1999, ("Action", "Sci-Fi")),
    (13, "Solaris", 1972, ("Drama", "Sci-Fi")),
    (21, "Babylon 5", None, ("Drama", "Sci-Fi")),
    (34, "", 1960, ("Drama",)),
    (55, "Koyaanisqatsi", 1982, ()),
    (89, 'Mission: "Impossible"', 1996, ("Action",)),
    (144, "Solaris", 2002, ("Drama", "Sci-Fi")),
    (233, "2001: A Space Odyssey", 1968, ("Sci-Fi",)),
    (2**40, "Alphaville, une étrange aventure", 1965, ("Sci-Fi", "Drama")),
)
MOVIE_IDS: Final = np.array([movie_id for movie_id, *_ in MOVIES], dtype=np.int64)
AS_OF: Final = 1_500_003_600
"""When the golden users ask."""
UNRATED: Final = 233
"""The movie that nobody has rated."""
TWINS: Final = (4, 9)
"""The rows of two movies that lie on the same point."""

RATING_COUNTS: Final = {3: 4, 7: 2, 10: 6, 42: 1, 2**33: 3}
"""The users, and how many movies each has rated."""


def unit_rows(generator: np.random.Generator, rows: int, dim: int = DIM) -> Embeddings:
    """Random vectors of unit norm: float32 (rows, dim)."""
    vectors = generator.normal(size=(rows, dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def rank(
    embeddings: Embeddings, query: npt.NDArray[np.float32], rows: Iterable[int]
) -> list[tuple[int, float]]:
    """Every one of `rows` with its score, best first, equal scores by row: what a search must find.

    Scores are summed without rounding, and then rounded to float32 once.
    """
    products = embeddings.astype(np.float64) * query  # exact: float32 has half the digits
    scores = {row: float(np.float32(math.fsum(products[row].tolist()))) for row in rows}
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


def make_dataset(name: str, digest: str, ratings: pd.DataFrame, movies: pd.DataFrame) -> Dataset:
    """A data set of these tables, as if it had been read without a fault."""
    user_ids = np.unique(ratings["user_id"].to_numpy())
    return Dataset(
        name,
        digest,
        ratings,
        movies.assign(external_id=movies["movie_id"].astype("str")),
        pd.DataFrame({"user_id": user_ids, "external_id": user_ids.astype("str")}),
        allowed=None,
        timed=True,
        rated=True,
        files=(),
        findings=(),
    )


def make_histories() -> UserHistories:
    """Half-star ratings of `RATING_COUNTS`' users, of any movie but `UNRATED`."""
    generator = np.random.default_rng(1)
    counts = list(RATING_COUNTS.values())
    rateable = MOVIE_IDS[MOVIE_IDS != UNRATED]
    rated = [generator.choice(rateable, count, replace=False) for count in counts]
    return UserHistories(
        user_ids=np.array(list(RATING_COUNTS), dtype=np.int64),
        offsets=np.cumsum([0, *counts], dtype=np.int64),
        movie_ids=np.concatenate(rated),
        ratings=(generator.integers(1, 11, sum(counts)) / 2).astype(np.float32),
        timestamps=1_500_000_000 + np.arange(sum(counts), dtype=np.int64),
    )


def make_catalogue(histories: UserHistories) -> Catalogue:
    """`MOVIES`, with the counts and means of these ratings."""
    sums = movie_sums(histories)
    return Catalogue(
        movie_ids=MOVIE_IDS,
        titles=tuple(title for _, title, _, _ in MOVIES),
        years=np.array([np.nan if year is None else year for _, _, year, _ in MOVIES]),
        genres=tuple(genres for *_, genres in MOVIES),
        rating_counts=sums.count.astype(np.int64),
        mean_ratings=sums.means(),
    )


def movie_sums(histories: UserHistories) -> MovieSums:
    """The sums of these ratings by row of `MOVIES`."""
    rows = np.searchsorted(MOVIE_IDS, histories.movie_ids)
    return MovieSums.of(rows, histories.ratings.astype(np.float64), len(MOVIES))


def make_bundle(seed: int = 0) -> Bundle:
    """A bundle of which nothing but the embeddings depends on the seed.

    Its towers are no models; its golden users are a known one, one with ratings, and one without.
    """
    generator = np.random.default_rng(seed)
    histories = make_histories()
    catalogue = make_catalogue(histories)
    genres = catalogue.genre_matrix(GENRES)
    embeddings = unit_rows(generator, len(MOVIES))
    embeddings[TWINS[1]] = embeddings[TWINS[0]]
    first = histories.movie_ids[: histories.offsets[1]]
    given = ((2, 4.5), (13, 1.0))
    return Bundle(
        features=FeatureSpec.fit(
            genres=GENRES,
            rating_scale=RATING_SCALE,
            damping=5.0,
            users=UserSums.of(histories.rows_in(catalogue), genres),
            movies=movie_sums(histories),
            years=catalogue.years,
            movie_genres=genres,
        ),
        factors=None,
        user_tower=b"a user tower",
        item_tower=b"an item tower",
        item_embeddings=embeddings,
        rating_embeddings=None,
        catalogue=catalogue,
        histories=histories,
        golden=(
            _record(embeddings, generator, sorted(first.tolist()), user_id=int(histories.user_ids[0])),
            _record(embeddings, generator, [movie_id for movie_id, _ in given], ratings=given),
            _record(embeddings, generator, [], ratings=()),
        ),
    )


def _record(
    embeddings: Embeddings, generator: np.random.Generator, rated: list[int], **user: Any
) -> GoldenUser:
    retrieval = unit_rows(generator, 1)[0]
    best = rank(embeddings, retrieval, np.flatnonzero(~np.isin(MOVIE_IDS, rated)).tolist())[:5]
    return GoldenUser(
        as_of=AS_OF,
        retrieval=tuple(retrieval.tolist()),
        excluded_movie_ids=tuple(rated),
        top_movie_ids=tuple(int(MOVIE_IDS[row]) for row, _ in best),
        top_scores=tuple(score for _, score in best),
        **user,
    )


def write(root: Path, bundle: Bundle, metrics: Mapping[str, float] | None = None) -> str:
    """Write a bundle into `root`; its version."""
    manifest = write_bundle(
        root,
        bundle,
        recipe="made-up",
        dataset=DatasetEntry(name="made-up", digest="0" * 64, users=5, movies=len(MOVIES), ratings=16),
        metrics=metrics or {"ndcg": 0.25},
        libraries={"numpy": np.__version__},
    )
    return manifest.model_version


def forge(
    root: Path, model_version: str, files: Mapping[str, bytes | None] | None = None, **fields: Any
) -> str:
    """Change files (None: remove) and manifest fields of a bundle, and seal it anew; its new version.

    Every digest is right afterwards, so that what is refused is the content.
    """
    folder = root / model_version
    manifest = read_manifest(root, model_version)
    entries = dict(manifest.files)
    for name, content in (files or {}).items():
        if content is None:
            (folder / name).unlink()
            del entries[name]
        else:
            write_atomically(folder / name, content)
            entries[name] = FileEntry(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
    if "features.json" in entries:
        fields = {"feature_spec_digest": entries["features.json"].sha256, **fields}
    draft = manifest.model_copy(update={"files": entries, **fields})
    named = draft.model_copy(update={"model_version": draft.computed_version()})
    sealed = named.model_copy(update={"digest": named.computed_digest()})
    write_atomically(folder / MANIFEST, sealed.model_dump_json().encode())
    folder.rename(root / sealed.model_version)
    return sealed.model_version


def damage(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def disk_is_full(_descriptor: int) -> None:
    """In place of `os.fsync`."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self._path),)
