from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from training.movielens import EMBEDDED, Dataset, read_dataset
from twotower.errors import DataError

RATINGS = """userId,movieId,rating,timestamp
7,20,3.5,1112486027
7,10,5.0,1112484676
3,10,0.5,946684800
"""
MOVIES = """movieId,title,genres
20,"American President, The (1995)",Comedy|Drama|Romance
10,Heat (1995),Action
"""
RATINGS_HEADER = "userId,movieId,rating,timestamp\n"
MOVIES_HEADER = "movieId,title,genres\n"


def write_folder(folder: Path, ratings: str = RATINGS, movies: str | bytes = MOVIES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in {"ratings.csv": ratings, "movies.csv": movies}.items():
        (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def write_zip(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def read_movies(folder: Path, lines: str) -> pd.DataFrame:
    """The movies of a data set in which only the first is rated."""
    first_id = lines.split(",", 1)[0]
    ratings = f"{RATINGS_HEADER}1,{first_id},4.0,0\n"
    return read_dataset(write_folder(folder, ratings, MOVIES_HEADER + lines)).movies


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_dataset(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def embedded() -> Dataset:
    return read_dataset(EMBEDDED)


class TestEmbedded:
    def test_counts(self, embedded: Dataset) -> None:
        assert embedded.name == "ml-latest-small"
        assert len(embedded.ratings) == 100_004
        assert embedded.ratings["user_id"].nunique() == 671
        assert embedded.ratings["movie_id"].nunique() == len(embedded.movies) == 9_066

    def test_ratings_are_half_stars_in_the_official_order(self, embedded: Dataset) -> None:
        assert embedded.rating_scale == (0.5, 5.0)
        assert (embedded.ratings["rating"] * 2 % 1 == 0).all()
        in_order = embedded.ratings.sort_values(["user_id", "movie_id"], kind="stable")
        pd.testing.assert_frame_equal(embedded.ratings, in_order)

    def test_just_five_movies_have_neither_title_nor_year(self, embedded: Dataset) -> None:
        untitled = embedded.movies[embedded.movies["title"] == ""]
        assert untitled["movie_id"].tolist() == [108548, 108583, 143410, 151307, 162376]
        assert embedded.movies["year"].isna().equals(embedded.movies["title"] == "")

    def test_years(self, embedded: Dataset) -> None:
        assert (embedded.movies["year"].min(), embedded.movies["year"].max()) == (1902, 2016)

    def test_genres(self, embedded: Dataset) -> None:
        genres = embedded.movies["genres"].explode().dropna()
        assert genres.nunique() == 19
        assert (embedded.movies["genres"].map(len) == 0).sum() == 17

    @pytest.mark.parametrize(
        ("movie_id", "title", "year", "genres"),
        [
            (1, "Toy Story", 1995, ("Adventure", "Animation", "Children", "Comedy", "Fantasy")),
            (11, "American President, The", 1995, ("Comedy", "Drama", "Romance")),
            (889, "1-900 (06)", 1994, ("Drama", "Romance")),
            (7789, "11'09\"01 - September 11", 2002, ("Drama",)),
            (51372, '"Great Performances" Cats', 1998, ("Musical",)),
            (72641, "Blind Side, The", 2009, ("Drama",)),
        ],
    )
    def test_movies(
        self, embedded: Dataset, movie_id: int, title: str, year: int, genres: tuple[str, ...]
    ) -> None:
        movie = embedded.movies.set_index("movie_id").loc[movie_id]
        assert (movie["title"], movie["year"], movie["genres"]) == (title, year, genres)

    def test_files_are_in_the_official_layout(self) -> None:
        with zipfile.ZipFile(EMBEDDED) as archive:
            ratings = archive.read("ml-latest-small/ratings.csv").decode()
            movies = archive.read("ml-latest-small/movies.csv").decode()
        assert ratings.startswith("userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n")
        assert movies.startswith("movieId,title,genres\n1,Toy Story (1995),Adventure|Animation|")

    def test_the_licence_comes_with_the_data(self) -> None:
        licence = (EMBEDDED.parent / "LICENSE.md").read_text(encoding="utf-8")
        assert "10.1145/2827872" in licence
        assert "grouplens.org/datasets/movielens" in licence
        with zipfile.ZipFile(EMBEDDED) as archive:
            assert archive.read("ml-latest-small/LICENSE.md").decode() == licence


class TestDataset:
    def test_ratings_keep_the_order_of_the_file(self, tmp_path: Path) -> None:
        expected = pd.DataFrame(
            {
                "user_id": pd.Series([7, 7, 3], dtype="int64"),
                "movie_id": pd.Series([20, 10, 10], dtype="int64"),
                "rating": pd.Series([3.5, 5.0, 0.5], dtype="float32"),
                "timestamp": pd.Series([1112486027, 1112484676, 946684800], dtype="int64"),
            }
        )
        dataset = read_dataset(write_folder(tmp_path))
        pd.testing.assert_frame_equal(dataset.ratings, expected)

    def test_movies_are_in_the_order_of_their_ids(self, tmp_path: Path) -> None:
        movies = read_dataset(write_folder(tmp_path)).movies
        assert movies["movie_id"].tolist() == [10, 20]
        assert movies["title"].tolist() == ["Heat", "American President, The"]
        assert movies["genres"].tolist() == [("Action",), ("Comedy", "Drama", "Romance")]
        assert movies.dtypes.astype(str).tolist() == ["int64", "str", "Int16", "object"]
        assert movies.index.equals(pd.RangeIndex(2))

    def test_rating_scale_is_what_was_given(self, tmp_path: Path) -> None:
        dataset = read_dataset(write_folder(tmp_path, RATINGS_HEADER + "1,10,-2,0\n1,20,100,0\n"))
        assert dataset.rating_scale == (-2.0, 100.0)

    def test_digest_is_that_of_both_files(self, tmp_path: Path) -> None:
        dataset = read_dataset(write_folder(tmp_path))
        assert dataset.digest == hashlib.sha256((RATINGS + MOVIES).encode()).hexdigest()

    def test_equal_when_name_and_content_are(self, tmp_path: Path) -> None:
        dataset = read_dataset(write_folder(tmp_path / "a" / "ml"))
        assert dataset == read_dataset(write_folder(tmp_path / "b" / "ml"))
        changed = RATINGS.replace("3.5", "4.5")
        assert dataset != read_dataset(write_folder(tmp_path / "c" / "ml", changed))


class TestWhereFilesAre:
    @pytest.mark.parametrize("inner", ["", "anything/"])
    def test_folder(self, tmp_path: Path, inner: str) -> None:
        write_folder(tmp_path / "ml-mini" / inner)
        assert read_dataset(tmp_path / "ml-mini").name == "ml-mini"

    @pytest.mark.parametrize("inner", ["", "anything/"])
    def test_zip(self, tmp_path: Path, inner: str) -> None:
        files = {f"{inner}ratings.csv": RATINGS, f"{inner}movies.csv": MOVIES, "README.txt": ""}
        dataset = read_dataset(write_zip(tmp_path / "ml-mini.zip", files))
        assert dataset == read_dataset(write_folder(tmp_path / "ml-mini"))

    def test_the_top_comes_before_a_folder_below(self, tmp_path: Path) -> None:
        write_folder(tmp_path)
        write_folder(tmp_path / "below", RATINGS.replace("3.5", "4.5"))
        assert read_dataset(tmp_path).ratings["rating"][0] == 3.5

    def test_nothing_there(self, tmp_path: Path) -> None:
        assert refusal(tmp_path / "no-such") == (
            f"{tmp_path / 'no-such'} does not exist: a folder or a .zip is needed"
        )

    def test_not_a_zip(self, tmp_path: Path) -> None:
        write_folder(tmp_path)
        message = refusal(tmp_path / "ratings.csv")
        assert "ratings.csv is neither a folder nor a sound .zip" in message

    @pytest.mark.parametrize("size", [0, 200, 100_000])
    def test_truncated_zip(self, tmp_path: Path, size: int) -> None:
        path = tmp_path / "ml.zip"
        path.write_bytes(EMBEDDED.read_bytes()[:size])
        assert "neither a folder nor a sound .zip" in refusal(path)

    def test_damaged_zip(self, tmp_path: Path) -> None:
        content = bytearray(EMBEDDED.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path = tmp_path / "ml.zip"
        path.write_bytes(content)
        assert "neither a folder nor a sound .zip" in refusal(path)

    def test_a_file_is_missing(self, tmp_path: Path) -> None:
        (write_folder(tmp_path) / "movies.csv").rename(tmp_path / "films.csv")
        message = refusal(tmp_path)
        assert "holds 'films.csv', 'ratings.csv'" in message
        assert "needed are 'ratings.csv', 'movies.csv'" in message

    def test_nothing_inside(self, tmp_path: Path) -> None:
        assert "holds nothing: needed are" in refusal(tmp_path)

    def test_files_apart(self, tmp_path: Path) -> None:
        path = write_zip(tmp_path / "ml.zip", {"a/ratings.csv": RATINGS, "b/movies.csv": MOVIES})
        assert "holds 'a', 'a/ratings.csv', 'b', 'b/movies.csv'" in refusal(path)

    def test_two_candidates(self, tmp_path: Path) -> None:
        write_folder(tmp_path / "a")
        write_folder(tmp_path / "b")
        assert "in just one folder below" in refusal(tmp_path)


class TestText:
    @pytest.mark.parametrize("file", ["ratings", "movies"])
    def test_byte_order_mark(self, tmp_path: Path, file: str) -> None:
        plain = read_dataset(write_folder(tmp_path / "plain"))
        content = {"ratings": RATINGS, "movies": MOVIES}
        content[file] = "\ufeff" + content[file]
        marked = read_dataset(write_folder(tmp_path / "marked", **content))
        pd.testing.assert_frame_equal(marked.ratings, plain.ratings)
        pd.testing.assert_frame_equal(marked.movies, plain.movies)

    def test_carriage_returns_blank_lines_and_other_columns(self, tmp_path: Path) -> None:
        plain = read_dataset(write_folder(tmp_path / "plain"))
        ratings = "".join(f"x,{line}\r\n\r\n" for line in RATINGS.splitlines())
        movies = MOVIES.replace("\n", "\r\n")
        other = read_dataset(write_folder(tmp_path / "other", ratings, movies))
        pd.testing.assert_frame_equal(other.ratings, plain.ratings)
        pd.testing.assert_frame_equal(other.movies, plain.movies)

    @pytest.mark.parametrize("title", ["NA", "None", "null", "nan", "", "2012", "True", "1e5"])
    def test_a_title_stays_text(self, tmp_path: Path, title: str) -> None:
        movies = read_movies(tmp_path, f"5,{title},Drama\n")
        assert movies["title"].tolist() == [title]
        assert movies["year"].isna().all()

    @pytest.mark.parametrize(
        ("full_title", "title", "year"),
        [
            ("Heat (1995)", "Heat", 1995),
            ("Wake Wood (2010) ", "Wake Wood", 2010),
            ("Blind Side, The  (2009)", "Blind Side, The", 2009),
            ("Amelie (Fabuleux destin d'Amélie Poulain, Le) (2001)", None, 2001),
            ('Mission: "Impossible"; II (2000)', 'Mission: "Impossible"; II', 2000),
            ("2001: A Space Odyssey (1968)", "2001: A Space Odyssey", 1968),
            ("Copy (1999) (2003)", "Copy (1999)", 2003),
            ("Fawlty Towers (1975-1979)", "Fawlty Towers", 1975),
            ("The Office (2005\u20132013)", "The Office", 2005),
            ("Big Bang Theory, The (2007-)", "Big Bang Theory, The", 2007),
            ("Title(1984)", "Title", 1984),
            ("(2009)", "(2009)", 2009),
            ("(500) Days of Summer", "(500) Days of Summer", None),
            ("Babylon 5", "Babylon 5", None),
            ("Show (1999) Extended", "Show (1999) Extended", None),
            ("Long Ago (500)", "Long Ago (500)", None),
        ],
    )
    def test_year_is_the_last_parenthesis(
        self, tmp_path: Path, full_title: str, title: str | None, year: int | None
    ) -> None:
        quoted = full_title.replace('"', '""')
        movies = read_movies(tmp_path, f'5,"{quoted}",Drama\n')
        expected = full_title.removesuffix(f" ({year})") if title is None else title
        assert movies["title"].tolist() == [expected]
        assert movies["year"].astype(object).where(movies["year"].notna(), None).tolist() == [year]

    @pytest.mark.parametrize(
        ("written", "genres"),
        [
            ("Sci-Fi", ("Sci-Fi",)),
            ("Drama|Action", ("Drama", "Action")),
            ("(no genres listed)", ()),
            ("", ()),
        ],
    )
    def test_genres(self, tmp_path: Path, written: str, genres: tuple[str, ...]) -> None:
        assert read_movies(tmp_path, f"5,Heat (1995),{written}\n")["genres"].tolist() == [genres]


INTEGER = "allowed is an integer from 0 to 9223372036854775807"
FINITE = "allowed is a finite number"


class TestFaultsInRatings:
    @pytest.mark.parametrize(
        ("line", "column", "value", "allowed"),
        [
            ("u7,10,3.0,0", "userId", "u7", INTEGER),
            ("7.5,10,3.0,0", "userId", "7.5", INTEGER),
            ("7.0,10,3.0,0", "userId", "7.0", INTEGER),
            ("-7,10,3.0,0", "userId", "-7", INTEGER),
            (",10,3.0,0", "userId", "", INTEGER),
            ("NA,10,3.0,0", "userId", "NA", INTEGER),
            ("1_0,10,3.0,0", "userId", "1_0", INTEGER),
            ("9223372036854775808,10,3.0,0", "userId", "9223372036854775808", INTEGER),
            ("99999999999999999999,10,3.0,0", "userId", "99999999999999999999", INTEGER),
            ("7,tt10,3.0,0", "movieId", "tt10", INTEGER),
            ("7,10,good,0", "rating", "good", FINITE),
            ("7,10,,0", "rating", "", FINITE),
            ("7,10,nan,0", "rating", "nan", FINITE),
            ("7,10,inf,0", "rating", "inf", FINITE),
            ("7,10,-inf,0", "rating", "-inf", FINITE),
            ("7,10,1e39,0", "rating", "1e39", FINITE),
            ("7,10,3.0,2001-01-01", "timestamp", "2001-01-01", INTEGER),
            ("7,10,3.0,-1", "timestamp", "-1", INTEGER),
        ],
    )
    def test_a_value_is_not_allowed(
        self, tmp_path: Path, line: str, column: str, value: str, allowed: str
    ) -> None:
        ratings = f"{RATINGS_HEADER}1,10,3.0,0\n\n{line}\n2,10,3.0,0\n"
        assert refusal(write_folder(tmp_path, ratings)) == (
            f"ratings.csv line 4: {column} is {value!r}, {allowed}"
        )

    @pytest.mark.parametrize("value", ["1.0", "True", "1e0"])
    def test_a_whole_column_is_not_integer(self, tmp_path: Path, value: str) -> None:
        message = refusal(write_folder(tmp_path, f"{RATINGS_HEADER}{value},10,3.0,0\n"))
        assert message == f"ratings.csv line 2: userId is {value!r}, {INTEGER}"

    def test_largest_id_is_allowed(self, tmp_path: Path) -> None:
        dataset = read_dataset(write_folder(tmp_path, f"{RATINGS_HEADER}{2**63 - 1},10,3,0\n"))
        assert dataset.ratings["user_id"].tolist() == [2**63 - 1]

    def test_no_timestamp(self, tmp_path: Path) -> None:
        assert refusal(write_folder(tmp_path, "userId,movieId,rating\n7,10,3.0\n")) == (
            "ratings.csv has the columns 'userId', 'movieId', 'rating': "
            "needed are 'userId', 'movieId', 'rating', 'timestamp'"
        )

    def test_another_separator(self, tmp_path: Path) -> None:
        message = refusal(write_folder(tmp_path, RATINGS.replace(",", "::")))
        assert "has the columns 'userId::movieId::rating::timestamp': needed are" in message

    @pytest.mark.parametrize("content", ["", "\n\n", "\ufeff"])
    def test_empty(self, tmp_path: Path, content: str) -> None:
        assert refusal(write_folder(tmp_path, content)) == "ratings.csv is empty"

    def test_header_alone(self, tmp_path: Path) -> None:
        assert refusal(write_folder(tmp_path, RATINGS_HEADER)) == "ratings.csv has no rows"

    def test_unknown_movie(self, tmp_path: Path) -> None:
        message = refusal(write_folder(tmp_path, RATINGS + "\n7,30,3.0,0\n"))
        assert message == "ratings.csv line 6: movieId 30 is not in movies.csv"

    def test_rated_twice(self, tmp_path: Path) -> None:
        message = refusal(write_folder(tmp_path, RATINGS + "7,20,1.0,0\n"))
        assert message == "ratings.csv line 5: userId 7 rated movieId 20 on an earlier line"

    @pytest.mark.parametrize("line", ["7,10,3.0", "7,10,3.0,0,1", "7"])
    @pytest.mark.parametrize("before", ["", "1,10,3.0,0\n"])
    def test_number_of_fields(self, tmp_path: Path, before: str, line: str) -> None:
        ratings = f"{RATINGS_HEADER}{before}{line}\n2,10,3.0,0\n"
        message = refusal(write_folder(tmp_path, ratings))
        number, fields = 2 + before.count("\n"), 1 + line.count(",")
        assert message == f"ratings.csv line {number} has {fields} fields: the header has 4"


class TestFaultsInMovies:
    @pytest.mark.parametrize("movie_id", ["x", "", "-1", "1.5", "9223372036854775808"])
    def test_movie_id_is_not_allowed(self, tmp_path: Path, movie_id: str) -> None:
        movies = f'{MOVIES}30,"Two\nLines",Drama\n{movie_id},Heat (1995),Action\n'
        assert refusal(write_folder(tmp_path, movies=movies)) == (
            f"movies.csv line 6: movieId is {movie_id!r}, {INTEGER}"
        )

    def test_movie_twice(self, tmp_path: Path) -> None:
        movies = f'{MOVIES}30,"Two\nLines",Drama\n20,Again (1995),Action\n'
        message = refusal(write_folder(tmp_path, movies=movies))
        assert message == "movies.csv line 6: movieId 20 is on an earlier line already"

    def test_missing_column(self, tmp_path: Path) -> None:
        message = refusal(write_folder(tmp_path, movies="movieId,title\n10,Heat (1995)\n"))
        assert "movies.csv has the columns 'movieId', 'title': needed are" in message

    def test_header_alone(self, tmp_path: Path) -> None:
        assert refusal(write_folder(tmp_path, movies=MOVIES_HEADER)) == "movies.csv has no rows"

    def test_encoding(self, tmp_path: Path) -> None:
        movies = (MOVIES + "30,Amélie (2001),Romance\n").encode("latin-1")
        message = refusal(write_folder(tmp_path, movies=movies))
        assert "movies.csv line 4 is not CSV in UTF-8" in message
        assert "0xe9" in message

    @pytest.mark.parametrize("line", ["20,Ballad of Jack, The (2005),Drama", "20,Heat (19", "20"])
    @pytest.mark.parametrize("before", ["", "10,Heat (1995),Action\n"])
    def test_number_of_fields(self, tmp_path: Path, before: str, line: str) -> None:
        message = refusal(write_folder(tmp_path, movies=f"{MOVIES_HEADER}{before}{line}\n"))
        number, fields = 2 + before.count("\n"), 1 + line.count(",")
        assert message == f"movies.csv line {number} has {fields} fields: the header has 3"

    def test_quote_left_open(self, tmp_path: Path) -> None:
        message = refusal(write_folder(tmp_path, movies=f'{MOVIES}30,Heat (1995),"Action\n'))
        assert "movies.csv cannot be read as CSV" in message
        assert "EOF inside string" in message
