"""Clients of a gateway: who asks once, and who keep asking."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

import httpx

from services import NO_TLS, wait_until

_PAUSE: Final = 0.01
"""Between a client's requests: the machine is for the services."""


def ask(url: str, user_id: int = 1) -> tuple[httpx.Response, float]:
    """The answer, and the seconds it took."""
    start = time.monotonic()
    body = {"user_id": user_id}
    answer = httpx.post(f"{url}/v1/recommendations", json=body, timeout=20, verify=NO_TLS)
    return answer, time.monotonic() - start


@contextmanager
def load(url: str, threads: int = 4) -> Iterator[list[str]]:
    """Clients who ask while the block runs; "200" or the problem of each answer, as they come."""
    outcomes: list[str] = []
    stop = threading.Event()

    def keep_asking() -> None:
        with httpx.Client(base_url=url, timeout=10, verify=NO_TLS) as client:
            for _ in range(5000):
                if stop.wait(_PAUSE):
                    return
                answer = client.post("/v1/recommendations", json={"user_id": 6})
                outcomes.append("200" if answer.is_success else answer.text)

    with ThreadPoolExecutor(threads) as pool:
        clients = [pool.submit(keep_asking) for _ in range(threads)]
        try:
            yield outcomes
        finally:
            stop.set()
    for client in clients:
        client.result()


def wait_for_more(outcomes: list[str], count: int) -> None:
    """Until so many more have come than there were."""
    start = len(outcomes)
    wait_until(lambda: len(outcomes) >= start + count, f"{count} more answers", 10)
