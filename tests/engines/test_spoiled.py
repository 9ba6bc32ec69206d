"""Machine configurations that are wrong in one way each: a run on the real engine fails, and names the cause."""

from __future__ import annotations

import base64
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fluobook.errors import FluobookError
from fluobook.machine import pki
from fluobook.stages import apply_talos_config
from fluobook.stages.apply_talos_config import documents
from fluobook.stages.bootstrap_kubernetes import complaints

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.engines.conftest import RealLab

UP_TO_THREE = ("create-vms", "apply-talos-config", "bootstrap-kubernetes")
UP_TO_FIVE = (*UP_TO_THREE, "approve-csrs", "privileged-namespaces")


@dataclass(frozen=True)
class Spoiled:
    """One way to be wrong.

    Args:
        role: whose configuration is spoiled, "" for all.
        spoil: changes its v1alpha1 document.
        named: what the error must say, each of these.
        stages: how far a run gets at the most.
    """

    role: str
    spoil: Callable[[dict[str, Any]], None]
    named: tuple[str, ...]
    stages: tuple[str, ...] = UP_TO_THREE


def _without(*path: str) -> Callable[[dict[str, Any]], None]:
    def spoil(main: dict[str, Any]) -> None:
        for name in path[:-1]:
            main = main[name]
        del main[path[-1]]

    return spoil


def _with(value: Any, *path: str) -> Callable[[dict[str, Any]], None]:
    def spoil(main: dict[str, Any]) -> None:
        for name in path[:-1]:
            main = main.setdefault(name, {})
        main[path[-1]] = value

    return spoil


ANOTHER = pki.new_authority(organization="somebody else", common_name="another CA").to_base64()


def _mismatched(main: dict[str, Any]) -> None:
    main["cluster"]["etcd"]["ca"]["crt"] = ANOTHER["crt"]


SPOILED = {
    "the control plane has another authority of the cluster": Spoiled(
        "controlplane", _with(dict(ANOTHER), "cluster", "ca"), ("certificate",)
    ),
    "a worker has another authority of the cluster": Spoiled(
        "worker", _with({"crt": ANOTHER["crt"], "key": ""}, "cluster", "ca"), ("talos-worker-1", "kubelet", "x509")
    ),
    "a worker has another bootstrap token": Spoiled(
        "worker", _with("aaaaaa.bbbbbbbbbbbbbbbb", "cluster", "token"), ("talos-worker-1", "kubelet", "Unauthorized")
    ),
    "a worker has another endpoint": Spoiled(
        "worker",
        _with("https://10.10.0.99:6443", "cluster", "controlPlane", "endpoint"),
        ("talos-worker-1", "10.10.0.99", "no route to host"),
    ),
    "no aggregator authority": Spoiled("controlplane", _without("cluster", "aggregatorCA"), ("cluster.aggregatorCA",)),
    "etcd's authority has another's certificate": Spoiled(
        "controlplane", _mismatched, ("cluster.etcd.ca", "PrivateKey doesn't match")
    ),
    "no service account key": Spoiled(
        "controlplane", _without("cluster", "serviceAccount"), ("cluster.serviceAccount.key",)
    ),
    "a service account key that is none": Spoiled(
        "controlplane",
        _with(base64.b64encode(b"nonsense").decode(), "cluster", "serviceAccount", "key"),
        ("kube-apiserver", "service-account.key"),
    ),
    "a secretbox key that is none": Spoiled(
        "controlplane", _with("nonsense", "cluster", "secretboxEncryptionSecret"), ("kube-apiserver", "secret")
    ),
    "an admission plugin with settings that nobody knows": Spoiled(
        "controlplane",
        _with([{"name": "PodSecurity", "configuration": {"kind": "No"}}], "cluster", "apiServer", "admissionControl"),
        ("kube-apiserver", "PodSecurity"),
    ),
    "a flag that the API server does not have": Spoiled(
        "controlplane", _with("1", "cluster", "apiServer", "extraArgs", "nonsense"), ("unknown flag: --nonsense",)
    ),
    "no admission settings": Spoiled(
        "controlplane",
        _without("cluster", "apiServer", "admissionControl"),
        ("refuses privileged pods", "admissionControl"),
        UP_TO_FIVE,
    ),
    "another network of Services": Spoiled(
        "", _with(["10.112.0.0/12"], "cluster", "network", "serviceSubnets"), ("10.112.0.1", "10.96.0.0/12")
    ),
    "another network of pods": Spoiled(
        "", _with(["10.200.0.0/16"], "cluster", "network", "podSubnets"), ("10.200.", "10.244.0.0/16")
    ),
    "kubelets that do not ask for a serving certificate": Spoiled(
        "",
        _without("machine", "kubelet", "extraArgs", "rotate-server-certificates"),
        ("rotate-server-certificates",),
        UP_TO_FIVE,
    ),
}


@pytest.fixture
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """Doubt complaints for seconds instead of minutes: nothing here gets better."""
    monkeypatch.setattr(complaints, "DOUBT", 6.0)
    monkeypatch.setattr(complaints, "PAUSE", 1.0)


def spoiling(monkeypatch: pytest.MonkeyPatch, role: str, spoil: Callable[[dict[str, Any]], None]) -> None:
    """Let stage 2 render documents that are wrong."""
    right = documents.node_text

    def wrong(platform: Any, node: Any, *rest: Any) -> str:
        text = right(platform, node, *rest)
        if role not in ("", node.role):
            return text
        main, *others = yaml.safe_load_all(text)
        spoil(main)
        return yaml.safe_dump_all([main, *others], sort_keys=False)

    # The package has a function of its module's name, which hides the module.
    monkeypatch.setattr(sys.modules[f"{apply_talos_config.__name__}.observe"], "node_text", wrong)


@pytest.mark.usefixtures("haste")
@pytest.mark.parametrize("how", SPOILED)
def test_a_run_fails_and_names_the_cause(
    how: str, real_labs: Callable[..., RealLab], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = SPOILED[how]
    spoiling(monkeypatch, case.role, case.spoil)
    lab = real_labs(deadlines={"csr": 20})
    with pytest.raises(FluobookError) as caught:
        lab.bring_up(*case.stages)
    said = f"{caught.value.message} {caught.value.cause} {caught.value.remedy}"
    assert [word for word in case.named if word not in said] == []
