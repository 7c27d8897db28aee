"""What a long run has found so far, kept on disk: another of the same run goes on from there."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Self

import numpy.typing as npt

from twotower.errors import BundleError, SettingsError
from twotower.files import write_atomically
from twotower.npz import read_arrays, write_arrays

Arrays = Mapping[str, npt.NDArray[Any]]

FOLDER: Final = ".checkpoints"
_CODE: Final = ("training", "twotower")
_LIBRARIES: Final = ("tensorflow", "keras", "numpy", "scipy")


@dataclass
class Checkpoint:
    """Arrays by name in a folder, each entry written whole or not at all; without a folder, nothing.

    Where an entry cannot be written, `warn` is told once, and no more is kept: what runs goes on.
    """

    folder: Path | None = None
    resume: bool = True
    """Whether entries of a run before this one are looked at."""
    warn: Callable[[str], None] = field(default=lambda _: None, repr=False)
    _makes_parent: bool = False
    """Whether the folder of the bundles is there for the checkpoint alone."""
    _failures: list[OSError] = field(default_factory=list, repr=False)
    """Shared with its parts, which do not try again either."""

    @classmethod
    def of(cls, parent: Path, identity: str, *, resume: bool, warn: Callable[[str], None]) -> Self:
        """That of a run, which `identity` tells from others: of its data, its settings, its seeds.

        What was found by another version of this code, or of its libraries, is of another run.
        """
        told = [identity, _code_digest(), *(f"{name} {version(name)}" for name in _LIBRARIES)]
        digest = hashlib.sha256("\n".join(told).encode()).hexdigest()
        return cls(parent / FOLDER / digest[:16], resume, warn, not parent.exists())

    def within(self, name: str) -> Self:
        """A part of it, whose entries have names of their own."""
        return replace(self, folder=self.folder and self.folder / name)

    @property
    def found(self) -> bool:
        """Whether anything is kept."""
        return self.folder is not None and self.folder.is_dir()

    def load(self, name: str) -> Arrays | None:
        """An entry, where there is one. Raises SettingsError where it cannot be read."""
        if self.folder is None or not self.resume:
            return None
        path = self.folder / f"{name}.npz"
        try:
            return read_arrays(str(path), path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, BundleError) as error:
            raise SettingsError(f"{error}; without --resume it starts at the beginning") from error

    def save(self, name: str, arrays: Arrays) -> None:
        """Keep an entry, in place of what it was."""
        if self.folder is None or self._failures:
            return
        try:
            write_atomically(self.folder / f"{name}.npz", write_arrays(arrays))
        except OSError as error:
            self.warn(f"warning: no checkpoint is kept any more: {self.folder}: {error.strerror}")
            self._failures.append(error)

    def clear(self) -> None:
        """Forget all of it."""
        if self.folder is None:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):  # others are kept there, or nothing was
            self.folder.parent.rmdir()
            if self._makes_parent:
                self.folder.parent.parent.rmdir()


NOWHERE: Final = Checkpoint()
"""Keeps nothing."""


def _code_digest() -> str:
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for package in _CODE:
        for path in sorted((root / package).glob("**/*")):
            if path.suffix in (".py", ".c", ".sh"):
                digest.update(path.read_bytes())
    return digest.hexdigest()
