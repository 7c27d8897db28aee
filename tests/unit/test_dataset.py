from __future__ import annotations

import gzip
import hashlib
import re
import shutil
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from training.dataset import EMBEDDED, Dataset, Reading, read_dataset
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


def refusal(path: Path, *, strict: bool = False) -> str:
    with pytest.raises(DataError) as caught:
        read_dataset(path, Reading(strict=strict))
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
        assert movies.dtypes.astype(str).tolist() == ["int64", "str", "Int16", "object", "str"]
        assert movies.index.equals(pd.RangeIndex(2))

    def test_rating_scale_is_that_of_movielens(self, tmp_path: Path) -> None:
        assert read_dataset(write_folder(tmp_path)).rating_scale == (0.5, 5.0)

    def test_another_scale_can_be_asked_for(self, tmp_path: Path) -> None:
        folder = write_folder(tmp_path, RATINGS_HEADER + "1,10,-2,0\n1,20,100,0\n")
        dataset = read_dataset(folder, Reading(scale=(-10, 100)))
        assert dataset.rating_scale == (-10.0, 100.0)
        assert dataset.ratings["rating"].tolist() == [-2, 100]

    def test_digest_is_that_of_both_files(self, tmp_path: Path) -> None:
        dataset = read_dataset(write_folder(tmp_path))
        assert dataset.digest == hashlib.sha256((RATINGS + MOVIES).encode()).hexdigest()
        assert read_dataset(tmp_path, Reading(scale=(0, 5))).digest != dataset.digest

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

    @pytest.mark.parametrize("inner", ["", "anything/"])
    @pytest.mark.parametrize("kind", ["tar", "gztar", "xztar"])
    def test_tar(self, tmp_path: Path, inner: str, kind: str) -> None:
        folder = write_folder(tmp_path / "ml-mini")
        write_folder(tmp_path / "packed" / inner)
        path = shutil.make_archive(str(tmp_path / "ml-mini"), kind, tmp_path / "packed")
        assert read_dataset(Path(path)) == read_dataset(folder)

    def test_gz(self, tmp_path: Path) -> None:
        folder = write_folder(tmp_path / "plain")
        packed = tmp_path / "packed"
        packed.mkdir()
        for file in folder.iterdir():
            (packed / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        assert read_dataset(packed).digest == read_dataset(folder).digest
        alone = read_dataset(packed / "ratings.csv.gz")
        assert alone.name == "ratings"
        pd.testing.assert_frame_equal(alone.ratings, read_dataset(folder).ratings)

    def test_nothing_there(self, tmp_path: Path) -> None:
        assert refusal(tmp_path / "no-such").startswith(
            f"{tmp_path / 'no-such'} does not exist: needed is a folder, "
        )

    @pytest.mark.parametrize("size", [3, 200, 100_000])
    def test_truncated_zip(self, tmp_path: Path, size: int) -> None:
        path = tmp_path / "ml.zip"
        path.write_bytes(EMBEDDED.read_bytes()[:size])
        assert "ml.zip is damaged" in refusal(path)

    def test_damaged_zip(self, tmp_path: Path) -> None:
        content = bytearray(EMBEDDED.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path = tmp_path / "ml.zip"
        path.write_bytes(content)
        assert re.search(r"ml\.zip: ml-latest-small/ratings\.csv is damaged", refusal(path))

    def test_truncated_gz(self, tmp_path: Path) -> None:
        path = tmp_path / "ratings.csv.gz"
        path.write_bytes(gzip.compress(RATINGS.encode())[:-9])
        assert "ratings.csv.gz is damaged" in refusal(path)

    def test_without_a_file_of_ratings(self, tmp_path: Path) -> None:
        (write_folder(tmp_path) / "ratings.csv").write_text("")
        message = refusal(tmp_path)
        assert "holds movies.csv ('movieId,title,genres'), ratings.csv (empty): needed is" in message
        assert "--columns" in message

    def test_nothing_inside(self, tmp_path: Path) -> None:
        assert "holds nothing: needed is" in refusal(tmp_path)

    def test_what_a_system_hides_is_not_read(self, tmp_path: Path) -> None:
        folder = write_folder(tmp_path)
        write_folder(tmp_path / "__MACOSX")
        (folder / "._ratings.csv").write_text(RATINGS)
        assert len(read_dataset(folder).ratings) == 3

    def test_movies_are_those_beside_the_ratings(self, tmp_path: Path) -> None:
        path = write_zip(tmp_path / "ml.zip", {"a/ratings.csv": RATINGS, "b/movies.csv": MOVIES})
        assert read_dataset(path).movies["title"].tolist() == ["10", "20"]

    def test_two_candidates(self, tmp_path: Path) -> None:
        write_folder(tmp_path / "a")
        write_folder(tmp_path / "b")
        assert "several files of ratings, a/ratings.csv, b/ratings.csv: leave just one" in refusal(
            tmp_path
        )


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
            ("River Mouth (2018", "River Mouth", 2018),
            ("Blue Coast (1995) (V)", "Blue Coast", 1995),
            ("unknown", "unknown", None),
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


LARGEST = 2**63 - 1
INTEGER = f"is not an integer from 0 to {LARGEST}"
NUMBER = "is not a number from 0.5 to 5"
TIME = "is neither seconds since 1970 nor a date like 2001-12-31 23:59:59"


def found(dataset: Dataset) -> list[tuple[str, str, tuple[tuple[int, str], ...]]]:
    """What was not merely noted, of what kind, and where."""
    return [
        (finding.deed, finding.what, finding.examples)
        for finding in dataset.findings
        if finding.deed != "noted"
    ]


class TestFaultsInRatings:
    @pytest.mark.parametrize(
        ("line", "column", "value", "what"),
        [
            ("u7,10,3.0,0", "userId", "u7", INTEGER),
            ("7.5,10,3.0,0", "userId", "7.5", INTEGER),
            ("-7,10,3.0,0", "userId", "-7", INTEGER),
            (",10,3.0,0", "userId", "", INTEGER),
            ("NA,10,3.0,0", "userId", "NA", INTEGER),
            ("1_0,10,3.0,0", "userId", "1_0", INTEGER),
            ("1e0,10,3.0,0", "userId", "1e0", INTEGER),
            ("True,10,3.0,0", "userId", "True", INTEGER),
            ("9223372036854775808,10,3.0,0", "userId", "9223372036854775808", INTEGER),
            ("99999999999999999999,10,3.0,0", "userId", "99999999999999999999", INTEGER),
            ("7,tt10,3.0,0", "movieId", "tt10", INTEGER),
            ("7,10,good,0", "rating", "good", NUMBER),
            ("7,10,,0", "rating", "", NUMBER),
            ("7,10,nan,0", "rating", "nan", NUMBER),
            ("7,10,inf,0", "rating", "inf", NUMBER),
            ("7,10,-inf,0", "rating", "-inf", NUMBER),
            ("7,10,1e39,0", "rating", "1e39", NUMBER),
            ("7,10,0,0", "rating", "0", NUMBER),
            ("7,10,5.5,0", "rating", "5.5", NUMBER),
            ("7,10,3.0,yesterday", "timestamp", "yesterday", TIME),
            ("7,10,3.0,2001-13-01", "timestamp", "2001-13-01", TIME),
            ("7,10,3.0,-1", "timestamp", "-1", "is before 1970"),
            ("7,10,3.0,", "timestamp", "", TIME),
            ("7,10,3.0,nan", "timestamp", "nan", TIME),
            ("7,10,3.0,1e300", "timestamp", "1e300", TIME),
        ],
    )
    def test_a_row_with_a_value_that_is_not_allowed_is_dropped(
        self, tmp_path: Path, line: str, column: str, value: str, what: str
    ) -> None:
        ratings = f"{RATINGS_HEADER}1,10,3.0,0\n\n{line}\n2,10,3.0,0\n"
        folder = write_folder(tmp_path, ratings)
        dataset = read_dataset(folder)
        assert dataset.ratings["user_id"].tolist() == [1, 2]
        assert found(dataset) == [("dropped", f"{column} {what}", ((4, value),))]
        assert refusal(folder, strict=True) == f"ratings.csv line 4: {column} {what}: {value!r}"

    @pytest.mark.parametrize(
        ("line", "what", "value"),
        [
            ("7.0,10,3.0,978307200", "userId with decimals", "7.0"),
            ("7,10.,3.0,978307200", "movieId with decimals", "10."),
            ("7,10,3.0,978307200000", "timestamp in milliseconds", "978307200000"),
            ("7,10,3.0,978307200000999", "timestamp in microseconds", "978307200000999"),
            ("7,10,3.0,978307200000000999", "timestamp in nanoseconds", "978307200000000999"),
            ("7,10,3.0,2001-01-01", "timestamp is a date", "2001-01-01"),
            ("7,10,3.0,2001-01-01 00:00", "timestamp is a date", "2001-01-01 00:00"),
            ("7,10,3.0,2001-01-01T00:00:00.5Z", "timestamp is a date", "2001-01-01T00:00:00.5Z"),
            ("7,10,3.0,2001-01-01T02:00:00+0200", "timestamp is a date", "2001-01-01T02:00:00+0200"),
        ],
    )
    def test_what_is_written_in_another_way_is_converted(
        self, tmp_path: Path, line: str, what: str, value: str
    ) -> None:
        folder = write_folder(tmp_path, f"{RATINGS_HEADER}1,10,3.0,0\n{line}\n")
        dataset = read_dataset(folder)
        assert dataset.ratings.iloc[1].tolist() == [7, 10, 3.0, 978307200]
        assert found(dataset) == [("converted", what, ((3, value),))]
        assert read_dataset(folder, Reading(strict=True)) == dataset

    @pytest.mark.parametrize(
        "line", [" 7 , 10 , 3 , 978307200 ", '"7","10","3.0","978307200"', "07,10,3,978307200.0"]
    )
    def test_what_means_the_same_is_no_fault(self, tmp_path: Path, line: str) -> None:
        dataset = read_dataset(write_folder(tmp_path, f"{RATINGS_HEADER}{line}\n"), Reading(strict=True))
        assert dataset.ratings.iloc[0].tolist() == [7, 10, 3.0, 978307200]

    def test_largest_id_is_allowed(self, tmp_path: Path) -> None:
        dataset = read_dataset(write_folder(tmp_path, f"{RATINGS_HEADER}{LARGEST},10,3,0\n0,10,3,0\n"))
        assert dataset.ratings["user_id"].tolist() == [LARGEST, 0]
        assert dataset.users["external_id"].tolist() == ["0", str(LARGEST)]

    @pytest.mark.parametrize("content", ["", "\n\n", "\ufeff"])
    def test_empty(self, tmp_path: Path, content: str) -> None:
        assert "ratings.csv (empty): needed is" in refusal(write_folder(tmp_path, content))

    def test_header_alone(self, tmp_path: Path) -> None:
        assert refusal(write_folder(tmp_path, RATINGS_HEADER)) == "ratings.csv has no rows"
        assert refusal(write_folder(tmp_path, RATINGS_HEADER.strip())) == "ratings.csv has no rows"

    def test_nothing_is_left(self, tmp_path: Path) -> None:
        assert refusal(write_folder(tmp_path, f"{RATINGS_HEADER}u7,10,3,0\n7,30,3,0\n")) == (
            f"no rating is left: ratings.csv: 1 dropped: userId {INTEGER} (line 2: 'u7'); "
            "ratings.csv: 1 dropped: movieId is not in movies.csv (line 3: '30')"
        )

    def test_unknown_movie(self, tmp_path: Path) -> None:
        folder = write_folder(tmp_path, RATINGS + "\n7,30,3.0,0\n")
        dataset = read_dataset(folder)
        assert len(dataset.ratings) == 3
        assert found(dataset) == [("dropped", "movieId is not in movies.csv", ((6, "30"),))]
        assert refusal(folder, strict=True) == ("ratings.csv line 6: movieId is not in movies.csv: '30'")

    def test_of_ratings_of_one_movie_by_one_user_the_latest_is_kept(self, tmp_path: Path) -> None:
        lines = ["1,10,4.5,9", "2,10,1.0,7", "1,10,2.0,12", "1,20,3.0,5", "1,10,5.0,12", "1,10,1.0,11"]
        folder = write_folder(tmp_path, RATINGS_HEADER + "\n".join(lines) + "\n")
        dataset = read_dataset(folder)
        expected = pd.DataFrame(
            {
                "user_id": pd.Series([2, 1, 1], dtype="int64"),
                "movie_id": pd.Series([10, 20, 10], dtype="int64"),
                "rating": pd.Series([1, 3, 5], dtype="float32"),
                "timestamp": pd.Series([7, 5, 12], dtype="int64"),
            }
        )
        pd.testing.assert_frame_equal(dataset.ratings, expected)
        what = "userId rated movieId again: the latest rating is kept"
        assert found(dataset) == [("dropped", what, ((2, "1 10"), (4, "1 10"), (7, "1 10")))]
        assert refusal(folder, strict=True) == f"ratings.csv line 2: {what}: '1 10'"

    @pytest.mark.parametrize("line", ["7,10,3.0", "7,10,3.0,0,1", "7"])
    @pytest.mark.parametrize("before", ["", "1,10,3.0,0\n"])
    def test_number_of_fields(self, tmp_path: Path, before: str, line: str) -> None:
        ratings = f"{RATINGS_HEADER}{before}{line}\n2,10,3.0,0\n"
        dataset = read_dataset(write_folder(tmp_path, ratings))
        assert dataset.ratings["user_id"].tolist()[-1] == 2
        number, fields = 2 + before.count("\n"), 1 + line.count(",")
        assert found(dataset) == [
            ("dropped", "another number of fields than 4", ((number, str(fields)),))
        ]

    def test_lines_are_counted_right_in_a_long_file_with_irregular_ones(self, tmp_path: Path) -> None:
        lines = [f"{user},10,3.0,978307200" for user in range(20_000)]
        for place in (700, 9_000, 15_000):
            lines[place] = "1,2,3"
        lines[12_345] = ""
        lines[19_998] = "7,10,9,978307200"
        dataset = read_dataset(write_folder(tmp_path, RATINGS_HEADER + "\n".join(lines)))
        assert len(dataset.ratings) == 20_000 - 5
        assert found(dataset) == [
            ("dropped", "another number of fields than 4", ((702, "3"), (9_002, "3"), (15_002, "3"))),
            ("dropped", f"rating {NUMBER}", ((20_000, "9"),)),
        ]

    def test_counts_go_on_where_examples_end(self, tmp_path: Path) -> None:
        bad = "".join(f"{user},10,9,0\n" for user in range(50))
        (finding,) = read_dataset(write_folder(tmp_path, RATINGS + bad)).findings
        assert finding.count == 50
        assert finding.examples == tuple((line, "9") for line in range(5, 55))
        assert str(finding).endswith("line 13: '9', line 14: '9')")


class TestFaultsInMovies:
    @pytest.mark.parametrize("movie_id", ["x", "", "-1", "1.5", "9223372036854775808"])
    def test_movie_id_is_not_allowed(self, tmp_path: Path, movie_id: str) -> None:
        movies = f'{MOVIES}30,"Two\nLines",Drama\n{movie_id},Heat (1995),Action\n'
        dataset = read_dataset(write_folder(tmp_path, movies=movies))
        assert dataset.movies["title"].tolist() == ["Heat", "American President, The", "Two\nLines"]
        assert found(dataset) == [("dropped", f"movieId {INTEGER}", ((6, movie_id),))]

    def test_movie_twice(self, tmp_path: Path) -> None:
        movies = f'{MOVIES}30,"Two\nLines",Drama\n20,Again (1995),Action\n'
        folder = write_folder(tmp_path, movies=movies)
        dataset = read_dataset(folder)
        assert dataset.movies["title"].tolist()[1] == "American President, The"
        what = "movieId is on an earlier line already"
        assert found(dataset) == [("dropped", what, ((6, "20"),))]
        assert refusal(folder, strict=True) == f"movies.csv line 6: {what}: '20'"

    def test_without_genres(self, tmp_path: Path) -> None:
        movies = read_dataset(
            write_folder(tmp_path, movies="movieId,title\n10,Heat (1995)\n20,\n")
        ).movies
        assert movies["genres"].tolist() == [(), ()]
        assert movies["title"].tolist() == ["Heat", ""]

    def test_latin_1(self, tmp_path: Path) -> None:
        movies = (MOVIES + "30,Amélie (2001),Romance\n").encode("latin-1")
        dataset = read_dataset(write_folder(tmp_path, movies=movies))
        assert dataset.movies["title"].tolist()[-1] == "Amélie"
        assert [(each.deed, each.what) for each in dataset.findings] == [
            ("noted", "not in UTF-8: read as Latin-1")
        ]

    def test_utf_16_is_refused(self, tmp_path: Path) -> None:
        message = refusal(write_folder(tmp_path, movies=MOVIES.encode("utf-16")))
        assert "movies.csv is in UTF-16: save it in UTF-8" in message

    @pytest.mark.parametrize(
        ("line", "title", "genres", "what"),
        [
            (
                "30,Ballad of Jack, The (2005),Drama",
                "Ballad of Jack, The",
                ("Drama",),
                "inside the title",
            ),
            ("30,Heat (19", "Heat (19", (), "cut short"),
            ("30", "", (), "cut short"),
            ('30,"Half a Quote (1999),Drama', '"Half a Quote', ("Drama",), "a quote that is not closed"),
            (
                '30,"Half" a Quote (1999),Drama',
                '"Half" a Quote',
                ("Drama",),
                "a quote that is not closed",
            ),
            ('30,Heat (1995),"Action', "Heat", ('"Action',), "a quote that is not closed"),
        ],
    )
    @pytest.mark.parametrize("after", ["", '40,"Last, The (2000)",War\n'])
    def test_a_row_in_another_form_is_repaired(
        self, tmp_path: Path, *, after: str, line: str, title: str, genres: tuple[str, ...], what: str
    ) -> None:
        dataset = read_dataset(write_folder(tmp_path, movies=f"{MOVIES}{line}\n{after}"))
        movie = dataset.movies.set_index("movie_id").loc[30]
        assert (movie["title"], movie["genres"]) == (title, genres)
        assert not after or dataset.movies["title"].tolist()[-1] == "Last, The"
        ((deed, told, ((number, _),)),) = found(dataset)
        assert (deed, number) == ("repaired", 4)
        assert what in told
