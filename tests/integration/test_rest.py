"""The REST API over the real services, against what the bundle itself says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import httpx
import pytest

from conftest import Trained
from integration.oracle import (
    Movie,
    Place,
    as_ratings,
    features_of,
    golden_rater,
    golden_stranger,
    golden_users,
    history_of,
    ids,
    movies_of,
    ranking,
)
from services import Stack
from twotower.bundle import Bundle

FEW, MANY = 1, 15
"""Known users, one with 20 ratings and one with 1,700 of 3,061 movies."""
STRANGER = 424_242
NOWHERE = 2**40
"""A movie id that no catalogue of these tests has."""


def get(client: httpx.Client, path: str, **query: Any) -> Any:
    answer = client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


def post(client: httpx.Client, path: str, body: dict[str, Any]) -> Any:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


def recommend(client: httpx.Client, **body: Any) -> Any:
    return post(client, "/v1/recommendations", body)


def check_items(items: list[dict[str, Any]], expected: list[Place]) -> None:
    """The items are these, in this order, and each is described as in the catalogue."""
    assert [item["movie_id"] for item in items] == ids(expected)
    for item, place in zip(items, expected, strict=True):
        assert item == {
            "movie_id": place.movie.movie_id,
            "title": place.movie.title,
            "year": place.movie.year,
            "genres": list(place.movie.genres),
            "predicted_rating": pytest.approx(place.predicted_rating, abs=0.0051),
            "score": pytest.approx(place.score, abs=6e-7),
        }


@pytest.mark.parametrize("user_id", [FEW, MANY])
@pytest.mark.parametrize("k", [1, 10, 100])
def test_a_known_user(
    client: httpx.Client, trained: Trained, model: Bundle, user_id: int, k: int
) -> None:
    answer = recommend(client, user_id=user_id, k=k)
    rated = history_of(model, user_id)
    check_items(
        answer.pop("items"), ranking(model, golden_users(model)[user_id].retrieval, without=rated)[:k]
    )
    assert answer == {
        "model_version": trained.first,
        "strategy": "known_user",
        "ignored_ratings": 0,
        "shortfall": None,
    }


def test_ten_movies_unless_told_otherwise(client: httpx.Client, model: Bundle) -> None:
    for user_id, golden in golden_users(model).items():
        items = recommend(client, user_id=user_id)["items"]
        assert tuple(item["movie_id"] for item in items) == golden.top_movie_ids


def test_equal_scores_come_by_ascending_id(client: httpx.Client, model: Bundle) -> None:
    user = golden_users(model)[FEW]
    places = ranking(model, user.retrieval)
    ties = [place for place, after in pairwise(places) if place.score == after.score]
    assert ties, "the model has no two movies of equal score: this test shows nothing"
    above = ids(place for place in places if place.score > ties[0].score)
    answer = recommend(client, user_id=FEW, k=2, exclude_rated=False, exclude_movie_ids=above)
    check_items(answer["items"], places[len(above) :][:2])


def test_rated_movies_may_stay(client: httpx.Client, model: Bundle) -> None:
    expected = ranking(model, golden_users(model)[MANY].retrieval)[:100]
    assert set(ids(expected)) & set(history_of(model, MANY)), "none of the best was rated"
    check_items(recommend(client, user_id=MANY, k=100, exclude_rated=False)["items"], expected)


def test_more_movies_may_be_left_out(client: httpx.Client, model: Bundle) -> None:
    places = ranking(model, golden_users(model)[FEW].retrieval, without=history_of(model, FEW))
    answer = recommend(client, user_id=FEW, exclude_movie_ids=[*ids(places[:20:2]), NOWHERE])
    check_items(answer["items"], places[1:20:2])


FILTERS: dict[str, tuple[dict[str, Any], Callable[[Movie], bool]]] = {
    "any": ({"genres_any": ["Film-Noir", "War"]}, lambda m: bool({"Film-Noir", "War"} & {*m.genres})),
    "all": ({"genres_all": ["Comedy", "Crime"]}, lambda m: {"Comedy", "Crime"} <= {*m.genres}),
    "none": ({"genres_none": ["Drama", "Comedy"]}, lambda m: not {"Drama", "Comedy"} & {*m.genres}),
    "from": ({"year_min": 2010}, lambda m: m.year is not None and m.year >= 2010),
    "until": ({"year_max": 1950}, lambda m: m.year is not None and m.year <= 1950),
    "one year": ({"year_min": 1999, "year_max": 1999}, lambda m: m.year == 1999),
    "nothing": ({}, lambda _: True),
    "together": (
        {"genres_any": ["Action", "Sci-Fi"], "genres_none": ["Drama"], "year_min": 1990},
        lambda m: (
            bool({"Action", "Sci-Fi"} & {*m.genres})
            and "Drama" not in m.genres
            and m.year is not None
            and m.year >= 1990
        ),
    ),
}


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter(client: httpx.Client, model: Bundle, name: str) -> None:
    condition, passing = FILTERS[name]
    rated = history_of(model, FEW)
    expected = ranking(model, golden_users(model)[FEW].retrieval, without=rated, passing=passing)[:10]
    assert len(expected) == 10
    check_items(recommend(client, user_id=FEW, filter=condition)["items"], expected)


def test_inline_ratings(client: httpx.Client, model: Bundle) -> None:
    rater = golden_rater(model)
    assert rater.ratings
    answer = recommend(client, ratings=as_ratings(rater.ratings), k=100)
    assert answer["strategy"] == "inline_ratings"
    check_items(answer["items"], ranking(model, rater.retrieval, without=rater.excluded_movie_ids)[:100])


def test_a_history_given_inline_counts_as_the_one_stored(client: httpx.Client, model: Bundle) -> None:
    stored = recommend(client, user_id=FEW)
    given = recommend(client, ratings=as_ratings(history_of(model, FEW).items()))
    assert given == {**stored, "strategy": "inline_ratings"}


def test_ratings_stand_in_for_the_history_of_their_user(client: httpx.Client, model: Bundle) -> None:
    ratings = as_ratings(golden_rater(model).ratings or ())
    answer = recommend(client, user_id=MANY, ratings=ratings)
    assert answer == recommend(client, ratings=ratings)
    assert answer != recommend(client, user_id=MANY)


def test_an_unknown_user_who_gives_ratings_is_answered_by_them(client: httpx.Client) -> None:
    ratings = as_ratings([(1, 5.0), (6, 1.0)])
    answer = recommend(client, user_id=STRANGER, ratings=ratings)
    assert answer == recommend(client, ratings=ratings)
    assert answer["strategy"] == "inline_ratings"
    assert len(answer["items"]) == 10
    assert not {item["movie_id"] for item in answer["items"]} & {1, 6}


def test_the_time_of_ratings_and_of_the_request_may_be_given(
    client: httpx.Client, model: Bundle
) -> None:
    ratings = as_ratings(golden_rater(model).ratings or ())
    timed = [{**rating, "timestamp": 10**9 + place} for place, rating in enumerate(ratings)]
    untimed = recommend(client, ratings=ratings)
    assert recommend(client, ratings=timed, as_of=10**9 + 100) == untimed


def test_unknown_movies_are_ignored_and_counted(client: httpx.Client, model: Bundle) -> None:
    ratings = as_ratings(golden_rater(model).ratings or ())
    more = as_ratings([(NOWHERE, 1.0), (NOWHERE + 1, 5.0)])
    answer = recommend(client, ratings=[more[0], *ratings, more[1]])
    assert answer == {**recommend(client, ratings=ratings), "ignored_ratings": 2}


def test_nothing_but_unknown_movies_is_a_cold_start(client: httpx.Client) -> None:
    answer = recommend(client, ratings=as_ratings([(NOWHERE, 1.0), (NOWHERE + 1, 5.0)]))
    assert answer == {**recommend(client, ratings=[]), "ignored_ratings": 2}


@pytest.mark.parametrize("user", [{"ratings": []}, {"user_id": STRANGER}, {"user_id": 2**63 - 1}])
def test_a_cold_start(client: httpx.Client, model: Bundle, user: dict[str, Any]) -> None:
    answer = recommend(client, **user)
    check_items(answer["items"], ranking(model, golden_stranger(model).retrieval)[:10])
    assert answer["strategy"] == "cold_start"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/recommendations", {"user_id": STRANGER}),
        ("GET", f"/v1/users/{STRANGER}/recommendations", None),
    ],
)
def test_an_unknown_user_is_not_found_where_that_is_asked_for(
    client: httpx.Client, method: str, path: str, body: Any
) -> None:
    answer = client.request(method, path, params={"strict": True}, json=body)
    assert answer.status_code == 404
    problem = answer.json()
    assert problem["type"] == "urn:twotower:problem:user-not-found"
    assert str(STRANGER) in problem["detail"]
    assert problem["errors"][0]["field"] == "user_id"
    lenient = client.request(method, path, params={"strict": False}, json=body)
    assert lenient.json()["strategy"] == "cold_start"


@pytest.mark.parametrize("user_id", [FEW, MANY, 6])
def test_features_count_as_the_ratings_they_sum_up(
    client: httpx.Client, model: Bundle, user_id: int
) -> None:
    features = features_of(model, history_of(model, user_id))
    answer = recommend(client, features=features, k=20)
    assert answer["strategy"] == "features"
    check_items(answer["items"], ranking(model, golden_users(model)[user_id].retrieval)[:20])


@pytest.mark.parametrize("user_id", [FEW, STRANGER])
def test_the_route_of_a_user_is_the_same_question(client: httpx.Client, user_id: int) -> None:
    answer = get(client, f"/v1/users/{user_id}/recommendations", k=7)
    assert len(answer["items"]) == 7
    assert answer == recommend(client, user_id=user_id, k=7)
    assert get(client, f"/v1/users/{user_id}/recommendations") == recommend(client, user_id=user_id)


def test_a_batch_is_its_requests_one_by_one(client: httpx.Client, model: Bundle) -> None:
    ratings = as_ratings(golden_rater(model).ratings or ())
    requests: list[dict[str, Any]] = [
        {"user_id": FEW},
        {"user_id": MANY, "k": 100, "exclude_rated": False},
        {"ratings": ratings, "k": 3, "filter": {"genres_any": ["War"]}},
        {"user_id": STRANGER, "exclude_movie_ids": [1, 2, 3]},
        {"features": features_of(model, history_of(model, FEW))},
        *({"user_id": user_id} for user_id in golden_users(model)),
    ]
    answer = post(client, "/v1/recommendations:batch", {"requests": requests})
    assert answer["results"] == [recommend(client, **request) for request in requests]


def test_a_bad_request_of_a_batch_fails_alone(client: httpx.Client) -> None:
    requests: list[Any] = [
        {"user_id": FEW, "k": 2},
        {"user_id": True},
        {"user_id": FEW, "filter": {"genres_all": ["Opera"]}},
        3,
        {"user_id": MANY, "k": 2},
    ]
    results = post(client, "/v1/recommendations:batch", {"requests": requests})["results"]
    assert [results[0], results[4]] == [recommend(client, **requests[place]) for place in (0, 4)]
    faults = [(problem["status"], problem["errors"][0]["field"]) for problem in results[1:4]]
    assert faults == [(422, "user_id"), (422, "filter.genres_all[0]"), (422, "")]
    assert "true" in results[1]["detail"]
    assert re.search("'Opera'.*Film-Noir", results[2]["detail"])


def test_a_strict_batch_says_which_user_is_unknown(client: httpx.Client) -> None:
    body = {"requests": [{"user_id": STRANGER}, {"user_id": FEW}]}
    answer = client.post("/v1/recommendations:batch", params={"strict": True}, json=body)
    unknown, known = answer.json()["results"]
    assert (answer.status_code, unknown["status"], len(known["items"])) == (200, 404, 10)


@pytest.mark.parametrize("row", [0, 1500])
def test_similar_movies(client: httpx.Client, model: Bundle, row: int) -> None:
    movie_id = int(model.catalogue.movie_ids[row])
    answer = get(client, f"/v1/movies/{movie_id}/similar", k=30)
    expected = ranking(model, model.item_embeddings[row].tolist(), without=[movie_id])[:30]
    assert [item["movie_id"] for item in answer["items"]] == ids(expected)
    assert [item["score"] for item in answer["items"]] == pytest.approx([p.score for p in expected])
    assert answer["shortfall"] is None
    assert len(get(client, f"/v1/movies/{movie_id}/similar")["items"]) == 10


@pytest.mark.parametrize("path", [f"/v1/movies/{NOWHERE}", f"/v1/movies/{NOWHERE}/similar"])
def test_a_movie_that_does_not_exist(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:twotower:problem:movie-not-found"
    assert str(NOWHERE) in answer.json()["detail"]


def test_a_movie(client: httpx.Client, model: Bundle) -> None:
    catalogue = model.catalogue
    for row, movie in list(enumerate(movies_of(model)))[::400]:
        assert get(client, f"/v1/movies/{movie.movie_id}") == {
            **movie._asdict(),
            "genres": list(movie.genres),
            "rating_count": catalogue.rating_counts[row],
            "mean_rating": pytest.approx(catalogue.mean_ratings[row], abs=0.0051),
        }


@pytest.mark.parametrize(
    ("title", "best"),
    [
        ("toy story", "Toy Story"),
        ("TOY STORY", "Toy Story"),
        ("  story   toy ", "Toy Story"),
        ("tóy störy", "Toy Story"),
        ("toy story 2", "Toy Story 2"),
        ("heat", "Heat"),
    ],
)
def test_a_search(client: httpx.Client, title: str, best: str) -> None:
    answer = get(client, "/v1/movies", title=title, limit=3)
    assert answer["items"][0]["title"] == best
    assert len(answer["items"]) <= 3


def test_a_search_finds_every_title_with_all_the_words(client: httpx.Client, model: Bundle) -> None:
    items = get(client, "/v1/movies", title="THE man", limit=100)["items"]
    matching = [m for m in movies_of(model) if all(word in m.title.lower() for word in ("the", "man"))]
    assert sorted(item["movie_id"] for item in items) == sorted(movie.movie_id for movie in matching)
    assert 10 < len(items) < 100
    assert get(client, "/v1/movies", title="the man")["items"] == items[:10]
    assert get(client, "/v1/movies", title="no such title")["items"] == []


def test_predict_answers_as_the_first_version_did(client: httpx.Client, model: Bundle) -> None:
    answer = post(client, "/predict", {"uid": MANY})
    assert answer == {"Recommended": list(golden_users(model)[MANY].top_movie_ids)}
    assert post(client, "/predict", {"uid": MANY, "more": 1}) == answer
    assert len(post(client, "/predict", {"uid": STRANGER})["Recommended"]) == 10


def test_a_filter_too_narrow_is_said(client: httpx.Client, model: Bundle) -> None:
    oldest = min(movie.year for movie in movies_of(model) if movie.year is not None)
    count = sum(movie.year == oldest for movie in movies_of(model))
    assert count < 10
    answer = recommend(client, ratings=[], filter={"year_max": oldest})
    assert {item["year"] for item in answer["items"]} == {oldest}
    assert answer["shortfall"] == {"reason": "filter_too_narrow", "requested": 10, "returned": count}


@pytest.mark.parametrize("left", [0, 1, 3, 9])
def test_an_exhausted_catalogue_is_said(client: httpx.Client, model: Bundle, left: int) -> None:
    places = ranking(model, golden_stranger(model).retrieval)
    kept = places[::300][:left]
    others = sorted(set(ids(places)) - set(ids(kept)))
    answer = recommend(client, ratings=[], exclude_movie_ids=others)
    check_items(answer["items"], kept)
    assert answer["shortfall"] == {"reason": "catalogue_exhausted", "requested": 10, "returned": left}


def test_as_many_as_asked_for_is_no_shortfall(client: httpx.Client, model: Bundle) -> None:
    places = ranking(model, golden_stranger(model).retrieval)
    answer = recommend(client, ratings=[], k=3, exclude_movie_ids=ids(places[:-3]))
    check_items(answer["items"], places[-3:])
    assert answer["shortfall"] is None


def test_a_request_id_is_kept_and_a_bad_one_replaced(client: httpx.Client) -> None:
    kept = client.get("/healthz", headers={"x-request-id": "order-66.a:b_c"})
    assert kept.headers["x-request-id"] == "order-66.a:b_c"
    for unfit in ("a b", "x" * 65, "é".encode(), ""):
        answer = client.get("/healthz", headers={"x-request-id": unfit})
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_alive_and_ready(client: httpx.Client, stack: Stack) -> None:
    assert get(client, "/healthz") == {"status": "alive"}
    ready = get(client, "/readyz")
    assert ready["status"] == "ready"
    assert ready["model_version"] == recommend(client, user_id=FEW)["model_version"]
    assert all(service.is_serving() for service in (stack.user_tower, stack.retrieval))


def test_every_process_counts_its_requests(client: httpx.Client, stack: Stack) -> None:
    version = recommend(client, user_id=FEW)["model_version"]

    def counts() -> list[float]:
        return [
            stack.gateway.metric(
                "twotower_requests_total", method="POST /v1/recommendations", code="200"
            ),
            stack.gateway.metric("twotower_stage_seconds_count", stage="embed"),
            stack.gateway.metric("twotower_batch_size_sum", method="BatchRetrieveMovies"),
            stack.user_tower.metric("twotower_requests_total", method="BatchEmbedUsers", code="OK"),
            stack.user_tower.metric("twotower_stage_seconds_count", stage="embed"),
            stack.retrieval.metric("twotower_requests_total", method="BatchRetrieveMovies", code="OK"),
            stack.retrieval.metric("twotower_batch_size_sum", method="BatchRetrieveMovies"),
        ]

    before = counts()
    for _ in range(3):
        recommend(client, user_id=FEW)
    assert [after - count for after, count in zip(counts(), before, strict=True)] == [3] * 7
    for service in (stack.user_tower, stack.retrieval):
        assert service.metric("twotower_model", model_version=version, state="preferred") == 1


def test_metrics_are_by_route_not_by_path(client: httpx.Client, stack: Stack) -> None:
    client.get("/v1/movies/1")
    client.get("/no/such/path")
    text = client.get("/metrics").text
    assert 'method="GET /v1/movies/{movie_id}"' in text
    assert "no/such/path" not in text
    assert stack.gateway.metric("twotower_requests_total", method="GET none", code="404") >= 1


def nodes(document: Any) -> Iterator[dict[str, Any]]:
    """Every object of a JSON document."""
    if isinstance(document, dict):
        yield document
        document = list(document.values())
    if isinstance(document, list):
        for part in document:
            yield from nodes(part)


def test_the_api_describes_itself(client: httpx.Client) -> None:
    spec = get(client, "/openapi.json")
    page = client.get("/docs")
    assert (page.status_code, "/openapi.json" in page.text) == (200, True)
    assert spec["openapi"].startswith("3.1")
    assert {*spec["paths"]} == {
        "/v1/recommendations",
        "/v1/recommendations:batch",
        "/v1/users/{user_id}/recommendations",
        "/v1/users:recommendations",
        "/v1/movies",
        "/v1/movies:lookup",
        "/v1/movies:similar",
        "/v1/movies/{movie_id}",
        "/v1/movies/{movie_id}/similar",
        "/predict",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    references = [node["$ref"] for node in nodes(spec) if "$ref" in node]
    assert len(references) > 10
    for reference in references:
        part = spec
        for key in reference.removeprefix("#/").split("/"):
            part = part[key]
        assert part


def test_every_example_works(client: httpx.Client) -> None:
    spec = get(client, "/openapi.json")
    examples = [
        (path, example["value"])
        for path, operations in spec["paths"].items()
        for operation in operations.values()
        for media in operation.get("requestBody", {}).get("content", {}).values()
        for name, example in media.get("examples", {}).items()
        if not name.startswith("external")  # which this model does not have
    ]
    assert {path for path, _ in examples} == {
        "/v1/recommendations",
        "/v1/recommendations:batch",
        "/predict",
    }
    for path, body in examples:
        answer = post(client, path, body)
        (found,) = (answer[name] for name in ("items", "results", "Recommended") if name in answer)
        assert found, json.dumps(body)


def test_every_problem_is_described(client: httpx.Client) -> None:
    responses = get(client, "/openapi.json")["paths"]["/v1/recommendations"]["post"]["responses"]
    assert {*responses} == {"200", "400", "404", "408", "413", "415", "422", "502", "503", "504"}
    for status, response in responses.items():
        expected = "application/json" if status == "200" else "application/problem+json"
        assert [*response["content"]] == [expected]
