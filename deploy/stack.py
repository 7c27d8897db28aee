"""`python -m deploy.stack deploy|release|destroy`: Twotower on one EC2 host, as a CloudFormation stack.

`deploy` makes the host, or changes it; `release` has it run another tag, which takes no new host. On
standard output is what comes of it, on standard error what is being done.
"""

from __future__ import annotations

import argparse
import gzip
import io
import re
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.exceptions import ClientError

from deploy.ecr import Ecr, Registry
from deploy.refusals import explained, one_line
from twotower.errors import OperationError, SettingsError
from twotower.process import run

if TYPE_CHECKING:  # the stubs are for the linter alone
    from types_boto3_cloudformation.type_defs import (
        ParameterTypeDef,
        StackEventTypeDef,
        StackTypeDef,
        TagTypeDef,
    )

_ROOT: Final = Path(__file__).parent.parent
_TEMPLATE: Final = _ROOT / "deploy" / "aws" / "template.yaml"
_RELEASED: Final = (
    "docker-compose.yml",
    "deploy/aws/compose.yml",
    "deploy/aws/host.sh",
    "deploy/compose",
    "deploy/secrets.sh",
)
"""What a host takes beside images: files, and folders of them."""

_IMAGES: Final = ("user_tower_svc", "retrieval_svc", "gateway")
_DEBIAN: Final = "/aws/service/debian/release/13/latest/{}"
_INSTANCE: Final = "t3.medium"
_ARCHITECTURES: Final = {"x86_64": "amd64", "arm64": "arm64"}
_HOST: Final = "/opt/twotower/app/deploy/aws/host.sh"
_NAMES: Final = {
    "STACK": (re.compile(r"[A-Za-z][A-Za-z0-9-]{0,127}"), "letters, digits and hyphens"),
    "TAG": (re.compile(r"(?!latest$)[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"), "a version, and not latest"),
}
"""The variables that are names: what they may be, and what that is called."""

_TAGS: Final[list[TagTypeDef]] = [
    {"Key": "application", "Value": "twotower"},
    {"Key": "managed-by", "Value": "twotower-make-deploy"},
]
_SETTLED: Final = frozenset({"CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"})
_POLL_SECONDS: Final = 3
_DELIVERY_SECONDS: Final = 60
_RELEASE_SECONDS: Final = 1_800


@dataclass(frozen=True)
class Place:
    """A prefix of S3, `s3://bucket` or `s3://bucket/prefix`."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, name: str, address: str) -> Place:
        """Read a setting. Raises SettingsError where it is no such address."""
        bucket, _, prefix = address.removeprefix("s3://").partition("/")
        if not address.startswith("s3://") or not bucket:
            raise SettingsError(f"{name}={address}: is not s3://BUCKET/PREFIX")
        return cls(bucket, prefix.strip("/"))

    def __str__(self) -> str:
        return f"s3://{self.key_of(self.bucket, self.prefix)}"

    def key(self, name: str) -> str:
        """The key of an object below it."""
        return self.key_of(self.prefix, name)

    @staticmethod
    def key_of(*parts: str) -> str:
        """The parts that are not empty, as one key."""
        return "/".join(part for part in parts if part)


class Stack:
    """A stack of CloudFormation. Every method raises OperationError where AWS refuses."""

    def __init__(self, session: boto3.Session, name: str) -> None:
        self.name = name
        with explained("CloudFormation"):
            self._client = session.client("cloudformation")

    def find(self) -> StackTypeDef | None:
        """What AWS knows of it; None where there is none."""
        with explained("CloudFormation"):
            try:
                return self._client.describe_stacks(StackName=self.name)["Stacks"][0]
            except ClientError as error:
                if "does not exist" in str(error):
                    return None
                raise

    def get(self) -> StackTypeDef:
        """The same, but where there is none, OperationError says so."""
        found = self.find()
        if found is None:
            region = self._client.meta.region_name
            raise OperationError(
                f"there is no stack {self.name} in {region}: make it (`make deploy`), "
                "or set AWS_DEFAULT_REGION to where it is"
            )
        return found

    def check_settled(self, found: StackTypeDef) -> None:
        """Raise OperationError where it cannot be changed, with what went wrong."""
        status = found["StackStatus"]
        if status.endswith("_IN_PROGRESS"):
            raise OperationError(f"the stack {self.name} is {status}: wait until that has ended")
        if status not in _SETTLED:
            fault = self._first_fault(list(self._events(found["StackId"])))
            raise OperationError(
                f"the stack {self.name} is {status} and cannot be changed ({fault}): "
                f"`make destroy STACK={self.name}` first"
            )

    def create(self, parameters: Sequence[ParameterTypeDef]) -> None:
        """Create it, and wait until the host answers. Raises OperationError with what went wrong."""
        with explained("CloudFormation"):
            made = self._client.create_stack(
                StackName=self.name,
                TemplateBody=_TEMPLATE.read_text(),
                Parameters=parameters,
                Capabilities=["CAPABILITY_IAM"],
                Tags=_TAGS,
                # A host that does not come up is left, to be looked into.
                OnFailure="DO_NOTHING",
            )
        self._follow(made["StackId"], set(), "CREATE_COMPLETE")

    def update(self, found: StackTypeDef, parameters: Sequence[ParameterTypeDef]) -> bool:
        """Change it, and wait; False where nothing changes.

        Raises OperationError with what went wrong; CloudFormation has then put back what was.
        """
        stack_id = found["StackId"]
        known = {event["EventId"] for event in self._events(stack_id)}
        with explained("CloudFormation"):
            try:
                self._client.update_stack(
                    StackName=self.name,
                    TemplateBody=_TEMPLATE.read_text(),
                    Parameters=parameters,
                    Capabilities=["CAPABILITY_IAM"],
                    Tags=_TAGS,
                )
            except ClientError as error:
                if "No updates are to be performed" in str(error):
                    return False
                raise
        self._follow(stack_id, known, "UPDATE_COMPLETE")
        return True

    def delete(self, found: StackTypeDef) -> None:
        """Delete it, and wait. Raises OperationError with what went wrong."""
        stack_id = found["StackId"]
        known = {event["EventId"] for event in self._events(stack_id)}
        with explained("CloudFormation"):
            self._client.delete_stack(StackName=stack_id)
        self._follow(stack_id, known, "DELETE_COMPLETE")

    def _follow(self, stack_id: str, known: set[str], wanted: str) -> None:
        """Say what happens until nothing more does."""
        happened: list[StackEventTypeDef] = []
        while True:
            with explained("CloudFormation"):
                status = self._client.describe_stacks(StackName=stack_id)["Stacks"][0]["StackStatus"]
            for event in self._events(stack_id):
                if event["EventId"] not in known:
                    known.add(event["EventId"])
                    happened.append(event)
                    _say(_shown(event))
            if not status.endswith("_IN_PROGRESS"):
                break
            time.sleep(_POLL_SECONDS)
        fault = self._first_fault(happened)
        if status == "UPDATE_ROLLBACK_COMPLETE":
            raise OperationError(f"the stack {self.name} is as it was before: {fault}")
        if status != wanted:
            raise OperationError(f"the stack {self.name} is {status}: {fault}")

    def _events(self, stack_id: str) -> Iterator[StackEventTypeDef]:
        """All of them, the oldest first."""
        with explained("CloudFormation"):
            pages = self._client.get_paginator("describe_stack_events").paginate(StackName=stack_id)
            events = [event for page in pages for event in page["StackEvents"]]
        return reversed(events)

    def _first_fault(self, events: Sequence[StackEventTypeDef]) -> str:
        """The first resource that failed, and why: what fails later is only cancelled for it."""
        for event in events:
            if event["ResourceStatus"].endswith("_FAILED"):
                return f"{event['LogicalResourceId']}: {one_line(event.get('ResourceStatusReason', ''))}"
        return "AWS gives no reason"


@dataclass(frozen=True)
class Wishes:
    """What `deploy` is asked for. What is None stays as it is, or is as the template has it."""

    registry: str
    tag: str
    bundles: str
    releases: str | None = None
    instance: str | None = None
    grpc: str | None = None
    clients: str | None = None
    subnet: str | None = None
    alarms: str | None = None
    image: str | None = None


def deploy(name: str, wishes: Wishes) -> str:
    """Make a stack, or change it, and return where it answers.

    Raises:
        SettingsError: a setting is not as it should be.
        OperationError: AWS refuses, or something that the host takes is missing.
    """
    session = _session()
    registry = Registry.parse(wishes.registry)
    if registry.region != session.region_name:
        raise SettingsError(
            f"REGISTRY is in {registry.region}, but the AWS region is {session.region_name}: "
            f"set AWS_DEFAULT_REGION={registry.region}"
        )
    bundles = Place.parse("BUNDLES", wishes.bundles)
    releases = Place.parse("RELEASES", wishes.releases or f"s3://{bundles.bucket}/releases")
    stack = Stack(session, name)
    found = stack.find()
    if found:
        stack.check_settled(found)
    _check_images(registry, wishes.tag)
    _check_model(session, bundles)
    chosen = {
        "Registry": registry.address,
        "RepositoryPrefix": registry.prefix,
        "Tag": wishes.tag,
        "Bundles": str(bundles),
        "Releases": str(releases),
        "PublishGrpc": wishes.grpc,
        "Clients": wishes.clients,
        "AlarmTopic": wishes.alarms,
        **_place_of_host(session, wishes, is_new=found is None),
    }
    _upload(session, releases, wishes.tag)
    if found is None:
        _say(f"creating the stack {name}: until its host answers, it takes about five minutes")
        stack.create(_given(chosen, {}))
        return _outputs(stack.get())["Url"]
    _say(f"changing the stack {name}")
    if not stack.update(found, _given(chosen, _parameters(found))):
        _say("there is nothing to change")
    before, after = _outputs(found), _outputs(stack.get())
    if after["InstanceId"] != before["InstanceId"]:
        _say(f"the host {before['InstanceId']} was replaced by {after['InstanceId']}")
    return after["Url"]


def release(name: str, tag: str) -> str:
    """Have a stack's host run another tag, and return what the host says.

    Raises OperationError where AWS refuses, or the host cannot do it; it then runs what it ran.
    """
    session = _session()
    stack = Stack(session, name)
    found = stack.get()
    stack.check_settled(found)
    parameters = _parameters(found)
    _check_images(Registry.parse(parameters["Registry"]), tag)
    host = _outputs(found)["InstanceId"]
    with explained("SSM"):
        ssm = session.client("ssm")
        known = ssm.describe_instance_information(Filters=[{"Key": "InstanceIds", "Values": [host]}])
    agents = known["InstanceInformationList"]
    if not agents or agents[0]["PingStatus"] != "Online":
        state = agents[0]["PingStatus"] if agents else "not known"
        raise OperationError(
            f"the SSM agent of the host {host} is {state}: docs/aws.md has what may be wrong"
        )
    _upload(session, Place.parse("RELEASES", parameters["Releases"]), tag)
    _say(f"releasing {tag} on {host}")
    with explained("SSM"):
        sent = ssm.send_command(
            InstanceIds=[host],
            DocumentName="AWS-RunShellScript",
            Comment=f"twotower release {tag}",
            TimeoutSeconds=_DELIVERY_SECONDS,
            Parameters={
                "commands": [f"{_HOST} release '{tag}'"],
                "executionTimeout": [str(_RELEASE_SECONDS)],
            },
        )
    return _outcome(ssm, sent["Command"]["CommandId"], host)


def destroy(name: str, *, yes: bool) -> None:
    """Delete a stack, once that is confirmed. Raises OperationError where it is not, or AWS refuses."""
    stack = Stack(_session(), name)
    found = stack.get()
    if not yes and not _confirmed(f"Delete the stack {name}, its host and its address? [y/N]"):
        raise OperationError("nothing was deleted; YES=1 answers beforehand")
    stack.delete(found)


def archive() -> bytes:
    """What a host takes beside images, as a tar archive that is the same for the same files."""
    content = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=content, mode="wb", mtime=0, filename="") as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for path in _released():
            entry = tarfile.TarInfo(path.relative_to(_ROOT).as_posix())
            entry.size = path.stat().st_size
            entry.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            tar.addfile(entry, io.BytesIO(path.read_bytes()))
    return content.getvalue()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. Raises OperationError, one line, where it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m deploy.stack", description="Twotower on EC2.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    deploying = commands.add_parser("deploy", help="make a stack, or change it")
    releasing = commands.add_parser("release", help="have a stack's host run another tag")
    destroying = commands.add_parser("destroy", help="delete a stack")
    for command in (deploying, releasing, destroying):
        command.add_argument("stack")
    for command in (deploying, releasing):
        command.add_argument("--tag", required=True, help="of the images")
    deploying.add_argument(
        "--registry", required=True, help="ACCOUNT.dkr.ecr.REGION.amazonaws.com[/PREFIX]"
    )
    deploying.add_argument(
        "--bundles", required=True, help="where models are published, s3://BUCKET/PREFIX"
    )
    deploying.add_argument(
        "--releases", help="where releases go (default: releases, in the same bucket)"
    )
    deploying.add_argument("--instance", help=f"the type, of the images' processor ({_INSTANCE})")
    deploying.add_argument(
        "--grpc", choices=["true", "false"], help="publish both gRPC services (false)"
    )
    deploying.add_argument("--clients", metavar="CIDR", help="who may ask (0.0.0.0/0)")
    deploying.add_argument("--subnet", help="a public subnet (one of the default VPC)")
    deploying.add_argument("--alarms", metavar="ARN", help="an SNS topic to send alarms to (none)")
    deploying.add_argument("--image", help="the SSM parameter that names the system's image (Debian's)")
    destroying.add_argument("--yes", action="store_true", help="do not ask")
    options = vars(parser.parse_args(arguments))
    command, name = options.pop("command"), options.pop("stack")
    _check_name("STACK", name)
    if "tag" in options:
        _check_name("TAG", options["tag"])
    if command == "deploy":
        print(deploy(name, Wishes(**options)))
    elif command == "release":
        print(release(name, **options))
    else:
        destroy(name, **options)
        print(
            f"{name} is deleted; what stays: the buckets with models and releases, and the images in ECR"
        )


def _session() -> boto3.Session:
    with explained("AWS"):
        session = boto3.Session()
        session.client("cloudformation")  # it says which region is missing
    return session


def _check_images(registry: Registry, tag: str) -> None:
    ecr = Ecr(registry)
    for name in _IMAGES:
        if ecr.find(f"{registry.prefix}{name}", tag) is None:
            raise OperationError(
                f"ECR has no {registry.address}/{name}:{tag}: "
                f"`make push REGISTRY={registry.address} TAG={tag}` puts it there"
            )


def _check_model(session: boto3.Session, bundles: Place) -> None:
    with explained("S3"):
        try:
            session.client("s3").head_object(Bucket=bundles.bucket, Key=bundles.key("current"))
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code == "404":
                raise OperationError(
                    f"no model is published at {bundles}: `python -m training publish {bundles}`"
                ) from error
            if code != "403":  # who may not look may deploy all the same
                raise


def _place_of_host(session: boto3.Session, wishes: Wishes, *, is_new: bool) -> dict[str, str | None]:
    """The type of the host, its system's image and its subnet."""
    instance = wishes.instance or (_INSTANCE if is_new else None)
    image, vpc = wishes.image, None
    with explained("EC2"):
        ec2 = session.client("ec2")
        if instance and not image:
            kinds: Any = ec2.describe_instance_types(InstanceTypes=[instance])["InstanceTypes"]  # type: ignore[list-item]
            (processor, *_) = kinds[0]["ProcessorInfo"]["SupportedArchitectures"]
            if processor not in _ARCHITECTURES:
                raise SettingsError(f"INSTANCE={instance}: there are no images for its processor")
            image = _DEBIAN.format(_ARCHITECTURES[processor])
        if wishes.subnet:
            vpc = ec2.describe_subnets(SubnetIds=[wishes.subnet])["Subnets"][0]["VpcId"]
    return {"InstanceType": instance, "Image": image, "Subnet": wishes.subnet, "Vpc": vpc}


def _upload(session: boto3.Session, releases: Place, tag: str) -> None:
    _say(f"uploading the release to {releases}/{tag}.tar.gz")
    with explained("S3"):
        session.client("s3").put_object(
            Bucket=releases.bucket, Key=releases.key(f"{tag}.tar.gz"), Body=archive()
        )


def _outcome(ssm: Any, command: str, host: str) -> str:
    """What a command said, once it has ended. Raises OperationError where it failed."""
    while True:
        with explained("SSM"):
            try:
                ended = ssm.get_command_invocation(CommandId=command, InstanceId=host)
            except ssm.exceptions.InvocationDoesNotExist:  # not yet
                ended = {"Status": "Pending"}
        if ended["Status"] not in ("Pending", "InProgress", "Delayed", "Cancelling"):
            break
        time.sleep(_POLL_SECONDS)
    said = str(ended["StandardOutputContent"]).strip()
    if ended["Status"] == "Success":
        return said
    if said:
        _say(said)
    complaints = str(ended["StandardErrorContent"]).strip().splitlines()
    # The agent adds a line of its own about the status.
    errors = [line for line in complaints if line.startswith("error: ")] or complaints
    fault = errors[-1].removeprefix("error: ") if errors else ended.get("StatusDetails", ended["Status"])
    raise OperationError(f"{host}: {fault}")


def _given(chosen: Mapping[str, str | None], kept: Mapping[str, str]) -> list[ParameterTypeDef]:
    """What is chosen, and of the rest what is kept."""
    wanted = {key: kept.get(key) if value is None else value for key, value in chosen.items()}
    return [
        {"ParameterKey": key, "ParameterValue": value}
        for key, value in wanted.items()
        if value is not None
    ]


def _parameters(found: StackTypeDef) -> dict[str, str]:
    return {given["ParameterKey"]: given["ParameterValue"] for given in found.get("Parameters", [])}


def _outputs(found: StackTypeDef) -> dict[str, str]:
    return {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", [])}


def _released() -> list[Path]:
    paths = [_ROOT / name for name in _RELEASED]
    files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*"))]
    return sorted(file for file in files if file.is_file())


def _shown(event: StackEventTypeDef) -> str:
    reason = one_line(event.get("ResourceStatusReason", ""))
    line = f"{event['LogicalResourceId']}: {event['ResourceStatus'].lower().replace('_', ' ')}"
    return f"{line}: {reason}" if event["ResourceStatus"].endswith("_FAILED") and reason else line


def _confirmed(question: str) -> bool:
    _say(question)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _check_name(variable: str, value: str) -> None:
    allowed, called = _NAMES[variable]
    if not allowed.fullmatch(value):
        raise SettingsError(f"{variable}={value}: set it to {called}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run(main)
