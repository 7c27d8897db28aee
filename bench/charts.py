"""What was measured, as pictures."""

from __future__ import annotations

import io
from collections import defaultdict
from statistics import median
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.growth import Growth
from bench.report import Results

_GREY: Final = "#808080"
"""Readable on white and on black."""
_WIDTH: Final = 10.0
_PANEL: Final = 3.6
"""Inches."""
_COLUMNS: Final = 2

# The same results, the same file.
mpl.rcParams.update({"svg.hashsalt": "bench", "svg.fonttype": "none", "font.size": 9})


def of_variants(results: Results) -> bytes:
    """Throughput and latency of every variant by connections, on logarithmic scales: SVG."""
    figure = Figure(figsize=(_WIDTH, 0.9 + 0.55 * len(results.variants)), layout="constrained")
    rates, waits = figure.subplots(1, 2, sharey=True)
    names = [variant.name for variant in results.variants]
    columns = list(results.variants[0].rounds)
    for place, connections in enumerate(columns):
        medians = [variant.at(connections) for variant in results.variants]
        at = [row + 0.8 * ((place + 0.5) / len(columns) - 0.5) for row in range(len(names))]
        thick = 0.8 / len(columns)
        bars = rates.barh(at, [each.requests_per_second for each in medians], thick, label=connections)
        rates.bar_label(bars, fmt="%.0f", padding=3, color=_GREY)
        bars = waits.barh(at, [each.p50_ms for each in medians], thick)
        texts = [f"{each.p50_ms:.1f} ({each.p99_ms:.1f})" for each in medians]
        waits.bar_label(bars, labels=texts, padding=3, color=_GREY)
    rates.set_yticks(range(len(names)), names)
    rates.invert_yaxis()
    for axes, title in ((rates, "requests a second"), (waits, "ms, p50 (p99)")):
        axes.set(title=title, xscale="log")
        axes.margins(x=0.25)
    rates.legend(title="connections", labelcolor=_GREY, framealpha=0)
    return _svg(figure)


def of_growth(results: Results) -> bytes:
    """What a user costs by what there is more of, and the stack by connections: SVG."""
    stack, *_ = results.variants
    panels = defaultdict[str, list[Growth]](list)
    for growth in results.growth:
        panels[growth.by].append(growth)
    for program, of_program in stack.cpu_ms.items():
        rounds = {number: [1000 * ms for ms in each] for number, each in of_program.items()}
        panels["connections"].append(Growth(f"{program}, {stack.name}", "connections", rounds))
    rows = -(-len(panels) // _COLUMNS)
    figure = Figure(figsize=(_WIDTH, _PANEL * rows), layout="constrained")
    places = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axes, (by, curves) in zip(places, panels.items(), strict=False):
        for curve in curves:
            medians = [median(each) for each in curve.rounds.values()]
            axes.plot(list(curve.rounds), medians, marker=".", label=curve.name)
        axes.set(xlabel=by, ylabel="us of CPU a user", xscale="log", yscale="log")
        axes.legend(labelcolor=_GREY, framealpha=0, fontsize="small")
    for axes in places[len(panels) :]:
        axes.remove()
    return _svg(figure)


def _svg(figure: Figure) -> bytes:
    for axes in figure.axes:
        _fade(axes)
    content = io.BytesIO()
    figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
    return content.getvalue()


def _fade(axes: Axes) -> None:
    """All but the data in grey."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_GREY)
    axes.tick_params(which="both", colors=_GREY)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_color(_GREY)
    if legend := axes.get_legend():
        legend.get_title().set_color(_GREY)
