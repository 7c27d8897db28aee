"""Python's hashes differ from process to process; models, the order of their ids and answers do not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from services import ROOT
from twotower.bundle import list_versions, read_bundle

_GENRES = ("War", "Drama", "Comedy", "Film-Noir", "Sci-Fi")


def _write(folder: Path) -> None:
    """Ratings by names: people and items that are no numbers, whose genres come in any order."""
    items = [f"tt{(number * 37) % 101:03}" for number in range(12)]
    movies = "".join(
        f"{item},Film {item} ({1990 + number}),{_GENRES[number % 5]}|{_GENRES[(number * 3 + 1) % 5]}\n"
        for number, item in enumerate(items)
    )
    ratings = "".join(
        f"user{(user * 7) % 13},{item},{1 + (user * number) % 5},{10**9 + user * 10**6 + number}\n"
        for user in range(12)
        for number, item in enumerate(items)
        if (user + number) % 3
    )
    (folder / "ratings.csv").write_text(f"user,item,rating,timestamp\n{ratings}")
    (folder / "movies.csv").write_text(f"item,title,genres\n{movies}")


_ANSWER = """
import json, sys
from pathlib import Path
from retrieval_svc.retriever import Query, Retriever
from twotower.bundle import read_bundle
from user_tower_svc.embedder import UserEmbedder

manifest, bundle = read_bundle(Path(sys.argv[1]), sys.argv[2])
embedder, retriever = UserEmbedder(manifest, bundle), Retriever(manifest, bundle)
names = bundle.histories.external_ids
users = embedder.embed([embedder.known_by_name(name, as_of=10**10, strict=True) for name in names])
found = retriever.retrieve(
    [Query(user.retrieval, user.rating, 10, rated_movie_ids=user.rated_movie_ids) for user in users]
)
items = bundle.catalogue.external_ids
print(json.dumps({name: [items[row] for row in top.hits.rows] for name, top in zip(names, found)}))
"""


def _answers(bundles: Path, version: str, hash_seed: int) -> dict[str, list[str]]:
    """Everyone's top 10 by name, as the services find them in a process of their own."""
    answered = subprocess.run(
        [sys.executable, "-c", _ANSWER, bundles, version],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        check=True,
        capture_output=True,
        timeout=100,
    )
    return json.loads(answered.stdout)  # type: ignore[no-any-return]


def _train(data: Path, recipe: Path, bundles: Path, hash_seed: int) -> str:
    subprocess.run(
        [sys.executable, "-m", "training", "train", "--seed", "1", "--data", data, "--recipe", recipe],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed), "TWOTOWER_BUNDLES": str(bundles)},
        check=True,
        capture_output=True,
        timeout=250,
    )
    (version,) = list_versions(bundles)
    return version


def test_processes_train_the_same_model_and_answer_by_it_alike(
    tmp_path: Path, two_headed_recipe: Path
) -> None:
    data = tmp_path / "shop"
    data.mkdir()
    _write(data)
    first, second = (
        _train(data, two_headed_recipe, tmp_path / f"bundles{seed}", hash_seed=seed) for seed in (1, 2)
    )
    assert first == second  # a version follows from every byte that is served
    _, one = read_bundle(tmp_path / "bundles1", first)
    _, other = read_bundle(tmp_path / "bundles2", second)
    assert one.catalogue.movie_ids.tolist() == other.catalogue.movie_ids.tolist()
    assert [user.top_movie_ids for user in one.golden] == [user.top_movie_ids for user in other.golden]
    answers, same = (_answers(tmp_path / f"bundles{seed}", first, hash_seed=2 + seed) for seed in (1, 2))
    assert answers == same
    assert all(answers.values())
