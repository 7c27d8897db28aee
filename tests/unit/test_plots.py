"""A report is one file that loads nothing, shows what was measured, and is fooled by no text in it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bokeh.models import ColumnDataSource
from bokeh.models.renderers import GlyphRenderer

from builders import make_dataset, unit_rows
from services import ROOT
from training import plots
from training.dataset import Dataset
from training.evaluate import MRR, NDCG, RECALL, Judged
from training.movie_map import to_plane
from training.report import LearningCurve
from training.results import Results, Run
from training.samples import Sample, Suggestion
from training.web_report import Report, render_report

_HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&amp;\"'"
_MOVIES = 6
_CURVES = (
    LearningCurve("own: finding how long to train", "loss", (0.5, 0.4, 0.3), (0.6, 0.45, 0.5)),
    LearningCurve("own: training for evaluation", "loss", (0.5, 0.4), ()),
    LearningCurve("own: training for evaluation", "loss", (0.6, 0.25), ()),
)
_SAMPLES = (
    Sample(
        "User 7, a short history: 3 ratings", ("Heat (1995)", _HOSTILE), (Suggestion(_HOSTILE, 4.256),)
    ),
    Sample("User 9, a long history: 99 ratings", (), (Suggestion("Alien (1979)", None),)),
)


def _judged(
    users: Sequence[tuple[Any, ...]] = (),
    ratings: Sequence[tuple[Any, ...]] = (),
    shown: Sequence[int] = (),
) -> Judged:
    return Judged(
        users=pd.DataFrame(users, columns=["user_row", "history", NDCG, RECALL, MRR, "group"]),
        likes=pd.DataFrame({"movie_row": shown[:1], "popularity": 1, "found": True}),
        shown=pd.DataFrame({"movie_row": shown, "surprise": 1.0}),
        ratings=pd.DataFrame(
            ratings, columns=["user_row", "popularity", "rating", "predicted", "group"]
        ),
        train_seconds=1.0,
    )


def _dataset(title: str = "Heat") -> Dataset:
    movies = pd.DataFrame(
        {
            "movie_id": np.arange(1, _MOVIES + 1),
            "title": [title, "", *(f"Number {row}" for row in range(2, _MOVIES))],
            "year": pd.array([1995, None, *range(2002, 2000 + _MOVIES)], dtype="Int16"),
            "genres": [("Drama",), (), *[("Comedy", "Drama")] * (_MOVIES - 2)],
        }
    )
    ratings = pd.DataFrame(
        {
            "user_id": [1, 1, 1, 2, 2],
            "movie_id": [1, 2, 3, 1, 4],
            "rating": np.array([4, 3, 5, 2, 4.5], dtype=np.float32),
            "timestamp": [1, 2, 3, 4, 5],
        }
    )
    return make_dataset("few & small", "0123456789abcdef" * 4, ratings, movies)


def _results(own: str = "own") -> Results:
    ranked = _judged(
        users=[(0, 10, 0.5, 0.25, 1.0, "soon"), (1, 40, 0.1, 0.2, 0.3, "late")], shown=[0, 0, 4, 5]
    )
    rated = [(0, 1, 1.0, 1.5, "soon"), (0, 3, 5.0, 4.5, "soon"), (1, 3, 4.0, 4.4, "late")]
    runs = [
        Run("temporal", "popular", 0, _judged(users=[(0, 10, 0.2, 0.2, 0.5, "soon")], shown=[0, 0])),
        Run("temporal", "bias", 0, _judged(ratings=rated)),
        Run("temporal", own, 0, replace(ranked, ratings=_judged(ratings=rated).ratings)),
        Run("random", own, 0, _judged(ratings=rated[:2])),
    ]
    return Results(runs, _MOVIES, {})


def _report(**changed: Any) -> Report:
    whole = Report(
        recipes=["own"],
        seeds=[0],
        dataset=_dataset(),
        curves=_CURVES,
        results=_results(),
        item_embeddings=unit_rows(np.random.default_rng(0), _MOVIES),
        samples=_SAMPLES,
    )
    return replace(whole, **changed)


def digest() -> str:
    """Of a report on a hostile title."""
    return hashlib.sha256(render_report(_report(dataset=_dataset(_HOSTILE))).encode()).hexdigest()


class _Page(HTMLParser):
    """The elements of a page with their attributes, and the texts that stand in them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self._texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag != "meta":
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and data.strip():
            self._texts.append((self._open[-1], data.strip()))

    def texts(self, *tags: str) -> list[str]:
        return [text for tag, text in self._texts if tag in tags]

    def attributes(self, name: str) -> list[str]:
        return [given[name] for _, given in self.elements if name in given]


@pytest.fixture(scope="module")
def page() -> _Page:
    return _Page(render_report(_report()))


def test_a_report_has_all_its_parts(page: _Page) -> None:
    assert page.texts("h1", "title") == ["own on few & small"] * 2
    assert dict(zip(page.texts("dt"), page.texts("dd"), strict=True)) == {
        "recipe": "own",
        "seed": "0",
        "data": "few & small",
        "ratings": "5",
        "users": "2",
        "movies": "6",
        "data's SHA-256": "0123456789abcdef…",
    }
    assert page.texts("h2") == [
        "What was measured",
        "Rankings by length of history",
        "Predicted and true ratings",
        "How popular what is recommended is",
        "Learning curves",
        "Map of the movies",
        "Sample recommendations",
    ]


def test_every_plot_is_named_and_but_for_the_map_told_in_numbers(page: _Page) -> None:
    drawn = [given for _, given in page.elements if given.get("class") == "plot"]
    assert [given["id"] for given in drawn] == [
        "history-temporal",
        *("calibration-temporal", "calibration-random"),
        "popularity-temporal",
        *("curves-0", "curves-1"),
        "map",
    ]
    assert all(given["role"] == "img" and given["aria-label"] for given in drawn)
    assert len(page.texts("summary")) == len(drawn) - 1
    (items,) = [json.loads(text) for text in page.texts("script") if text.startswith("{")]
    assert list(items) == [given["id"] for given in drawn]


def test_measures_come_with_intervals_and_the_best_is_marked(page: _Page) -> None:
    assert page.texts("strong").count("0.3000") == 1  # NDCG of the recipe
    assert "0.1000 to 0.5000" in page.texts("small")
    assert (
        page.texts("strong").count("0.5000") == 3
    )  # its coverage, and its errors on the other protocol
    assert "1.0" in page.texts("td")
    assert "1.0" not in page.texts("strong")
    assert page.texts("strong").count("0.4690") == 2  # equal errors are both the best
    assert "train_seconds" not in page.texts("th")
    assert "sec" not in page.texts("th")


def test_samples_show_likes_and_predicted_ratings(page: _Page) -> None:
    assert {"User 7, a short history: 3 ratings", "User 9, a long history: 99 ratings"} <= {
        *page.texts("h3")
    }
    assert f"Liked last: Heat (1995); {_HOSTILE}" in page.texts("p")
    assert "Liked last: nothing" in page.texts("p")
    assert "4.26" in page.texts("td")
    assert {_HOSTILE, "Alien (1979)"} <= {*page.texts("td")}


def test_samples_of_data_without_ratings_have_no_column_of_them() -> None:
    sample = Sample("User ada", ("Heat",), (Suggestion("Alien", None),))
    page = _Page(render_report(_report(samples=(sample,), results=None)))
    assert "Alien" in page.texts("td")
    assert "recommended" in page.texts("th")
    assert "predicted" not in page.texts("th")


def test_what_there_is_nothing_of_is_left_out() -> None:
    page = _Page(render_report(Report(recipes=["own"], seeds=[0, 1], dataset=_dataset())))
    assert page.texts("h2") == ["Not evaluated"]
    assert "The data were too few to hold any ratings out" in " ".join(page.texts("p"))
    assert page.texts("script") == []
    page = _Page(render_report(_report(item_embeddings=None, samples=(), curves=())))
    assert page.texts("h2")[-1] == "How popular what is recommended is"
    ratings_only = Results([Run("random", "own", 0, _results()._runs[-1].judged)], _MOVIES, {})
    page = _Page(render_report(_report(results=ratings_only, item_embeddings=None, samples=())))
    assert page.texts("h2") == ["What was measured", "Predicted and true ratings", "Learning curves"]


def test_a_page_loads_nothing(page: _Page) -> None:
    assert not {"link", "img", "iframe", "object", "embed", "base", "form"} & {
        tag for tag, _ in page.elements
    }
    for attribute in ("src", "href", "srcset", "action", "data"):
        assert page.attributes(attribute) == []
    (style,) = page.texts("style")
    assert not re.search(r"url\(|@import|//", style)
    (policy,) = [given["content"] for _, given in page.elements if "http-equiv" in given]
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_a_page_is_small_enough_to_lie_in_every_bundle() -> None:
    assert len(render_report(_report()).encode()) < 1_500_000


def test_no_text_of_the_data_becomes_markup_or_script(page: _Page) -> None:
    hostile = _report(
        recipes=[_HOSTILE],
        dataset=replace(_dataset(_HOSTILE), name=_HOSTILE),
        results=_results(_HOSTILE),
        curves=[LearningCurve(_HOSTILE, _HOSTILE, (0.5,), (0.4,))],
    )
    hostile.dataset.movies["genres"] = [(_HOSTILE,)] * _MOVIES
    attacked = _Page(render_report(hostile))
    assert attacked.texts("title") == [f"{_HOSTILE} on {_HOSTILE}"]
    assert len(attacked.texts("script")) == len(page.texts("script")) == 3
    assert {tag for tag, _ in attacked.elements} == {tag for tag, _ in page.elements}
    assert not {"onerror", "onload", "onclick"} & {
        name for _, given in attacked.elements for name in given
    }
    (text,) = [text for text in attacked.texts("script") if text.startswith("{")]
    assert "<" not in text
    assert f"{_HOSTILE} (1995)" in json.dumps(json.loads(text), ensure_ascii=False).replace('\\"', '"')
    assert _HOSTILE in attacked.attributes("data-series")


def test_the_same_report_has_the_same_bytes() -> None:
    program = "from unit.test_plots import digest; print(digest())"
    of_others = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    ]
    assert {digest(), digest(), *of_others} == {digest()}


def _data(plot: plots.Plot, name: str) -> list[dict[str, Any]]:
    """The columns of every renderer of a name, in the order in which they are drawn."""
    return [
        dict(each.data_source.data)
        for each in plot.figure.renderers
        if isinstance(each, GlyphRenderer)
        and isinstance(each.data_source, ColumnDataSource)
        and each.name == name
    ]


def test_curves_are_drawn_over_each_other_with_a_ring_at_the_best_epoch() -> None:
    plot = plots.learning_curves(_CURVES[:1])
    line, _points, ring = _data(plot, "validation")
    assert line["x"] == [1, 2, 3]
    assert line["y"] == [0.6, 0.45, 0.5]
    assert (ring["x"], ring["y"]) == ([2], [0.45])
    assert list(plot.colours) == ["training", "validation"]
    plot = plots.learning_curves(_CURVES[1:])
    assert [columns["y"] for columns in _data(plot, "training")[::2]] == [
        [0.5, 0.4],
        [0.6, 0.25],
    ]
    assert list(plot.colours) == ["training"]


def test_bars_stand_side_by_side_with_their_intervals() -> None:
    results = _results()
    means, found = results.ndcg_by_history("temporal"), results.ndcg_intervals_by_history("temporal")
    plot = plots.grouped_bars(means, found, {"own": "red", "popular": "blue"}, x="told", y="NDCG")
    bars, whiskers = _data(plot, "own")
    assert bars == whiskers
    assert bars["y"] == [0.5, 0.1]
    assert bars["low"] == [0.5, 0.1]  # of one user each
    assert bars["group"] == ["0 to 29", "30 to 59"]
    (popular, _) = _data(plot, "popular")
    assert popular["y"] == [0.2]
    assert abs(popular["x"][0] - bars["x"][0]) == pytest.approx(0.4)
    assert plot.colours == {"own": "red", "popular": "blue"}


def test_shares_fill_a_bar() -> None:
    shares = _results().popularity_shares("temporal", np.array([250, 3, 2, 1, 0, 0]))
    plot = plots.stacked_bars(shares, x="share")
    drawn = [_data(plot, band)[0] for band in plot.colours]
    assert drawn[0]["y"] == ["popular", "own", "liked afterwards", "all movies"]
    assert drawn[0]["left"] == [0, 0, 0, 0]
    for before, after in pairwise(drawn):
        assert before["right"] == pytest.approx(after["left"])
    assert drawn[-1]["right"] == pytest.approx([1, 1, 1, 1])


def test_a_map_has_a_series_for_each_genre_the_most_common_first() -> None:
    places = np.arange(8, dtype=np.float32).reshape(4, 2)
    points = plots.Points(places, ["A", "B", "B", "B"], ["one", "two", "three", "four"], [9, 8, 7, 6])
    plot = plots.point_map(points)
    assert list(plot.colours) == ["B", "A"]
    ((columns),) = _data(plot, "A")
    assert (columns["x"].tolist(), columns["y"].tolist()) == ([0], [1])
    assert (columns["title"], columns["count"]) == (["one"], [9])


def test_a_plane_keeps_what_varies_most_and_its_signs_do_not_turn() -> None:
    generator = np.random.default_rng(3)
    spread = (generator.normal(size=(50, 4)) * [1, 9, 0.1, 4]).astype(np.float32)
    places, kept = to_plane(spread)
    for axis, column in enumerate((1, 3)):
        assert abs(np.corrcoef(places[:, axis], spread[:, column])[0, 1]) > 0.99
        assert np.abs(places[:, axis]).max() == places[:, axis].max()
    variances = np.sort(spread.var(axis=0))
    assert kept == pytest.approx(variances[-2:].sum() / variances.sum(), abs=0.01)
    assert to_plane(-spread)[0].std(axis=0) == pytest.approx(places.std(axis=0))


@pytest.mark.parametrize("movies", [1, 2, 5])
def test_few_movies_or_all_on_one_point_have_a_map(movies: int) -> None:
    places, kept = to_plane(np.ones((movies, 3), dtype=np.float32))
    assert places.tolist() == [[0, 0]] * movies
    assert kept == 1.0
    few = _dataset()
    few = replace(few, movies=few.movies.head(movies), ratings=few.ratings.head(1))
    report = _report(dataset=few, results=None, item_embeddings=np.eye(movies, dtype=np.float32))
    page = _Page(render_report(report))
    assert "Map of the movies" in page.texts("h2")


def test_the_nearest_of_a_movie_are_shown_beside_it() -> None:
    embeddings = np.array([[1, 0], [0, 1], [0.8, 0.6], [0.6, 0.8], [-1, 0], [0, -1]], dtype=np.float32)
    page = _Page(render_report(_report(item_embeddings=embeddings)))
    nearest = ["Number 2 (2002)", "Number 3 (2003)", "(no title)"]  # by 0.8, 0.6 and 0
    assert " | ".join(nearest) in " | ".join(page.texts("td"))


def test_more_methods_than_colours_are_no_fault() -> None:
    names = [str(number) for number in range(25)]
    assert list(plots.method_colours(names)) == names
    points = plots.Points(np.zeros((25, 2), dtype=np.float32), names, names, [1] * 25)
    assert set(plots.point_map(points).colours) == set(names)
