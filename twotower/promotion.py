"""Which of the bundles in a folder is served: `current` names it, and the one before it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import ValidationError

from twotower.bundle import read_bundle
from twotower.errors import BundleError
from twotower.files import write_atomically, writing_into
from twotower.manifest import ModelVersion, StrictModel

CURRENT: Final = "current"


class Current(StrictModel):
    """Which model is promoted, and which was before."""

    current: ModelVersion
    previous: ModelVersion | None = None


def read_current(root: Path) -> Current | None:
    """What is promoted in `root`, or None where nothing is. Raises BundleError for a damaged file."""
    try:
        return Current.model_validate_json((root / CURRENT).read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BundleError(f"{CURRENT}: {error.strerror}") from error
    except ValidationError as error:
        raise BundleError(
            f"{CURRENT}: cannot be read as a promotion; remove it, then promote a model"
        ) from error


def promote(root: Path, model_version: str) -> Current:
    """Verify a bundle and make it the current one; the current one becomes the previous.

    Promoting the current one again changes nothing. Raises BundleError.
    """
    read_bundle(root, model_version)
    before = read_current(root)
    after = supersede(before, model_version)
    return after if after == before else _point(root, after)


def supersede(before: Current | None, model_version: str) -> Current:
    """What a model's promotion makes of what was promoted before."""
    if before and before.current == model_version:
        return before
    return Current(current=model_version, previous=before.current if before else None)


def rollback(root: Path) -> Current:
    """Make the previous bundle the current one again, and the current one the previous."""
    before = read_current(root)
    if before is None or before.previous is None:
        raise BundleError("there is no previous model to roll back to")
    read_bundle(root, before.previous)
    return _point(root, Current(current=before.previous, previous=before.current))


def _point(root: Path, current: Current) -> Current:
    with writing_into(root):
        write_atomically(root / CURRENT, current.model_dump_json().encode() + b"\n")
    return current
