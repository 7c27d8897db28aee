from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from builders import disk_is_full
from twotower.files import partial_folder, write_atomically


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be flushed any more."""
    monkeypatch.setattr(os, "fsync", disk_is_full)


def test_content_is_written_into_folders_made_for_it(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_atomically(path, b"content")
    assert path.read_bytes() == b"content"
    assert [*path.parent.iterdir()] == [path]


def test_content_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"a longer first", b"second", b""):
        write_atomically(path, content)
        assert path.read_bytes() == content


def test_other_users_can_read(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"")
    with partial_folder(tmp_path, "folder"):
        pass
    assert (mode(tmp_path / "file"), mode(tmp_path / "folder")) == (0o644, 0o755)


@pytest.mark.usefixtures("full_disk")
def test_a_failed_write_leaves_the_old_content_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert [*tmp_path.iterdir()] == [path]
    assert path.read_bytes() == b"old"


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    path, whole = tmp_path / "file", {b"a" * 300_000, b"b" * 200_000}
    write_atomically(path, min(whole))
    done = threading.Event()
    seen: set[bytes] = set()

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(10):
        for content in whole:
            write_atomically(path, content)
    done.set()
    reader.join()
    assert seen <= whole


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with partial_folder(root, "folder") as aside:
        (aside / "file").write_bytes(b"content")
        assert not (root / "folder").exists()
        assert aside.name.startswith(".")  # not taken for a finished one
        assert aside.parent == root  # the same disk, so that a rename is enough
    assert [path.name for path in root.iterdir()] == ["folder"]
    assert (root / "folder" / "file").read_bytes() == b"content"


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_a_folder_that_fails_vanishes(tmp_path: Path, fault: type[BaseException]) -> None:
    def fill() -> None:
        with partial_folder(tmp_path, "folder") as aside:
            (aside / "file").write_bytes(b"content")
            raise fault

    with pytest.raises(fault):
        fill()
    assert [*tmp_path.iterdir()] == []


def test_a_folder_already_there_is_replaced_when_the_block_ends(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").touch()
    with partial_folder(tmp_path, "folder") as aside:
        (aside / "new").touch()
        assert (tmp_path / "folder" / "old").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "new"]


@pytest.mark.usefixtures("full_disk")
def test_a_folder_that_cannot_be_flushed_vanishes(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"), partial_folder(tmp_path, "folder"):
        pass
    assert [*tmp_path.iterdir()] == []
