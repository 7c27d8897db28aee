"""Files that other readers failed on, where they are at hand beside this repository."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.dataset import Dataset, read_dataset
from training.interactions import Interactions
from training.samples import movie_titles

_CASES = Path(__file__).parents[3] / "shared" / "cases"
_NAMES = ("D01", "D03", "D06", "D07", "D10", "D11")


def _case(name: str, tmp_path: Path) -> tuple[Dataset, dict[str, Any]]:
    """A case's data, rated once where it has movies alone, and what is expected of it."""
    if not _CASES.exists():
        pytest.skip("the cases are not here")
    cases = map(json.loads, (_CASES / "cases.jsonl").read_text().splitlines())
    expected = next(case["expected"] for case in cases if case["id"] == name)
    folder = shutil.copytree(_CASES / "files" / name, tmp_path / name)
    if not list(folder.glob("ratings.*")):
        first = (folder / "movies.csv").read_text().splitlines()[1].partition(",")[0]
        (folder / "ratings.csv").write_text(f"userId,movieId,rating,timestamp\n1,{first},4,0\n")
    return read_dataset(folder), expected


@pytest.mark.parametrize("name", _NAMES)
def test_case(name: str, tmp_path: Path) -> None:
    dataset, expected = _case(name, tmp_path)
    ratings, movies = dataset.ratings, dataset.movies.set_index("movie_id")
    full_titles = dict(zip(movies.index, movie_titles(dataset.movies), strict=True))
    years = movies["year"].astype(object).where(movies["year"].notna(), None)
    dropped = [finding for finding in dataset.findings if finding.deed == "dropped"]

    for movie in expected.get("movies", []):
        row = movies.loc[movie["movieId"]]
        assert full_titles[movie["movieId"]] == movie["title"]
        assert (list(row["genres"]), row["year"]) == (movie["genres"], movie["year"])
    assert len(movies) == expected.get("n_movies", len(movies))
    for movie_id, year in expected.get("year_by_movie", {}).items():
        assert years[int(movie_id)] in (year if isinstance(year, list) else [year])
    for movie_id, title in expected.get("title_by_movie", {}).items():
        assert full_titles[int(movie_id)] == title
    assert len(ratings) == expected.get("ratings_rows", len(ratings))
    if "ratings" in expected:
        kept = ratings[["user_id", "movie_id", "rating"]].itertuples(index=False, name=None)
        assert list(kept) == [tuple(row) for row in expected["ratings"]]
    if "rejected_lines" in expected:
        assert sum(finding.count for finding in dropped) == len(expected["rejected_lines"])
        shown = [line for finding in dropped for line, _ in finding.examples]
        assert shown == expected["rejected_lines"][: len(shown)]
    if "duplicates_dropped" in expected:
        (finding,) = dropped
        assert finding.count == expected["duplicates_dropped"]
    if "first_event_utc" in expected:
        first = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ratings["timestamp"].min()))
        assert first == expected["first_event_utc"]
        assert any("milliseconds" in finding.what for finding in dataset.findings)


def test_no_pair_is_in_both_parts(tmp_path: Path) -> None:
    dataset, _ = _case("D07", tmp_path)
    interactions = Interactions.of(dataset)
    pairs = interactions.user_rows * interactions.movies + interactions.movie_rows
    assert len(np.unique(pairs)) == len(pairs)
