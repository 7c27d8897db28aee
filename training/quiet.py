"""Keeping native libraries' start-up chatter off the terminal."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from twotower.files import temporary_folder


@contextmanager
def quiet_native_stderr() -> Iterator[None]:
    """Hold back what is written to standard error, by C++ too; show it only if the block fails.

    TensorFlow writes some lines before any of its log settings is read. Raises BundleError where there
    is no room to hold them.
    """
    sys.stderr.flush()
    folder = temporary_folder()
    kept = os.dup(2)
    with tempfile.TemporaryFile(dir=folder) as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        except BaseException:
            held_back.seek(0)
            os.write(kept, held_back.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
