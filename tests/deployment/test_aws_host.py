"""The scripts of a host on EC2, run for real: moto is AWS, and the engine runs the images that serve.

What is run is what moto has as the host's user data, but for packages and systemd.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import yaml

from conftest import Trained
from deploy import stack as stacks
from deployment.aws import (
    CREDENTIALS,
    DEBIAN,
    PASSWORD,
    REGION,
    TEMPLATE,
    Aws,
    Operator,
    running_moto,
    user_data,
    written,
)
from deployment.engine import SERVING, Engine, missing
from deployment.load import under_load
from services import NO_TLS, ROOT, free_port, wait_until
from twotower.promotion import promote
from twotower.v1 import embedding_pb2 as pb
from twotower.v1 import user_tower_pb2, user_tower_pb2_grpc

pytestmark = pytest.mark.timeout(1_800)
_PROJECT = "twotower-host"


@dataclass
class Host:
    """What user data makes of a machine, in a folder of its own: without packages and systemd."""

    engine: Engine
    folder: Path
    moto: str
    registry: str
    pusher: Path
    """Docker's configuration of who pushes, which is not the host."""
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        login = base64.b64encode(f"AWS:{PASSWORD}".encode()).decode()
        config = {"auths": {self.registry: {"auth": login}}}
        (self.pusher / "config.json").write_text(json.dumps(config))
        (self.folder / "tmp").mkdir()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def run(self, script: str, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        docker = Path(self.engine.docker).parent
        return subprocess.run(
            [self.folder / script, *arguments],
            env={
                **self.engine.environment,
                **CREDENTIALS,
                "PATH": f"{docker}:{os.environ['PATH']}",
                "AWS_ENDPOINT_URL": self.moto,
                "TMPDIR": str(self.folder / "tmp"),
                "TWOTOWER_HOME": str(self.folder),
                "TWOTOWER_ADDRESS": "127.0.0.1",
                "TWOTOWER_PORT": str(self.port),
                "COMPOSE_PROJECT_NAME": _PROJECT,
                **changes,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    def do(self, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run `host.sh` of the release that runs."""
        return self.run("app/deploy/aws/host.sh", *arguments, **changes)

    def containers(self) -> dict[str, str]:
        """The services of the containers that run, by id."""
        shown = self.engine.run(
            *("ps", "--no-trunc", "--filter", f"label=com.docker.compose.project={_PROJECT}"),
            *("--format", '{{.ID}} {{.Label "com.docker.compose.service"}}'),
        )
        return dict(line.split() for line in shown.splitlines())

    def tags(self) -> set[str]:
        """The tags of the images that our services run."""
        return {
            self.engine.inspect(container)["Config"]["Image"].rpartition(":")[2]
            for container, service in self.containers().items()
            if service in SERVING
        }

    def push(self, images: Mapping[str, str], tag: str, broken: Sequence[str] = ()) -> None:
        """Put images into the registry, each tag's its own."""
        for name in SERVING:
            end = '\nENTRYPOINT ["python", "-c", "exit(\'broken\')"]' if name in broken else ""
            image = f"{self.registry}/twotower/{name}:{tag}"
            (self.pusher / "Dockerfile").write_text(f"FROM {images[name]}\nLABEL of={tag}{end}\n")
            self.engine.run("build", "--quiet", "--tag", image, str(self.pusher))
            self.engine.run("--config", str(self.pusher), "push", "--quiet", image)
        self.forget(tag)
        self.client("s3").put_object(
            Bucket="movies", Key=f"releases/{tag}.tar.gz", Body=stacks.archive()
        )

    def forget(self, tag: str) -> None:
        """Remove a tag's images from the engine: they are to be pulled."""
        self.engine.run("rmi", *(f"{self.registry}/twotower/{name}:{tag}" for name in SERVING))

    def client(self, service: str) -> Any:
        return Operator(Aws(self.moto, self.registry), self.folder).client(service)


@pytest.fixture(scope="module")
def host(  # noqa: PLR0917 - pytest names them
    engine: Engine,
    images: Mapping[str, str],
    envoy_image: str,
    trained: Trained,
    registry: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Host]:
    """A host of a stack that moto made, before its first start. Containers reach moto at the bridge."""
    if not shutil.which("aws"):
        missing("there is no aws command; Debian has it in awscli")
    bridge = engine.run("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}")
    folder = tmp_path_factory.mktemp("host")
    with running_moto(bridge, tmp_path_factory.mktemp("moto")) as moto:
        host = Host(engine, folder, moto, registry, tmp_path_factory.mktemp("pusher"))
        operator = Operator(Aws(moto, registry), folder, "movies")
        operator.prepare()
        operator.client("s3").delete_object(Bucket="movies", Key="models/current")  # a real one follows
        host.push(images, "1.4")
        bundles = trained.copy(folder / "bundles", trained.first)
        publish(host, bundles)
        operator.client("cloudformation").create_stack(
            StackName="movies",
            TemplateBody=TEMPLATE.read_text(),
            Parameters=[
                {"ParameterKey": key, "ParameterValue": value}
                for key, value in {
                    "Registry": f"{registry}/twotower",
                    "Tag": "1.4",
                    "Bundles": "s3://movies/models",
                    "Releases": "s3://movies/releases",
                    "Image": DEBIAN,
                    "InstanceType": "t3.medium",
                }.items()
            ],
        )
        files = written(user_data(operator))
        for name in ("env", "start"):
            (folder / name).write_text(files[f"/opt/twotower/{name}"])
        (folder / "start").chmod(0o755)
        reach = {"AWS_ENDPOINT_URL": moto, **CREDENTIALS}
        local = {
            "user_tower_svc": {"environment": {**reach, "USER_TOWER_MAX_CONNECTION_AGE_SECONDS": "5"}},
            "retrieval_svc": {"environment": {**reach, "RETRIEVAL_MAX_CONNECTION_AGE_SECONDS": "5"}},
            "edge": {"image": envoy_image},
            "grpc_edge": {"image": envoy_image},
        }
        (folder / "local.yml").write_text(yaml.safe_dump({"services": local}))
        try:
            yield host
        finally:
            of_project = ("--quiet", "--filter", f"label=com.docker.compose.project={_PROJECT}")
            for kind, remove in (("ps", ("rm", "--force")), ("volume", ()), ("network", ())):
                listing = ("ps", "--all") if kind == "ps" else (kind, "ls")
                if found := engine.run(*listing, *of_project).split():
                    engine.run(*(remove or (kind, "rm")), *found)
            if found := engine.run("images", "--quiet", f"{registry}/twotower/*").split():
                engine.run("rmi", "--force", *sorted(set(found)))


def publish(host: Host, bundles: Path) -> None:
    """Put the promoted model of a folder into S3."""
    published = subprocess.run(
        [
            *(sys.executable, "-m", "training", "publish"),
            *("--bundles", str(bundles), "s3://movies/models"),
        ],
        cwd=ROOT,
        env={
            **os.environ,
            **CREDENTIALS,
            "AWS_ENDPOINT_URL": host.moto,
            "AWS_DEFAULT_REGION": REGION,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert published.returncode == 0, published.stderr


def recommended(host: Host) -> dict[str, Any]:
    answer = httpx.post(
        f"{host.url}/v1/recommendations",
        json={"ratings": [{"movie_id": 1, "rating": 5}], "k": 3},
        verify=NO_TLS,
        trust_env=False,
        timeout=10,
    )
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.fixture(scope="module")
def started(host: Host) -> Host:
    ended = host.run("start")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return host


class TestHost:
    """In this order: each goes on with what the one before has left."""

    def test_the_start_script_brings_the_stack_up(self, host: Host, trained: Trained) -> None:
        ended = host.run("start")
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert ended.stdout.splitlines()[-1] == "1.4 runs"
        assert set(host.containers().values()) == {*SERVING, "edge"}
        assert host.tags() == {"1.4"}
        answer = recommended(host)
        assert len(answer["items"]) == 3
        assert answer["model_version"] == trained.first

    def test_a_second_run_changes_nothing(self, started: Host) -> None:
        before = started.containers()
        ended = started.run("start")
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert started.containers() == before

    def test_its_state_is_shown_and_reported(self, started: Host) -> None:
        shown = started.do("status")
        assert shown.returncode == 0, shown.stderr
        assert shown.stdout.startswith("tag: 1.4\n")
        assert started.do("report").returncode == 0
        assert started.do("report", TWOTOWER_PORT=str(free_port())).returncode == 0
        found = started.client("cloudwatch").get_metric_statistics(
            Namespace="Twotower",
            MetricName="Unhealthy",
            Dimensions=[{"Name": "Stack", "Value": "movies"}],
            StartTime="2020-01-01",
            EndTime="2100-01-01",
            Period=86_400 * 365 * 100,
            Statistics=["Minimum", "Maximum"],
        )["Datapoints"]
        assert {value for point in found for value in (point["Minimum"], point["Maximum"])} == {0, 1}

    def test_a_retrained_model_arrives_without_new_images(self, started: Host, trained: Trained) -> None:
        before = started.containers()
        bundles = started.folder / "bundles"
        promote(bundles, trained.second)
        publish(started, bundles)
        wait_until(lambda: recommended(started)["model_version"] == trained.second, "the new model", 60)
        assert started.containers() == before

    def test_a_release_replaces_every_service_without_losing_a_request(
        self, started: Host, images: Mapping[str, str]
    ) -> None:
        started.push(images, "1.5")
        before = started.containers()
        with under_load(started.url) as load:
            time.sleep(2)
            ended = started.do("release", "1.5")
            time.sleep(2)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert ended.stdout.splitlines()[-1] == "1.5 runs in place of 1.4"
        kept = set(before) & set(started.containers())
        assert {before[container] for container in kept} == {"edge"}
        assert started.tags() == {"1.5"}
        assert load.failed == {}
        assert load.outcomes["200"] > 500
        print(json.dumps(load.outcomes))  # noqa: T201

    def test_after_a_release_the_start_script_changes_nothing(self, started: Host) -> None:
        before = started.containers()
        ended = started.run("start")
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert ended.stdout.splitlines()[-1] == "1.5 runs"
        assert started.containers() == before

    @pytest.mark.parametrize("broken", ["user_tower_svc", "gateway"])
    def test_a_release_of_a_broken_image_goes_back_by_itself(
        self, started: Host, images: Mapping[str, str], broken: str
    ) -> None:
        tag = f"1.6-{broken}"
        started.push(images, tag, [broken])
        with under_load(started.url) as load:
            ended = started.do("release", tag, PATIENCE_SECONDS="25")
        assert ended.returncode == 1, ended.stdout
        assert ended.stderr.splitlines()[-1] == (
            f"error: not released: {broken} is not healthy; 1.5 runs as before"
        )
        # There and back are up to four replacements in a row, with connections renewed all the time: now
        # and then all attempts of a call meet a replica that comes or goes.
        print(json.dumps(load.outcomes))  # noqa: T201
        assert sum(load.failed.values()) <= load.outcomes["200"] / 500
        assert started.tags() == {"1.5"}
        assert sorted(started.containers().values()) == sorted((*SERVING, "edge"))
        assert started.do("status").stdout.startswith("tag: 1.5\n")

    def test_a_tag_that_was_not_pushed_changes_nothing(self, started: Host) -> None:
        before = started.containers()
        ended = started.do("release", "9")
        assert "error: s3://movies/releases/9.tar.gz cannot be fetched" in ended.stderr
        key = {"Bucket": "movies", "Key": "releases/9.tar.gz"}
        started.client("s3").put_object(**key, Body=stacks.archive())
        ended = started.do("release", "9")
        assert ended.returncode == 1
        assert ended.stderr.splitlines()[-1].endswith("user_tower_svc:9 cannot be pulled")
        assert started.containers() == before

    def test_a_release_that_was_cut_off_is_taken_back(self, started: Host) -> None:
        before = started.containers()
        shutil.copytree(started.folder / "app", started.folder / "app.before")
        (started.folder / "app" / "docker-compose.yml").write_text("cut off")
        ended = started.run("start")
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert started.containers() == before

    def test_one_at_a_time(self, started: Host) -> None:
        with (started.folder / "lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            assert "another host.sh is at work" in started.do("up").stderr

    def test_containers_keep_their_bounds_and_the_password_stays_nowhere(self, started: Host) -> None:
        for container, service in started.containers().items():
            found = started.engine.inspect(container)
            assert found["HostConfig"]["ReadonlyRootfs"], service
            assert found["HostConfig"]["CapDrop"] == ["ALL"], service
            assert found["Config"]["User"] == "65532:65532", service
        assert not any((started.folder / "tmp").iterdir())

    def test_grpc_is_published_on_wish(self, started: Host) -> None:
        settings = (started.folder / "env").read_text()
        (started.folder / "env").write_text(f"{settings}GRPC=true\nADDRESS=192.0.2.1\n")
        ports = {name: str(free_port()) for name in ("USER_TOWER_PORT", "RETRIEVAL_PORT")}
        ended = started.run("start", **ports)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        certificate = started.folder / "secrets" / "tls.crt"
        request = user_tower_pb2.EmbedUserRequest(ratings=[pb.Rating(movie_id=1, rating=5)])
        with grpc.secure_channel(
            f"localhost:{ports['USER_TOWER_PORT']}",
            grpc.ssl_channel_credentials(certificate.read_bytes()),
        ) as channel:
            service = user_tower_pb2_grpc.UserTowerServiceStub(channel)
            user = service.EmbedUser(request, timeout=20, wait_for_ready=True)
        assert user.embedding.model_version == recommended(started)["model_version"]
        shown = started.engine.call(
            ["openssl", "x509", "-in", str(certificate), "-noout", "-ext", "subjectAltName"]
        )
        assert "IP Address:192.0.2.1" in shown
