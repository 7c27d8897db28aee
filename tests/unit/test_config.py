"""Recipes are read whole or refused with the entry at fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.config import load_recipe, recipe_names
from twotower.errors import SettingsError


def test_every_shipped_recipe_loads() -> None:
    assert recipe_names() == ["reference"]
    recipe = load_recipe("reference")
    assert (recipe.name, recipe.towers.hidden, recipe.towers.dim) == ("reference", (256, 128), 32)


def test_an_unknown_recipe_is_told_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"'best': no such recipe, there are reference"):
        load_recipe("best")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "description"),
        ("description = 3", "description"),
        ("fit = {", "own.toml"),
        ("description = ''", "features"),
    ],
)
def test_a_faulty_recipe_names_file_and_entry(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=words) as caught:
        load_recipe(str(path))
    assert "own.toml" in str(caught.value)


def test_a_wrong_value_names_its_entry(tmp_path: Path) -> None:
    shipped = Path(__file__).parents[2] / "training" / "recipes" / "reference.toml"
    path = tmp_path / "own.toml"
    path.write_text(shipped.read_text().replace("max_epochs = 30", "max_epochs = 0"))
    with pytest.raises(SettingsError, match=r"fit\.max_epochs: .*greater than 0"):
        load_recipe(str(path))
