"""Requests that are not allowed: each is told what is wrong, and nothing breaks."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from typing import Any, NoReturn

import httpx
import pytest

from integration.oracle import golden_users, history_of, ids, ranking
from services import Stack
from twotower.bundle import Bundle

RECOMMEND = "/v1/recommendations"
BATCH = "/v1/recommendations:batch"
JSON = {"content-type": "application/json"}
LIMIT = 2**20
"""The largest body that the gateway takes."""


@pytest.fixture(scope="module", autouse=True)
def _unharmed(stack: Stack, client: httpx.Client) -> Iterator[None]:
    """After all of these tests the services still answer, and nothing unexpected is in their logs."""
    yield
    assert len(client.post(RECOMMEND, json={"user_id": 1}).json()["items"]) == 10
    for service in stack.services:
        assert "Traceback" not in service.log_path.read_text()
    answers = [line for line in stack.gateway.events("request") if line["path"] != "/readyz"]
    assert [line for line in answers if line["status"] >= 500] == []


def parse(text: str) -> Any:
    """JSON in the strict sense: no NaN, no Infinity."""

    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def check_problem(answer: httpx.Response, status: int, kind: str) -> Any:
    """The answer is a problem of that kind, short and well-formed; the problem itself."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = parse(answer.text)
    assert {*problem} == {"type", "title", "status", "detail", "request_id", "errors"}
    assert problem["type"] == f"urn:twotower:problem:{kind}"
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert len(answer.text) < 30_000
    return problem


def check_refusal(answer: httpx.Response, field: str, *words: str) -> None:
    """The field is refused, and the detail has these words (patterns)."""
    problem = check_problem(answer, 422, "invalid-request")
    assert problem["errors"][0]["field"] == field
    assert field in problem["detail"]
    for word in words:
        assert re.search(word, problem["detail"]), problem["detail"]


def post(
    client: httpx.Client, content: str | bytes | Iterator[bytes], path: str = RECOMMEND
) -> httpx.Response:
    return client.post(path, content=content, headers=JSON)


WHOLE = "valid integer"
K = [
    ("0", "greater than or equal to 1"),
    ("-1", "greater than or equal to 1"),
    ("101", "less than or equal to 100"),
    ("2.5", WHOLE),
    ('"ten"', WHOLE),
    ("true", WHOLE),
]
ID = [
    ("true", WHOLE),
    ('"1"', WHOLE),
    ("1.0", WHOLE),
    (str(2**63), f"less than or equal to {2**63 - 1}"),
    (str(2**80), f"less than or equal to {2**63 - 1}"),
    ("-1", "greater than or equal to 0"),
    ("[]", WHOLE),
    ("[[1]]", WHOLE),
    ("false", WHOLE),
    ("{}", WHOLE),
]
NOTHING = [("null", "valid")]
TEXT = [
    *((value, "valid string") for value in ("true", "1", "1.0", "Infinity", str(10**40), "[]", "{}")),
    ('""', "at least 1 character"),
]
NUMBER = [("NaN", "finite"), ("Infinity", "finite"), ("-Infinity", "finite"), ("null", "valid number")]
SCALE = [("5.5", "allowed are 0.5 to 5"), ("0", "0.5 to 5"), ("-3", "0.5 to 5"), ("1e+30", "0.5 to 5")]
KIND = [
    ("true", "valid number"),
    ("false", "valid number"),
    ("[4]", "valid number"),
    ('"4"', "valid number"),
    ("{}", "valid number"),
]
YEAR = [
    ("true", WHOLE),
    ("2001.5", WHOLE),
    ('"2001"', WHOLE),
    (str(2**31), "less than or equal to 2147483647"),
]
TIME = [
    ("true", WHOLE),
    ("-1", "greater than or equal to 0"),
    ("1.5", WHOLE),
    (str(2**63), "less than or equal to"),
]

FIELDS: list[tuple[str, str, list[tuple[str, str]]]] = [
    ("k", '{"user_id": 1, "k": %s}', K + NOTHING),
    ("user_id", '{"user_id": %s}', ID),
    ("ratings[0].movie_id", '{"ratings": [{"movie_id": %s, "rating": 4}]}', ID + NOTHING),
    ("external_user_id", '{"external_user_id": %s}', TEXT),
    ("ratings[0].external_id", '{"ratings": [{"external_id": %s, "rating": 4}]}', TEXT),
    ("exclude_external_ids[0]", '{"user_id": 1, "exclude_external_ids": [%s]}', TEXT + NOTHING),
    ("exclude_movie_ids[0]", '{"user_id": 1, "exclude_movie_ids": [%s]}', ID + NOTHING),
    ("ratings[0].rating", '{"ratings": [{"movie_id": 1, "rating": %s}]}', NUMBER + SCALE + KIND),
    (
        "features.mean_rating",
        '{"features": {"rating_count": 3, "mean_rating": %s}}',
        NUMBER + SCALE + KIND,
    ),
    (
        "features.genre_means.Drama",
        '{"features": {"rating_count": 3, "mean_rating": 3, "genre_means": {"Drama": %s}}}',
        NUMBER + SCALE + KIND,
    ),
    (
        "features.rating_count",
        '{"features": {"rating_count": %s, "mean_rating": 3}}',
        [("0", "greater than or equal to 1"), ("-1", "equal to 1"), ("true", WHOLE), ("2.5", WHOLE)],
    ),
    (
        "ratings[0].timestamp",
        '{"ratings": [{"movie_id": 1, "rating": 4, "timestamp": %s}]}',
        TIME,
    ),
    ("as_of", '{"user_id": 1, "as_of": %s}', TIME),
    ("filter.year_min", '{"user_id": 1, "filter": {"year_min": %s}}', YEAR),
    ("filter.year_max", '{"user_id": 1, "filter": {"year_max": %s}}', YEAR),
    ("filter.genres_any", '{"user_id": 1, "filter": {"genres_any": %s}}', [('"War"', "valid list")]),
    ("filter.genres_any[0]", '{"user_id": 1, "filter": {"genres_any": [%s]}}', [("7", "string")]),
    ("exclude_rated", '{"user_id": 1, "exclude_rated": %s}', [('"no"', "boolean"), ("0", "boolean")]),
]


@pytest.mark.parametrize(
    ("field", "template", "value", "allowed"),
    [
        pytest.param(field, template, value, allowed, id=f"{field}={value}")
        for field, template, values in FIELDS
        for value, allowed in values
    ],
)
def test_a_value_that_is_not_allowed(
    client: httpx.Client, field: str, template: str, value: str, allowed: str
) -> None:
    check_refusal(post(client, template % value), field, re.escape(value), allowed)


@pytest.mark.parametrize(("value", "allowed"), ID)
def test_an_id_of_the_first_version_and_of_a_batch(
    client: httpx.Client, value: str, allowed: str
) -> None:
    check_refusal(post(client, f'{{"uid": {value}}}', "/predict"), "uid", re.escape(value), allowed)
    rows = (f'{{"user_id": {value}}}', f'{{"ratings": [{{"movie_id": {value}, "rating": 4}}]}}')
    batch = parse(post(client, f'{{"requests": [{", ".join(rows)}]}}', BATCH).text)
    for problem, field in zip(batch["results"], ("user_id", "ratings[0].movie_id"), strict=True):
        assert problem["status"] == 422
        assert problem["errors"][0]["field"] == field
        assert re.search(allowed, problem["detail"])


def test_a_rating_beyond_what_a_number_can_hold(client: httpx.Client) -> None:
    answer = post(client, '{"ratings": [{"movie_id": 1, "rating": 1e999}]}')
    check_refusal(answer, "ratings[0].rating", "finite")


@pytest.mark.parametrize("value", ["0", "-1", "101", "2.5", "ten", "true", ""])
@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/users/1/recommendations", "k"),
        ("/v1/movies/1/similar", "k"),
        ("/v1/movies?title=heat", "limit"),
    ],
)
def test_a_number_of_movies_in_the_query(
    client: httpx.Client, path: str, field: str, value: str
) -> None:
    answer = client.get(httpx.URL(path).copy_add_param(field, value))
    check_refusal(answer, field, f'"{re.escape(value)}"', "integer|equal to 1")


@pytest.mark.parametrize(
    "value", ["true", "-1", str(2**63), "1.5", "01", "-0", "x", "%00", "%ff", "9" * 5000]
)
@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/users/{}/recommendations", "user_id"),
        ("/v1/movies/{}", "movie_id"),
        ("/v1/movies/{}/similar", "movie_id"),
    ],
)
def test_an_id_in_the_path(client: httpx.Client, path: str, field: str, value: str) -> None:
    check_refusal(client.get(path.format(value)), field, "integer|equal to", "given")


@pytest.mark.parametrize(
    ("query", "field", "allowed"),
    [
        ("", "title", "required"),
        ("title=", "title", "at least 1 character"),
        ("title=" + "a" * 60_000, "title", "at most 200 characters"),
        ("title=heat&limit=" + "1" * 60_000, "limit", "integer"),
    ],
)
def test_a_search_that_is_not_allowed(
    client: httpx.Client, query: str, field: str, allowed: str
) -> None:
    check_refusal(client.get(f"/v1/movies?{query}"), field, allowed)


def test_a_flag_in_the_query(client: httpx.Client) -> None:
    answer = client.get("/v1/users/1/recommendations", params={"strict": "maybe"})
    check_refusal(answer, "strict", '"maybe"', "boolean")


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/users/1/recommendations?k=3&k=4", "k"),
        ("/v1/users/1/recommendations?strict=true&k=3&strict=true", "strict"),
        ("/v1/movies?title=heat&title=alien", "title"),
    ],
)
def test_a_parameter_that_is_given_twice(client: httpx.Client, path: str, field: str) -> None:
    check_refusal(client.get(path), field, "given twice, the second is '(4|true|alien)'")


RATING = {"movie_id": 1, "rating": 4.0}
FEATURES = {"rating_count": 3, "mean_rating": 3.5}


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({"ratings": [RATING, {**RATING, "rating": 2}]}, "ratings[1].movie_id", "movie 1 .*twice"),
        ({"user_id": 1, "ratings": [RATING, RATING]}, "ratings[1].movie_id", "movie 1 .*twice"),
        ({"features": FEATURES, "user_id": 1}, "features", "neither user_id nor ratings"),
        ({"features": FEATURES, "ratings": [RATING]}, "features", "neither user_id nor ratings"),
        ({"features": FEATURES, "ratings": []}, "features", "neither user_id nor ratings"),
        ({}, "user_id", "user_id, ratings or features"),
        ({"k": 5}, "user_id", "user_id, ratings or features"),
        ({"user_id": None, "ratings": None}, "user_id", "user_id, ratings or features"),
        (
            {"ratings": [{**RATING, "timestamp": 5}, {**RATING, "movie_id": 2}]},
            "ratings[1].timestamp",
            "all ratings have a timestamp, or none",
        ),
        (
            {"ratings": [RATING, {**RATING, "movie_id": 2, "timestamp": 5}]},
            "ratings[0].timestamp",
            "all ratings have a timestamp, or none",
        ),
        ({"ratings": [{"movie_id": 1}]}, "ratings[0].rating", "required"),
        ({"ratings": [{"rating": 4}]}, "ratings[0].movie_id", "required"),
        ({"features": {"rating_count": 3}}, "features.mean_rating", "required"),
        (
            {"user_id": 1, "filter": {"year_min": 2001, "year_max": 2000}},
            "filter.year_min",
            "2001 .*above year_max.* 2000",
        ),
        ({"user_id": 1, "n": 5}, "n", "not permitted.*5"),
        ({"user_id": 1, "filter": {"genre": "War"}}, "filter.genre", "not permitted.*War"),
        ({"ratings": [{**RATING, "stars": 5}]}, "ratings[0].stars", "not permitted.*5"),
        ({"features": {**FEATURES, "mean": 3}}, "features.mean", "not permitted.*3"),
        ({"user_id": 1, "filter": {"genres_any": ["War"] * 101}}, "filter.genres_any", "100.*101"),
        (
            {"ratings": [{**RATING, "movie_id": movie_id} for movie_id in range(10_001)]},
            "ratings",
            "at most 10000.*10001",
        ),
        (
            {"user_id": 1, "exclude_movie_ids": list(range(100_001))},
            "exclude_movie_ids",
            "at most 100000.*100001",
        ),
    ],
)
def test_a_request_that_does_not_fit_together(
    client: httpx.Client, body: dict[str, Any], field: str, words: str
) -> None:
    check_refusal(client.post(RECOMMEND, json=body), field, words)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        *(
            ({"user_id": 1, "filter": {name: ["Drama", "Opera"]}}, f"filter.{name}[1]")
            for name in ("genres_any", "genres_all", "genres_none")
        ),
        (
            {"features": {**FEATURES, "genre_means": {"Drama": 3, "Opera": 3}}},
            "features.genre_means.Opera",
        ),
    ],
)
def test_an_unknown_genre_is_told_which_there_are(
    client: httpx.Client, model: Bundle, body: dict[str, Any], field: str
) -> None:
    check_refusal(client.post(RECOMMEND, json=body), field, "Opera", ", ".join(model.features.genres))


def test_every_field_at_fault_is_named(client: httpx.Client) -> None:
    answer = client.post(RECOMMEND, json={"user_id": "1", "k": 0, "n": 5})
    problem = check_problem(answer, 422, "invalid-request")
    assert {fault["field"] for fault in problem["errors"]} == {"user_id", "k", "n"}
    assert "2 more" in problem["detail"]


@pytest.mark.parametrize(
    "body",
    [
        {"user_id": 1, "x" * 500_000: 1},
        {"user_id": 1, **{f"field{number}": number for number in range(20_000)}},
        {"ratings": [{"movie_id": -1, "rating": "x" * 50}] * 5000},
        {"features": {**FEATURES, "genre_means": {"x" * 500_000: 3}}},
        {"user_id": "x" * 900_000},
    ],
    ids=["long name", "many names", "many faults", "long genre", "long value"],
)
def test_a_long_fault_has_a_short_answer(client: httpx.Client, body: dict[str, Any]) -> None:
    check_problem(client.post(RECOMMEND, json=body), 422, "invalid-request")


@pytest.mark.parametrize("body", ["[]", '"text"', "1", "null", "true", "NaN"])
@pytest.mark.parametrize("path", [RECOMMEND, BATCH, "/predict"])
def test_a_body_that_is_no_object(client: httpx.Client, path: str, body: str) -> None:
    check_refusal(post(client, body, path), "", "the body: .*object", re.escape(body))


@pytest.mark.parametrize(
    ("path", "body", "field", "words"),
    [
        (BATCH, {"requests": []}, "requests", "at least 1 .*0"),
        (BATCH, {"requests": [{"user_id": 1}] * 129}, "requests", "at most 128 .*129"),
        (BATCH, {"requests": {"user_id": 1}}, "requests", "valid list"),
        (BATCH, {}, "requests", "required"),
        ("/predict", {}, "uid", "required"),
        ("/predict", {"uid": "2"}, "uid", 'valid integer.*"2"'),
        ("/predict", {"uid": True}, "uid", "valid integer.*true"),
        ("/predict", {"uid": None}, "uid", "required: a valid uid, or an external_user_id"),
        ("/predict", {"external_user_id": ""}, "external_user_id", "at least 1 character"),
        ("/predict", {"external_user_id": 2}, "external_user_id", "valid string.*2"),
    ],
)
def test_the_other_bodies(
    client: httpx.Client, path: str, body: dict[str, Any], field: str, words: str
) -> None:
    check_refusal(client.post(path, json=body), field, words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty.*JSON object is expected"),
        (b"   ", "not JSON"),
        (b'{"user_id": 1', "not JSON"),
        (b'{"user_id": 1}}', "not JSON"),
        (b'{"user_id": 1,}', "not JSON"),
        (b"{'user_id': 1}", "not JSON"),
        (b"user_id=1", "not JSON"),
        (b"\x89PNG\r\n\x1a\n\x00", "not JSON"),
        (b'{"user_id": "\xff\xfe"}', "not JSON.*unicode"),
        (b'{"user_id": "\xed\xa0\x80"}', "not JSON.*unicode"),
        (b'{"user_id": 1, "filter": {"genres_any": ["\\ud800"]}}', "not JSON.*escape"),
        (b'{"\\udfff": 1}', "not JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "not JSON.*recursion"),
        (b'{"k":' * 100_000 + b"1" + b"}" * 100_000, "not JSON.*recursion"),
        (b'{"user_id": ' + b"9" * 100_000 + b"}", "not JSON.*number out of range"),
    ],
    ids=lambda value: repr(value[:20]) if isinstance(value, bytes) else "",
)
def test_a_body_that_is_not_json(client: httpx.Client, content: bytes, words: str) -> None:
    problem = check_problem(post(client, content), 400, "malformed-body")
    assert re.search(words, problem["detail"]), problem["detail"]


@pytest.mark.parametrize("text", ["\\ud800", "\\udfff", "a\\udc80", "\\ud800\\ud800"])
@pytest.mark.parametrize(
    ("path", "template"),
    [
        (RECOMMEND, '{"user_id": "%s"}'),
        (RECOMMEND, '{"external_user_id": "%s"}'),
        (RECOMMEND, '{"ratings": [{"external_id": "%s", "rating": 4}]}'),
        (RECOMMEND, '{"user_id": 1, "exclude_external_ids": ["%s"]}'),
        (RECOMMEND, '{"features": {"rating_count": 1, "mean_rating": 3, "genre_means": {"%s": 3}}}'),
        (BATCH, '{"requests": [{"external_user_id": "%s"}]}'),
        ("/predict", '{"uid": "%s"}'),
    ],
)
def test_half_a_character(client: httpx.Client, path: str, template: str, text: str) -> None:
    check_problem(post(client, template % text, path), 400, "malformed-body")


@pytest.mark.parametrize("text", ["%ED%A0%80", "%ff", "%C3", "a%00b"])
@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/users:recommendations?external_user_id=", "external_user_id"),
        ("/v1/movies:lookup?external_id=", "external_id"),
        ("/v1/movies:similar?external_id=", "external_id"),
    ],
)
def test_a_name_in_the_query_that_is_no_text(
    client: httpx.Client, path: str, field: str, text: str
) -> None:
    check_refusal(client.get(path + text), field, "have no external ids")


@pytest.mark.parametrize("depth", [100, 199])
def test_a_body_nested_less_deeply_names_its_field(client: httpx.Client, depth: int) -> None:
    check_refusal(post(client, '{"user_id": ' + "[" * depth + "]" * depth + "}"), "user_id", WHOLE)


@pytest.mark.parametrize(
    "media_type",
    [None, "", "text/plain", "application/x-www-form-urlencoded", "application/jsonx", "x" * 5000],
)
def test_a_body_that_is_not_announced_as_json(client: httpx.Client, media_type: str | None) -> None:
    headers = {} if media_type is None else {"content-type": media_type}
    answer = client.post(RECOMMEND, content=b'{"user_id": 1}', headers=headers)
    problem = check_problem(answer, 415, "unsupported-media-type")
    assert "application/json is expected" in problem["detail"]
    assert (media_type or "''")[:40] in problem["detail"]


@pytest.mark.parametrize("path", [RECOMMEND, BATCH, "/predict"])
@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip"])
def test_a_body_that_is_compressed(client: httpx.Client, path: str, coding: str) -> None:
    headers = {**JSON, "content-encoding": coding}
    answer = client.post(path, content=b'{"user_id": 1}', headers=headers)
    problem = check_problem(answer, 415, "unsupported-media-type")
    assert f"content-encoding is '{coding}'" in problem["detail"]


def test_a_body_that_is_said_to_be_as_it_is(client: httpx.Client) -> None:
    headers = {**JSON, "content-encoding": "identity"}
    assert client.post(RECOMMEND, content=b'{"user_id": 1}', headers=headers).status_code == 200


@pytest.mark.parametrize("media_type", ["application/json; charset=utf-8", "Application/JSON"])
def test_other_ways_to_write_json(client: httpx.Client, media_type: str) -> None:
    headers = {"content-type": media_type}
    assert client.post(RECOMMEND, content=b'{"user_id": 1}', headers=headers).status_code == 200


def chunks(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), 2**16):
        yield content[start : start + 2**16]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_long(client: httpx.Client, *, chunked: bool) -> None:
    content = b'{"user_id": 1' + b" " * LIMIT + b"}"
    answer = post(client, chunks(content) if chunked else content)
    problem = check_problem(answer, 413, "body-too-large")
    assert str(LIMIT) in problem["detail"]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_just_the_limit(client: httpx.Client, *, chunked: bool) -> None:
    content = b'{"user_id": 1}'.ljust(LIMIT)
    assert post(client, chunks(content) if chunked else content).status_code == 200


def test_two_megabytes(client: httpx.Client) -> None:
    content = b'{"exclude_movie_ids": [' + b"1," * LIMIT + b"1]}"
    check_problem(post(client, content), 413, "body-too-large")
    check_problem(post(client, chunks(content)), 413, "body-too-large")


def test_excluding_more_than_the_catalogue(client: httpx.Client, model: Bundle) -> None:
    rated = history_of(model, 1)
    assert rated
    others = list(range(10**6, 10**6 + 99_990))
    places = ranking(model, golden_users(model)[1].retrieval, without=rated)
    body = {"user_id": 1, "exclude_movie_ids": [*ids(places[:10]), *others]}
    answer = client.post(RECOMMEND, json=body)
    assert answer.status_code == 200, answer.text
    assert [item["movie_id"] for item in answer.json()["items"]] == ids(places[10:20])
    assert answer.json()["shortfall"] is None


def test_excluding_the_whole_catalogue_and_more(client: httpx.Client, model: Bundle) -> None:
    everything = [*model.catalogue.movie_ids.tolist(), *range(10**6, 10**6 + 50_000)]
    answer = client.post(RECOMMEND, json={"user_id": 1, "exclude_movie_ids": everything})
    assert answer.status_code == 200, answer.text
    assert answer.json()["items"] == []
    assert answer.json()["shortfall"]["reason"] == "catalogue_exhausted"


def test_as_many_ratings_as_allowed(client: httpx.Client) -> None:
    ratings = [{"movie_id": movie_id, "rating": 4} for movie_id in range(10_000)]
    answer = client.post(RECOMMEND, json={"ratings": ratings})
    assert answer.status_code == 200, answer.text
    assert answer.json()["items"][0]["movie_id"] >= 10_000


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/v1"),
        ("GET", "/v2/recommendations"),
        ("POST", "/v1/recommendation"),
        ("POST", "/v1/recommendations:stream"),
        ("GET", "//v1/movies/1"),
        ("GET", "/v1/movies/1/2"),
        ("GET", "/%00/%ff"),
        ("POST", "/v1/recommendations/"),
        ("POST", "/predict/"),
        ("GET", "/v1/movies/"),
        ("GET", "/v1/movies/1/"),
        ("GET", "/v1/users/1/recommendations/"),
        ("GET", "/healthz/"),
    ],
)
def test_a_path_that_does_not_exist(client: httpx.Client, method: str, path: str) -> None:
    answer = client.request(method, f"{client.base_url}{path}", follow_redirects=False)
    problem = check_problem(answer, 404, "not-found")
    assert problem["detail"].startswith(method)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", RECOMMEND, "POST"),
        ("PUT", RECOMMEND, "POST"),
        ("GET", BATCH, "POST"),
        ("GET", "/predict", "POST"),
        ("POST", "/v1/users/1/recommendations", "GET"),
        ("DELETE", "/v1/movies/1", "GET"),
        ("POST", "/v1/movies/1/similar", "GET"),
        ("POST", "/healthz", "GET"),
    ],
)
def test_a_method_that_is_not_allowed(
    client: httpx.Client, method: str, path: str, allowed: str
) -> None:
    answer = client.request(method, path)
    check_problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == allowed


def exchange(stack: Stack, request: bytes) -> bytes:
    """Send bytes, send no more, and return all that comes back."""
    with socket.create_connection(("127.0.0.1", stack.gateway.port), timeout=5) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(2**16), b""))


def test_a_query_of_a_quarter_of_a_megabyte(stack: Stack) -> None:
    request = b"GET /v1/movies?title=" + b"a" * 2**18 + b" HTTP/1.1\r\nhost: x\r\n\r\n"
    head, _, body = exchange(stack, request).partition(b"\r\n\r\n")
    assert re.match(rb"HTTP/1.1 4\d\d ", head)
    assert len(body) < 2000


POST_HEAD = b"POST /v1/recommendations HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


@pytest.mark.parametrize(
    "request_start",
    [
        POST_HEAD + b'content-length: 1000\r\n\r\n{"user_id',
        POST_HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\n{",
        POST_HEAD,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"",
    ],
    ids=["half a body", "half a chunk", "half a head", "TLS", "nothing"],
)
def test_a_client_that_leaves_midway(stack: Stack, client: httpx.Client, request_start: bytes) -> None:
    answer = exchange(stack, request_start)
    assert not answer or re.match(rb"HTTP/1.1 4\d\d ", answer)
    assert client.get("/healthz").status_code == 200
