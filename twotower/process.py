"""How every process takes its port, and how it ends: its errors as one line, its signals as statuses."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable
from typing import NoReturn

from twotower.errors import OperationError, SettingsError


def listen(host: str, port: int) -> socket.socket:
    """Listen on a port; 0 is any free one.

    Raises SettingsError where the port is taken, or the host is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]  # Python adds the address once more
        raise SettingsError(f"cannot listen on {host}:{port}: {reason}") from error


def run(main: Callable[[], None]) -> NoReturn:
    """Run a process's main function; an error of ours becomes one line on standard error, status 1.

    SIGTERM interrupts as Ctrl-C does, unless the process has a way of its own to stop in order.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except OperationError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    sys.exit(0)
