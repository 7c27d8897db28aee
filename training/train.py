"""Fitting a recipe: from a training part to two towers and what feeds them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple, Self

import keras
import numpy as np
import tensorflow as tf

from training.checkpoint import NOWHERE, Checkpoint
from training.config import Recipe, Watch
from training.content import MovieContent
from training.interactions import Interactions
from training.methods import Fitted
from training.rating import RatingTowers, fit_rating
from training.retrieval import RetrievalTowers, fit_retrieval
from training.statistics import Statistics
from training.towers import join_heads
from twotower.arrays import Embeddings, FeatureRows, Floats, Ints
from twotower.bundle import RATING, RETRIEVAL
from twotower.features import UserEncoder
from twotower.histories import RATINGS_AT_ONCE, Histories


class TwoHeads(NamedTuple):
    """Embeddings of users or movies, float32 (n, dim) of unit norm; without `rating`, one does both."""

    retrieval: Embeddings
    rating: Embeddings | None

    @classmethod
    def join(cls, blocks: Iterable[Self]) -> Self:
        """The embeddings of all blocks, one after the other; there is one at least."""
        retrieval, rating = zip(*blocks, strict=True)
        return cls(np.concatenate(retrieval), None if rating[0] is None else np.concatenate(rating))


@dataclass(frozen=True)
class TwoTowers:
    """Fitted towers beside what feeds them. Both give a dict of embeddings by the head's name.

    movie_rows: float32 (movies, width), the item tower's input.
    """

    encoder: UserEncoder
    movie_rows: FeatureRows
    user_tower: keras.Model
    item_tower: keras.Model
    epochs: int
    """How many epochs the weights have seen."""

    def embed_users(self, histories: Histories) -> TwoHeads:
        """Embeddings of users with these ratings."""
        blocks = histories.blocks()
        return TwoHeads.join(self.embed_user_rows(self.encoder.encode(block)) for block in blocks)

    def embed_user_rows(self, rows: FeatureRows) -> TwoHeads:
        """Embeddings of users encoded as float32 (n, width)."""
        return _embed(self.user_tower, rows)

    def embed_movies(self) -> TwoHeads:
        """Embeddings of every movie."""
        return _embed(self.item_tower, self.movie_rows)

    def asked_by(self, histories: Histories) -> Fitted:
        """Scores and ratings for users with these ratings, of whom only those asked for are embedded."""
        movies = self.embed_movies()
        rating_movies = movies.retrieval if movies.rating is None else movies.rating
        predicts = self.encoder.spec.predicts_ratings

        def scores(user_rows: Ints) -> FeatureRows:
            return self.embed_users(histories.of(user_rows)).retrieval @ movies.retrieval.T

        def ratings(user_rows: Ints, movie_rows: Ints) -> Floats:
            if not len(user_rows):  # who has rated everything; layers fail on no rows at all
                return np.zeros(0)
            asking, places = np.unique(user_rows, return_inverse=True)
            users = self.embed_users(histories.of(asking))
            rating_users = users.retrieval if users.rating is None else users.rating
            cosines = [
                (rating_users[places[some]] * rating_movies[movie_rows[some]]).sum(axis=1)
                for start in range(0, len(places), RATINGS_AT_ONCE)
                for some in [slice(start, start + RATINGS_AT_ONCE)]
            ]
            return self.encoder.spec.unscale_ratings(np.concatenate(cosines))

        return Fitted(scores=scores, ratings=ratings if predicts else None)


def fit(
    train: Interactions,
    content: MovieContent,
    recipe: Recipe,
    *,
    seed: int,
    validation: Interactions | None = None,
    epochs: int | None = None,
    watch: Watch = lambda *_: nullcontext(_unwatched),
    checkpoint: Checkpoint = NOWHERE,
) -> TwoTowers:
    """Fit both towers of a recipe.

    With `validation`, the fit to ratings stops early, and the weights are those of the best epoch;
    without, it runs for `epochs` (default: the recipe's maximum). The same seed gives the same weights,
    and so does a fit that goes on from the `checkpoint` of one that was interrupted.
    Raises TrainingError where the loss is no number any more.
    """
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    hybrid = recipe.hybrid
    train = train.by_user() if hybrid else train
    statistics = Statistics.of(train, content, recipe.features.damping, hybrid, bounds=recipe.bounds)
    history = statistics.spec.history

    def rating_towers() -> RatingTowers:
        return fit_rating(
            statistics,
            recipe,
            seed=seed,
            validation=validation,
            epochs=epochs,
            watch=watch,
            checkpoint=checkpoint.within("ratings"),
        )

    if hybrid is None or history is None:
        rating = rating_towers()
        encoder, movie_rows = statistics.encoder(), statistics.movie_rows
        return _of_one_head(encoder, encoder.columns.rating, movie_rows, rating, rating.epochs)
    rated = rating_towers() if statistics.spec.predicts_ratings else None
    ranked = fit_retrieval(
        statistics,
        history,
        recipe.towers,
        hybrid,
        recipe.bounds,
        seed=seed,
        watch=watch,
        checkpoint=checkpoint.within("ranking"),
    )
    if rated is not None:
        return _of_two_heads(statistics, rated, ranked)
    encoder, of_user = ranked.encoder, ranked.encoder.columns.retrieval
    return _of_one_head(encoder, of_user, ranked.movie_rows, ranked, hybrid.retrieval.epochs)


def _unwatched(_epoch: int, _loss: float, _validation_loss: float | None) -> None:
    """Nobody looks on."""


def _of_one_head(
    encoder: UserEncoder,
    of_user: slice,
    movie_rows: FeatureRows,
    fitted: RatingTowers | RetrievalTowers,
    epochs: int,
) -> TwoTowers:
    """Towers whose one embedding ranks, and rates where ratings are predicted."""
    user_tower = join_heads("user", encoder.columns.width, {RETRIEVAL: (of_user, fitted.user)})
    width = movie_rows.shape[1]
    item_tower = join_heads("item", width, {RETRIEVAL: (slice(0, width), fitted.item)})
    return TwoTowers(encoder, movie_rows, user_tower, item_tower, epochs)


def _of_two_heads(statistics: Statistics, rated: RatingTowers, ranked: RetrievalTowers) -> TwoTowers:
    of_user = ranked.encoder.columns
    width = statistics.movie_rows.shape[1]
    movie_rows = np.column_stack([statistics.movie_rows, ranked.movie_rows])
    user_tower = join_heads(
        "user",
        of_user.width,
        {RETRIEVAL: (of_user.retrieval, ranked.user), RATING: (of_user.rating, rated.user)},
    )
    item_tower = join_heads(
        "item",
        movie_rows.shape[1],
        {RETRIEVAL: (slice(width, None), ranked.item), RATING: (slice(0, width), rated.item)},
    )
    return TwoTowers(ranked.encoder, movie_rows, user_tower, item_tower, rated.epochs)


def _embed(tower: keras.Model, rows: FeatureRows) -> TwoHeads:
    made = {name: np.asarray(embeddings) for name, embeddings in tower(rows).items()}
    return TwoHeads(made[RETRIEVAL], made.get(RATING))
