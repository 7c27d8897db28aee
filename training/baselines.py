"""What a model has to beat: rankings and predicted ratings without towers.

Their settings were chosen on the validation parts of ml-latest-small; the defaults of the libraries are
far behind.
"""

from __future__ import annotations

import warnings
from typing import Any, Final

import numpy as np
import pandas as pd
import scipy.sparse as sp
from surprise import SVD, Dataset, Reader
from threadpoolctl import threadpool_limits

from training.config import load_recipe
from training.content import MovieContent
from training.interactions import Interactions
from training.methods import Fitted, Method
from training.splits import Fold
from training.stars import star_of
from training.statistics import Statistics
from training.threads import all_blas_threads, one_blas_thread
from twotower.arrays import FeatureRows, Floats, Ints

_DAMPING: Final = 5.0
_FEATURES_OF: Final = "hybrid"
_EASE_L2: Final = 150.0


def mean(fold: Fold) -> Fitted:
    """The mean of all training ratings, for every movie."""
    constant = fold.train.ratings.mean()
    return Fitted(ratings=lambda users, _: np.full(len(users), constant))


def popular(fold: Fold) -> Fitted:
    """Movies by how many users liked them, the same for everybody."""
    counts = np.asarray(_likes(fold.train).sum(axis=0), dtype=np.float32)
    return Fitted(scores=lambda users: np.tile(counts.ravel(), (len(users), 1)))


def bias(fold: Fold) -> Fitted:
    """Global mean + movie bias + user bias, each damped by five ratings.

    The movie bias is of ratings less the mean, the user bias of what that leaves (Funk 2006; Koren,
    Bell and Volinsky 2009, section "Adding biases").
    """
    train, history = fold.train, fold.history
    mean_rating = train.ratings.mean()
    movie_bias = _damped_means(train.movie_rows, train.ratings - mean_rating, train.movies)
    left = history.ratings - mean_rating - movie_bias[history.movie_rows]
    user_bias = _damped_means(history.user_rows, left, history.users)

    def ratings(users: Ints, movies: Ints) -> Floats:
        predicted: Floats = mean_rating + movie_bias[movies] + user_bias[users]
        return predicted

    return Fitted(ratings=ratings)


def svd(fold: Fold) -> Fitted:
    """Biased matrix factorisation by SGD, 100 factors (Funk 2006), by Surprise.

    It can only answer for users it learned from, and so learns from the history as well.
    """
    known = fold.known
    star = star_of(known.scale)  # its learning rate is made for these: on 0 to 100 it would go astray
    stars = known.ratings / star
    low, high = float(stars.min()), float(stars.max())
    table = pd.DataFrame({"user": known.user_rows, "movie": known.movie_rows, "rating": stars})
    trainset = Dataset.load_from_df(table, Reader(rating_scale=(low, high))).build_full_trainset()
    model = SVD(n_epochs=50, lr_all=0.01, reg_all=0.1, random_state=0).fit(trainset)

    def ratings(users: Ints, movies: Ints) -> Floats:
        pairs = zip(users.tolist(), movies.tolist(), strict=True)
        return np.array([model.predict(user, movie).est for user, movie in pairs]) * star

    return Fitted(ratings=ratings)


def hgb(content: MovieContent) -> Method:
    """Gradient-boosted trees on the hybrid recipe's own features (Ke et al. 2017), by scikit-learn."""

    def fitted(fold: Fold) -> Fitted:
        from sklearn.ensemble import HistGradientBoostingRegressor  # noqa: PLC0415

        train = fold.train.by_user()
        recipe = load_recipe(_FEATURES_OF)
        statistics = Statistics.of(train, content, _DAMPING, recipe.hybrid, bounds=recipe.bounds)
        learned = statistics.learned
        model = HistGradientBoostingRegressor(
            max_iter=200, max_leaf_nodes=8, min_samples_leaf=200, early_stopping=False, random_state=0
        )
        with threadpool_limits(1, "openmp"):  # beside other work its threads only wait for each other
            model.fit(np.hstack(statistics.leaving_out(np.arange(len(learned)))), learned.ratings)
        users = statistics.user_rows(fold.history.histories())
        movies = statistics.movie_rows

        def ratings(user_rows: Ints, movie_rows: Ints) -> Floats:
            return np.asarray(model.predict(np.hstack([users[user_rows], movies[movie_rows]])))

        return Fitted(ratings=ratings)

    return fitted


def item_knn(fold: Fold) -> Fitted:
    """Movies like those the user liked, by the cosine of who liked them (Sarwar et al. 2001).

    Likes weigh less the more a user has of them (tf-idf), by implicit.
    """
    from implicit.nearest_neighbours import TFIDFRecommender  # noqa: PLC0415

    model = TFIDFRecommender(K=100, num_threads=1)
    _fit_implicit(model, fold)
    history = _likes(fold.history)
    return Fitted(scores=lambda users: (history[users] @ model.similarity).toarray().astype(np.float32))


@one_blas_thread()  # or its threads would fight those of the library
def ials(fold: Fold) -> Fitted:
    """Implicit alternating least squares, 128 factors (Hu, Koren and Volinsky 2008), by implicit."""
    from implicit.als import AlternatingLeastSquares  # noqa: PLC0415

    model = AlternatingLeastSquares(
        factors=128, alpha=4.0, regularization=16.0, iterations=15, num_threads=1, random_state=0
    )
    _fit_implicit(model, fold)
    users = model.recalculate_user(np.arange(fold.history.users), _likes(fold.history))
    return Fitted(scores=lambda rows: users[rows] @ model.item_factors.T)


@all_blas_threads()
def ease(fold: Fold) -> Fitted:
    """Embarrassingly shallow autoencoder (Steck 2019), by its dual: a users x users inverse.

    B = I - P / diag(P) with P = (X'X + λI)^-1, and a user's scores are their likes times B.
    """
    liked = _likes(fold.train)
    liked = liked[np.flatnonzero(np.diff(liked.indptr))]
    gram = (liked @ liked.T).toarray() + _EASE_L2 * np.eye(liked.shape[0])
    weighted = np.linalg.solve(gram, liked.toarray())  # (XX' + λI)^-1 X
    diagonal = (1 - np.asarray(liked.multiply(weighted).sum(axis=0)).ravel()) / _EASE_L2
    history = _likes(fold.history)

    def scores(users: Ints) -> FeatureRows:
        given = history[users]
        projected = (given.toarray() - (given @ liked.T) @ weighted) / _EASE_L2
        scored: FeatureRows = (given.toarray() - projected / diagonal).astype(np.float32)
        return scored

    return Fitted(scores=scores)


def _fit_implicit(model: Any, fold: Fold) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Method expects CSR")  # of a matrix that it made itself
        model.fit(_likes(fold.train), show_progress=False)


def _likes(interactions: Interactions) -> sp.csr_matrix:
    """Who liked what: float32 (users, movies) of ones."""
    return interactions.take(interactions.liked).matrix()


def _damped_means(rows: Ints, values: Floats, length: int) -> Floats:
    totals = np.bincount(rows, weights=values, minlength=length).astype(np.float64)
    return totals / (np.bincount(rows, minlength=length) + _DAMPING)
