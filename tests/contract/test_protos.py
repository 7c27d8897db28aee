from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import google.protobuf
import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

import twotower.v1

PROTOS = Path(__file__).parents[2] / "protos"
BASELINE = PROTOS / "baseline.binpb"
BUF = Path(sys.executable).parent / "buf"
STUBS = Path(twotower.v1.__path__[0])
SERVICES = ["retrieval", "user_tower"]
NAMES = ["embedding", *SERVICES]


def buf(*arguments: str | Path) -> tuple[int, str]:
    """Run buf; its status and what it says."""
    done = subprocess.run([BUF, *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def protos(tmp_path: Path) -> Path:
    """A copy of the contract, to break."""
    return Path(shutil.copytree(PROTOS, tmp_path / "protos", ignore=shutil.ignore_patterns("*.binpb")))


def edit(protos: Path, name: str, old: str, new: str) -> None:
    path = protos / "twotower" / "v1" / f"{name}.proto"
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new))


def version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def generated_version(path: Path, pattern: str) -> tuple[int, ...]:
    found = re.search(pattern, path.read_text())
    assert found
    return version(found[1])


def test_the_contract_is_clean() -> None:
    assert buf("lint", PROTOS) == (0, "")


def test_the_contract_breaks_no_client() -> None:
    assert buf("breaking", PROTOS, "--against", BASELINE) == (0, "")


def test_all_of_the_contract_is_guarded() -> None:
    assert buf("breaking", BASELINE, "--against", PROTOS) == (0, ""), "buf build protos -o BASELINE"


@pytest.mark.parametrize(
    ("name", "old", "new", "fault"),
    [
        ("retrieval", "float score = 2;", "float score = 9;", 'field "2" with name "score"'),
        ("retrieval", "uint32 k = 2;", "string k = 2;", 'Field "2" with name "k"'),
        ("embedding", "repeated float rating = 2;", "repeated float stars = 2;", '"rating" to "stars"'),
        ("embedding", "STRATEGY_FEATURES = 3", "STRATEGY_FEATURES = 9", "STRATEGY_FEATURES"),
        ("user_tower", "bool strict = 6;", "", 'field "6" with name "strict"'),
        ("user_tower", "rpc EmbedUser(", "rpc EmbedOne(", 'RPC "EmbedUser"'),
        ("retrieval", "service RetrievalService", "service SearchService", '"RetrievalService"'),
    ],
    ids=["renumbered", "retyped", "renamed", "enum", "removed", "rpc", "service"],
)
def test_a_break_is_noticed(protos: Path, name: str, old: str, new: str, fault: str) -> None:
    edit(protos, name, old, new)
    status, said = buf("breaking", protos, "--against", BASELINE)
    assert status == 100
    assert f"{name}.proto" in said
    assert fault in said


def test_a_new_field_is_no_break(protos: Path) -> None:
    field = "bool strict = 6;"
    edit(protos, "user_tower", field, f"{field}\n  // Something new.\n  bool lenient = 99;")
    assert buf("breaking", protos, "--against", BASELINE) == (0, "")
    assert buf("lint", protos) == (0, "")


def test_a_field_without_a_comment_is_not_clean(protos: Path) -> None:
    edit(protos, "user_tower", "// The embedding. Always set.", "")
    status, said = buf("lint", protos)
    assert status == 100
    assert "user_tower.proto" in said


def test_the_baseline_has_every_file_and_service() -> None:
    files = FileDescriptorSet.FromString(BASELINE.read_bytes()).file
    assert sorted(file.name for file in files) == [f"twotower/v1/{name}.proto" for name in NAMES]
    services = {service.name for file in files for service in file.service}
    assert services == {"RetrievalService", "UserTowerService"}


def test_every_proto_has_its_stubs() -> None:
    assert sorted(path.stem for path in PROTOS.rglob("*.proto")) == NAMES
    assert sorted(path.stem for path in STUBS.glob("*_pb2.py")) == [f"{name}_pb2" for name in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_stubs_are_those_of_the_protos(name: str, tmp_path: Path) -> None:
    assert buf("build", PROTOS, "--exclude-source-info", "-o", tmp_path / "built.binpb") == (0, "")
    files = FileDescriptorSet.FromString((tmp_path / "built.binpb").read_bytes()).file
    expected = next(file for file in files if file.name == f"twotower/v1/{name}.proto")
    generated = FileDescriptorProto()
    importlib.import_module(f"twotower.v1.{name}_pb2").DESCRIPTOR.CopyToProto(generated)
    # buf writes out the JSON names that protoc leaves implied
    assert str(generated) == re.sub(r"\n *json_name: .*", "", str(expected))


@pytest.mark.parametrize("name", SERVICES)
def test_stubs_of_services_can_be_imported(name: str) -> None:
    importlib.import_module(f"twotower.v1.{name}_pb2_grpc")


@pytest.mark.parametrize("name", NAMES)
def test_stubs_are_not_newer_than_protobuf(name: str) -> None:
    made_by = generated_version(STUBS / f"{name}_pb2.py", r"# Protobuf Python Version: ([\d.]+)")
    runtime = version(google.protobuf.__version__)
    assert made_by[0] == runtime[0]
    assert made_by <= runtime


@pytest.mark.parametrize("name", SERVICES)
def test_stubs_of_services_are_not_newer_than_grpc(name: str) -> None:
    made_by = generated_version(STUBS / f"{name}_pb2_grpc.py", r"GRPC_GENERATED_VERSION = '([\d.]+)'")
    assert made_by <= version(grpc.__version__)
