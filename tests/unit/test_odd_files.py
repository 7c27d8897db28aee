"""What people keep ratings in by mistake, or as other programs write it: read, or refused in a line."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from datetime import date, datetime, time, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from training.dataset import Dataset, Reading, read_dataset
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
        (b"PK\x03\x04" + JUNK, "odd is damaged: File is not a zip file"),
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


def test_space_before_quotes(tmp_path: Path) -> None:
    dataset = read(tmp_path, '"user", "item", "rating"\n"ann", "x, y", "4"\n"bo", "z", "5"\n')
    assert dataset.movies["external_id"].tolist() == ["x, y", "z"]
    assert dataset.ratings["rating"].tolist() == [4, 5]
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


MOVIES = "movieId,title,genres\n10,A (1999),War\n20,B (2000),War\n"


def movies_of(folder: Path, movies: str | bytes) -> Dataset:
    (folder / "movies.csv").write_bytes(movies if isinstance(movies, bytes) else movies.encode())
    return read(folder, RATINGS)


@pytest.mark.parametrize("value", ["9999-12-31", "2101-01-01T00:00:00Z"])
def test_a_date_of_a_far_future_is_not_taken_for_milliseconds(tmp_path: Path, value: str) -> None:
    dataset = read(tmp_path, f"{RATINGS}3,20,4,{value}\n")
    assert len(dataset.ratings) == 2
    (finding,) = dataset.findings
    assert (finding.deed, finding.what) == ("dropped", "timestamp is after the year 2100")
    assert finding.examples == ((4, value),)


@pytest.mark.parametrize("value", ["-1", "-1.5e9", "1969-12-31", "1969-12-31 23:59:59"])
def test_a_time_before_1970_is_none(tmp_path: Path, value: str) -> None:
    dataset = read(tmp_path, f"{RATINGS}3,20,4,{value}\n")
    assert told(dataset) == [("dropped", "timestamp is before 1970")]


@pytest.mark.parametrize(
    "value",
    [
        *("2001-01-01T00:00Z", "2001-01-01T01:00+01:00", "2001-01-01 00:00:00 UTC", "2001-1-1"),
        *("2001-01-01T00:00:00,000Z", "20010101T000000Z", "2000-12-31 19:00:00 -0500"),
    ],
)
def test_ways_to_write_a_date_and_time(tmp_path: Path, value: str) -> None:
    dataset = read(tmp_path, f'{HEADER}1,10,4,"{value}"\n')
    assert dataset.ratings["timestamp"].tolist() == [978307200]
    assert converted(dataset) == [("timestamp is a date", (value,))]


def test_what_is_dropped_is_not_told_as_converted(tmp_path: Path) -> None:
    dataset = read(tmp_path, f"{RATINGS}3,20,4,20010102103000\n")
    assert told(dataset) == [("dropped", "timestamp is after the year 2100")]


def test_odd_dates_in_parquet(tmp_path: Path) -> None:
    table = pl.DataFrame(
        {
            "user": [1, 2, 3],
            "item": [10, 10, 10],
            "rating": [1, 2, 3],
            "timestamp": [datetime(2001, 1, 1), datetime(9999, 12, 31), datetime(1960, 1, 1)],  # noqa: DTZ001
        }
    )
    table.write_parquet(tmp_path / "r.parquet")
    dataset = read_dataset(tmp_path)
    assert dataset.ratings["timestamp"].tolist() == [978307200]
    assert [(each.what, each.examples) for each in dataset.findings] == [
        ("timestamp is before 1970", ((3, "1960-01-01 00:00:00"),)),
        ("timestamp is after the year 2100", ((2, "9999-12-31 00:00:00"),)),
    ]


def test_years_and_lists_of_other_types_in_parquet(tmp_path: Path) -> None:
    pl.DataFrame({"user": [1, 2], "item": [1, 2], "rating": [3, 4]}).write_parquet(tmp_path / "r")
    table = pl.DataFrame(
        {
            "item": [1, 2],
            "year": [date(1995, 5, 1), None],
            "genres": pl.Series([["War", "Drama"], None], dtype=pl.List(pl.Categorical)),
        }
    )
    table.write_parquet(tmp_path / "m")
    movies = read_dataset(tmp_path).movies
    assert movies["year"].fillna(0).tolist() == [1995, 0]
    assert movies["genres"].tolist() == [("War", "Drama"), ()]
    pairs = pl.Series([["War", "Drama"], ["War", "Crime"]], dtype=pl.Array(pl.String, 2))
    table.with_columns(pairs.alias("genres")).write_parquet(tmp_path / "m")
    assert read_dataset(tmp_path).movies["genres"].tolist() == [("War", "Drama"), ("War", "Crime")]


@pytest.mark.parametrize(
    ("written", "separator"),
    [("War, Drama", "','"), ("War;Drama", "';'"), ("War / Drama", "' / '"), ("War|Drama", None)],
)
def test_genres_with_another_separator(tmp_path: Path, written: str, separator: str | None) -> None:
    dataset = movies_of(tmp_path, f'movieId,title,genres\n10,A,"{written}"\n20,B,Sci-Fi\n')
    assert dataset.movies["genres"].tolist() == [("War", "Drama"), ("Sci-Fi",)]
    noted = [("noted", f"genres are separated by {separator}")] if separator else []
    assert told(dataset) == noted


def test_where_there_is_a_pipe_other_separators_are_part_of_a_genre(tmp_path: Path) -> None:
    dataset = movies_of(tmp_path, 'movieId,title,genres\n10,A,"Food, Wine|Travel"\n20,B,"Food, Wine"\n')
    assert dataset.movies["genres"].tolist() == [("Food, Wine", "Travel"), ("Food, Wine",)]
    assert dataset.findings == ()


@pytest.mark.parametrize(
    "written",
    [
        """["War", 'Children\\'s']""",
        """['War' "Children's"]""",
        '["War", "Children\\u0027s"]',
        """[{'id': 1, 'name': 'War'}, {'id': 2, 'name': "Children's"}]""",
        "[War, Children's]",
    ],
)
def test_genres_as_a_list_in_text(tmp_path: Path, written: str) -> None:
    quoted = written.replace('"', '""')
    dataset = movies_of(tmp_path, f'movieId,title,genres\n10,A,"{quoted}"\n20,B,[]\n')
    assert dataset.movies["genres"].tolist() == [("War", "Children's"), ()]
    assert told(dataset) == [("noted", "genres written as [lists]: read one by one")]


@pytest.mark.parametrize(
    "written", ["nan", "None", "NULL", "N/A", "\\N", "Unknown", "(No genres listed)"]
)
def test_no_genres(tmp_path: Path, written: str) -> None:
    dataset = movies_of(tmp_path, f"movieId,title,genres\n10,A,{written}\n20,B,War|{written}\n")
    assert dataset.movies["genres"].tolist() == [(), ("War",)]


def test_separators_within_a_list_are_part_of_a_genre(tmp_path: Path) -> None:
    movies = 'movieId,title,genres\n10,A,"[""Food, Wine""]"\n20,B,"[""War|Peace"", ""a;b""]"\n'
    dataset = movies_of(tmp_path, movies)
    assert dataset.movies["genres"].tolist() == [("Food, Wine",), ("War|Peace", "a;b")]


def test_genres_between_separators_that_are_not_quoted(tmp_path: Path) -> None:
    movies = "movieId,title,genres\n10,A (1999),War,Drama\n20,B, The (2000),War,Drama\n"
    dataset = movies_of(tmp_path, movies)
    assert dataset.movies["title"].tolist() == ["A", "B, The"]
    assert dataset.movies["genres"].tolist() == [("War", "Drama"), ("War", "Drama")]
    (finding,) = dataset.findings
    assert (finding.deed, finding.count) == ("repaired", 2)
    assert "between the genres" in finding.what


def test_a_year_that_is_none_is_told(tmp_path: Path) -> None:
    movies = "movieId,title,genres,year\n10,A,War,95\n20,B,War,c1995\n30,C,War,\n40,D (2001),War,x\n"
    dataset = movies_of(tmp_path, movies)
    assert dataset.movies["year"].fillna(0).tolist() == [0, 1995, 0, 2001]
    (finding,) = dataset.findings
    assert (finding.deed, finding.examples) == ("noted", ((2, "95"),))
    assert finding.what == "no year from 1000 to 2199 is in year: left empty"


def test_lines_in_latin_1_among_others_in_utf_8(tmp_path: Path) -> None:
    lines = [
        "movieId,title,genres\n",
        "10,Café,War\n",
        "20,\u201cIt\u2019s\u201d \u2013 Amélie,War\n",
        "30,日本,War\n",
    ]
    encodings = ["utf-8", "utf-8", "cp1252", "utf-8"]
    content = b"".join(line.encode(each) for line, each in zip(lines, encodings, strict=True))
    dataset = movies_of(tmp_path, content)
    assert dataset.movies["title"].tolist() == ["Café", "\u201cIt\u2019s\u201d \u2013 Amélie", "日本"]
    (finding,) = dataset.findings
    assert (finding.deed, finding.count, finding.examples[0][0]) == ("noted", 1, 3)


def test_a_header_in_latin_1(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_bytes("usuário;item;nota\nJosé;10;4\n".encode("latin-1"))
    dataset = read_dataset(tmp_path, Reading({"user": "usuário", "rating": "nota"}))
    assert dataset.users["external_id"].tolist() == ["José"]
    assert dataset.ratings["rating"].tolist() == [4]


@pytest.mark.parametrize("end", ["\r", "\r\r\n", "\r\n"])
def test_lines_that_end_in_several_ways(tmp_path: Path, end: str) -> None:
    dataset = read(tmp_path, f"{RATINGS}3,10,4,5{end}4,10,4,5\n5,10,9,5\n")
    assert dataset.ratings["user_id"].tolist() == [1, 2, 3, 4]
    (finding,) = dataset.findings
    assert finding.examples == ((6, "9"),)


@pytest.mark.parametrize("before", ["# of 2020\n\n# by us, all, of, it\n", "sep=,\n"])
def test_what_stands_before_the_header(tmp_path: Path, before: str) -> None:
    dataset = read(tmp_path, f"{before}{RATINGS}3,10,9,5\n")
    assert dataset.ratings["user_id"].tolist() == [1, 2]
    dropped, noted = dataset.findings
    assert dropped.examples == ((4 + before.count("\n"), "9"),)
    assert (noted.deed, noted.what) == ("noted", "lines before the header: left out")


@pytest.mark.parametrize("header", [HEADER, OWN])
def test_a_header_that_comes_again(tmp_path: Path, header: str) -> None:
    rows = "1,10,4,1000000000\n"
    item = header.split(",")[1]
    (tmp_path / "m.csv").write_text(f"{item},title,genres\n{item},title,genres\n10,A,War\n")
    dataset = read(tmp_path, f"{header}{header}{rows}{header}2,10,4,5\n")
    assert dataset.users["user_id"].tolist() == [1, 2]
    assert dataset.movies["movie_id"].tolist() == [10]
    assert {(each.what, each.count) for each in dataset.findings} == {
        ("the header again", 2),
        ("the header again", 1),
    }
    assert [(file.rows, file.kept) for file in dataset.files] == [(4, 2), (2, 1)]


def test_text_in_a_row_that_is_dropped_makes_no_text_of_the_ids(tmp_path: Path) -> None:
    dataset = read(tmp_path, f"{OWN}7,70,4,5\n# and, so, on, x\n")
    assert dataset.ratings.iloc[0].tolist()[:2] == [7, 70]


@pytest.mark.parametrize("id_", ["+8", "8.0"])
def test_an_id_among_names_is_written_in_one_way(tmp_path: Path, id_: str) -> None:
    dataset = read(tmp_path, f"{OWN}x,{id_},4,5\ny,8,4,5\nz,tt1,3,5\n")
    assert dataset.movies["external_id"].tolist() == ["8", "tt1"]
    large = f"{'9' * 20}.0"
    assert read(tmp_path, f"{OWN}{large},8,4,5\n").users["external_id"].tolist() == ["9" * 20]


@pytest.mark.parametrize("value", ["\\N", "#N/A", "none"])
def test_ids_that_are_missing(tmp_path: Path, value: str) -> None:
    assert told(read(tmp_path, f"{OWN}x,8,4,5\n{value},8,4,5\n")) == [("dropped", "user is missing")]


def test_columns_by_number_where_the_first_row_is_made_of_these_numbers(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("1,2,3.5\n4,2,5\n")
    dataset = read_dataset(tmp_path, Reading({"user": "1", "item": "2", "rating": "3"}))
    assert dataset.ratings["rating"].tolist() == [3.5, 5]


def test_columns_that_are_not_read_where_some_are_missing_are_told(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("item,name,genres\n10,A,War\n")
    dataset = read(tmp_path, "user,item,stars,time\n1,10,4,5\n")
    assert not dataset.rated
    ratings, movies = (each.what for each in dataset.findings)
    assert ratings.startswith(
        "no column is called rating or timestamp, and not read are 'stars', 'time'"
    )
    assert movies == "no column is called title, and not read are 'name': --columns says what they are"


def test_a_quoted_field_of_many_lines(tmp_path: Path) -> None:
    review = "\n".join(f"{number},10,1,5" for number in range(50))
    header = "user,item,rating,timestamp,review\n"
    dataset = read(tmp_path, f'{header}1,10,4,5,"{review}"\n2,10,3,5,5" of snow\n3,10,9,x,no\n')
    assert dataset.users["user_id"].tolist() == [1, 2]
    assert [each.examples[0] for each in dataset.findings] == [(53, "x")]


def test_a_table_whose_first_column_is_called_as_zip_archives_begin(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("PK,user,item,rating\n1,2,3,4\n")
    assert read_dataset(path).ratings["rating"].tolist() == [4]


def test_movies_alone(tmp_path: Path) -> None:
    assert "; movies.csv holds movies alone" in refusal(tmp_path, MOVIES, "movies.csv")
