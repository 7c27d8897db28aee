"""What the README and docs say is so: commands, examples, links, settings, metrics."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from gateway.settings import GatewaySettings
from retrieval_svc.settings import RetrievalSettings
from services import ROOT, Stack
from user_tower_svc.settings import UserTowerSettings

_PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_TEXT = "\n".join(page.read_text() for page in _PAGES)
_README = _PAGES[0].read_text()


def _over(stack: Stack, example: str) -> str:
    """An example with the stack's addresses for the usual ones."""
    for usual, service in (
        (50051, stack.user_tower),
        (50052, stack.retrieval),
        (8000, stack.gateway),
    ):
        example = re.sub(rf"(localhost|127\.0\.0\.1):{usual}", service.address, example)
    return example


def test_every_make_target_named_exists_and_help_lists_it() -> None:
    listed = subprocess.run(
        ["make", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    targets = set(re.findall(r"^ +make ([\w-]+) ", listed, re.MULTILINE))
    in_makefile = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets == set(in_makefile)
    assert set(re.findall(r"(?:`|\$ )make ([\w-]+)", _TEXT)) <= targets


def test_the_python_example_runs(stack: Stack) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", _README, re.DOTALL)
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", _over(stack, example)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert len(re.findall(r"^\d\.\d\d \S", answer.stdout, re.MULTILINE)) == 5


def test_the_grpcurl_examples_run(stack: Stack) -> None:
    examples = re.findall(r"\$ \.venv/bin/(grpcurl .+)", _README)
    assert len(examples) == 2
    for example in examples:
        program, *arguments = shlex.split(_over(stack, example))
        answer = subprocess.run(
            [Path(sys.executable).parent / program, *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        assert answer.returncode == 0, answer.stderr
        assert json.loads(answer.stdout)


def test_the_curl_example_answers(stack: Stack) -> None:
    (body,) = re.findall(r"-d '(\{\n.*?\})' \|", _README, re.DOTALL)
    answer = httpx.post(f"{stack.url}/v1/recommendations", json=json.loads(body))
    assert answer.status_code == 200
    assert len(answer.json()["items"]) == json.loads(body)["k"]
    (shown,) = re.findall(r"json\.tool\n(\{.*?^\})", _README, re.DOTALL | re.MULTILINE)
    assert json.loads(shown).keys() == answer.json().keys()
    assert json.loads(shown)["items"][0].keys() == answer.json()["items"][0].keys()


def test_every_route_named_exists_and_every_route_is_named(client: httpx.Client) -> None:
    known = client.get("/openapi.json").json()["paths"].keys()
    named = set(re.findall(r"`(?:GET |POST )?(/[\w/{}.:]*)", _README))
    assert named - {"/docs"} == set(known)


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?://)([^)#]+)\)", page.read_text()):
        assert (page.parent / link).exists(), link


def test_every_setting_named_exists() -> None:
    known = {"TWOTOWER_BUNDLES", "TWOTOWER_CACHE"}
    known |= set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    for settings in (GatewaySettings, UserTowerSettings, RetrievalSettings):
        prefix = settings.model_config["env_prefix"]
        known |= {f"{prefix}{name}".upper() for name in settings.model_fields}
    assert set(re.findall(r"\b(?:GATEWAY|USER_TOWER|RETRIEVAL|TWOTOWER)_[A-Z_]*[A-Z]\b", _TEXT)) <= known


def test_every_metric_named_exists(client: httpx.Client) -> None:
    client.get("/v1/users/1/recommendations")
    exposed = client.get("/metrics").text
    for metric in set(re.findall(r"`(twotower_\w+)", _TEXT)):
        assert metric in exposed, metric
