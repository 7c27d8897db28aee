"""What was measured, as JSON and as tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import NamedTuple

from bench.growth import Growth
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
    growth: Sequence[Growth]

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
    paragraphs += [_growth(each) for each in results.growth]
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


def _growth(growth: Growth) -> str:
    heads = [growth.by, *map(str, growth.rounds)]
    costs = [f"{median(rounds):.1f}" for rounds in growth.rounds.values()]
    return _table(heads, [[f"{growth.name}, us of CPU a user", *costs]])


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
