"""The files of a data set: in a folder or an archive, or a single one, compressed or not."""

from __future__ import annotations

import gzip
import lzma
import re
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import IO, Final

from training.progress import track
from twotower.errors import DataError

_HEAD: Final = 1 << 16
_DAMAGED: Final = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError)
# RuntimeError means encrypted or compressed in an unknown way, ValueError an undecodable name.
_UNREADABLE: Final = (*_DAMAGED, RuntimeError, ValueError)
_ZIPPED: Final = rb"PK(?![ -~])"  # and not a table whose first column is called so
_KINDS: Final = "a folder, a .zip, .tar, .tar.gz or .gz, or a file of ratings"


@dataclass(frozen=True)
class Source:
    """A file. `path` is where it lies in its folder or archive; `within` is the name of that."""

    path: PurePosixPath
    within: Path
    size: int
    """In bytes, as it lies there: packed where it is a packed file."""
    _open: Callable[[], IO[bytes]] = field(repr=False)
    namesake: bool = False
    """Whether another file has the same name."""

    @property
    def name(self) -> str:
        """What it is called where it is spoken of."""
        return str(self.path) if self.namesake else self.path.name

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

    Where all lies within one folder, the top is there.
    Raises DataError where there is nothing, or nothing that can be unpacked.
    """
    try:
        if path.is_dir():
            yield _in_folder(path)
        elif re.match(_ZIPPED, _begins(path)):
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
        return file.read(3)


def _open(path: Path) -> IO[bytes]:
    return path.open("rb")


def _in_folder(path: Path) -> list[Source]:
    top = path
    while len(inner := [each for each in top.iterdir() if not _is_hidden(each.name)]) == 1:
        if inner[0].is_symlink() or not inner[0].is_dir():
            break
        (top,) = inner
    files = [*top.glob("*"), *top.glob("*/*")]
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
    """Those at the top, which is where all are, and one folder below; not what systems hide."""
    seen = [source for source in sources if not any(map(_is_hidden, source.path.parts))]
    levels = zip(*(source.path.parts[:-1] for source in seen), strict=False)
    top = sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, levels))
    near = [source for source in seen if len(source.path.parts) <= top + 2]  # a folder and a name
    names = Counter(source.path.name for source in near)
    told_apart = [replace(source, namesake=names[source.path.name] > 1) for source in near]
    return sorted(told_apart, key=lambda source: source.path)


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "__"))


def decoded(content: bytes) -> tuple[str, list[int]]:
    """Text in UTF-8, and the lines of it, from 0, that are not: they are taken as Latin-1.

    As Windows has it, which uses what Latin-1 leaves free for quotation marks and dashes.
    """
    try:
        return content.decode(), []
    except UnicodeDecodeError:
        lines, others = [], []
        for place, line in enumerate(content.split(b"\n")):
            try:
                lines.append(line.decode())
            except UnicodeDecodeError:
                lines.append(line.decode("cp1252", errors="replace"))
                others.append(place)
        return "\n".join(lines), others
