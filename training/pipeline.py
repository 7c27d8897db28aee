"""The whole of training: from a path of ratings to a bundle."""

from __future__ import annotations

from pathlib import Path

from training.config import Recipe, load_recipe
from training.evaluate import Evaluation, RatingError, rate_baselines
from training.export import Exported, export_bundle
from training.interactions import Interactions
from training.movielens import Dataset, read_dataset
from training.report import PROTOCOLS, Reporter
from training.splits import Split, random_split, temporal_split
from training.train import MovieContent, TwoTowers, fit
from twotower.errors import DataError
from twotower.files import check_writable


def train(data: Path, recipe: str, bundles: Path, seed: int, reporter: Reporter) -> Exported:
    """Evaluate a recipe on the protocols, fit it on all of the data, and write the bundle.

    How many epochs to fit is found on the validation part of the temporal protocol; the test parts are
    touched to report only. Raises DataError, SettingsError, BundleError; nothing is left half-written.
    """
    check_writable(bundles)
    chosen = load_recipe(recipe)
    dataset = read_dataset(data)
    interactions = Interactions.of(dataset)
    reporter.say(
        f"{dataset.name}: {len(interactions)} ratings of {interactions.movies} movies by "
        f"{interactions.users} users"
    )
    task = _Task(dataset, chosen, seed, reporter)
    splits = [temporal_split(interactions), random_split(interactions)]
    _check_parts(splits)
    epochs = task.fit(
        "finding how long to train", splits[0].train, validation=splits[0].validation
    ).epochs
    reporter.say(f"the best was after {epochs} epochs: that is how long the others run")
    evaluation = Evaluation(
        errors=tuple(error for split in splits for error in task.judge(split, epochs)),
        split_digests={split.name: split.digest for split in splits},
    )
    reporter.errors(evaluation.errors)
    towers = task.fit("training on all ratings", interactions, epochs=epochs)
    return export_bundle(bundles, towers, dataset, chosen.name, evaluation)


class _Task:
    """One data set, recipe and seed."""

    def __init__(self, dataset: Dataset, recipe: Recipe, seed: int, reporter: Reporter) -> None:
        self._content = MovieContent.of(dataset)
        self._scale = dataset.rating_scale
        self._recipe = recipe
        self._seed = seed
        self._reporter = reporter

    def fit(
        self,
        title: str,
        train: Interactions,
        *,
        validation: Interactions | None = None,
        epochs: int | None = None,
    ) -> TwoTowers:
        with self._reporter.fitting(title, epochs or self._recipe.fit.max_epochs) as on_epoch:
            return fit(
                train,
                self._content,
                self._scale,
                self._recipe,
                seed=self._seed,
                validation=validation,
                epochs=epochs,
                on_epoch=on_epoch,
            )

    def judge(self, split: Split, epochs: int) -> list[RatingError]:
        """Fit on all but the test part, and measure beside the baselines."""
        towers = self.fit(f"protocol {PROTOCOLS[split.name]}", split.refit, epochs=epochs)
        own = RatingError.of(split, self._recipe.name, towers.predict(split.test), self._scale)
        return [*rate_baselines(split, self._scale), own]


def _check_parts(splits: list[Split]) -> None:
    for split in splits:
        for part in ("train", "validation", "test"):
            if not len(getattr(split, part)):
                raise DataError(
                    f"too few ratings: the {split.name} protocol has none left for its {part} part; "
                    "about ten are needed, of one user at least"
                )
