"""What a model recommends to a few of the users whose ratings it learned from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from training.dataset import Dataset
from training.evaluate import recommend
from training.interactions import Interactions
from training.methods import Fitted

_QUANTILES: Final = {"short": 0.1, "medium": 0.5, "long": 0.9}
_LAST_LIKES: Final = 6


@dataclass(frozen=True)
class Suggestion:
    """A recommended movie, and what its user would rate it, where the model predicts that."""

    title: str
    predicted_rating: float | None


@dataclass(frozen=True)
class Sample:
    """A user, by id and length of history, what was liked last, and what is recommended."""

    user: str
    liked: tuple[str, ...]
    """Newest first."""
    recommended: tuple[Suggestion, ...]
    """Best first."""


def sample(dataset: Dataset, interactions: Interactions, fitted: Fitted) -> tuple[Sample, ...]:
    """Recommend to a user with a short, a medium and a long history, those with a like preferred.

    interactions: the data's. fitted: what must rank, for all of its users.
    """
    users = dataset.users["external_id"].to_numpy()
    titles = movie_titles(dataset.movies)
    counts = np.bincount(interactions.user_rows, minlength=interactions.users)
    likers = np.unique(interactions.user_rows[interactions.liked])
    candidates = likers if len(likers) else np.arange(interactions.users)
    by_length = candidates[np.argsort(counts[candidates], kind="stable")]
    chosen = {
        int(by_length[round(quantile * (len(by_length) - 1))]): length
        for length, quantile in _QUANTILES.items()
    }
    return tuple(
        Sample(
            user=f"User {users[user]}, a {length} history: {_counted(counts[user], 'rating')}",
            liked=tuple(titles[movie] for movie in _last_likes(interactions, user)),
            recommended=_recommended(interactions, user, fitted, titles),
        )
        for user, length in chosen.items()
    )


def movie_titles(movies: pd.DataFrame) -> tuple[str, ...]:
    """The titles of a `Dataset`'s movies with their years, as far as there are any."""
    years = movies["year"].astype(object).where(movies["year"].notna(), None)
    titled = zip(movies["title"].replace("", "(no title)"), years, strict=True)
    return tuple(title if year is None else f"{title} ({year})" for title, year in titled)


def _last_likes(interactions: Interactions, user: int) -> list[int]:
    """Movie rows, newest first."""
    liked = (interactions.user_rows == user) & interactions.liked
    rows: list[int] = interactions.take(liked).by_user().movie_rows[::-1][:_LAST_LIKES].tolist()
    return rows


def _recommended(
    interactions: Interactions, user: int, fitted: Fitted, titles: tuple[str, ...]
) -> tuple[Suggestion, ...]:
    if fitted.scores is None:
        raise ValueError("a sample needs a method that ranks")
    asking = np.array([user])
    (best,) = recommend(fitted.scores, interactions, asking)
    movies = best[best >= 0]
    if fitted.ratings is None:
        return tuple(Suggestion(titles[movie], None) for movie in movies)
    predicted = fitted.ratings(np.repeat(asking, len(movies)), movies)
    return tuple(
        Suggestion(titles[movie], float(rating)) for movie, rating in zip(movies, predicted, strict=True)
    )


def _counted(count: int, name: str) -> str:
    return f"{count} {name}" if count == 1 else f"{count} {name}s"
