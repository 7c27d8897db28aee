"""How far a long loop is, wherever it runs: whoever has asked to see it is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from typing import Final, TypeVar

T = TypeVar("T")

OnDone = Callable[[float], None]
"""Called with how much of the total is done."""

Watcher = Callable[[str, float], AbstractContextManager[OnDone]]
"""Called before a loop with what it does and how much there is to do."""

_WATCHER: Final[ContextVar[Watcher | None]] = ContextVar("watcher", default=None)
_EVERY_SECONDS: Final = 0.2
"""How often a watcher is told; of loops that take no longer, it is told nothing."""


@contextmanager
def watched_by(watcher: Watcher) -> Iterator[None]:
    """Within the block, the watcher is told of every loop that is tracked."""
    token = _WATCHER.set(watcher)
    try:
        yield
    finally:
        _WATCHER.reset(token)


def track(
    items: Iterable[T],
    doing: str,
    total: float,
    size: Callable[[T], float] = lambda _: 1,
    *,
    at: Callable[[], float] | None = None,
) -> Iterator[T]:
    """The items, telling on the way how much of the `total` is done: their number, or that by `size`.

    at: where that is known from elsewhere, what says it.
    """
    watcher = _WATCHER.get()
    if watcher is None:
        yield from items
        return
    done, told_at = 0.0, time.monotonic()
    with ExitStack() as shown:
        on_done: OnDone | None = None
        for item in items:
            yield item
            done += size(item)
            now = time.monotonic()
            if now - told_at >= _EVERY_SECONDS:
                told_at = now
                on_done = on_done or shown.enter_context(watcher(doing, total))
                on_done(at() if at else done)
