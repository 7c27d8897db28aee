"""The plots of a report, by Bokeh: figures that BokehJS draws in the page that they are embedded in.

Legends are the page's, as are text and background colours, so that both follow its width and theme.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Final

import numpy as np
import pandas as pd
from bokeh.embed import json_item
from bokeh.models import (
    BasicTicker,
    ColumnDataSource,
    DataRange1d,
    HBar,
    HoverTool,
    Line,
    NumeralTickFormatter,
    Range1d,
    Scatter,
    Segment,
    VBar,
)
from bokeh.models.glyph import Glyph
from bokeh.palettes import Category10_10, Category20_20, Viridis7
from bokeh.plotting import figure
from bokeh.resources import Resources

from training.metrics import Interval
from training.report import LearningCurve
from twotower.arrays import FeatureRows

Colours = Mapping[str, str]
"""The colour of each series by its name."""

Tooltips = Sequence[tuple[str, str]]

_HEIGHT: Final = 300
_MAP_HEIGHT: Final = 520
_TRAINING, _VALIDATION = "training", "validation"
_MUTED: Final = "#8a8a8a"
_BARS: Final = 0.8
"""How much of a group's width its bars fill."""


@dataclass(frozen=True)
class Plot:
    """A Bokeh figure and the colours of its series, whose names are those of its renderers."""

    figure: figure
    colours: Colours


@dataclass(frozen=True)
class Points:
    """Places in a plane, float32 (n, 2), and for each a series, a title and how often it was rated."""

    places: FeatureRows
    series: Sequence[str]
    titles: Sequence[str]
    rating_counts: Sequence[int]


def runtime() -> str:
    """BokehJS, which draws every kind of plot that is made here."""
    scripts: list[str] = Resources(mode="inline", components=["bokeh"], log_level="error").js_raw
    return "\n".join(scripts)


def items(plots: Mapping[str, Plot]) -> dict[str, Any]:
    """Plots by the page's name for each, as `Bokeh.embed.embed_item` takes them.

    Bokeh counts all models of a process; these are counted anew, so that the same plots give the same.
    """
    numbers: dict[str, str] = {}

    def numbered(value: Any) -> Any:
        if isinstance(value, list):
            return [numbered(each) for each in value]
        if not isinstance(value, dict):
            return value
        return {
            key: numbers.setdefault(each, f"m{len(numbers)}")
            if key in {"id", "root_id"}
            else numbered(each)
            for key, each in value.items()
        }

    return {name: numbered(json_item(plot.figure)) for name, plot in plots.items()}


def method_colours(methods: Iterable[str]) -> Colours:
    """A colour for each method, to be the same in every plot."""
    return dict(zip(methods, cycle(Category10_10), strict=False))


def learning_curves(curves: Sequence[LearningCurve]) -> Plot:
    """The losses of like fits, one over the other; a ring where the validation loss was least."""
    colours = {_TRAINING: Category10_10[0], _VALIDATION: Category10_10[1]}
    plot = _figure(
        x="epoch", y=curves[0].measure, tooltips=[("", "$name"), ("epoch", "@x"), ("loss", "@y{0.0000}")]
    )
    plot.xaxis.ticker = BasicTicker(min_interval=1, num_minor_ticks=0)
    for curve in curves:
        for name, losses in ((_TRAINING, curve.training), (_VALIDATION, curve.validation)):
            points = {"x": list(range(1, len(losses) + 1)), "y": list(losses)}
            _draw(plot, name, points, Line(line_color=colours[name], line_width=2, line_alpha=0.8))
            _draw(plot, name, points, Scatter(size=4, **_filled(colours[name])))
        if curve.validation:
            best = int(np.argmin(curve.validation))
            ring = Scatter(size=12, line_color=colours[_VALIDATION], line_width=2, fill_color=None)
            _draw(plot, _VALIDATION, {"x": [best + 1], "y": [curve.validation[best]]}, ring)
    validated = any(curve.validation for curve in curves)
    return Plot(plot, colours if validated else {_TRAINING: colours[_TRAINING]})


def grouped_bars(
    means: pd.DataFrame,
    intervals: Mapping[tuple[str, str], Interval],
    colours: Colours,
    *,
    x: str,
    y: str,
) -> Plot:
    """Series down, groups across: the bars of a group side by side, with whiskers for the intervals."""
    groups, width = [str(name) for name in means.columns], _BARS / len(means)
    plot = _figure(
        x=x,
        y=y,
        y_range=DataRange1d(start=0),
        tooltips=[("", "$name"), (x, "@group"), (y, "@text")],
    )
    plot.xaxis.ticker = list(range(len(groups)))
    labels = ["\n".join(group.rsplit(" ", 1)) for group in groups]  # or narrow ones would overlap
    plot.xaxis.major_label_overrides = dict(enumerate(labels))
    plot.xgrid.visible = False
    for place, name in enumerate(map(str, means.index)):
        found = {
            at: intervals[name, group] for at, group in enumerate(groups) if (name, group) in intervals
        }
        columns = {
            "x": [at + (place + 0.5) * width - _BARS / 2 for at in found],
            "y": [interval.difference for interval in found.values()],
            "low": [interval.low for interval in found.values()],
            "high": [interval.high for interval in found.values()],
            "group": [groups[at] for at in found],
            "text": [
                f"{interval.difference:.4f}, {interval.low:.4f} to {interval.high:.4f}"
                for interval in found.values()
            ],
        }
        _draw(plot, name, columns, VBar(top="y", width=0.9 * width, **_filled(colours[name])))
        whisker = Segment(x0="x", y0="low", x1="x", y1="high", line_color=_MUTED, line_width=1.5)
        _draw(plot, name, columns, whisker)
    return Plot(plot, {str(name): colours[str(name)] for name in means.index})


def calibration(table: pd.DataFrame, colours: Colours) -> Plot:
    """Mean true rating by mean predicted rating, larger points for more ratings; right is the diagonal.

    table: as `Results.calibration` gives it.
    """
    plot = _figure(
        x="predicted rating",
        y="mean of the true ratings",
        tooltips=[
            ("", "$name"),
            ("predicted", "@x{0.00}"),
            ("true", "@y{0.00}"),
            ("ratings", "@count{0,0}"),
        ],
    )
    ratings = table[["predicted", "rating"]].to_numpy()
    ends = [float(ratings.min()), float(ratings.max())]
    diagonal = Line(line_color=_MUTED, line_dash="dashed", line_width=1.5)
    _draw(plot, "", {"x": ends, "y": ends}, diagonal)
    methods = table["method"].unique().tolist()
    for method in methods:
        rows = table[table["method"] == method]
        columns = {
            "x": rows["predicted"].tolist(),
            "y": rows["rating"].tolist(),
            "count": rows["count"].tolist(),
            "size": (4 + 12 * np.sqrt(rows["count"] / rows["count"].max())).tolist(),
        }
        _draw(plot, method, columns, Line(line_color=colours[method], line_width=1.5, line_alpha=0.7))
        _draw(plot, method, columns, Scatter(size="size", **_filled(colours[method], 0.8)))
    return Plot(plot, {method: colours[method] for method in methods})


def stacked_bars(shares: pd.DataFrame, *, x: str) -> Plot:
    """A bar for each row, from the first at the top, cut into the shares of the columns."""
    rows = [str(name) for name in shares.index]
    colours = dict(zip(map(str, shares.columns), Viridis7[1:], strict=True))
    plot = _figure(
        x=x,
        y="",
        x_range=Range1d(start=0, end=1),
        y_range=rows[::-1],
        height=80 + 34 * len(rows),
        tooltips=[("", "@y"), ("ratings", "$name"), ("share", "@share{0.0%}")],
    )
    plot.xaxis.formatter = NumeralTickFormatter(format="0%")
    ends = shares.to_numpy(dtype=np.float64).cumsum(axis=1)
    for column, (band, colour) in enumerate(colours.items()):
        share = shares.iloc[:, column].to_numpy(dtype=np.float64)
        columns = {
            "y": rows,
            "left": (ends[:, column] - share).tolist(),
            "right": ends[:, column].tolist(),
            "share": share.tolist(),
        }
        _draw(plot, band, columns, HBar(left="left", right="right", height=0.75, **_filled(colour)))
    return Plot(plot, colours)


def point_map(points: Points) -> Plot:
    """Points in the colours of their series, the most common first; the pointer names them."""
    common = pd.Series(points.series).value_counts().index.tolist()
    colours = dict(zip(common, cycle(Category20_20), strict=False))
    plot = _figure(
        x="",
        y="",
        height=_MAP_HEIGHT,
        tooltips=[("", "@title"), ("", "$name"), ("ratings", "@count{0,0}")],
        tools="pan,wheel_zoom,box_zoom,reset",
    )
    plot.axis.visible = False
    plot.grid.visible = False
    belongs = np.array(points.series)
    for name, colour in colours.items():
        rows: list[int] = np.flatnonzero(belongs == name).tolist()
        columns = {
            "x": points.places[rows, 0],
            "y": points.places[rows, 1],
            "title": [points.titles[row] for row in rows],
            "count": [points.rating_counts[row] for row in rows],
        }
        _draw(plot, name, columns, Scatter(size=6, **_filled(colour, 0.75)))
    return Plot(plot, colours)


def _figure(*, x: str, y: str, tooltips: Tooltips, tools: str = "", **settings: Any) -> figure:
    """As wide as the page has room for, transparent, told about by the pointer."""
    plot = figure(
        sizing_mode="stretch_width",
        tools=tools,
        toolbar_location="above" if tools else None,
        x_axis_label=x or None,
        y_axis_label=y or None,
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
        **{"height": _HEIGHT, **settings},
    )
    plot.toolbar.logo = None
    plot.add_tools(HoverTool(tooltips=list(tooltips)))
    return plot


def _draw(plot: figure, name: str, columns: Mapping[str, Any], glyph: Glyph) -> None:
    """Add a glyph alone: `figure`'s own methods add three more for states that no plot here has."""
    plot.add_glyph(ColumnDataSource(dict(columns)), glyph, name=name)


def _filled(colour: str, alpha: float = 1.0) -> dict[str, Any]:
    return {"fill_color": colour, "fill_alpha": alpha, "line_color": None}
