"""One small real model, trained once, and the real services over it."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from builders import QUICK_RECIPE
from services import ROOT, Stack, running_stack
from training.dataset import EMBEDDED, read_dataset
from twotower.bundle import Bundle, read_bundle
from twotower.promotion import promote

# Run apart by a shell, a process ignores Ctrl-C and hands that on; the programs tested must not.
signal.signal(signal.SIGINT, signal.default_int_handler)

_USERS = 40
_FASTER = {
    "hidden = [256, 128]": "hidden = [32, 16]",
    "max_epochs = 4": "max_epochs = 2",
    "svd = 32": "svd = 8",
    "factors = 20": "factors = 6",
    "landmarks = [512, 1024]": "landmarks = [300, 300]",
    "examples = 8000": "examples = 500",
}
"""What is changed in the shipped recipe of two heads for data as small as these."""


@dataclass(frozen=True)
class Trained:
    """A folder of two bundles of the same data by different seeds, none promoted."""

    bundles: Path
    data: Path
    recipe: Path
    first: str
    second: str

    def copy(self, to: Path, promoted: str | None) -> Path:
        """A folder of the same bundles to change at will, with one of them promoted."""
        shutil.copytree(self.bundles, to)
        if promoted:
            promote(to, promoted)
        return to


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first users of the embedded data, and the movies they rated, as CSV files."""
    folder = tmp_path_factory.mktemp("data") / "few-users"
    folder.mkdir()
    dataset = read_dataset(EMBEDDED)
    ratings = dataset.ratings[dataset.ratings["user_id"] <= _USERS]
    movies = dataset.movies[dataset.movies["movie_id"].isin(ratings["movie_id"])]
    years = movies["year"].map(lambda year: f" ({year})", na_action="ignore").fillna("")
    ratings.set_axis(["userId", "movieId", "rating", "timestamp"], axis=1).to_csv(
        folder / "ratings.csv", index=False
    )
    movies.assign(
        movieId=movies["movie_id"],
        title=movies["title"] + years.astype("str"),
        genres=movies["genres"].map("|".join),
    )[["movieId", "title", "genres"]].to_csv(folder / "movies.csv", index=False)
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Trained:
    """Two small bundles, trained for real."""
    from training.pipeline import train  # noqa: PLC0415 - TensorFlow takes seconds to import
    from training.report import Reporter  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("trained")
    recipe = folder / "quick.toml"
    recipe.write_text(QUICK_RECIPE)
    bundles = folder / "bundles"
    reporter = Reporter(Console(quiet=True))
    versions = [
        train(data, str(recipe), bundles, seed, reporter).manifest.model_version for seed in (1, 2)
    ]
    return Trained(bundles, data, recipe, *versions)


@pytest.fixture(scope="session")
def two_headed_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped recipe of two heads, small and quick."""
    text = (ROOT / "training" / "recipes" / "hybrid.toml").read_text()
    for slow, fast in _FASTER.items():
        assert text.count(slow) == 1, slow
        text = text.replace(slow, fast)
    path = tmp_path_factory.mktemp("recipe") / "two-headed.toml"
    path.write_text(text)
    return path


@pytest.fixture
def bundles(trained: Trained, tmp_path: Path) -> Path:
    """A folder of both bundles, the first promoted, to change at will."""
    return trained.copy(tmp_path / "bundles", trained.first)


@pytest.fixture(scope="session")
def stack(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """All three services over the first bundle. For tests that change nothing."""
    folder = tmp_path_factory.mktemp("stack")
    with running_stack(trained.copy(folder / "bundles", trained.first), folder) as running:
        yield running


@pytest.fixture(scope="session")
def model(trained: Trained) -> Bundle:
    """What the stack serves."""
    _, bundle = read_bundle(trained.bundles, trained.first)
    return bundle


@pytest.fixture(scope="session")
def client(stack: Stack) -> Iterator[httpx.Client]:
    """A REST client of the stack."""
    with httpx.Client(base_url=stack.url, timeout=10) as client:
        yield client
