from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from twotower.errors import DataError, SettingsError
from twotower.process import hold, listen, run


@contextmanager
def handlers_restored() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ending_of(main: Callable[[], None]) -> int | str | None:
    with handlers_restored(), pytest.raises(SystemExit) as ended:
        run(main)
    code = ended.value.code
    assert code is None or isinstance(code, int | str)
    return code


def test_a_main_function_that_returns_ends_well() -> None:
    assert ending_of(lambda: None) == 0


def test_an_error_of_ours_is_one_line() -> None:
    def main() -> None:
        raise DataError("ratings.csv: line 3 is wrong")

    assert ending_of(main) == "error: ratings.csv: line 3 is wrong"


def test_a_fault_keeps_its_traceback() -> None:
    def main() -> None:
        raise ZeroDivisionError

    with handlers_restored(), pytest.raises(ZeroDivisionError):
        run(main)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_interrupts(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    assert ending_of(lambda: signal.raise_signal(number)) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("handed_on", [RuntimeError("from native code"), DataError("half a file")])
def test_an_interrupt_that_comes_back_as_another_error_is_an_interrupt(
    number: signal.Signals, handed_on: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            raise handed_on from None

    assert ending_of(main) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_an_interrupt_inside_of_tensorflow_is_an_interrupt() -> None:
    program = """
import signal
import tensorflow as tf
from twotower.process import run

def batches():
    signal.raise_signal(signal.SIGINT)
    yield 1

def main():
    signature = tf.TensorSpec((), tf.int32)
    for _ in tf.data.Dataset.from_generator(batches, output_signature=signature):
        pass

run(main)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 130, ended.stderr
    assert ended.stderr.endswith("interrupted\n")


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    with handlers_restored():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with pytest.raises(SystemExit) as ended:
            run(lambda: signal.raise_signal(signal.SIGINT))
        assert ended.value.code == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_that_is_held_takes_no_connections(host: str) -> None:
    with hold(host, 0) as held:
        address = held.getsockname()[:2]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=5)
        held.listen()
        socket.create_connection(address, timeout=5).close()


@pytest.mark.parametrize("take", [hold, listen])
def test_a_port_that_is_listened_on_cannot_be_taken(take: Callable[[str, int], socket.socket]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        with pytest.raises(SettingsError) as caught:
            take(host, port)
    assert str(caught.value) == f"cannot listen on {host}:{port}: Address already in use"
