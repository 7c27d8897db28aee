"""Searching a recipe's ranges: what is tried, kept, resumed, refused and written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from training.config import Recipe, load_recipe, recipe_names
from training.report import Reporter
from training.tune import Search
from twotower.errors import SettingsError, TrainingError

RECIPE = """
# A comment that is kept.
description = "for tests"
features.damping = 5.0  # and another
towers.hidden = [32, 16]
towers.dim = 32
fit.learning_rate = 3e-3
fit.batch_size = 128
fit.max_epochs = 3
"""
RANGES = """
[tune]
"features.damping" = { low = 1.0, high = 100.0, log = true }
"fit.max_epochs" = { low = 1, high = 9 }
"fit.batch_size" = { choices = [64, 128] }
"""
QUIET = Reporter(Console(quiet=True))


def _far_from_twenty(recipe: Recipe) -> float:
    return abs(recipe.features.damping - 20)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "own.toml"
    path.write_text(RECIPE + RANGES)
    return path


def search(
    recipe: Path, measure: Callable[[Recipe], float] = _far_from_twenty, data: str = "data"
) -> Search:
    return Search(str(recipe), recipe.with_suffix(".journal"), data=data, measure=measure, highest=False)


def recorded(tried: list[Recipe], value: Callable[[Recipe], float]) -> Callable[[Recipe], float]:
    """The measure `value`, which keeps what it is asked of."""

    def measure(recipe: Recipe) -> float:
        tried.append(recipe)
        return value(recipe)

    return measure


def test_the_recipe_as_it_stands_is_tried_first_and_others_within_the_ranges(recipe: Path) -> None:
    tried: list[Recipe] = []
    search(recipe, recorded(tried, _far_from_twenty)).run(12, 0, QUIET)
    assert tried[0] == load_recipe(str(recipe))
    assert len({one.features.damping for one in tried}) == 12
    assert all(1 <= one.features.damping <= 100 for one in tried)
    assert all(one.fit.max_epochs in range(1, 10) for one in tried)
    assert {one.fit.batch_size for one in tried} == {64, 128}
    assert {one.fit.learning_rate for one in tried} == {3e-3}


def test_the_best_is_written_with_all_else_as_it_was(recipe: Path, tmp_path: Path) -> None:
    found = search(recipe)
    found.run(25, 0, QUIET)
    reached, values = found.write_best(tmp_path / "tuned.toml")
    tuned = load_recipe(str(tmp_path / "tuned.toml"))
    assert reached == _far_from_twenty(tuned) < 5
    assert values["features.damping"] == tuned.features.damping
    lines = (tmp_path / "tuned.toml").read_text().splitlines()
    assert "# A comment that is kept." in lines
    assert f"features.damping = {tuned.features.damping}  # and another" in lines
    changed = [line for line in lines if line not in (RECIPE + RANGES).splitlines()]
    assert len(changed) <= 3


def test_a_search_goes_on_where_it_was_stopped(recipe: Path, tmp_path: Path) -> None:
    def stop(_recipe: Recipe) -> float:
        raise KeyboardInterrupt

    search(recipe).run(4, 0, QUIET)
    with pytest.raises(KeyboardInterrupt):
        search(recipe, stop).run(9, 0, QUIET)
    tried: list[Recipe] = []
    resumed = search(recipe, recorded(tried, lambda _: 99.0))
    resumed.run(9, 0, QUIET)
    assert len(tried) == 5
    assert resumed.write_best(tmp_path / "tuned.toml")[0] < 99
    resumed.run(9, 0, QUIET)
    assert len(tried) == 5


def test_a_trial_that_fails_is_told_and_counts_for_nothing(recipe: Path, tmp_path: Path) -> None:
    def fail(_recipe: Recipe) -> float:
        raise TrainingError("the loss is not finite")

    failing = search(recipe, fail)
    with (tmp_path / "said").open("w") as said:
        failing.run(2, 0, Reporter(Console(file=said)))
    assert (tmp_path / "said").read_text().count("the loss is not finite") == 2
    with pytest.raises(SettingsError, match="no trial has come to an end"):
        failing.write_best(tmp_path / "tuned.toml")
    assert not (tmp_path / "tuned.toml").exists()


@pytest.mark.parametrize("other", ["data", "recipe"])
def test_trials_of_other_data_or_another_recipe_are_not_mixed(recipe: Path, other: str) -> None:
    search(recipe).run(1, 0, QUIET)
    if other == "recipe":
        recipe.write_text((RECIPE + RANGES).replace("3e-3", "2e-3"))
    with pytest.raises(SettingsError, match="of another recipe or data set; name another"):
        search(recipe, data="other" if other == "data" else "data")


def test_a_journal_that_is_none_is_refused(recipe: Path) -> None:
    recipe.with_suffix(".journal").write_text("no journal\n")
    with pytest.raises(SettingsError, match="cannot be used as a journal of trials"):
        search(recipe)


@pytest.mark.parametrize(
    ("ranges", "fault"),
    [
        ("", "has no section"),
        (
            'tune."fit.speed" = { low = 1, high = 2 }',
            "tune.fit.speed: is no number or word of the recipe",
        ),
        ('tune."towers.hidden" = { low = 1, high = 2 }', "tune.towers.hidden: is no number or word"),
        (
            'tune."description" = { low = 1, high = 2 }',
            "tune.description: is no number, so it has no range",
        ),
        ('tune."fit.batch_size" = { low = 2, high = 1 }', "low must be less than high"),
        ('tune."fit.batch_size" = { low = 1, high = 100 }', "own value, 128, is not within the range"),
        ('tune."fit.batch_size" = { choices = [1, 2] }', "own value, 128, is not among the choices"),
        (
            'tune."fit.batch_size" = { choices = [128, "many"] }',
            "batch_size: Input should be a valid",
        ),
        (
            'tune."fit.batch_size" = { low = 0.5, high = 200 }',
            "is whole, so low and high must be",
        ),
        ('tune."fit.batch_size" = { low = 1, high = inf }', "finite"),
        ('tune."fit.batch_size" = { low = 0, high = 1, log = true }', "low must be above 0"),
        ('tune."fit.batch_size" = { choices = [1] }', "at least 2 items"),
        ('tune."fit.batch_size" = { from = 1 }', "batch_size"),
    ],
)
def test_ranges_that_cannot_be_searched_are_named(recipe: Path, ranges: str, fault: str) -> None:
    recipe.write_text(f"{ranges}\n{RECIPE}")
    with pytest.raises(SettingsError, match=fault):
        search(recipe)


def test_a_range_that_leads_to_an_impossible_recipe_is_named(recipe: Path) -> None:
    recipe.write_text(RECIPE + '[tune]\n"features.damping" = { low = -2.0, high = 9.0 }')
    with pytest.raises(SettingsError, match=r"features\.damping: Input should be greater than or equal"):
        search(recipe)


@pytest.mark.parametrize("name", recipe_names())
def test_the_recipes_that_ship_have_ranges_that_hold_what_they_say(name: str, tmp_path: Path) -> None:
    tried: list[Recipe] = []
    shipped = Search(
        name,
        tmp_path / "journal",
        data="data",
        measure=recorded(tried, lambda _: 1.0),
        highest=True,
    )
    shipped.run(3, 0, QUIET)
    assert tried[0] == load_recipe(name)
    assert tried[1] != tried[2]
