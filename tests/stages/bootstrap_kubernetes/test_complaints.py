"""What logs say while Kubernetes does not come up: what is certain, what is doubted, and what is missed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fluobook import params
from fluobook.errors import Rejected, Unreachable
from fluobook.stages.bootstrap_kubernetes import complaints
from fluobook.stages.bootstrap_kubernetes.complaints import Complaints, field_of, serious

ROOT = Path(__file__).parents[3]
UNKNOWN = "2026-11-24T01:00:00Z tls: failed to verify certificate: x509: certificate signed by unknown authority"
STALE = 'E1124 01:00:00.000000       1 run.go:72] "command failed" err="context deadline exceeded"'
POLICY = 'E1124 01:00:00.000000       1 run.go:72] "command failed" err="loading audit policy file: invalid level"'


@dataclass
class Cluster:
    """A context whose logs and Kubernetes are what a test says."""

    logs: dict[tuple[str, str], str] = field(default_factory=dict)
    objects: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    platform: Any = field(default_factory=lambda: params.load("phase1", root=ROOT).platform)

    @property
    def talos(self) -> Any:
        return self

    def client(self, node: Any) -> Any:
        logs = {log: text for (name, log), text in self.logs.items() if name == node.name}
        return type("Talos", (), {"logs": staticmethod(lambda log: logs.get(log, ""))})

    def kube(self) -> Any:
        cluster = self

        class Kube:
            def version(self) -> str:
                raise Unreachable("connection refused", system="kubernetes")

            def list(self, _version: str, kind: str, *_: str, **__: str) -> list[dict[str, Any]]:
                return cluster.objects.get(kind, [])

        return Kube()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(complaints, "PAUSE", 0.0)


def of(cluster: Cluster, name: str = "talos-worker-1") -> Complaints:
    return Complaints(cluster, cluster.platform.node(name))  # type: ignore[arg-type]


def node(name: str, address: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": {"addresses": [{"type": "InternalIP", "address": address}]}}


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (UNKNOWN, "tls: failed to verify certificate: x509: certificate signed by unknown authority"),
        (POLICY, '"command failed" err="loading audit policy file: invalid level"'),
        ("I1124 01:00:00.000000 1 x.go:1] loaded certificate\n", ""),
        ("all is well\n", ""),
    ],
)
def test_the_serious_line_of_a_log_is_found(log: str, message: str) -> None:
    assert serious(log) == message


def test_what_is_certain_is_believed_when_it_is_said_again() -> None:
    cluster = Cluster({("talos-worker-1", "kubelet"): UNKNOWN})
    asked = of(cluster)
    assert "unknown authority" in asked.check(api=True)
    assert "unknown authority" in asked.check(api=True)
    cluster.logs["talos-worker-1", "kubelet"] += "\n" + UNKNOWN.replace("00:00Z", "00:10Z")
    with pytest.raises(Rejected, match="kubelet on talos-worker-1 says: tls: failed") as caught:
        asked.check(api=True)
    assert "fluobook talosctl <phase> -- -n 10.10.0.20 logs kubelet" in caught.value.remedy


def test_what_every_cluster_says_on_its_way_is_doubted() -> None:
    cluster = Cluster({("talos-cp-1", "kube-apiserver"): STALE})
    asked = of(cluster, "talos-cp-1")
    for _ in range(3):
        assert "deadline" in asked.check(api=False)
        cluster.logs["talos-cp-1", "kube-apiserver"] += "\n" + STALE


def test_doubt_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(complaints, "DOUBT", 0.0)
    cluster = Cluster({("talos-worker-1", "kubelet"): "Unauthorized"})
    asked = of(cluster)
    assert "Unauthorized" in asked.check(api=True)
    cluster.logs["talos-worker-1", "kubelet"] += "\nUnauthorized"
    with pytest.raises(Rejected, match="Unauthorized"):
        asked.check(api=True)


def test_the_controllers_are_asked_when_no_node_registers() -> None:
    cluster = Cluster({("talos-cp-1", "kube-controller-manager"): POLICY})
    assert "kube-controller-manager on talos-cp-1" in of(cluster).check(api=True)


def test_a_machine_by_another_name_is_named() -> None:
    cluster = Cluster(objects={"Node": [node("talos-cp-1", "10.10.0.10"), node("somebody", "10.10.0.20")]})
    with pytest.raises(Rejected, match=r"10\.10\.0\.20 as somebody, not as talos-worker-1") as caught:
        of(cluster).check(api=True)
    assert "HostnameConfig" in caught.value.cause


def test_two_machines_by_one_name_are_noticed() -> None:
    cluster = Cluster(objects={"Node": [node("somebody", "10.10.0.21")]})
    assert "somebody" in of(cluster).check(api=True)


def test_a_network_that_nobody_brings_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster()
    asked = of(cluster)
    assert "Cilium" in asked.of_the_network()
    monkeypatch.setattr(complaints, "DOUBT", 0.0)
    with pytest.raises(Rejected, match="no DaemonSet in kube-system is Cilium's") as caught:
        asked.of_the_network()
    assert "cluster.inlineManifests" in caught.value.remedy


def test_a_registered_node_is_not_held_to_what_its_kubelet_said_before() -> None:
    cluster = Cluster({("talos-worker-1", "kubelet"): "Unauthorized"}, {"DaemonSet": [{}]})
    asked = of(cluster)
    assert asked.check(api=True)
    assert asked.of_the_network() == ""


def test_a_scheduler_that_refuses_its_flags_is_named_though_nodes_are_registered() -> None:
    said = "kube-scheduler ended with exit code 1; Error: unknown flag: --nonsense"
    cluster = Cluster({("talos-cp-1", "controller-runtime"): said}, {"DaemonSet": [{}]})
    asked = of(cluster)
    assert "unknown flag" in asked.of_the_network()
    cluster.logs["talos-cp-1", "controller-runtime"] += f"\n{said}"
    with pytest.raises(Rejected, match="unknown flag: --nonsense"):
        asked.of_the_network()


@pytest.mark.parametrize(
    ("log", "words", "field"),
    [
        ("kubelet on talos-worker-1", "unknown flag: --nonsense", "machine.kubelet.extraArgs"),
        (
            "controller-runtime on a",
            "kube-scheduler ended with exit code 1; Error: unknown flag: --x",
            "cluster.scheduler",
        ),
        ("kube-apiserver on a", "Error: unknown flag: --x", "cluster.apiServer.extraArgs"),
        ("kubelet on a", "x509: certificate signed by unknown authority", "cluster.ca"),
        (
            "controller-runtime on a",
            "the machine configuration has no cluster.aggregatorCA with",
            "cluster.aggregatorCA",
        ),
        ("kube-apiserver on a", "Error: loading audit policy file: failed", "cluster.apiServer.auditPolicy"),
        ("kubelet on a", "dial tcp 10.0.0.9: connect: no route to host", "cluster.controlPlane.endpoint"),
        ("kubelet on a", "something else", ""),
    ],
)
def test_a_complaint_names_the_field_that_it_is_about(log: str, words: str, field: str) -> None:
    assert field_of(log, words).startswith(field)
    assert bool(field_of(log, words)) is bool(field)
