"""A web page of sections with tables and plots: one HTML file that needs nothing else, nor a network.

The same input gives the same bytes. `page.html` is its form; everything in it is escaped there, and a
policy in the page forbids it to load anything.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from training import plots
from training.plots import Plot


class Cell(NamedTuple):
    """A text, what is said of it below, and whether it is the best of its column."""

    text: str
    note: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """Rows whose first cells head them."""

    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    words: int = 1
    """How many columns from the left are words; those of numbers end at one line."""


@dataclass(frozen=True)
class Block:
    """A plot, a table, or a plot beside its numbers as a table for those who cannot see it."""

    title: str
    plot: Plot | None = None
    switches: bool = True
    """Whether the legend hides and shows the plot's series."""
    table: Table | None = None
    text: str = ""
    name: str = ""
    """The plot's, unique in the page."""


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    title: str
    text: str
    blocks: Sequence[Block] = field(default_factory=list)
    wide: bool = False
    """Whether a block takes the whole width."""


def render_page(title: str, facts: Sequence[tuple[str, str]], sections: Sequence[Section]) -> str:
    """The page as HTML, under its title the facts by name."""
    drawn = {block.name: block.plot for section in sections for block in section.blocks if block.plot}
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        title=title,
        facts=facts,
        sections=sections,
        runtime=plots.runtime() if drawn else "",
        items=_in_script(plots.items(drawn)),
    )


def _in_script(document: object) -> str:
    """JSON that cannot end the script element that holds it, whatever its texts are."""
    return json.dumps(document, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
