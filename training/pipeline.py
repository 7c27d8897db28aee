"""The whole of training and of evaluation: from a path of ratings to a bundle, or to a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np

from training import baselines
from training.checkpoint import NOWHERE, Arrays, Checkpoint
from training.config import OnEpoch, Recipe, load_recipe
from training.content import MovieContent
from training.dataset import Dataset, Reading, read_dataset
from training.evaluate import NDCG, Judged, judge
from training.export import Exported, export_bundle
from training.interactions import Interactions
from training.methods import Fitted, Method
from training.report import LearningCurve, Reporter, curves_from_array, curves_to_array
from training.results import RMSE, Results, Run
from training.samples import sample
from training.splits import PROTOCOLS, Fold, Part, Protocol, Split, random, usual
from training.threads import one_blas_thread
from training.train import TwoTowers, fit
from training.web_report import Report, render_report
from twotower.errors import NoTimestamps, SettingsError, TooFewRatings
from twotower.files import check_writable, write_atomically

RANKERS: Final[Mapping[str, Method]] = {
    "popular": baselines.popular,
    "item_knn": baselines.item_knn,
    "ials": baselines.ials,
    "ease": baselines.ease,
}
RATERS: Final[Mapping[str, Method]] = {"bias": baselines.bias, "svd": baselines.svd}
HGB: Final = "hgb"
MEAN: Final = "mean"
_FITS: Final = "fits"
_MOST_JUDGED: Final = 10_000
"""Users by whom methods are judged, drawn at random where there are more."""
_MOST_FOR_EASE: Final = 10_000
"""Users, and movies: it holds arrays of users x users, and of users x movies."""
_MOST_FOR_SVD: Final = 5_000_000
"""Ratings, each of which takes a quarter of a kilobyte there."""
BASELINES: Final = (*RANKERS, *RATERS, HGB)
"""Every method that `evaluate` compares with; the last one needs to know the movies."""


@one_blas_thread()
def train(
    data: Path,
    recipe: str,
    bundles: Path,
    seed: int,
    reporter: Reporter,
    *,
    reading: Reading | None = None,
    resume: bool = False,
) -> Exported:
    """Evaluate a recipe on held-out ratings, fit it on all of the data, and write the bundle.

    How many epochs to fit is found on the validation part of the protocol judged on, for all of the data
    on that of the usual one; the test parts are touched to report only. Data too few to hold any out are
    trained on without. What is found on the way is kept beside the bundles until all is done; `resume`
    goes on from there, to the same bundle.
    Raises DataError, SettingsError, BundleError; nothing is left half-written.
    """
    check_writable(bundles)
    (chosen,) = _load_recipes([recipe])
    task = _Task(read_dataset(data, reading), [chosen], reporter)
    task.keep(bundles, "train", chosen.name, str(seed), resume=resume)
    results = None
    try:
        protocols = [usual(task.interactions)]
        # One of two heads takes longer, and is promoted by its ranking.
        if not chosen.hybrid and task.interactions.timed:
            protocols.append(random(task.interactions))
        own = {chosen.name: task.method(chosen)}
        rankers = {"popular": baselines.popular, "ease": baselines.ease}
        results = task.compare(protocols, rankers, {MEAN: baselines.mean, **RATERS}, own, [seed])
        reporter.results(results, [chosen.name])
    except TooFewRatings as error:
        reporter.say(f"warning: {error}; the model is not evaluated")
    towers = task.fit(chosen, seed)
    extras = {"report.html": task.page([chosen], [seed], results, towers)}
    exported = export_bundle(bundles, towers, task.dataset, chosen.name, results, extras=extras)
    task.checkpoint.clear()
    return exported


@one_blas_thread()
def evaluate(
    data: Path,
    recipes: Sequence[str],
    protocols: Sequence[str],
    seeds: Sequence[int],
    reporter: Reporter,
    *,
    report: Path | None = None,
    reading: Reading | None = None,
    bundles: Path | None = None,
    resume: bool = False,
) -> Results:
    """Judge recipes beside every baseline on the test part of each protocol; `report` it to a file.

    What is found on the way is kept in the folder of `bundles`, if any, until all is done; `resume` goes
    on from there, to the same results.
    Raises DataError where the data are too few for a protocol that was the only one asked for, or for
    all of them; SettingsError.
    """
    _need("evaluating", "implicit", "sklearn")
    chosen = _load_recipes(recipes)
    task = _Task(read_dataset(data, reading), chosen, reporter)
    if bundles:
        task.keep(bundles, "evaluate", *protocols, *map(str, seeds), resume=resume)
    own = {recipe.name: task.method(recipe) for recipe in chosen}
    results = task.compare(task.protocols(protocols), RANKERS, {**RATERS, HGB: task.hgb()}, own, seeds)
    reporter.results(results, list(own))
    reporter.slices(results)
    if report:
        write_atomically(report, task.page(chosen, seeds, results))
    task.checkpoint.clear()
    return results


@one_blas_thread()
def tune(
    data: Path,
    recipe: str,
    journal: Path,
    out: Path,
    *,
    trials: int,
    seed: int,
    reporter: Reporter,
    reading: Reading | None = None,
) -> None:
    """Search a recipe's ranges on the validation part of the usual protocol, and write the best.

    By NDCG where one of two heads ranks, else by RMSE. Trials that are in the journal count.
    Raises DataError, SettingsError, BundleError where `out` cannot be written.
    """
    _need("tuning", "optuna", "tomlkit")
    from training.tune import Search  # noqa: PLC0415 - comes with an extra

    (chosen,) = _load_recipes([recipe])
    if out.is_dir() or out.suffix != ".toml":
        raise SettingsError(f"--out {out}: name a .toml file")
    check_writable(out.parent)
    task = _Task(read_dataset(data, reading), [chosen], reporter)
    protocol = usual(task.interactions, Part.VALIDATION)
    measure = NDCG if chosen.hybrid else RMSE
    search = Search(
        recipe,
        journal,
        data=f"{task.dataset.digest} seed {seed}",
        measure=lambda tried: task.validate(tried, seed, protocol, measure),
        highest=measure == NDCG,
    )
    search.run(trials, seed, reporter)
    reached, values = search.write_best(out)
    reporter.say(f"the best of {trials} trials: {measure} {reached:.4f} on the validation part, by")
    for entry, value in values.items():
        reporter.say(f"  {entry} = {value}")
    reporter.say(f"to train by it: python -m training train --recipe {out}")


def _need(what: str, *modules: str) -> None:
    missing = [name for name in modules if not find_spec(name)]
    if missing:
        raise SettingsError(
            f"{what} needs {' and '.join(missing)}: pip install -r requirements/evaluation.txt"
        )


def _load_recipes(recipes: Sequence[str]) -> list[Recipe]:
    """Read recipes, whose names must tell them apart from each other and from the baselines."""
    chosen = [load_recipe(recipe) for recipe in recipes]
    for place, recipe in enumerate(chosen):
        if recipe.name in (*BASELINES, MEAN):
            raise SettingsError(f"recipe {recipe.name!r}: a baseline has that name; rename the file")
        if recipe.name in {other.name for other in chosen[:place]}:
            raise SettingsError(f"recipe {recipe.name!r}: two have that name; rename one of the files")
    return chosen


def _lack_of_ratings(dataset: Dataset) -> str:
    """Why its ratings teach nothing; empty where they do."""
    if not dataset.rated:
        return f"{dataset.name} has none"
    low, high = dataset.ratings["rating"].min(), dataset.ratings["rating"].max()
    return f"those of {dataset.name} are identical, all {low:g}" if low == high else ""


SeededMethod = Callable[[Protocol, int], Method]
"""What is judged on a protocol, by the seed."""


class _Task:
    """One data set, and what shows how far it is.

    Raises SettingsError where ratings are none, or all identical, for a recipe that learns from nothing
    else.
    """

    def __init__(self, dataset: Dataset, recipes: Sequence[Recipe], reporter: Reporter) -> None:
        lacks = _lack_of_ratings(dataset)
        for recipe in recipes:
            if lacks and not recipe.hybrid:
                raise SettingsError(
                    f"recipe {recipe.name!r} learns from ratings alone, and {lacks}: hybrid does without"
                )
        self.dataset = dataset
        self.checkpoint = NOWHERE
        self._recipes = recipes
        self.interactions = Interactions.of(dataset)
        self._content = MovieContent.of(dataset)
        self._reporter = reporter
        self._epochs: dict[str, int] = {}
        self._curves: list[LearningCurve] = []
        reporter.say(
            f"{dataset.name}: {len(self.interactions)} ratings of {self.interactions.movies} movies by "
            f"{self.interactions.users} users"
        )
        for finding in dataset.findings:
            reporter.say(f"  {finding}")

    def keep(self, bundles: Path, *settings: str, resume: bool) -> None:
        """From now on, keep what is found until it is cleared; `resume` uses what is there already."""
        recipes = (f"{recipe.name} {recipe.model_dump_json()}" for recipe in self._recipes)
        told = [self.dataset.digest, *recipes, *settings]
        self.checkpoint = Checkpoint.of(bundles, "\n".join(told), resume=resume, warn=self._reporter.say)
        if self.checkpoint.found and not resume:
            self._reporter.say("one like this was interrupted: --resume would go on from there")
        if resume and not self.checkpoint.found:
            self._reporter.say("none like this was interrupted: it starts at the beginning")

    def protocols(self, names: Sequence[str]) -> list[Protocol]:
        """Protocols by name; of several, those that the data are too few for are left out, and told."""
        made = []
        for name in names:
            try:
                made.append(PROTOCOLS[name](self.interactions, Part.TEST))
            except (TooFewRatings, NoTimestamps) as error:
                if len(names) == 1:
                    raise
                self._reporter.say(f"warning: {error}; it is left out")
        if not made:
            raise TooFewRatings("too few ratings: no protocol has anything to learn from or to judge by")
        return made

    def compare(
        self,
        protocols: Sequence[Protocol],
        rankers: Mapping[str, Method],
        raters: Mapping[str, Method],
        own: Mapping[str, SeededMethod],
        seeds: Sequence[int],
    ) -> Results:
        """Judge methods without chance once, and our own with every seed; both as the size allows."""
        rankers, raters = self._as_size_allows(rankers), self._as_size_allows(raters)
        judged = [self._judged_by_some(protocol) for protocol in protocols]
        runs = []
        for each in judged:
            # Likes that stand for ratings are all alike: there is nothing to predict.
            protocol = replace(each, rated=each.rated and self.dataset.rated)
            fixed = {
                **(rankers if protocol.ranked else {}),
                **(raters if protocol.rated else {}),
            }
            for name, method in fixed.items():
                waiting = self._reporter.waiting(f"{protocol.name}: {name}")
                runs.append(self._run(protocol, name, 0, method, waiting))
            for name, seeded in own.items():
                runs += [self._run(protocol, name, seed, seeded(each, seed)) for seed in seeds]
        digests = {protocol.name: protocol.digest for protocol in judged}
        return Results(runs, self.interactions.movies, digests)

    def _run(
        self,
        protocol: Protocol,
        name: str,
        seed: int,
        method: Method,
        waiting: AbstractContextManager[None] = nullcontext(),  # noqa: B008 - it may be used again
    ) -> Run:
        """How a method does on a protocol: as it was found before, or is now."""

        def judged() -> Arrays:
            with waiting:
                return judge(protocol, method).to_arrays()

        title = f"{protocol.name}: {name}"
        found = self._once(f"{protocol.name}-{name}-{seed}", title, judged)
        return Run(protocol.name, name, seed, Judged.from_arrays(found))

    def _once(self, step: str, title: str, find: Callable[[], Arrays]) -> Arrays:
        """What a step finds, and the learning curves it adds, unless the checkpoint has them already."""
        kept = self.checkpoint.load(step)
        if kept is None:
            curves = len(self._curves)
            kept = {**find(), "curves": curves_to_array(self._curves[curves:])}
            self.checkpoint.save(step, kept)
            self.checkpoint.within(_FITS).clear()
        else:
            self._curves += curves_from_array(kept["curves"])
            self._reporter.say(f"{title} (as it was found before)")
        return kept

    def _as_size_allows(self, methods: Mapping[str, Method]) -> dict[str, Method]:
        data = self.interactions
        too_large = {
            "ease": max(data.users, data.movies) > _MOST_FOR_EASE,
            "svd": len(data) > _MOST_FOR_SVD,
        }
        for name in methods:
            if too_large.get(name):
                self._reporter.say(f"{name} is left out: it does not scale to so much data")
        return {name: method for name, method in methods.items() if not too_large.get(name)}

    def _judged_by_some(self, protocol: Protocol) -> Protocol:
        limited = protocol.judged_by(_MOST_JUDGED)
        if limited is not protocol:
            self._reporter.say(f"{protocol.name}: judged by {_MOST_JUDGED} users, drawn at random")
        return limited

    def hgb(self) -> Method:
        """The baseline that needs to know the movies."""
        return baselines.hgb(self._content)

    def page(
        self,
        recipes: Sequence[Recipe],
        seeds: Sequence[int],
        results: Results | None,
        towers: TwoTowers | None = None,
    ) -> bytes:
        """The report on all that was fitted and judged; of towers fitted on all ratings, on them too."""
        report = Report(
            recipes=[recipe.name for recipe in recipes],
            seeds=seeds,
            dataset=self.dataset,
            curves=self._curves,
            results=results,
        )
        if towers:
            fitted = towers.asked_by(self.interactions.histories())
            report = replace(
                report,
                item_embeddings=towers.embed_movies().retrieval,
                samples=sample(self.dataset, self.interactions, fitted),
            )
        return render_report(report).encode()

    def method(self, recipe: Recipe) -> SeededMethod:
        """A recipe as a method, fitted for as long as is best on the validation part of the protocol."""

        def seeded(protocol: Protocol, seed: int) -> Method:
            epochs = self._find_epochs(recipe, seed, PROTOCOLS[protocol.name])
            title = f"{recipe.name}: training for evaluation"

            def method(fold: Fold) -> Fitted:
                towers = self._fit(recipe, seed, fold.train, title=title, epochs=epochs)
                return towers.asked_by(fold.history.histories(fold.asked_at))

            return method

        return seeded

    def validate(self, recipe: Recipe, seed: int, protocol: Protocol, measure: str) -> float:
        """Fit a recipe without a word, and measure it."""

        def method(fold: Fold) -> Fitted:
            towers = fit(
                fold.train,
                self._content,
                recipe,
                seed=seed,
                validation=fold.test if recipe.fit.patience else None,
            )
            return towers.asked_by(fold.history.histories(fold.asked_at))

        judged = judge(protocol, method)
        results = Results(
            [Run(protocol.name, recipe.name, seed, judged)], self.interactions.movies, split_digests={}
        )
        return float(results.of_protocol(protocol.name)[measure][recipe.name])

    def fit(self, recipe: Recipe, seed: int) -> TwoTowers:
        """Fit a recipe to all ratings, for as long as is best on the usual protocol."""
        epochs = self._find_epochs(recipe, seed, usual)
        return self._fit(recipe, seed, self.interactions, title="training on all ratings", epochs=epochs)

    def _find_epochs(self, recipe: Recipe, seed: int, split: Split) -> int | None:
        """How long to fit: until the error on the validation part is least, of the first of its folds.

        None, which is the recipe's maximum, where the recipe does not ask or nothing tells.
        """
        if recipe.fit.patience is None or not self.dataset.rated:
            return None
        try:
            protocol = split(self.interactions, Part.VALIDATION)
        except TooFewRatings as error:
            self._reporter.say(f"warning: {error}; {recipe.name} is trained for all of its epochs")
            return None
        fold, step = protocol.folds[0], f"epochs-{protocol.name}-{recipe.name}-{seed}"
        if step in self._epochs:
            return self._epochs[step]
        title = f"{recipe.name}: finding how long to train"

        def found() -> Arrays:
            towers = self._fit(recipe, seed, fold.train, title=title, validation=fold.test)
            return {"epochs": np.array(towers.epochs)}

        epochs = int(self._once(step, title, found)["epochs"])
        self._epochs[step] = epochs
        self._reporter.say(f"the best was after {epochs} epochs: that is how long the others run")
        return epochs

    def _fit(
        self,
        recipe: Recipe,
        seed: int,
        train: Interactions,
        *,
        title: str,
        epochs: int | None = None,
        validation: Interactions | None = None,
    ) -> TwoTowers:
        def watch(stage: str, most: int, measure: str) -> AbstractContextManager[OnEpoch]:
            return self._reporter.fitting(
                f"{title}: {stage}", most, self._curves.append, measure=measure
            )

        return fit(
            train,
            self._content,
            recipe,
            seed=seed,
            validation=validation,
            epochs=epochs,
            watch=watch,
            checkpoint=self.checkpoint.within(_FITS).within(f"{recipe.name}-{seed}-{train.digest[:16]}"),
        )
