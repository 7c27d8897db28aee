"""What the kernel refuses to write: said in one line, and nothing half-written is taken for a bundle."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest
import tensorflow as tf

import builders
from builders import make_bundle, write
from training.export import to_litert
from twotower.bundle import list_versions, read_bundle
from twotower.errors import BundleError
from twotower.promotion import promote, read_current

_WRITE = """
import sys
from functools import partial
from pathlib import Path
from builders import make_bundle, write
from twotower.process import run

run(partial(write, Path(sys.argv[1]), make_bundle()))
"""
_BYTES = {name: len(content) for name, content in make_bundle().serialise().items()}


def _limited(largest_file: int | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python where no file may become larger than so many bytes."""
    limit = (largest_file, largest_file) if largest_file is not None else None
    path = os.pathsep.join([str(Path(builders.__file__).parent), *sys.path])
    return subprocess.run(
        [sys.executable, "-B", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        preexec_fn=limit and partial(resource.setrlimit, resource.RLIMIT_FSIZE, limit),
        capture_output=True,
        text=True,
        check=False,
    )


def _line(refused: subprocess.CompletedProcess[str]) -> str:
    assert refused.returncode == 1, refused
    (line,) = refused.stderr.splitlines()
    return line


@pytest.mark.parametrize("fits", [0, min(_BYTES.values()), max(_BYTES.values()) - 1])
def test_a_bundle_that_does_not_fit_leaves_nothing(tmp_path: Path, fits: int) -> None:
    root = tmp_path / "bundles"
    line = _line(_limited(fits, "-c", _WRITE, str(root)))
    assert line == f"error: {root} cannot be written to: File too large"
    assert list(root.iterdir()) == []
    assert _limited(None, "-c", _WRITE, str(root)).returncode == 0
    (version,) = list_versions(root)
    read_bundle(root, version)


def test_a_bundle_that_does_not_fit_leaves_the_others(tmp_path: Path) -> None:
    root = tmp_path / "bundles"
    before = write(root, make_bundle(1))
    _line(_limited(max(_BYTES.values()) - 1, "-c", _WRITE, str(root)))
    assert [path.name for path in root.iterdir()] == [before]
    read_bundle(root, before)


def test_a_promotion_that_does_not_fit_leaves_the_one_before(tmp_path: Path) -> None:
    root = tmp_path / "bundles"
    first, second = (write(root, make_bundle(seed)) for seed in (1, 2))
    promote(root, first)
    command = ("-m", "training", "promote", "--force", "--bundles", str(root), second)
    assert _line(_limited(0, *command)).endswith("cannot be written to: File too large")
    current = read_current(root)
    assert current is not None
    assert (current.current, current.previous) == (first, None)
    assert _limited(None, *command).returncode == 0
    current = read_current(root)
    assert current is not None
    assert (current.current, current.previous) == (second, first)


@pytest.mark.parametrize("command", ["promote", "rollback"])
def test_a_file_in_place_of_the_folder_is_told(tmp_path: Path, command: str) -> None:
    root = tmp_path / "bundles"
    root.write_text("mine")
    arguments = ["0" * 16] if command == "promote" else []
    line = _line(_limited(None, "-m", "training", command, "--bundles", str(root), *arguments))
    assert line.startswith("error: ")
    assert root.read_text() == "mine"


def test_no_room_for_temporary_files_is_told_before_training(tmp_path: Path) -> None:
    root = tmp_path / "bundles"
    line = _line(_limited(0, "-m", "training", "train", "--bundles", str(root)))
    assert line.startswith("error: No usable temporary directory found in ")
    assert not root.exists()


_SAID = [
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    OSError("No space left on device"),
    tf.errors.ResourceExhaustedError(None, None, "No space left on device\n\tat a C++ stack"),
]


@pytest.mark.parametrize("said", _SAID, ids=lambda said: repr(said)[:30])
def test_a_full_disk_is_told_while_a_tower_is_converted(said: Exception) -> None:
    tower = Mock()
    tower.export.side_effect = said
    with pytest.raises(BundleError, match=r"^/.* cannot be written to: No space left on device$"):
        to_litert(tower)
