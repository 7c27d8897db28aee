"""Ids that are no numbers and ratings of 1 to 10, through real services: by name as by number."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from rich.console import Console

from conftest import Trained
from services import Stack, running_stack
from training.report import Reporter
from twotower.bundle import Bundle, read_bundle
from twotower.promotion import promote
from twotower.v1 import embedding_pb2 as pb
from twotower.v1.retrieval_pb2 import (
    FindSimilarMoviesRequest,
    GetMoviesRequest,
    RetrieveMoviesRequest,
)
from twotower.v1.retrieval_pb2_grpc import RetrievalServiceStub
from twotower.v1.user_tower_pb2 import EmbedUserRequest, RatingArrays, UserFeatures
from twotower.v1.user_tower_pb2_grpc import UserTowerServiceStub

ODD = ["é/ü", 'say "ah"', "a,b", "two\nlines", "%2F?&=#", "🎬", "007", "x" * 2_000, "..", "a;b|c"]
ITEMS = sorted([*ODD, *(f"B-{number}" for number in range(30))])
USERS = sorted(["zoë", "o'neil", "a b", "42+", *(f"user/{number}" for number in range(26))])
RECOMMEND = "/v1/recommendations"


@pytest.fixture(scope="module")
def taken() -> dict[str, dict[str, float]]:
    """What each user rated, 1 to 10, by the data's own ids."""
    generator = np.random.default_rng(0)
    return {
        user: {
            str(item): float(generator.integers(1, 11))
            for item in generator.choice(ITEMS, 8, replace=False)
        }
        for user in USERS
    }


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory, trained: Trained, taken: dict[str, dict[str, float]]
) -> Iterator[Stack]:
    from training.pipeline import train  # noqa: PLC0415 - TensorFlow takes seconds to import

    folder = tmp_path_factory.mktemp("named")
    data = folder / "data"
    data.mkdir()
    with (data / "ratings.csv").open("w", newline="") as file:
        rows = [(u, i, r, t) for u, own in taken.items() for t, (i, r) in enumerate(own.items())]
        csv.writer(file, lineterminator="\n").writerows([("user", "item", "rating", "timestamp"), *rows])
    reporter = Reporter(Console(quiet=True))
    manifest = train(data, str(trained.recipe), folder / "bundles", 1, reporter).manifest
    promote(folder / "bundles", manifest.model_version)
    with running_stack(folder / "bundles", folder) as running:
        yield running


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.url, timeout=10) as client:
        yield client


@pytest.fixture(scope="module")
def model(stack: Stack) -> Bundle:
    (path,) = stack.bundles.glob("*/manifest.json")
    return read_bundle(stack.bundles, path.parent.name)[1]


@pytest.fixture(scope="module")
def towers(stack: Stack) -> Iterator[UserTowerServiceStub]:
    with grpc.insecure_channel(stack.user_tower.address) as channel:
        yield UserTowerServiceStub(channel)


@pytest.fixture(scope="module")
def movies(stack: Stack) -> Iterator[RetrievalServiceStub]:
    with grpc.insecure_channel(stack.retrieval.address) as channel:
        yield RetrievalServiceStub(channel)


def post(client: httpx.Client, status: int = 200, **body: Any) -> Any:
    answer = client.post(RECOMMEND, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def number_of(model: Bundle, external_id: str) -> int:
    assert model.catalogue.external_ids
    return int(model.catalogue.movie_ids[model.catalogue.external_ids.index(external_id)])


def test_the_model_knows_what_the_data_call_things(model: Bundle) -> None:
    assert model.catalogue.external_ids == tuple(ITEMS)
    assert model.histories.external_ids == tuple(USERS)
    assert model.features.rating_scale == (1.0, 10.0)


@pytest.mark.parametrize("external_id", ITEMS[::3] + ODD)
def test_an_item_is_looked_up_and_has_its_id_in_every_answer(
    client: httpx.Client, model: Bundle, external_id: str
) -> None:
    by_name = client.get("/v1/movies:lookup", params={"external_id": external_id}).json()
    assert by_name["external_id"] == external_id
    number = number_of(model, external_id)
    assert by_name == client.get(f"/v1/movies/{number}").json()
    near = client.get("/v1/movies:similar", params={"external_id": external_id, "k": 3}).json()
    assert near == client.get(f"/v1/movies/{number}/similar", params={"k": 3}).json()
    for item in near["items"]:
        assert number_of(model, item["external_id"]) == item["movie_id"]
    found = client.get("/v1/movies", params={"title": external_id[:200]}).json()["items"]
    assert external_id in [item["external_id"] for item in found]


@pytest.mark.parametrize("user", ["zoë", "o'neil", "a b", "42+", "user/7"])
def test_a_user_is_answered_alike_by_name_and_by_number(
    client: httpx.Client, model: Bundle, taken: dict[str, dict[str, float]], user: str
) -> None:
    assert model.histories.external_ids
    number = int(model.histories.user_ids[model.histories.external_ids.index(user)])
    by_name = client.get("/v1/users:recommendations", params={"external_user_id": user, "k": 5}).json()
    assert by_name == client.get(f"/v1/users/{number}/recommendations", params={"k": 5}).json()
    assert by_name == post(client, external_user_id=user, k=5) == post(client, user_id=number, k=5)
    assert by_name["strategy"] == "known_user"
    assert not {item["external_id"] for item in by_name["items"]} & taken[user].keys()
    assert all(1 <= item["predicted_rating"] <= 10 for item in by_name["items"])


def test_ratings_name_items_either_way(client: httpx.Client, model: Bundle) -> None:
    stars = dict(zip(ODD, range(1, 11), strict=True))
    named = [{"external_id": item, "rating": rating} for item, rating in stars.items()]
    numbered = [{"movie_id": number_of(model, i), "rating": rating} for i, rating in stars.items()]
    expected = post(client, ratings=numbered, k=5)
    assert expected["strategy"] == "inline_ratings"
    assert post(client, ratings=named, k=5) == expected
    assert post(client, ratings=[*named[:4], *numbered[4:]], k=5) == expected
    assert post(client, external_user_id="zoë", ratings=named, k=5) == expected
    timed = [{**rating, "timestamp": place} for place, rating in enumerate(named)]
    assert post(client, ratings=timed, as_of=10, k=5)["items"] == expected["items"]


def test_unknown_items_are_ignored_and_counted(client: httpx.Client) -> None:
    known = {"external_id": "B-1", "rating": 9}
    unknown = [{"external_id": name, "rating": 3} for name in ("b-1", "B-1 ", "none")]
    expected = post(client, ratings=[known], k=5)
    assert post(client, ratings=[known, *unknown, {"movie_id": 10**9, "rating": 1}], k=5) == {
        **expected,
        "ignored_ratings": 4,
    }
    assert post(client, ratings=unknown)["strategy"] == "cold_start"


def test_items_are_left_out_by_name(client: httpx.Client, model: Bundle) -> None:
    best = [item["external_id"] for item in post(client, external_user_id="zoë", k=5)["items"]]
    left = post(
        client,
        external_user_id="zoë",
        exclude_external_ids=[best[0], "none"],
        exclude_movie_ids=[number_of(model, best[1])],
        k=3,
    )
    assert [item["external_id"] for item in left["items"]] == best[2:]


def test_an_unknown_user_is_a_cold_start_or_not_found(client: httpx.Client) -> None:
    for answer in (
        post(client, external_user_id="nobody"),
        client.get("/v1/users:recommendations?external_user_id=nobody").json(),
    ):
        assert answer["strategy"] == "cold_start"
    for refused in (
        client.post(f"{RECOMMEND}?strict=true", json={"external_user_id": "nobody"}),
        client.get("/v1/users:recommendations?external_user_id=nobody&strict=true"),
    ):
        assert refused.status_code == 404
        assert refused.json()["type"] == "urn:twotower:problem:user-not-found"
        assert refused.json()["errors"][0]["field"] == "external_user_id"


@pytest.mark.parametrize("route", ["lookup", "similar"])
def test_an_unknown_item_is_not_found(client: httpx.Client, route: str) -> None:
    refused = client.get(f"/v1/movies:{route}", params={"external_id": "none" * 100})
    assert refused.status_code == 404
    problem = refused.json()
    assert problem["type"] == "urn:twotower:problem:movie-not-found"
    assert problem["errors"][0]["field"] == "external_id"
    assert "'nonenone" in problem["detail"]
    assert len(problem["detail"]) < 200


@pytest.mark.parametrize("text", ["%ED%A0%80", "%ff", "%C3", "a%00b"])
def test_what_is_no_text_names_nothing(client: httpx.Client, text: str) -> None:
    for route in ("lookup", "similar"):
        assert client.get(f"/v1/movies:{route}?external_id={text}").status_code == 404
    url = f"/v1/users:recommendations?external_user_id={text}"
    assert client.get(url).json()["strategy"] == "cold_start"
    assert client.get(f"{url}&strict=true").status_code == 404


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({"user_id": 1, "external_user_id": "zoë"}, "external_user_id", "Goes not with user_id"),
        (
            {"ratings": [{"movie_id": 1, "external_id": "B-1", "rating": 3}]},
            "ratings[0].movie_id",
            "Goes not with external_id",
        ),
        ({"ratings": [{"rating": 3}]}, "ratings[0].movie_id", "required.*external_id"),
        ({"external_user_id": ""}, "external_user_id", "at least 1 character"),
        ({"external_user_id": 5}, "external_user_id", "valid string"),
        ({"exclude_external_ids": ["B-1", 2]}, "exclude_external_ids[1]", "valid string"),
        (
            {"ratings": [{"external_id": "B-1", "rating": 3}, {"external_id": "B-1", "rating": 4}]},
            "ratings[1].external_id",
            "'B-1' is rated twice",
        ),
        (
            {"ratings": [{"external_id": "what", "rating": 3}, {"external_id": "what", "rating": 3}]},
            "ratings[1].external_id",
            "'what' is rated twice",
        ),
        ({"ratings": [{"external_id": "B-1", "rating": 10.5}]}, "ratings[0].rating", "1.0 to 10.0"),
        ({"ratings": [{"external_id": "what", "rating": 0.5}]}, "ratings[0].rating", "1.0 to 10.0"),
        (
            {"external_user_id": "zoë", "features": {"rating_count": 1, "mean_rating": 5}},
            "features",
            "neither external_user_id nor ratings",
        ),
        ({"features": {"rating_count": 1, "mean_rating": 0}}, "features.mean_rating", "1.0 to 10.0"),
        (
            {"user_id": 1, "exclude_movie_ids": [1] * 60_000, "exclude_external_ids": ["x"] * 50_000},
            "exclude_external_ids",
            "110000 movies",
        ),
    ],
)
def test_what_is_not_allowed_names_its_field(
    client: httpx.Client, body: dict[str, Any], field: str, words: str
) -> None:
    answer = client.post(RECOMMEND, json=body)
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert problem["type"] == "urn:twotower:problem:invalid-request"
    assert problem["errors"][0]["field"] == field
    assert all(word in problem["detail"] for word in words.split(".*")), problem["detail"]


@pytest.mark.parametrize("route", ["users:recommendations", "movies:similar", "movies:lookup"])
def test_a_route_by_name_needs_one(client: httpx.Client, route: str) -> None:
    for query in ("", "?external_id=", "?external_user_id="):
        assert client.get(f"/v1/{route}{query}").status_code == 422


def test_a_batch_has_both_forms(client: httpx.Client) -> None:
    requests: list[Any] = [
        {"external_user_id": "zoë", "k": 1},
        {"user_id": 0, "k": 1},
        {"user_id": 0, "external_user_id": "zoë"},
    ]
    answer = client.post(f"{RECOMMEND}:batch", json={"requests": requests}).json()
    first, second, third = answer["results"]
    assert first == post(client, external_user_id="zoë", k=1)
    assert second == post(client, user_id=0, k=1)
    assert third["errors"][0]["field"] == "external_user_id"


def test_predict_names_users_and_movies(client: httpx.Client) -> None:
    def predict(**user: Any) -> Any:
        return client.post("/predict", json=user).json()

    top = post(client, external_user_id="zoë")["items"]
    by_name = predict(external_user_id="zoë")
    assert by_name == {
        "Recommended": [item["movie_id"] for item in top],
        "external_ids": [item["external_id"] for item in top],
    }
    assert predict(uid=USERS.index("zoë")) == by_name
    assert len(predict(external_user_id="nobody")["external_ids"]) == 10
    assert predict(external_user_id="nobody") == predict(uid=10**9)
    refused = predict(uid=0, external_user_id="zoë")
    assert refused["detail"] == "uid: Goes not with external_user_id: give one of them; given: 0"


def test_examples_of_external_ids_work(client: httpx.Client) -> None:
    bodies = [
        (path, example["value"])
        for path, operations in client.get("/openapi.json").json()["paths"].items()
        for media in operations.get("post", {}).get("requestBody", {}).get("content", {}).values()
        for name, example in media["examples"].items()
        if name.startswith("external")
    ]
    assert {path for path, _ in bodies} == {RECOMMEND, "/predict"}
    for path, body in bodies:
        answer = client.post(path, json=body)
        assert answer.status_code == 200, answer.text


def test_openapi_tells_of_both_forms(client: httpx.Client) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert {"external_user_id", "exclude_external_ids"} <= schemas["RecommendationRequest"][
        "properties"
    ].keys()
    for name in ("Rating", "RecommendedMovie", "SimilarMovie", "MovieDetails"):
        assert schemas[name]["properties"]["external_id"]["description"]
        assert "external_id" not in schemas[name].get("required", ())


def test_numbers_as_text_are_no_ids_of_a_model_of_numbers(trained: Trained, tmp_path: Path) -> None:
    with running_stack(trained.copy(tmp_path / "bundles", trained.first), tmp_path) as stack:
        url = stack.url
        assert "external_id" not in httpx.get(f"{url}/v1/users/1/recommendations").text
        assert "external_id" not in httpx.post(f"{url}/predict", json={"uid": 1}).text
        for answer, field in (
            (httpx.get(f"{url}/v1/users:recommendations?external_user_id=1"), "external_user_id"),
            (httpx.get(f"{url}/v1/movies:lookup?external_id=1"), "external_id"),
            (httpx.get(f"{url}/v1/movies:similar?external_id=1"), "external_id"),
            (
                httpx.post(url + RECOMMEND, json={"user_id": 1, "exclude_external_ids": ["1"]}),
                "exclude_external_ids",
            ),
            (
                httpx.post(url + RECOMMEND, json={"ratings": [{"external_id": "1", "rating": 4}]}),
                "ratings[0].external_id",
            ),
            (
                httpx.post(url + RECOMMEND, json={"external_user_id": "1", "ratings": []}),
                "external_user_id",
            ),
            (httpx.post(f"{url}/predict", json={"external_user_id": "1"}), "external_user_id"),
        ):
            assert answer.status_code == 422
            said = "have no external ids, their ids are numbers"
            assert re.fullmatch(
                f"{re.escape(field)}: the (movies|users) of this model {said}", answer.json()["detail"]
            )
            assert answer.json()["errors"][0]["field"] == field


def failure(call: Any, request: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(request)
    return caught.value.code(), caught.value.details() or ""


def test_by_grpc_users_and_ratings_are_named(towers: UserTowerServiceStub, model: Bundle) -> None:
    known = towers.EmbedUser(EmbedUserRequest(external_user_id="zoë")).embedding
    assert known.strategy == pb.STRATEGY_KNOWN_USER
    named = [pb.Rating(external_id="é/ü", rating=10), pb.Rating(external_id="none", rating=1)]
    rated = towers.EmbedUser(EmbedUserRequest(ratings=named)).embedding
    assert list(rated.rated_movie_ids) == [number_of(model, "é/ü")]
    assert rated.ignored_count == 1
    invalid, missing = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
    for request, code, words in (
        (
            EmbedUserRequest(external_user_id="zoë", user_id=0),
            invalid,
            "external_user_id: 'zoë' goes not with user_id, give one of them",
        ),
        (EmbedUserRequest(external_user_id="no", strict=True), missing, "external_user_id: 'no' is not"),
        (
            EmbedUserRequest(ratings=[pb.Rating(external_id="é/ü", movie_id=3, rating=1)]),
            invalid,
            "ratings[0].external_id: 'é/ü' goes not with movie_id, give one of them",
        ),
        (
            EmbedUserRequest(
                external_user_id="zoë", features=UserFeatures(rating_count=1, mean_rating=1)
            ),
            invalid,
            "features: goes with neither external_user_id nor ratings",
        ),
    ):
        assert failure(towers.EmbedUser, request)[0] == code
        assert words in failure(towers.EmbedUser, request)[1]
    nobody = towers.EmbedUser(EmbedUserRequest(external_user_id="zoë", rating_arrays=RatingArrays()))
    assert nobody.embedding.strategy == pb.STRATEGY_COLD_START


def arrays(
    external_ids: list[str], ratings: list[float], timestamps: Sequence[int] = ()
) -> RatingArrays:
    return RatingArrays(
        external_ids=external_ids,
        ratings=np.array(ratings, "<f4").tobytes(),
        timestamps=np.array(timestamps, "<i8").tobytes(),
    )


@pytest.mark.parametrize("timestamps", [(), (500, 100, 400, 100, 300)])
def test_arrays_name_items_as_single_ratings_do(
    towers: UserTowerServiceStub, timestamps: tuple[int, ...]
) -> None:
    items, given = ["é/ü", "none", "B-3", "x" * 2_000, "no"], [9.0, 1.0, 2.0, 10.0, 5.0]
    one_by_one = [
        pb.Rating(external_id=item, rating=rating, timestamp=timestamps[place] if timestamps else None)
        for place, (item, rating) in enumerate(zip(items, given, strict=True))
    ]
    together = EmbedUserRequest(rating_arrays=arrays(items, given, timestamps), as_of=1000)
    embedded = towers.EmbedUser(together)
    assert embedded == towers.EmbedUser(EmbedUserRequest(ratings=one_by_one, as_of=1000))
    assert embedded.embedding.ignored_count == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            RatingArrays(external_ids=["B-1"], movie_ids=b"12345678"),
            "rating_arrays.external_ids: 'B-1' goes not with movie_ids, give one of them",
        ),
        (arrays(["B-1", "B-2"], [3]), "rating_arrays.ratings: has 1, external_ids has 2"),
        (arrays(["B-1"], [3], [4, 5]), "rating_arrays.timestamps: has 2, external_ids has 1"),
        (arrays(["B-1", "B-2", "B-1"], [3] * 3), "ratings[2].external_id: movie 'B-1' is rated twice"),
        (arrays(["what", "what"], [3, 3]), "ratings[1].external_id: movie 'what' is rated twice"),
        (arrays(["B-1", "what"], [3, 11]), "ratings[1].rating: 11.0, allowed are 1.0 to 10.0"),
        (
            arrays([str(n) for n in range(10_001)], [3] * 10_001),
            "ratings: 10001 ratings, allowed are 10000",
        ),
    ],
)
def test_arrays_of_names_that_are_not_allowed(
    towers: UserTowerServiceStub, given: RatingArrays, said: str
) -> None:
    refused = failure(towers.EmbedUser, EmbedUserRequest(rating_arrays=given))
    assert refused == (grpc.StatusCode.INVALID_ARGUMENT, said)


def test_ids_only_have_external_ids(towers: UserTowerServiceStub, movies: RetrievalServiceStub) -> None:
    embedding = towers.EmbedUser(EmbedUserRequest(external_user_id="zoë")).embedding
    request = RetrieveMoviesRequest(embedding=embedding, k=7)
    whole = [found.movie for found in movies.RetrieveMovies(request).movies]
    request.ids_only = True
    found = movies.RetrieveMovies(request)
    assert list(found.movie_ids) == [movie.movie_id for movie in whole]
    assert list(found.external_ids) == [movie.external_id for movie in whole]


def test_by_grpc_movies_are_named(
    towers: UserTowerServiceStub, movies: RetrievalServiceStub, model: Bundle
) -> None:
    embedding = towers.EmbedUser(EmbedUserRequest(external_user_id="zoë")).embedding
    request = RetrieveMoviesRequest(embedding=embedding, k=3)
    best = [found.movie for found in movies.RetrieveMovies(request).movies]
    assert [number_of(model, movie.external_id) for movie in best] == [m.movie_id for m in best]
    request.exclude_external_ids.extend([best[0].external_id, "none"])
    request.exclude_movie_ids.append(best[1].movie_id)
    assert movies.RetrieveMovies(request).movies[0].movie == best[2]
    found = movies.GetMovies(
        GetMoviesRequest(
            movie_ids=[best[1].movie_id, 10**9], external_ids=["none", best[0].external_id, "no"]
        )
    )
    assert list(found.movies) == [best[1], best[0]]
    assert list(found.missing_movie_ids) == [10**9]
    assert list(found.missing_external_ids) == ["none", "no"]
    near = movies.FindSimilarMovies(FindSimilarMoviesRequest(external_id="é/ü", k=2))
    number = number_of(model, "é/ü")
    assert near == movies.FindSimilarMovies(FindSimilarMoviesRequest(movie_id=number, k=2))
    code, said = failure(
        movies.FindSimilarMovies, FindSimilarMoviesRequest(external_id="é/ü", movie_id=3, k=2)
    )
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert said == "external_id: 'é/ü' goes not with movie_id, give one of them"
    too_many = GetMoviesRequest(movie_ids=[1] * 600, external_ids=["x"] * 401)
    assert failure(movies.GetMovies, too_many)[1] == "external_ids: 1001 ids, allowed are 1 to 1000"
