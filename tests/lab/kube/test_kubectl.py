"""The real kubectl against the lab's API: what people will type."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fluobook.clients import tools

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.lab


@pytest.mark.parametrize(
    "command",
    [
        "create namespace team",
        "create configmap settings --from-literal=a=b",
        "create secret generic key --from-literal=a=b",
        "create serviceaccount robot",
        "create deployment web --image=nginx:1 --replicas=2",
        "create role reader --verb=get --resource=pods",
        "create clusterrole reader --verb=get --resource=pods",
        "create rolebinding reads --role=reader --user=ann",
        "create clusterrolebinding reads --clusterrole=reader --group=team",
        "create service clusterip web --tcp=80:8080",
        "create ingress web --rule=a.example/x=web:80",
        "create job once --image=busybox:1",
        "create cronjob often --image=busybox:1 --schedule=@hourly",
        "create quota all --hard=pods=3",
        "create priorityclass high --value=100",
        "create poddisruptionbudget web --selector=app=web --min-available=1",
    ],
)
def test_kubectl_creates_every_kind_it_knows(kubernetes: Callable[..., Any], command: str) -> None:
    rig = kubernetes(controllers=False)
    assert "created" in rig.kubectl(*command.split())


def test_a_created_deployment_holds_what_was_said(kubernetes: Callable[..., Any]) -> None:
    rig = kubernetes(controllers=False)
    rig.kubectl("create", "deployment", "web", "--image=nginx:1", "--replicas=3", "--port=80")
    spec = rig.kube.get("apps/v1", "Deployment", "web", "default")["spec"]
    assert spec["replicas"] == 3
    container = spec["template"]["spec"]["containers"][0]
    assert (container["image"], container["ports"]) == ("nginx:1", [{"containerPort": 80, "protocol": "TCP"}])
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": "25%", "maxUnavailable": "25%"}


def test_a_secret_arrives_in_base64(kubernetes: Callable[..., Any]) -> None:
    rig = kubernetes(controllers=False)
    rig.kubectl("create", "secret", "generic", "key", "--from-literal=keys.txt=AGE-SECRET")
    assert rig.kube.get("v1", "Secret", "key", "default")["data"] == {"keys.txt": "QUdFLVNFQ1JFVA=="}


def test_kubectl_lists_nodes_and_requests(kubernetes: Callable[..., Any], nodes: Any) -> None:
    rig = kubernetes(nodes=nodes)
    rig.until(lambda: len(rig.kube.list("certificates.k8s.io/v1", "CertificateSigningRequest")) == 4)
    listed = rig.kubectl("get", "nodes", "-o", "wide")
    assert "NotReady" in listed
    assert "control-plane" in listed
    assert "10.10.0.20" in listed
    requests = rig.kubectl("get", "csr")
    assert requests.count("Approved,Issued") == 2
    assert requests.count("Pending") == 2


def test_kubectl_approves_and_denies(kubernetes: Callable[..., Any], nodes: Any) -> None:
    rig = kubernetes(nodes=nodes)
    serving = "kubernetes.io/kubelet-serving"

    def pending() -> list[str]:
        requests = rig.kube.list("certificates.k8s.io/v1", "CertificateSigningRequest")
        names = [csr["metadata"]["name"] for csr in requests if csr["spec"]["signerName"] == serving]
        return names if len(names) == 2 else []

    first, second = rig.until(pending)
    rig.kubectl("certificate", "approve", first)
    rig.kubectl("certificate", "deny", second)
    rig.until(lambda: "Approved,Issued" in rig.kubectl("get", "csr", first))
    assert "Denied" in rig.kubectl("get", "csr", second)
    assert "Issued" not in rig.kubectl("get", "csr", second)


def test_apply_and_its_validation(kubernetes: Callable[..., Any], deployment: dict[str, Any]) -> None:
    rig = kubernetes(controllers=False)
    text = yaml.safe_dump(deployment)
    assert "created" in rig.kubectl("apply", "-f", "-", stdin=text)
    assert "unchanged" in rig.kubectl("apply", "-f", "-", stdin=text)
    deployment["spec"]["replicas"] = 2
    assert "configured" in rig.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(deployment))
    deployment["spec"]["replica"] = 3
    refusal = rig.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(deployment), ok=False)
    assert 'unknown field "spec.replica"' in refusal


def test_two_field_managers_conflict_by_name(kubernetes: Callable[..., Any], deployment: dict[str, Any]) -> None:
    rig = kubernetes(controllers=False)
    deployment["spec"]["replicas"] = 1
    rig.kubectl("apply", "--server-side", "--field-manager=first", "-f", "-", stdin=yaml.safe_dump(deployment))
    deployment["spec"]["replicas"] = 2
    text = yaml.safe_dump(deployment)
    refusal = rig.kubectl("apply", "--server-side", "--field-manager=second", "-f", "-", stdin=text, ok=False)
    assert 'conflict with "first": .spec.replicas' in refusal
    rig.kubectl("apply", "--server-side", "--field-manager=second", "--force-conflicts", "-f", "-", stdin=text)
    assert rig.kube.get("apps/v1", "Deployment", "web", "default")["spec"]["replicas"] == 2


def test_edits_of_all_sorts(kubernetes: Callable[..., Any], deployment: dict[str, Any]) -> None:
    rig = kubernetes(controllers=False)
    rig.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(deployment))
    rig.kubectl("scale", "deployment", "web", "--replicas=4")
    rig.kubectl("label", "deployment", "web", "tier=front")
    rig.kubectl("annotate", "deployment", "web", "why=test")
    rig.kubectl("set", "image", "deployment/web", "main=lab.invalid/main:2")
    rig.kubectl("patch", "deployment", "web", "--type=json", "-p", '[{"op":"add","path":"/spec/paused","value":true}]')
    edited = rig.kube.get("apps/v1", "Deployment", "web", "default")
    assert (edited["spec"]["replicas"], edited["metadata"]["labels"]["tier"]) == (4, "front")
    assert edited["spec"]["template"]["spec"]["containers"][0]["image"] == "lab.invalid/main:2"
    assert edited["spec"]["paused"] is True
    assert "web" in rig.kubectl("get", "deploy", "-l", "tier in (front,back),missing notin (x)", "-A")
    assert "No resources found" in rig.kubectl("get", "deploy", "-l", "tier!=front")


def test_explain_and_api_resources(kubernetes: Callable[..., Any]) -> None:
    rig = kubernetes(controllers=False)
    assert "replicas <integer>" in rig.kubectl("explain", "deployment.spec.replicas")
    assert "certificatesigningrequests" in rig.kubectl("api-resources")
    assert "yes" in rig.kubectl("auth", "can-i", "delete", "nodes")
    assert "v1.35" in rig.kubectl("version")
    assert len(rig.kubectl("create", "token", "default", "-n", "default", "--duration=10m", ok=False)) > 0


def test_a_workload_rolls_out_and_is_watched(
    kubernetes: Callable[..., Any], nodes: Any, cilium: dict[str, Any], deployment: dict[str, Any]
) -> None:
    rig = kubernetes(nodes=nodes)
    rig.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump(cilium))
    rig.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=50s")
    rig.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(deployment))
    assert "successfully rolled out" in rig.kubectl("rollout", "status", "deployment/web", "--timeout=50s")
    assert "1/1" in rig.kubectl("get", "deployment", "web")
    assert "Running" in rig.kubectl("get", "pods")
    assert "started" in rig.kubectl("logs", "deployment/web")
    described = rig.kubectl("describe", "deployment", "web")
    assert "MinimumReplicasAvailable" in described


def test_get_w_sees_what_happens(kubernetes: Callable[..., Any]) -> None:
    rig = kubernetes(controllers=False)
    rig.kubectl("create", "configmap", "first")
    config = rig.folder / "kubeconfig"
    command = [str(tools.find("kubectl").path), "--kubeconfig", str(config), "get", "configmap", "-w", "-o", "name"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        try:
            assert watching.stdout.readline() == "configmap/first\n"
            rig.kube.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "second"}})
            assert watching.stdout.readline() == "configmap/second\n"
        finally:
            watching.terminate()


def test_drain_moves_pods_away(
    kubernetes: Callable[..., Any], nodes: Any, cilium: dict[str, Any], deployment: dict[str, Any]
) -> None:
    rig = kubernetes(nodes=nodes)
    for obj in (cilium, deployment):
        rig.kube.apply(obj)
    rig.kubectl("rollout", "status", "deployment/web", "--timeout=50s")
    rig.kubectl("drain", "worker-1", "--ignore-daemonsets", "--timeout=50s")
    assert "SchedulingDisabled" in rig.kubectl("get", "node", "worker-1")
    rig.kubectl("uncordon", "worker-1")
    assert "SchedulingDisabled" not in rig.kubectl("get", "node", "worker-1")


def test_deleting_a_namespace_waits_for_what_is_in_it(kubernetes: Callable[..., Any]) -> None:
    rig = kubernetes()
    rig.kubectl("create", "namespace", "team")
    rig.kubectl("create", "configmap", "settings", "-n", "team")
    rig.kubectl("delete", "namespace", "team", "--timeout=50s")
    assert rig.kube.find("v1", "ConfigMap", "settings", "team") is None


CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "lamps.example.org"},
    "spec": {
        "group": "example.org",
        "scope": "Namespaced",
        "names": {"kind": "Lamp", "plural": "lamps", "shortNames": ["lp"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    {"name": "Watts", "type": "integer", "jsonPath": ".spec.watts"},
                    {"name": "On", "type": "string", "jsonPath": '.status.conditions[?(@.type=="On")].status'},
                ],
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "required": ["watts"],
                                "properties": {
                                    "watts": {"type": "integer", "minimum": 1},
                                    "colour": {"type": "string", "enum": ["red", "white"], "default": "white"},
                                },
                            },
                            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                        },
                    }
                },
            }
        ],
    },
}


def test_custom_resources_are_served_as_soon_as_they_are_defined(kubernetes: Callable[..., Any]) -> None:
    rig = kubernetes(controllers=False)
    rig.kubectl("apply", "-f", "-", stdin=json.dumps(CRD))
    rig.kubectl("wait", "--for=condition=Established", "crd/lamps.example.org", "--timeout=50s")
    lamp = {"apiVersion": "example.org/v1", "kind": "Lamp", "metadata": {"name": "hall"}, "spec": {"watts": 40}}
    rig.kubectl("apply", "-f", "-", stdin=json.dumps(lamp))
    status = {"conditions": [{"type": "On", "status": "True"}]}
    rig.kube.patch("example.org/v1", "Lamp", "hall", "default", body={"status": status}, subresource="status")
    shown = rig.kubectl("get", "lp")
    assert "40" in shown
    assert "True" in shown
    assert rig.kube.get("example.org/v1", "Lamp", "hall", "default")["spec"]["colour"] == "white"
    assert "watts <integer>" in rig.kubectl("explain", "lamp.spec.watts")


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({}, "spec.watts: Required value"),
        ({"watts": "many"}, 'must be of type integer: "string"'),
        ({"watts": 0}, "should be greater than or equal to 1"),
        ({"watts": 1, "colour": "blue"}, 'Unsupported value: "blue": supported values: "red", "white"'),
        ({"watts": 1, "size": 2}, 'unknown field "spec.size"'),
    ],
)
def test_a_custom_resource_is_held_against_its_schema(
    kubernetes: Callable[..., Any], spec: dict[str, Any], problem: str
) -> None:
    rig = kubernetes(controllers=False)
    rig.kube.apply(CRD)
    lamp = {"apiVersion": "example.org/v1", "kind": "Lamp", "metadata": {"name": "hall"}, "spec": spec}
    assert problem in rig.kubectl("apply", "--validate=strict", "-f", "-", stdin=json.dumps(lamp), ok=False)
