"""`python -m bench`: the stack beside other ways to serve the same answers, in one run."""

# NumPy must not be imported before it is told in how many threads to compute.
# ruff: noqa: PLC0415

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from bench import wrk
from bench.options import positive
from twotower.errors import OperationError
from twotower.files import write_atomically
from twotower.process import compute_in_one_thread, run

if TYPE_CHECKING:
    from bench.suite import Plan

_ROOT: Final = Path(__file__).parent.parent
_BUNDLES: Final = _ROOT / "build" / "bench-bundles"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print tables, and write them with all rounds. Raises OperationError."""
    compute_in_one_thread()
    from bench import charts, report, suite
    from bench.variants import VARIANTS

    options = _parser([variant.name for variant in VARIANTS]).parse_args(arguments)
    wrk.require("wrk", "wrk")
    results = suite.measure(_plan(options), lambda line: print(line, file=sys.stderr, flush=True))
    tables = report.tables(results)
    print(tables, end="")
    options.output.mkdir(parents=True, exist_ok=True)
    for name, content in (
        ("results.json", results.to_json()),
        ("results.md", tables.encode()),
        ("results.svg", charts.of_variants(results)),
        ("growth.svg", charts.of_growth(results)),
    ):
        write_atomically(options.output / name, content)


def _parser(variants: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--bundles",
        type=Path,
        metavar="DIR",
        help="folder whose promoted model to serve (default: one trained for the purpose)",
    )
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=variants,
        default=variants,
        metavar="V",
        help=", ".join(variants),
    )
    parser.add_argument("--quick", action="store_true", help="small and short: to see that it works")
    for name, meaning in (
        ("rounds", "of every variant at every number of connections"),
        ("seconds", "of a round"),
        ("requests", "each another"),
        ("checks", "answers of each variant to compare with the reference"),
    ):
        usual, quick = getattr(_USUAL, name), getattr(_QUICK, name)
        parser.add_argument(
            f"--{name}",
            type=positive,
            metavar="N",
            help=f"{meaning} (default: {usual}; quick: {quick})",
        )
    for name, meaning in (
        ("connections", "of the load"),
        ("movies", "of made-up catalogues, searched to see how that grows"),
    ):
        usual, quick = (_words(getattr(size, name)) for size in (_USUAL, _QUICK))
        parser.add_argument(
            f"--{name}",
            type=positive,
            nargs="+",
            metavar="N",
            help=f"{meaning} (default: {usual}; quick: {quick})",
        )
    parser.add_argument(
        "--output",
        type=Path,
        default=_ROOT / "bench",
        metavar="DIR",
        help="folder for results.json, .md and .svg, and growth.svg (default: bench)",
    )
    return parser


class _Size(NamedTuple):
    rounds: int
    seconds: int
    connections: tuple[int, ...]
    requests: int
    movies: tuple[int, ...]
    checks: int


_USUAL: Final = _Size(
    rounds=5,
    seconds=5,
    connections=(1, 32, 128),
    requests=10_000,
    movies=(10_000, 30_000, 100_000, 300_000, 1_000_000),
    checks=200,
)
_QUICK: Final = _Size(
    rounds=1, seconds=1, connections=(1, 8), requests=400, movies=(1_000, 3_000), checks=20
)


def _plan(options: argparse.Namespace) -> Plan:
    from bench.suite import Plan

    size = _QUICK if options.quick else _USUAL
    chosen = {name: getattr(options, name) or usual for name, usual in size._asdict().items()}
    bundles = options.bundles or _trained()
    return Plan(bundles=bundles, variants=options.variants, **chosen)


def _trained() -> Path:
    """A folder with a promoted model of the data set that comes along, trained if there is none yet."""
    from twotower.promotion import read_current

    if read_current(_BUNDLES) is None:
        command = [sys.executable, "-m", "training", "train", "--promote", "--bundles", str(_BUNDLES)]
        if subprocess.run(command, cwd=_ROOT, stdout=sys.stderr, check=False).returncode:
            raise OperationError("training did not end well; see above")
    return _BUNDLES


def _words(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))


if __name__ == "__main__":
    run(main)
