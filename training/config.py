"""Recipes: how a model is built and fitted, read from TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from twotower.errors import SettingsError

_RECIPES: Final = Path(__file__).parent / "recipes"

OnEpoch = Callable[[int, float, float | None], None]
"""Called after each epoch with its number (from 1), training loss, and validation loss if any."""

Positive = Annotated[int, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


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
    """How the towers are fitted."""

    learning_rate: Annotated[float, Field(gt=0)]
    batch_size: Positive
    max_epochs: Positive
    patience: Positive
    """Epochs without a lower validation loss after which training stops."""


class Recipe(_Section):
    """A way to make a model."""

    name: str
    description: str
    features: FeatureConfig
    towers: TowerConfig
    fit: FitConfig


def recipe_names() -> list[str]:
    """The recipes that ship."""
    return sorted(path.stem for path in _RECIPES.glob("*.toml"))


def load_recipe(recipe: str) -> Recipe:
    """Read a recipe that ships, by name, or any other, by the path of its TOML file.

    Raises SettingsError naming the file and the entry at fault.
    """
    path = Path(recipe) if recipe.endswith(".toml") else _RECIPES / f"{recipe}.toml"
    try:
        document = tomllib.loads(path.read_text())
        return Recipe(name=path.stem, **document)
    except FileNotFoundError:
        raise SettingsError(
            f"recipe {recipe!r}: no such recipe, there are {', '.join(recipe_names())}, "
            "or give the path of a .toml file"
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, TypeError) as error:
        raise SettingsError(f"{path}: {error}") from error
    except ValidationError as error:
        fault = error.errors()[0]
        entry = ".".join(map(str, fault["loc"]))
        raise SettingsError(f"{path}: {entry}: {fault['msg']}") from error
