"""Our Kubernetes client against the lab's API."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from fluobook.clients.https import Target
from fluobook.clients.kube import Kube
from fluobook.clients.kube.transport import Kind, Transport
from fluobook.errors import (
    AccessDenied,
    Conflict,
    FluobookError,
    InvalidAnswer,
    NotFound,
    OutsideError,
    Rejected,
    Unreachable,
)
from fluobook.failures import present
from fluobook.machine.pki import new_authority

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.lab


@pytest.fixture
def rig(kubernetes: Callable[..., Any]) -> Any:
    return kubernetes(controllers=False)


@pytest.fixture
def kube(rig: Any) -> Kube:
    return rig.kube


def settings(name: str = "s", namespace: str = "default", **data: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def test_version_and_readiness_are_read(rig: Any, kube: Kube) -> None:
    assert kube.version() == rig.lab.api.version
    assert kube.ready()


def test_objects_are_created_changed_and_deleted(kube: Kube) -> None:
    assert kube.create(settings(a="1"))["data"] == {"a": "1"}
    assert kube.apply(settings(b="2"))["data"] == {"a": "1", "b": "2"}
    assert kube.patch("v1", "ConfigMap", "s", "default", body={"data": {"a": None}})["data"] == {"b": "2"}
    stored = kube.get("v1", "ConfigMap", "s", "default")
    assert kube.replace({**stored, "data": {"c": "3"}})["data"] == {"c": "3"}
    assert kube.delete("v1", "ConfigMap", "s", "default")
    assert not kube.delete("v1", "ConfigMap", "s", "default")
    assert kube.find("v1", "ConfigMap", "s", "default") is None


def test_we_own_what_we_apply(kube: Kube) -> None:
    entry = kube.apply(settings(a="1"))["metadata"]["managedFields"][0]
    assert (entry["manager"], entry["operation"]) == ("fluobook", "Apply")


def test_a_dry_run_changes_nothing(rig: Any, kube: Kube) -> None:
    assert kube.apply(settings(a="1"), dry_run=True)["data"] == {"a": "1"}
    assert kube.find("v1", "ConfigMap", "s", "default") is None
    assert not any(request.mutating for request in rig.lab.api.requests)


def test_lists_are_complete_and_know_their_kind(rig: Any, kube: Kube) -> None:
    for number in range(1100):
        rig.store("create", settings(f"s{number:04}"))
    listed = kube.list("v1", "ConfigMap", "default")
    assert len(listed) == 1100
    assert (listed[0]["apiVersion"], listed[0]["kind"]) == ("v1", "ConfigMap")
    assert len(kube.list("v1", "ConfigMap", fields="metadata.name=s0007")) == 1


def test_another_managers_field_is_a_conflict(rig: Any, kube: Kube) -> None:
    rig.store("apply", settings(a="1"), manager="argocd-controller")
    with pytest.raises(Conflict) as refused:
        kube.apply(settings(a="2"))
    assert 'conflict with "argocd-controller": .data.a' in refused.value.message
    assert refused.value.code == "Conflict"
    assert kube.apply(settings(a="2"), force=True)["data"] == {"a": "2"}


@pytest.mark.parametrize(
    ("do", "kind", "text"),
    [
        (lambda kube: kube.get("v1", "ConfigMap", "none", "default"), NotFound, 'configmaps "none" not found'),
        (lambda kube: kube.get("example.org/v1", "Lamp", "hall"), NotFound, "does not serve Lamp in example.org/v1"),
        (lambda kube: kube.create(settings("kube", "nowhere")), NotFound, 'namespaces "nowhere" not found'),
        (lambda kube: kube.create({**settings(), "dat": {}}), Rejected, 'unknown field "dat"'),
        (lambda kube: kube.create(settings("No_Name")), Rejected, 'Invalid value: "No_Name"'),
    ],
)
def test_each_refusal_has_its_error_and_a_remedy(
    kube: Kube, do: Callable[[Kube], Any], kind: type[OutsideError], text: str
) -> None:
    with pytest.raises(kind) as refused:
        do(kube)
    assert text in refused.value.message
    assert refused.value.system == "kubernetes"
    assert present(refused.value).remedy


def test_a_kind_is_found_once_it_is_defined(rig: Any, kube: Kube) -> None:
    assert kube.find("example.org/v1", "Lamp", "hall", "default") is None
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
    names = {"kind": "Lamp", "plural": "lamps"}
    spec = {"group": "example.org", "scope": "Namespaced", "names": names, "versions": [version]}
    head = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    rig.store("create", {**head, "metadata": {"name": "lamps.example.org"}, "spec": spec})
    lamp = {"apiVersion": "example.org/v1", "kind": "Lamp", "metadata": {"name": "hall"}}
    assert kube.apply(lamp)["metadata"]["namespace"] == "default"


def test_a_user_without_rights_is_denied(rig: Any) -> None:
    guest = rig.another(rig.kubeconfig("guest", "guests"))
    with pytest.raises(AccessDenied, match='User "guest" cannot list resource "nodes"'):
        guest.list("v1", "Node")


def test_a_closed_port_is_unreachable(rig: Any) -> None:
    away = rig.another(address=("127.0.0.1", 1))
    assert not away.ready()
    with pytest.raises(Unreachable) as refused:
        away.version()
    assert "(at 127.0.0.1:1)" in refused.value.message


def test_the_ca_of_another_cluster_is_not_trusted(rig: Any) -> None:
    rig.authority = new_authority(organization="another")
    stranger = rig.another()
    with pytest.raises(Unreachable) as refused:
        stranger.version()
    assert "The kubeconfig is of another cluster, whose CA does not match." in present(refused.value).causes


def test_the_real_name_is_verified_through_another_address(rig: Any) -> None:
    config = rig.kubeconfig()
    config["clusters"][0]["cluster"]["server"] = "https://kubernetes:6443"
    mapped = rig.another(config, address=("127.0.0.1", rig.port))
    assert mapped.ready()
    config["clusters"][0]["cluster"]["tls-server-name"] = "elsewhere.example.org"
    with pytest.raises(Unreachable) as refused:
        rig.another(config, address=("127.0.0.1", rig.port)).ready()
    assert refused.value.code == "CERTIFICATE_WRONG_HOST"


def test_a_read_is_repeated_at_a_busy_server_and_a_write_is_not(rig: Any, kube: Kube) -> None:
    kube.create(settings())
    rig.faults.add("kube.api-429")
    assert kube.get("v1", "ConfigMap", "s", "default")
    rig.faults.add("kube.api-429")
    with pytest.raises(Unreachable):
        kube.create(settings("other"))
    assert kube.find("v1", "ConfigMap", "other", "default") is None


@pytest.mark.parametrize("config", [{}, {"current-context": "x", "contexts": []}])
def test_a_broken_kubeconfig_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(FluobookError) as refused:
        Kube.from_kubeconfig(config)
    assert refused.value.remedy.endswith("fluobook run <phase> --only bootstrap-kubernetes")


def test_no_secret_is_shown(rig: Any) -> None:
    config = rig.kubeconfig()
    key = config["users"][0]["user"]["client-key-data"]
    kube = rig.another(config)
    assert key not in f"{kube!r}{kube.at!r}"
    assert "PRIVATE" not in f"{kube!r}{kube.at!r}"


def test_threads_share_one_client(kube: Kube) -> None:
    before = set(threading.enumerate())
    with ThreadPoolExecutor(24) as threads:
        made = list(threads.map(lambda number: kube.apply(settings(f"s{number}"))["metadata"]["name"], range(200)))
    assert sorted(made) == sorted(f"s{number}" for number in range(200))
    assert len(set(threading.enumerate()) - before) < 24


def test_a_request_is_approved_once(kubernetes: Callable[..., Any]) -> None:
    from fluobook_lab.kube.kubelet import NodeInfo  # noqa: PLC0415

    rig = kubernetes(nodes=(NodeInfo("worker-1", ("10.10.0.20",)),))
    csr = ("certificates.k8s.io/v1", "CertificateSigningRequest")

    def serving() -> list[Any]:
        return [request for request in rig.kube.list(*csr) if request["spec"]["signerName"].endswith("serving")]

    metadata = rig.until(serving)[0]["metadata"]
    name, uid = metadata["name"], metadata["uid"]
    with pytest.raises(Conflict, match="not the one that was checked"):
        rig.kube.approve_csr(name, uid="another", reason="Checked", message="names and addresses fit")
    for _ in range(2):
        approved = rig.kube.approve_csr(name, uid=uid, reason="Checked", message="names and addresses fit")
        assert [c["reason"] for c in approved["status"]["conditions"]] == ["Checked"]
    rig.until(lambda: rig.kube.get(*csr, name)["status"].get("certificate"))


@pytest.mark.parametrize(("deadline", "code"), [(3.0, "UNEXPECTED"), (0.0, "TOO_LARGE")])
def test_a_list_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch, deadline: float, code: str) -> None:
    endless = Transport(Target("localhost", 1), deadline=deadline)
    page = {"items": [], "metadata": {"continue": "x"}}
    monkeypatch.setattr(endless, "kind", lambda *_: Kind("v1", "Pod", "pods", namespaced=True))
    monkeypatch.setattr(endless, "call", lambda *_, **__: page)
    with pytest.raises(InvalidAnswer) as caught:
        endless.list("v1", "Pod")
    assert caught.value.code == code
