"""`make push`: moto stands in for ECR's API, a registry of this machine for the one at its address."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from deployment.aws import CREDENTIALS, DENIED, HOST, PASSWORD, Aws
from deployment.engine import Engine
from services import ROOT, free_port

_numbers = count()


@dataclass
class Pusher:
    """Builds small images as `make images` names them, and pushes them, under a prefix of its own."""

    engine: Engine
    aws: Aws
    folder: Path
    prefix: str = field(default_factory=lambda: f"test{next(_numbers)}")
    built: set[str] = field(default_factory=set)
    """Ids: an image whose tag has gone to another must go too."""

    def __post_init__(self) -> None:
        # The registry's address resolves to AWS: this is the one place that has it resolve to here.
        self.docker = self.folder / "docker"
        self.docker.write_text(
            f'#!/bin/bash\nprintf "%s " "$@" >>{self.folder}/commands\n'
            f'exec {self.engine.docker} "${{@//{HOST}/{self.aws.registry}}}"\n'
        )
        self.docker.chmod(0o755)
        (self.folder / "tmp").mkdir()

    @property
    def address(self) -> str:
        return f"{HOST}/{self.prefix}"

    def build(
        self,
        *names: str,
        tag: str = "1.4",
        revision: str = "abc",
        content: str = "",
        platform: str = "linux/amd64",
    ) -> None:
        """Make images that hold one small file."""
        context = self.folder / "context"
        context.mkdir(exist_ok=True)
        for name in names:
            reference = f"{self.aws.registry}/{self.prefix}/{name}:{tag}"
            (context / "file").write_text(f"{reference} {content}")
            (context / "Dockerfile").write_text(
                f"FROM scratch\nCOPY file /\nLABEL org.opencontainers.image.revision={revision}\n"
            )
            self.engine.run("build", "--quiet", "--platform", platform, "--tag", reference, str(context))
            self.built.add(self.engine.inspect(reference)["Id"])

    def push(
        self,
        *names: str,
        registry: str = "",
        tag: str = "1.4",
        options: Sequence[str] = (),
        **changes: str,
    ) -> subprocess.CompletedProcess[str]:
        """`python -m deploy.ecr push`, with `changes` to its environment."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder / "tmp"),
            "DOCKER": str(self.docker),
            "AWS_ENDPOINT_URL": self.aws.url,
            "AWS_EC2_METADATA_DISABLED": "true",
            **{key: value for key, value in self.engine.environment.items() if key == "DOCKER_HOST"},
            **CREDENTIALS,
            **changes,
        }
        command = ["push", "--registry", registry or self.address, "--tag", tag, *options, *names]
        return subprocess.run(
            [sys.executable, "-m", "deploy.ecr", *command],
            cwd=ROOT,
            env={key: value for key, value in environment.items() if value},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def error(self, *names: str, **how: Any) -> str:
        """The one line that a push ends in."""
        ended = self.push(*names, **how)
        assert ended.returncode == 1, ended.stdout + ended.stderr
        line = ended.stderr.splitlines()[-1]
        assert line.startswith("error: "), ended.stderr
        assert "Traceback" not in ended.stderr
        assert not any((self.folder / "tmp").iterdir())
        return line


@pytest.fixture
def pusher(engine: Engine, aws: Aws, tmp_path: Path) -> Iterator[Pusher]:
    pusher = Pusher(engine, aws, tmp_path)
    yield pusher
    if pusher.built:
        engine.run("rmi", "--force", *sorted(pusher.built))


def addresses(pusher: Pusher, *names: str) -> dict[str, str]:
    """What the registry says that the images are."""
    return {
        name: f"{pusher.address}/{name}@"
        + pusher.aws.manifest(f"{pusher.prefix}/{name}", "1.4").headers["Docker-Content-Digest"]
        for name in names
    }


def test_images_are_pushed_and_named_by_digest(pusher: Pusher) -> None:
    pusher.build("gateway", "training")
    digests = pusher.folder / "digests.json"
    pushed = pusher.push("gateway", "training", options=["--digests", str(digests)])
    assert pushed.returncode == 0, pushed.stderr
    there = addresses(pusher, "gateway", "training")
    assert pushed.stdout.splitlines() == list(there.values())
    assert json.loads(digests.read_text()) == there
    assert "linux/amd64, revision abc" in pushed.stderr


def test_a_repository_is_created_with_our_settings(pusher: Pusher) -> None:
    pusher.build("gateway")
    assert pusher.push("gateway").returncode == 0
    name = f"{pusher.prefix}/gateway"
    repository = pusher.aws.repositories(pusher.prefix)[name]
    assert repository["imageTagMutability"] == "IMMUTABLE"
    assert repository["imageScanningConfiguration"] == {"scanOnPush": True}
    tags = pusher.aws.call("ListTagsForResource", resourceArn=repository["repositoryArn"])["tags"]
    assert {"Key": "application", "Value": "twotower"} in tags
    policy = pusher.aws.call("GetLifecyclePolicy", repositoryName=name)["lifecyclePolicyText"]
    untagged, tagged = (rule["selection"] for rule in json.loads(policy)["rules"])
    assert (untagged["tagStatus"], untagged["countType"]) == ("untagged", "sinceImagePushed")
    assert (tagged["tagPatternList"], tagged["countType"]) == (["*"], "imageCountMoreThan")


def test_a_repository_that_exists_is_left_as_it_is(pusher: Pusher) -> None:
    name = f"{pusher.prefix}/gateway"
    pusher.aws.call("CreateRepository", repositoryName=name)
    pusher.build("gateway")
    assert pusher.push("gateway").returncode == 0
    assert pusher.aws.repositories(pusher.prefix)[name]["imageTagMutability"] == "MUTABLE"
    assert "lifecyclePolicyText" not in pusher.aws.call("GetLifecyclePolicy", repositoryName=name)


def test_the_password_is_on_no_command_line_and_stays_nowhere(pusher: Pusher) -> None:
    pusher.build("gateway")
    pushed = pusher.push("gateway")
    commands = (pusher.folder / "commands").read_text()
    assert f"login --username AWS --password-stdin {HOST}" in commands
    for text in (commands, pushed.stdout, pushed.stderr):
        assert PASSWORD not in text
    assert not any((pusher.folder / "tmp").iterdir())
    assert not (pusher.folder / ".docker").exists()


def test_a_second_push_changes_nothing(pusher: Pusher) -> None:
    pusher.build("gateway")
    first = pusher.push("gateway")
    (pusher.folder / "commands").unlink()
    again = pusher.push("gateway")
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert "already there" in again.stderr
    assert " push " not in (pusher.folder / "commands").read_text()


def test_a_taken_tag_is_refused_before_anything_is_pushed(pusher: Pusher) -> None:
    pusher.build("training")
    assert pusher.push("training").returncode == 0
    before = addresses(pusher, "training")
    pusher.build("gateway", "training", content="changed")
    line = pusher.error("gateway", "training")
    assert before["training"].partition("@")[2] in line
    assert "choose another TAG" in line
    assert list(pusher.aws.repositories(pusher.prefix)) == [f"{pusher.prefix}/training"]
    assert addresses(pusher, "training") == before


@pytest.mark.parametrize(
    "address",
    ["twotower", "registry.example.com/twotower", "public.ecr.aws/x", f"{HOST}/", f"1{HOST}"],
)
def test_an_address_that_is_not_ecrs(pusher: Pusher, address: str) -> None:
    assert f"REGISTRY={address}: is not ECR's" in pusher.error("gateway", registry=address)


def test_an_address_without_a_region_is_not_ecrs(pusher: Pusher) -> None:
    line = pusher.error("gateway", registry="123456789012.dkr.ecr.amazonaws.com")
    assert "ACCOUNT.dkr.ecr.REGION.amazonaws.com" in line


def test_a_tag_that_moves(pusher: Pusher) -> None:
    assert "TAG=latest" in pusher.error("gateway", tag="latest")


def test_an_image_that_was_not_built(pusher: Pusher) -> None:
    pusher.build("gateway")
    line = pusher.error("gateway", "training")
    assert f"no image {pusher.address}/training:1.4" in line
    assert f"make images REGISTRY={pusher.address} TAG=1.4" in line
    assert pusher.aws.repositories(pusher.prefix) == {}


def test_an_image_of_what_is_not_committed(pusher: Pusher) -> None:
    pusher.build("gateway", revision="abc-dirty")
    assert "not committed" in pusher.error("gateway")


@pytest.mark.parametrize("revision", ["", "unknown"])
def test_an_image_of_nobody_knows_what(pusher: Pusher, revision: str) -> None:
    pusher.build("gateway", revision=revision)
    assert "does not say what it was built of" in pusher.error("gateway")


def test_images_of_different_revisions(pusher: Pusher) -> None:
    pusher.build("gateway")
    pusher.build("training", revision="def")
    assert "training:1.4 is of revision def, but gateway is of abc" in pusher.error(
        "gateway", "training"
    )


def test_an_image_for_another_processor(pusher: Pusher) -> None:
    pusher.build("gateway", platform="linux/arm64")
    line = pusher.error("gateway", options=["--arch", "amd64"])
    assert "is for linux/arm64, not for linux/amd64: `make images PLATFORM=linux/amd64`" in line
    accepted = pusher.push("gateway", options=["--arch", "arm64"])
    assert accepted.returncode == 0
    assert "linux/arm64" in accepted.stderr


def test_no_docker(pusher: Pusher) -> None:
    assert "Docker cannot be reached" in pusher.error(
        "gateway", DOCKER_HOST="unix:///nowhere/docker.sock"
    )
    assert "/nowhere/docker: no such file" in pusher.error("gateway", DOCKER="/nowhere/docker")


def test_no_credentials(pusher: Pusher) -> None:
    pusher.build("gateway")
    assert "no AWS credentials" in pusher.error("gateway", **dict.fromkeys(CREDENTIALS, ""))
    assert "profile (nobody)" in pusher.error("gateway", AWS_PROFILE="nobody")
    half = pusher.error("gateway", AWS_SECRET_ACCESS_KEY="")
    assert "Partial credentials" in half


def test_aws_cannot_be_reached(pusher: Pusher) -> None:
    pusher.build("gateway")
    url = f"http://127.0.0.1:{free_port()}"
    assert f"ECR cannot be reached at {url}" in pusher.error("gateway", AWS_ENDPOINT_URL=url)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("ExpiredTokenException", "the AWS credentials have expired"),
        ("UnrecognizedClientException", "AWS does not accept the credentials"),
        ("InvalidSignatureException", "this machine's clock"),
        ("AccessDeniedException", "no permission for ecr:BatchGetImage"),
        ("ServerException", "ECR refuses BatchGetImage: ServerException: no"),
    ],
)
def test_aws_refuses(pusher: Pusher, code: str, said: str) -> None:
    pusher.build("gateway")
    pusher.aws.refuse("BatchGetImage", code)
    assert said in pusher.error("gateway")


def test_ecr_has_an_image_but_does_not_show_it(pusher: Pusher) -> None:
    pusher.build("gateway")
    failure = {"failureCode": "KmsError", "failureReason": "the key is disabled"}
    pusher.aws.answers["BatchGetImage"] = (200, {"images": [], "failures": [failure]})
    line = pusher.error("gateway")
    assert f"ECR does not show {pusher.prefix}/gateway:1.4: KmsError: the key is disabled" in line


@pytest.mark.parametrize(
    ("action", "denied"),
    [
        ("DescribeRepositories", "ecr:DescribeRepositories"),
        ("CreateRepository", "ecr:CreateRepository"),
        ("CreateRepository", "ecr:TagResource"),
        ("GetAuthorizationToken", "ecr:GetAuthorizationToken"),
    ],
)
def test_the_action_that_is_denied_is_named(pusher: Pusher, action: str, denied: str) -> None:
    pusher.build("gateway")
    pusher.aws.refuse(action, "AccessDeniedException", DENIED.format(denied))
    line = pusher.error("gateway")
    assert f"no permission for {denied};" in line
    assert "docs/aws.md" in line


def test_a_repository_without_its_rules_is_said_to_be_so(pusher: Pusher) -> None:
    pusher.build("gateway")
    pusher.aws.refuse("PutLifecyclePolicy", "AccessDeniedException")
    line = pusher.error("gateway")
    assert f"the repository {pusher.prefix}/gateway was created, but without its lifecycle rules" in line
    assert "no permission for ecr:PutLifecyclePolicy" in line
    assert list(pusher.aws.repositories(pusher.prefix)) == [f"{pusher.prefix}/gateway"]


def test_a_registry_that_does_not_let_docker_in(pusher: Pusher) -> None:
    pusher.build("gateway")
    token = base64.b64encode(b"AWS:another").decode()
    pusher.aws.answers["GetAuthorizationToken"] = (
        200,
        {"authorizationData": [{"authorizationToken": token}]},
    )
    line = pusher.error("gateway")
    assert f"Docker cannot log in to {HOST}: " in line
    assert "401" in line


def test_a_push_that_is_denied_midway_says_what_is_there(pusher: Pusher) -> None:
    pusher.build("gateway", "training")
    refusing = pusher.folder / "refusing"
    refusing.write_text(
        '#!/bin/bash\nif [[ "$*" = *" push "*training* ]]; then\n'
        f'echo "denied: {DENIED.format("ecr:PutImage")}" >&2; exit 1\nfi\nexec {pusher.docker} "$@"\n'
    )
    refusing.chmod(0o755)
    ended = pusher.push("gateway", "training", DOCKER=str(refusing))
    assert ended.returncode == 1
    assert ended.stdout.splitlines() == list(addresses(pusher, "gateway").values())
    assert "training:1.4 was not pushed: no permission for ecr:PutImage" in ended.stderr.splitlines()[-1]
    whole = pusher.push("gateway", "training")
    assert whole.stdout.splitlines() == list(addresses(pusher, "gateway", "training").values())


@pytest.mark.parametrize(
    ("variables", "options"),
    [
        (["TAG=1"], "--tag 1"),
        (["PLATFORM=linux/arm64", "DIGESTS=out.json"], "--arch arm64 --digests out.json"),
    ],
)
def test_make_push_hands_its_variables_on(variables: Sequence[str], options: str) -> None:
    said = subprocess.run(
        ["make", "--dry-run", "push", f"REGISTRY={HOST}", *variables],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    command = " ".join(said.stdout.replace('"', "").replace("\\\n", " ").split())
    assert f"-m deploy.ecr push --registry {HOST}" in command
    assert options in command
    assert command.endswith("user_tower_svc retrieval_svc gateway training")
