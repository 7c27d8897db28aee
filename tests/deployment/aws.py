"""A stand-in for AWS, moto for its APIs and a registry for ECR's, and who deploys to it."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from shutil import which
from typing import Any
from urllib.parse import parse_qs

import boto3
import httpx
import yaml

from deployment.engine import missing
from services import NO_TLS, ROOT, free_port, wait_until

REGION = "eu-central-1"
HOST = f"123456789012.dkr.ecr.{REGION}.amazonaws.com"
PASSWORD = "123456789012-auth-token"  # noqa: S105 - moto's own for this account
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
REGISTRY = f"{HOST}/twotower"
TEMPLATE = ROOT / "deploy" / "aws" / "template.yaml"
DEBIAN = "/debian/13"
"""What stands for Debian's public parameter: moto lets no one make one below /aws."""
DENIED = (
    "User: arn:aws:iam::123456789012:user/ci is not authorized to perform: {} on resource: "
    "arn:aws:ecr:eu-central-1:123456789012:repository/gateway because no identity-based policy allows it"
)
_MANIFESTS = [
    f"application/vnd.{kind}+json"
    for kind in (
        "docker.distribution.manifest.v2",
        "docker.distribution.manifest.list.v2",
        "oci.image.manifest.v1",
        "oci.image.index.v1",
    )
]

_numbers = count()

Answer = tuple[int, Any]
"""A status, and what becomes JSON, or is XML."""


@dataclass
class Aws:
    """AWS's APIs, the registry at ECR's address, and what the APIs are told to answer instead."""

    moto: str
    registry: str
    url: str = ""
    answers: dict[str, Answer | Callable[[], Answer | None]] = field(default_factory=dict)
    """By action: what is answered in place of moto, unless that is None."""

    def call(self, action: str, **body: Any) -> Any:
        """What moto says to one action of ECR."""
        answer = httpx.post(
            self.moto,
            json=body,
            headers={
                "X-Amz-Target": f"AmazonEC2ContainerRegistry_V20150921.{action}",
                "Content-Type": "application/x-amz-json-1.1",
                # Moto takes the region from it, and checks nothing.
                "Authorization": f"AWS4-HMAC-SHA256 Credential=a/20260101/{REGION}/ecr/aws4_request",
            },
            verify=NO_TLS,
            trust_env=False,
        )
        return answer.json()

    def repositories(self, prefix: str) -> dict[str, dict[str, Any]]:
        found = self.call("DescribeRepositories")["repositories"]
        return {
            one["repositoryName"]: one for one in found if one["repositoryName"].startswith(f"{prefix}/")
        }

    def manifest(
        self, repository: str, tag: str, accepted: Sequence[str] = _MANIFESTS
    ) -> httpx.Response:
        """What the registry has under a tag."""
        return httpx.get(
            f"http://{self.registry}/v2/{repository}/manifests/{tag}",
            headers={"Accept": ", ".join(accepted)},
            auth=("AWS", PASSWORD),
            verify=NO_TLS,
            trust_env=False,
        )

    def refuse(self, action: str, code: str, message: str = "no") -> None:
        self.answers[action] = (400, {"__type": code, "message": message})

    def answer(self, action: str) -> Answer | None:
        told = self.answers.get(action)
        return told() if callable(told) else told


class Api(BaseHTTPRequestHandler):
    """AWS's APIs: moto's, but that an image is there once it is in the registry."""

    def __init__(self, aws: Aws, *arguments: Any) -> None:
        self.aws = aws
        super().__init__(*arguments)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        target = self.headers["X-Amz-Target"]
        action = target.rpartition(".")[2] if target else parse_qs(body.decode())["Action"][0]
        status, answer = self.aws.answer(action) or self._ask(action, body)
        content = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1" if target else "text/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _ask(self, action: str, body: bytes) -> Answer:
        headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
        moto = httpx.post(
            self.aws.moto, content=body, headers=headers, verify=NO_TLS, trust_env=False, timeout=30
        )
        if action != "BatchGetImage" or moto.is_error:
            return moto.status_code, moto.text
        asked = json.loads(body)
        (image_id,) = asked["imageIds"]
        found = self.aws.manifest(
            asked["repositoryName"], image_id["imageTag"], asked["acceptedMediaTypes"]
        )
        if found.is_error:
            return moto.status_code, moto.text
        digest = found.headers["Docker-Content-Digest"]
        image = {"imageId": {**image_id, "imageDigest": digest}, "imageManifest": found.text}
        return 200, {"images": [image], "failures": []}

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        """Say nothing."""


@contextmanager
def running(command: Sequence[str], url: str, log: Path, **environment: str) -> Iterator[None]:
    """A server, until the block ends."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env={**os.environ, **environment}, start_new_session=True
        )

    def answers() -> bool:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            return bool(httpx.get(url, verify=NO_TLS, trust_env=False).status_code)
        except httpx.TransportError:
            return False

    try:
        wait_until(answers, f"{command[0]} answering", 60)
        yield
    finally:
        process.terminate()
        process.wait(timeout=20)


@contextmanager
def running_moto(address: str, folder: Path) -> Iterator[str]:
    """The URL of a moto of its own, on an address of this machine."""
    server = Path(sysconfig.get_path("scripts")) / "moto_server"
    if not server.exists():
        missing("moto is not installed: `make test-deploy` does it")
    port = free_port()
    url = f"http://{address}:{port}/"
    with running([str(server), "-H", address, "-p", str(port)], f"{url}moto-api/", folder / "log"):
        yield url


@contextmanager
def running_registry(folder: Path) -> Iterator[str]:
    """The address of a registry that lets in who has moto's password."""
    if not which("docker-registry") or not which("htpasswd"):
        missing("there is no registry; Debian has it in docker-registry, and htpasswd in apache2-utils")
    address = f"127.0.0.1:{free_port()}"
    users = subprocess.run(
        ["htpasswd", "-niB", "AWS"], input=PASSWORD, capture_output=True, text=True, check=True
    )
    (folder / "htpasswd").write_text(users.stdout)
    settings = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(folder / "images")}},
        "http": {"addr": address},
        "auth": {"htpasswd": {"realm": "twotower", "path": str(folder / "htpasswd")}},
    }
    (folder / "config.yml").write_text(json.dumps(settings))
    command = ["docker-registry", "serve", str(folder / "config.yml")]
    with running(command, f"http://{address}/v2/", folder / "log"):
        yield address


@contextmanager
def running_aws(moto: str, registry: str) -> Iterator[Aws]:
    """Both of them as one."""
    aws = Aws(moto, registry)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Api, aws))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    aws.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield aws
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Operator:
    """Runs `python -m deploy.stack` as someone at a terminal does."""

    aws: Aws
    folder: Path
    name: str = field(default_factory=lambda: f"movies{next(_numbers)}")

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "AWS_ENDPOINT_URL": self.aws.url,
            # Objects are not turned into anything else on the way.
            "AWS_ENDPOINT_URL_S3": self.aws.moto,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            **CREDENTIALS,
        }

    def client(self, service: str) -> Any:
        return boto3.client(  # type: ignore[call-overload]
            service,
            endpoint_url=self.aws.moto,
            region_name=REGION,
            aws_access_key_id="test",
            aws_secret_access_key="test",  # noqa: S106
        )

    def prepare(self) -> None:
        """What one has before a deployment: a bucket with a model, images, and the system's image."""
        place = {"LocationConstraint": REGION}
        self.client("s3").create_bucket(Bucket=self.name, CreateBucketConfiguration=place)
        self.client("s3").put_object(Bucket=self.name, Key="models/current", Body=b"{}")
        self.client("ssm").put_parameter(
            Name=DEBIAN, Value="ami-12345678", Type="String", Overwrite=True
        )
        self.aws.answers["BatchGetImage"] = (
            200,
            {
                "images": [{"imageId": {"imageDigest": "sha256:1"}, "imageManifest": "{}"}],
                "failures": [],
            },
        )

    def run(self, *arguments: str, stdin: str = "", **changes: str) -> subprocess.CompletedProcess[str]:
        environment = {**self.environment, **changes}
        return subprocess.run(
            [sys.executable, "-m", "deploy.stack", *arguments],
            cwd=ROOT,
            env={key: value for key, value in environment.items() if value},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def deploy(
        self,
        *options: str,
        registry: str = REGISTRY,
        tag: str = "1.4",
        bundles: str = "",
        **changes: str,
    ) -> subprocess.CompletedProcess[str]:
        where = ["--registry", registry, "--bundles", bundles or f"s3://{self.name}/models"]
        image = [] if "--image" in options else ["--image", DEBIAN]
        return self.run("deploy", self.name, "--tag", tag, *where, *image, *options, **changes)

    def stack(self) -> dict[str, Any]:
        (found,) = self.client("cloudformation").describe_stacks(StackName=self.name)["Stacks"]
        return dict(found)

    def parameters(self) -> dict[str, str]:
        return {one["ParameterKey"]: one["ParameterValue"] for one in self.stack()["Parameters"]}

    def outputs(self) -> dict[str, str]:
        return {one["OutputKey"]: one["OutputValue"] for one in self.stack()["Outputs"]}


def user_data(operator: Operator) -> dict[str, Any]:
    """The cloud-config of the host that moto made."""
    ec2 = operator.client("ec2")
    texts = [
        base64.b64decode(version["LaunchTemplateData"]["UserData"]).decode()
        for made in ec2.describe_launch_templates()["LaunchTemplates"]
        for version in ec2.describe_launch_template_versions(
            LaunchTemplateId=made["LaunchTemplateId"], Versions=["$Latest"]
        )["LaunchTemplateVersions"]
    ]
    (text,) = (text for text in texts if f"STACK={operator.name}\n" in text)
    assert text.startswith("#cloud-config\n")
    return dict(yaml.safe_load(text))


def written(config: Mapping[str, Any]) -> dict[str, str]:
    """The files of a cloud-config."""
    return {one["path"]: one["content"] for one in config["write_files"]}
