"""How far loops are, and how a reporter shows it."""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from services import wait_until
from training import progress, report
from training.dataset import read_dataset
from training.progress import OnDone, track, watched_by
from training.report import Reporter


class Watcher:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: dict[str, list[float]] = {}
        self.totals: dict[str, float] = {}

    @contextmanager
    def __call__(self, doing: str, total: float) -> Iterator[OnDone]:
        self.totals[doing] = total
        yield self.told.setdefault(doing, []).append


@pytest.fixture
def watcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watcher]:
    """One that is told of every item."""
    monkeypatch.setattr(progress, "_EVERY_SECONDS", 0.0)
    told = Watcher()
    with watched_by(told):
        yield told


def _said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_loop_gets_its_items_and_the_watcher_how_many_are_done(watcher: Watcher) -> None:
    assert list(track("abc", "letters", 3)) == ["a", "b", "c"]
    assert watcher.told == {"letters": [1, 2, 3]}
    assert watcher.totals == {"letters": 3}


def test_items_count_by_their_size(watcher: Watcher) -> None:
    list(track(["a", "bcd"], "texts", 4, len))
    assert watcher.told == {"texts": [1, 4]}


def test_without_a_watcher_a_loop_runs_as_it_is() -> None:
    assert list(track(iter("abc"), "letters", 3)) == ["a", "b", "c"]


def test_a_watcher_is_told_of_short_loops_nothing() -> None:
    told = Watcher()
    with watched_by(told):
        list(track("abc", "letters", 3))
    assert told.totals == {}


@pytest.mark.parametrize("packed", [False, True])
def test_reading_is_told_by_where_it_is_in_the_file(
    watcher: Watcher, tmp_path: Path, *, packed: bool
) -> None:
    text = "userId,movieId,rating,timestamp\n" + "".join(f"{user},1,3.0,9\n" for user in range(999))
    path = tmp_path / "ratings.csv"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    read_dataset(path)
    size = path.stat().st_size
    assert watcher.totals["reading ratings.csv"] == size
    assert watcher.told["reading ratings.csv"][-1] == size


def test_what_is_no_terminal_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "_SILENCE_SECONDS", 0.0)
    console = Console(file=io.StringIO(), width=100)
    with Reporter(console).watching("counting", 4) as on_progress:
        on_progress(1)
        on_progress(3)
    assert re.fullmatch(r"counting: 25%, 0:00:00 left\ncounting: 75%, 0:00:00 left\n", _said(console))


def test_and_nothing_where_it_is_quick() -> None:
    console = Console(file=io.StringIO(), width=100)
    with Reporter(console).watching("counting", 4) as on_progress:
        on_progress(1)
    assert _said(console) == ""


def test_a_terminal_shows_what_is_part_of_something_below_it() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    reporter = Reporter(console)
    for _ in range(2):  # what has stopped can start again
        with reporter.waiting("outer [part]"), reporter.watching("inner", 2) as on_progress:
            on_progress(1, "half")
            reporter.say("a line above them")
            wait_until(lambda: "half" in _said(console), "it drawn")
            shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", _said(console)).splitlines()
    inner = max(place for place, line in enumerate(shown) if "half" in line)
    assert shown[inner].startswith("inner ")
    assert shown[inner - 1].startswith("outer [part]")
    assert "a line above them" in shown
