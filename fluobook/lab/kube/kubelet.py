"""One node's kubelet: asks for its certificates, registers the Node and renews its lease until it is stopped."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fluobook.lab.kube.controllers.certificates import (
    API_VERSION as CSR_VERSION,
)
from fluobook.lab.kube.controllers.certificates import KIND as CSR_KIND
from fluobook.lab.kube.controllers.certificates import KUBELET_CLIENT, KUBELET_SERVING
from fluobook.lab.kube.controllers.nodes import lease
from fluobook.lab.kube.identity import BOOTSTRAPPERS, NODE_PREFIX, NODES, User, Write
from fluobook.lab.kube.objects import is_true, name_of, timestamp, with_condition

if TYPE_CHECKING:
    from fluobook.lab.clock import Clock
    from fluobook.lab.kube.controllers.nodes import Heartbeats
    from fluobook.lab.kube.objects import Obj
    from fluobook.lab.kube.store import Store
    from fluobook.lab.kube.watching import Watch

LEASE_SECONDS = 10.0
"""Real seconds between renewals of the lease, as kubelets have it; its times are real ones too."""
REFUSED_SECONDS = 10.0
"""World seconds after which a refused request is followed by another."""
RETRY_SECONDS = 900.0
"""World seconds after which a serving request that was not answered is filed again."""

_CONDITIONS = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
)


@dataclass(frozen=True)
class NodeInfo:
    """What a kubelet knows of its machine.

    Args:
        name: host name, the Node's name.
        addresses: its IP addresses, the first is the Node's InternalIP.
        role: "controlplane" or "worker".
        cores: CPUs.
        memory_mib: memory.
        kubernetes: kubelet's version, such as "v1.35.2".
        talos: Talos' version, such as "v1.13.9".
        uuid: SMBIOS uuid.
        labels: `machine.nodeLabels` of the machine config.
        taints: further taints.
        schedulable: `allowSchedulingOnControlPlanes`, for control planes.
        serving_certificate: `rotate-server-certificates`: whether the kubelet asks for a serving certificate.
    """

    name: str
    addresses: tuple[str, ...]
    role: str = "worker"
    cores: int = 2
    memory_mib: int = 4096
    kubernetes: str = "v1.35.2"
    talos: str = "v1.13.9"
    uuid: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    taints: tuple[Obj, ...] = ()
    schedulable: bool = False
    serving_certificate: bool = True

    @property
    def user(self) -> User:
        """Who its kubelet is to the API."""
        return User(NODE_PREFIX + self.name, frozenset({NODES, "system:authenticated"}))


class Kubelet:
    """A kubelet that lives until `stop`; `start` it again after a reboot.

    Args:
        store: the cluster.
        clock: the world clock.
        node: the machine.
        heartbeats: where it says that it lives.
        bootstrap_user: the name of the bootstrap token's user.
        pod_cidr: the Node's own part of the pod network.
    """

    def __init__(
        self, store: Store, clock: Clock, node: NodeInfo, heartbeats: Heartbeats, *, bootstrap_user: str, pod_cidr: str
    ) -> None:
        self._store = store
        self._clock = clock
        self._node = node
        self._heartbeats = heartbeats
        self._bootstrap = User(
            bootstrap_user, frozenset({BOOTSTRAPPERS, "system:bootstrappers:nodes", "system:authenticated"})
        )
        self._pod_cidr = pod_cidr
        self._tasks: list[asyncio.Task[None]] = []
        self._has_client_certificate = False

    def start(self) -> None:
        """Begin; returns at once."""
        self._tasks = [asyncio.create_task(self._run())]

    def stop(self) -> None:
        """End at once, as a power cut does: the Node stays and becomes NotReady after its grace period."""
        self._heartbeats.end(self._node.name)
        for task in self._tasks:
            task.cancel()
        self._tasks = []

    async def _run(self) -> None:
        if not self._has_client_certificate:
            await self._certified(KUBELET_CLIENT, self._bootstrap)
            self._has_client_certificate = True
        self._register()
        self._static_pods()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._renew())
            if self._node.serving_certificate:
                group.create_task(self._serve())

    async def _renew(self) -> None:
        wanted = lease(self._node.name)
        if self._lease() is None:
            self._store.create(wanted)
        while True:
            self._store.update(lease(self._node.name))
            await asyncio.sleep(LEASE_SECONDS)

    def _lease(self) -> Obj | None:
        wanted = lease(self._node.name)
        return self._store.find(wanted["apiVersion"], "Lease", self._node.name, wanted["metadata"]["namespace"])

    async def _serve(self) -> None:
        """Ask for a serving certificate until there is one; a request left lying is filed again."""
        while not self._has_certificate(KUBELET_SERVING):
            if await self._certified(KUBELET_SERVING, self._node.user, RETRY_SECONDS):
                return

    async def _certified(self, signer: str, user: User, patience: float | None = None) -> bool:
        """File a request and wait for its certificate; False if it is refused, or patience ends."""
        watch = self._store.watch(CSR_VERSION, CSR_KIND)
        try:
            name = name_of(self._store.create(self._request(signer), Write(user=user)))
            answer = asyncio.create_task(_answer(watch, name))
            ending = [asyncio.create_task(self._clock.sleep(patience))] if patience else []
            try:
                await asyncio.wait([answer, *ending], return_when=asyncio.FIRST_COMPLETED)
                certified = answer.done() and answer.result()
            finally:
                for task in (answer, *ending):
                    task.cancel()
        finally:
            watch.close()
        if answer.done() and not certified:
            await self._clock.sleep(REFUSED_SECONDS)
        return certified

    def _has_certificate(self, signer: str) -> bool:
        requests = self._store.list(CSR_VERSION, CSR_KIND)
        mine = [
            r for r in requests if r["spec"]["signerName"] == signer and r["spec"]["username"] == self._node.user.name
        ]
        return any((r.get("status") or {}).get("certificate") for r in mine)

    def _request(self, signer: str) -> Obj:
        serving = signer == KUBELET_SERVING
        usage = "server auth" if serving else "client auth"
        pem = _request_pem(self._node, names=serving)
        spec = {"request": base64.b64encode(pem).decode(), "signerName": signer, "usages": ["digital signature", usage]}
        return {"apiVersion": CSR_VERSION, "kind": CSR_KIND, "metadata": {"generateName": "csr-"}, "spec": spec}

    def _register(self) -> None:
        node = self._store.find("v1", "Node", self._node.name)
        self._heartbeats.begin(self._node.name)
        if node is None:
            self._store.create(self._described())
            return
        self._store.set_status(node, {**node.get("status", {}), **self._status(node)})

    def _described(self) -> Obj:
        info = self._node
        labels = {"kubernetes.io/hostname": info.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        labels |= info.labels
        taints = [*info.taints, {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]
        if info.role == "controlplane":
            labels |= {"node-role.kubernetes.io/control-plane": ""}
            labels |= {"node.kubernetes.io/exclude-from-external-load-balancers": ""}
            if not info.schedulable:
                taints = [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}, *taints]
        spec = {"podCIDR": self._pod_cidr, "podCIDRs": [self._pod_cidr], "taints": taints}
        spec |= {"providerID": f"proxmox://cluster/{info.uuid}"} if info.uuid else {}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": info.name, "labels": labels}, "spec": spec}
        return {**node, "status": self._status({})}

    def _status(self, node: Obj) -> Obj:
        info = self._node
        conditions = (node.get("status") or {}).get("conditions") or []
        for told in _CONDITIONS:
            conditions = with_condition(conditions, *told)
        conditions = [{**c, "lastHeartbeatTime": timestamp()} for c in conditions]
        addresses = [{"type": "InternalIP", "address": address} for address in info.addresses]
        capacity = {"cpu": str(info.cores), "memory": f"{info.memory_mib}Mi", "pods": "110"}
        return {
            "addresses": [*addresses, {"type": "Hostname", "address": info.name}],
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": conditions,
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "nodeInfo": self._system(),
        }

    def _system(self) -> Obj:
        info = self._node
        return {
            "machineID": info.uuid.replace("-", ""),
            "systemUUID": info.uuid,
            "bootID": info.uuid,
            "architecture": "amd64",
            "operatingSystem": "linux",
            "osImage": f"Talos ({info.talos})",
            "kernelVersion": "6.18.9-talos",
            "containerRuntimeVersion": "containerd://2.2.2",
            "kubeletVersion": info.kubernetes,
            "kubeProxyVersion": "",
        }

    def _static_pods(self) -> None:
        """Mirror pods of the control plane, which kubelets run from files and show in the API."""
        if self._node.role != "controlplane":
            return
        for component in ("kube-apiserver", "kube-controller-manager", "kube-scheduler"):
            name = f"{component}-{self._node.name}"
            if self._store.find("v1", "Pod", name, "kube-system") is None:
                self._store.create(_static_pod(component, name, self._node))


async def _answer(watch: Watch, name: str) -> bool:
    """Whether a request got its certificate, once that is decided."""
    async for event in watch:
        csr = event.object
        if name_of(csr) == name and (csr.get("status") or {}).get("certificate"):
            return True
        if name_of(csr) == name and (event.type == "DELETED" or is_true(csr, "Denied") or is_true(csr, "Failed")):
            return False
    return False


def _static_pod(component: str, name: str, node: NodeInfo) -> Obj:
    labels = {"k8s-app": component, "component": component, "tier": "control-plane"}
    image = f"registry.k8s.io/{component}:{node.kubernetes}"
    spec = {"nodeName": node.name, "hostNetwork": True, "containers": [{"name": component, "image": image}]}
    metadata = {"name": name, "namespace": "kube-system", "labels": labels}
    metadata["annotations"] = {"kubernetes.io/config.source": "file"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _request_pem(node: NodeInfo, *, names: bool) -> bytes:
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, NODES),
            x509.NameAttribute(NameOID.COMMON_NAME, NODE_PREFIX + node.name),
        ]
    )
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names:
        listed: list[x509.GeneralName] = [x509.DNSName(node.name)]
        listed += [x509.IPAddress(ipaddress.ip_address(address)) for address in node.addresses]
        builder = builder.add_extension(x509.SubjectAlternativeName(listed), critical=False)
    signed = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)
