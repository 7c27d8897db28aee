"""No array is users x movies: reading, fitting and judging take the memory of the ratings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from services import ROOT
from training.synthesis import synthesize

_USERS = _MOVIES = 20_000
_RATINGS = 60_000
_DENSE = _USERS * _MOVIES
"""Bytes of an array of users x movies, of one byte each; numbers take four or eight times as much."""

_SMALL = {
    "max_epochs = 4": "max_epochs = 1",
    "hidden = [256, 128]": "hidden = [16]",
    "svd = 32": "svd = 2",
    "factors = 20": "factors = 2",
    "movie_steps = 3": "movie_steps = 1",
    "user_steps = 12": "user_steps = 1",
    "landmarks = [512, 1024]": "landmarks = [40, 40]",
    "examples = 8000": "examples = 200",
    "epochs = 10": "epochs = 1",
    "epochs = 15": "epochs = 1",
    "movies = 6000": "movies = 400",
    "ratings = 1_000_000": "ratings = 10_000",
}
"""What is changed in the shipped recipe, which takes the same ways with it."""

_TRAINING = """
import resource, sys
from pathlib import Path

from training.baselines import bias, popular
from training.config import load_recipe
from training.content import MovieContent
from training.dataset import read_dataset
from training.evaluate import judge
from training.interactions import Interactions
from training.splits import temporal
from training.train import fit

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

recipe, data = load_recipe(sys.argv[1]), Path(sys.argv[2])
before = peak()
dataset = read_dataset(data)
read = peak()
content = MovieContent.of(dataset)

def towers(fold):
    fitted = fit(fold.train, content, recipe, seed=0)
    return fitted.asked_by(fold.history.histories(fold.asked_at))

protocol = temporal(Interactions.of(dataset)).judged_by(300)
for method in (popular, bias, towers):
    judge(protocol, method)
print(read - before, peak() - before)
"""


def test_memory_does_not_grow_with_users_times_movies(tmp_path: Path) -> None:
    recipe = tmp_path / "small.toml"
    text = (ROOT / "training" / "recipes" / "hybrid.toml").read_text()
    for large, small in _SMALL.items():
        assert text.count(f"\n{large}\n") == 1, large
        text = text.replace(f"\n{large}\n", f"\n{small}\n")
    recipe.write_text(text)
    synthesize(tmp_path / "wide", users=_USERS, movies=_MOVIES, ratings=_RATINGS)
    trained = subprocess.run(
        [sys.executable, "-c", _TRAINING, recipe, tmp_path / "wide"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert trained.returncode == 0, trained.stderr
    reading, whole = map(int, trained.stdout.split())
    assert reading < _DENSE / 4
    assert whole < _DENSE
