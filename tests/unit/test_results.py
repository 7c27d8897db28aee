"""Results are the means they say, and differences are of the same users."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from training.evaluate import MRR, NDCG, RECALL, Judged
from training.metrics import (
    Interval,
    paired_mae_difference,
    paired_mean_difference,
    paired_rmse_difference,
)
from training.results import (
    ALL_MOVIES,
    COVERAGE,
    LIKED_AFTERWARDS,
    LOWER_IS_BETTER,
    MAE,
    MEASURES,
    NOVELTY,
    RMSE,
    SECONDS,
    WITH_INTERVAL,
    Results,
    Run,
)

_MOVIES = 10
_NAN = math.nan


def _judged(
    users: Sequence[tuple[Any, ...]] = (),
    likes: Sequence[tuple[Any, ...]] = (),
    shown: Sequence[tuple[Any, ...]] = (),
    ratings: Sequence[tuple[Any, ...]] = (),
    seconds: float = 1.0,
) -> Judged:
    return Judged(
        users=pd.DataFrame(users, columns=["user_row", "history", NDCG, RECALL, MRR, "group"]),
        likes=pd.DataFrame(likes, columns=["movie_row", "popularity", "found"]),
        shown=pd.DataFrame(shown, columns=["movie_row", "surprise"]),
        ratings=pd.DataFrame(
            ratings, columns=["user_row", "popularity", "rating", "predicted", "group"]
        ),
        train_seconds=seconds,
    )


_POPULAR = _judged(
    users=[
        (7, 0, 0.2, 0.3, 1.0, "soon"),
        (2, 29, 0.4, 0.1, 0.5, "late"),
        (5, 30, _NAN, _NAN, _NAN, "late"),
        (4, 300, 0.0, 0.0, 0.0, "soon"),
    ],
    likes=[(0, 60, True), (5, 0, False), (1, 4, False)],
    shown=[(0, 1.0), (1, 2.0), (0, 1.0)],
)
_OWN = (
    _judged(
        users=[
            (4, 300, 0.3, 0.2, 0.2, "soon"),
            (2, 29, 0.6, 0.5, 0.5, "late"),
            (5, 30, _NAN, _NAN, _NAN, "late"),
            (7, 0, 0.4, 0.3, 1.0, "soon"),
        ],
        likes=[(0, 60, True), (5, 0, True), (1, 4, False)],
        shown=[(0, 1.0), (1, 2.0), (2, 2.0), (3, 5.0)],
        ratings=[(7, 0, 3.0, 4.0, "soon"), (7, 5, 3.0, 1.0, "soon"), (2, 60, 4.0, 4.0, "late")],
        seconds=4.0,
    ),
    _judged(
        users=[
            (7, 0, 0.2, 0.1, 0.0, "soon"),
            (2, 29, 0.8, 0.5, 0.5, "late"),
            (4, 300, 0.1, 0.0, 0.4, "soon"),
            (5, 30, _NAN, _NAN, _NAN, "late"),
        ],
        likes=[(0, 60, False), (5, 0, True), (1, 4, False)],
        shown=[(0, 1.0), (1, 3.0)],
        ratings=[(7, 0, 3.0, 3.0, "soon"), (7, 5, 3.0, 3.0, "soon"), (2, 60, 4.0, 2.0, "late")],
        seconds=6.0,
    ),
)
_BIAS = _judged(ratings=[(7, 0, 3.0, 3.0, "soon"), (7, 5, 3.0, 2.0, "soon"), (2, 60, 4.0, 4.0, "late")])


def _cells(table: pd.DataFrame, method: str) -> dict[str, float]:
    """A method's row of a table, without what is empty."""
    return {str(name): value for name, value in table.T[method].dropna().items()}


@pytest.fixture(scope="module")
def results() -> Results:
    """A recipe with two seeds beside a ranking and a prediction, and on a second protocol alone."""
    runs = [
        Run("temporal", "popular", 0, _POPULAR),
        Run("temporal", "bias", 0, _BIAS),
        Run("temporal", "own", 0, _OWN[0]),
        Run("temporal", "own", 1, _OWN[1]),
        Run("random", "bias", 0, _BIAS),
        Run("random", "popular", 0, _judged()),
        Run("random", "own", 0, _judged(ratings=_OWN[0].ratings.to_numpy().tolist())),
    ]
    return Results(runs, _MOVIES, {"temporal": "abc", "random": "def"})


def test_rows_are_means_over_the_seeds(results: Results) -> None:
    rows = {(row["protocol"], row["method"]): row for row in results.rows()}
    assert list(rows) == [
        *(("temporal", method) for method in ("popular", "bias", "own")),
        *(("random", method) for method in ("bias", "popular", "own")),
    ]
    own = rows["temporal", "own"]
    assert list(own) == ["protocol", "method", *MEASURES, SECONDS]
    expected = {
        NDCG: (1.3 / 3 + 1.1 / 3) / 2,
        RECALL: (1.0 / 3 + 0.6 / 3) / 2,
        MRR: (1.7 / 3 + 0.9 / 3) / 2,
        COVERAGE: (0.4 + 0.2) / 2,
        NOVELTY: (2.5 + 2.0) / 2,
        RMSE: (math.sqrt(5 / 3) + math.sqrt(4 / 3)) / 2,
        MAE: (1 + 2 / 3) / 2,
        SECONDS: 5.0,
    }
    assert {name: own[name] for name in expected} == pytest.approx(expected)
    popular = rows["temporal", "popular"]
    assert popular[NDCG] == pytest.approx(0.2)
    assert popular[COVERAGE] == pytest.approx(0.2)
    assert popular[NOVELTY] == pytest.approx(4 / 3)


def test_rows_hold_none_where_a_method_was_not_judged(results: Results) -> None:
    rows = {(row["protocol"], row["method"]): row for row in results.rows()}
    assert [rows["temporal", "popular"][measure] for measure in (RMSE, MAE)] == [None, None]
    rankings = (NDCG, RECALL, MRR, COVERAGE, NOVELTY)
    assert [rows["temporal", "bias"][measure] for measure in rankings] == [None] * 5
    assert [rows["random", "popular"][measure] for measure in MEASURES] == [None] * 7
    assert rows["random", "popular"][SECONDS] == 1.0


def test_seeds_are_kept_apart_as_well(results: Results) -> None:
    by_seed = results.by_seed.reset_index()
    own = by_seed[(by_seed["protocol"] == "temporal") & (by_seed["method"] == "own")]
    assert own["seed"].tolist() == [0, 1]
    assert own[NDCG].tolist() == pytest.approx([1.3 / 3, 1.1 / 3])
    assert own[COVERAGE].tolist() == [0.4, 0.2]
    assert own[RMSE].tolist() == pytest.approx([math.sqrt(5 / 3), math.sqrt(4 / 3)])


def test_a_protocol_has_what_was_judged_on_it_only(results: Results) -> None:
    assert results.protocols == ["temporal", "random"]
    assert results.of_protocol("temporal").index.tolist() == ["popular", "bias", "own"]
    assert results.of_protocol("temporal").columns.tolist() == [*MEASURES, SECONDS]
    assert results.of_protocol("random").index.tolist() == ["bias", "own"]
    assert results.of_protocol("random").columns.tolist() == [RMSE, MAE, SECONDS]


def test_differences_of_rankings_are_paired_by_user(results: Results) -> None:
    """Users 2, 4 and 7, whose order differs from run to run; the one without a measure stays out."""
    found = results.difference("temporal", "own", "popular", NDCG)
    ours, theirs = np.array([0.7, 0.2, 0.3]), np.array([0.4, 0.0, 0.2])
    _check_same(found, paired_mean_difference(ours, theirs))
    assert found
    assert found.difference == pytest.approx(0.2)
    assert [found.low, found.high] == pytest.approx([0.1, 0.3])
    found = results.difference("temporal", "own", "popular", MRR)
    _check_same(found, paired_mean_difference(np.array([0.5, 0.3, 0.5]), np.array([0.5, 0.0, 1.0])))


def test_differences_of_errors_are_paired_by_rating_and_resampled_by_user(results: Results) -> None:
    found = results.difference("temporal", "own", "bias", RMSE)
    ours, theirs = np.array([[1.0, 0], [4, 0], [0, 4]]), np.array([0.0, 1.0, 0.0])
    _check_same(found, paired_rmse_difference(ours, theirs, np.array([7, 7, 2])))
    assert found
    mean_of_seeds = (math.sqrt(5 / 3) + math.sqrt(4 / 3)) / 2
    assert found.difference == pytest.approx(mean_of_seeds - math.sqrt(1 / 3))


def test_a_measure_itself_has_an_interval(results: Results) -> None:
    found = results.interval("temporal", "own", NDCG)
    _check_same(found, paired_mean_difference(np.array([0.7, 0.2, 0.3]), np.zeros(3)))
    found = results.interval("temporal", "bias", RMSE)
    squares = np.array([0.0, 1.0, 0.0])
    _check_same(found, paired_rmse_difference(squares, np.zeros(3), np.array([7, 7, 2])))
    found = results.interval("temporal", "own", MAE)
    errors = np.array([[1.0, 0], [2, 0], [0, 2]])
    _check_same(found, paired_mae_difference(errors, np.zeros((3, 2)), np.array([7, 7, 2])))


def _check_same(found: Interval | None, expected: Interval) -> None:
    assert found is not None
    assert [found.difference, found.low, found.high] == pytest.approx(
        [expected.difference, expected.low, expected.high]
    )


def test_what_was_not_judged_has_no_difference(results: Results) -> None:
    for protocol, ours, theirs, measure in (
        ("temporal", "own", "bias", NDCG),
        ("temporal", "bias", "own", NDCG),
        ("temporal", "own", "popular", RMSE),
        ("random", "own", "popular", RMSE),
        ("random", "own", "bias", NDCG),
        ("temporal", "own", "nobody", NDCG),
        ("cold-user", "own", "bias", RMSE),
    ):
        assert results.difference(protocol, ours, theirs, measure) is None
    assert results.interval("temporal", "bias", NDCG) is None
    assert results.interval("random", "own", NDCG) is None


def test_ndcg_is_sliced_by_what_was_told(results: Results) -> None:
    table = results.ndcg_by_history("temporal")
    names = ["0 to 29", "30 to 59", "60 to 119", "120 to 299", "300 or more"]
    assert table.columns.tolist() == names
    assert _cells(table, "own") == pytest.approx({"0 to 29": 2.0 / 4, "300 or more": 0.2})
    assert _cells(table, "popular") == pytest.approx({"0 to 29": 0.3, "300 or more": 0})


@pytest.mark.parametrize(
    ("history", "name"),
    [
        *((told, "0 to 29") for told in (0, 29)),
        *((told, "30 to 59") for told in (30, 59)),
        *((told, "60 to 119") for told in (60, 119)),
        *((told, "120 to 299") for told in (120, 299)),
        *((told, "300 or more") for told in (300, 5000)),
    ],
)
def test_slices_by_what_was_told_have_no_gap(history: int, name: str) -> None:
    run = Run("temporal", "own", 0, _judged(users=[(0, history, 0.5, 0.5, 0.5, "soon")]))
    table = Results([run], _MOVIES, {}).ndcg_by_history("temporal")
    assert _cells(table, "own") == {name: 0.5}


@pytest.mark.parametrize(
    ("popularity", "name"),
    [
        (0, "0"),
        *((count, "1 to 4") for count in (1, 4)),
        *((count, "5 to 19") for count in (5, 19)),
        *((count, "20 to 59") for count in (20, 59)),
        *((count, "60 or more") for count in (60, 5000)),
    ],
)
def test_slices_by_popularity_have_no_gap(popularity: int, name: str) -> None:
    judged = _judged(likes=[(0, popularity, True)], ratings=[(0, popularity, 3.0, 5.0, "soon")])
    results = Results([Run("temporal", "own", 0, judged)], _MOVIES, {})
    for table, value in (
        (results.recall_by_popularity("temporal"), 1.0),
        (results.rmse_by_popularity("temporal"), 2.0),
    ):
        assert table.columns.tolist() == ["0", "1 to 4", "5 to 19", "20 to 59", "60 or more"]
        assert _cells(table, "own") == {name: value}


def test_recall_and_error_are_sliced_by_popularity(results: Results) -> None:
    recalled = results.recall_by_popularity("temporal")
    assert _cells(recalled, "popular") == {"0": 0, "1 to 4": 0, "60 or more": 1}
    assert _cells(recalled, "own") == {"0": 1, "1 to 4": 0, "60 or more": 0.5}
    errors = _cells(results.rmse_by_popularity("temporal"), "own")
    rare, common = math.sqrt(0.5), math.sqrt(2)
    assert errors == pytest.approx({"0": rare, "5 to 19": common, "60 or more": common})
    assert "own" in results.rmse_by_popularity("random").index


def test_slices_by_what_was_told_have_intervals(results: Results) -> None:
    found = results.ndcg_intervals_by_history("temporal")
    _check_same(found["own", "0 to 29"], paired_mean_difference(np.array([0.7, 0.3]), np.zeros(2)))
    means = results.ndcg_by_history("temporal")
    for (method, length), interval in found.items():
        assert interval.difference == pytest.approx(means[length][method])
    assert found.keys() == {
        (method, length) for method in ("own", "popular") for length in ("0 to 29", "300 or more")
    }
    assert results.ndcg_intervals_by_history("random") == {}


def test_what_is_recommended_is_spread_over_popularity(results: Results) -> None:
    counts = np.array([250, 199, 60, 59, 20, 19, 5, 4, 1, 0])
    shares = results.popularity_shares("temporal", counts)
    assert shares.index.tolist() == ["popular", "own", LIKED_AFTERWARDS, ALL_MOVIES]
    names = ["0", "1 to 4", "5 to 19", "20 to 59", "60 to 199", "200 or more"]
    assert shares.columns.tolist() == names
    assert shares.T["popular"].tolist() == pytest.approx([0, 0, 0, 0, 1 / 3, 2 / 3])
    assert shares.T["own"].tolist() == pytest.approx([0, 0, 0, 1 / 6, 3 / 6, 2 / 6])
    assert shares.T[LIKED_AFTERWARDS].tolist() == pytest.approx([0, 0, 1 / 3, 0, 1 / 3, 1 / 3])
    assert shares.T[ALL_MOVIES].tolist() == pytest.approx([0.1, 0.2, 0.2, 0.2, 0.2, 0.1])
    assert results.popularity_shares("random", counts).empty


def test_predictions_are_binned_by_what_was_predicted() -> None:
    predicted_and_true = [(0.5, 1.0), (0.9, 2.0), (1.0, 0.5), (2.75, 3.0), (5.0, 5.0), (4.9, 3.0)]
    judged = _judged(ratings=[(0, 1, true, predicted, "soon") for predicted, true in predicted_and_true])
    runs = [Run("temporal", name, 0, judged) for name in ("own", "bias")]
    table = Results(runs, _MOVIES, {}).calibration("temporal")
    assert table["method"].tolist() == ["own"] * 4 + ["bias"] * 4
    own = table[table["method"] == "own"]
    assert own["bin"].tolist() == [0, 1, 5, 9]
    assert own["predicted"].tolist() == pytest.approx([0.7, 1.0, 2.75, 4.95])
    assert own["rating"].tolist() == pytest.approx([1.5, 0.5, 3.0, 4.0])
    assert own["count"].tolist() == [2, 1, 1, 2]


def test_constant_ratings_are_in_one_bin(results: Results) -> None:
    judged = _judged(ratings=[(0, 1, 4.0, 4.0, "soon"), (1, 1, 4.0, 4.0, "soon")])
    table = Results([Run("temporal", "own", 0, judged)], _MOVIES, {}).calibration("temporal")
    assert table["count"].tolist() == [2]
    ranked_only = Results([Run("temporal", "popular", 0, _POPULAR)], _MOVIES, {})
    assert ranked_only.calibration("temporal").empty
    assert results.calibration("cold-user").empty


def test_the_best_is_the_least_of_errors_and_the_most_of_others(results: Results) -> None:
    best = results.best("temporal")
    assert list(best) == [NDCG, RECALL, MRR, COVERAGE, RMSE, MAE]
    assert best[NDCG] == pytest.approx(0.4)
    assert best[RMSE] == pytest.approx(math.sqrt(1 / 3))


def test_groups_are_judged_apart(results: Results) -> None:
    ranked = results.ndcg_by_group("temporal")
    assert _cells(ranked, "popular") == pytest.approx({"soon": 0.1, "late": 0.4})
    assert _cells(ranked, "own") == pytest.approx({"soon": 0.25, "late": 0.7})
    rated = results.rmse_by_group("temporal")
    assert _cells(rated, "own") == pytest.approx({"soon": math.sqrt(1.25), "late": math.sqrt(2)})
    assert _cells(rated, "bias") == pytest.approx({"soon": math.sqrt(0.5), "late": 0})


def test_a_manifest_keeps_measures_by_name_with_margins_of_the_recipe(results: Results) -> None:
    metrics = results.metrics("own")
    by_row = {
        f"{row['protocol']} {row['method']} {measure}": round(row[measure], 6)
        for row in results.rows()
        for measure in MEASURES
        if row[measure] is not None
    }
    margins = {name: value for name, value in metrics.items() if name.endswith("margin")}
    assert metrics == by_row | margins
    assert metrics["temporal popular ndcg@10"] == 0.2
    assert "temporal popular rmse" not in metrics
    expected = {}
    for protocol, measure in (("temporal", NDCG), ("temporal", RMSE), ("random", RMSE)):
        interval = results.interval(protocol, "own", measure)
        assert interval
        expected[f"{protocol} own {measure} margin"] = round(interval.margin, 6)
    assert margins == expected
    assert margins["temporal own ndcg@10 margin"] == pytest.approx(0.25)


def test_a_document_holds_rows_differences_and_digests(results: Results) -> None:
    document = json.loads(results.to_json("own"))
    assert document.keys() == {"rows", "differences", "split_digests"}
    assert document["rows"] == json.loads(json.dumps(results.rows()))
    assert document["split_digests"] == {"temporal": "abc", "random": "def"}
    differences = {
        (line["protocol"], line["against"], line["measure"]): line for line in document["differences"]
    }
    assert differences.keys() == {
        *(("temporal", "popular", measure) for measure in (NDCG, RECALL, MRR)),
        ("temporal", "bias", RMSE),
        ("random", "bias", RMSE),
    }
    for (protocol, other, measure), line in differences.items():
        found = results.difference(protocol, "own", other, measure)
        assert found
        assert line == {
            "protocol": protocol,
            "method": "own",
            "against": other,
            "measure": measure,
            "difference": found.difference,
            "low": found.low,
            "high": found.high,
        }


def test_a_difference_is_that_of_the_rows() -> None:
    generator = np.random.default_rng(0)
    runs = []
    for method, seed in (("own", 0), ("own", 1), ("other", 0)):
        users = [(user, 10, *generator.random(3), "soon") for user in generator.permutation(30).tolist()]
        ratings = [(place // 4, 1, 3.0, generator.uniform(1, 5), "soon") for place in range(100)]
        runs.append(Run("temporal", method, seed, _judged(users=users, ratings=ratings)))
    results = Results(runs, _MOVIES, {})
    ours, theirs = results.rows()
    for measure in WITH_INTERVAL:
        found = results.difference("temporal", "own", "other", measure)
        assert found
        assert found.difference == pytest.approx(ours[measure] - theirs[measure])
        alone = results.interval("temporal", "own", measure)
        assert alone
        assert alone.difference == pytest.approx(ours[measure])


def test_a_method_that_answered_nothing_breaks_nothing() -> None:
    results = Results([Run("temporal", "own", 0, _judged())], _MOVIES, {})
    (row,) = results.rows()
    assert [row[measure] for measure in MEASURES] == [None] * 7
    assert results.metrics("own") == {}
    assert json.loads(results.to_json("own"))["differences"] == []
    for table in (
        results.ndcg_by_history("temporal"),
        results.recall_by_popularity("temporal"),
        results.rmse_by_popularity("temporal"),
        results.ndcg_by_group("temporal"),
        results.rmse_by_group("temporal"),
    ):
        assert table.empty


def test_only_errors_are_better_when_lower() -> None:
    assert {RMSE, MAE} == LOWER_IS_BETTER
