"""The measurement: every variant runs, each is loaded in turn, round by round, and then the parts."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import workload, wrk
from bench.growth import measure_growth
from bench.parts import parts
from bench.processes import wait_until_idle
from bench.report import Machine, Measured, Results
from bench.rivals.model import Model
from bench.variants import STACK, VARIANTS, Running, running
from gateway.schemas import RecommendationRequest

_SEED: Final = 7
_PART_SHARE: Final = 0.2
"""Of a round's seconds, for each part."""
_POINT_SHARE: Final = 0.05
"""Of a round's seconds, for each point of a curve of growth."""


@dataclass(frozen=True)
class Plan:
    """What to measure, and how long. `rounds` of `seconds` each at every number of `connections`."""

    bundles: Path
    variants: Sequence[str]
    connections: Sequence[int]
    rounds: int
    seconds: int
    requests: int
    movies: Sequence[int]
    """Sizes of made-up catalogues that are searched."""
    checks: int
    """Requests whose answers are compared with the reference, for each variant."""


def measure(plan: Plan, say: Callable[[str], None]) -> Results:
    """Measure all of it. Raises OperationError where a variant fails, or answers otherwise."""
    model = Model(plan.bundles)
    bodies = bodies_for(model, plan.requests)
    references = [
        model.answer(RecommendationRequest.model_validate_json(body)) for body in bodies[: plan.checks]
    ]
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        workload.write(folder / "requests", bodies)
        (folder / "answer").write_bytes(references[0])
        environment = {
            "TWOTOWER_BUNDLES": str(plan.bundles.resolve()),
            "BENCH_ANSWER": str(folder / "answer"),
        }
        started: list[Running] = []
        skipped: dict[str, str] = {}
        for variant in VARIANTS:
            if variant.name not in plan.variants:
                skipped[variant.name] = "not asked for"
            elif reason := variant.missing():
                skipped[variant.name] = reason
            else:
                one = stack.enter_context(running(variant, environment, bodies[0], folder))
                one.check(bodies[: plan.checks], references)
                started.append(one)
                say(f"{variant.name}: {plan.checks} answers are as they should be")
        loads = _loads(plan, started, folder / "requests", say)
        return Results(
            machine=Machine(platform.machine(), os.cpu_count() or 1, platform.python_version()),
            model_version=model.manifest.model_version,
            movies=len(model.bundle.catalogue),
            requests=len(bodies),
            seconds=plan.seconds,
            variants=[
                Measured(
                    one.variant.name,
                    one.variant.about,
                    one.start_seconds,
                    loads[one.variant.name].rounds,
                    loads[one.variant.name].cpu_ms,
                    {program.name: program.memory() for program in one.programs},
                )
                for one in started
            ],
            skipped=skipped,
            users_per_second=_parts(plan, model, bodies, started, say),
            growth=measure_growth(
                model,
                bodies,
                plan.movies,
                rounds=plan.rounds,
                seconds=plan.seconds * _POINT_SHARE,
                say=say,
            ),
        )


def bodies_for(model: Model, count: int) -> list[bytes]:
    """That many requests for a model, each another."""
    catalogue, histories = model.bundle.catalogue, model.bundle.histories
    return workload.requests(
        catalogue.movie_ids,
        catalogue.rating_counts,
        histories.user_ids,
        as_of=int(histories.timestamps.max(initial=0)),
        count=count,
        seed=_SEED,
    )


class _Loads:
    """The rounds of a variant, by the number of connections, and the CPU time of its programs."""

    def __init__(self, one: Running, requests: Path, connections: Sequence[int]) -> None:
        self._one, self._requests = one, requests
        self.rounds: dict[int, list[wrk.Round]] = {number: [] for number in connections}
        self.cpu_ms: dict[str, dict[int, list[float]]] = {
            program.name: {number: [] for number in connections} for program in one.programs
        }

    def warm_up(self, seconds: int) -> None:
        """A round that does not count, over the most connections."""
        wrk.load(self._one.url, self._requests, connections=max(self.rounds), seconds=seconds)
        wait_until_idle(self._one.programs)

    def add(self, connections: int, seconds: int) -> None:
        """One round more, and the wait for what it has left to do."""
        before = [program.cpu_seconds() for program in self._one.programs]
        made = wrk.load(self._one.url, self._requests, connections=connections, seconds=seconds)
        self.rounds[connections].append(made)
        for program, start in zip(self._one.programs, before, strict=True):
            used = program.cpu_seconds() - start
            self.cpu_ms[program.name][connections].append(used * 1000 / made.requests)
        wait_until_idle(self._one.programs)


def _loads(
    plan: Plan, started: Sequence[Running], requests: Path, say: Callable[[str], None]
) -> dict[str, _Loads]:
    """What each variant does under load, by its name."""
    loads = {one.variant.name: _Loads(one, requests, plan.connections) for one in started}
    for one in loads.values():
        one.warm_up(plan.seconds)
    for number in range(plan.rounds):
        for connections in plan.connections:
            for one in loads.values():
                one.add(connections, plan.seconds)
        say(f"round {number + 1} of {plan.rounds} is done")
    return loads


def _parts(
    plan: Plan,
    model: Model,
    bodies: Sequence[bytes],
    started: Sequence[Running],
    say: Callable[[str], None],
) -> Mapping[str, list[float]]:
    """The rounds of each part by its name; none without the stack, which gRPC is measured on."""
    layout = next((one.layout for one in started if one.variant.name == STACK), None)
    if layout is None:
        say(f"the parts are left out: {STACK} is not among the variants")
        return {}
    with parts(model, bodies, layout.user_tower, layout.retrieval) as measurable:
        measured: dict[str, list[float]] = {part.name: [] for part in measurable}
        for _ in range(plan.rounds):
            for part in measurable:
                measured[part.name].append(part.run(plan.seconds * _PART_SHARE))
    return measured
