"""What was measured as JSON, as tables and as a chart."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from statistics import median
from typing import Final, NamedTuple
from xml.sax.saxutils import escape

from bench.processes import Memory
from bench.wrk import Round


class Machine(NamedTuple):
    """What it was measured on."""

    architecture: str
    cores: int
    python: str


@dataclass(frozen=True)
class Measured:
    """A variant: its rounds by number of connections, and what each of its programs takes.

    cpu_ms: by program and number of connections, for a request, round by round.
    """

    name: str
    about: str
    start_seconds: float
    rounds: Mapping[int, Sequence[Round]]
    cpu_ms: Mapping[str, Mapping[int, Sequence[float]]]
    memory: Mapping[str, Memory]

    def at(self, connections: int) -> Round:
        """The medians of its rounds."""
        return Round(*map(median, zip(*self.rounds[connections], strict=True)))


@dataclass(frozen=True)
class Results:
    """One run: rounds of `seconds` each, and those of the parts, in users a second, by their names."""

    machine: Machine
    model_version: str
    movies: int
    requests: int
    seconds: int
    variants: Sequence[Measured]
    skipped: Mapping[str, str]
    users_per_second: Mapping[str, Sequence[float]]

    def to_json(self) -> bytes:
        """All rounds, not only medians."""
        fields = asdict(self)
        fields["machine"] = self.machine._asdict()
        for variant, measured in zip(fields["variants"], self.variants, strict=True):
            variant["rounds"] = {
                connections: [each._asdict() for each in rounds]
                for connections, rounds in measured.rounds.items()
            }
            variant["memory"] = {name: each._asdict() for name, each in measured.memory.items()}
        return json.dumps(fields, indent=1).encode() + b"\n"


def tables(results: Results) -> str:
    """The medians as Markdown. Ratios are to the first variant."""
    paragraphs = [
        _circumstances(results),
        _throughput(results.variants),
        _latency(results.variants),
        _footprint(results.variants),
    ]
    if results.users_per_second:
        paragraphs.append(_parts(results.users_per_second))
    paragraphs += [f"Skipped: {name}, {reason}." for name, reason in results.skipped.items()]
    return "\n\n".join(paragraphs) + "\n"


def _circumstances(results: Results) -> str:
    machine = results.machine
    rounds = len(next(iter(results.variants[0].rounds.values())))
    return (
        f"Model {results.model_version} of {results.movies} movies; {results.requests} requests; "
        f"medians of {rounds} rounds of {results.seconds} s; {machine.cores} cores "
        f"({machine.architecture}), with the load on them too; Python {machine.python}."
    )


def _throughput(variants: Sequence[Measured]) -> str:
    first, *_ = variants
    columns = list(first.rounds)
    rows = [
        [
            variant.name,
            *(f"{variant.at(each).requests_per_second:.0f}" for each in columns),
            *(
                f"{variant.at(each).requests_per_second / first.at(each).requests_per_second:.2f}"
                for each in columns
            ),
        ]
        for variant in variants
    ]
    heads = [f"requests/s at {each}" for each in columns]
    ratios = [f"of {first.name}, at {each}" for each in columns]
    return _table(["variant", *heads, *ratios], rows)


def _latency(variants: Sequence[Measured]) -> str:
    columns = list(variants[0].rounds)
    rows = [
        [
            variant.name,
            *(f"{variant.at(each).p50_ms:.1f} / {variant.at(each).p99_ms:.1f}" for each in columns),
        ]
        for variant in variants
    ]
    return _table(["variant", *(f"p50 / p99 ms at {each}" for each in columns)], rows)


def _footprint(variants: Sequence[Measured]) -> str:
    rows = [
        [
            variant.name,
            program,
            f"{memory.rss_mb:.0f}",
            f"{memory.pss_mb:.0f}",
            " / ".join(f"{median(rounds):.2f}" for rounds in variant.cpu_ms[program].values()),
            f"{variant.start_seconds:.1f}",
        ]
        for variant in variants
        for program, memory in variant.memory.items()
    ]
    cpu = f"CPU ms a request at {' / '.join(map(str, variants[0].rounds))}"
    heads = ["variant", "process", "RSS MB", "PSS MB", cpu, "start to first answer, s"]
    return _table(heads, rows)


def _parts(users_per_second: Mapping[str, Sequence[float]]) -> str:
    rows = [
        [name, f"{median(rounds):.0f}", f"{1e6 / median(rounds):.1f}"]
        for name, rounds in users_per_second.items()
    ]
    return _table(["part", "users/s", "us a user"], rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


_WIDTH: Final = 760
_LABELS: Final = 90
_FIGURES: Final = 110
_BAR: Final = 14
_THICK: Final = 12
_GROUP_GAP: Final = 12
_TITLE: Final = 30
_COLOURS: Final = ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677")


class _Bar(NamedTuple):
    value: float
    text: str


def chart(results: Results) -> str:
    """Throughput and latency of every variant as SVG, on logarithmic scales."""
    columns = list(results.variants[0].rounds)
    medians = [
        (each.name, [each.at(connections) for connections in columns]) for each in results.variants
    ]
    rates = [
        (name, [_Bar(m.requests_per_second, f"{m.requests_per_second:.0f}") for m in of_one])
        for name, of_one in medians
    ]
    waits = [
        (name, [_Bar(m.p50_ms, f"{m.p50_ms:.1f} ({m.p99_ms:.1f})") for m in of_one])
        for name, of_one in medians
    ]
    by = f"by connections: {', '.join(map(str, columns))}"
    panels = [(f"requests a second, {by}", rates), (f"ms, p50 (p99), {by}", waits)]
    height, shapes = 0, list[str]()
    for title, groups in panels:
        height, drawn = _panel(title, groups, height)
        shapes += drawn
    style = "text{font:12px sans-serif;fill:#808080}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}">'
        f"<style>{style}</style>{''.join(shapes)}</svg>\n"
    )


def _panel(title: str, groups: Sequence[tuple[str, Sequence[_Bar]]], top: int) -> tuple[int, list[str]]:
    """A title and a group of bars for each variant, from `top` down: where it ends, and its shapes."""
    values = [bar.value for _, bars in groups for bar in bars]
    low, high = math.log(min(values) / 2), math.log(max(values))
    room = _WIDTH - _LABELS - _FIGURES
    shapes = [_text(0, top + _TITLE - 10, title)]
    place = top + _TITLE
    for name, bars in groups:
        shapes.append(_text(0, place + _BAR - 3, name))
        for bar, colour in zip(bars, cycle(_COLOURS), strict=False):
            width = room * (math.log(bar.value) - low) / (high - low)
            size = f'width="{width:.1f}" height="{_THICK}"'
            shapes.append(f'<rect x="{_LABELS}" y="{place}" {size} fill="{colour}"/>')
            shapes.append(_text(_LABELS + width + 5, place + _BAR - 4, bar.text))
            place += _BAR
        place += _GROUP_GAP
    return place, shapes


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
