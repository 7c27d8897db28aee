"""Steady load on a published port, which counts what fails."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from services import NO_TLS

_CLIENTS = 8
_PAUSE_SECONDS = 0.01


@dataclass
class Load:
    """What came back so far: how many answers of which status, or which failure of the connection."""

    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> dict[str, int]:
        return {outcome: count for outcome, count in self.outcomes.items() if outcome != "200"}


@contextmanager
def under_load(url: str) -> Iterator[Load]:
    """Requests from several clients, each of its own connection, while the block runs."""
    load, stop, lock = Load(), threading.Event(), threading.Lock()

    def ask(number: int) -> None:
        with httpx.Client(base_url=url, verify=NO_TLS, trust_env=False, timeout=10) as client:
            body = {"ratings": [{"movie_id": 1 + number, "rating": 4.5}], "k": 5}
            while not stop.is_set():
                try:
                    answer = client.post("/v1/recommendations", json=body)
                    said = "" if answer.is_success else f" {answer.text}"
                    outcome = f"{answer.status_code}{said}"
                except httpx.TransportError as error:
                    outcome = repr(error)
                with lock:
                    load.outcomes[outcome] += 1
                time.sleep(_PAUSE_SECONDS)

    clients = [threading.Thread(target=ask, args=(number,)) for number in range(_CLIENTS)]
    for client in clients:
        client.start()
    try:
        yield load
    finally:
        stop.set()
        for client in clients:
            client.join()
