"""How every process takes its port, and how it ends: its errors as one line, its signals as statuses."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Final, NoReturn

from twotower.errors import OperationError, SettingsError

_M_ARENA_MAX: Final = -8
"""What `malloc.h` calls the number of arenas."""


def listen(host: str, port: int) -> socket.socket:
    """Listen on a port; 0 is any free one.

    Raises SettingsError where the port is taken, or the host is none of this machine's.
    """
    try:
        return socket.create_server((host, port), family=_family(host), backlog=2048)
    except OSError as error:
        raise _refusal(host, port, error) from error


def hold(host: str, port: int) -> socket.socket:
    """Take a port as `listen` does, but no connections yet: who tries to connect is refused."""
    held = socket.socket(_family(host))
    try:
        # As listeners have it: what is left of a process that ended does not hold the port.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((host, port))
    except OSError as error:
        held.close()
        raise _refusal(host, port, error) from error
    return held


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _refusal(host: str, port: int, error: OSError) -> SettingsError:
    reason = str(error.strerror).partition(" (")[0]  # Python may add the address once more
    return SettingsError(f"cannot listen on {host}:{port}: {reason}")


def compute_in_one_thread() -> None:
    """Have what NumPy and FAISS compute stay in the thread that asks; to be called before their import.

    A service's batches are too small to be worth two: these only wait for each other, at twice the work.
    FAISS has a setting of its own, but that holds for the thread which sets it.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def share_one_arena() -> None:
    """Have all threads allocate from one arena; to be called before there are any.

    The GNU C library gives each thread one of its own, and what was freed there stays with the process:
    a fifth of the user tower's memory under load. MALLOC_ARENA_MAX, where it is set, says otherwise.
    """
    if "MALLOC_ARENA_MAX" not in os.environ:
        with suppress(AttributeError):
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def settle_heap() -> None:
    """Have the garbage collector never look again at what is there by now, which will stay for long.

    Looking through modules and models every so often took tens of milliseconds of some unlucky request.
    What memory loading has left unused goes back to the system, where the C library can do that.
    """
    gc.collect()
    gc.freeze()
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def run(main: Callable[[], None], advise: Callable[[], str] = str) -> NoReturn:
    """Run a process's main function; an error of ours becomes one line on standard error, status 1.

    Ctrl-C and SIGTERM end it with "interrupted", what it may `advise` then, and status 130, unless the
    process has a way of its own to stop in order.
    """
    interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGTERM, interrupt)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # ignored by a shell that started it apart
        signal.signal(signal.SIGINT, interrupt)
    try:
        main()
    except BaseException as error:
        # Native code that was calling Python hands an interrupt on as an error of its own.
        if interrupted or isinstance(error, KeyboardInterrupt):
            sys.stderr.write(f"interrupted{advise()}\n")
            sys.exit(130)
        if isinstance(error, OperationError):
            sys.exit(f"error: {error}")
        raise
    finally:
        gc.unfreeze()  # so that the interpreter takes itself apart as ever
    sys.exit(0)
