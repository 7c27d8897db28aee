"""What is measured side by side: each variant as programs that serve `POST /v1/recommendations`."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from bench.processes import Command, Program, free_port
from twotower.errors import OperationError

STACK: Final = "stack"
_PATIENCE_SECONDS: Final = 120
_JSON: Final = {"content-type": "application/json"}
_SAME_SCORE: Final = 1e-5
"""Another runtime's scores differ by less; movies as near as that may change places."""


@dataclass(frozen=True)
class Layout:
    """A variant's programs by name, the port that it serves HTTP on, and those that serve gRPC."""

    port: int
    commands: Mapping[str, Command]
    user_tower: int = 0
    retrieval: int = 0


@dataclass(frozen=True)
class Variant:
    """One way to serve. With `constant` it gives the bytes of one answer to whatever it is asked."""

    name: str
    about: str
    lay_out: Callable[[], Layout]
    constant: bool = False
    needs: str = ""
    """A module that it cannot do without."""

    def missing(self) -> str:
        """Why it cannot be measured here, or nothing."""
        if self.needs and importlib.util.find_spec(self.needs) is None:
            return f"{self.needs} is not installed; make bench installs requirements/bench.txt"
        return ""


@dataclass(frozen=True)
class Running:
    """A variant that serves."""

    variant: Variant
    layout: Layout
    programs: Sequence[Program]
    start_seconds: float
    """From the start of its programs to its first answer."""

    @property
    def url(self) -> str:
        """Where it serves HTTP."""
        return _url(self.layout)

    def check(self, bodies: Sequence[bytes], references: Sequence[bytes]) -> None:
        """Raise OperationError unless it answers every request as its reference does."""
        with httpx.Client(base_url=self.url, trust_env=False, timeout=_PATIENCE_SECONDS) as client:
            for body, reference in zip(bodies, references, strict=True):
                answer = client.post("/v1/recommendations", content=body, headers=_JSON)
                expected = references[0] if self.variant.constant else reference
                if not answer.is_success or not self._agrees(answer.content, expected):
                    raise OperationError(
                        f"{self.variant.name} answers {body.decode()[:100]} by {answer.status_code} "
                        f"{answer.text[:1000]}, the reference by {expected.decode()[:1000]}"
                    )

    def _agrees(self, answer: bytes, reference: bytes) -> bool:
        if answer == reference:
            return True
        return not self.variant.constant and _same_movies(json.loads(answer), json.loads(reference))


@contextmanager
def running(
    variant: Variant, environment: Mapping[str, str], first: bytes, logs: Path
) -> Iterator[Running]:
    """The variant while the block runs, once it has answered a first request.

    Raises OperationError where a program of it ends, or no answer comes.
    """
    layout = variant.lay_out()
    start = time.perf_counter()
    with ExitStack() as stack:
        programs = [
            stack.enter_context(
                Program.running(
                    name,
                    Command(command.arguments, {**environment, **command.environment}),
                    logs / f"{variant.name}-{name}.log",
                )
            )
            for name, command in layout.commands.items()
        ]
        _wait_for_answer(_url(layout), first, programs)
        yield Running(variant, layout, programs, time.perf_counter() - start)


def _wait_for_answer(url: str, body: bytes, programs: Sequence[Program]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    with httpx.Client(base_url=url, trust_env=False, timeout=_PATIENCE_SECONDS) as client:
        while time.monotonic() < deadline:
            for program in programs:
                program.check_running()
            try:
                if client.post("/v1/recommendations", content=body, headers=_JSON).is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.01)
    words = "; ".join(f"{program.name}: {program.last_words()}" for program in programs)
    raise OperationError(f"no answer from {url} within {_PATIENCE_SECONDS} s; {words}")


def _url(layout: Layout) -> str:
    return f"http://127.0.0.1:{layout.port}"


def _same_movies(answer: Mapping[str, Any], reference: Mapping[str, Any]) -> bool:
    """Whether the same movies come in the same order, but for those whose scores are level."""
    pairs = list(zip(answer["items"], reference["items"], strict=False))
    score_of = {movie["movie_id"]: movie["score"] for movie in reference["items"]}
    found = {movie["movie_id"] for movie in answer["items"]}
    return len(found) == len(answer["items"]) == len(reference["items"]) and all(
        given["movie_id"] == expected["movie_id"]
        or abs(score_of.get(given["movie_id"], given["score"]) - expected["score"]) <= _SAME_SCORE
        for given, expected in pairs
    )


def _stack(**gateway: object) -> Layout:
    user_tower, retrieval, port = free_port(), free_port(), free_port()
    targets = {"USER_TOWER": f"127.0.0.1:{user_tower}", "RETRIEVAL": f"127.0.0.1:{retrieval}"}
    return Layout(
        port,
        {
            "user_tower_svc": _service("user_tower_svc", "USER_TOWER", PORT=user_tower, METRICS_PORT=0),
            "retrieval_svc": _service("retrieval_svc", "RETRIEVAL", PORT=retrieval, METRICS_PORT=0),
            "gateway": _service("gateway", "GATEWAY", PORT=port, **targets, **gateway),
        },
        user_tower,
        retrieval,
    )


def _service(module: str, prefix: str, **settings: object) -> Command:
    # A line a request is what no rival writes.
    environment = {"LOG_LEVEL": "warning", **settings}
    return Command(
        [sys.executable, "-m", module],
        {f"{prefix}_{name}": str(value) for name, value in environment.items()},
    )


def _asgi(application: str, workers: int = 1) -> Layout:
    port = free_port()
    arguments = [
        *(sys.executable, "-m", "uvicorn", application, "--factory", "--port", str(port)),
        *("--workers", str(workers), "--log-level", "warning", "--no-access-log"),
    ]
    return Layout(port, {"uvicorn": Command(arguments, {})})


def _bento() -> Layout:
    port = free_port()
    arguments = [
        *(sys.executable, "-m", "bentoml", "serve", "bench.rivals.bento:Recommendations"),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]
    return Layout(port, {"bentoml": Command(arguments, {"BENTOML_DO_NOT_TRACK": "True"})})


_CORES: Final = os.cpu_count() or 1

VARIANTS: Final = (
    Variant(
        STACK,
        "gateway, user_tower_svc and retrieval_svc, a process each; requests go together in batches",
        _stack,
    ),
    Variant(
        "two-calls",
        "the same processes, but a request goes alone: one call to each service",
        lambda: _stack(MAX_BATCH_ROWS=1, BATCHES_IN_FLIGHT=1024),
    ),
    Variant(
        "bentoml",
        "BentoML: one service with the same encoder, LiteRT tower and FAISS index; a worker a core",
        _bento,
        needs="bentoml",
    ),
    Variant(
        "monolith",
        "the first version's way: FastAPI, Keras predict, a sort of all movies; a worker a core",
        lambda: _asgi("bench.rivals.monolith:create_app", _CORES),
        needs="keras",
    ),
    Variant(
        "fastapi",
        "a ceiling: one process of FastAPI that reads the request and always gives one answer",
        lambda: _asgi("bench.rivals.ceiling:create_fastapi"),
        constant=True,
    ),
    Variant(
        "asgi",
        "a ceiling: one process of bare ASGI that always gives one answer",
        lambda: _asgi("bench.rivals.ceiling:create_bare"),
        constant=True,
    ),
)
