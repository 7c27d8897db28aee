"""`factors.npz` is read as written, or refused with the file and the fault."""

from __future__ import annotations

import contextlib
import io
import zipfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from numpy.testing import assert_array_equal

from builders import Trap, damage
from twotower.errors import BundleError
from twotower.factors import MovieFactors
from twotower.npz import read_arrays, write_arrays

MOVIES, TOLD, LANDMARKS = 4, 3, 2
TABLES = [field.name for field in fields(MovieFactors)]


def _normal(*shape: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


SOUND = MovieFactors(
    places=np.array([0, 1, 2, 0]),
    successors=np.vstack([np.zeros((1, LANDMARKS), np.float32), _normal(TOLD - 1, LANDMARKS)]),
    landmark_vectors=_normal(LANDMARKS, 5),
    base_ratings=_normal(MOVIES),
    rating_factors=_normal(MOVIES, 2),
    rating_precision=np.array([[2.0, 1.0], [1.0, 2.0]], dtype=np.float32),
)


def _with(**changed: Any) -> bytes:
    """The sound tables with some others in their place."""
    return write_arrays({name: getattr(SOUND, name) for name in TABLES} | changed)


def _refusal(content: bytes) -> str:
    with pytest.raises(BundleError) as caught:
        MovieFactors.read(content).check(MOVIES)
    message = str(caught.value)
    assert message.startswith("factors.npz: ")
    return message


def test_tables_are_read_as_written() -> None:
    again = MovieFactors.read(SOUND.write())
    again.check(MOVIES)
    for name in TABLES:
        assert_array_equal(getattr(again, name), getattr(SOUND, name), strict=True)


def test_what_rounding_left_of_asymmetry_in_the_precision_is_taken_out() -> None:
    lopsided = replace(SOUND, rating_precision=np.array([[2, 1], [1.5, 2]], dtype=np.float32))
    assert_array_equal(lopsided.precision, np.array([[2, 1.25], [1.25, 2]]), strict=True)


@pytest.mark.parametrize("name", TABLES)
def test_a_missing_table_is_named(name: str) -> None:
    others = {other: getattr(SOUND, other) for other in TABLES if other != name}
    assert f"{name} is not a file in the archive" in _refusal(write_arrays(others))


def test_without_ratings_there_are_no_factors_of_them() -> None:
    none = replace(
        SOUND,
        rating_factors=np.empty((MOVIES, 0), np.float32),
        rating_precision=np.empty((0, 0), np.float32),
    )
    again = MovieFactors.read(none.write())
    again.check(MOVIES)
    assert again.rating_factors.shape == (MOVIES, 0)


@pytest.mark.parametrize("kind", [np.float64, np.float16, np.int32, np.complex64])
@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_another_kind_is_named(name: str, kind: type[np.generic]) -> None:
    right = "int64" if name == "places" else "float32"
    assert f"{name} is not {right} " in _refusal(_with(**{name: getattr(SOUND, name).astype(kind)}))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("places", (MOVIES, 1)),
        ("places", (MOVIES - 1,)),
        ("successors", (TOLD,)),
        ("successors", (TOLD, 2, 2)),
        ("successors", ()),
        ("landmark_vectors", (LANDMARKS + 1, 5)),
        ("landmark_vectors", (LANDMARKS, 5, 1)),
        ("landmark_vectors", (0, 5)),
        ("landmark_vectors", ()),
        ("base_ratings", (MOVIES, 1)),
        ("base_ratings", (MOVIES + 1,)),
        ("rating_factors", (MOVIES,)),
        ("rating_factors", (MOVIES - 1, 2)),
        ("rating_factors", ()),
        ("rating_precision", (2, 3)),
        ("rating_precision", (3, 3)),
    ],
)
def test_a_table_of_another_shape_is_named(name: str, shape: tuple[int, ...]) -> None:
    assert f"{name} is not " in _refusal(_with(**{name: np.resize(getattr(SOUND, name), shape)}))


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", TABLES[1:])
def test_a_table_that_is_not_finite_is_named(name: str, number: float) -> None:
    table = getattr(SOUND, name).copy()
    table.flat[-1] = number
    assert _refusal(_with(**{name: table})) == f"factors.npz: {name} is not finite"


@pytest.mark.parametrize("place", [-1, 0, 1, TOLD, 2**62])
def test_places_other_than_one_for_each_row_are_refused(place: int) -> None:
    astray = _with(places=np.array([0, 1, place, 0]))
    assert "places has not one movie for each row of successors" in _refusal(astray)


def test_more_landmarks_than_movies_are_refused() -> None:
    many = _with(successors=np.zeros((TOLD, TOLD), np.float32), landmark_vectors=_normal(TOLD, 5))
    assert "more landmarks than movies" in _refusal(many)


def test_something_that_follows_on_nothing_is_refused() -> None:
    assert "the first row of successors is not 0" in _refusal(_with(successors=_normal(TOLD, LANDMARKS)))


def test_landmarks_are_the_movies_of_the_first_places() -> None:
    assert replace(SOUND, places=np.array([2, 0, 0, 1])).landmarks.tolist() == [3, 0]


@pytest.mark.parametrize("precision", [[[1, 2], [2, 1]], [[0, 0], [0, 0]], [[1, 0], [0, -1]]])
def test_a_precision_that_is_not_positive_definite_is_refused(precision: list[list[float]]) -> None:
    wrong = _with(rating_precision=np.array(precision, dtype=np.float32))
    assert "rating_precision is not positive definite" in _refusal(wrong)


def test_a_pickled_table_is_refused_and_not_run(tmp_path: Path) -> None:
    trapped = _with(successors=np.array([Trap(tmp_path / "sprung")]))
    assert "Object arrays cannot be loaded" in _refusal(trapped)
    assert not (tmp_path / "sprung").exists()


def test_compressed_tables_are_refused() -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: getattr(SOUND, name) for name in TABLES})
    assert "is compressed, and could be of any size" in _refusal(buffer.getvalue())


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY" + bytes(100), b"text" * 100])
def test_what_is_no_archive_is_refused(content: bytes) -> None:
    assert "not a zip file" in _refusal(content)


def test_an_archive_cut_short_is_refused_wherever_it_ends() -> None:
    content = SOUND.write()
    for length in range(len(content)):
        _refusal(content[:length])


def test_whatever_bit_is_flipped_the_file_is_read_or_refused() -> None:
    content = SOUND.write()
    for place in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        with contextlib.suppress(BundleError):
            MovieFactors.read(bytes(damaged)).check(MOVIES)


def test_a_flipped_bit_in_a_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "factors.npz"
    path.write_bytes(_with(successors=_normal(TOLD, 1_000)))  # long enough to have the file's middle
    damage(path)
    assert "Bad CRC-32 for file 'successors.npy'" in _refusal(path.read_bytes())


def test_a_member_that_is_no_array_is_named() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("places.npy", b"0, 1, 2")
    with pytest.raises(BundleError, match=r"^some\.npz: places is not an array$"):
        read_arrays("some.npz", buffer.getvalue(), ["places"])
