"""What training shows: progress while it runs, tables when it is done."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from training.config import OnEpoch
from training.evaluate import RatingError
from twotower.manifest import Manifest
from twotower.promotion import Current

PROTOCOLS = {
    "temporal": "A temporal: each user's last 20 %",
    "random": "B random: 20 % of all",
}


class Reporter:
    """Writes to a terminal, or, line by line, to whatever stands in for one."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, highlight=False, markup=False)

    @contextmanager
    def fitting(self, title: str, epochs: int) -> Iterator[OnEpoch]:
        """Show the epochs of one fit, at most `epochs`, with the time that is left."""
        start = time.perf_counter()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("epoch {task.completed}/{task.total}  {task.fields[losses]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(
            *columns, console=self._console, transient=True, disable=not self._console.is_terminal
        ) as progress:
            task = progress.add_task(title, total=epochs, losses="")
            reached = ""

            def on_epoch(epoch: int, loss: float, validation_loss: float | None) -> None:
                nonlocal reached
                validation = "" if validation_loss is None else f", validation {validation_loss:.4f}"
                losses = f"loss {loss:.4f}{validation}"
                reached = f"{epoch} epochs, {losses}"
                progress.update(task, completed=epoch, losses=losses)

            yield on_epoch
        self.say(f"{title}: {reached} ({time.perf_counter() - start:.1f} s)")

    def errors(self, errors: Sequence[RatingError]) -> None:
        """Show RMSE and MAE by method and protocol, the lowest of each in bold."""
        protocols = list(dict.fromkeys(error.protocol for error in errors))
        table = Table(title="Rating error on the test part (lower is better)", title_justify="left")
        table.add_column("method")
        for protocol in protocols:
            for measure in ("RMSE", "MAE"):
                table.add_column(f"{PROTOCOLS[protocol].split(':')[0]}\n{measure}", justify="right")
        found = {(error.method, error.protocol): error for error in errors}
        lowest = {
            (protocol, measure): min(
                getattr(error, measure) for error in errors if error.protocol == protocol
            )
            for protocol in protocols
            for measure in ("rmse", "mae")
        }
        for method in dict.fromkeys(error.method for error in errors):
            cells = []
            for protocol in protocols:
                for measure in ("rmse", "mae"):
                    value = getattr(found[method, protocol], measure)
                    best = value == lowest[protocol, measure]
                    cells.append(f"[bold]{value:.4f}[/bold]" if best else f"{value:.4f}")
            table.add_row(method, *cells)
        self._console.print(table)

    def bundles(self, manifests: Sequence[Manifest], current: Current | None) -> None:
        """Show bundles, and which of them is promoted."""
        table = Table()
        for column in ("", "version", "created (UTC)", "recipe", "data", "movies", "RMSE A"):
            # What is copied from here must come whole, however narrow the terminal.
            table.add_column(column, min_width=16 if column == "version" else None)
        for manifest in manifests:
            table.add_row(_mark(manifest, current), *_described(manifest))
        self._console.print(table)


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
