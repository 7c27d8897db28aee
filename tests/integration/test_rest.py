"""The REST API over the real services."""

from __future__ import annotations

import httpx


def test_recommends_exactly_k_unseen_movies(client: httpx.Client) -> None:
    answer = client.post("/v1/recommendations", json={"user_id": 1, "k": 7})
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["items"]) == 7
    assert answer.json()["strategy"] == "known_user"
