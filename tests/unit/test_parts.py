"""Which files of a folder are read: one, or all parts of one; nothing is left aside silently."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Mapping
from pathlib import Path

import polars as pl
import pytest

from training.dataset import Dataset, Reading, read_dataset
from twotower.errors import DataError

HEADER = "userId,movieId,rating,timestamp\n"
FIRST = f"{HEADER}1,10,4,1000000000\n1,20,3,1000000001\n2,10,5,1000000002\n"
SECOND = f"{HEADER}3,20,2,1000000003\n3,30,1,1000000004\n"
MOVIES = "movieId,title,genres\n10,A (1999),Drama\n20,B (2000),Drama\n30,C (2001),War\n"
RATED = [(1, 10, 4), (1, 20, 3), (2, 10, 5), (3, 20, 2), (3, 30, 1)]


def write(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def rated(dataset: Dataset) -> list[tuple[int, int, float]]:
    return list(dataset.ratings[["user_id", "movie_id", "rating"]].itertuples(index=False, name=None))


def notes(dataset: Dataset) -> list[tuple[str, int, str]]:
    return [(each.file, each.count, each.what) for each in dataset.findings if each.deed == "noted"]


def refusal(path: Path, reading: Reading | None = None) -> str:
    with pytest.raises(DataError) as caught:
        read_dataset(path, reading)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "names",
    [
        ("ratings_1.csv", "ratings_2.csv"),
        ("ratings-2019.csv", "ratings-2020.csv"),
        ("part.9", "part.10"),
        ("part-00000-6b2f.c000.csv", "part-00001-6b2f.c000.csv"),
    ],
)
def test_parts_of_text_are_read_together(tmp_path: Path, names: tuple[str, str]) -> None:
    dataset = read_dataset(write(tmp_path, dict(zip(names, (FIRST, SECOND), strict=True))))
    assert rated(dataset) == RATED
    assert [(file.name, file.rows, file.kept) for file in dataset.files] == [
        (names[0], 3, 3),
        (names[1], 2, 2),
    ]
    assert dataset.findings == ()


@pytest.mark.parametrize("folder", [".", "ratings.parquet"])
def test_parts_of_parquet_are_read_together(tmp_path: Path, folder: str) -> None:
    for number, text in enumerate((FIRST, SECOND)):
        place = tmp_path / folder / f"part-{number:04}.parquet"
        place.parent.mkdir(exist_ok=True)
        pl.read_csv(text.encode()).write_parquet(place)
    assert rated(read_dataset(tmp_path)) == RATED


def test_tables_that_are_folders_of_parts(tmp_path: Path) -> None:
    first, *rest = MOVIES.splitlines(keepends=True)
    files = {
        "ratings/part-0": FIRST,
        "ratings/part-1": SECOND,
        "movies/part-0": first + rest[0],
        "movies/part-1": first + "".join(rest[1:]),
    }
    dataset = read_dataset(write(tmp_path, files))
    assert dataset.movies["title"].tolist() == ["A", "B", "C"]
    assert [file.kept for file in dataset.files] == [3, 2, 1, 2]


def test_parts_may_be_packed_and_have_their_columns_elsewhere(tmp_path: Path) -> None:
    other = "rating,timestamp,movieId,userId\n2,1000000003,20,3\n1,1000000004,30,3\n"
    files = {"ratings_1.csv.gz": gzip.compress(FIRST.encode()), "ratings_2.csv.gz": other}
    assert rated(read_dataset(write(tmp_path, files))) == RATED


def test_what_is_wrong_is_told_of_the_part_where_it_is(tmp_path: Path) -> None:
    files = {
        "ratings_1.csv": FIRST + "1,10,2,1000000009\n",
        "ratings_2.csv": SECOND + "1,10,1,1000000009\n1,40,1,5\n1,20,9,5\n",
        "movies.csv": MOVIES,
    }
    dataset = read_dataset(write(tmp_path, files))
    assert rated(dataset)[-1] == (1, 10, 1)
    assert len(dataset.ratings) == 5
    assert [(each.file, each.count, each.examples[-1]) for each in dataset.findings] == [
        ("ratings_2.csv", 1, (6, "9")),
        ("ratings_2.csv", 1, (5, "40")),
        ("ratings_1.csv", 2, (5, "1 10")),
    ]
    first, second, _ = dataset.files
    assert (first.rows, first.kept, second.rows, second.kept) == (4, 2, 5, 3)


def test_of_ratings_at_one_time_the_last_part_has_the_last_word(tmp_path: Path) -> None:
    files = {  # the earlier the part, the later the line
        f"ratings_{part}.csv": HEADER + "\n" * (3 - part) + f"1,10,{part},100\n" for part in (1, 2, 3)
    }
    dataset = read_dataset(write(tmp_path, files))
    assert rated(dataset) == [(1, 10, 3)]
    assert [(each.file, each.examples) for each in dataset.findings] == [
        ("ratings_1.csv", ((4, "1 10"),)),
        ("ratings_2.csv", ((3, "1 10"),)),
    ]


def test_what_is_empty_is_no_part(tmp_path: Path) -> None:
    files = {"part-1.csv": FIRST, "part-2.csv": "", "_SUCCESS": ""}
    assert rated(read_dataset(write(tmp_path, files))) == RATED[:3]


def test_text_in_one_part_makes_text_of_all(tmp_path: Path) -> None:
    files = {"a1.csv": "user,item,rating\n7,x,4\n", "a2.csv": "user,item,rating\n8,12,3\n"}
    dataset = read_dataset(write(tmp_path, files))
    assert dataset.movies["external_id"].tolist() == ["12", "x"]
    assert dataset.users["user_id"].tolist() == [7, 8]


def test_a_movie_that_two_parts_have(tmp_path: Path) -> None:
    again = "movieId,title,genres\n10,Other (2010),War\n"
    files = {"ratings.csv": FIRST, "films1.csv": MOVIES, "films2.csv": again}
    dataset = read_dataset(write(tmp_path, files))
    assert dataset.movies["title"].tolist() == ["A", "B", "C"]
    (finding,) = dataset.findings
    assert (finding.file, finding.examples) == ("films2.csv", ((2, "10"),))


def test_the_digest_is_of_all_parts(tmp_path: Path) -> None:
    files = {"ratings_1.csv": FIRST, "ratings_2.csv": SECOND}
    one = read_dataset(write(tmp_path / "one", files))
    changed = files | {"ratings_2.csv": SECOND.replace("3,30,1", "3,30,2")}
    assert one.digest != read_dataset(write(tmp_path / "other", changed)).digest


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"old.csv": FIRST, "new.csv": SECOND},
            "several files of ratings, new.csv, old.csv: leave just one of them, or name them as parts",
        ),
        (
            {"r1.csv": FIRST, "r2.csv": "userId,movieId,rating\n3,20,2\n"},
            "r2.csv (MovieLens CSV: item, rating, user): parts must have the same columns",
        ),
        (
            {"r1.csv": FIRST, "r2.csv": "user,item,rating,timestamp\n3,20,2,7\n"},
            "r2.csv (table: item, rating, timestamp, user): parts must have the same columns",
        ),
        (
            {"r1.csv": FIRST, "r2.csv": SECOND.removeprefix(HEADER)},
            "holds r2.csv, which is called like a part of r1.csv, but has not its columns: give it the",
        ),
        (
            {"ratings_1.csv": HEADER, "ratings_2.csv": HEADER},
            "ratings_1.csv and ratings_2.csv have no rows",
        ),
    ],
)
def test_what_cannot_be_read_together(tmp_path: Path, files: dict[str, str], words: str) -> None:
    assert words in refusal(write(tmp_path, files))


def test_files_left_aside_are_told(tmp_path: Path) -> None:
    files = {"ratings.csv": FIRST, "ratings_2.csv": SECOND, "older/ratings.csv": SECOND, "tags.txt": "a"}
    dataset = read_dataset(write(tmp_path, files))
    assert len(dataset.ratings) == 3
    told = "left aside, though ratings or movies are in it"
    assert notes(dataset) == [("older/ratings.csv, ratings_2.csv", 2, told)]


@pytest.mark.parametrize("content", ["", "\n \n", "title,genres\nA,Drama\n", "<html>not found</html>"])
def test_a_file_of_movies_without_movies_is_told(tmp_path: Path, content: str) -> None:
    dataset = read_dataset(write(tmp_path, {"ratings.csv": FIRST, "movies.csv": content}))
    assert dataset.movies["title"].tolist() == ["10", "20"]
    assert notes(dataset) == [
        ("movies.csv", 1, "neither ratings nor movies are found in it: left aside")
    ]


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (
            "user,item,rating,rating",
            "rating is read from column 3, 'rating', and not from column 4, 'rating'",
        ),
        (
            "user,item,rating,user_id",
            "user is read from column 1, 'user', and not from column 4, 'user_id'",
        ),
    ],
)
def test_a_column_that_is_there_twice_is_told(tmp_path: Path, header: str, told: str) -> None:
    dataset = read_dataset(write(tmp_path, {"a.csv": f"{header}\n1,2,3,4\n5,6,5,6\n"}))
    assert notes(dataset) == [("a.csv", 1, told)]
    assert rated(dataset) == [(1, 2, 3), (5, 6, 5)]


def test_a_column_that_is_named_is_meant(tmp_path: Path) -> None:
    write(tmp_path, {"a.csv": "user,item,rating,user_id\n1,2,3,4\n"})
    dataset = read_dataset(tmp_path, Reading({"user": "user_id"}))
    assert dataset.findings == ()
    assert rated(dataset) == [(4, 2, 3)]


def test_a_column_that_is_named_and_not_there(tmp_path: Path) -> None:
    write(tmp_path, {"ratings.csv": FIRST})
    assert refusal(tmp_path, Reading({"rating": "stars"})) == (
        "--columns rating=stars: no column is called so, there are 'userId' in ratings.csv, 'movieId' "
        "in ratings.csv, 'rating' in ratings.csv, 'timestamp' in ratings.csv"
    )


@pytest.mark.parametrize(
    "header", ["User ID,Movie ID,Rating,Time Stamp", "user-id,ITEM_ID,rating,timestamp"]
)
def test_names_with_anything_between_their_words(tmp_path: Path, header: str) -> None:
    files = {"a.csv": FIRST.replace(HEADER.strip(), header)}
    assert rated(read_dataset(write(tmp_path, files))) == RATED[:3]


@pytest.mark.parametrize("beside", [{}, {"__MACOSX/._a": "", ".DS_Store": ""}])
def test_folders_around_all_there_is(tmp_path: Path, beside: dict[str, str]) -> None:
    files = {"a/b/c/ratings.csv": FIRST, "a/b/c/d/movies.csv": MOVIES, **beside}
    assert rated(read_dataset(write(tmp_path / "plain", files))) == RATED[:3]
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    assert rated(read_dataset(tmp_path / "data.zip")) == RATED[:3]


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    files = {
        "ratings/part-0": FIRST + "9,10,9,5\n",
        "ratings/part-1": SECOND,
        "movies/part-0": MOVIES + "x,D,War\n",
        "movies/part-1": "movieId,title,genres\n40,E,War\n",
    }
    dataset = read_dataset(write(tmp_path, files))
    assert [(file.name, file.rows, file.kept) for file in dataset.files] == [
        ("ratings/part-0", 4, 3),
        ("ratings/part-1", 2, 2),
        ("movies/part-0", 4, 3),
        ("movies/part-1", 1, 1),
    ]
    assert {each.file for each in dataset.findings} == {"ratings/part-0", "movies/part-0"}
