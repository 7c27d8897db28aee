"""How every process ends: its errors as one line, its signals as exit statuses."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

from twotower.errors import OperationError


def run(main: Callable[[], None]) -> NoReturn:
    """Run a process's main function; an error of ours becomes one line on standard error, status 1."""
    try:
        main()
    except OperationError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    sys.exit(0)
