"""Rules and dashboard ask for metrics that there are, by labels that they have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
import yaml
from prometheus_client import REGISTRY, Counter

from services import ROOT
from twotower.metrics import BATCH_SIZE, MODELS, REQUESTS, STAGE_SECONDS

_FOLDER = ROOT / "deploy" / "compose"
_LABELS = {
    "twotower_requests_total": {"method", "code"},
    "twotower_stage_seconds_bucket": {"stage", "le"},
    "twotower_batch_size_sum": {"method"},
    "twotower_batch_size_count": {"method"},
    "twotower_model": {"model_version", "state"},
}


def asked() -> Iterator[str]:
    """Every query of the rules and of the dashboard."""
    rules = yaml.safe_load((_FOLDER / "prometheus" / "rules.yml").read_text())
    for group in rules["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    dashboard = json.loads((_FOLDER / "grafana" / "dashboards" / "twotower.json").read_text())
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def test_the_labels_below_are_those_of_the_metrics() -> None:
    for metric, names in (
        (REQUESTS, ["twotower_requests_total"]),
        (STAGE_SECONDS, ["twotower_stage_seconds_bucket"]),
        (BATCH_SIZE, ["twotower_batch_size_sum", "twotower_batch_size_count"]),
        (MODELS, ["twotower_model"]),
    ):
        assert {*metric._labelnames} == _LABELS[names[0]] - {"le"}
        assert isinstance(metric, Counter) or names[0].startswith(metric._name)


@pytest.mark.parametrize("query", sorted(set(asked())))
def test_every_metric_and_label_exists(query: str) -> None:
    process = {metric.name for metric in REGISTRY.collect()}
    for name, labels in re.findall(r"\b((?:twotower|process)_\w+|up)\b(\{[^}]*\})?", query):
        if name.startswith("process_"):
            assert name in process or name.removesuffix("_total") in process
        elif name != "up":
            assert set(re.findall(r"(\w+)[=!]", labels)) <= _LABELS[name]
    grouped = re.findall(r"by \(([^)]*)\)", query)
    known = set().union(*_LABELS.values()) | {"job", "instance"}
    assert {label.strip() for labels in grouped for label in labels.split(",")} <= known


def test_prometheus_looks_where_the_services_are() -> None:
    composed = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    scraped = yaml.safe_load((_FOLDER / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    for job in scraped:
        (found,) = job["dns_sd_configs"]
        assert found["names"] == [job["job_name"]]
        assert job["job_name"] in composed
        dockerfile = (ROOT / job["job_name"] / "Dockerfile").read_text()
        assert re.search(rf"^EXPOSE .*\b{found['port']}\b", dockerfile, re.MULTILINE)
