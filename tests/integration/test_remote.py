"""Services that read their bundles from S3 serve what is published there, and outlive its absence."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import botocore.session
import httpx
import pytest
from botocore.stub import Stubber

from builders import damage, make_bundle, write
from conftest import Trained
from services import NO_TLS, ROOT, free_port, model_service, running, running_stack, wait_until
from training.__main__ import main
from twotower.bundle import is_whole
from twotower.errors import BundleError
from twotower.promotion import promote, read_current
from twotower.remote import RemoteBundles

_ADDRESS = "s3://movies/models/v1"


@dataclass
class S3:
    """A server of S3 of its own, for one test."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "NO_PROXY": "127.0.0.1",
        }

    @property
    def client(self) -> Any:
        return botocore.session.get_session().create_client("s3")

    def keys(self) -> set[str]:
        """The names of all objects."""
        listed = self.client.list_objects_v2(Bucket="movies")
        return {found["Key"] for found in listed.get("Contents", [])}

    def overwrite(self, name: str, content: bytes) -> None:
        self.client.put_object(Bucket="movies", Key=f"models/v1/{name}", Body=content)


@contextmanager
def serving(folder: Path) -> Iterator[S3]:
    """A server of S3 while the block runs."""
    port = free_port()
    with (folder / "s3.log").open("wb") as log:
        command = [sys.executable, "-m", "moto.server", "--port", str(port)]
        server = S3(port, subprocess.Popen(command, stdout=log, stderr=log))

    def answers() -> bool:
        try:
            answer = httpx.get(f"http://127.0.0.1:{port}/", verify=NO_TLS, trust_env=False)
        except httpx.TransportError:
            return False
        return not answer.is_server_error

    try:
        wait_until(answers, "S3 answering")
        yield server
    finally:
        server.process.kill()
        server.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with serving(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """S3 with an empty bucket, to be found by the environment."""
    httpx.post(f"http://127.0.0.1:{server.port}/moto-api/reset", verify=NO_TLS, trust_env=False)
    use(server, monkeypatch)
    return server


def use(server: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process and those it starts find a server, and a bucket there."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    place = {"LocationConstraint": "eu-central-1"}
    server.client.create_bucket(Bucket="movies", CreateBucketConfiguration=place)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where bundles are published from."""
    return tmp_path / "local"


def published(folder: Path, *seeds: int) -> list[str]:
    """Bundles made of these seeds, one published after the other."""
    versions = [write(folder, make_bundle(seed)) for seed in seeds]
    for version in versions:
        RemoteBundles(_ADDRESS).push(folder, version)
    return versions


def files(root: Path) -> Mapping[str, bytes]:
    """Every file below a folder by its path."""
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_what_is_published_comes_back_to_the_byte(s3: S3, folder: Path, tmp_path: Path) -> None:
    first, second = published(folder, 0, 1)
    RemoteBundles(_ADDRESS).pull(tmp_path / "cache")
    promote(folder, first)
    promote(folder, second)
    (tmp_path / "cache" / ".lock").unlink()
    assert files(tmp_path / "cache") == files(folder)
    assert s3.keys() == {f"models/v1/{name}" for name in files(folder)}


def test_publishing_again_changes_nothing(s3: S3, folder: Path) -> None:
    first, second = published(folder, 0, 1)
    before = RemoteBundles(_ADDRESS).push(folder, second)
    assert (before.current, before.previous) == (second, first)
    assert len(s3.keys()) == len(files(folder)) + 1


@pytest.mark.usefixtures("s3")
def test_models_that_are_named_no_more_leave_the_cache(folder: Path, tmp_path: Path) -> None:
    remote, cache = RemoteBundles(_ADDRESS), tmp_path / "cache"
    for seed in range(3):
        published(folder, seed)
        remote.pull(cache)
    promoted = read_current(cache)
    assert promoted
    kept = {path.name for path in cache.iterdir()}
    assert kept == {".lock", "current", promoted.current, promoted.previous}


def test_a_previous_model_that_is_gone_does_not_hold_the_current_one_back(
    s3: S3, folder: Path, tmp_path: Path
) -> None:
    first, second = published(folder, 0, 1)
    s3.client.delete_object(Bucket="movies", Key=f"models/v1/{first}/manifest.json")
    for _ in range(2):  # it is told each time
        with pytest.raises(BundleError, match=f"{first}/manifest.json: there is no such object"):
            RemoteBundles(_ADDRESS).pull(tmp_path)
    promoted = read_current(tmp_path)
    assert promoted
    assert promoted.current == second
    assert is_whole(tmp_path, second)
    assert not (tmp_path / first).exists()


@pytest.mark.usefixtures("s3")
def test_replicas_that_share_a_folder_fetch_each_model_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    get = RemoteBundles._get

    def count(remote: RemoteBundles, name: str, **bounds: int) -> bytes:
        fetched.append(name)
        return get(remote, name, **bounds)

    monkeypatch.setattr(RemoteBundles, "_get", count)
    published(folder, 0, 1)
    cache = tmp_path / "cache"
    replicas = [Thread(target=RemoteBundles(_ADDRESS).pull, args=(cache,)) for _ in range(4)]
    for replica in replicas:
        replica.start()
    for replica in replicas:
        replica.join()
    assert fetched.count("current") == len(replicas)
    assert len([name for name in fetched if name.endswith("/manifest.json")]) == 2
    promoted = read_current(cache)
    assert promoted
    assert is_whole(cache, promoted.current)


@pytest.mark.usefixtures("s3")
def test_what_is_damaged_here_is_fetched_anew(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    published(folder, 0, 1)
    RemoteBundles(_ADDRESS).pull(cache)
    before = files(cache)
    first, second = sorted(path for path in cache.iterdir() if path.is_dir())
    damage(first / "features.json")
    shutil.rmtree(second)
    RemoteBundles(_ADDRESS).pull(cache)
    assert files(cache) == before


def test_without_the_right_to_list_the_error_is_s3s_own(s3: S3, folder: Path, tmp_path: Path) -> None:
    """What is not there is then called forbidden; nothing must have been uploaded by then."""
    remote, client = RemoteBundles(_ADDRESS), s3.client
    version = write(folder, make_bundle())
    with Stubber(client) as stubber:
        for _ in range(2):
            stubber.add_client_error("get_object", "AccessDenied", "no s3:ListBucket for you", 403)
        remote.__dict__["_client"] = client
        for act in (lambda: remote.pull(tmp_path / "cache"), lambda: remote.push(folder, version)):
            with pytest.raises(BundleError, match="/current: AccessDenied: no s3:ListBucket for you"):
                act()
    assert s3.keys() == set()


def test_a_model_that_is_not_good_enough_is_not_published(
    s3: S3, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weak = {"temporal made-up rmse": 1.0, "temporal bias rmse": 0.5}
    version = write(folder, make_bundle(), weak)
    with pytest.raises(BundleError, match="not good enough; --force"):
        main(["publish", _ADDRESS, version, "--bundles", str(folder)])
    assert s3.keys() == set()
    main(["publish", _ADDRESS, version, "--bundles", str(folder), "--force"])
    assert f"{_ADDRESS}: model {version} is promoted" in capsys.readouterr().out


def test_an_endpoint_that_is_no_address_is_an_error_of_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:9")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with pytest.raises(BundleError, match=f"{_ADDRESS}/current: .*localhost:9"):
        RemoteBundles(_ADDRESS).pull(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("current", b"{}", "/current: cannot be read as a promotion"),
        ("current", b"x" * 100_000, "/current: has more than the 65536 bytes expected"),
        ("VERSION/manifest.json", b"{}", "/manifest.json: is no whole manifest of that model"),
        ("VERSION/features.json", b"{}", "/features.json: does not match the manifest's digest"),
        ("VERSION/user_tower.tflite", b"x" * 100_000, "/user_tower.tflite: has more than the"),
    ],
)
def test_what_is_damaged_there_never_arrives(  # noqa: PLR0917 - fixtures and parameters
    s3: S3, folder: Path, tmp_path: Path, name: str, content: bytes, fault: str
) -> None:
    cache = tmp_path / "cache"
    published(folder, 0)
    RemoteBundles(_ADDRESS).pull(cache)
    before = files(cache)
    (version,) = published(folder, 1)
    s3.overwrite(name.replace("VERSION", version), content)
    with pytest.raises(BundleError) as caught:
        RemoteBundles(_ADDRESS).pull(cache)
    assert str(caught.value).startswith(_ADDRESS)
    assert fault in str(caught.value)
    assert files(cache) == before


def test_what_cannot_be_had_is_told_in_a_line(s3: S3, folder: Path, tmp_path: Path) -> None:
    for address, fault in (
        (_ADDRESS, f"{_ADDRESS}/current: there is no such object"),
        ("s3://nowhere", "s3://nowhere/current: NoSuchBucket: The specified bucket does not exist"),
    ):
        with pytest.raises(BundleError) as caught:
            RemoteBundles(address).pull(tmp_path)
        assert str(caught.value) == fault
    write(folder, make_bundle())
    with pytest.raises(BundleError, match="there is no such bundle"):
        RemoteBundles(_ADDRESS).push(folder, "0" * 16)
    assert s3.keys() == set()


@pytest.mark.parametrize("module", ["user_tower_svc", "retrieval_svc"])
def test_a_service_serves_from_s3_and_outlives_it(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    folder = trained.copy(tmp_path / "local", trained.first)
    remote, first, second = RemoteBundles(_ADDRESS), trained.first, trained.second
    service = model_service(module, folder, tmp_path, drain_seconds="1")
    service.environment = {
        **service.environment,
        "TWOTOWER_BUNDLES": _ADDRESS,
        "TWOTOWER_CACHE": str(tmp_path / "cache"),
    }

    def prefers(version: str) -> bool:
        return bool(service.metric("twotower_model", model_version=version, state="preferred"))

    with serving(tmp_path) as s3:
        use(s3, monkeypatch)
        remote.push(folder, first)
        with running(service):
            wait_until(service.is_serving, "serving from S3")
            assert prefers(first)
            remote.push(folder, second)
            wait_until(lambda: prefers(second), "the model published since")
            s3.process.kill()
            wait_until(lambda: bool(service.events("bundles not pulled")), "word of the loss", 60)
            assert service.is_serving()
    shutil.rmtree(folder)
    with running(service):  # S3 is still gone: what is in the cache will do
        wait_until(service.is_serving, "serving from the cache", 60)
        assert prefers(second)


def test_the_stack_answers_by_a_model_from_s3(s3: S3, bundles: Path, tmp_path: Path) -> None:
    promoted = read_current(bundles)
    assert promoted
    main(["publish", _ADDRESS, "--bundles", str(bundles)])
    environment = {"TWOTOWER_BUNDLES": _ADDRESS, "TWOTOWER_CACHE": str(tmp_path / "cache")}
    with pytest.MonkeyPatch.context() as patch, running_stack(bundles, tmp_path, ready=False) as stack:
        for service in (stack.user_tower, stack.retrieval):
            service.stop()
            service.environment = {**service.environment, **environment}
            service.start()
        patch.undo()
        stack.wait_ready()
        answer = httpx.get(f"{stack.url}/v1/users/1/recommendations", verify=NO_TLS).json()
        assert answer["model_version"] == promoted.current
        asked = subprocess.run(
            [sys.executable, "-m", "retrieval_svc", "doctor"],
            cwd=ROOT,
            env={**stack.retrieval.environment, **s3.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert "answers its golden requests" in asked.stdout


def test_training_writes_to_folders_only(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["list", "--bundles", "s3://movies"], ["publish", "movies/models"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
    said = capsys.readouterr().err
    assert "'s3://movies' lies in S3, where only services read: name a folder" in said
    assert "'movies/models', allowed is s3://bucket or s3://bucket/prefix" in said
