from __future__ import annotations

import io
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from builders import GENRES, LAW, MOVIES, Trap, make_catalogue, make_histories
from twotower.errors import BundleError
from twotower.tables import Catalogue, UserHistories

HEADER = "movie_id,title,year,genres,rating_count,mean_rating\n"
HISTORIES = make_histories()
CATALOGUE = make_catalogue(HISTORIES)


def with_titles(*titles: str) -> Catalogue:
    """A catalogue of movies that have nothing but a title."""
    count = len(titles)
    return Catalogue(
        movie_ids=np.arange(count),
        titles=titles,
        years=np.full(count, np.nan),
        genres=((),) * count,
        rating_counts=np.zeros(count, dtype=np.int64),
        mean_ratings=np.full(count, np.nan),
    )


def refusal(content: bytes) -> str:
    with pytest.raises(BundleError) as caught:
        Catalogue.read(content)
    return str(caught.value)


def archive(**changes: object) -> bytes:
    """histories.npz with arrays replaced; None leaves one out."""
    arrays = {name: getattr(HISTORIES, name) for name in UserHistories.__dataclass_fields__} | changes
    kept: dict[str, Any] = {name: array for name, array in arrays.items() if array is not None}
    buffer = io.BytesIO()
    np.savez(buffer, **kept)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def refused_histories(content: bytes) -> str:
    with pytest.raises(BundleError, match=r"^histories\.npz: ") as caught:
        UserHistories.read(content)
    return str(caught.value)


def test_catalogue_round_trip() -> None:
    again = Catalogue.read(CATALOGUE.write())
    assert (again.titles, again.genres) == (CATALOGUE.titles, CATALOGUE.genres)
    for name in ("movie_ids", "years", "rating_counts", "mean_ratings"):
        assert_array_equal(getattr(again, name), getattr(CATALOGUE, name), strict=True)


@pytest.mark.parametrize(
    "title",
    ["", " ", "Heat, The", 'Say "Yes"', "Two\nLines", "Old\rMac", "a\r\nb", "NA", "nan", "é", "\0"],
)
def test_a_title_is_read_as_written(title: str) -> None:
    assert Catalogue.read(with_titles("first", title, "last").write()).titles == ("first", title, "last")


@LAW
@given(st.lists(st.text(), min_size=1, max_size=4))
def test_any_title_is_read_as_written(titles: list[str]) -> None:
    assert Catalogue.read(with_titles(*titles).write()).titles == tuple(titles)


def test_the_file_is_plain_csv() -> None:
    first, second = CATALOGUE.write().decode().splitlines()[:2]
    assert first == HEADER.strip()
    assert second.startswith("1,Toy Story,1995,Comedy,")


def test_genre_matrix_follows_the_vocabulary() -> None:
    matrix = CATALOGUE.genre_matrix(GENRES)
    for row, (*_, genres) in enumerate(MOVIES):
        assert tuple(g for g, flag in zip(GENRES, matrix[row], strict=True) if flag) == tuple(
            sorted(genres)
        )
    assert_array_equal(CATALOGUE.genre_matrix(GENRES[::-1]), matrix[:, ::-1])


def test_rows_by_id() -> None:
    assert [CATALOGUE.row_of(movie_id) for movie_id, *_ in MOVIES] == list(range(len(MOVIES)))
    assert CATALOGUE.row_of(3) is None


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("1,Heat,1995,Action,3", "expected 6, got 5"),
        ("1,Heat,1995,Action,3,4.0,x", "expected 6"),
        ("x,Heat,1995,Action,3,4.0", "'x'"),
        (",Heat,1995,Action,3,4.0", "''"),
        ("9223372036854775808,Heat,1995,Action,3,4.0", "too large"),
        ("1,Heat,soon,Action,3,4.0", "'soon'"),
        ("1,Heat,inf,Action,3,4.0", "'inf'"),
        ("1,Heat,1995,Action,some,4.0", "'some'"),
        ("1,Heat,1995,Action,3,good", "'good'"),
        ("1," + "x" * 140_000 + ",1995,Action,3,4.0", "limit"),
    ],
)
def test_a_faulty_line_is_named(line: str, fault: str) -> None:
    message = refusal(f"{HEADER}0,First,,,0,\n{line}\n".encode())
    assert message.startswith("movies.csv, line 3: ")
    assert fault in message


def test_lines_are_counted_as_an_editor_does() -> None:
    message = refusal(f'{HEADER}0,"Two\nLines",,,0,\n1,Heat\n'.encode())
    assert message.startswith("movies.csv, line 4: ")


@pytest.mark.parametrize("content", ["", "\n", "movie_id,title\n1,Heat\n", HEADER.upper()])
def test_another_header(content: str) -> None:
    assert refusal(content.encode()) == f"movies.csv: the first line is not {HEADER.strip()}"


@pytest.mark.parametrize("ids", [[], [2, 1], [1, 1], [-1, 1]])
def test_ids_out_of_order(ids: list[int]) -> None:
    lines = "".join(f"{movie_id},Heat,,,0,\n" for movie_id in ids)
    assert "movies.csv: movie ids must be" in refusal((HEADER + lines).encode())


def test_another_encoding() -> None:
    message = refusal(f"{HEADER}1,Amélie,2001,,0,\n".encode("latin-1"))
    assert message.startswith("movies.csv: 'utf-8' codec can't decode byte 0xe9")


def test_histories_round_trip() -> None:
    again = UserHistories.read(HISTORIES.write())
    for name in UserHistories.__dataclass_fields__:
        assert_array_equal(getattr(again, name), getattr(HISTORIES, name), strict=True)


def test_histories_are_the_same_bytes_each_time() -> None:
    assert HISTORIES.write() == make_histories().write()


def test_where_a_user_lies() -> None:
    spans = [HISTORIES.span_of(user) for user in HISTORIES.user_ids.tolist()]
    assert spans == [slice(0, 4), slice(4, 6), slice(6, 12), slice(12, 13), slice(13, 16)]


@pytest.mark.parametrize("user_id", [0, 4, 2**33 + 1, -1])
def test_an_unknown_user_lies_nowhere(user_id: int) -> None:
    assert HISTORIES.span_of(user_id) is None


def test_histories_by_catalogue_row() -> None:
    rows = HISTORIES.rows_in(CATALOGUE)
    assert_array_equal(CATALOGUE.movie_ids[rows.movie_rows], HISTORIES.movie_ids)
    assert_array_equal(rows.ratings, HISTORIES.ratings)
    assert rows.ratings.dtype == np.float64
    assert len(rows) == len(HISTORIES) == 5


SHORT = HISTORIES.movie_ids[:-1]
WHOLE = archive()


@pytest.mark.parametrize(
    "content",
    [
        archive(offsets=HISTORIES.offsets[:-1]),
        archive(offsets=np.maximum(HISTORIES.offsets, 1)),
        archive(offsets=np.array([0, 4, 3, 12, 13, 16])),
        archive(offsets=np.array([0, 4, 6, 12, 13, 15])),
        archive(user_ids=HISTORIES.user_ids[::-1]),
        archive(user_ids=np.array([3, 3, 10, 42, 43])),
        archive(movie_ids=SHORT),
        archive(ratings=HISTORIES.ratings[:-1]),
        archive(timestamps=HISTORIES.timestamps[:-1]),
    ],
)
def test_arrays_that_do_not_fit(content: bytes) -> None:
    assert refused_histories(content).endswith("its arrays do not fit each other")


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("user_ids", np.array(3)),
        ("user_ids", np.array(["a", "b", "c", "d", "e"])),
        ("offsets", HISTORIES.offsets.astype(np.float64)),
        ("movie_ids", HISTORIES.movie_ids[:, None]),
        ("ratings", HISTORIES.ratings.astype(np.float64)),
        ("timestamps", HISTORIES.timestamps.astype(np.int32)),
    ],
)
def test_arrays_of_another_kind(name: str, array: np.ndarray) -> None:
    assert f"{name} is not a row of " in refused_histories(archive(**{name: array}))


def test_an_array_is_missing() -> None:
    assert "timestamps" in refused_histories(archive(timestamps=None))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 no archive",
        WHOLE[: len(WHOLE) // 2],
        WHOLE[:-1],
        WHOLE.replace(HISTORIES.ratings.tobytes(), HISTORIES.ratings[::-1].tobytes()),
        npy(HISTORIES.user_ids),
        pickle.dumps(list(range(9))),
        archive(ratings=np.array([object()] * 16)),
    ],
    ids=["empty", "prefix", "half", "short", "checksum", "npy", "pickle", "objects"],
)
def test_no_archive_of_arrays(content: bytes) -> None:
    refused_histories(content)


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    traps = np.array([Trap(tmp_path / "sprung")] * 16, dtype=object)
    refused_histories(archive(ratings=traps))
    assert not (tmp_path / "sprung").exists()


def test_a_catalogue_without_a_rating_has_no_mean() -> None:
    bare = replace(CATALOGUE, rating_counts=np.zeros(12, np.int64), mean_ratings=np.full(12, np.nan))
    assert np.isnan(Catalogue.read(bare.write()).mean_ratings).all()
