from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from twotower.logs import set_up_logging


@pytest.fixture
def _restored() -> Iterator[None]:
    """Logging as it was, once the test is over."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()


pytestmark = pytest.mark.usefixtures("_restored")


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    captured = capsys.readouterr()
    assert captured.err == ""
    return [json.loads(line) for line in captured.out.splitlines()]


def divide(log: Any) -> None:
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        log.exception("failed")


def test_a_line_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("the service", "info")
    structlog.get_logger().info("said\ntwice", rows=3, ids=["a", "é"], path=object)
    (line,) = lines(capsys)
    made = datetime.fromisoformat(line.pop("timestamp"))
    assert timedelta(0) <= datetime.now(UTC) - made < timedelta(minutes=1)
    assert line == {
        "service": "the service",
        "level": "info",
        "event": "said\ntwice",
        "rows": 3,
        "ids": ["a", "é"],
        "path": "<class 'object'>",
    }


@pytest.mark.parametrize("logger", [structlog.get_logger, lambda: logging.getLogger("a.library")])
def test_lines_of_a_request_carry_its_id(logger: Any, capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("the service", "info")
    structlog.contextvars.bind_contextvars(request_id="abc")
    logger().info("within")
    structlog.contextvars.clear_contextvars()
    logger().info("after")
    within, after = lines(capsys)
    assert within["request_id"] == "abc"
    assert "request_id" not in after


@pytest.mark.parametrize("logger", [structlog.get_logger, lambda: logging.getLogger("a.library")])
def test_an_exception_is_part_of_its_line(logger: Any, capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("the service", "info")
    divide(logger())
    (line,) = lines(capsys)
    assert (line["event"], line["level"]) == ("failed", "error")
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith("ZeroDivisionError: division by zero")


def test_libraries_log_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("the service", "info")
    logging.getLogger("a.library").warning("%d of %s", 2, "them")
    (line,) = lines(capsys)
    assert line.keys() == {"service", "level", "event", "timestamp"}
    assert (line["service"], line["level"], line["event"]) == ("the service", "warning", "2 of them")


@pytest.mark.parametrize(
    ("level", "events"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_less_severe_lines_are_left_out(
    level: str, events: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    set_up_logging("the service", level)
    for severity in ("debug", "info", "warning", "error"):
        getattr(structlog.get_logger(), severity)(severity)
        getattr(logging.getLogger("a.library"), severity)(severity)
    assert [line["event"] for line in lines(capsys)] == [event for event in events for _ in range(2)]


def test_setting_up_twice_does_not_double_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    for service in ("first", "second"):
        set_up_logging(service, "info")
    structlog.get_logger().info("once")
    (line,) = lines(capsys)
    assert line["service"] == "second"


def test_a_full_disk_costs_the_line_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    set_up_logging("the service", "info")
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stdout", full)
        structlog.get_logger().info("lost")
        monkeypatch.undo()
        with suppress(OSError):
            full.close()
