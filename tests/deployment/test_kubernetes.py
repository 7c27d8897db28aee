"""Kubernetes' objects: valid by its schemas; true to each other, to the images and to the settings."""

from __future__ import annotations

import copy
import importlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import yaml
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from deployment.engine import IMAGES, SERVING, missing
from gateway.app import create_app
from gateway.settings import GatewaySettings
from retrieval_svc.settings import RetrievalSettings
from services import NO_TLS, ROOT, Service, model_service, running, wait_until
from training.__main__ import COMMANDS
from training.options import build_parser
from twotower.errors import SettingsError
from twotower.settings import ModelServiceSettings
from user_tower_svc.settings import UserTowerSettings

Object = dict[str, Any]

_FOLDER = ROOT / "deploy" / "k8s"
_EXAMPLE = "overlays/example"
_OLDEST, _NEWEST = "1.30", "1.37"
"""Of Kubernetes: the first that has all that is used, and the last whose schemas are at hand."""
_SETTINGS: Mapping[str, type[GatewaySettings | ModelServiceSettings]] = {
    "user_tower_svc": UserTowerSettings,
    "retrieval_svc": RetrievalSettings,
    "gateway": GatewaySettings,
}


@dataclass(frozen=True)
class Pod:
    """The pods of one workload."""

    labels: Mapping[str, str]
    namespace: str = "twotower"
    annotations: Mapping[str, str] = field(default_factory=dict)
    spec: Object = field(default_factory=dict)

    @property
    def container(self) -> Object:
        (container,) = self.spec["containers"]
        return dict(container)

    @property
    def image(self) -> str:
        """The name of the image, as `make images` has it."""
        return str(self.container["image"]).rpartition("/")[2].partition(":")[0]

    @property
    def ports(self) -> dict[str, int]:
        return {port["name"]: port["containerPort"] for port in self.container.get("ports", [])}

    def port(self, named: str | int) -> int:
        """A port by its name or number; fails where the container has none."""
        number = self.ports.get(str(named), named)
        assert number in self.ports.values(), f"{self.image} has no port {named}"
        return int(number)

    @property
    def environment(self) -> dict[str, str]:
        return {variable["name"]: variable["value"] for variable in self.container.get("env", [])}

    @property
    def dockerfile(self) -> str:
        return (ROOT / self.image / "Dockerfile").read_text()

    def matches(self, selector: Object) -> bool:
        assert selector.keys() <= {"matchLabels"}
        wanted: Mapping[str, str] = selector.get("matchLabels", {})
        return wanted.items() <= self.labels.items()


@dataclass(frozen=True)
class Manifests:
    """All objects of a kustomization."""

    objects: list[Object]

    def of(self, kind: str) -> dict[str, Object]:
        return {each["metadata"]["name"]: each for each in self.objects if each["kind"] == kind}

    @property
    def pods(self) -> dict[str, Pod]:
        """The pods by the names of their workloads."""
        workloads = self.of("Deployment") | self.of("Job")
        return {name: self._pod(workload["spec"]["template"]) for name, workload in workloads.items()}

    @property
    def servers(self) -> dict[str, Pod]:
        return {name: self.pods[name] for name in self.of("Deployment")}

    def selected(self, selector: Object) -> list[str]:
        """The workloads whose pods a selector takes."""
        return [name for name, pod in self.pods.items() if pod.matches(selector)]

    @staticmethod
    def _pod(template: Object) -> Pod:
        metadata = template["metadata"]
        annotations = metadata.get("annotations", {})
        return Pod(metadata["labels"], annotations=annotations, spec=template["spec"])


def render(folder: str) -> Manifests:
    if not shutil.which("kubectl"):
        missing("there is no kubectl, which renders what is tested")
    rendered = subprocess.run(
        ["kubectl", "kustomize", _FOLDER / folder], capture_output=True, text=True, check=False
    )
    assert (rendered.returncode, rendered.stderr) == (0, "")
    return Manifests(list(yaml.safe_load_all(rendered.stdout)))


@pytest.fixture(scope="module", params=["base", _EXAMPLE])
def manifests(request: pytest.FixtureRequest) -> Manifests:
    return render(request.param)


@pytest.fixture(scope="module")
def validate() -> Callable[[Object, str], None]:
    """Raises where an object is not what a version of Kubernetes takes, to the last field."""
    if not find_spec("kubernetes_validate"):
        missing("kubernetes-validate is not installed: `make test-deploy` does it")
    library = importlib.import_module("kubernetes_validate")

    def check(thing: Object, version: str) -> None:
        # It takes the nearest older version that it has.
        assert library.validate(thing, version, strict=True) == version

    return check


@pytest.mark.parametrize("version", [_OLDEST, _NEWEST])
def test_every_object_is_valid(
    manifests: Manifests, validate: Callable[[Object, str], None], version: str
) -> None:
    assert len(manifests.objects) > 10
    for thing in manifests.objects:
        validate(thing, version)


def test_validation_notices_a_field_that_does_not_exist(
    manifests: Manifests, validate: Callable[[Object, str], None]
) -> None:
    broken = copy.deepcopy(manifests.of("Deployment")["gateway"])
    broken["spec"]["template"]["spec"]["enableServiceLink"] = False
    with pytest.raises(Exception, match="enableServiceLink"):
        validate(broken, _NEWEST)


def test_no_object_is_there_twice(manifests: Manifests) -> None:
    names = [(thing["kind"], thing["metadata"]["name"]) for thing in manifests.objects]
    assert len(names) == len(set(names))


def test_each_image_has_one_workload(manifests: Manifests) -> None:
    assert sorted(pod.image for pod in manifests.pods.values()) == sorted(IMAGES)


@pytest.mark.parametrize("kind", ["Service", "Deployment", "PodDisruptionBudget"])
def test_every_selector_matches_its_workload_alone(manifests: Manifests, kind: str) -> None:
    assert manifests.of(kind).keys() == manifests.servers.keys()
    for name, thing in manifests.of(kind).items():
        selector = thing["spec"]["selector"]
        assert manifests.selected({"matchLabels": selector} if kind == "Service" else selector) == [name]


def test_every_service_leads_to_a_port_of_its_pods(manifests: Manifests) -> None:
    for name, service in manifests.of("Service").items():
        (port,) = service["spec"]["ports"]
        assert manifests.pods[name].port(port["targetPort"])


def test_ports_and_user_are_those_of_the_images(manifests: Manifests) -> None:
    for pod in manifests.pods.values():
        exposed = re.findall(r"^EXPOSE (.+)", pod.dockerfile, re.MULTILINE)
        assert sorted(map(str, pod.ports.values())) == sorted(" ".join(exposed).split())
        identity = pod.spec["securityContext"]
        assert f"\nUSER {identity['runAsUser']}:{identity['runAsGroup']}\n" in pod.dockerfile


def test_the_environment_is_settings_that_processes_take(
    manifests: Manifests, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pod in manifests.pods.values():
        if pod.image not in _SETTINGS:
            assert not pod.environment
            continue
        settings = _SETTINGS[pod.image]
        prefix = settings.model_config["env_prefix"]
        known = {
            str(about.validation_alias or f"{prefix}{name}").upper()
            for name, about in settings.model_fields.items()
        }
        assert pod.environment.keys() <= known
        for name, value in pod.environment.items():
            monkeypatch.setenv(name, value)
        settings.load("", [])


def test_no_service_overwrites_a_setting(manifests: Manifests, monkeypatch: pytest.MonkeyPatch) -> None:
    for pod in manifests.pods.values():
        assert pod.spec["enableServiceLinks"] is False
    # What it is there for: these are the variables that a Service brings.
    assert "gateway" in manifests.of("Service")
    monkeypatch.setenv("GATEWAY_PORT", "tcp://10.0.0.1:80")
    with pytest.raises(SettingsError, match="GATEWAY_PORT"):
        GatewaySettings.load("", [])


def test_the_gateway_asks_headless_services_by_the_ports_of_their_pods(manifests: Manifests) -> None:
    environment = manifests.pods["gateway"].environment
    for variable, image in (
        ("GATEWAY_USER_TOWER", "user_tower_svc"),
        ("GATEWAY_RETRIEVAL", "retrieval_svc"),
    ):
        target = re.fullmatch(r"dns:///([a-z-]+):(\d+)", environment[variable])
        assert target
        name, port = target[1], int(target[2])
        service = manifests.of("Service")[name]["spec"]
        assert service["clusterIP"] == "None"
        assert not service["publishNotReadyAddresses"]
        assert service["ports"][0]["port"] == port
        assert manifests.pods[name].image == image
        # Nothing translates the port of a headless Service.
        assert manifests.pods[name].ports["grpc"] == port


def test_each_deployment_has_an_autoscaler(manifests: Manifests) -> None:
    autoscalers = {
        name: autoscaler["spec"] for name, autoscaler in manifests.of("HorizontalPodAutoscaler").items()
    }
    assert autoscalers.keys() == manifests.servers.keys()
    for name, autoscaler in autoscalers.items():
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
        assert autoscaler["scaleTargetRef"] == target
        assert "replicas" not in manifests.of("Deployment")[name]["spec"]
        for metric in autoscaler["metrics"]:
            assert metric["resource"]["name"] in manifests.pods[name].container["resources"]["requests"]


def test_a_disruption_leaves_replicas(manifests: Manifests) -> None:
    for name, budget in manifests.of("PodDisruptionBudget").items():
        fewest = manifests.of("HorizontalPodAutoscaler")[name]["spec"]["minReplicas"]
        assert 0 < budget["spec"]["maxUnavailable"] < fewest


def test_a_rollout_takes_no_replica_before_there_is_another(manifests: Manifests) -> None:
    for deployment in manifests.of("Deployment").values():
        assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_every_pod_has_no_rights(manifests: Manifests) -> None:
    for pod in manifests.pods.values():
        assert pod.spec["automountServiceAccountToken"] is False
        assert pod.spec["securityContext"]["runAsNonRoot"] is True
        assert pod.spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod.container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_every_pod_says_what_it_needs(manifests: Manifests) -> None:
    for pod in manifests.pods.values():
        resources = pod.container["resources"]
        assert resources["requests"].keys() == {"cpu", "memory"}
        assert "memory" in resources["limits"]


def test_every_mount_has_its_volume_and_only_the_trainer_writes_bundles(manifests: Manifests) -> None:
    for pod in manifests.pods.values():
        volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
        mounts = {mount["name"]: mount for mount in pod.container["volumeMounts"]}
        assert volumes.keys() == mounts.keys()
        assert volumes["tmp"] == {"name": "tmp", "emptyDir": {}}
        assert mounts["tmp"]["mountPath"] == "/tmp"  # noqa: S108
        assert ("bundles" in mounts) == ("TWOTOWER_BUNDLES=/bundles" in pod.dockerfile)
        if "bundles" in mounts:
            assert volumes["bundles"]["persistentVolumeClaim"]["claimName"] in manifests.of(
                "PersistentVolumeClaim"
            )
            assert mounts["bundles"]["mountPath"] == "/bundles"
            assert mounts["bundles"].get("readOnly", False) == (pod.image in SERVING)


def test_the_trainer_is_asked_for_what_it_can_do(manifests: Manifests) -> None:
    options = build_parser(COMMANDS).parse_args(manifests.pods["trainer"].container["args"])
    assert options.promote
    assert options.unless_promoted


def test_replicas_of_one_workload_are_spread(manifests: Manifests) -> None:
    for pod in manifests.servers.values():
        assert pod.spec["topologySpreadConstraints"]
        for constraint in pod.spec["topologySpreadConstraints"]:
            assert pod.matches(constraint["labelSelector"])
            assert set(constraint["matchLabelKeys"]) - {"pod-template-hash"} <= pod.labels.keys()
            assert "app.kubernetes.io/name" in constraint["matchLabelKeys"]


def test_prometheus_is_led_to_a_port_with_metrics(manifests: Manifests) -> None:
    for pod in manifests.servers.values():
        assert pod.annotations["prometheus.io/scrape"] == "true"
        assert pod.annotations["prometheus.io/path"] == "/metrics"
        metrics = pod.ports.get("metrics") or pod.ports["http"]
        assert pod.annotations["prometheus.io/port"] == str(metrics)


def test_probes_ask_what_there_is(manifests: Manifests) -> None:
    routes = create_app(GatewaySettings.load("", [])).openapi()["paths"].keys()
    for pod in manifests.servers.values():
        for probe in probes(pod).values():
            (how,) = probe.keys() & {"httpGet", "grpc"}
            assert pod.port(probe[how]["port"])
            if pod.image == "gateway":
                assert probe[how]["path"] in routes
    gateway = probes(manifests.pods["gateway"])
    assert gateway["readinessProbe"]["httpGet"]["path"] == "/readyz"
    # Else the gateway is restarted for what a service lacks.
    assert gateway["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert gateway["startupProbe"]["httpGet"]["path"] == "/healthz"


@pytest.mark.parametrize("module", ["user_tower_svc", "retrieval_svc"])
def test_a_service_without_a_model_is_alive_and_not_ready(
    manifests: Manifests, tmp_path: Path, module: str
) -> None:
    (pod,) = (pod for pod in manifests.servers.values() if pod.image == module)
    with running(model_service(module, tmp_path / "bundles", tmp_path)) as service:
        wait_until(lambda: bool(service.events("listening")), "it listening")
        passed = {name: succeeds(probe, pod, service) for name, probe in probes(pod).items()}
    assert passed == {"startupProbe": True, "livenessProbe": True, "readinessProbe": False}


def probes(pod: Pod) -> dict[str, Object]:
    """All three."""
    return {name: pod.container[name] for name in ("startupProbe", "livenessProbe", "readinessProbe")}


def succeeds(probe: Object, pod: Pod, service: Service) -> bool:
    """Whether a process passes a probe, asked as a kubelet does."""
    addresses = {pod.ports["grpc"]: service.port, pod.ports["metrics"]: service.metrics_port}
    if "httpGet" in probe:
        port = addresses[pod.port(probe["httpGet"]["port"])]
        url = f"http://127.0.0.1:{port}{probe['httpGet']['path']}"
        return httpx.get(url, timeout=5, verify=NO_TLS, trust_env=False).is_success
    address = f"127.0.0.1:{addresses[pod.port(probe['grpc']['port'])]}"
    with grpc.insecure_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service=probe["grpc"].get("service", ""))
        answer = HealthStub(channel).Check(request, timeout=5)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def test_a_pod_has_the_time_to_end_in_order(
    manifests: Manifests, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pod in manifests.servers.values():
        for name, value in pod.environment.items():
            monkeypatch.setenv(name, value)
        drain = _SETTINGS[pod.image].load("", []).drain_seconds
        sleep = pod.container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert sleep > 0
        assert pod.spec["terminationGracePeriodSeconds"] > sleep + drain


def test_every_network_policy_is_for_some_pod(manifests: Manifests) -> None:
    for policy in manifests.of("NetworkPolicy").values():
        assert manifests.selected(policy["spec"]["podSelector"])


def test_the_network_lets_through_what_is_needed_and_nothing_else(manifests: Manifests) -> None:
    ours = manifests.pods
    others = {
        "dns": Pod({"k8s-app": "kube-dns"}, "kube-system"),
        "prometheus": Pod({"app.kubernetes.io/name": "prometheus"}, "monitoring"),
        "neighbour": Pod({"app.kubernetes.io/name": "another"}),
        "stranger": Pod({"app.kubernetes.io/name": "another"}, "elsewhere"),
    }
    pods = ours | others
    assert set(let_through(manifests, pods)) == {
        ("gateway", "user-tower", "TCP 50051"),
        ("gateway", "retrieval", "TCP 50052"),
        ("gateway", "dns", "UDP 53"),
        ("gateway", "dns", "TCP 53"),
        ("prometheus", "user-tower", "TCP 9151"),
        ("prometheus", "retrieval", "TCP 9152"),
        *((who, "gateway", "TCP 8000") for who in others),
    }


def let_through(manifests: Manifests, pods: Mapping[str, Pod]) -> Iterator[tuple[str, str, str]]:
    """Who may connect to whom, by which port, where the one or the other is ours."""
    numbers = {53, 80, 443, *(port for pod in manifests.pods.values() for port in pod.ports.values())}
    ports = [f"{protocol} {number}" for protocol, number in product(("TCP", "UDP"), numbers)]
    for source, target, port in product(pods, pods, ports):
        if {source, target}.isdisjoint(manifests.pods):
            continue
        if allowed(manifests, "Egress", pods[source], pods[target], port) and allowed(
            manifests, "Ingress", pods[target], pods[source], port
        ):
            yield source, target, port


def allowed(manifests: Manifests, way: str, pod: Pod, peer: Pod, port: str) -> bool:
    """Whether the policies for a pod let it have its peer; where there is none, they do."""
    policies = [
        policy["spec"]
        for policy in manifests.of("NetworkPolicy").values()
        if pod.namespace == Pod.namespace
        and way in policy["spec"]["policyTypes"]
        and pod.matches(policy["spec"]["podSelector"])
    ]
    side = {"Egress": "to", "Ingress": "from"}[way]
    return not policies or any(
        port in [f"{each.get('protocol', 'TCP')} {each['port']}" for each in rule["ports"]]
        and (side not in rule or any(is_peer(one, pod, peer) for one in rule[side]))
        for policy in policies
        for rule in policy.get(way.lower(), [])
    )


def is_peer(rule: Object, pod: Pod, peer: Pod) -> bool:
    """Whether a rule of a policy for a pod means a peer."""
    assert rule.keys() <= {"podSelector", "namespaceSelector"}
    if "namespaceSelector" in rule:
        namespace = Pod({"kubernetes.io/metadata.name": peer.namespace})
        near = namespace.matches(rule["namespaceSelector"])
    else:
        near = peer.namespace == pod.namespace
    return near and peer.matches(rule.get("podSelector", {}))


def test_the_example_changes_every_image_and_every_number_of_replicas() -> None:
    base, example = render("base"), render(_EXAMPLE)
    images = {pod.container["image"] for pod in example.pods.values()}
    assert images == {f"registry.example.com/twotower/{name}:1.4" for name in IMAGES}
    for name, autoscaler in example.of("HorizontalPodAutoscaler").items():
        before = base.of("HorizontalPodAutoscaler")[name]["spec"]
        assert autoscaler["spec"]["minReplicas"] != before["minReplicas"]
        assert autoscaler["spec"]["maxReplicas"] != before["maxReplicas"]
