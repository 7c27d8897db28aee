"""Recipes are read whole or refused with the entry at fault."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.config import load_recipe, recipe_names
from twotower.errors import SettingsError


def test_every_shipped_recipe_loads() -> None:
    assert recipe_names() == ["hybrid", "reference"]
    recipe = load_recipe("reference")
    assert (recipe.name, recipe.towers.hidden, recipe.towers.dim) == ("reference", (256, 128), 32)


def test_an_unknown_recipe_is_told_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"'best': no such recipe, there are hybrid, reference"):
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


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("dim = 32", "dim = 22", r"towers\.dim: 22, allowed is .* \+ 3 or more"),
        (
            "penalties = [30.0, 300.0]",
            "penalties = []",
            r"retrieval\.penalties: .*at least 1 item",
        ),
        (
            "landmarks = [512, 1024]",
            "landmarks = [512, 500]",
            r"retrieval\.landmarks: .*at least 512 and at most 500",
        ),
        (
            "examples = 8000",
            "examples = 1",
            r"retrieval\.examples: .*or equal to 100",
        ),
        ("popularity = 0.25", "popularity = nan", r"hybrid\.retrieval\.popularity: .*finite"),
        (
            "neutral_weight = 0.5",
            "neutral_weight = -7",
            r"history\.neutral_weight: .*greater than",
        ),
        (
            "liked = 4.0\ndis",
            "liked = 8.0\ndis",
            r"hybrid\.history: .*liked: 8\.0.*allowed is 0 to 5, stars",
        ),
        ("disliked = 3.0", "disliked = 9.0", r"hybrid\.history: .*disliked: 9\.0, allowed is 4\.0"),
        (
            "half_life = 5, floor = 0.1",
            "half_life = 5, floor = 0",
            r"history\.successors\.floor",
        ),
    ],
)
def test_a_recipe_of_two_heads_that_cannot_work_names_its_entry(
    tmp_path: Path, before: str, after: str, fault: str
) -> None:
    shipped = (Path(__file__).parents[2] / "training" / "recipes" / "hybrid.toml").read_text()
    assert before in shipped
    path = tmp_path / "own.toml"
    path.write_text(shipped.replace(before, after))
    with pytest.raises(SettingsError, match=fault):
        load_recipe(str(path))


@pytest.mark.parametrize(
    ("often", "count"),
    [(0, 512), (600, 600), (3_000, 1_024)],
)
def test_landmarks_are_the_movies_liked_often_between_two_bounds(often: int, count: int) -> None:
    hybrid = load_recipe("hybrid").hybrid
    assert hybrid is not None
    retrieval = hybrid.retrieval
    likes = np.repeat([retrieval.landmark_likes, retrieval.landmark_likes - 1], [often, 5_000])
    assert retrieval.count_landmarks(likes) == count
