"""The files of a data set: in a folder or an archive, or a single one, compressed or not."""

from __future__ import annotations

import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Final

from training.progress import track
from twotower.errors import DataError

_HEAD: Final = 1 << 16
_DAMAGED: Final = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError)
# RuntimeError means encrypted or compressed in an unknown way, ValueError an undecodable name.
_UNREADABLE: Final = (*_DAMAGED, RuntimeError, ValueError)
_KINDS: Final = "a folder, a .zip, .tar, .tar.gz or .gz, or a file of ratings"


@dataclass(frozen=True)
class Source:
    """A file. `path` is where it lies in its folder or archive; `within` is the name of that."""

    path: PurePosixPath
    within: Path
    size: int
    """In bytes, as it lies there: packed where it is a packed file."""
    _open: Callable[[], IO[bytes]] = field(repr=False)

    @property
    def name(self) -> str:
        """The file's own name, by which it is spoken of."""
        return self.path.name

    def blocks(self, size: int, doing: str = "") -> Iterator[bytes]:
        """The content in pieces of `size` bytes, unpacked; what is `doing` with it is told on the way.

        Raises DataError where it is damaged.
        """
        try:
            with self._open() as file:
                packed = file.read(2) == b"\x1f\x8b"
            with self._open() as file, gzip.open(file) if packed else file as content:
                pieces = iter(partial(content.read, size), b"")
                yield from track(pieces, doing, self.size, at=file.tell) if doing else pieces
        except OSError as error:
            raise DataError(
                f"{self.within}: {self.path} cannot be read: {error.strerror or error}"
            ) from error
        except _UNREADABLE as error:
            raise DataError(f"{self.within}: {self.path} is damaged: {error}") from error

    def read(self) -> bytes:
        """All of the content."""
        return b"".join(self.blocks(_HEAD))

    def head(self) -> bytes:
        """The first lines, as many as fit into 64 KiB."""
        block = next(self.blocks(_HEAD), b"")
        return block[: block.rfind(b"\n") + 1] or block if len(block) == _HEAD else block


@contextmanager
def open_sources(path: Path) -> Iterator[list[Source]]:
    """The files at the top of a folder or an archive and in the folders there; or the one file.

    Raises DataError where there is nothing, or nothing that can be unpacked.
    """
    try:
        if path.is_dir():
            yield _in_folder(path)
        elif _begins(path) == b"PK":
            with zipfile.ZipFile(path) as archive:
                yield _in_zip(path, archive)
        elif tarfile.is_tarfile(path):
            with tarfile.open(path) as archive:
                yield _in_tar(path, archive)
        else:
            yield [_of_file(PurePosixPath(path.name), path, path)]
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist: needed is {_KINDS}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except _DAMAGED as error:
        raise DataError(f"{path} is damaged: {error}") from error


def _begins(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(2)


def _open(path: Path) -> IO[bytes]:
    return path.open("rb")


def _in_folder(path: Path) -> list[Source]:
    files = [*path.glob("*"), *path.glob("*/*")]
    found = [(PurePosixPath(each.relative_to(path)), each) for each in files if each.is_file()]
    return _near([_of_file(place, path, each) for place, each in found])


def _of_file(place: PurePosixPath, within: Path, file: Path) -> Source:
    return Source(place, within, file.stat().st_size, partial(_open, file))


def _in_zip(path: Path, archive: zipfile.ZipFile) -> list[Source]:
    files = [each for each in archive.infolist() if not each.is_dir()]
    return _near(
        [
            Source(PurePosixPath(each.filename), path, each.file_size, partial(archive.open, each))
            for each in files
        ]
    )


def _in_tar(path: Path, archive: tarfile.TarFile) -> list[Source]:
    def open_member(member: tarfile.TarInfo) -> IO[bytes]:
        file = archive.extractfile(member)
        assert file is not None, member  # noqa: S101 - it is a regular file
        return file

    return _near(
        [
            Source(PurePosixPath(each.name), path, each.size, partial(open_member, each))
            for each in archive
            if each.isfile()
        ]
    )


def _near(sources: list[Source]) -> list[Source]:
    """Those at the top and one folder below, in the order of their paths; not what systems hide."""
    near = [
        source
        for source in sources
        if len(source.path.parts) <= 2  # noqa: PLR2004 - a folder and a name
        and not any(part.startswith((".", "__")) for part in source.path.parts)
    ]
    return sorted(near, key=lambda source: source.path)
