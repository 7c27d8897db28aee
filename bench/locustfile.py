"""Users of the REST API at any address, each kind of request in its share: what `make load` runs."""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Any, ClassVar, Final

import requests
from locust import FastHttpUser, between, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from bench.whole import fault_of

_K: Final = 10
_FEWEST, _MOST = 20, 200
_ASKED_BEFORE: Final = 20
"""Users whose recommendations tell, before the start, which movies there are."""
_TIMEOUT_SECONDS: Final = 10


@events.init_command_line_parser.add_listener
def _add_options(parser: LocustArgumentParser) -> None:
    parser.add_argument(
        "--known-users", type=int, default=600, help="ids from 1 to this are asked for (default: 600)"
    )


@events.test_start.add_listener
def _look_around(environment: Environment, **_: Any) -> None:
    """Learn what movies there are; end the run where that cannot be had."""
    try:
        Viewer.movies = _movies_at(environment.host)
    except (requests.RequestException, KeyError, ValueError) as error:
        print(f"error: {environment.host}: no recommendations to be had ({error})")
        environment.process_exit_code = 1
        environment.runner.quit()


def _movies_at(host: str) -> list[dict[str, Any]]:
    found = {}
    for user_id in range(1, _ASKED_BEFORE + 1):
        answer = requests.get(
            f"{host}/v1/users/{user_id}/recommendations?k=100", timeout=_TIMEOUT_SECONDS
        )
        answer.raise_for_status()
        found.update({movie["movie_id"]: movie for movie in answer.json()["items"]})
    return list(found.values())


class Viewer(FastHttpUser):
    """Asks, looks at what comes for a moment, and asks again."""

    wait_time = between(0.1, 1.0)
    movies: ClassVar[list[dict[str, Any]]] = []

    @task(5)
    def known_user(self) -> None:
        """Somebody of the training data."""
        self._recommend("known user", {"user_id": self._some_user()})

    @task(5)
    def inline_ratings(self) -> None:
        """A stranger, who says what they have seen and must not get it back."""
        most = min(_MOST, len(self.movies) // 2)
        seen = random.sample(self.movies, random.randint(min(_FEWEST, most), most))
        ratings = [
            {"movie_id": movie["movie_id"], "rating": random.randint(1, 10) / 2} for movie in seen
        ]
        barred = [movie["movie_id"] for movie in seen]
        self._recommend("inline ratings", {"ratings": ratings}, barred=barred)

    @task(1)
    def features(self) -> None:
        """A stranger, of whom only aggregates are known."""
        means = {self._some_genre(): random.randint(2, 10) / 2 for _ in range(3)}
        features = {"rating_count": random.randint(1, 300), "mean_rating": 3.5, "genre_means": means}
        self._recommend("features", {"features": features})

    @task(2)
    def filtered(self) -> None:
        """Somebody who wants one genre, of some year or later."""
        genre = self._some_genre()
        condition = {"genres_all": [genre], "year_min": random.randint(1930, 2010)}
        body = {"user_id": self._some_user(), "filter": condition}
        self._recommend("filter", body, genre=genre)

    @task(2)
    def similar_movies(self) -> None:
        """What is like a movie, but not that movie."""
        movie_id = random.choice(self.movies)["movie_id"]
        path = f"/v1/movies/{movie_id}/similar?k={_K}"
        self._ask("GET", path, "similar movies", barred=[movie_id])

    def _some_user(self) -> int:
        return random.randint(1, self.environment.parsed_options.known_users)

    def _some_genre(self) -> str:
        genres: list[str] = random.choice([each["genres"] for each in self.movies if each["genres"]])
        return random.choice(genres)

    def _recommend(
        self, name: str, body: dict[str, Any], *, barred: Collection[int] = (), genre: str = ""
    ) -> None:
        asked = {**body, "k": _K}
        self._ask("POST", "/v1/recommendations", name, json=asked, barred=barred, genre=genre)

    def _ask(
        self,
        method: str,
        path: str,
        name: str,
        *,
        barred: Collection[int] = (),
        genre: str = "",
        **body: Any,
    ) -> None:
        with self.client.request(method, path, name=name, catch_response=True, **body) as answer:
            if answer.status_code != requests.codes.ok:
                answer.failure(f"status {answer.status_code}: {(answer.text or '')[:200]}")
            elif fault := fault_of(answer.json(), _K, barred=barred, genre=genre):
                answer.failure(fault)
