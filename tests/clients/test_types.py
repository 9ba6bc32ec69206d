"""JSON of any other form: whatever fields are missing or have other types, the error is ours."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import pytest

from fluobook.clients.factory import FactoryClient
from fluobook.clients.https import Answer, HttpClient, Target
from fluobook.clients.kube import Kube, OperatorLease
from fluobook.clients.kube.transport import Kind
from fluobook.clients.proxmox import ProxmoxClient, ProxmoxEndpoint, Upid
from fluobook.errors import FluobookError
from fluobook.machine.pki import new_authority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UPID = "UPID:pve1:0003C7E4:01A3F0C1:66A5B3C4:qmcreate:110:fluobook@pve!fluobook:"
VALUES = [None, True, 1, -5, 1e400, "", "x", "-1", "2026-02-30", [], {}, [None], ["x"], {"a": 1}]
NOW = dt.datetime(2026, 11, 28, tzinfo=dt.UTC)
ITEM = {
    **dict.fromkeys(("type", "node", "name", "status", "iface", "storage", "volid", "exitstatus", "lock", "t"), "qemu"),
    **dict.fromkeys(("vmid", "endtime", "n", "active", "avail", "maxmem"), 1),
    **dict.fromkeys(("zone", "vnet", "controller", "subnet"), "x"),
    "upid": UPID,
    "version": "9.0",
}
OBJECT = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "x", "uid": "u", "resourceVersion": "1", "namespace": "n", "labels": {}, "continue": ""},
    "spec": {
        "holderIdentity": "me",
        "acquireTime": "2026-01-01T00:00:00Z",
        "renewTime": "2026-01-01T00:00:00Z",
        "leaseDurationSeconds": 3,
        "ports": [{"port": 1, "targetPort": "http"}],
        "selector": {"a": "b"},
        "containers": [{"ports": [{"name": "http", "containerPort": 1}]}],
    },
    "status": {"conditions": [{"type": "Approved", "status": "True"}]},
}
WHOLE = {**OBJECT, "gitVersion": "v1.35.2", "items": [OBJECT]}
WHOLE["resources"] = [{"name": "foos", "kind": "Foo", "namespaced": True}]


def changed(value: Any) -> Iterator[Any]:
    """The value with each of its parts replaced by each of VALUES, or left out."""
    yield from VALUES
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        for part in changed(value[key]):
            copy = value.copy()
            copy[key] = part
            yield copy
        if isinstance(value, dict):
            yield {name: part for name, part in value.items() if name != key}


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The body of every answer, without a server."""
    current = {"body": b""}
    monkeypatch.setattr(HttpClient, "send", lambda *_, **__: Answer(200, "OK", {}, current["body"]))
    return current


def kube() -> Kube:
    client = Kube(Target("127.0.0.1", 1, ca=new_authority().crt))
    for kind in ("Pod", "Service", "Lease", "CertificateSigningRequest"):
        for api in ("v1", "coordination.k8s.io/v1", "certificates.k8s.io/v1"):
            client._kinds[api, kind] = Kind(api, kind, "things", namespaced=True)
    return client


def forwarded(client: Kube) -> Any:
    with client.forward("s", "n", 1) as forward:
        return forward._pod()


PROXMOX: dict[str, Callable[[ProxmoxClient], Any]] = {
    "version": lambda client: client.version()["version"],
    "permissions": lambda client: client.permissions(),
    "resources": lambda client: [int(r["vmid"]) for r in client.resources() if r["type"] in ("qemu", "lxc")],
    "nodes": lambda client: [node["node"] for node in client.nodes()],
    "networks": lambda client: [network["iface"] for network in client.networks("n")],
    "storages": lambda client: [int(s.get("avail", 1)) for s in client.storages("n")],
    "content": lambda client: [volume["volid"] for volume in client.storage_content("n", "s")],
    "tasks": lambda client: client.task_of(1, "qmcreate"),
    "config": lambda client: client.config("n", 1).get("digest"),
    "status": lambda client: client.vm_status("n", 1)["status"],
    "task": lambda client: client.task_status(Upid.parse(UPID)),
    "log": lambda client: client.task_log(Upid.parse(UPID)),
    "create": lambda client: client.create_vm("n", vmid=1),
    "start": lambda client: client.start("n", 1),
    "delete": lambda client: client.delete("n", 1),
    "resize": lambda client: client.resize("n", 1, "scsi0", 3),
    "sdn": lambda client: client.sdn(),
    "zones": lambda client: client.zone_status("n"),
    "apply": lambda client: client.apply_sdn(),
}
KUBE: dict[str, Callable[[Kube], Any]] = {
    "version": Kube.version,
    "ready": Kube.ready,
    "kubelet": lambda client: client.kubelet_answers("n"),
    "get": lambda client: client.get("v1", "Pod", "x")["metadata"]["name"],
    "list": lambda client: [pod["metadata"]["name"] for pod in client.list("v1", "Pod")],
    "kind": lambda client: client.kind("x/v1", "Foo"),
    "apply": lambda client: client.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}),
    "delete": lambda client: client.delete("v1", "Pod", "x"),
    "approve": lambda client: client.approve_csr("x", uid="u", reason="r", message="m"),
    "forward": forwarded,
    "holder": lambda client: (holder := OperatorLease(client, "me").holder()) and holder.is_over(NOW),
    "acquire": lambda client: OperatorLease(client, "me").acquire(),
    "release": lambda client: OperatorLease(client, "me").release(),
}
FACTORY: dict[str, Callable[[FactoryClient], Any]] = {
    "versions": FactoryClient.versions,
    "schematic": lambda client: client.schematic("x"),
    "known": lambda client: client.known("x"),
    "extensions": lambda client: client.extensions("1.13.9"),
}


def require_our_errors(call: Callable[[], Any], bodies: Iterator[Any], answer: dict[str, bytes]) -> None:
    results = 0
    for body in bodies:
        answer["body"] = json.dumps(body).encode()
        try:
            call()
        except FluobookError:
            results += 1
    assert results  # other exceptions fail the test by themselves


@pytest.mark.parametrize("name", PROXMOX)
def test_proxmox_data_of_another_form_is_our_error(name: str, answer: dict[str, bytes]) -> None:
    client = ProxmoxClient(ProxmoxEndpoint("pve", "https://127.0.0.1:1", "a@pve!b", "the-secret"))
    for data in (ITEM, [ITEM], UPID):
        require_our_errors(lambda: PROXMOX[name](client), changed({"data": data}), answer)


@pytest.mark.parametrize("name", KUBE)
def test_kubernetes_data_of_another_form_is_our_error(name: str, answer: dict[str, bytes]) -> None:
    client = kube()
    require_our_errors(lambda: KUBE[name](client), changed(WHOLE), answer)


@pytest.mark.parametrize("name", FACTORY)
def test_factory_data_of_another_form_is_our_error(name: str, answer: dict[str, bytes]) -> None:
    client = FactoryClient()
    for data in ([{"name": "x"}], ["v1.13.9"], {"id": "0" * 64}):
        require_our_errors(lambda: FACTORY[name](client), changed(data), answer)
