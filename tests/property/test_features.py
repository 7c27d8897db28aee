from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from builders import LAW, RATING_SCALE
from twotower.arrays import Bools
from twotower.features import FeatureSpec
from twotower.histories import Histories
from twotower.statistics import MovieSums, UserStatistics, UserSums

half_steps = st.integers(1, 10).map(lambda halves: halves / 2)
Rated = list[tuple[int, float]]


@dataclass(frozen=True)
class World:
    """Movies, and users as lists of (movie row, rating)."""

    genres: Bools
    users: list[Rated]

    def histories(self, users: list[Rated] | None = None) -> Histories:
        users = self.users if users is None else users
        ratings = [rating for user in users for rating in user]
        return Histories.in_order(
            np.cumsum([0, *map(len, users)], dtype=np.int64),
            np.array([row for row, _ in ratings], dtype=np.int64),
            np.array([rating for _, rating in ratings], dtype=np.float64),
        )

    def sums(self, users: list[Rated] | None = None) -> UserSums:
        return UserSums.of(self.histories(users), self.genres)

    def encode(self, users: list[Rated] | None = None) -> np.ndarray:
        return self.spec().encode_users(self.sums(users).statistics())

    def spec(self) -> FeatureSpec:
        movies, genres = self.genres.shape
        histories = self.histories()
        return FeatureSpec.fit(
            genres=tuple(f"genre {number}" for number in range(genres)),
            rating_scale=RATING_SCALE,
            damping=3.0,
            users=self.sums(),
            movies=MovieSums.of(histories.movie_rows, histories.ratings, movies),
            years=np.full(movies, np.nan),
            movie_genres=self.genres,
        )


@st.composite
def worlds(draw: st.DrawFn) -> World:
    movies, genres = draw(st.integers(1, 8)), draw(st.integers(1, 4))
    flags = draw(
        st.lists(
            st.lists(st.booleans(), min_size=genres, max_size=genres), min_size=movies, max_size=movies
        )
    )
    user = st.dictionaries(st.integers(0, movies - 1), half_steps).map(lambda rated: [*rated.items()])
    users = draw(st.lists(user, min_size=1, max_size=6).filter(any))
    return World(np.array(flags, dtype=np.bool_), users)


def rated_pairs(world: World) -> list[tuple[int, int, float]]:
    """Every rating, as (user, movie row, rating)."""
    return [(user, *rating) for user, rated in enumerate(world.users) for rating in rated]


@LAW
@given(worlds())
def test_a_batch_encodes_as_its_rows_alone(world: World) -> None:
    alone = [world.encode([user])[0] for user in world.users]
    assert_array_equal(world.encode(), alone)


@LAW
@given(worlds())
def test_leaving_a_rating_out_is_summing_without_it(world: World) -> None:
    pairs = rated_pairs(world)
    users, rows, ratings = (np.array(column) for column in zip(*pairs, strict=True))
    left_out = world.sums().leaving_out(users, ratings, world.genres[rows])
    without = [[rated for rated in world.users[user] if rated[0] != row] for user, row, _ in pairs]
    expected = world.sums(without)
    for name in ("count", "total", "genre_count", "genre_total"):
        assert_array_equal(getattr(left_out, name), getattr(expected, name))
    assert_array_equal(world.spec().encode_users(left_out.statistics()), world.encode(without))


@LAW
@given(worlds())
def test_leaving_a_rating_out_of_a_movie_is_summing_without_it(world: World) -> None:
    pairs = rated_pairs(world)
    _, rows, ratings = (np.array(column) for column in zip(*pairs, strict=True))
    movies = len(world.genres)
    left_out = MovieSums.of(rows, ratings, movies).leaving_out(rows, ratings)
    for place, row in enumerate(rows.tolist()):
        others = np.arange(len(pairs)) != place
        expected = MovieSums.of(rows[others], ratings[others], movies)
        assert left_out.count[place] == expected.count[row]
        assert left_out.total[place] == expected.total[row]


def mean(ratings: list[float]) -> float:
    return sum(ratings) / len(ratings) if ratings else float("nan")


@LAW
@given(worlds())
def test_statistics_encode_as_the_ratings_behind_them(world: World) -> None:
    given_statistics = UserStatistics(
        count=np.array([float(len(user)) for user in world.users]),
        mean=np.array([mean([rating for _, rating in user]) for user in world.users]),
        genre_means=np.array(
            [
                [mean([rating for row, rating in user if flags[row]]) for flags in world.genres.T]
                for user in world.users
            ]
        ),
    )
    assert_array_equal(world.spec().encode_users(given_statistics), world.encode())


@LAW
@given(worlds(), st.randoms(use_true_random=False))
def test_the_order_of_ratings_does_not_matter(world: World, random: Random) -> None:
    shuffled = [random.sample(user, len(user)) for user in world.users]
    assert_array_equal(world.encode(shuffled), world.encode())


@LAW
@given(worlds())
def test_features_are_finite_and_nothing_rated_is_the_zero_row(world: World) -> None:
    rows = world.encode([*world.users, []])
    assert np.isfinite(rows).all()
    assert not rows[-1].any()


@LAW
@given(worlds())
def test_the_users_measured_have_mean_0_and_deviation_1_or_are_constant(world: World) -> None:
    assume(all(world.users))
    rows = world.encode().astype(np.float64)
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-5)
    deviation = rows.std(axis=0)
    assert np.isclose(deviation, np.where(deviation < 0.5, 0, 1), atol=1e-4).all()


@LAW
@given(worlds(), half_steps, half_steps)
def test_an_unrated_genre_never_looks_like_a_rated_one(
    world: World, mean_rating: float, genre_mean: float
) -> None:
    spec = world.spec()
    genres = len(spec.genres)
    one, overall = np.ones(1), np.array([mean_rating])
    (missing,) = spec.encode_users(UserStatistics(one, overall, np.full((1, genres), np.nan)))
    (rated,) = spec.encode_users(UserStatistics(one, overall, np.full((1, genres), genre_mean)))
    assert (rated[2 + genres :] > missing[2 + genres :]).all()


@LAW
@given(worlds(), half_steps)
def test_unscaling_undoes_scaling(world: World, rating: float) -> None:
    spec = world.spec()
    (again,) = spec.unscale_ratings(spec.scale_ratings(np.array([rating])))
    assert abs(again - rating) < 1e-12


@LAW
@given(worlds(), st.floats(-2, 2), st.floats(-2, 2))
def test_unscaled_cosines_keep_their_order_and_the_scale(
    world: World, cosine: float, other: float
) -> None:
    low, high = world.spec().unscale_ratings(np.array(sorted([cosine, other])))
    assert RATING_SCALE[0] <= low <= high <= RATING_SCALE[1]
