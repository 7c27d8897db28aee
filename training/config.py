"""Recipes: how a model is built and fitted, read from TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any, Final, Self

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from training.stars import MOST
from twotower.arrays import Ints
from twotower.errors import SettingsError
from twotower.features import HistoryRules

_RECIPES: Final = Path(__file__).parent / "recipes"

OnEpoch = Callable[[int, float, float | None], None]
"""Called after each epoch with its number (from 1), training loss, and validation loss if any."""

Watch = Callable[[str, int, str], AbstractContextManager[OnEpoch]]
"""Called before each stage of a fit with its name, the epochs it has at most, and what its loss is."""

_BESIDE_FACTORS: Final = 3
"""Coordinates of a rating embedding that are no factors: a constant, and one to fill up each side."""

Positive = Annotated[int, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FeatureConfig(_Section):
    """How ratings become features."""

    damping: Annotated[float, Field(ge=0)]
    """How many ratings at the global mean a user's or a movie's mean is damped by."""


class TowerConfig(_Section):
    """The shape of both towers."""

    hidden: tuple[Positive, ...]
    """Units of the hidden layers, relu."""
    dim: Positive
    """Length of the embeddings."""


class FitConfig(_Section):
    """How the towers are fitted to ratings."""

    learning_rate: Annotated[float, Field(gt=0)]
    batch_size: Positive
    max_epochs: Positive
    patience: Positive | None = None
    """Epochs without a lower validation loss after which training stops. Without it, all epochs are
    run, while the learning rate falls to a twentieth along a cosine, or the weights are averaged."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    unrated: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The share of ratings whose movie is shown as if nobody had rated it, as new movies are
    (as in DropoutNet: Volkovs, Yu and Poutanen, 2017)."""
    averaging: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Set where the weights are a running mean over the steps, of which this much is kept at each
    (Polyak and Juditsky, 1992); the learning rate then stays what it is."""

    @model_validator(mode="after")
    def _ends_in_one_way(self) -> Self:
        if self.patience and self.averaging:
            raise ValueError("averaging: allowed is none where there is patience")
        return self


class FactorConfig(_Section):
    """How the factors are found that ratings are predicted by in closed form."""

    svd: Positive
    """Dimensions of who rated what."""
    factors: Positive
    """Dimensions of how it was rated, that users and movies are left with."""
    damping: Annotated[float, Field(gt=0)]
    """How many ratings at the mean a bias is damped by."""
    taste_penalty: Annotated[float, Field(gt=0)]
    """The same for each coefficient of a movie on its raters, before that is learned."""
    content_penalty: Annotated[float, Field(gt=0)]
    """For each coefficient of a user on genres, year and popularity."""
    user_taste_penalty: Annotated[float, Field(gt=0)]
    """For each coefficient of a user on who else rated the movie."""
    noise: Annotated[float, Field(gt=0)]
    """The variance of a rating around the best prediction, in stars of five."""
    movie_steps: Positive
    """Steps of expectation maximisation for what movies have in common."""
    user_steps: Positive


class DescentConfig(_Section):
    """How dense layers learn by AdamW from what a closed form says."""

    learning_rate: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    """Of the input of the user tower's hidden layers, or of the output of those that place movies."""
    batch_size: Positive
    epochs: Positive


class RetrievalConfig(DescentConfig):
    """How the retrieval embedding is made: a closed form, and towers that learn from it."""

    min_likes: Positive
    """Movies with fewer likes are placed by their content."""
    near: Annotated[float, Field(gt=0)]
    """Ratings of a user that are this many apart are a third as close as neighbours."""
    far_weight: Annotated[float, Field(ge=0, le=1)]
    """What a pair of ratings far apart counts for."""
    forward: Annotated[float, Field(ge=0, le=1)]
    """How much more a pair counts where the movie predicted was rated after, and less where before."""
    neutral_target: Annotated[float, Field(ge=0, le=1)]
    """How much a rating that is no like, nor a dislike, is worth predicting, as against a like's 1."""
    penalties: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]
    """Ridge penalties of the movies' regressions on each other, whose mean is taken."""
    popularity: float
    """The power of a movie's mean score by which it is weighted where directions are sought."""
    landmarks: tuple[Positive, Positive]
    """How many of the most liked movies a user's vector is sought on, at least and at most."""
    landmark_likes: Positive
    """How many likes each has that the least number does not ask for."""
    parts: Annotated[int, Field(ge=2, le=20)]
    """A user's histories are taught by the closed form of the other parts of the users."""
    examples: Annotated[int, Field(ge=100)]
    """How many made-up histories the towers learn from."""
    away: Annotated[float, Field(ge=0, le=1)]
    """The share of these that come back after a pause."""

    @field_validator("landmarks")
    @classmethod
    def _is_range(cls, landmarks: tuple[int, int]) -> tuple[int, int]:
        least, most = landmarks
        if least > most:
            raise ValueError(f"at least {least} and at most {most}; the least comes first")
        return landmarks

    def count_landmarks(self, likes: Ints) -> int:
        """How many landmarks there are among movies with so many likes: int64 (movies,)."""
        return int(np.clip(np.count_nonzero(likes >= self.landmark_likes), *self.landmarks))


class PlacementConfig(DescentConfig):
    """How movies are placed that are liked too seldom: by dense layers on their genres and years."""

    caution: Annotated[float, Field(ge=0, lt=1)]
    """By how much their vectors are drawn to 0, which ranks them below what is known to be liked."""
    damping: Annotated[float, Field(gt=0)]
    """How many average users are thought to like each movie, beside those who do."""


class HybridConfig(_Section):
    """What a recipe with two heads has beside."""

    history: HistoryRules
    """What it says of ratings is in stars of five: on another scale, as high on that."""
    factors: FactorConfig
    retrieval: RetrievalConfig
    placement: PlacementConfig

    @field_validator("history")
    @classmethod
    def _is_in_stars(cls, history: HistoryRules) -> HistoryRules:
        if not 0 <= history.disliked <= history.liked <= MOST:
            raise ValueError(
                f"liked: {history.liked}, disliked: {history.disliked}; allowed is 0 to {MOST:g}, stars "
                "of five on any scale"
            )
        return history


class Bounds(_Section):
    """How much of large data is learned from in ways that do not scale. Less is learned from whole."""

    movies: Positive = 6_000
    """So many of the most liked movies are regressed on each other; arrays are movies x movies."""
    pairs: Positive = 2_000_000_000
    """Pairs of a user's ratings that are summed; of long histories, those of windows apart."""
    ratings: Positive = 1_000_000
    """Ratings seen without themselves, and learned from in an epoch: all those of some of the users."""


class Range(_Section):
    """Where `tune` looks for a number."""

    low: float
    high: float
    log: bool = False
    """Whether it is looked for evenly in its logarithm."""

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if not self.low < self.high:
            raise ValueError("low must be less than high")
        if self.log and self.low <= 0:
            raise ValueError("low must be above 0 where log is true")
        return self


class Choices(_Section):
    """What `tune` chooses from."""

    choices: Annotated[tuple[int | float | str, ...], Field(min_length=2)]


def _kind(searched: Any) -> str:
    chosen = isinstance(searched, Choices) or (isinstance(searched, dict) and "choices" in searched)
    return "choices" if chosen else "range"


Searched = Annotated[
    Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")], Discriminator(_kind)
]


class Recipe(_Section):
    """A way to make a model."""

    name: str
    description: str
    features: FeatureConfig
    towers: TowerConfig
    fit: FitConfig
    hybrid: HybridConfig | None = None
    """Set where a second head retrieves, and the first one predicts ratings alone."""
    bounds: Bounds = Bounds()
    tune: dict[str, Searched] = {}
    """Where `tune` looks, by the entry's name with dots."""

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        if self.hybrid and self.towers.dim < self.hybrid.factors.factors + _BESIDE_FACTORS:
            raise ValueError(
                f"towers.dim: {self.towers.dim}, allowed is hybrid.factors.factors + {_BESIDE_FACTORS} "
                "or more"
            )
        return self


def recipe_names() -> list[str]:
    """The recipes that ship."""
    return sorted(path.stem for path in _RECIPES.glob("*.toml"))


def recipe_path(recipe: str) -> Path:
    """The file of a recipe that ships, by name, or of any other, by the path of its TOML file.

    Raises SettingsError where there is none.
    """
    path = Path(recipe) if recipe.endswith(".toml") else _RECIPES / f"{recipe}.toml"
    if not path.exists():
        raise SettingsError(
            f"recipe {recipe!r}: no such recipe, there are {', '.join(recipe_names())}, "
            "or give the path of a .toml file"
        )
    return path


def load_recipe(recipe: str) -> Recipe:
    """Read a recipe by name or path. Raises SettingsError naming the file and the entry at fault."""
    path = recipe_path(recipe)
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error
    return parse_recipe(path.stem, document, where=str(path))


def parse_recipe(name: str, document: Mapping[str, Any], *, where: str | None = None) -> Recipe:
    """A recipe from the entries of its file. Raises SettingsError naming the entry at fault."""
    try:
        return Recipe(name=name, **document)
    except TypeError as error:
        raise SettingsError(f"{where or name}: {error}") from error
    except ValidationError as error:
        fault = error.errors()[0]
        entry = ".".join(map(str, fault["loc"]))
        raise SettingsError(f"{where or name}: {entry}: {fault['msg']}") from error
