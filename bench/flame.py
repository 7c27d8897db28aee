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
from bench.rivals.model import Model
from bench.suite import bodies_for
from bench.variants import STACK, VARIANTS, running
from bench.workload import write
from twotower.errors import OperationError
from twotower.files import write_atomically
from twotower.process import run

_REQUESTS: Final = 10_000
_RATE: Final = 100
"""Samples a second; each stops the process for a moment."""
_TITLE: Final = re.compile(rb'(<text id="title"[^>]*>)[^<]*')
"""Where py-spy tells how it was called."""
_LEAD_SECONDS: Final = 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Load the stack, sample it, and write an SVG for each service. Raises OperationError."""
    options = _parser().parse_args(arguments)
    wrk.require("wrk", "wrk")
    sampler = shutil.which(
        "py-spy", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    if not sampler:
        raise OperationError("py-spy is not installed; requirements/bench.in has it")
    (variant,) = (each for each in VARIANTS if each.name == STACK)
    bodies = bodies_for(Model(options.bundles), _REQUESTS)
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor() as pool:
        folder = Path(name)
        write(folder / "requests", bodies)
        environment = {"TWOTOWER_BUNDLES": str(options.bundles.resolve())}
        with running(variant, environment, bodies[0], folder) as one:
            load = pool.submit(
                wrk.load,
                one.url,
                folder / "requests",
                connections=options.connections,
                seconds=options.seconds + 2 * _LEAD_SECONDS,
            )
            pictures = {program.name: folder / f"{program.name}.svg" for program in one.programs}
            sampling = [
                subprocess.Popen(
                    [
                        *(sampler, "record", "--pid", str(program.process.pid), "--rate", str(_RATE)),
                        *("--duration", str(options.seconds), "--output", pictures[program.name]),
                    ],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                )
                for program in one.programs
            ]
            for sampler_process in sampling:
                _, said = sampler_process.communicate()
                if sampler_process.returncode:
                    raise OperationError(f"py-spy: {said.decode(errors='replace').strip()}")
            made = load.result()
        options.output.mkdir(parents=True, exist_ok=True)
        for service, picture in pictures.items():
            titled = _TITLE.sub(rb"\g<1>" + service.encode(), picture.read_bytes())
            write_atomically(options.output / f"flame-{service}.svg", titled)
    print(f"{made.requests_per_second:.0f} requests/s while sampled; see {options.output}/flame-*.svg")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.flame", description=__doc__)
    parser.add_argument(
        "--bundles", type=Path, required=True, metavar="DIR", help="whose promoted model"
    )
    parser.add_argument(
        "--connections", type=int, default=32, metavar="N", help="(default: %(default)s)"
    )
    parser.add_argument("--seconds", type=int, default=10, metavar="N", help="(default: %(default)s)")
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
