"""What people keep ratings in by mistake, or as other programs write it: read, or refused in a line."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from datetime import date, time, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from training.dataset import Dataset, read_dataset
from training.inspection import inspect_dataset
from training.report import Reporter
from twotower.errors import DataError

HEADER = "userId,movieId,rating,timestamp\n"
RATINGS = f"{HEADER}1,10,4,1000000000\n2,20,3,1000000001\n"
OWN = "user,item,rating,timestamp\n"
JUNK = np.random.default_rng(0).bytes(5_000)


def zipped(**files: str | bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("_", "."), content)
    return buffer.getvalue()


def read(folder: Path, content: str | bytes, name: str = "ratings.csv") -> Dataset:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_dataset(folder)


def refusal(folder: Path, content: str | bytes, name: str = "ratings.csv") -> str:
    with pytest.raises(DataError) as caught:
        read(folder, content, name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def told(dataset: Dataset) -> list[tuple[str, str]]:
    return [(each.deed, each.what) for each in dataset.findings]


def converted(dataset: Dataset) -> list[tuple[str, tuple[str, ...]]]:
    return [(each.what, tuple(value for _, value in each.examples)) for each in dataset.findings]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (gzip.compress(gzip.compress(RATINGS.encode())), "ratings.csv (an archive: unpack it)"),
        (bz2.compress(RATINGS.encode()), "ratings.csv (an archive: unpack it)"),
        (lzma.compress(RATINGS.encode()), "ratings.csv (an archive: unpack it)"),
        (zipped(ratings_csv=RATINGS), "ratings.csv (an archive or a workbook: unpack it"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "ratings.csv (no text)"),
        (bytes(5000), "ratings.csv (no text)"),
        (RATINGS.encode("utf-16-le"), "ratings.csv is in UTF-16: save it in UTF-8"),
        (RATINGS.encode("utf-16-be"), "ratings.csv is in UTF-16: save it in UTF-8"),
        ("<html>404</html>", "ratings.csv ('<html>404</html>')"),
        ('{"userId": 1, "movieId": 2}\n', 'ratings.csv (\'{"userId": 1,'),
        ("x" * 100_000, "ratings.csv ('xxx"),
    ],
)
def test_what_holds_no_ratings(tmp_path: Path, content: str | bytes, words: str) -> None:
    assert words in refusal(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK" + JUNK, "odd is damaged: File is not a zip file"),
        (b"\x1f\x8b" + JUNK, "odd cannot be read: "),
        (b"\x80" + JUNK, "odd holds odd (no text)"),
        (
            zipped(in_zip=zipped(ratings_csv=RATINGS)),
            "odd holds in.zip (an archive or a workbook: unpack",
        ),
    ],
)
def test_a_single_file_that_holds_none(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "odd"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_dataset(path)
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


def test_folders_that_lead_into_themselves_are_read_once(tmp_path: Path) -> None:
    (tmp_path / "within").symlink_to(tmp_path)
    (tmp_path / "itself").symlink_to("itself")
    assert len(read(tmp_path, RATINGS).ratings) == 2
    with pytest.raises(DataError, match="itself cannot be read: Too many levels of symbolic links"):
        read_dataset(tmp_path / "itself")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (f"{HEADER}1,10,,1\n1,20,,2\n", "2 dropped: rating is not a number from 0.5 to 5"),
        (f"{HEADER}1,10,4,\n1,20,4,\n", "2 dropped: timestamp is neither seconds"),
        (f"{OWN},10,4,1\n,20,4,2\n", "2 dropped: user is missing"),
        (f"{HEADER}1,10,4,1,\n1,20,4,2,\n", "2 dropped: another number of fields than 4"),
    ],
)
def test_a_column_of_nothing(tmp_path: Path, content: str, why: str) -> None:
    assert f"no rating is left: ratings.csv: {why}" in refusal(tmp_path, content)


def test_a_column_of_nulls_in_parquet(tmp_path: Path) -> None:
    table = pl.DataFrame({"user": [1], "item": [10], "rating": pl.Series([None], dtype=pl.Null)})
    table.write_parquet(tmp_path / "r.parquet")
    with pytest.raises(DataError, match=r"r\.parquet: 1 dropped: rating is not a finite number"):
        read_dataset(tmp_path)


def test_a_workbook(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "book.xlsx", "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("xl/workbook.xml", "<workbook/>")
    with pytest.raises(DataError, match=r"book\.xlsx is a workbook: save its sheet as CSV"):
        read_dataset(tmp_path / "book.xlsx")


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_lines_that_end_in_returns_alone(tmp_path: Path, bom: bytes) -> None:
    (tmp_path / "movies.csv").write_bytes(b"movieId,title,genres\r10,A (1999),War\r20,B (2000),War")
    dataset = read(tmp_path, bom + RATINGS.replace("\n", "\r").encode())
    assert dataset.ratings["timestamp"].tolist() == [1000000000, 1000000001]
    assert dataset.movies["title"].tolist() == ["A", "B"]
    assert dataset.findings == ()


@pytest.mark.parametrize(
    "row", ["1;10;3,5;1000000000", '1;10;"3,5";1000000000', "1;10; 3,50 ;1000000000"]
)
def test_a_decimal_comma(tmp_path: Path, row: str) -> None:
    dataset = read(tmp_path, f"{HEADER.replace(',', ';')}{row}\n2;10;4;1000000000\n")
    assert dataset.ratings["rating"].tolist() == [3.5, 4]
    ((what, _),) = converted(dataset)
    assert what == "rating with a decimal comma"


@pytest.mark.parametrize("value", ["3,555", "1,000", "3,", ",5", "3,5,5"])
def test_other_commas_are_no_decimal_ones(tmp_path: Path, value: str) -> None:
    dataset = read(tmp_path, f'{HEADER}1,10,"{value}",5\n2,10,4,5\n')
    assert dataset.ratings["rating"].tolist() == [4]


@pytest.mark.parametrize("value", ["31.12.2001", "12/31/2001", "31/12/2001", "9" * 20])
def test_what_is_no_time_for_sure(tmp_path: Path, value: str) -> None:
    dataset = read(tmp_path, f"{RATINGS}3,20,4,{value}\n")
    assert len(dataset.ratings) == 2
    assert told(dataset) == [
        ("dropped", "timestamp is neither seconds since 1970 nor a date like 2001-12-31 23:59:59")
    ]


def test_space_around_everything(tmp_path: Path) -> None:
    dataset = read(
        tmp_path, "user , item, rating ,timestamp\n ann , x, 4 , 1 \nann,y,3,2\n\tbo,x ,5,3\n"
    )
    assert dataset.users["external_id"].tolist() == ["ann", "bo"]
    assert dataset.movies["external_id"].tolist() == ["x", "y"]
    assert dataset.ratings["rating"].tolist() == [4, 3, 5]
    assert dataset.findings == ()


def test_numbers_too_large_for_an_id_are_names(tmp_path: Path) -> None:
    dataset = read(tmp_path, f"{OWN}{'9' * 20},10,4,100\n1,20,3,200\n")
    assert dataset.users["external_id"].tolist() == ["1", "9" * 20]
    assert dataset.findings == ()


def test_a_title_over_two_lines_is_whole(tmp_path: Path) -> None:
    (tmp_path / "movies.csv").write_text('movieId,title,genres\n10,"A\nB (1999)",War\n20,C,War\n')
    dataset = read(tmp_path, RATINGS)
    assert dataset.movies["title"].tolist() == ["A\nB", "C"]
    assert dataset.findings == ()


def test_what_a_terminal_would_act_on_is_shown_as_it_is_written_in_code(tmp_path: Path) -> None:
    dataset = read(tmp_path, f"{RATINGS}3,2\x000,4,5\n3,\x1b[2J,4,5\n")
    assert len(dataset.ratings) == 2
    console = Console(width=200, record=True, file=io.StringIO())
    Reporter(console).inspection(inspect_dataset(dataset))
    shown = console.export_text()
    assert r"4: 2\x000" in shown
    assert r"5: \x1b[2J" in shown


@pytest.mark.parametrize("value", ["2001/01/01", "2001/01/01 00:00", "2001/01/01 00:00:00", "20010101"])
def test_more_ways_to_write_a_date(tmp_path: Path, value: str) -> None:
    dataset = read(tmp_path, f"{HEADER}1,10,4,{value}\n")
    assert dataset.ratings["timestamp"].tolist() == [978307200]
    assert converted(dataset) == [("timestamp is a date", (value,))]


@pytest.mark.parametrize("seconds", [0, 19000100, 20011301, 20010230, 21001232, 978307200, 4102444800])
def test_other_numbers_are_seconds(tmp_path: Path, seconds: int) -> None:
    dataset = read(tmp_path, f"{HEADER}1,10,4,{seconds}\n")
    assert dataset.ratings["timestamp"].tolist() == [seconds]
    assert dataset.findings == ()


@pytest.mark.parametrize("value", ["4102444801", "99999999999", "20010102103000", "9" + "0" * 18])
def test_a_time_after_2100_is_none(tmp_path: Path, value: str) -> None:
    dataset = read(tmp_path, f"{RATINGS}3,20,4,{value}\n")
    assert len(dataset.ratings) == 2
    (finding,) = [each for each in dataset.findings if each.deed == "dropped"]
    assert (finding.what, finding.examples) == ("timestamp is after the year 2100", ((4, value),))


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("userId", pl.Series([[1], [2]]), "column userId is of type List(Int64), allowed are text"),
        ("userId", pl.Series([{"a": 1}, {"a": 2}]), "column userId is of type Struct"),
        ("userId", pl.Series([b"a", b"\xff\xfe"]), "column userId is of type Binary"),
        ("timestamp", pl.Series([time(1), time(2)]), "column timestamp is of type Time"),
        ("timestamp", pl.Series([timedelta(1)] * 2), "column timestamp is of type Duration"),
    ],
)
def test_parquet_of_types_that_say_nothing(
    tmp_path: Path, name: str, values: pl.Series, words: str
) -> None:
    table = pl.read_csv(RATINGS.encode()).with_columns(values.alias(name))
    table.write_parquet(tmp_path / "r.parquet")
    with pytest.raises(DataError) as caught:
        read_dataset(tmp_path)
    assert words in str(caught.value)


def test_parquet_of_types_that_say_the_same(tmp_path: Path) -> None:
    table = pl.read_csv(RATINGS.encode()).with_columns(
        userId=pl.Series([b"1", b"2"]),
        movieId=pl.Series(["10", "20"], dtype=pl.Categorical),
        rating=pl.Series([4, 3], dtype=pl.Decimal(5, 2)),
        timestamp=pl.Series([date(2001, 9, 9), None]),
    )
    table.write_parquet(tmp_path / "r.parquet")
    dataset = read_dataset(tmp_path)
    assert dataset.ratings.to_numpy().tolist() == [[1, 10, 4, 999993600]]
