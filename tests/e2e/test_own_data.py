"""The walk of docs/own-data.md: its commands are run as they stand, and answer what it says."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from services import ROOT, Stack, running_stack
from twotower.bundle import Bundle, read_bundle
from twotower.promotion import read_current

_PAGE = (ROOT / "docs" / "own-data.md").read_text()
_NOT_COMPARED = {"request_id", "model_version"}


def _transcripts() -> dict[str, str]:
    """What the page shows, by command."""
    shown = {}
    for block in re.findall(r"```console\n(.*?)```", _PAGE, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = part.splitlines(keepends=True)
            count = 1
            while _goes_on("".join(lines[:count])):
                count += 1
            shown["".join(lines[:count]).strip()] = "".join(lines[count:])
    return shown


def _goes_on(command: str) -> bool:
    """Whether a shell would ask for more."""
    return command.endswith("\\\n") or command.count("'") % 2 == 1


SHOWN = _transcripts()
TRAINING = [command for command in SHOWN if " train " in command]
ASKING = [command for command in SHOWN if command.startswith("curl")]


class Walk:
    """The folders that the commands make, elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, command: str) -> str:
        command = command.replace(".venv/bin/python", shlex.quote(sys.executable))
        command = command.replace("build/", f"{self.folder}/")
        answer = subprocess.run(
            ["bash", "-c", command],
            cwd=ROOT,
            env={**os.environ, "COLUMNS": "100"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert answer.returncode == 0, answer.stderr
        return answer.stdout.replace(f"{self.folder}/", "build/")


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    walk = Walk(tmp_path_factory.mktemp("walk"))
    (make,) = (command for command in SHOWN if "examples/books.py" in command)
    assert walk.run(make) == SHOWN[make]
    return walk


@pytest.fixture(scope="module")
def table(walk: Walk) -> Mapping[str, tuple[str, list[str], int]]:
    """The shop's own books: title, shelves and year by sku."""
    books = pl.read_csv(walk.folder / "books" / "books.csv")
    return {
        sku: (title, shelf.split("|"), published) for sku, title, shelf, published in books.iter_rows()
    }


@contextmanager
def _served(walk: Walk, command: str, name: str) -> Iterator[Stack]:
    said = walk.run(command)
    assert re.search(r"model [0-9a-f]{16} is promoted\n", said)
    with running_stack(walk.folder / name, walk.folder) as stack:
        yield stack


@pytest.fixture(scope="module")
def stacks(walk: Walk) -> Iterator[dict[str, Stack]]:
    """The services over both models, by the folder of the model."""
    with ExitStack() as served:
        yield {
            name: served.enter_context(_served(walk, command, name))
            for command, name in zip(TRAINING, ("books-models", "likes-models"), strict=True)
        }


@pytest.fixture(scope="module")
def books(stacks: dict[str, Stack]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stacks["books-models"].url, timeout=10) as client:
        yield client


@pytest.fixture(scope="module")
def likes(stacks: dict[str, Stack]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stacks["likes-models"].url, timeout=10) as client:
        yield client


@pytest.fixture(scope="module")
def model(stacks: dict[str, Stack]) -> Bundle:
    root = stacks["books-models"].bundles
    current = read_current(root)
    assert current
    return read_bundle(root, current.current)[1]


def _ask(client: httpx.Client, command: str) -> Any:
    """What a curl command of the page is answered."""
    program, _, *words = shlex.split(command.partition(" | ")[0])
    assert program == "curl"
    (url,) = (word for word in words if word.startswith("localhost:8000"))
    path = url.removeprefix("localhost:8000")
    if "-d" not in words:
        return client.get(path).json()
    return client.post(path, json=json.loads(words[words.index("-d") + 1])).json()


def _check(answer: Any, shown: Any) -> None:
    """Equal, but for what another machine computes a little differently."""
    if isinstance(shown, dict):
        assert answer.keys() == shown.keys()
        for name in shown.keys() - _NOT_COMPARED:
            _check(answer[name], shown[name])
    elif isinstance(shown, list):
        assert len(answer) == len(shown)
        for one, other in zip(answer, shown, strict=True):
            _check(one, other)
    elif isinstance(shown, float):
        assert answer == pytest.approx(shown, abs=0.1)
    else:
        assert answer == shown


@pytest.mark.parametrize("command", [c for c in SHOWN if c.startswith("head") or "inspect-data" in c])
def test_what_is_there_is_as_shown(walk: Walk, command: str) -> None:
    said = [line.rstrip() for line in walk.run(command).splitlines()]
    assert said == [line.rstrip() for line in SHOWN[command].splitlines()]


@pytest.mark.parametrize("command", ASKING, ids=range(len(ASKING)))
def test_answers_are_as_shown(books: httpx.Client, likes: httpx.Client, command: str) -> None:
    shown = json.loads(SHOWN[command])
    of_likes = any(item.get("predicted_rating", 0) is None for item in shown.get("items", ()))
    _check(_ask(likes if of_likes else books, command), shown)


def test_every_book_is_found_by_its_own_id(
    books: httpx.Client, table: Mapping[str, tuple[str, list[str], int]]
) -> None:
    for sku, (title, shelves, published) in table.items():
        found = books.get("/v1/movies:lookup", params={"external_id": sku}).json()
        assert (found["external_id"], found["title"]) == (sku, title)
        assert (found["genres"], found["year"]) == (shelves, published)
        assert books.get(f"/v1/movies/{found['movie_id']}").json() == found
        assert 1 <= found["mean_rating"] <= 10


def test_readers_are_recommended_their_shelf_and_nothing_they_read(
    books: httpx.Client, walk: Walk, table: Mapping[str, tuple[str, list[str], int]]
) -> None:
    reads = pl.read_csv(walk.folder / "books" / "reads.csv")
    favoured = []
    for reader in reads["reader"].unique().sort()[::20]:
        own = reads.filter(pl.col("reader") == reader)
        liked = Counter(
            shelf for sku in own.filter(pl.col("stars") >= 8)["sku"] for shelf in table[sku][1]
        )
        answer = books.get("/v1/users:recommendations", params={"external_user_id": reader}).json()
        assert answer["strategy"] == "known_user"
        assert len(answer["items"]) == 10
        assert not {item["external_id"] for item in answer["items"]} & {*own["sku"]}
        assert all(1 <= item["predicted_rating"] <= 10 for item in answer["items"])
        shelf = max(liked, key=liked.__getitem__)
        favoured += [shelf in item["genres"] for item in answer["items"]]
    assert sum(favoured) / len(favoured) > 0.6  # about a fifth of all books are on a shelf


def test_the_model_is_of_the_data(
    model: Bundle, table: Mapping[str, tuple[str, list[str], int]]
) -> None:
    assert model.catalogue.external_ids == tuple(sorted(table))
    assert model.features.genres == ("Crime", "Fantasy", "Garden", "History", "Romance", "Science")
    assert model.features.rating_scale == (1.0, 10.0)
    assert model.features.history
    assert (model.features.history.liked, model.features.history.disliked) == (8, 6)


def test_without_ratings_there_is_no_rating_head(stacks: dict[str, Stack]) -> None:
    root = stacks["likes-models"].bundles
    current = read_current(root)
    assert current
    manifest, bundle = read_bundle(root, current.current)
    assert bundle.rating_embeddings is None
    assert not bundle.features.predicts_ratings
    assert not any("rmse" in name for name in manifest.metrics)
    assert manifest.metrics["temporal hybrid ndcg@10"] > manifest.metrics["temporal popular ndcg@10"]


def test_without_ratings_none_are_told(likes: httpx.Client) -> None:
    answer = likes.get("/v1/users:recommendations?external_user_id=ada.adler.1").json()
    assert {item["predicted_rating"] for item in answer["items"]} == {None}
    assert likes.get("/v1/movies:lookup?external_id=GAR-02/1").json()["mean_rating"] is None
    body = {"ratings": [{"external_id": "GAR-02/1", "rating": 5}]}
    refused = likes.post("/v1/recommendations", json=body)
    assert (refused.status_code, refused.json()["detail"]) == (
        422,
        "ratings[0].rating: 5.0, allowed is 1.0",
    )
