"""What is kept of a run, and for whom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from builders import damage, disk_is_full
from training.checkpoint import FOLDER, NOWHERE, Checkpoint
from twotower.errors import SettingsError


def _of(parent: Path, identity: str = "this run", *, resume: bool = True) -> Checkpoint:
    return Checkpoint.of(parent, identity, resume=resume, warn=pytest.fail)


def test_what_was_kept_is_there_for_the_same_run(tmp_path: Path) -> None:
    _of(tmp_path).within("part").save("step", {"numbers": np.arange(3), "text": np.array("é")})
    kept = _of(tmp_path).within("part").load("step")
    assert kept is not None
    assert kept.keys() == {"numbers", "text"}
    assert kept["numbers"].tolist() == [0, 1, 2]
    assert str(kept["text"]) == "é"


def test_it_is_not_there_for_another_run(tmp_path: Path) -> None:
    _of(tmp_path).save("step", {"numbers": np.arange(3)})
    assert _of(tmp_path, "another").load("step") is None
    assert not _of(tmp_path, "another").found


def test_nor_for_one_that_starts_at_the_beginning(tmp_path: Path) -> None:
    _of(tmp_path).save("step", {"numbers": np.arange(3)})
    assert _of(tmp_path, resume=False).load("step") is None
    assert _of(tmp_path, resume=False).found


def test_nor_for_another_version_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _of(tmp_path).save("step", {"numbers": np.arange(3)})
    monkeypatch.setattr("training.checkpoint._code_digest", lambda: "another")
    assert _of(tmp_path).load("step") is None


def test_what_is_cleared_leaves_nothing_but_what_others_kept(tmp_path: Path) -> None:
    for identity in ("this run", "another"):
        _of(tmp_path, identity).within("part").save("step", {"numbers": np.arange(3)})
    _of(tmp_path).clear()
    assert not _of(tmp_path).found
    assert _of(tmp_path, "another").found
    _of(tmp_path, "another").clear()
    assert list(tmp_path.iterdir()) == []
    _of(tmp_path).clear()  # nothing there


def test_a_folder_made_for_it_alone_goes_with_it(tmp_path: Path) -> None:
    checkpoint = _of(tmp_path / "bundles")
    checkpoint.save("step", {"numbers": np.arange(3)})
    checkpoint.clear()
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_entry_is_told_and_what_to_do(tmp_path: Path) -> None:
    _of(tmp_path).save("step", {"numbers": np.arange(1000)})
    (path,) = (tmp_path / FOLDER).glob("*/step.npz")
    damage(path)
    with pytest.raises(SettingsError, match=r"step\.npz: .*without --resume it starts at the beginning"):
        _of(tmp_path).load("step")


def test_a_full_disk_ends_what_is_kept_but_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    checkpoint = Checkpoint.of(tmp_path, "this run", resume=True, warn=said.append)
    monkeypatch.setattr("os.fsync", disk_is_full)
    checkpoint.save("step", {"numbers": np.arange(3)})
    checkpoint.within("part").save("another", {"numbers": np.arange(3)})
    (line,) = said
    assert line.startswith(f"warning: no checkpoint is kept any more: {tmp_path}")
    assert line.endswith("No space left on device")
    assert list(tmp_path.glob("**/*.npz")) == []


def test_without_a_folder_nothing_is_kept() -> None:
    NOWHERE.save("step", {"numbers": np.arange(3)})
    assert NOWHERE.within("part").load("step") is None
    assert not NOWHERE.found
    NOWHERE.clear()
