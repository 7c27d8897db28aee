"""Where the time of a request goes: flame graphs of the three services under load, by py-spy."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from bench import wrk
from bench.options import positive
from bench.processes import Program
from bench.rivals.model import Model
from bench.suite import bodies_for
from bench.variants import STACK, VARIANTS, running
from bench.workload import write
from twotower.errors import OperationError
from twotower.files import write_atomically
from twotower.process import run

_REQUESTS: Final = 10_000
_RATE: Final = 100
"""Samples a second."""
_TITLE: Final = re.compile(rb'(<text id="title"[^>]*>)[^<]*')
"""Where py-spy tells how it was called."""
_LOADED_LONGER: Final = 4
"""Seconds, for py-spy to start and to end within the load."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Load the stack, sample it, and write an SVG for each service. Raises OperationError."""
    options = _parser().parse_args(arguments)
    wrk.require("wrk", "wrk")
    sampler = _sampler()
    (variant,) = (each for each in VARIANTS if each.name == STACK)
    bodies = bodies_for(Model(options.bundles), _REQUESTS)
    environment = {"TWOTOWER_BUNDLES": str(options.bundles.resolve())}
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor() as pool:
        folder = Path(name)
        write(folder / "requests", bodies)
        with running(variant, environment, bodies[0], folder) as one:
            load = pool.submit(
                wrk.load,
                one.url,
                folder / "requests",
                connections=options.connections,
                seconds=options.seconds + _LOADED_LONGER,
            )
            pictures = _sample(sampler, one.programs, folder, options.seconds)
            made = load.result()
    options.output.mkdir(parents=True, exist_ok=True)
    for service, picture in pictures.items():
        titled = _TITLE.sub(rb"\g<1>" + service.encode(), picture)
        write_atomically(options.output / f"flame-{service}.svg", titled)
    print(f"{made.requests_per_second:.0f} requests/s while sampled; see {options.output}/flame-*.svg")


def _sampler() -> str:
    """Where py-spy is. Raises OperationError where it is not."""
    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    sampler = shutil.which("py-spy", path=folders)
    if not sampler:
        raise OperationError("py-spy is not installed; requirements/bench.in has it")
    return sampler


def _sample(sampler: str, programs: Sequence[Program], folder: Path, seconds: int) -> dict[str, bytes]:
    """Flame graphs of programs that run, by their names, sampled at once. Raises OperationError."""
    sampling = {
        program.name: subprocess.Popen(
            [
                *(sampler, "record", "--pid", str(program.process.pid), "--rate", str(_RATE)),
                "--nonblocking",  # threads that sleep seem busy in a process that is stopped to look
                *("--duration", str(seconds), "--output", folder / f"{program.name}.svg"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for program in programs
    }
    said = {name: process.communicate()[1] for name, process in sampling.items()}
    for name, process in sampling.items():
        if process.returncode:
            raise OperationError(f"py-spy: {said[name].decode(errors='replace').strip()}")
    return {name: (folder / f"{name}.svg").read_bytes() for name in sampling}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.flame", description=__doc__)
    parser.add_argument(
        "--bundles", type=Path, required=True, metavar="DIR", help="whose promoted model"
    )
    parser.add_argument(
        "--connections", type=positive, default=32, metavar="N", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=positive, default=10, metavar="N", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).parent,
        metavar="DIR",
        help="folder for flame-SERVICE.svg (default: bench)",
    )
    return parser


if __name__ == "__main__":
    run(main)
