"""What training shows: progress while it runs, tables when it is done."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from training.config import OnEpoch
from training.evaluate import MRR, NDCG, RECALL
from training.findings import SHOWN
from training.inspection import Inspection
from training.results import COVERAGE, MAE, NEITHER_IS_BETTER, NOVELTY, RMSE, SECONDS, Results
from twotower.manifest import Manifest
from twotower.promotion import Current

PROTOCOLS: Final = {
    "temporal": "A, temporal: each user's last 20 % of ratings",
    "random": "B, random: 20 % of all ratings",
    "cold-user": "C, cold user: the last 20 % of users never learned from",
    "global-time": "D, global time: everything after a date",
    "session-start": "session start: what users never learned from rate after a day or more",
}
_SILENCE_SECONDS: Final = 30.0
"""After which what is no terminal gets a line on how far it is."""
_HEADINGS: Final = {
    NDCG: "NDCG",
    RECALL: "recall",
    MRR: "MRR",
    COVERAGE: "cover",
    NOVELTY: "bits",
    RMSE: "RMSE",
    MAE: "MAE",
    SECONDS: "sec",
}


@dataclass(frozen=True)
class LearningCurve:
    """The losses of one fit after each epoch, from the first; fits of one title are alike.

    measure: what the losses are. validation: empty where nothing was held out.
    """

    title: str
    measure: str
    training: tuple[float, ...]
    validation: tuple[float, ...]


def curves_to_array(curves: Sequence[LearningCurve]) -> npt.NDArray[np.str_]:
    """Curves as one text."""
    return np.array(json.dumps([asdict(curve) for curve in curves]))


def curves_from_array(text: npt.NDArray[np.str_]) -> list[LearningCurve]:
    """What `curves_to_array` gave."""
    return [
        LearningCurve(each["title"], each["measure"], tuple(each["training"]), tuple(each["validation"]))
        for each in json.loads(str(text))
    ]


class OnProgress(Protocol):
    """Called with how much of the total is done, and what to show beside that."""

    def __call__(self, reached: float, state: str = "") -> None:
        """Show it."""
        ...


class Reporter:
    """Writes to a terminal, or, line by line, to whatever stands in for one."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, highlight=False, markup=False)

    @contextmanager
    def watching(self, doing: str, total: float | None, done: int = 0) -> Iterator[OnProgress]:
        """Show how far something is, with the time that is left, while the block runs.

        A terminal shows bars below each other, for what is part of something larger; anything else gets
        a line now and then. Without a total it shows only that something runs.
        """
        start = told_at = time.monotonic()
        if not self._progress.task_ids:
            self._progress.start()
        task = self._progress.add_task(escape(doing), total=total, completed=done, state="")

        def on_progress(reached: float, state: str = "") -> None:
            nonlocal told_at
            self._progress.update(task, completed=reached, state=state)
            now = time.monotonic()
            if total and done < reached < total and now - told_at >= _SILENCE_SECONDS:
                told_at = now
                left = timedelta(seconds=round((now - start) / (reached - done) * (total - reached)))
                if not self._console.is_terminal:
                    self.say(f"{doing}: {reached / total:.0%}, {left} left")

        try:
            yield on_progress
        finally:
            self._progress.remove_task(task)
            if not self._progress.task_ids:
                self._progress.stop()

    @contextmanager
    def fitting(
        self,
        title: str,
        epochs: int,
        keep: Callable[[LearningCurve], object] = lambda _: None,
        *,
        measure: str,
    ) -> Iterator[OnEpoch]:
        """Show the epochs of one fit, at most `epochs`, with the time that is left; `keep` its curve."""
        start = time.perf_counter()
        with self.watching(title, epochs) as on_progress:
            reached = ""
            training: list[float] = []
            validated: list[float] = []

            def on_epoch(epoch: int, loss: float, validation_loss: float | None) -> None:
                nonlocal reached
                validation = "" if validation_loss is None else f", validation {validation_loss:.4f}"
                losses = f"{measure} {loss:.4f}{validation}"
                reached = f"{epoch} epochs, {losses}"
                on_progress(epoch, f"epoch {epoch}/{epochs}  {losses}")
                training.append(loss)
                if validation_loss is not None:
                    validated.append(validation_loss)

            yield on_epoch
        keep(LearningCurve(title, measure, tuple(training), tuple(validated)))
        self.say(f"{title}: {reached} ({time.perf_counter() - start:.1f} s)")

    @contextmanager
    def trying(self, trials: int, done: int) -> Iterator[Callable[[float | None], None]]:
        """Show how many trials are done of all, and the best so far, with the time that is left."""
        tried = itertools.count(done + 1)
        with self.watching("trials", trials, done) as on_progress:

            def on_trial(best: float | None) -> None:
                number = next(tried)
                shown = "" if best is None else f"  best {best:.4f}"
                on_progress(number, f"{number}/{trials}{shown}")

            yield on_trial

    @contextmanager
    def waiting(self, title: str) -> Iterator[None]:
        """Show that something runs which cannot tell how far it is."""
        start = time.perf_counter()
        with self.watching(title, None):
            yield
        self.say(f"{title} ({time.perf_counter() - start:.1f} s)")

    def results(self, results: Results, recipes: Sequence[str]) -> None:
        """Show what was measured on each protocol, the best of each in bold, and paired differences."""
        for protocol in results.protocols:
            self._console.print(_measures(results, protocol))
            for recipe in recipes:
                differences = _differences(results, protocol, recipe)
                if differences:
                    self._console.print(differences)

    def slices(self, results: Results) -> None:
        """Show NDCG, recall and RMSE apart for kinds of users and of movies."""
        for protocol in results.protocols:
            for title, table in (
                ("NDCG by how many ratings of the user were told", results.ndcg_by_history(protocol)),
                ("NDCG by users", results.ndcg_by_group(protocol)),
                ("recall by the movie's ratings in training", results.recall_by_popularity(protocol)),
                ("RMSE by the movie's ratings in training", results.rmse_by_popularity(protocol)),
                ("RMSE by users", results.rmse_by_group(protocol)),
            ):
                if table.shape[1] > 1:
                    self._console.print(_slices(f"{PROTOCOLS[protocol].split(':')[0]}: {title}", table))

    def inspection(self, inspection: Inspection) -> None:
        """Show what a data set holds and what was found in it."""
        files = _table(f"{inspection.name}: what was read", "file", "holds", "format", "rows", "kept")
        for file in inspection.files:
            counts = f"{file.rows:,}", f"{file.kept:,}"
            files.add_row(escape(file.name), file.holds, file.format, *counts)
        measures = _table("what there is", "", "")
        measures.show_header = False
        for name, value in inspection.measures.items():
            measures.add_row(name, escape(f"{value:,}" if isinstance(value, int) else value))
        self._console.print(files, measures)
        if not inspection.findings:
            self.say("nothing was dropped or repaired")
            return
        found = _table("what was found", "", "rows", "file", "why", "first lines")
        for finding in inspection.findings:
            shown = [
                f"{line}: {_printable(value) or '(empty)'}" for line, value in finding.examples[:SHOWN]
            ]
            why, lines = escape(finding.what), escape("\n".join(shown))
            found.add_row(finding.deed, f"{finding.count:,}", escape(finding.file), why, lines)
        self._console.print(found)

    def bundles(self, manifests: Sequence[Manifest], current: Current | None) -> None:
        """Show bundles, and which of them is promoted."""
        table = Table()
        for column in ("", "version", "created (UTC)", "recipe", "data", "movies", "RMSE A"):
            # What is copied from here must come whole, however narrow the terminal.
            table.add_column(column, min_width=16 if column == "version" else None)
        for manifest in manifests:
            table.add_row(_mark(manifest, current), *_described(manifest))
        self._console.print(table)


def _measures(results: Results, protocol: str) -> Table:
    measured = results.of_protocol(protocol)
    table = _table(PROTOCOLS[protocol])
    table.add_column("method")
    for name in measured.columns:
        table.add_column(_HEADINGS[str(name)], justify="right")
    best = results.best(protocol)
    for method, row in measured.iterrows():
        table.add_row(
            escape(str(method)),
            *(_cell(str(name), row[name], best.get(str(name))) for name in measured.columns),
        )
    return table


def _slices(title: str, sliced: pd.DataFrame) -> Table:
    table = _table(title)
    table.add_column("method")
    for name in sliced.columns:
        table.add_column(escape(str(name)), justify="right")
    for method, row in sliced.iterrows():
        table.add_row(escape(str(method)), *("" if math.isnan(v) else f"{v:.4f}" for v in row))
    return table


def _table(title: str, *columns: str) -> Table:
    return Table(
        *columns,
        title=escape(title),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        min_width=72,  # or the title would be broken to the width of a narrow table
    )


def _printable(text: str) -> str:
    """With control characters, on which a terminal would act, as they are written in code."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def _cell(measure: str, value: float, best: float | None) -> str:
    shown = format_measure(measure, value)
    return f"[bold]{shown}[/bold]" if value == best else shown


def format_measure(measure: str, value: float) -> str:
    """As many digits as say something; nothing where it was not measured."""
    if math.isnan(value):
        return ""
    return f"{value:.1f}" if measure in NEITHER_IS_BETTER else f"{value:.4f}"


def _differences(results: Results, protocol: str, recipe: str) -> Table | None:
    """A recipe less every other method: NDCG and RMSE, with their intervals."""
    others = [method for method in results.of_protocol(protocol).index if method != recipe]
    found = {
        (other, measure): results.difference(protocol, recipe, str(other), measure)
        for other in others
        for measure in (NDCG, RMSE)
    }
    shown = [measure for measure in (NDCG, RMSE) if any(found[other, measure] for other in others)]
    if not shown:
        return None
    table = _table(f"{recipe} less each other, paired by user (95 % interval)")
    for heading in ("method", *(_HEADINGS[measure] for measure in shown)):
        table.add_column(heading)
    for other in others:
        intervals = [found[other, measure] for measure in shown]
        if any(intervals):
            table.add_row(escape(str(other)), *(str(interval or "") for interval in intervals))
    return table


def _mark(manifest: Manifest, current: Current | None) -> str:
    if current and manifest.model_version == current.current:
        return "current"
    return "previous" if current and manifest.model_version == current.previous else ""


def _described(manifest: Manifest) -> tuple[str, ...]:
    rmse = manifest.metrics.get(f"temporal {manifest.recipe} rmse")
    return (
        manifest.model_version,
        time.strftime("%Y-%m-%d %H:%M", time.gmtime(manifest.created_at)),
        escape(manifest.recipe),
        escape(manifest.dataset.name),
        str(manifest.dataset.movies),
        "" if rmse is None else f"{rmse:.4f}",
    )
