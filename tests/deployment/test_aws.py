"""A host on EC2: its template by itself, and the commands that make, change and delete it, on moto."""

from __future__ import annotations

import fnmatch
import gzip
import json
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import jsonschema
import pytest
import yaml

from deploy import stack as stacks
from deployment.aws import (
    CREDENTIALS,
    DENIED,
    HOST,
    REGION,
    REGISTRY,
    TEMPLATE,
    Answer,
    Aws,
    Operator,
    user_data,
    written,
)
from deployment.engine import SERVING, missing
from services import ROOT, free_port

_FOLDER = ROOT / "deploy" / "aws"


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short forms, which become the long ones."""


def _long_form(loader: yaml.Loader, name: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    return {name if name == "Ref" else f"Fn::{name}": value}


_Loader.add_multi_constructor("!", _long_form)


@cache
def template() -> dict[str, Any]:
    return dict(yaml.load(TEMPLATE.read_text(), _Loader))  # noqa: S506 - a safe one all the same


def properties(name: str) -> Any:
    return template()["Resources"][name]["Properties"]


def statements() -> list[dict[str, Any]]:
    (policy,) = properties("Role")["Policies"]
    return list(policy["PolicyDocument"]["Statement"])


def test_cfn_lint_has_nothing_to_say() -> None:
    linter = Path(sysconfig.get_path("scripts")) / "cfn-lint"
    if not linter.exists():
        missing("cfn-lint is not installed: `make test-deploy` does it")
    said = subprocess.run(
        [linter, "-t", TEMPLATE, "-r", "us-east-1", "eu-central-1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (said.returncode, said.stdout) == (0, "")


def test_shellcheck_has_nothing_to_say() -> None:
    if not shutil.which("shellcheck"):
        missing("there is no shellcheck; Debian has it in shellcheck")
    scripts = [_FOLDER / "host.sh", *(ROOT / "deploy").glob("*.sh")]
    said = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout) == (0, "")


def test_metadata_takes_a_token_and_containers_reach_it() -> None:
    data = properties("Installation")["LaunchTemplateData"]
    assert data["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 2}
    assert properties("Host")["LaunchTemplate"]["LaunchTemplateId"] == {"Ref": "Installation"}


def test_the_disk_is_encrypted() -> None:
    (disk,) = properties("Host")["BlockDeviceMappings"]
    assert disk["Ebs"]["Encrypted"] is True
    assert disk["Ebs"]["VolumeType"] == "gp3"
    assert disk["Ebs"]["DeleteOnTermination"] is True


def test_only_clients_ports_are_open_and_grpcs_only_on_wish() -> None:
    (rest,) = properties("SecurityGroup")["SecurityGroupIngress"]
    assert (rest["IpProtocol"], rest["FromPort"], rest["ToPort"]) == ("tcp", 8000, 8000)
    (grpc,) = (
        one for one in template()["Resources"].values() if one["Type"].endswith("SecurityGroupIngress")
    )
    assert template()["Conditions"][grpc["Condition"]] == {
        "Fn::Equals": [{"Ref": "PublishGrpc"}, "true"]
    }
    assert template()["Parameters"]["PublishGrpc"]["Default"] == "false"
    opened = grpc["Properties"]
    assert (opened["IpProtocol"], opened["FromPort"], opened["ToPort"]) == ("tcp", 50051, 50052)
    assert rest["CidrIp"] == opened["CidrIp"] == {"Ref": "Clients"}
    assert properties("Host")["SecurityGroupIds"] == [{"Fn::GetAtt": "SecurityGroup.GroupId"}]
    assert "KeyName" not in properties("Host")


def test_the_role_may_do_just_what_the_host_does() -> None:
    allowed = [action for one in statements() for action in _listed(one["Action"])]
    assert sorted(allowed) == [
        "cloudformation:SignalResource",
        "cloudwatch:PutMetricData",
        "ecr:BatchCheckLayerAvailability",
        "ecr:BatchGetImage",
        "ecr:GetAuthorizationToken",
        "ecr:GetDownloadUrlForLayer",
        "s3:GetObject",
    ]
    (managed,) = properties("Role")["ManagedPolicyArns"]
    assert managed["Fn::Sub"].endswith(":aws:policy/AmazonSSMManagedInstanceCore")


def test_everything_is_of_a_resource_where_aws_knows_one() -> None:
    of_all = [one["Action"] for one in statements() if one["Resource"] == "*"]
    assert of_all == ["ecr:GetAuthorizationToken", "cloudwatch:PutMetricData"]
    by_action = {_listed(one["Action"])[-1]: one for one in statements()}
    assert by_action["cloudwatch:PutMetricData"]["Condition"] == {
        "StringEquals": {"cloudwatch:namespace": "Twotower"}
    }
    pulled = by_action["ecr:GetDownloadUrlForLayer"]["Resource"]
    assert [one["Fn::Sub"][0].rpartition("}")[2] for one in pulled] == list(SERVING)
    read = by_action["s3:GetObject"]["Resource"]
    assert [one["Fn::Sub"][1]["Place"]["Fn::Select"][1]["Fn::Split"][1] for one in read] == [
        {"Ref": "Bundles"},
        {"Ref": "Releases"},
    ]


def test_a_host_that_is_broken_is_recovered_or_started_again() -> None:
    for name, metric, action in (
        ("Recovery", "StatusCheckFailed_System", "ec2:recover"),
        ("Reboot", "StatusCheckFailed_Instance", "ec2:reboot"),
    ):
        alarm = properties(name)
        assert (alarm["Namespace"], alarm["MetricName"]) == ("AWS/EC2", metric)
        assert alarm["Dimensions"] == [{"Name": "InstanceId", "Value": {"Ref": "Host"}}]
        assert alarm["AlarmActions"][0]["Fn::Sub"].endswith(f":automate:${{AWS::Region}}:{action}")


def test_the_alarm_looks_at_what_the_host_reports() -> None:
    alarm = properties("Unhealthy")
    script = (_FOLDER / "host.sh").read_text()
    assert f"--namespace {alarm['Namespace']} --metric-name {alarm['MetricName']}" in script
    assert [one["Name"] for one in alarm["Dimensions"]] == ["Stack"]
    assert '--dimensions "Stack=$STACK"' in script
    assert alarm["TreatMissingData"] == "breaching"
    assert template()["Resources"]["Unhealthy"]["DependsOn"] == "Host"


def test_a_new_host_is_there_only_once_it_answers() -> None:
    assert template()["Resources"]["Host"]["CreationPolicy"]["ResourceSignal"]["Count"] == 1
    text = str(properties("Installation")["LaunchTemplateData"]["UserData"])
    assert "if ./start; then status=SUCCESS; else status=FAILURE; fi" in text
    assert "--logical-resource-id Host" in text


@pytest.mark.parametrize(
    ("parameter", "taken", "refused"),
    [
        ("Registry", [HOST, REGISTRY, f"{HOST}.cn/a/b"], ["twotower", f"{HOST}/$(id)", f"{HOST} x"]),
        ("Tag", ["1.4", "8d5129a2c0ff"], ["", "a b", "$(id)", "-x"]),
        ("Bundles", ["s3://b", "s3://b.c-d/x/y_z"], ["b", "s3://b/", "s3://b/x y", "s3://b/`id`"]),
        ("Releases", ["s3://b/releases"], ["s3://b/releases;id"]),
        ("Clients", ["0.0.0.0/0"], ["", "10.0.0.1"]),
    ],
)
def test_what_gets_into_the_hosts_shell_can_do_nothing_there(
    parameter: str, taken: Sequence[str], refused: Sequence[str]
) -> None:
    pattern = template()["Parameters"][parameter]["AllowedPattern"]
    assert [value for value in (*taken, *refused) if re.fullmatch(pattern, value)] == list(taken)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_the_release_holds_what_the_host_uses_and_is_the_same_each_time() -> None:
    first = stacks.archive()
    assert stacks.archive() == first
    listed = subprocess.run(["tar", "-tvz"], input=first, capture_output=True, check=True)
    lines = listed.stdout.decode().splitlines()
    names = {line.split()[-1]: line.split()[0] for line in lines}
    assert {"docker-compose.yml", "deploy/aws/compose.yml", "deploy/compose/edge.yaml"} <= set(names)
    for script in ("deploy/aws/host.sh", "deploy/compose/roll.sh", "deploy/secrets.sh"):
        assert names[script] == "-rwxr-xr-x"
    assert gzip.decompress(first).count(b"\0") > 0
    assert not fnmatch.filter(names, "*template*")


def the_error(ended: subprocess.CompletedProcess[str]) -> str:
    """The one line that a command ends in."""
    assert ended.returncode == 1, ended.stdout + ended.stderr
    line = ended.stderr.splitlines()[-1]
    assert line.startswith("error: "), ended.stderr
    assert "Traceback" not in ended.stderr
    return line


@pytest.fixture
def operator(aws: Aws, tmp_path: Path) -> Operator:
    operator = Operator(aws, tmp_path)
    operator.prepare()
    return operator


@pytest.fixture
def deployed(operator: Operator) -> Operator:
    made = operator.deploy()
    assert made.returncode == 0, made.stderr
    return operator


def test_a_stack_is_made_and_its_address_printed(operator: Operator) -> None:
    made = operator.deploy()
    assert made.returncode == 0, made.stderr
    assert made.stdout == f"{operator.outputs()['Url']}\n"
    assert re.fullmatch(r"http://[\d.]+:8000\n", made.stdout)
    assert f"{operator.name}: create complete" in made.stderr
    tags = {one["Key"]: one["Value"] for one in operator.stack()["Tags"]}
    assert tags["application"] == "twotower"
    assert operator.parameters()["RepositoryPrefix"] == "twotower/"


def test_the_release_is_there_before_the_host(deployed: Operator) -> None:
    key = "releases/1.4.tar.gz"
    stored = deployed.client("s3").get_object(Bucket=deployed.name, Key=key)["Body"].read()
    assert stored == stacks.archive()


def test_the_host_gets_its_settings(deployed: Operator) -> None:
    config = user_data(deployed)
    settings = dict(
        line.split("=", 1) for line in written(config)["/opt/twotower/env"].splitlines() if line
    )
    address = deployed.outputs()["Url"].removeprefix("http://").removesuffix(":8000")
    assert settings == {
        "STACK": deployed.name,
        "REGION": REGION,
        "REGISTRY": REGISTRY,
        "TAG": "1.4",
        "BUNDLES": f"s3://{deployed.name}/models",
        "RELEASES": f"s3://{deployed.name}/releases",
        "GRPC": "false",
        "ADDRESS": address,
    }
    assert {"docker.io", "docker-cli", "docker-compose", "awscli"} <= set(config["packages"])


@pytest.fixture(scope="module")
def cloud_config_schema(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """cloud-init's own, out of Debian's package: installed, that would set this machine up anew."""
    folder = tmp_path_factory.mktemp("cloud-init")
    if not shutil.which("apt-get"):
        missing("cloud-init's schema comes in a package of Debian's, and there is no apt-get")
    fetched = subprocess.run(
        ["apt-get", "download", "cloud-init"], cwd=folder, capture_output=True, text=True, check=False
    )
    if fetched.returncode:
        missing(f"Debian's cloud-init cannot be downloaded: {fetched.stderr.strip()[-300:]}")
    (package,) = folder.glob("*.deb")
    subprocess.run(["dpkg", "-x", package, folder], check=True)
    (schema,) = folder.rglob("schema-cloud-config-v1.json")
    return dict(json.loads(schema.read_text()))


def test_the_cloud_config_is_valid(deployed: Operator, cloud_config_schema: dict[str, Any]) -> None:
    config = user_data(deployed)
    jsonschema.validate(config, cloud_config_schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**config, "write_files": {"path": "/opt"}}, cloud_config_schema)


def test_the_scripts_of_the_cloud_config_are_shell(deployed: Operator) -> None:
    config = user_data(deployed)
    for path, content in written(config).items():
        if content.startswith("#!/bin/sh"):
            checked = subprocess.run(["sh", "-n"], input=content, text=True, check=False)
            assert checked.returncode == 0, path


def test_the_instance_is_of_the_type_and_the_image_asked_for(operator: Operator) -> None:
    made = operator.deploy("--instance", "t4g.small", "--grpc", "true", "--clients", "10.0.0.0/8")
    assert made.returncode == 0, made.stderr
    reservations = operator.client("ec2").describe_instances(
        InstanceIds=[operator.outputs()["InstanceId"]]
    )["Reservations"]
    (instance,) = reservations[0]["Instances"]
    assert (instance["InstanceType"], instance["ImageId"]) == ("t4g.small", "ami-12345678")
    groups = operator.client("ec2").describe_security_groups()["SecurityGroups"]
    (group,) = (one for one in groups if one["GroupName"].startswith(operator.name))
    opened = {
        (one["FromPort"], one["ToPort"], one["IpRanges"][0]["CidrIp"]) for one in group["IpPermissions"]
    }
    assert opened == {(8000, 8000, "10.0.0.0/8"), (50051, 50052, "10.0.0.0/8")}


@pytest.mark.parametrize(
    ("instance", "image"), [("", "amd64"), ("c7i.large", "amd64"), ("t4g.small", "arm64")]
)
def test_debians_image_is_of_the_instances_processor(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, instance: str, image: str
) -> None:
    for name, value in operator.environment.items():
        monkeypatch.setenv(name, value)
    wishes = stacks.Wishes("", "", "", instance=instance or None)
    place = stacks._place_of_host(boto3.Session(), wishes, is_new=True)
    assert place["Image"] == f"/aws/service/debian/release/13/latest/{image}"


def test_a_subnet_brings_its_vpc(operator: Operator) -> None:
    (subnet, *_) = operator.client("ec2").describe_subnets()["Subnets"]
    assert operator.deploy("--subnet", subnet["SubnetId"]).returncode == 0
    assert operator.parameters()["Vpc"] == subnet["VpcId"]


def test_what_is_not_said_again_stays(operator: Operator) -> None:
    topic = f"arn:aws:sns:{REGION}:123456789012:alarms"
    assert operator.deploy("--alarms", topic).returncode == 0
    updated = described(operator, "UPDATE_COMPLETE", "i-1")  # moto forgets the outputs
    operator.aws.answers["DescribeStacks"] = in_turn(None, updated)
    changed = operator.deploy("--clients", "10.0.0.0/8")
    assert changed.returncode == 0, changed.stderr
    parameters = operator.parameters()
    assert (parameters["AlarmTopic"], parameters["Clients"]) == (topic, "10.0.0.0/8")
    assert (parameters["InstanceType"], parameters["PublishGrpc"]) == ("t3.medium", "false")


@pytest.mark.parametrize(("after", "is_told"), [("i-1", False), ("i-2", True)])
def test_a_host_that_was_replaced_is_told(deployed: Operator, after: str, *, is_told: bool) -> None:
    deployed.aws.answers["DescribeStacks"] = in_turn(
        described(deployed, "CREATE_COMPLETE", "i-1"), described(deployed, "UPDATE_COMPLETE", after)
    )
    ended = deployed.deploy("--instance", "c7i.large")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "http://192.0.2.1:8000\n"
    assert ("the host i-1 was replaced by i-2" in ended.stderr) == is_told


def test_nothing_to_change(deployed: Operator) -> None:
    deployed.aws.answers["UpdateStack"] = fault("ValidationError", "No updates are to be performed.")
    again = deployed.deploy()
    assert again.returncode == 0, again.stderr
    assert "there is nothing to change" in again.stderr
    assert again.stdout.startswith("http://")


def test_a_stack_is_deleted_once_that_is_confirmed(deployed: Operator) -> None:
    assert "nothing was deleted" in the_error(deployed.run("destroy", deployed.name, stdin="n\n"))
    assert "YES=1" in the_error(deployed.run("destroy", deployed.name))
    ended = deployed.run("destroy", deployed.name, stdin="y\n")
    assert ended.returncode == 0, ended.stderr
    assert "what stays: the buckets with models and releases, and the images in ECR" in ended.stdout
    assert f"there is no stack {deployed.name}" in the_error(deployed.run("destroy", deployed.name))
    assert deployed.client("s3").head_object(Bucket=deployed.name, Key="releases/1.4.tar.gz")


def fault(code: str, message: str) -> Answer:
    """A refusal of CloudFormation or EC2."""
    error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
    return 400, f"<ErrorResponse>{error}<RequestId>1</RequestId></ErrorResponse>"


def described(operator: Operator, status: str, host: str = "") -> Answer:
    """A stack in some state, with a host if there is one."""
    outputs = "".join(
        f"<member><OutputKey>{key}</OutputKey><OutputValue>{value}</OutputValue></member>"
        for key, value in (("InstanceId", host), ("Url", "http://192.0.2.1:8000"))
    )
    member = (
        f"<member><StackName>{operator.name}</StackName><StackId>{operator.name}</StackId>"
        f"<CreationTime>2026-01-01T00:00:00Z</CreationTime><StackStatus>{status}</StackStatus>"
        f"<Outputs>{outputs}</Outputs></member>"
    )
    return 200, (
        '<DescribeStacksResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/">'
        f"<DescribeStacksResult><Stacks>{member}</Stacks></DescribeStacksResult></DescribeStacksResponse>"
    )


def events(*happened: tuple[str, str, str]) -> Answer:
    """What happened to a stack, the newest first, as AWS has it."""
    members = "".join(
        f"<member><EventId>{number}</EventId><LogicalResourceId>{name}</LogicalResourceId>"
        f"<ResourceStatus>{status}</ResourceStatus><ResourceStatusReason>{reason}</ResourceStatusReason>"
        "<StackId>s</StackId><StackName>s</StackName><Timestamp>2026-01-01T00:00:00Z</Timestamp></member>"
        for number, (name, status, reason) in enumerate(happened)
    )
    return 200, (
        '<DescribeStackEventsResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/">'
        f"<DescribeStackEventsResult><StackEvents>{members}</StackEvents></DescribeStackEventsResult>"
        "</DescribeStackEventsResponse>"
    )


_FAILED = events(
    ("Address", "CREATE_FAILED", "Resource creation cancelled"),
    ("Host", "CREATE_FAILED", "Received 1 FAILURE signal(s) out of 1"),
    ("Host", "CREATE_IN_PROGRESS", ""),
)


def in_turn(*answers: Answer | None) -> Callable[[], Answer | None]:
    """One answer after the other; the last stays."""
    left = list(answers)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def test_a_host_that_does_not_come_up_is_named_with_its_reason(operator: Operator) -> None:
    operator.aws.answers["DescribeStacks"] = in_turn(None, described(operator, "CREATE_FAILED"))
    operator.aws.answers["DescribeStackEvents"] = _FAILED
    line = the_error(operator.deploy())
    assert f"{operator.name} is CREATE_FAILED: Host: Received 1 FAILURE signal(s) out of 1" in line


def test_an_update_that_fails_leaves_what_was(deployed: Operator) -> None:
    deployed.aws.answers["DescribeStacks"] = in_turn(
        None, described(deployed, "UPDATE_ROLLBACK_COMPLETE")
    )
    deployed.aws.answers["DescribeStackEvents"] = in_turn(None, _FAILED)
    line = the_error(deployed.deploy("--clients", "10.0.0.0/8"))
    assert "is as it was before: Host: Received 1 FAILURE" in line


@pytest.mark.parametrize("command", ["deploy", "release"])
def test_a_stack_in_a_bad_state(operator: Operator, command: str) -> None:
    operator.aws.answers["DescribeStackEvents"] = _FAILED
    operator.aws.answers["DescribeStacks"] = described(operator, "ROLLBACK_COMPLETE")

    def run() -> subprocess.CompletedProcess[str]:
        if command == "deploy":
            return operator.deploy()
        return operator.run("release", operator.name, "--tag", "1.5")

    line = the_error(run())
    assert "is ROLLBACK_COMPLETE and cannot be changed (Host: Received 1 FAILURE signal" in line
    assert f"`make destroy STACK={operator.name}` first" in line
    operator.aws.answers["DescribeStacks"] = described(operator, "UPDATE_IN_PROGRESS")
    assert "is UPDATE_IN_PROGRESS: wait" in the_error(run())


def test_no_such_stack(operator: Operator) -> None:
    for command in (["release", operator.name, "--tag", "1"], ["destroy", operator.name, "--yes"]):
        line = the_error(operator.run(*command))
        assert f"there is no stack {operator.name} in {REGION}" in line


def test_an_image_that_is_not_in_ecr(deployed: Operator) -> None:
    del deployed.aws.answers["BatchGetImage"]
    push = f"`make push REGISTRY={REGISTRY} TAG=2` puts it there"
    for ended in (
        deployed.deploy(tag="2"),
        deployed.run("release", deployed.name, "--tag", "2"),
    ):
        line = the_error(ended)
        assert f"ECR has no {REGISTRY}/user_tower_svc:2" in line
        assert push in line


def test_no_model_is_published(operator: Operator) -> None:
    line = the_error(operator.deploy(bundles=f"s3://{operator.name}/elsewhere/"))
    assert f"no model is published at s3://{operator.name}/elsewhere: `python -m training" in line
    assert "no model is published" in the_error(operator.deploy(bundles="s3://nobodys-bucket"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bundles": "models"}, "BUNDLES=models: is not s3://BUCKET/PREFIX"),
        ({"registry": "twotower"}, "REGISTRY=twotower: is not ECR's"),
        ({"tag": "latest"}, "TAG=latest: set it to a version"),
        ({"tag": "a b"}, "TAG=a b: set it to a version"),
        ({"AWS_DEFAULT_REGION": "us-east-1"}, f"set AWS_DEFAULT_REGION={REGION}"),
        ({"AWS_DEFAULT_REGION": ""}, "there is no AWS region: set AWS_DEFAULT_REGION"),
    ],
)
def test_settings_that_are_wrong(operator: Operator, options: Mapping[str, str], said: str) -> None:
    assert said in the_error(operator.deploy(**options))


def test_an_instance_type_that_there_is_not(operator: Operator) -> None:
    command = ["--registry", REGISTRY, "--tag", "1", "--bundles", f"s3://{operator.name}/models"]
    line = the_error(operator.run("deploy", operator.name, *command, "--instance", "t9.medium"))
    assert "EC2 refuses DescribeInstanceTypes: InvalidInstanceType" in line
    assert "t9.medium" in line


def test_a_bucket_for_releases_that_there_is_not(operator: Operator) -> None:
    line = the_error(operator.deploy("--releases", "s3://nobodys-bucket/x"))
    assert "S3 refuses PutObject: NoSuchBucket" in line


def test_no_credentials_and_no_permission(operator: Operator) -> None:
    assert "no AWS credentials" in the_error(operator.deploy(**dict.fromkeys(CREDENTIALS, "")))
    url = f"http://127.0.0.1:{free_port()}"
    assert f"CloudFormation cannot be reached at {url}" in the_error(
        operator.deploy(AWS_ENDPOINT_URL=url)
    )
    operator.aws.answers["CreateStack"] = fault("AccessDenied", DENIED.format("iam:CreateRole"))
    assert "no permission for iam:CreateRole; docs/aws.md" in the_error(operator.deploy())
    operator.aws.answers["DescribeStacks"] = fault("ExpiredToken", "no")
    assert "have expired" in the_error(operator.deploy())


def online(status: str = "Online") -> Answer:
    return 200, {"InstanceInformationList": [{"InstanceId": "i-1", "PingStatus": status}]}


def invoked(status: str, output: str = "", errors: str = "") -> Answer:
    return 200, {
        "Status": status,
        "StatusDetails": status,
        "StandardOutputContent": output,
        "StandardErrorContent": errors,
    }


def test_a_release_is_uploaded_and_run_by_the_agent(deployed: Operator) -> None:
    deployed.aws.answers["DescribeInstanceInformation"] = online()
    deployed.aws.answers["GetCommandInvocation"] = in_turn(
        (400, {"__type": "InvocationDoesNotExist", "message": ""}),
        invoked("InProgress"),
        invoked("Success", "gateway: 1 replaced\n1.5 runs in place of 1.4\n"),
    )
    ended = deployed.run("release", deployed.name, "--tag", "1.5")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "1.5 runs in place of 1.4"
    assert deployed.client("s3").head_object(Bucket=deployed.name, Key="releases/1.5.tar.gz")
    host = deployed.outputs()["InstanceId"]
    (command,) = deployed.client("ssm").list_commands(InstanceId=host)["Commands"]
    assert command["DocumentName"] == "AWS-RunShellScript"
    assert command["Parameters"]["commands"] == ["/opt/twotower/app/deploy/aws/host.sh release '1.5'"]


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        (
            invoked("Failed", errors="x\nerror: not released: 1.4 runs as before\nfailed to run: 1"),
            ": not released: 1.4 runs as before",
        ),
        (invoked("Failed", errors="sh: host.sh: not found"), ": sh: host.sh: not found"),
        (invoked("TimedOut"), ": TimedOut"),
    ],
)
def test_a_release_fails_with_what_the_host_says(deployed: Operator, ended: Answer, said: str) -> None:
    deployed.aws.answers["DescribeInstanceInformation"] = online()
    deployed.aws.answers["GetCommandInvocation"] = ended
    assert the_error(deployed.run("release", deployed.name, "--tag", "1.5")).endswith(said)


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (online("ConnectionLost"), "is ConnectionLost"),
        ((200, {"InstanceInformationList": []}), "is not known"),
    ],
)
def test_an_agent_that_is_not_online(deployed: Operator, known: Answer, said: str) -> None:
    deployed.aws.answers["DescribeInstanceInformation"] = known
    line = the_error(deployed.run("release", deployed.name, "--tag", "1.5"))
    assert f"the SSM agent of the host {deployed.outputs()['InstanceId']} {said}" in line


@pytest.mark.parametrize(
    ("target", "variables", "command"),
    [
        (
            "deploy",
            ["REGISTRY=r", "TAG=1", "BUNDLES=s3://b", "INSTANCE=t4g.medium", "GRPC=true"],
            "deploy movies --registry r --tag 1 --bundles s3://b --instance t4g.medium --grpc true",
        ),
        ("release", ["TAG=1"], "release movies --tag 1"),
        ("destroy", [], "destroy movies"),
        ("destroy", ["YES=1"], "destroy movies --yes"),
    ],
)
def test_make_hands_its_variables_on(target: str, variables: Sequence[str], command: str) -> None:
    said = subprocess.run(
        ["make", "--dry-run", target, "STACK=movies", *variables],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    shown = " ".join(said.stdout.replace('"', "").replace("\\\n", " ").split())
    assert shown.endswith(f"-m deploy.stack {command}")
