"""Protocols judge no rating that was learned from or told, and cut where they say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from builders import LAW
from training.baselines import bias
from training.dataset import EMBEDDED, read_dataset
from training.evaluate import judge
from training.interactions import Interactions
from training.results import Results, Run
from training.splits import (
    DAY,
    LATER,
    PROTOCOLS,
    SOON,
    Fold,
    Part,
    Protocol,
    cold_user,
    global_time,
    random,
    session_start,
    temporal,
    usual,
)
from twotower.errors import NoTimestamps, TooFewRatings

_EDITION_2018 = Path(__file__).parents[3] / "shared" / "data" / "ml-latest-small"
_BOTH_PARTS = pytest.mark.parametrize("part", [Part.TEST, Part.VALIDATION], ids=lambda part: part.name)
_ALL = pytest.mark.parametrize("name", PROTOCOLS)
_NEVER = np.iinfo(np.int64).max


def _interactions(counts: list[int], seed: int = 0) -> Interactions:
    """Ratings of three days with a night or more between, from when each user joined; ties abound."""
    generator = np.random.default_rng(seed)
    users = np.repeat(np.arange(len(counts)), counts)
    order = generator.permutation(len(users))
    joined = generator.integers(0, 4, len(counts)) * 10 * DAY
    days = generator.integers(0, 3, len(users)) * 2 * DAY
    return Interactions(
        user_rows=users[order],
        movie_rows=np.arange(len(users), dtype=np.int64)[order],  # so that each rating is told apart
        ratings=generator.integers(1, 11, len(users)) / 2,
        timestamps=(joined[users] + days + generator.integers(0, 5, len(users)))[order],
        users=len(counts),
        movies=max(len(users), 1),
    )


def _at(*times: list[int]) -> Interactions:
    """The ratings of some users, each given at these times, all of different movies."""
    ratings = sum(map(len, times))
    return Interactions(
        user_rows=np.repeat(np.arange(len(times)), [len(own) for own in times]),
        movie_rows=np.arange(ratings, dtype=np.int64),
        ratings=np.full(ratings, 4.0),
        timestamps=np.concatenate([np.array(own, dtype=np.int64) for own in times]),
        users=len(times),
        movies=ratings,
    )


_data = st.builds(
    lambda counts, seed: _interactions([30, 30, *counts], seed),
    st.lists(st.integers(0, 40), max_size=8),
    st.integers(0, 1000),
)


def _made(name: str, interactions: Interactions, part: Part) -> Protocol:
    try:
        return PROTOCOLS[name](interactions, part)
    except TooFewRatings:
        reject()


def _ids(*parts: Interactions) -> set[int]:
    return {movie for part in parts for movie in part.movie_rows.tolist()}


def _test_ids(protocol: Protocol) -> set[int]:
    return _ids(*(fold.test for fold in protocol.folds))


def _all_ids(protocol: Protocol) -> set[int]:
    return _ids(*(part for fold in protocol.folds for part in (fold.train, fold.history, fold.test)))


def _users(part: Interactions) -> set[int]:
    return set(part.user_rows.tolist())


@_ALL
@_BOTH_PARTS
@LAW
@given(_data)
def test_no_rating_judged_is_learned_from_or_told(
    name: str, part: Part, interactions: Interactions
) -> None:
    for fold in _made(name, interactions, part).folds:
        assert not _ids(fold.test) & _ids(fold.train, fold.history)
        assert len(fold.test)
        assert len(fold.train)


@_ALL
@_BOTH_PARTS
@LAW
@given(_data)
def test_each_rating_is_judged_once_at_most(name: str, part: Part, interactions: Interactions) -> None:
    protocol = _made(name, interactions, part)
    assert protocol.tested == len(_test_ids(protocol)) == sum(len(fold.test) for fold in protocol.folds)
    asking = [user for fold in protocol.folds for user in _users(fold.test)]
    assert len(asking) == len(set(asking))


@_ALL
@_BOTH_PARTS
@LAW
@given(_data)
def test_known_is_what_was_learned_from_or_told_once_each(
    name: str, part: Part, interactions: Interactions
) -> None:
    for fold in _made(name, interactions, part).folds:
        known = fold.known.movie_rows.tolist()
        assert len(known) == len(set(known))
        assert set(known) == _ids(fold.train, fold.history)


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if name != "random"])
@_BOTH_PARTS
@LAW
@given(_data)
def test_what_is_told_of_a_user_came_before_what_is_judged(
    name: str, part: Part, interactions: Interactions
) -> None:
    for fold in _made(name, interactions, part).folds:
        for user in _users(fold.test):
            told = fold.history.timestamps[fold.history.user_rows == user]
            judged = fold.test.timestamps[fold.test.user_rows == user]
            assert len(told)
            assert told.max() <= judged.min() == fold.asked_at[user]


@pytest.mark.parametrize("name", ["cold-user", "session-start"])
@_BOTH_PARTS
@LAW
@given(_data)
def test_cold_users_are_never_learned_from(name: str, part: Part, interactions: Interactions) -> None:
    for fold in _made(name, interactions, part).folds:
        assert not (_users(fold.test) | _users(fold.history)) & _users(fold.train)


@pytest.mark.parametrize("name", ["temporal", "cold-user", "session-start"])
@LAW
@given(_data)
def test_nobodys_last_fifth_is_seen_before_the_test(name: str, interactions: Interactions) -> None:
    last = _test_ids(temporal(interactions))
    assert not last & _all_ids(_made(name, interactions, Part.VALIDATION))


@LAW
@given(_data)
def test_nothing_after_the_last_return_is_seen_before_the_test(interactions: Interactions) -> None:
    tested = _test_ids(_made("session-start", interactions, Part.TEST))
    assert not tested & _all_ids(_made("session-start", interactions, Part.VALIDATION))


@LAW
@given(_data)
def test_no_random_test_rating_is_seen_before_the_test(interactions: Interactions) -> None:
    assert not _test_ids(random(interactions)) & _all_ids(random(interactions, Part.VALIDATION))


@LAW
@given(_data)
def test_nothing_after_the_date_is_seen_before_the_test(interactions: Interactions) -> None:
    later = interactions.timestamps >= np.quantile(interactions.timestamps, 0.8)
    protocol = _made("global-time", interactions, Part.VALIDATION)
    assert not _ids(interactions.take(later)) & _all_ids(protocol)


@LAW
@given(_data)
def test_parts_of_temporal_and_random_are_complete(interactions: Interactions) -> None:
    for make in (temporal, random):
        tested, validated = make(interactions), make(interactions, Part.VALIDATION)
        assert _all_ids(tested) == set(range(len(interactions)))
        assert _all_ids(validated) == _ids(tested.folds[0].train)
        assert tested.folds[0].history.digest == tested.folds[0].train.digest


@LAW
@given(_data)
def test_temporal_judges_each_users_last_ratings(interactions: Interactions) -> None:
    counts = np.bincount(interactions.user_rows, minlength=interactions.users)
    for part, share in ((Part.TEST, 0.2), (Part.VALIDATION, 0.1)):
        judged = temporal(interactions, part).folds[0].test
        tested = np.bincount(judged.user_rows, minlength=interactions.users)
        assert tested.tolist() == np.round(share * counts).tolist()


def test_random_judges_a_fifth_and_keeps_its_order() -> None:
    interactions = _interactions([100])
    (fold,) = random(interactions).folds
    assert (len(fold.train), len(fold.test)) == (80, 20)
    (fold,) = random(interactions, Part.VALIDATION).folds
    assert (len(fold.train), len(fold.test)) == (70, 10)
    places = {movie: place for place, movie in enumerate(interactions.movie_rows.tolist())}
    order = [places[movie] for movie in fold.train.movie_rows.tolist()]
    assert order != sorted(order)


@LAW
@given(_data)
def test_cold_user_tells_the_first_ratings_and_judges_the_last(interactions: Interactions) -> None:
    last = temporal(interactions).folds[0]
    protocol = cold_user(interactions)
    assert _test_ids(protocol) == _ids(last.test)
    for fold in protocol.folds:
        own = np.isin(interactions.user_rows, list(_users(fold.history)))
        assert _ids(fold.history) == _ids(interactions.take(own)) - _ids(last.test)
        assert _ids(fold.train) == _ids(interactions.take(~own))
    again = cold_user(interactions, Part.VALIDATION)
    assert _test_ids(again) == _test_ids(temporal(interactions, Part.VALIDATION))


@_BOTH_PARTS
@LAW
@given(_data)
def test_global_time_learns_from_all_before_the_date_and_nothing_after(
    part: Part, interactions: Interactions
) -> None:
    protocol = _made("global-time", interactions, part)
    (fold,) = protocol.folds
    date = np.quantile(interactions.timestamps, 0.8)
    if part == Part.VALIDATION:
        interactions = interactions.take(interactions.timestamps < date)
        date = np.quantile(interactions.timestamps, 0.8)
    before = interactions.take(interactions.timestamps < date)
    assert _ids(fold.train) == _ids(before)
    assert _ids(fold.history, fold.test) == _ids(interactions)
    known = np.isin(interactions.user_rows, list(_users(before)))
    last = temporal(interactions).folds[0].test
    assert _ids(fold.test) == _ids(interactions.take(known)) - _ids(before) | _ids(
        last.take(~np.isin(last.user_rows, before.user_rows))
    )
    joined = np.isin(np.arange(interactions.users), before.user_rows)
    assert protocol.groups.tolist() == [
        "known users" if early else "users who joined later" for early in joined
    ]


def test_session_start_judges_what_follows_the_last_return() -> None:
    morning = list(range(12))
    interactions = _at(
        [*morning, 11 + DAY, 12 + DAY, 2 * DAY],  # returns after a day, and again within one
        [*morning, 10 + DAY],  # returns too soon
        [*range(9), 2 * DAY],  # returns with too little before it
        [*range(10), 2 * DAY],  # with just enough
        [*range(5), *(2 * DAY + time for time in range(5)), 5 * DAY, 5 * DAY + 1],  # for the second time
        [*range(10), 2 * DAY, 4 * DAY],
    )
    protocol = session_start(interactions)
    judged: dict[int, list[int]] = {}
    for fold in protocol.folds:
        for user, time in zip(fold.test.user_rows.tolist(), fold.test.timestamps.tolist(), strict=True):
            judged.setdefault(user, []).append(time)
    assert judged == {
        0: [11 + DAY, 12 + DAY, 2 * DAY],
        3: [2 * DAY],
        4: [5 * DAY, 5 * DAY + 1],
        5: [4 * DAY],
    }
    told = [user for fold in protocol.folds for user in fold.history.user_rows.tolist()]
    assert np.bincount(told).tolist() == [12, 0, 0, 10, 10, 11]


@_ALL
def test_what_is_judged(name: str) -> None:
    protocol = PROTOCOLS[name](_interactions([30] * 10), Part.TEST)
    assert protocol.name == name
    assert protocol.ranked == (name in {"temporal", "cold-user", "session-start"})
    assert protocol.rated == (name != "session-start")


def test_a_fold_knows_when_users_ask_and_how_often_movies_were_rated() -> None:
    train, test = _at([3], [4, 5]), _at([9, 7, 8], [], [6])
    fold = Fold(train=train, history=train, test=test)
    assert fold.asked_at.tolist() == [7, _NEVER, 6]
    assert fold.popularity.tolist() == [1, 1, 1]
    again = train.take(np.array([0, 0, 2]))
    assert Fold(again, again, test).popularity.tolist() == [2, 0, 1]


def test_users_are_grouped_by_how_long_they_were_away() -> None:
    interactions = _at(
        [0, 1, 2, 3, 3 + DAY],
        [0, 1, 2, 3, 2 + DAY],
        [0, 1, 2, 3, 3 + 100 * DAY],
        [0, 9 * DAY],  # has too few ratings to be judged
    )
    assert temporal(interactions).groups.tolist() == [LATER, SOON, LATER, SOON]
    assert cold_user(interactions).groups.tolist() == [LATER, SOON, LATER, SOON]


@pytest.fixture(scope="module")
def embedded() -> Interactions:
    return Interactions.of(read_dataset(EMBEDDED))


@pytest.mark.parametrize(
    ("name", "test", "validation"),
    [
        ("temporal", "64a7c8af91aa3a7a", "fa5dce5a7776150f"),
        ("random", "6c0eaf3dda448b3b", "5b3d9b6128be024a"),
        ("cold-user", "beaefadc7418f3dd", "b9db4e4edf07b663"),
        ("global-time", "e3d62ffe47c2eebd", "6bce0b51979d523c"),
        ("session-start", "a93b9ce9940ea137", "cbd4db21597abf69"),
    ],
)
def test_protocols_are_the_same_each_time(
    embedded: Interactions, name: str, test: str, validation: str
) -> None:
    for part, digest in ((Part.TEST, test), (Part.VALIDATION, validation)):
        assert PROTOCOLS[name](embedded, part).digest[:16] == digest
        assert len(PROTOCOLS[name](embedded, part).digest) == 64


@_ALL
def test_a_digest_follows_from_what_is_where(name: str) -> None:
    interactions = _interactions([30] * 10)
    first, same = (PROTOCOLS[name](interactions, Part.TEST).digest for _ in range(2))
    other = PROTOCOLS[name](_interactions([30] * 10, seed=1), Part.TEST).digest
    assert first == same
    assert (first == other) == (name == "random")  # which looks at no time


@_ALL
@_BOTH_PARTS
@pytest.mark.parametrize("ratings", [0, 1])
def test_too_few_ratings_are_refused(name: str, part: Part, ratings: int) -> None:
    with pytest.raises(TooFewRatings, match=f"too few ratings: the {name} protocol has none left"):
        PROTOCOLS[name](_at(list(range(ratings))), part)


@pytest.mark.parametrize(
    ("name", "interactions"),
    [
        ("cold-user", _at(list(range(100)))),
        ("session-start", _at(list(range(0, 100 * DAY, DAY)))),
        ("session-start", _at(list(range(100)), list(range(100)))),
        ("global-time", _at([5] * 30, [5] * 30)),
    ],
    ids=["one user", "one user who returns", "nobody who returns", "one time"],
)
@_BOTH_PARTS
def test_what_cannot_be_judged_is_refused(name: str, part: Part, interactions: Interactions) -> None:
    with pytest.raises(TooFewRatings, match=f"the {name} protocol"):
        PROTOCOLS[name](interactions, part)


@pytest.fixture(scope="module")
def edition_2018() -> Interactions:
    if not _EDITION_2018.exists():
        pytest.skip("the 2018 edition of ml-latest-small is not here")
    return Interactions.of(read_dataset(_EDITION_2018))


def _of_bias(protocol: Protocol, movies: int) -> Results:
    run = Run(protocol.name, "bias", 0, judge(protocol, bias))
    return Results([run], movies, {protocol.name: protocol.digest})


@pytest.mark.parametrize(
    ("name", "rmse", "mae"),
    [
        ("temporal", 0.8997, 0.6925),
        ("random", 0.8776, 0.6732),
        ("cold-user", 0.8956, 0.6892),
    ],
)
def test_the_biases_have_their_published_error(
    edition_2018: Interactions, name: str, rmse: float, mae: float
) -> None:
    """On the edition of 2018, as measured by another implementation."""
    (row,) = _of_bias(PROTOCOLS[name](edition_2018, Part.TEST), edition_2018.movies).rows()
    assert row["rmse"] == pytest.approx(rmse, abs=5e-5)
    assert row["mae"] == pytest.approx(mae, abs=5e-5)


def test_the_biases_have_their_published_error_after_a_date(edition_2018: Interactions) -> None:
    """Of the users known by then, as measured by another implementation."""
    by_group = _of_bias(global_time(edition_2018), edition_2018.movies).rmse_by_group("global-time")
    assert by_group.loc["bias", "known users"] == pytest.approx(0.9432, abs=5e-5)


@_BOTH_PARTS
@pytest.mark.parametrize("name", ["temporal", "global-time", "session-start"])
def test_without_times_a_protocol_that_needs_them_is_refused(name: str, part: Part) -> None:
    untimed = _untimed([20, 30, 40])
    with pytest.raises(NoTimestamps, match=f"no timestamps: the {name} protocol needs them"):
        PROTOCOLS[name](untimed, part)


@_BOTH_PARTS
def test_without_times_the_random_protocol_is_the_usual_one_and_judges_rankings(part: Part) -> None:
    untimed, timed = _untimed([20, 30, 40]), _interactions([20, 30, 40])
    assert usual(untimed, part).name == "random"
    assert usual(untimed, part).ranked
    assert usual(timed, part).name == "temporal"
    assert not random(timed, part).ranked
    assert random(timed, part).digest == random(untimed, part).digest


@_BOTH_PARTS
def test_without_times_new_users_are_judged_all_the_same(part: Part) -> None:
    protocol = cold_user(_untimed([20] * 10), part)
    assert protocol.tested > 0
    assert not any(fold.train.timed for fold in protocol.folds)


def _untimed(counts: list[int]) -> Interactions:
    made = _interactions(counts)
    return replace(made, timestamps=np.zeros_like(made.timestamps), timed=False)


def test_many_users_are_judged_by_some_drawn_once_for_all() -> None:
    protocol = cold_user(_interactions([12] * 40))
    limited = protocol.judged_by(15)
    users = np.unique(np.concatenate([fold.test.user_rows for fold in limited.folds]))
    assert len(users) == 15
    for fold in limited.folds:
        whole = next(
            each for each in protocol.folds if np.isin(fold.test.user_rows, each.test.user_rows).all()
        )
        assert fold.history.digest == whole.history.digest
        own = whole.test.take(np.isin(whole.test.user_rows, users))
        assert fold.test.movie_rows.tolist() == own.movie_rows.tolist()
    assert limited.digest == protocol.judged_by(15).digest != protocol.digest
    assert protocol.judged_by(40) is protocol
