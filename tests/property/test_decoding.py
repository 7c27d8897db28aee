from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.decoding import DECODER
from gateway.schemas import RecommendationRequest

EDGES = st.sampled_from(
    [-1, 0, 1, 10, 100, 101, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64, 10**400]
)
NUMBERS = EDGES | st.integers() | st.floats() | st.sampled_from([0.5, 5, 5.0, 3.4e38, 3.5e38, 1e308])
TEXTS = st.text(max_size=3) | st.sampled_from(["Drama", "", "x" * 100, "x" * 101, "\ud800", "é" * 100])
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=4,
)


def mostly(sound: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(*[sound] * 8, ANYTHING)


def documents(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects of some of the fields, rarely of others."""
    optional = {name: mostly(sound) for name, sound in fields.items()}
    sound = st.fixed_dictionaries({}, optional=optional)
    return sound | st.tuples(sound, TEXTS, ANYTHING).map(lambda some: {**some[0], some[1]: some[2]})


IDS = st.integers(0, 2**63 - 1) | st.integers(0, 20)
RATINGS = documents(movie_id=IDS, rating=NUMBERS, timestamp=st.none() | IDS)
SOUND_RATINGS = st.fixed_dictionaries(
    {"movie_id": IDS, "rating": st.floats(0, 5) | st.integers(0, 5)},
    optional={"timestamp": st.none() | IDS},
)
GENRES = st.lists(mostly(TEXTS), max_size=3)
BODIES = documents(
    user_id=st.none() | IDS,
    ratings=st.none() | st.lists(SOUND_RATINGS, max_size=4) | st.lists(mostly(RATINGS), max_size=3),
    features=documents(
        rating_count=st.integers(1, 2**32 - 1),
        mean_rating=NUMBERS,
        genre_means=st.dictionaries(TEXTS, NUMBERS, max_size=3),
    ),
    as_of=st.none() | IDS,
    k=st.integers(1, 100),
    exclude_rated=st.booleans(),
    exclude_movie_ids=st.lists(mostly(IDS), max_size=3),
    filter=documents(
        genres_any=GENRES, genres_all=GENRES, genres_none=GENRES, year_min=NUMBERS, year_max=NUMBERS
    ),
)


EXTERNAL: Any = {
    "external_user_id": True,
    "exclude_external_ids": True,
    "ratings": {"__all__": {"external_id"}},
}
"""What the fast way does not take."""


def check(content: bytes) -> bool:
    """Whether the fast way takes it; if so, the other must, and read it the same."""
    try:
        fast = DECODER.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    slow = RecommendationRequest.model_validate_json(content)
    assert msgspec.to_builtins(fast) == slow.model_dump(exclude=EXTERNAL)
    return True


@settings(max_examples=500, deadline=None)
@given(BODIES)
@example({})
@example({"user_id": 5.0})
@example({"user_id": True})
@example({"k": None})
def test_what_msgspec_takes_pydantic_reads_as_the_same(body: Any) -> None:
    check(json.dumps(body).encode())


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                '{"k":',
                "1",
                "3}",
                ',"k":5}',
                '"user_id":',
                "{",
                "}",
                "[",
                "]",
                "\\u00e9",
                '"',
                " ",
                "NaN",
                "-0",
                "1e2",
                "\ufeff",
                "null",
            ]
        ),
        max_size=6,
    )
)
def test_whatever_bytes_come(parts: list[str]) -> None:
    check("".join(parts).encode())


@pytest.mark.parametrize(
    "body",
    [
        {"external_user_id": "ada"},
        {"exclude_external_ids": ["B"]},
        {"ratings": [{"external_id": "B", "rating": 1}]},
    ],
)
def test_external_ids_go_the_other_way(body: Any) -> None:
    assert not check(json.dumps(body).encode())


@settings(max_examples=200, deadline=None)
@given(
    st.fixed_dictionaries(
        {"ratings": st.lists(SOUND_RATINGS, max_size=4), "k": st.integers(1, 100)},
        optional={"user_id": IDS, "exclude_movie_ids": st.lists(IDS, max_size=3)},
    )
)
def test_plain_requests_go_the_fast_way(body: Any) -> None:
    assert check(json.dumps(body).encode())


def test_a_field_given_twice_counts_as_it_is_last() -> None:
    assert check(b'{"k":3,"k":5}')
    try:
        RecommendationRequest.model_validate_json(b'{"k":3,"k":"x"}')
    except ValidationError:
        assert not check(b'{"k":3,"k":"x"}')
