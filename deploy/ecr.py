"""`python -m deploy.ecr push`: put the images that `make images` built into Amazon ECR.

Whatever can be found wrong is found before anything is created or pushed. On standard output is a line
for each image, its address by digest; on standard error what is being done.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import boto3
from botocore.config import Config

from deploy.refusals import explained, permission_fault
from twotower.errors import OperationError, SettingsError
from twotower.files import check_writable, write_atomically
from twotower.process import run

if TYPE_CHECKING:  # the stubs are for the linter alone
    from types_boto3_ecr import ECRClient

_ECR_ADDRESS: Final = re.compile(
    r"(?P<host>(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?)(/(?P<prefix>.+))?"
)
# All that Docker pushes: ECR may turn what is not accepted into something else.
_MEDIA_TYPES: Final = [
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
]

_TAGS: Final = {"application": "twotower", "managed-by": "twotower-make-push"}
_UNTAGGED_DAYS: Final = 14
_TAGGED_IMAGES: Final = 50
_LIFECYCLE: Final = {
    "rules": [
        {
            "rulePriority": 1,
            "description": f"untagged images expire after {_UNTAGGED_DAYS} days",
            "selection": {
                "tagStatus": "untagged",
                "countType": "sinceImagePushed",
                "countUnit": "days",
                "countNumber": _UNTAGGED_DAYS,
            },
            "action": {"type": "expire"},
        },
        {
            "rulePriority": 2,
            "description": f"the last {_TAGGED_IMAGES} tagged images are kept",
            "selection": {
                "tagStatus": "tagged",
                "tagPatternList": ["*"],
                "countType": "imageCountMoreThan",
                "countNumber": _TAGGED_IMAGES,
            },
            "action": {"type": "expire"},
        },
    ]
}


@dataclass(frozen=True)
class Registry:
    """An account's ECR registry in one region, and the prefix of the repositories in it."""

    address: str
    host: str
    account: str
    region: str
    prefix: str

    @classmethod
    def parse(cls, address: str) -> Registry:
        """Read what `make push` has as REGISTRY. Raises SettingsError where it is not ECR's."""
        found = _ECR_ADDRESS.fullmatch(address)
        if found is None:
            raise SettingsError(
                f"REGISTRY={address}: is not ECR's; it should be "
                "ACCOUNT.dkr.ecr.REGION.amazonaws.com, or that with /PREFIX"
            )
        prefix = found["prefix"]
        return cls(
            address, found["host"], found["account"], found["region"], f"{prefix}/" if prefix else ""
        )


class Image(NamedTuple):
    """An image that Docker has. `id` is the digest of its configuration, or of its manifest."""

    name: str
    reference: str
    id: str
    platform: str
    revision: str


class Pushed(NamedTuple):
    """An image that ECR has under a tag."""

    digest: str
    configuration: str

    def is_of(self, image: Image) -> bool:
        """Whether it is that very image, by what Docker calls it: its own store, or containerd's."""
        return image.id in self


class Docker:
    """The docker command (`DOCKER`), with a configuration of its own in `folder`.

    The user's configuration keeps no password of ours, and no credential helper of the user's is asked.
    """

    def __init__(self, folder: Path) -> None:
        """Find the engine.

        Raises:
            SettingsError: there is no such command.
            OperationError: no engine answers.
        """
        self._command = shlex.split(os.environ.get("DOCKER", "docker"))
        # The engine is known from the user's configuration, which the folder replaces.
        endpoint = self._call(
            "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"
        ).stdout.strip()
        self._command += ["--config", str(folder), "--host", endpoint]
        answer = self._call("version", "--format", "{{.Server.Version}}")
        if answer.returncode:
            raise OperationError(f"Docker cannot be reached: {_last_line(answer.stderr)}")

    def image(self, registry: Registry, name: str, tag: str) -> Image:
        """An image that `make images` built. Raises OperationError where there is none."""
        reference = f"{registry.address}/{name}:{tag}"
        answer = self._call("image", "inspect", reference)
        if answer.returncode:
            build = f"make images REGISTRY={registry.address} TAG={tag}"
            raise OperationError(f"Docker has no image {reference}: `{build}` builds it")
        (found,) = json.loads(answer.stdout)
        labels = found["Config"]["Labels"] or {}
        return Image(
            name,
            reference,
            found["Id"],
            f"{found['Os']}/{found['Architecture']}",
            labels.get("org.opencontainers.image.revision", "unknown"),
        )

    def log_in(self, host: str, password: str) -> None:
        """Raises OperationError where the registry does not let us in, or is not there."""
        answer = self._call("login", "--username", "AWS", "--password-stdin", host, stdin=password)
        if answer.returncode:
            raise OperationError(f"Docker cannot log in to {host}: {_last_line(answer.stderr)}")

    def push(self, image: Image) -> None:
        """Raises OperationError where the registry does not take all of it."""
        answer = self._call("push", image.reference, show=True)
        if answer.returncode:
            fault = permission_fault(answer.stderr) or _last_line(answer.stderr)
            raise OperationError(f"{image.reference} was not pushed: {fault}")

    def _call(
        self, *arguments: str, stdin: str | None = None, show: bool = False
    ) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [*self._command, *arguments],
                input=stdin,
                stdout=sys.stderr if show else subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        except OSError as error:
            fault = f"{self._command[0]}: {(error.strerror or '').lower()}"
            raise SettingsError(f"{fault}; install Docker, or set DOCKER to what runs it") from error


class Ecr:
    """What of ECR's API a push takes. Every method raises OperationError where AWS refuses."""

    def __init__(self, registry: Registry) -> None:
        self._account = registry.account
        with explained("ECR"):
            # The region of the address, whatever the environment says: there lies the registry.
            self._client: ECRClient = boto3.client(
                "ecr",
                region_name=registry.region,
                config=Config(retries={"mode": "standard"}, connect_timeout=10),
            )

    def find(self, repository: str, tag: str) -> Pushed | None:
        """The image of that tag; None where there is none, or no repository."""
        with explained("ECR"):
            try:
                answer = self._client.batch_get_image(
                    registryId=self._account,
                    repositoryName=repository,
                    imageIds=[{"imageTag": tag}],
                    acceptedMediaTypes=_MEDIA_TYPES,
                )
            except self._client.exceptions.RepositoryNotFoundException:
                return None
        for failure in answer["failures"]:
            if failure["failureCode"] == "ImageNotFound":
                return None
            fault = f"{failure['failureCode']}: {failure['failureReason']}"
            raise OperationError(f"ECR does not show {repository}:{tag}: {fault}")
        found = answer["images"][0]
        manifest = json.loads(found["imageManifest"])
        return Pushed(found["imageId"]["imageDigest"], manifest.get("config", {}).get("digest", ""))

    def ensure_repository(self, repository: str) -> None:
        """Create a repository, unless it exists; then its settings are its owner's."""
        with explained("ECR"):
            try:
                self._client.describe_repositories(
                    registryId=self._account, repositoryNames=[repository]
                )
            except self._client.exceptions.RepositoryNotFoundException:
                self._create_repository(repository)

    def _create_repository(self, repository: str) -> None:
        _say(f"creating the repository {repository}")
        self._client.create_repository(
            registryId=self._account,
            repositoryName=repository,
            imageTagMutability="IMMUTABLE",
            imageScanningConfiguration={"scanOnPush": True},
            tags=[{"Key": key, "Value": value} for key, value in _TAGS.items()],
        )
        try:
            with explained("ECR"):
                self._client.put_lifecycle_policy(
                    registryId=self._account,
                    repositoryName=repository,
                    lifecyclePolicyText=json.dumps(_LIFECYCLE),
                )
        except OperationError as error:
            raise OperationError(
                f"the repository {repository} was created, but without its lifecycle rules ({error}); "
                "delete it, and push again"
            ) from error

    def password(self) -> str:
        """What Docker logs in with, as the user AWS; good for twelve hours."""
        with explained("ECR"):
            answer = self._client.get_authorization_token()
        token = base64.b64decode(answer["authorizationData"][0]["authorizationToken"])
        return token.decode().partition(":")[2]


def push(address: str, tag: str, names: Sequence[str], architecture: str | None) -> dict[str, str]:
    """Push what is not there yet, and return each image's address by digest.

    Raises:
        SettingsError: the registry is not ECR's, or the tag is one that moves.
        OperationError: Docker or AWS cannot do it, an image should not be pushed, or its tag is taken.
    """
    registry = Registry.parse(address)
    if tag == "latest":
        raise SettingsError("TAG=latest: a tag stays with its image here; set TAG to a version")
    with tempfile.TemporaryDirectory(prefix="twotower-") as folder:
        docker = Docker(Path(folder))
        images = [docker.image(registry, name, tag) for name in names]
        _check(images, architecture)
        ecr = Ecr(registry)
        repositories = {image: f"{registry.prefix}{image.name}" for image in images}
        there = {image: ecr.find(repositories[image], tag) for image in images}
        for image, pushed in there.items():
            if pushed and not pushed.is_of(image):
                raise OperationError(
                    f"{image.reference} is another image already, {pushed.digest}; choose another TAG"
                )
        absent = [image for image, pushed in there.items() if pushed is None]
        for image in absent:
            ecr.ensure_repository(repositories[image])
        if absent:
            docker.log_in(registry.host, ecr.password())
        addresses = {}
        for image, pushed in there.items():
            what = f"{image.reference} ({image.platform}, revision {image.revision[:12]})"
            if pushed:
                _say(f"already there: {what}")
            else:
                _say(f"pushing {what}")
                docker.push(image)
                pushed = ecr.find(repositories[image], tag)  # noqa: PLW2901
                if pushed is None or not pushed.is_of(image):
                    raise OperationError(f"{image.reference} was pushed, but ECR does not show it so")
            addresses[image.name] = f"{registry.address}/{image.name}@{pushed.digest}"
            print(addresses[image.name], flush=True)
        return addresses


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. Raises OperationError, one line, where it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m deploy.ecr", description="Amazon ECR.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    pushing = commands.add_parser("push", help="push images that were built, unless they are there")
    pushing.add_argument("names", nargs="+", metavar="IMAGE", help="such as gateway")
    pushing.add_argument(
        "--registry", required=True, help="ACCOUNT.dkr.ecr.REGION.amazonaws.com[/PREFIX]"
    )
    pushing.add_argument("--tag", required=True, help="the images' tag; it stays with them for good")
    pushing.add_argument("--arch", metavar="A", help="push for this processor only, such as arm64")
    pushing.add_argument(
        "--digests", type=Path, metavar="FILE", help="write the addresses there, as JSON"
    )
    options = parser.parse_args(arguments)
    if options.digests:
        if options.digests.is_dir():
            raise SettingsError(f"--digests {options.digests} is a folder; name a file")
        check_writable(options.digests.parent)
    addresses = push(options.registry, options.tag, options.names, options.arch)
    if options.digests:
        write_atomically(options.digests, json.dumps(addresses, indent=1).encode() + b"\n")


def _check(images: Sequence[Image], architecture: str | None) -> None:
    for image in images:
        if architecture and image.platform != f"linux/{architecture}":
            build = f"make images PLATFORM=linux/{architecture}"
            raise OperationError(
                f"{image.reference} is for {image.platform}, not for linux/{architecture}: `{build}`"
            )
        if image.revision in ("", "unknown"):
            raise OperationError(
                f"{image.reference} does not say what it was built of: build it by `make images`, in a "
                "repository that git can read"
            )
        if image.revision.endswith("-dirty"):
            raise OperationError(
                f"{image.reference} was built of files that are not committed; commit, and build again"
            )
        if image.revision != images[0].revision:
            raise OperationError(
                f"{image.reference} is of revision {image.revision[:12]}, but {images[0].name} is of "
                f"{images[0].revision[:12]}; build all of them again"
            )


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run(main)
