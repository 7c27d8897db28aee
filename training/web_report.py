"""The report on a training or an evaluation, as a web page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from training import plots
from training.dataset import Dataset
from training.evaluate import MRR, NDCG, RECALL, K
from training.metrics import Interval
from training.movie_map import movie_map
from training.page import Block, Cell, Section, Table, render_page
from training.plots import Colours
from training.report import PROTOCOLS, LearningCurve, format_measure
from training.results import COVERAGE, MAE, NOVELTY, RMSE, SECONDS, WITH_INTERVAL, Results
from training.samples import Sample
from twotower.arrays import FeatureRows, Ints

_HEADINGS: Final = {
    NDCG: f"NDCG@{K}",
    RECALL: f"recall@{K}",
    MRR: f"MRR@{K}",
    COVERAGE: f"coverage@{K}",
    NOVELTY: "novelty, bits",
    RMSE: "RMSE",
    MAE: "MAE",
}


@dataclass(frozen=True)
class Report:
    """What is reported. A part that there is nothing of is left out."""

    recipes: Sequence[str]
    seeds: Sequence[int]
    dataset: Dataset
    curves: Sequence[LearningCurve] = ()
    """In the order of the fits; those of one title are drawn together."""
    results: Results | None = None
    """None where the data were too few to hold any out."""
    item_embeddings: FeatureRows | None = None
    """float32 (movies, dim), of unit norm."""
    samples: Sequence[Sample] = ()

    @cached_property
    def rating_counts(self) -> Ints:
        """How often each movie is rated in the data: int64 (movies,)."""
        movies = self.dataset.movies["movie_id"]
        counts = self.dataset.ratings["movie_id"].value_counts().reindex(movies, fill_value=0)
        return counts.to_numpy().astype(np.int64)


def render_report(report: Report) -> str:
    """The report as HTML that needs nothing else; the same report gives the same bytes."""
    title = f"{', '.join(report.recipes)} on {report.dataset.name}"
    return render_page(title, _facts(report), [section for section in _sections(report) if section])


def _facts(report: Report) -> list[tuple[str, str]]:
    ratings, movies = report.dataset.ratings, report.dataset.movies
    return [
        ("recipe" if len(report.recipes) == 1 else "recipes", ", ".join(report.recipes)),
        ("seed" if len(report.seeds) == 1 else "seeds", ", ".join(map(str, report.seeds))),
        ("data", report.dataset.name),
        ("ratings", f"{len(ratings):,}"),
        ("users", f"{ratings['user_id'].nunique():,}"),
        ("movies", f"{len(movies):,}"),
        ("data's SHA-256", f"{report.dataset.digest[:16]}…"),
    ]


def _sections(report: Report) -> Iterable[Section | None]:
    results = report.results
    if results is None:
        yield Section(
            "Not evaluated",
            "The data were too few to hold any ratings out, so nothing was measured on ratings that the "
            "model had not seen.",
        )
    else:
        methods = (str(method) for _, method in results.measures.index)
        colours = plots.method_colours(dict.fromkeys([*report.recipes, *methods]))
        yield _measures(results)
        yield _by_history(results, colours)
        yield _calibration(results, colours)
        yield _popularity(results, report.rating_counts)
    yield _curves(report.curves)
    if report.item_embeddings is not None:
        yield movie_map(report.dataset.movies, report.rating_counts, report.item_embeddings)
    yield _samples(report.samples)


def _section(title: str, text: str, blocks: Sequence[Block], *, wide: bool = False) -> Section | None:
    return Section(title, text, blocks, wide) if blocks else None


def _measures(results: Results) -> Section | None:
    blocks = [Block(PROTOCOLS[name], table=_measured(results, name)) for name in results.protocols]
    return _section(
        "What was measured",
        "On held-out ratings, means over the seeds; below a value its 95 % interval, by resampling "
        "users. The best of each column is marked. RMSE and MAE are better when lower; "
        "novelty is better neither way.",
        blocks,
        wide=True,
    )


def _measured(results: Results, protocol: str) -> Table:
    measured, best = results.of_protocol(protocol).drop(columns=SECONDS), results.best(protocol)

    def cell(method: str, measure: str) -> Cell:
        value = float(measured[measure][method])
        found = results.interval(protocol, method, measure) if measure in WITH_INTERVAL else None
        note = f"{found.low:.4f} to {found.high:.4f}" if found else ""
        return Cell(format_measure(measure, value), note, value == best.get(measure))

    rows = [
        [Cell(str(method)), *(cell(str(method), str(measure)) for measure in measured.columns)]
        for method in measured.index
    ]
    return Table(["method", *(_HEADINGS[str(name)] for name in measured.columns)], rows)


def _by_history(results: Results, colours: Colours) -> Section | None:
    blocks = []
    for protocol in results.protocols:
        means = results.ndcg_by_history(protocol)
        if means.empty:
            continue
        intervals = results.ndcg_intervals_by_history(protocol)
        rows = [
            [
                Cell(str(method)),
                *(_interval_cell(intervals.get((str(method), str(length)))) for length in means.columns),
            ]
            for method in means.index
        ]
        blocks.append(
            Block(
                PROTOCOLS[protocol],
                plots.grouped_bars(
                    means, intervals, colours, x="ratings told of the user", y=_HEADINGS[NDCG]
                ),
                table=Table(["method", *map(str, means.columns)], rows),
                name=f"history-{protocol}",
            )
        )
    return _section(
        "Rankings by length of history",
        "NDCG@10 of users apart by how many of their ratings the method was told; the whiskers are 95 % "
        "intervals.",
        blocks,
    )


def _interval_cell(interval: Interval | None) -> Cell:
    if interval is None:
        return Cell("")
    return Cell(f"{interval.difference:.4f}", f"{interval.low:.4f} to {interval.high:.4f}")


def _calibration(results: Results, colours: Colours) -> Section | None:
    blocks = []
    for protocol in results.protocols:
        table = results.calibration(protocol)
        if table.empty:
            continue
        rows = [
            [
                Cell(method),
                Cell(f"{predicted:.2f}"),
                Cell(f"{rating:.2f}"),
                Cell(f"{count:,}"),
            ]
            for method, _, predicted, rating, count in table.itertuples(index=False)
        ]
        blocks.append(
            Block(
                PROTOCOLS[protocol],
                plots.calibration(table, colours),
                table=Table(["method", "predicted", "true", "ratings"], rows),
                name=f"calibration-{protocol}",
            )
        )
    return _section(
        "Predicted and true ratings",
        "Held-out ratings in ten bins by what was predicted, against the mean of what was given: on the "
        "dashed line a prediction can be taken at its word. Larger points stand for more ratings.",
        blocks,
    )


def _popularity(results: Results, rating_counts: Ints) -> Section | None:
    blocks = []
    for protocol in results.protocols:
        shares = results.popularity_shares(protocol, rating_counts)
        if shares.empty:
            continue
        rows = [
            [Cell(str(name)), *(Cell(f"{100 * share:.1f} %") for share in row)]
            for name, row in shares.iterrows()
        ]
        blocks.append(
            Block(
                PROTOCOLS[protocol],
                plots.stacked_bars(shares, x="share of the movies"),
                switches=False,
                table=Table(["", *map(str, shares.columns)], rows),
                name=f"popularity-{protocol}",
            )
        )
    return _section(
        "How popular what is recommended is",
        "Which share of the recommended movies has how many ratings in the data, beside what the same "
        "users went on to like, and the catalogue.",
        blocks,
    )


def _curves(curves: Sequence[LearningCurve]) -> Section | None:
    by_title: dict[str, list[LearningCurve]] = {}
    for curve in curves:
        by_title.setdefault(curve.title, []).append(curve)
    blocks = [
        Block(title, plots.learning_curves(alike), table=_fits(alike), name=f"curves-{number}")
        for number, (title, alike) in enumerate(by_title.items())
    ]
    return _section(
        "Learning curves",
        "The loss after each epoch; fits of one kind over each other. A ring marks the epoch that did "
        "best on held-out ratings, which tells how long the other fits run.",
        blocks,
    )


def _fits(curves: Sequence[LearningCurve]) -> Table:
    rows = []
    for number, curve in enumerate(curves, start=1):
        best = int(np.argmin(curve.validation)) if curve.validation else None
        rows.append(
            [
                Cell(str(number)),
                Cell(str(len(curve.training))),
                Cell(f"{curve.training[-1]:.4f}" if curve.training else ""),
                Cell("" if best is None else f"{curve.validation[best]:.4f}"),
                Cell("" if best is None else str(best + 1)),
            ]
        )
    return Table(["fit", "epochs", "last training loss", "least validation loss", "after epoch"], rows)


def _samples(samples: Sequence[Sample]) -> Section | None:
    blocks = []
    for sample in samples:
        ratings = [suggestion.predicted_rating for suggestion in sample.recommended]
        headings = ["", "recommended", "predicted"]
        rows = [
            [
                Cell(str(place)),
                Cell(suggestion.title),
                Cell("" if rating is None else f"{rating:.2f}"),
            ]
            for place, (suggestion, rating) in enumerate(
                zip(sample.recommended, ratings, strict=True), start=1
            )
        ]
        if set(ratings) <= {None}:  # of data without ratings
            headings, rows = headings[:-1], [row[:-1] for row in rows]
        liked = "; ".join(sample.liked) or "nothing"
        blocks.append(
            Block(
                sample.user,
                table=Table(headings, rows, words=2),
                text=f"Liked last: {liked}",
            )
        )
    return _section(
        "Sample recommendations",
        "The top ten of some users whose ratings were learned from; what they have rated is left out.",
        blocks,
    )
