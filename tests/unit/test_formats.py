"""Every format that ratings come in, recognised by its content."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import polars as pl
import pytest

from training.dataset import Dataset, Reading, read_dataset
from training.layouts import Columns
from twotower.errors import DataError

_RATINGS = [(7, 20, 4.0, 1112486027), (7, 10, 5.0, 1112484676), (3, 10, 1.0, 946684800)]
_MOVIES = {10: ("Café Noir", 1989, ("Crime", "Drama")), 20: ("Net, The", 1995, ())}
_FLAGS_OF = {10: "0|0|0|0|0|0|1|0|1|0|0|0|0|0|0|0|0|0|0", 20: "1" + "|0" * 18}

_TITLES = {movie_id: f"{title} ({year})" for movie_id, (title, year, _) in _MOVIES.items()}
_CSV = {
    "ratings.csv": "userId,movieId,rating,timestamp\n"
    + "".join(f"{u},{i},{r},{t}\n" for u, i, r, t in _RATINGS),
    "movies.csv": "movieId,title,genres\n10,Café Noir (1989),Crime|Drama\n"
    '20,"Net, The (1995)",(no genres listed)\n',
}
_RATED = "".join(f"{u}::{i}::{r:g}::{t}\n" for u, i, r, t in _RATINGS)
FORMATS: Mapping[str, Mapping[str, str | bytes]] = {
    "MovieLens CSV": {
        **_CSV,
        "tags.csv": "userId,movieId,tag,timestamp\n7,20,fun,1\n",
        "links.csv": "movieId,imdbId,tmdbId\n10,1,1\n",
        "genome-scores.csv": "movieId,tagId,relevance\n10,1,0.5\n",
        "README.txt": "Summary\n=======\n",
    },
    "MovieLens 1M or 10M": {
        "ratings.dat": _RATED,
        "movies.dat": "10::Café Noir (1989)::Crime|Drama\n20::Net, The (1995)::\n".encode("latin-1"),
        "users.dat": "7::F::1::10::48067\n3::M::56::16::70072\n",
        "tags.dat": "7::20::fun::1112486027\n3::10::1995::1112486027\n",
    },
    "MovieLens 100K": {
        "u.data": "".join(f"{u}\t{i}\t{r:g}\t{t}\n" for u, i, r, t in _RATINGS),
        "u1.base": "".join(f"{u}\t{i}\t{r:g}\t{t}\n" for u, i, r, t in _RATINGS[:2]),
        "u.item": "".join(
            f"{i}|{title}|01-Jan-{title[-5:-1]}||http://us.imdb.com/M|{_FLAGS_OF[i]}\n"
            for i, title in _TITLES.items()
        ).encode("latin-1"),
        "u.user": "7|24|M|technician|85711\n3|53|F|other|94043\n",
        "u.genre": "unknown|0\nAction|1\n",
        "u.info": "2 users\n2 items\n3 ratings\n",
    },
    "RecBole": {
        "ml.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        + "".join(f"{u}\t{i}\t{r:g}\t{t}\n" for u, i, r, t in _RATINGS),
        "ml.item": "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        + "".join(f"{i}\t{t}\t{y}\t{' '.join(g)}\n" for i, (t, y, g) in _MOVIES.items()),
        "ml.user": "user_id:token\tage:token\n7\t24\n",
    },
}


def write(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def check(dataset: Dataset) -> None:
    """It is the data set that all formats here hold."""
    assert list(dataset.ratings.itertuples(index=False, name=None)) == _RATINGS
    movies = dataset.movies.drop(columns="external_id")
    assert list(movies.itertuples(index=False, name=None)) == [
        (movie_id, *rest) for movie_id, rest in _MOVIES.items()
    ]
    assert dataset.movies["external_id"].tolist() == ["10", "20"]
    assert dataset.users["user_id"].tolist() == [3, 7]
    assert dataset.timed
    assert dataset.rated


@pytest.mark.parametrize("name", FORMATS)
def test_format(tmp_path: Path, name: str) -> None:
    dataset = read_dataset(write(tmp_path, FORMATS[name]))
    check(dataset)
    assert [file.format for file in dataset.files] == [name, name]
    assert {finding.deed for finding in dataset.findings} <= {"noted"}


@pytest.mark.parametrize("name", FORMATS)
def test_names_say_nothing(tmp_path: Path, name: str) -> None:
    files = {f"{number}.txt": FORMATS[name][file] for number, file in enumerate(_two(FORMATS[name]))}
    check(read_dataset(write(tmp_path, files)))


@pytest.mark.parametrize("name", FORMATS)
def test_with_byte_order_marks_and_carriage_returns_in_a_tar(tmp_path: Path, name: str) -> None:
    files = {}
    for file in _two(FORMATS[name]):
        content = FORMATS[name][file]
        text = content if isinstance(content, str) else content.decode("latin-1")
        files[file] = b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()
    folder = write(tmp_path / "data", files)
    with tarfile.open(tmp_path / "data.tar.gz", "w:gz") as archive:
        archive.add(folder, "data")
    check(read_dataset(tmp_path / "data.tar.gz"))


def _two(files: Mapping[str, str | bytes]) -> list[str]:
    """The files of ratings and of movies."""
    return [name for name in files if name.startswith(("ratings", "movies", "u.data", "u.item", "ml.i"))]


@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
def test_any_table_with_columns_named(tmp_path: Path, separator: str) -> None:
    header = separator.join(("n", "when", "stars", "customer_id", "sku"))
    lines = [separator.join(map(str, (0, t, r, u, i))) for u, i, r, t in _RATINGS]
    items = [
        f'{i}{separator}"{title}"{separator}{" | ".join(_MOVIES[i][2])}' for i, title in _TITLES.items()
    ]
    if separator == "|":
        items = [f'{i}|"{title}"|"{"|".join(_MOVIES[i][2])}"' for i, title in _TITLES.items()]
    files = {
        "a": "\n".join([header, *lines]),
        "b": "\n".join([separator.join(("sku", "name", "genres")), *items]),
    }
    columns: Columns = {
        "user": "customer_id",
        "item": "sku",
        "rating": "stars",
        "timestamp": "when",
        "title": "name",
    }
    dataset = read_dataset(write(tmp_path, files), Reading(columns))
    check(dataset)
    assert dataset.rating_scale == (1.0, 5.0)
    assert dataset.files[0].columns == {
        role: columns[role] for role in ("timestamp", "rating", "user", "item")
    }


def test_a_table_without_a_header_has_its_columns_numbered(tmp_path: Path) -> None:
    (tmp_path / "ratings_Books.csv").write_text(
        "A1,0321732944,5.0,1341100800\nA2,0439886341,1.0,1367193600\n"
    )
    columns: Columns = {"user": "1", "item": "2", "rating": "3", "timestamp": "4"}
    dataset = read_dataset(tmp_path / "ratings_Books.csv", Reading(columns))
    assert dataset.movies["title"].tolist() == ["0321732944", "0439886341"]
    assert dataset.users["external_id"].tolist() == ["A1", "A2"]
    assert dataset.ratings["movie_id"].tolist() == [0, 1]


@pytest.mark.parametrize("times", ["int", "datetime"])
def test_parquet(tmp_path: Path, times: str) -> None:
    table = pl.DataFrame(_RATINGS, schema=["user_id", "item_id", "rating", "timestamp"], orient="row")
    if times == "datetime":
        table = table.with_columns(pl.from_epoch("timestamp"))
    table.write_parquet(tmp_path / "part-0")
    movies = pl.DataFrame(
        {
            "movieId": list(_MOVIES),
            "title": list(_TITLES.values()),
            "genres": [list(genres) for *_, genres in _MOVIES.values()],
        }
    )
    movies.write_parquet(tmp_path / "part-1")
    dataset = read_dataset(tmp_path)
    check(dataset)
    assert dataset.findings == ()


def test_damaged_parquet(tmp_path: Path) -> None:
    pl.DataFrame(_RATINGS, schema=["user", "item", "rating", "timestamp"], orient="row").write_parquet(
        tmp_path / "ratings.parquet"
    )
    content = (tmp_path / "ratings.parquet").read_bytes()
    (tmp_path / "ratings.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"ratings\.parquet is not sound Parquet"):
        read_dataset(tmp_path)


def test_ids_that_are_no_integers_are_numbered_in_alphabetical_order(tmp_path: Path) -> None:
    files = {
        "ratings.csv": "user,item,rating\nzoe,tt2,4\nadam,tt1,3\nzoe,tt1,5\n,tt1,4\nadam,NA,4\n",
        "items.csv": "item,title,genres\ntt2,Second (2002),\ntt1,First (2001),\ntt0,Zeroth (2000),\n",
    }
    dataset = read_dataset(write(tmp_path, files))
    assert dataset.users["external_id"].tolist() == ["adam", "zoe"]
    assert dataset.users["user_id"].tolist() == [0, 1]
    assert dataset.movies["external_id"].tolist() == ["tt0", "tt1", "tt2"]
    assert dataset.movies["title"].tolist() == ["Zeroth", "First", "Second"]
    assert dataset.ratings["user_id"].tolist() == [1, 0, 1]
    assert dataset.ratings["movie_id"].tolist() == [2, 1, 1]
    assert [(each.what, each.examples) for each in dataset.findings] == [
        ("user is missing", ((5, ""),)),
        ("item is missing", ((6, "NA"),)),
    ]


def test_integers_among_names_are_names(tmp_path: Path) -> None:
    files = {"a.csv": "user,item,rating\n12,x1,4\n9.0,7,3\n", "b.csv": "item,title\n7,Seven\nx1,First\n"}
    dataset = read_dataset(write(tmp_path, files))
    assert dataset.users["user_id"].tolist() == [9, 12]
    assert dataset.movies["external_id"].tolist() == ["7", "x1"]


def test_leading_zeros_make_names(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user,item,rating\n1,007,4\n1,7,3\n")
    assert read_dataset(tmp_path).movies["external_id"].tolist() == ["007", "7"]


def test_without_times_or_movies(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating\n7,20,4\n7,10,5\n7,20,3\n")
    dataset = read_dataset(tmp_path)
    assert not dataset.timed
    assert dataset.ratings["timestamp"].tolist() == [0, 0]
    assert dataset.ratings["rating"].tolist() == [5, 3]
    assert dataset.movies["title"].tolist() == ["10", "20"]
    assert dataset.movies["genres"].tolist() == [(), ()]
    assert dataset.movies["year"].isna().all()


def test_without_ratings_every_row_is_a_like(tmp_path: Path) -> None:
    (tmp_path / "clicks.tsv").write_text("user_id\titem_id\ttimestamp\nu1\ta\t5\nu2\tb\t6\n")
    dataset = read_dataset(tmp_path)
    assert not dataset.rated
    assert dataset.ratings["rating"].tolist() == [1, 1]
    assert dataset.rating_scale == (1.0, 1.0)


def test_a_table_that_nobody_knows_shows_how_it_begins(tmp_path: Path) -> None:
    (tmp_path / "stars.csv").write_text("customer,sku,stars\na,b,3\n")
    with pytest.raises(DataError) as caught:
        read_dataset(tmp_path)
    assert "holds stars.csv ('customer,sku,stars'): needed is" in str(caught.value)
    assert "--columns" in str(caught.value)


@pytest.mark.parametrize("title", ["NA", "None", "null", "nan", "", "2012", "True"])
def test_a_title_is_text_in_parquet_too(tmp_path: Path, title: str) -> None:
    pl.DataFrame({"user": [1], "item": [1], "rating": [3.5]}).write_parquet(tmp_path / "a")
    pl.DataFrame({"item": [1, 2], "title": [title, None]}).write_parquet(tmp_path / "b")
    movies = read_dataset(tmp_path).movies
    assert movies["title"].tolist() == [title, ""]
    assert movies["title"].dtype == pd.StringDtype(na_value=float("nan"))
