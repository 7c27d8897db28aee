"""Ratings made up: as many as asked for, read back without a fault, with what was planted in them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from training import synthesis
from training.__main__ import main
from training.dataset import Dataset, read_dataset
from training.interactions import Interactions
from training.synthesis import World, synthesize
from twotower.errors import BundleError, SettingsError

USERS, MOVIES, RATINGS = 400, 600, 16_000


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("made") / "up"
    synthesize(path, users=USERS, movies=MOVIES, ratings=RATINGS, seed=3)
    return read_dataset(path)


@pytest.fixture(scope="module")
def world() -> World:
    return World.of(MOVIES, np.random.default_rng([3, 0]))


def test_there_is_what_was_asked_for_and_nothing_to_repair(dataset: Dataset) -> None:
    assert dataset.findings == ()
    assert len(dataset.ratings) == RATINGS
    assert dataset.ratings["user_id"].nunique() == USERS
    assert len(dataset.movies) == MOVIES
    assert dataset.timed
    assert dataset.rated
    assert dataset.rating_scale == (0.5, 5.0)
    assert dataset.movies["year"].notna().all()
    assert all(1 <= len(genres) <= 3 for genres in dataset.movies["genres"])


def test_few_movies_are_rated_often_and_few_users_rate_much(dataset: Dataset) -> None:
    for column in ("movie_id", "user_id"):
        counts = dataset.ratings[column].value_counts()
        assert counts.iloc[: len(counts) // 10].sum() > 0.2 * RATINGS
    of_users = dataset.ratings["user_id"].value_counts()
    assert of_users.min() >= 20
    assert of_users.max() <= MOVIES // 2


def test_movies_near_in_the_space_of_tastes_are_rated_by_the_same_users(
    dataset: Dataset, world: World
) -> None:
    rated = Interactions.of(dataset).matrix().toarray()
    cosines = rated.T @ rated / np.sqrt(np.outer(rated.sum(axis=0), rated.sum(axis=0)) + 1e-9)
    same = world.niches[:, None] == world.niches
    np.fill_diagonal(same, val=False)
    assert cosines[same].mean() > 1.5 * cosines[world.niches[:, None] != world.niches].mean()


def test_a_planted_successor_comes_next_more_often_than_any_other(
    dataset: Dataset, world: World
) -> None:
    ordered = Interactions.of(dataset).by_user()
    adjacent = ordered.user_rows[1:] == ordered.user_rows[:-1]
    follows = ordered.movie_rows[1:] == world.successors[ordered.movie_rows[:-1]]
    assert 0.05 < follows[adjacent].mean() < 0.5


def test_ratings_follow_taste(dataset: Dataset, world: World) -> None:
    """Users like movies of one niche alike: more of a rating is told by the niche than by chance."""
    interactions = Interactions.of(dataset)
    means = np.bincount(interactions.movie_rows, interactions.ratings) / np.maximum(
        np.bincount(interactions.movie_rows), 1
    )
    left = interactions.ratings - means[interactions.movie_rows]
    group = interactions.user_rows * len(world.middles) + world.niches[interactions.movie_rows]
    sizes = np.bincount(group)
    explained = (np.bincount(group, left)[sizes > 0] ** 2 / sizes[sizes > 0]).sum() / (left**2).sum()
    assert explained > 2 * (sizes > 0).sum() / RATINGS


@pytest.mark.parametrize("at_once", [1_000, 7_000])
def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(synthesis, "_RATINGS_AT_ONCE", at_once)
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        synthesize(tmp_path / name, users=50, movies=80, ratings=1_500, seed=seed)
    for file in ("ratings.csv", "movies.csv"):
        one, same, other = ((tmp_path / n / file).read_bytes() for n in ("one", "same", "other"))
        assert one == same != other
    assert len(read_dataset(tmp_path / "one").ratings) == 1_500


@pytest.mark.parametrize(
    ("users", "movies", "ratings"), [(1, 1, 1), (3, 2, 3), (5, 40, 100), (7, 41, 139)]
)
def test_the_smallest_and_the_fullest_are_made(
    tmp_path: Path, users: int, movies: int, ratings: int
) -> None:
    synthesize(tmp_path / "up", users=users, movies=movies, ratings=ratings)
    dataset = read_dataset(tmp_path / "up")
    assert len(dataset.ratings) == ratings
    assert dataset.ratings["user_id"].nunique() == users
    assert not dataset.ratings.duplicated(["user_id", "movie_id"]).any()


@pytest.mark.parametrize("ratings", [9, 51])
def test_numbers_that_do_not_fit_are_told(tmp_path: Path, ratings: int) -> None:
    with pytest.raises(SettingsError, match=f"--ratings {ratings}: allowed are 10 to 50"):
        synthesize(tmp_path / "up", users=10, movies=10, ratings=ratings)
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is there already"):
        synthesize(tmp_path, users=1, movies=1, ratings=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(BundleError, match="cannot be written to"):
        synthesize(tmp_path / "up", users=1, movies=1, ratings=1)


def test_nothing_half_written_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(synthesis, "_rating_table", fail)
    with pytest.raises(KeyboardInterrupt):
        synthesize(tmp_path / "up", users=5, movies=40, ratings=50)
    assert not list(tmp_path.iterdir())


def test_the_command_says_what_it_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "up"
    main(["synthesize", str(path), "--users", "5", "--movies", "40", "--ratings", "50", "--seed", "1"])
    assert capsys.readouterr().out == f"{path}: 50 ratings of 40 movies by 5 users\n"
    assert len(read_dataset(path).ratings) == 50


@pytest.mark.parametrize("option", ["--users", "--movies", "--ratings"])
def test_a_number_that_is_none_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = {"--users": "5", "--movies": "40", "--ratings": "50"} | {option: "0"}
    with pytest.raises(SystemExit):
        main(["synthesize", "up", *(part for pair in numbers.items() for part in pair)])
    assert f"argument {option}: '0', allowed is an integer from 1 to" in capsys.readouterr().err
