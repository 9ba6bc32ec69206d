"""Machine configurations that are wrong in one way each: a run on the real engine fails, and names the cause.

Stage 2 refuses most of them before a node has one (tests/stages/apply_talos_config/test_contradictions.py). Here it is
made blind: what the real programs and the nodes then say must be enough to name the cause.
"""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from fluobook_lab import life

from fluobook import params
from fluobook.errors import FluobookError
from fluobook.failures import present
from fluobook.lab import programs as lab_programs
from fluobook.machine import pki
from fluobook.stages.apply_talos_config import documents
from fluobook.stages.bootstrap_kubernetes import complaints
from tests.engines.conftest import ROOT, RealLab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BEFORE, CHECKED = ("create-vms", "apply-talos-config"), ("bootstrap-kubernetes",)
UP_TO_FIVE = (*CHECKED, "approve-csrs", "privileged-namespaces")

Documents = list[dict[str, Any]]


@dataclass(frozen=True)
class Spoiled:
    """One way to be wrong.

    Args:
        role: whose configuration is spoiled, "" for all.
        spoil: changes its documents; the v1alpha1 document is the first.
        named: what the error must say, each of these.
        stages: how far a run gets at the most, after stage 2.
    """

    role: str
    spoil: Callable[[Documents], None]
    named: tuple[str, ...]
    stages: tuple[str, ...] = CHECKED


def _without(*path: str) -> Callable[[Documents], None]:
    def spoil(documents: Documents) -> None:
        main = documents[0]
        for name in path[:-1]:
            main = main[name]
        del main[path[-1]]

    return spoil


def _with(value: Any, *path: str) -> Callable[[Documents], None]:
    def spoil(documents: Documents) -> None:
        main = documents[0]
        for name in path[:-1]:
            main = main.setdefault(name, {})
        main[path[-1]] = value

    return spoil


ANOTHER_PAIR = pki.new_authority(organization="somebody else", common_name="another CA")
ANOTHER = ANOTHER_PAIR.to_base64()
NO_AUTHORITY = pki.issue(ANOTHER_PAIR, common_name="a server", server=True).to_base64()
EXPIRED = pki.new_authority(organization="kubernetes", years=0).to_base64()
ADMISSION = ("cluster", "apiServer", "admissionControl")
API = ("cluster", "apiServer")


def _mismatched(documents: Documents) -> None:
    documents[0]["cluster"]["etcd"]["ca"]["crt"] = ANOTHER["crt"]


def _admits(**settings: Any) -> Callable[[Documents], None]:
    def spoil(documents: Documents) -> None:
        documents[0]["cluster"]["apiServer"]["admissionControl"][0]["configuration"] |= settings

    return spoil


def _renamed(documents: Documents) -> None:
    next(document for document in documents if document.get("kind") == "HostnameConfig")["hostname"] = "somebody"


SPOILED = {
    "the control plane has another authority of the cluster": Spoiled(
        "controlplane", _with(dict(ANOTHER), "cluster", "ca"), ("certificate",)
    ),
    "the control plane's authority of the cluster has no key": Spoiled(
        "controlplane", _with({"crt": ANOTHER["crt"], "key": ""}, "cluster", "ca"), ("no cluster.ca with",)
    ),
    "the control plane's authority is none": Spoiled(
        "controlplane", _with(dict(NO_AUTHORITY), "cluster", "ca"), ("cluster.ca", "cannot sign this kind")
    ),
    "the control plane's authority has expired": Spoiled(
        "controlplane", _with(dict(EXPIRED), "cluster", "ca"), ("cluster.ca", "certificate has expired")
    ),
    "a worker has another authority of the cluster": Spoiled(
        "worker",
        _with({"crt": ANOTHER["crt"], "key": ""}, "cluster", "ca"),
        ("talos-worker-1", "kubelet", "x509: certificate signed by unknown authority"),
    ),
    "a worker has no authority of the cluster": Spoiled(
        "worker", _without("cluster", "ca"), ("talos-worker-1", "x509: certificate signed by unknown authority")
    ),
    "a worker has another bootstrap token": Spoiled(
        "worker", _with("aaaaaa.bbbbbbbbbbbbbbbb", "cluster", "token"), ("talos-worker-1", "kubelet", "Unauthorized")
    ),
    "a worker has another endpoint": Spoiled(
        "worker",
        _with("https://10.10.0.99:6443", "cluster", "controlPlane", "endpoint"),
        ("talos-worker-1", "10.10.0.99", "no route to host"),
    ),
    "a worker's addresses lie elsewhere": Spoiled(
        "worker",
        _with(["192.168.0.0/24"], "machine", "kubelet", "nodeIP", "validSubnets"),
        ("talos-worker-1", "no suitable node IP", ".machine.kubelet.nodeIP"),
    ),
    "a flag that kubelets do not have": Spoiled(
        "worker",
        _with("1", "machine", "kubelet", "extraArgs", "nonsense"),
        ("kubelet on talos-worker-", "unknown flag: --nonsense"),
    ),
    "a worker goes by another name": Spoiled("worker", _renamed, ("somebody", "talos-worker-1", "HostnameConfig")),
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
        _with([{"name": "PodSecurity", "configuration": {"kind": "No"}}], *ADMISSION),
        ("kube-apiserver", "PodSecurity"),
    ),
    "an audit policy with a level that nobody knows": Spoiled(
        "controlplane",
        _with({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Loud"}]}, *API, "auditPolicy"),
        ("kube-apiserver", "audit"),
    ),
    "a flag that the API server does not have": Spoiled(
        "controlplane", _with("1", *API, "extraArgs", "nonsense"), ("unknown flag: --nonsense",)
    ),
    "a flag that the controllers do not have": Spoiled(
        "controlplane",
        _with("1", "cluster", "controllerManager", "extraArgs", "nonsense"),
        ("kube-controller-manager", "unknown flag: --nonsense"),
    ),
    "a flag that the scheduler does not have": Spoiled(
        "controlplane",
        _with("1", "cluster", "scheduler", "extraArgs", "nonsense"),
        ("kube-scheduler", "unknown flag: --nonsense"),
    ),
    "a flag that Talos keeps to itself": Spoiled(
        "controlplane",
        _with("/dev/null", *API, "extraArgs", "encryption-provider-config"),
        ("cluster.apiServer.extraArgs", 'extra arg "encryption-provider-config" is not allowed'),
    ),
    "admission that a flag turns off": Spoiled(
        "controlplane",
        _with("PodSecurity", *API, "extraArgs", "disable-admission-plugins"),
        ("refuses privileged pods", "extraArgs"),
        UP_TO_FIVE,
    ),
    "a network of pods that is none": Spoiled(
        "controlplane", _with(["nonsense"], "cluster", "network", "podSubnets"), ("kube-controller-manager", "nonsense")
    ),
    "no admission settings": Spoiled(
        "controlplane", _without(*ADMISSION), ("refuses privileged pods", "admissionControl"), UP_TO_FIVE
    ),
    "an admission plugin of another name": Spoiled(
        "controlplane",
        _with([{"name": "PodSecurty", "configuration": {}}], *ADMISSION),
        ("admission",),
        UP_TO_FIVE,
    ),
    "namespaces exempt from admission": Spoiled(
        "controlplane",
        _admits(exemptions={"namespaces": ["kube-system", "default"]}),
        ("refuses privileged pods", "admissionControl"),
        UP_TO_FIVE,
    ),
    "no Cilium": Spoiled("controlplane", _without("cluster", "inlineManifests"), ("Cilium", "cluster.inlineManifests")),
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

LONG = {
    "the control plane's authority is none",
    "the control plane's authority has expired",
    "a worker has no authority of the cluster",
    "a worker has another bootstrap token",
    "a worker has another endpoint",
    "a secretbox key that is none",
    "an admission plugin with settings that nobody knows",
    "a flag that the controllers do not have",
    "a flag that the scheduler does not have",
    "a flag that Talos keeps to itself",
    "an admission plugin of another name",
    "namespaces exempt from admission",
}
"""Cases that fail at the same check as another one. Quick tests have their words: test_complaints for programs,
test_contradictions for admission."""


@pytest.fixture
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """Doubt complaints for seconds instead of minutes, since nothing here gets better, and render Cilium once."""
    monkeypatch.setattr(complaints, "DOUBT", 3.0)
    monkeypatch.setattr(complaints, "PAUSE", 0.5)
    monkeypatch.setattr(documents, "gather", _gathered)


GATHER = documents.gather
INGREDIENTS: list[documents.Ingredients] = []


def _gathered(platform: params.Platform, root: Path) -> documents.Ingredients:
    if not INGREDIENTS:
        INGREDIENTS.append(GATHER(platform, root))
    return INGREDIENTS[0]


@pytest.fixture
def lab(programs: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RealLab]:
    """A lab that ends with its test: three dozen at once would be too many. Its parameter is a version of Talos."""
    chosen = params.load("phase1", root=ROOT)
    versions = {"contract": "1.13", "talos": getattr(request, "param", chosen.platform.versions.talos)}
    settings = {"deadlines": {"csr": 6}, "versions": versions}  # a contract whose one document is what gets spoilt
    chosen = params.Params(phase="phase1", platform=params.overlay(chosen.platform, settings))
    started = life.start(
        chosen, tmp_path, root=ROOT, programs=lab_programs(), owner=os.getpid(), speed=300, engines=programs
    )
    yield RealLab(started, chosen)
    life.end(started, forget=True)


def spoiling(monkeypatch: pytest.MonkeyPatch, role: str, spoil: Callable[[Documents], None]) -> None:
    """Let stage 2 render documents that are wrong, and not see it."""
    render = documents.node_texts

    def wrong(platform: params.Platform, *given: Any) -> dict[str, str]:
        texts = render(platform, *given)
        for node in platform.nodes:
            if role in ("", node.role):
                spoiled = list(yaml.safe_load_all(texts[node.name]))
                spoil(spoiled)
                texts[node.name] = yaml.safe_dump_all(spoiled, sort_keys=False)
        return texts

    monkeypatch.setattr(documents, "node_texts", wrong)
    monkeypatch.setattr(documents, "refuse_contradictions", lambda *_: None)


@pytest.mark.usefixtures("haste")
@pytest.mark.parametrize("how", [pytest.param(how, marks=[pytest.mark.long] * (how in LONG)) for how in SPOILED])
def test_a_run_fails_and_names_the_cause(how: str, lab: RealLab, monkeypatch: pytest.MonkeyPatch) -> None:
    case = SPOILED[how]
    spoiling(monkeypatch, case.role, case.spoil)
    lab.apply(*BEFORE)
    with pytest.raises(FluobookError) as caught:
        lab.bring_up(*case.stages)
    said = present(caught.value).text()
    assert [word for word in case.named if word not in said] == []
    assert caught.value.remedy


@pytest.mark.usefixtures("haste")
@pytest.mark.parametrize("lab", ["1.13.9"], indirect=True)  # Talos 1.14 refuses a configuration without a key
@pytest.mark.parametrize("key", [True, False], ids=["with a key", "without"])
def test_secrets_lie_encrypted_in_etcd_where_the_configuration_has_a_key(
    lab: RealLab, monkeypatch: pytest.MonkeyPatch, *, key: bool
) -> None:
    """Kubernetes tells nobody: without its own check, stage 2 would let a cluster keep Secrets in clear."""
    if not key:
        spoiling(monkeypatch, "controlplane", _without("cluster", "secretboxEncryptionSecret"))
    lab.apply(*BEFORE)
    lab.bring_up(*CHECKED)
    for kind in ("Secret", "ConfigMap"):
        head = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "asked", "namespace": "default"}}
        values = {"stringData" if kind == "Secret" else "data": {"said": f"the word of a {kind}"}}
        lab.context.kube().create({**head, **values})
    stored = b"".join(file.read_bytes() for file in lab.lab.folder.rglob("member/**/*") if file.is_file())
    assert b"the word of a ConfigMap" in stored
    assert (b"the word of a Secret" not in stored) is key
    assert (b"k8s:enc:secretbox:v1:key1:" in stored) is key
