"""What schemathesis makes of the gateway's OpenAPI document, asked of the real services."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import schemathesis
from schemathesis import Case
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from conftest import Trained
from gateway.app import create_app
from gateway.settings import GatewaySettings
from services import Stack, running_stack
from twotower.bundle import read_bundle, write_bundle
from twotower.promotion import promote

ASK = "/v1/recommendations"
SCHEMA = schemathesis.openapi.from_dict(
    create_app(GatewaySettings()).openapi(),
    config=SchemathesisConfig.from_dict(
        {"generation": {"max-examples": 25, "deterministic": True, "database": "none"}}
    ),
)
LEFT_OUT = {
    # Some rules are the model's, and none of the document's: its rating scale, its genres.
    f"POST {ASK}": positive_data_acceptance,
    # A request of a batch fails alone, in an answer that is sound.
    f"POST {ASK}:batch": negative_data_rejection,
}


@pytest.fixture(scope="module")
def stack(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Over a model of users and movies that have external ids besides."""
    folder = tmp_path_factory.mktemp("named")
    manifest, bundle = read_bundle(trained.bundles, trained.first)
    catalogue, histories = bundle.catalogue, bundle.histories
    named = write_bundle(
        folder / "bundles",
        replace(
            bundle,
            catalogue=replace(catalogue, external_ids=tuple(map(str, catalogue.movie_ids))),
            histories=replace(histories, external_ids=tuple(map(str, histories.user_ids))),
        ),
        recipe=manifest.recipe,
        dataset=manifest.dataset,
        metrics=manifest.metrics,
        libraries=manifest.libraries,
    )
    promote(folder / "bundles", named.model_version)
    with running_stack(folder / "bundles", folder) as running:
        yield running


@SCHEMA.parametrize()
def test_every_operation_does_as_documented(case: Case[Any], stack: Stack) -> None:
    left_out = LEFT_OUT.get(case.operation.label)
    answer = case.call_and_validate(stack.url, excluded_checks=[left_out] if left_out else None)
    if answer.status_code >= 400:  # whether or not the document tells of it, as of an unknown method
        assert answer.headers["content-type"] == ["application/problem+json"]


@SCHEMA.include(path=ASK).parametrize()
def test_both_ways_lead_to_the_same(case: Case[Any], stack: Stack) -> None:
    case.query = {}  # the shortcut takes none
    headers = {"x-request-id": "one-id"}
    quick = case.call(stack.url, headers=headers)
    slow = case.call(stack.url, headers={**headers, "origin": "https://a.page"})
    assert quick.status_code == slow.status_code
    assert quick.content == slow.content
    assert quick.headers.get("content-type") == slow.headers.get("content-type")
