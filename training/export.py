"""From fitted towers to a bundle: LiteRT models, embeddings, tables, golden requests."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import keras
import numpy as np
import numpy.typing as npt
import pandas as pd
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from training.dataset import Dataset
from training.interactions import Interactions
from training.partition import divide
from training.quiet import quiet_native_stderr
from training.results import Results
from training.train import TwoHeads, TwoTowers
from twotower.arrays import Embeddings, FeatureRows, Ints
from twotower.bundle import RATING, RETRIEVAL, Bundle, write_bundle
from twotower.errors import BundleError
from twotower.features import UserEncoder
from twotower.files import temporary_folder, writing_into
from twotower.golden import EMBEDDING_TOLERANCE, GoldenUser
from twotower.histories import NO_RATINGS, Histories
from twotower.manifest import DatasetEntry, Manifest
from twotower.partition import Partition
from twotower.tables import Catalogue, UserHistories

_GOLDEN_USERS: Final = 12
_GOLDEN_RATINGS: Final = 5
_GOLDEN_PAUSE: Final = 3_600
"""How long after the last rating of all the golden users ask, seconds."""
_TOP: Final = 10
_COMPARED: Final = 4_096
"""Users whose embeddings are compared with Keras', spread over all."""
_LIBRARIES: Final = ("tensorflow", "keras", "ai-edge-litert", "numpy")


@dataclass(frozen=True)
class Exported:
    """What was written, and how closely the served towers follow Keras."""

    manifest: Manifest
    largest_difference: float
    """Largest difference of any embedding value, over all movies and up to 4,096 users."""
    distinct_movies: int
    """How many different vectors the movies have."""


def export_bundle(
    root: Path,
    towers: TwoTowers,
    dataset: Dataset,
    recipe: str,
    results: Results | None,
    *,
    extras: Mapping[str, bytes],
) -> Exported:
    """Write the bundle of towers fitted on all of `dataset`, with `extras` beside them.

    Raises BundleError where the LiteRT towers do not give what the Keras towers do, or the folder
    cannot be written.
    """
    interactions = Interactions.of(dataset)
    encoder = towers.encoder
    user_tower, item_tower = to_litert(towers.user_tower), to_litert(towers.item_tower)
    movies = embed(item_tower, towers.movie_rows)
    rated = interactions.histories()
    difference = max(
        _largest_difference("item", movies, towers.embed_movies()),
        _largest_user_difference(user_tower, towers, rated),
    )

    def embed_users(chosen: Ints) -> Embeddings:
        return _embed_users(user_tower, encoder, rated.of(chosen)).retrieval

    partition = divide(movies.retrieval, embed_users, rated)
    catalogue = _catalogue(dataset, interactions)
    histories = _user_histories(dataset, interactions)
    bundle = Bundle(
        features=encoder.spec,
        factors=encoder.factors,
        user_tower=user_tower,
        item_tower=item_tower,
        item_embeddings=movies.retrieval,
        rating_embeddings=movies.rating,
        catalogue=catalogue,
        histories=histories,
        golden=tuple(
            _golden_users(
                encoder, catalogue, histories, user_tower, movies.retrieval, partition=partition
            )
        ),
        partition=partition,
        extras={
            "user_tower.keras": _to_keras(towers.user_tower),
            "item_tower.keras": _to_keras(towers.item_tower),
            **({"evaluation.json": results.to_json(recipe)} if results else {}),
            **extras,
        },
    )
    entry = DatasetEntry(
        name=dataset.name,
        digest=dataset.digest,
        users=interactions.users,
        movies=interactions.movies,
        ratings=len(interactions),
    )
    manifest = write_bundle(
        root,
        bundle,
        recipe=recipe,
        dataset=entry,
        metrics=results.metrics(recipe) if results else {},
        libraries={name: version(name) for name in _LIBRARIES},
    )
    return Exported(manifest, difference, len(np.unique(movies.retrieval, axis=0)))


def to_litert(tower: keras.Model) -> bytes:
    """The tower as a LiteRT model, its batch size free."""
    return _exported(lambda path: tower.export(path, format="litert", verbose=False), ".tflite")


def embed(tower: bytes, features: FeatureRows) -> TwoHeads:
    """Run a LiteRT tower: float32 (n, width) to the embeddings of each head."""
    with quiet_native_stderr():
        runner = Interpreter(model_content=tower, num_threads=1).get_signature_runner()
        (name,) = runner.get_input_details()
        made = runner(**{name: features})
    return TwoHeads(made[RETRIEVAL], made.get(RATING))


def _embed_users(user_tower: bytes, encoder: UserEncoder, histories: Histories) -> TwoHeads:
    """Users' embeddings as they are served."""
    return TwoHeads.join(embed(user_tower, encoder.encode(block)) for block in histories.blocks())


def _largest_user_difference(user_tower: bytes, towers: TwoTowers, histories: Histories) -> float:
    """Between the towers' embeddings of some users; Keras' and the served one see the same rows."""
    some = np.linspace(0, len(histories) - 1, min(len(histories), _COMPARED)).astype(np.int64)
    return max(
        _largest_difference("user", embed(user_tower, rows), towers.embed_user_rows(rows))
        for block in histories.of(some).blocks()
        for rows in [towers.encoder.encode(block)]
    )


def _golden_users(
    encoder: UserEncoder,
    catalogue: Catalogue,
    histories: UserHistories,
    user_tower: bytes,
    item_embeddings: Embeddings,
    *,
    partition: Partition | None,
) -> list[GoldenUser]:
    """Known users from the shortest to the longest history, some by their first ratings, a stranger."""
    lengths = np.diff(histories.offsets)
    spread = np.linspace(0, len(histories) - 1, min(_GOLDEN_USERS, len(histories))).round().astype(int)
    chosen = np.argsort(lengths, kind="stable")[np.unique(spread)]
    spans = [slice(int(histories.offsets[u]), int(histories.offsets[u + 1])) for u in chosen]
    starts = [slice(span.start, min(span.stop, span.start + _GOLDEN_RATINGS)) for span in spans[::3]]
    as_of = int(histories.timestamps.max()) + _GOLDEN_PAUSE
    by_row = histories.rows_in(catalogue)
    rows, ratings = by_row.movie_rows, by_row.ratings

    def history(span: slice, timestamps: Ints | None) -> Histories:
        offsets = np.array([0, span.stop - span.start])
        return Histories.in_order(offsets, rows[span], ratings[span], timestamps, np.array([as_of]))

    asked = [
        *(history(span, histories.timestamps[span]) for span in spans),
        *(history(span, None) for span in starts),
        NO_RATINGS,
    ]
    embedded = embed(user_tower, encoder.encode(Histories.join(asked)))
    known = [int(histories.user_ids[user]) for user in chosen]
    return [
        _golden_user(
            user_id=known[place] if place < len(known) else None,
            as_of=as_of,
            rated=(histories.movie_ids[span], histories.ratings[span]),
            embedding=embedded.retrieval[place],
            rating=None if embedded.rating is None else embedded.rating[place],
            catalogue=catalogue,
            item_embeddings=item_embeddings,
            partition=partition,
        )
        for place, span in enumerate([*spans, *starts, slice(0, 0)])
    ]


def _golden_user(
    *,
    user_id: int | None,
    as_of: int,
    rated: tuple[Ints, npt.NDArray[np.float32]],
    embedding: Embeddings,
    rating: Embeddings | None,
    catalogue: Catalogue,
    item_embeddings: Embeddings,
    partition: Partition | None,
) -> GoldenUser:
    movie_ids, ratings = rated
    scores = (item_embeddings.astype(np.float64) * embedding).sum(axis=1).astype(np.float32)
    best = np.lexsort((catalogue.movie_ids, -scores))
    best = best[~np.isin(catalogue.movie_ids[best], movie_ids)]
    near = best if partition is None else best[partition.near(embedding, len(best))[best]]
    top = (near if len(near) >= _TOP else best)[:_TOP]
    pairs = tuple(zip(movie_ids.tolist(), ratings.tolist(), strict=True))
    return GoldenUser(
        user_id=user_id,
        ratings=pairs if user_id is None else None,
        as_of=as_of,
        retrieval=tuple(embedding.tolist()),
        rating=None if rating is None else tuple(rating.tolist()),
        excluded_movie_ids=tuple(sorted(movie_ids.tolist())),
        top_movie_ids=tuple(catalogue.movie_ids[top].tolist()),
        top_scores=tuple(scores[top].tolist()),
    )


def _catalogue(dataset: Dataset, interactions: Interactions) -> Catalogue:
    sums = interactions.movie_sums()
    return Catalogue(
        movie_ids=dataset.movies["movie_id"].to_numpy(),
        titles=tuple(dataset.movies["title"]),
        years=dataset.movies["year"].to_numpy(dtype=np.float64, na_value=np.nan),
        genres=tuple(dataset.movies["genres"]),
        rating_counts=sums.count.astype(np.int64),
        mean_ratings=sums.means() if dataset.rated else np.full(len(dataset.movies), np.nan),
        external_ids=_external_ids(dataset.movies["movie_id"], dataset.movies["external_id"]),
    )


def _user_histories(dataset: Dataset, interactions: Interactions) -> UserHistories:
    ordered = interactions.by_user()
    return UserHistories(
        user_ids=np.unique(dataset.ratings["user_id"].to_numpy()),
        offsets=interactions.histories().offsets,
        movie_ids=dataset.movies["movie_id"].to_numpy()[ordered.movie_rows],
        ratings=ordered.ratings.astype(np.float32),
        timestamps=ordered.timestamps,
        external_ids=_external_ids(dataset.users["user_id"], dataset.users["external_id"]),
    )


def _external_ids(ids: pd.Series[int], external_ids: pd.Series[str]) -> tuple[str, ...] | None:
    """What the data call movies or users; None where that is their ids."""
    named = tuple(external_ids)
    return None if named == tuple(map(str, ids)) else named


def _largest_difference(name: str, served: TwoHeads, fitted: TwoHeads) -> float:
    differences = [
        np.abs(one - other).max()
        for one, other in zip(served, fitted, strict=True)
        if one is not None and other is not None
    ]
    difference = float(np.max(differences))  # no number if any of them is none
    if not difference <= EMBEDDING_TOLERANCE:
        raise BundleError(
            f"the {name} tower gives other embeddings in LiteRT than in Keras: they differ by "
            f"{difference:.1e}, more than {EMBEDDING_TOLERANCE:.0e}"
        )
    return difference


def _to_keras(tower: keras.Model) -> bytes:
    return _exported(tower.save, ".keras")


def _exported(write: Callable[[str], object], suffix: str) -> bytes:
    """What Keras writes to a file. Raises BundleError where there is no room for it."""
    with writing_into(temporary_folder()), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"tower{suffix}"
        try:
            write(str(path))
        except tf.errors.OpError as error:  # TensorFlow has errors of its own for what the system says
            raise OSError(error.message.splitlines()[0]) from error
        return path.read_bytes()
