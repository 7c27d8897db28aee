"""What the data call movies and users: kept in the bundle, found by, and named in errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from builders import MOVIES, RATING_COUNTS, forge, make_bundle, write
from training.export import _external_ids
from twotower.bundle import Bundle, read_bundle
from twotower.errors import BundleError, InvalidRequest, shown
from twotower.external import EXTERNAL_IDS, ExternalIds, Names
from user_tower_svc.external import movie_ids_of

LARGEST = 2**63 - 1
MOVIE_NAMES = tuple(f"B-{place}" for place in range(len(MOVIES)))
USER_NAMES = ("ada", "Ada", " ", "zoë\n", "-1")


def named(movies: tuple[str, ...] | None, users: tuple[str, ...] | None) -> Bundle:
    bundle = make_bundle()
    return replace(
        bundle,
        catalogue=replace(bundle.catalogue, external_ids=movies),
        histories=replace(bundle.histories, external_ids=users),
    )


@pytest.mark.parametrize("movies", [None, MOVIE_NAMES])
@pytest.mark.parametrize("users", [None, USER_NAMES])
def test_a_bundle_keeps_them(
    tmp_path: Path, movies: tuple[str, ...] | None, users: tuple[str, ...] | None
) -> None:
    version = write(tmp_path, named(movies, users))
    _, bundle = read_bundle(tmp_path, version)
    assert bundle.external_ids == ExternalIds(movies=movies, users=users)
    assert (tmp_path / version / EXTERNAL_IDS).exists() == bool(movies or users)


def test_a_bundle_without_them_is_what_it_was() -> None:
    assert EXTERNAL_IDS not in make_bundle().serialise()


def test_other_external_ids_are_another_model(tmp_path: Path) -> None:
    versions = {
        write(tmp_path, named(movies, users))
        for movies in (None, MOVIE_NAMES, MOVIE_NAMES[::-1])
        for users in (None, USER_NAMES)
    }
    assert len(versions) == 6


@pytest.mark.parametrize(
    ("movies", "users", "fault"),
    [
        (MOVIE_NAMES[1:], None, f"names {len(MOVIES) - 1} movies, there are {len(MOVIES)}"),
        (None, ("x",), f"names 1 users, there are {len(RATING_COUNTS)}"),
        (("", *MOVIE_NAMES[1:]), None, "of movies, an id is empty, or is there twice"),
        (None, ("ada", *USER_NAMES[:-1]), "of users, an id is empty, or is there twice"),
    ],
)
def test_what_does_not_fit_is_not_written(
    tmp_path: Path, movies: tuple[str, ...] | None, users: tuple[str, ...] | None, fault: str
) -> None:
    with pytest.raises(BundleError, match=f"external_ids.json: .*{fault}"):
        write(tmp_path, named(movies, users))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"no JSON", "Invalid JSON"),
        (b'{"movies": [1], "users": null}', r"movies\.0"),
        (b'{"movies": null, "users": null, "more": 1}', "more"),
        (b'{"movies": ["x"], "users": null}', "names 1 movies"),
    ],
)
def test_a_faulty_file_is_refused(tmp_path: Path, content: bytes, fault: str) -> None:
    version = forge(tmp_path, write(tmp_path, named(MOVIE_NAMES, None)), {EXTERNAL_IDS: content})
    with pytest.raises(BundleError, match=f"{version}/external_ids.json: .*{fault}"):
        read_bundle(tmp_path, version)


def test_ids_are_found_by_name() -> None:
    names = Names("users", np.array([3, 7]), ("b", "a"))
    assert [names.find(name, "external_user_id") for name in ("a", "b", "A", "3")] == [7, 3, None, None]


def test_where_ids_are_numbers_that_is_said() -> None:
    with pytest.raises(InvalidRequest, match="the users of this model have no external ids") as caught:
        Names("users", np.array([3, 7]), None).find("3", "external_user_id")
    assert caught.value.field == "external_user_id"


def test_a_long_id_is_shortened_in_errors() -> None:
    assert shown("x'\n") == '"x\'\\n"'
    assert len(shown("x" * 10**6)) < 90


@pytest.mark.parametrize(
    ("ids", "texts", "kept"),
    [
        ([1, 20], ["1", "20"], None),
        ([0, 1], ["0", "1"], None),
        ([0, 1], ["007", "1"], ("007", "1")),
        ([0, 1], ["1", "0"], ("1", "0")),
    ],
)
def test_only_ids_that_are_no_numbers_are_kept(
    ids: list[int], texts: list[str], kept: tuple[str, ...] | None
) -> None:
    assert _external_ids(pd.Series(ids), pd.Series(texts)) == kept


NAMES = Names("movies", np.array([5, 6, LARGEST]), ("five", "six", "largest"))


def rated(*given: Any) -> list[int]:
    movie_ids = [0 if isinstance(each, str) else each for each in given]
    names = [each if isinstance(each, str) else None for each in given]
    return list(movie_ids_of(movie_ids, names, NAMES).tolist())


def test_ratings_name_movies_either_way() -> None:
    assert rated(1, 2, 1) == [1, 2, 1]  # what is rated twice by number is told where ratings are checked
    assert rated("six", 1, "largest", "five") == [6, 1, LARGEST, 5]


def test_unknown_names_become_numbers_that_nothing_has() -> None:
    assert rated(LARGEST - 1, "what", "six", "which") == [LARGEST - 1, LARGEST - 2, 6, LARGEST - 3]


@pytest.mark.parametrize(
    "given", [("six", "six"), (6, "six"), ("what", "what"), ("largest", 1, "largest")]
)
def test_a_movie_that_is_rated_twice_is_named(given: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidRequest, match=f"movie '{given[-1]}' is rated twice") as caught:
        rated(*given)
    assert caught.value.field == f"ratings[{len(given) - 1}].external_id"


def test_a_movie_named_both_ways() -> None:
    with pytest.raises(InvalidRequest, match="external_id: 'six' goes not with movie_id"):
        movie_ids_of([6], ["six"], NAMES)


def test_a_name_where_ids_are_numbers() -> None:
    with pytest.raises(InvalidRequest, match=r"ratings\[1\].external_id: the movies of this model"):
        movie_ids_of([6, 0], [None, "six"], Names("movies", np.array([6]), None))
