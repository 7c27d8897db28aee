"""The section of a report that shows where a model places the movies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from training import plots
from training.page import Block, Cell, Section, Table
from training.plots import Points
from training.samples import movie_titles
from twotower.arrays import FeatureRows, Ints

_MAPPED: Final = 2000
"""How many movies the map shows: more are neither told apart nor quickly drawn."""
_NEIGHBOURS_OF: Final = 12
_NEIGHBOURS: Final = 3
_NO_GENRE: Final = "no genre"


def movie_map(movies: pd.DataFrame, rating_counts: Ints, embeddings: FeatureRows) -> Section:
    """The most rated movies in two dimensions, and the nearest to some of them in all.

    movies: as a `Dataset` has them. rating_counts: int64 (movies,). embeddings: float32 (movies, dim) of
    unit norm.
    """
    titles = movie_titles(movies)
    shown = np.argsort(-rating_counts, kind="stable")[:_MAPPED]
    places, kept = to_plane(embeddings[shown])
    genres = movies["genres"].tolist()
    points = Points(
        places,
        series=[genres[row][0] if genres[row] else _NO_GENRE for row in shown],
        titles=[titles[row] for row in shown],
        rating_counts=rating_counts[shown].tolist(),
    )
    return Section(
        "Map of the movies",
        f"The {len(shown):,} most rated movies by their embeddings, in the two principal components, "
        f"which keep {100 * kept:.0f} % of the variance. The colour is the first genre.",
        [
            Block("Movies by first genre", plots.point_map(points), name="map"),
            Block(
                "The most rated movies and those nearest to them, by all dimensions of the embeddings",
                table=_neighbours(embeddings[shown], points.titles),
            ),
        ],
        wide=True,
    )


def to_plane(embeddings: FeatureRows) -> tuple[FeatureRows, float]:
    """Principal components, float32 (n, 2), and the share of the variance that they keep.

    Each axis points where its largest value is: a decomposition leaves the sign open.
    """
    centred = embeddings.astype(np.float64) - embeddings.mean(axis=0, dtype=np.float64)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    places = np.zeros((len(centred), 2))
    kept = min(2, len(values))
    places[:, :kept] = left[:, :kept] * values[:kept]
    largest = np.take_along_axis(places, np.abs(places).argmax(axis=0)[None], axis=0)
    variance = float(np.sum(values**2))
    share = float(np.sum(values[:kept] ** 2)) / variance if variance else 1.0
    return (places * np.where(largest < 0, -1, 1)).astype(np.float32), share


def _neighbours(embeddings: FeatureRows, titles: Sequence[str]) -> Table:
    """The first movies beside those of the highest cosine."""
    cosines = embeddings[:_NEIGHBOURS_OF].astype(np.float64) @ embeddings.T.astype(np.float64)
    np.fill_diagonal(cosines, -np.inf)
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, : min(_NEIGHBOURS, len(titles) - 1)]
    rows = [
        [Cell(titles[movie]), *(Cell(titles[other]) for other in others)]
        for movie, others in enumerate(nearest)
    ]
    headings = ["movie", "nearest", "second", "third"][: 1 + nearest.shape[1]]
    return Table(headings, rows, words=len(headings))
