"""Whatever stands in a file: it is read the same in one piece or in many, and nothing goes silently."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from builders import LAW
from training.dataset import read_dataset
from training.findings import Findings
from training.parts import find_tables
from training.rows import read_rows
from training.sources import open_sources
from training.values import Checker
from twotower.errors import DataError

_HEADER = "userId,movieId,rating,timestamp"
_ID = st.sampled_from(
    ["1", "2", "3", "30", "4.0", " 5", '"6"', "", "x", "-1", "9" * 20, '"7', "8\x00", "é"]
)
_RATING = st.sampled_from(["0.5", "3", "5.0", "5.5", "nan", "inf", "good", "", '"4"', "-0", "1e0"])
_TIME = st.sampled_from(
    ["0", "978300760", "978300760000", "2001-01-01", "2001-01-01T01:02:03Z", "", "x"]
)
_ROW = st.tuples(_ID, _ID, _RATING, _TIME).map(",".join)
_LINE = st.one_of(
    _ROW, _ROW, _ROW, st.sampled_from(["", "  ", "1,2,3", "1,2,3,4,5", '"', '"a\nb",1,2,3'])
)
_LINES = st.lists(_LINE, max_size=40)
_END = st.sampled_from(["\n", "\r\n"])


def _write(folder: Path, lines: list[str], end: str, last: str) -> Path:
    content = end.join([_HEADER, *lines]) + last
    (folder / "ratings.csv").write_bytes(content.encode())
    return folder


def _read(folder: Path, block: int) -> tuple[list[tuple[object, ...]], list[str]]:
    """The rows that are kept, and what was found."""
    findings = Findings(strict=False)
    with open_sources(folder) as sources:
        (table,) = find_tables(folder, sources, {}).ratings
        checker = Checker(table, findings)
        kept = [checker.ratings(rows, (0.5, 5.0)) for rows in read_rows(table, findings, block=block)]
    return [row for rows in kept for row in rows.rows()], sorted(map(str, findings.all()))


@LAW
@given(_LINES, _END, st.sampled_from(["", "\n"]), st.integers(60, 400))
def test_in_one_piece_or_in_many(lines: list[str], end: str, last: str, block: int) -> None:
    lines = [
        line for line in lines if line.count('"') % 2 == 0
    ]  # an open quote may reach beyond a piece
    with tempfile.TemporaryDirectory() as name:
        folder = _write(Path(name), lines, end, last)
        assert _read(folder, block) == _read(folder, 1 << 20)


@LAW
@given(_LINES, _END, st.sampled_from(["", "\n"]))
def test_parsed_as_a_whole_or_walked(lines: list[str], end: str, last: str) -> None:
    """A blank line makes every other be walked: they come out as they do without it."""
    lines = [line for line in lines if line.count('"') % 2 == 0 and line.strip() and "\n" not in line]
    with tempfile.TemporaryDirectory() as name:
        kept, _ = _read(_write(Path(name), lines, end, last), 1 << 20)
        walked, _ = _read(_write(Path(name), [*lines, "", "1,1,1"], end, last), 1 << 20)
    assert walked == kept


@LAW
@given(_LINES, _END)
def test_every_row_is_kept_or_told(lines: list[str], end: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = _write(Path(name), lines, end, "\n")
        try:
            dataset = read_dataset(folder)
        except DataError as error:
            assert "\n" not in str(error)  # noqa: PT017
            return
    (file,) = dataset.files
    dropped = [each for each in dataset.findings if each.deed == "dropped"]
    assert file.rows == file.kept + sum(each.count for each in dropped)
    assert file.kept == len(dataset.ratings)
    assert not dataset.ratings.duplicated(["user_id", "movie_id"]).any()
    assert dataset.ratings["rating"].between(0.5, 5).all()
    assert dataset.ratings["timestamp"].between(0, 10**11).all()
    assert set(dataset.ratings["movie_id"]) == set(dataset.movies["movie_id"])
    assert all(line >= 2 for each in dropped for line, _ in each.examples)
