from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import GENRES, LAW, MOVIES, make_catalogue, make_histories
from retrieval_svc.catalogue import MAX_GENRES, Filter, MovieFinder
from twotower.errors import InvalidRequest

CATALOGUE = make_catalogue(make_histories())
FINDER = MovieFinder(CATALOGUE, GENRES)

some_genres = st.lists(st.sampled_from(GENRES), max_size=3)
some_year = st.none() | st.integers(1955, 2010)
filters = st.builds(
    Filter,
    genres_any=some_genres,
    genres_all=some_genres,
    genres_none=some_genres,
    year_min=some_year,
    year_max=some_year,
).filter(lambda f: f.year_min is None or f.year_max is None or f.year_min <= f.year_max)


def passes(movie: tuple[int, str, int | None, tuple[str, ...]], condition: Filter) -> bool:
    """What a filter means, movie by movie."""
    _, _, year, genres = movie
    return (
        (not condition.genres_any or any(genre in genres for genre in condition.genres_any))
        and all(genre in genres for genre in condition.genres_all)
        and not any(genre in genres for genre in condition.genres_none)
        and (condition.year_min is None or (year is not None and year >= condition.year_min))
        and (condition.year_max is None or (year is not None and year <= condition.year_max))
    )


def refusal(condition: Filter) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        FINDER.check(condition)
    return caught.value


def titled(sought: str, titles: dict[str, int], limit: int = 100) -> list[str]:
    """The titles found among movies of these titles and rating counts, in order."""
    count = len(titles)
    catalogue = replace(
        CATALOGUE,
        movie_ids=np.arange(count),
        titles=tuple(titles),
        genres=((),) * count,
        rating_counts=np.array([*titles.values()]),
    )
    return [catalogue.titles[row] for row in MovieFinder(catalogue, GENRES).titled(sought, limit)]


@LAW
@given(filters)
def test_a_filter_passes_what_its_words_say(condition: Filter) -> None:
    assert FINDER.passing(condition).tolist() == [passes(movie, condition) for movie in MOVIES]


def test_an_empty_filter_passes_everything_and_is_false() -> None:
    assert not Filter()
    assert FINDER.passing(Filter()).all()


@pytest.mark.parametrize(
    "condition",
    [
        Filter(genres_any=("Drama",)),
        Filter(genres_all=("Drama",)),
        Filter(genres_none=("Drama",)),
        Filter(year_min=0),
        Filter(year_max=0),
    ],
)
def test_any_condition_makes_a_filter_true(condition: Filter) -> None:
    assert condition


def test_a_movie_without_a_year_passes_no_condition_on_years() -> None:
    row = next(row for row, (_, _, year, _) in enumerate(MOVIES) if year is None)
    assert not FINDER.passing(Filter(year_min=-9999))[row]
    assert not FINDER.passing(Filter(year_max=9999))[row]
    assert FINDER.passing(Filter(genres_any=("Drama",)))[row]


def test_a_filter_leaves_the_next_one_alone() -> None:
    FINDER.passing(Filter())[:] = False
    assert FINDER.passing(Filter()).all()


@pytest.mark.parametrize("field", ["genres_any", "genres_all", "genres_none"])
def test_an_unknown_genre_names_those_there_are(field: str) -> None:
    genres: dict[str, Any] = {field: ["Drama", "drama"]}
    error = refusal(Filter(**genres))
    assert error.field == f"filter.{field}[1]"
    assert error.message == (
        f"filter.{field}[1]: no such genre as 'drama', the genres are Action, Comedy, Drama, Sci-Fi"
    )


def test_years_the_wrong_way_round() -> None:
    error = refusal(Filter(year_min=2001, year_max=2000))
    assert error.field == "filter.year_min"
    assert error.message == "filter.year_min: 2001 is above year_max, 2000"
    FINDER.check(Filter(year_min=2001, year_max=2001))
    assert FINDER.passing(Filter(year_min=2001, year_max=2001)).sum() == 1


@pytest.mark.parametrize("field", ["genres_any", "genres_all", "genres_none"])
def test_a_list_of_genres_is_bounded(field: str) -> None:
    most: dict[str, Any] = {field: ["Drama"] * MAX_GENRES}
    FINDER.check(Filter(**most))
    error = refusal(Filter(**{field: ["Drama"] * (MAX_GENRES + 1)}))
    assert error.field == f"filter.{field}"
    assert error.message == f"filter.{field}: 101 genres, allowed are 100"


def test_the_closest_title_comes_first_and_then_the_most_rated() -> None:
    titles = {
        "Matrix Reloaded, The": 50,
        "Enter the Matrix": 900,
        "Matrix, The": 70,
        "Matrix": 0,
        "Heat": 1000,
        "The Matrix Matrix": 900,
        "Matrix, The (again)": 70,
    }
    assert titled("Matrix", titles) == [
        "Matrix",  # is the words
        "Matrix, The",  # start with them
        "Matrix, The (again)",
        "Matrix Reloaded, The",
        "Enter the Matrix",  # have them
        "The Matrix Matrix",
    ]
    assert titled("Matrix", titles, limit=2) == ["Matrix", "Matrix, The"]


def test_all_words_are_needed_in_any_order() -> None:
    titles = {"Matrix, The": 1, "Reloaded": 1, "Matrix Reloaded, The": 1}
    assert titled("reloaded matrix", titles) == ["Matrix Reloaded, The"]


@pytest.mark.parametrize(
    "sought", ["amelie", "Amélie", "AMÉLIE", "Ame\u0301lie", "  amelie ", "\tAmelie\n", "meli"]
)
def test_case_accents_and_spaces_do_not_matter(sought: str) -> None:
    assert titled(sought, {"Heat": 1, "Amélie": 1}) == ["Amélie"]
    assert titled(sought, {"Ame\u0301lie": 1}) == ["Ame\u0301lie"]


@pytest.mark.parametrize(
    ("title", "sought"),
    [("Straße", "STRASSE"), ("№ 4", "no 4"), ("İstanbul", "istanbul"), ("Ⅻ", "xii"), ("Ωmega", "ωmega")],
)
def test_letters_that_are_written_in_several_ways(title: str, sought: str) -> None:
    assert titled(sought, {title: 1}) == [title]
    assert titled(title, {sought: 1}) == [sought]


@pytest.mark.parametrize("sought", ["", " ", "\t\n", "\u0301", "zzz", "heat heats"])
def test_no_match_is_an_empty_list(sought: str) -> None:
    assert titled(sought, {"Heat": 1, "": 5}) == []
