from __future__ import annotations

import csv
import io
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from hypothesis import example, given
from hypothesis import strategies as st

from builders import LAW, make_bundle
from training.dataset import read_dataset
from training.export import _external_ids
from training.values import MISSING
from twotower.bundle import Bundle
from twotower.external import ExternalIds, Names

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
"""Any that UTF-8 has."""
ODD = ["\x00", '"', "'", "a\nb", "a\r\nb", "\u2028", ",", "|", "007", "1", "1.0", "é", "e\u0301", "🎬"]


@LAW
@given(st.lists(TEXTS, unique=True, min_size=1, max_size=30))
@example(ODD)
@example(["x" * 200_000, "x" * 200_001])
def test_a_name_leads_to_its_number_and_back(texts: list[str]) -> None:
    names = ExternalIds.read(ExternalIds(movies=tuple(texts)).write()).movies
    assert names is not None
    ids = np.arange(len(texts)) * 3
    found = Names("movies", ids, names)
    assert [names[(found.find(text, "") or 0) // 3] for text in texts] == texts


@LAW
@given(st.lists(TEXTS, unique=True, min_size=12, max_size=12))
def test_a_bundle_gives_names_back(texts: list[str]) -> None:
    bundle = make_bundle()
    catalogue = replace(bundle.catalogue, external_ids=tuple(texts))
    assert Bundle.parse(
        replace(bundle, catalogue=catalogue).serialise()
    ).catalogue.external_ids == tuple(texts)


def as_read(text: str) -> bool:
    """Whether an id is left as it is: what is missing, or has spaces around it, is not."""
    return text not in MISSING and text == pl.Series([text]).str.strip_chars()[0]


@LAW
@given(st.lists(TEXTS.filter(as_read), unique=True, min_size=2, max_size=8))
@example([text for text in ODD if as_read(text)])
@example(["x" * 200_000, "y"])
def test_ids_of_a_file_come_out_of_it_as_they_are(texts: list[str]) -> None:
    texts = [f"x{text}" for text in texts]  # of which none is a number
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "taken.parquet"
        pl.DataFrame({"user_id": texts, "item_id": texts[::-1]}).write_parquet(path)
        dataset = read_dataset(path)
    users, movies = dataset.users, dataset.movies
    assert _external_ids(users["user_id"], users["external_id"]) == tuple(sorted(texts))
    assert set(movies["external_id"]) == set(texts)
    user_of, movie_of = (
        dict(zip(table[number], table["external_id"], strict=True))
        for table, number in ((users, "user_id"), (movies, "movie_id"))
    )
    taken = zip(dataset.ratings["user_id"], dataset.ratings["movie_id"], strict=True)
    assert {(user_of[user], movie_of[movie]) for user, movie in taken} == set(
        zip(texts, texts[::-1], strict=True)
    )


def test_ids_of_a_table_may_have_quotes_separators_and_line_ends() -> None:
    ids = ["a,b", 'a "b" c', "a\nb", "a;b|c", "ä'"]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([["user", "item"], *([each, each] for each in ids)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "taken.csv"
        path.write_text(text.getvalue())
        dataset = read_dataset(path)
    assert set(dataset.users["external_id"]) == set(dataset.movies["external_id"]) == set(ids)
