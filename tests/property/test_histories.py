"""What is summed and solved over many histories at once is what plain loops give for each alone."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from builders import LAW
from training.interactions import Interactions
from twotower.arrays import Floats, Ints
from twotower.histories import (
    NO_RATINGS,
    Histories,
    segment_sums,
    weighted_moments,
)
from twotower.loops import weighted_ridge
from twotower.statistics import UserSums

Times = list[list[int]]
"""When each user rated something, oldest first. Every rating is of a movie of its own."""

few_times = st.lists(st.lists(st.integers(0, 5), max_size=8).map(sorted), min_size=1, max_size=5)


def flat(users: Times) -> Ints:
    return np.array([time for times in users for time in times], dtype=np.int64)


def histories_of(users: Times, asked_at: list[int] | None = None, *, timed: bool = True) -> Histories:
    times = flat(users)
    return Histories.in_order(
        np.cumsum([0, *map(len, users)], dtype=np.int64),
        np.arange(len(times)),
        np.linspace(0.5, 5.0, len(times)),
        times if timed else None,
        None if asked_at is None else np.array(asked_at),
    )


@LAW
@given(few_times)
def test_a_rating_is_as_old_as_what_came_after_it_and_half_of_what_came_with_it(users: Times) -> None:
    expected = [
        sum(other > time for other in times) + (times.count(time) - 1) / 2
        for times in users
        for time in times
    ]
    assert histories_of(users).ages.tolist() == expected


@LAW
@given(few_times)
def test_without_timestamps_ratings_come_in_the_order_of_the_list(users: Times) -> None:
    expected = [age for times in users for age in reversed(range(len(times)))]
    assert histories_of(users, timed=False).ages.tolist() == expected


@LAW
@given(few_times, st.randoms(use_true_random=False))
def test_the_order_in_which_ratings_are_given_does_not_change_their_ages(
    users: Times, random: Random
) -> None:
    expected = histories_of(users)
    order = random.sample(range(len(expected.ages)), len(expected.ages))
    shuffled = Interactions(
        user_rows=expected.users[order],
        movie_rows=expected.movie_rows[order],
        ratings=expected.ratings[order],
        timestamps=flat(users)[order],
        users=len(users),
        movies=len(order),
    ).histories()
    back = np.argsort(shuffled.movie_rows)
    for name in ("users", "movie_rows", "ratings", "ages"):
        assert_array_equal(getattr(shuffled, name)[back], getattr(expected, name))


@LAW
@given(few_times, st.data())
def test_a_user_is_idle_since_the_last_rating(users: Times, data: st.DataObject) -> None:
    asked_at = data.draw(st.lists(st.integers(0, 9), min_size=len(users), max_size=len(users)))
    pairs = zip(asked_at, users, strict=True)
    expected = [max(asked - times[-1], 0) if times else 0 for asked, times in pairs]
    assert histories_of(users, asked_at).idle.tolist() == expected
    assert not histories_of(users).idle.any()
    assert not histories_of(users, asked_at, timed=False).idle.any()


@LAW
@given(few_times)
def test_histories_made_apart_join_to_those_made_together(users: Times) -> None:
    apart = [NO_RATINGS, *(histories_of([times], [7]) for times in users)]
    joined, together = Histories.join(apart), histories_of([[], *users], [7] * (len(users) + 1))
    for name in ("offsets", "ages", "idle", "users"):
        assert_array_equal(getattr(joined, name), getattr(together, name))
    for name in ("movie_rows", "ratings"):
        assert_array_equal(getattr(joined, name), np.concatenate([getattr(own, name) for own in apart]))


@LAW
@given(few_times, st.integers(1, 12), st.integers(1, 4))
def test_blocks_of_users_are_all_of_them_in_order_and_no_larger_than_asked_for(
    users: Times, ratings: int, at_once: int
) -> None:
    whole = histories_of(users, [9] * len(users))
    blocks = list(whole.blocks(ratings, at_once))
    assert sum(map(len, blocks)) == len(users)
    for block in blocks:
        assert 0 < len(block) <= at_once
        assert len(block) == 1 or len(block.ratings) <= ratings
    joined = Histories.join(blocks)
    for field in fields(Histories):
        assert_array_equal(getattr(joined, field.name), getattr(whole, field.name))


def test_of_no_users_there_is_one_block_without_any() -> None:
    (block,) = histories_of([]).blocks()
    assert len(block) == len(block.ratings) == 0


@LAW
@given(few_times, st.data())
def test_histories_of_some_users_are_theirs_in_the_order_asked_for(
    users: Times, data: st.DataObject
) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(users) - 1), min_size=1, max_size=6))
    whole = histories_of(users, [9] * len(users))
    alone = list(whole.blocks(users=1))
    expected, found = Histories.join([alone[user] for user in chosen]), whole.of(np.array(chosen))
    for field in fields(Histories):
        assert_array_equal(getattr(found, field.name), getattr(expected, field.name))


@LAW
@given(few_times, st.integers(1, 12), st.integers(1, 4))
def test_sums_over_blocks_are_those_over_all_users(users: Times, ratings: int, at_once: int) -> None:
    whole = histories_of(users)
    genres = np.random.default_rng(0).random((len(whole.ratings), 3)) < 0.5
    expected = UserSums.of(whole, genres)
    with pytest.MonkeyPatch.context() as patched:
        blocks = list(whole.blocks(ratings, at_once))
        patched.setattr(Histories, "blocks", lambda _: blocks)
        found = UserSums.of(whole, genres)
    for field in fields(UserSums):
        assert_array_equal(getattr(found, field.name), getattr(expected, field.name))


@dataclass(frozen=True)
class Rows:
    """Random rows of a few segments, and what goes with each; the rows are a table's, too."""

    design: Floats
    targets: Floats
    weights: Floats

    def of(self, start: int, stop: int) -> Rows:
        return Rows(*(getattr(self, field.name)[start:stop] for field in fields(self)))

    def results(self, offsets: Ints) -> tuple[npt.NDArray[np.floating], ...]:
        """Whatever is computed over segments."""
        table, rows = self.design.astype(np.float32), np.arange(len(self.design))
        precision = 2.0 * np.eye(self.design.shape[1]) + 0.5
        return (
            segment_sums(self.targets, offsets),
            segment_sums(self.design, offsets),
            weighted_ridge(
                offsets,
                rows[::-1],
                table[::-1],
                targets=self.targets,
                weights=self.weights,
                precision=precision,
            ),
            *weighted_moments(offsets, self.design, self.targets, self.weights, precision),
        )

    def expected(self) -> tuple[float | npt.NDArray[np.floating], ...]:
        """The same of one segment, row by row."""
        gram = 2.0 * np.eye(self.design.shape[1]) + 0.5
        total, moment, target_sum = *np.zeros((2, len(gram))), 0.0
        for row, target, weight in zip(self.design, self.targets, self.weights, strict=True):
            target_sum += target
            total += row
            gram += weight * np.outer(row, row)
            moment += weight * target * row
        return target_sum, total, np.linalg.solve(gram, moment), gram, moment


@st.composite
def segments(draw: st.DrawFn) -> tuple[Rows, Ints]:
    counts = draw(st.lists(st.integers(0, 40), min_size=1, max_size=6))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, width = sum(counts), draw(st.integers(1, 6))
    design, targets, weights = random.normal(size=(rows, width)), *random.random((2, rows))
    return Rows(design, targets, weights), np.cumsum([0, *counts], dtype=np.int64)


@LAW
@given(segments())
def test_every_segment_is_summed_and_solved_as_by_a_plain_loop(drawn: tuple[Rows, Ints]) -> None:
    rows, offsets = drawn
    expected = [rows.of(start, stop).expected() for start, stop in pairwise(offsets)]
    for found, right in zip(rows.results(offsets), zip(*expected, strict=True), strict=True):
        close = 1e-4 if found.dtype == np.float32 else 1e-9
        assert_allclose(found, np.array(right), rtol=close, atol=close)


@LAW
@given(segments())
def test_every_segment_comes_out_as_it_would_alone_to_the_last_bit(drawn: tuple[Rows, Ints]) -> None:
    rows, offsets = drawn
    alone = [
        rows.of(start, stop).results(np.array([0, stop - start])) for start, stop in pairwise(offsets)
    ]
    for found, right in zip(rows.results(offsets), zip(*alone, strict=True), strict=True):
        assert_array_equal(found, np.concatenate(right))
