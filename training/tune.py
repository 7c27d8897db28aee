"""Searching a recipe's ranges for the values that do best on ratings held out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import tomlkit
from numpy.linalg import LinAlgError
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from training.config import Choices, Range, Recipe, parse_recipe, recipe_path
from training.report import Reporter
from twotower.errors import SettingsError, TrainingError
from twotower.files import write_atomically

optuna.logging.set_verbosity(optuna.logging.ERROR)


class Search:
    """The trials of one recipe on one data set, kept in a journal that outlives the process.

    `measure` judges a recipe, by a number of which the `highest` or else the lowest is the best.
    """

    def __init__(
        self, recipe: str, journal: Path, *, data: str, measure: Callable[[Recipe], float], highest: bool
    ) -> None:
        """Raises SettingsError where the recipe has no ranges or impossible ones, or the journal is of
        another recipe or data set (`data`, its digest).
        """  # noqa: D205
        self._name = recipe_path(recipe).stem
        self._text = recipe_path(recipe).read_text()
        self._measure = measure
        self._ranges = _distributions(self._name, self._text)
        for entry, searched in self._ranges.items():
            for extreme in _extremes(searched):
                self.recipe({entry: extreme})
        self._study = _open(journal, self._text, data, highest=highest)

    def run(self, trials: int, seed: int, reporter: Reporter) -> None:
        """Try recipes until there are so many trials in all, the recipe as it stands first."""
        done = len(self._finished())
        self._study.sampler = optuna.samplers.TPESampler(seed=seed + done)
        if not done:
            current = tomlkit.parse(self._text).unwrap()
            self._study.enqueue_trial({entry: _get(current, entry) for entry in self._ranges})
        with reporter.trying(trials, done) as on_trial:
            for _ in range(done, trials):
                trial = self._study.ask(dict(self._ranges))
                try:
                    value = self._measure(self.recipe(trial.params))
                except (TrainingError, LinAlgError) as error:
                    self._study.tell(trial, state=TrialState.FAIL)
                    reporter.say(f"trial {trial.number}: {error}")
                else:
                    self._study.tell(trial, value)
                    reporter.say(f"trial {trial.number}: {value:.4f}")
                on_trial(self._best())

    def recipe(self, values: Mapping[str, Any]) -> Recipe:
        """The recipe with these values. Raises SettingsError where they are not allowed."""
        return parse_recipe(self._name, tomlkit.parse(self._with(values)).unwrap())

    def write_best(self, path: Path) -> tuple[float, Mapping[str, Any]]:
        """Write the best recipe, comments and all; the measure it reached, and its values by entry."""
        if not self._finished(TrialState.COMPLETE):
            raise SettingsError("no trial has come to an end: there is nothing to write")
        best = self._study.best_trial
        write_atomically(path, self._with(best.params).encode())
        return self._study.best_value, best.params

    def _with(self, values: Mapping[str, Any]) -> str:
        document = tomlkit.parse(self._text)
        for entry, value in values.items():
            *sections, name = entry.split(".")
            table: Any = document
            for section in sections:
                table = table[section]
            table[name] = value
        return tomlkit.dumps(document)

    def _finished(self, *states: TrialState) -> list[optuna.trial.FrozenTrial]:
        return self._study.get_trials(
            deepcopy=False, states=states or (TrialState.COMPLETE, TrialState.FAIL)
        )

    def _best(self) -> float | None:
        return self._study.best_value if self._finished(TrialState.COMPLETE) else None


def _open(journal: Path, recipe: str, data: str, *, highest: bool) -> optuna.Study:
    identity = hashlib.sha256(f"{data}\n{recipe}".encode()).hexdigest()
    try:
        journal.parent.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(journal)))
        if set(optuna.get_all_study_names(storage)) - {identity}:
            raise SettingsError(
                f"{journal}: holds trials of another recipe or data set; name another with --journal"
            )
        return optuna.create_study(
            storage=storage,
            study_name=identity,
            direction="maximize" if highest else "minimize",
            load_if_exists=True,
        )
    except (OSError, ValueError, KeyError) as error:
        raise SettingsError(f"{journal}: cannot be used as a journal of trials: {error}") from error


def _distributions(name: str, text: str) -> dict[str, BaseDistribution]:
    document = tomlkit.parse(text).unwrap()
    recipe = parse_recipe(name, document)
    if not recipe.tune:
        raise SettingsError(f"recipe {name!r}: has no section [tune], so there is nothing to search")
    return {
        entry: _distribution(f"recipe {name!r}: tune.{entry}", searched, _get(document, entry))
        for entry, searched in recipe.tune.items()
    }


def _distribution(name: str, searched: Range | Choices, value: Any) -> BaseDistribution:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise SettingsError(f"{name}: is no number or word of the recipe")
    if isinstance(searched, Choices):
        if value not in searched.choices:
            raise SettingsError(f"{name}: the recipe's own value, {value!r}, is not among the choices")
        return CategoricalDistribution(searched.choices)
    if isinstance(value, str):
        raise SettingsError(f"{name}: is no number, so it has no range")
    if not searched.low <= value <= searched.high:
        raise SettingsError(f"{name}: the recipe's own value, {value}, is not within the range")
    if isinstance(value, float):
        return FloatDistribution(searched.low, searched.high, log=searched.log)
    if searched.low % 1 or searched.high % 1:
        raise SettingsError(f"{name}: the recipe's own value is whole, so low and high must be")
    return IntDistribution(int(searched.low), int(searched.high), log=searched.log)


def _extremes(searched: BaseDistribution) -> Sequence[Any]:
    if isinstance(searched, CategoricalDistribution):
        return searched.choices
    assert isinstance(searched, IntDistribution | FloatDistribution)  # noqa: S101 - no other is made
    return searched.low, searched.high


def _get(document: Mapping[str, Any], entry: str) -> Any:
    value: Any = document
    for name in entry.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return value
