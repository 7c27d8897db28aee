"""Writing to disk whole or not at all: aside, flushed, renamed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from twotower.errors import BundleError

_PARTIAL: Final = ".partial-"
_ABANDONED_SECONDS: Final = 86_400


def write_atomically(path: Path, content: bytes) -> None:
    """Put `content` at `path`; a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    aside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.chmod(0o644)  # mkstemp's own mode would hide it from a service of another user
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


@contextmanager
def partial_folder(parent: Path, name: str) -> Iterator[Path]:
    """A folder to fill: it becomes `parent/name` when the block ends, and vanishes if it fails.

    What stands at `parent/name` stays until then, and is then replaced.
    """
    parent.mkdir(parents=True, exist_ok=True)
    _sweep(parent)
    aside = Path(tempfile.mkdtemp(dir=parent, prefix=_PARTIAL))
    try:
        yield aside
        aside.chmod(0o755)  # mkdtemp's own mode would hide it from a service of another user
        _flush_folder(aside)
        if (parent / name).exists():
            replaced = Path(tempfile.mkdtemp(dir=parent, prefix=_PARTIAL))
            (parent / name).rename(replaced / name)
            aside.rename(parent / name)
            shutil.rmtree(replaced)
        else:
            aside.rename(parent / name)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    _flush_folder(parent)


@contextmanager
def writing_into(root: Path) -> Iterator[None]:
    """Within the block, a failure to write is a BundleError that names the folder."""
    try:
        yield
    except OSError as error:
        raise BundleError(f"{root} cannot be written to: {error.strerror or error}") from error


def temporary_folder() -> Path:
    """Where files are put for a moment. Raises BundleError where none can be."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise BundleError(str(error.strerror)) from error


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Within the block, this process alone; others that ask for the same folder wait for its end."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def check_writable(root: Path) -> None:
    """Raise BundleError now where a bundle could not be written into `root` later."""
    with writing_into(root):
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass


def _sweep(parent: Path) -> None:
    """Remove what a process that was killed left half-filled, once no one can still be at it."""
    for left in parent.glob(f"{_PARTIAL}*"):
        if time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
