"""What a model has to beat: ratings predicted without towers."""

from __future__ import annotations

import numpy as np
import pandas as pd
from surprise import SVD, Dataset, Reader

from training.interactions import Interactions
from twotower.features import Floats, Ints

_DAMPING = 5.0


def global_mean(train: Interactions, test: Interactions) -> Floats:
    """The mean of all training ratings, for every test rating: float64 (test,)."""
    return np.full(len(test), train.ratings.mean(), dtype=np.float64)


def damped_bias(train: Interactions, test: Interactions) -> Floats:
    """Global mean + movie bias + user bias, each damped by five ratings: float64 (test,).

    The movie bias is of ratings less the mean, the user bias of what that leaves (Funk 2006; Koren,
    Bell and Volinsky 2009, section "Adding biases").
    """
    mean = train.ratings.mean()
    movie_bias = _damped_means(train.movie_rows, train.ratings - mean, train.movies)
    left = train.ratings - mean - movie_bias[train.movie_rows]
    user_bias = _damped_means(train.user_rows, left, train.users)
    predicted: Floats = mean + movie_bias[test.movie_rows] + user_bias[test.user_rows]
    return predicted


def svd(train: Interactions, test: Interactions) -> Floats:
    """Biased matrix factorisation by SGD, 100 factors (Funk 2006), by Surprise: float64 (test,).

    Its steps and regularisation were chosen on the validation parts of ml-latest-small: the defaults
    of the library are far behind.
    """
    low, high = float(train.ratings.min()), float(train.ratings.max())
    table = pd.DataFrame({"user": train.user_rows, "movie": train.movie_rows, "rating": train.ratings})
    trainset = Dataset.load_from_df(table, Reader(rating_scale=(low, high))).build_full_trainset()
    model = SVD(n_epochs=50, lr_all=0.01, reg_all=0.1, random_state=0).fit(trainset)
    pairs = zip(test.user_rows.tolist(), test.movie_rows.tolist(), strict=True)
    return np.array([model.predict(user, movie).est for user, movie in pairs])


def _damped_means(rows: Ints, values: Floats, length: int) -> Floats:
    totals = np.bincount(rows, weights=values, minlength=length).astype(np.float64)
    return totals / (np.bincount(rows, minlength=length) + _DAMPING)
