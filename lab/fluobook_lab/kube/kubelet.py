"""The kubelet of a simulated node: it files certificate requests, registers the node and keeps its status and lease."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fluobook.machine.pki import key_pem
from fluobook_lab.kube.access import BOOTSTRAPPERS, NODE_PREFIX, NODES, User, Write
from fluobook_lab.kube.controllers.certificates import API_VERSION as CSR_VERSION
from fluobook_lab.kube.controllers.certificates import KIND as CSR_KIND
from fluobook_lab.kube.controllers.certificates import (
    KUBELET_CLIENT,
    KUBELET_SERVING,
    has_serving_certificate,
    is_issued_by,
)
from fluobook_lab.kube.controllers.nodes import lease
from fluobook_lab.kube.objects import CONTROL_PLANE, is_true, name_of, timestamp, with_condition

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fluobook_lab.clock import Clock
    from fluobook_lab.kube.controllers.nodes import Heartbeats
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.storage import Watch
    from fluobook_lab.kube.store import Store
    from fluobook_lab.talos import MachineConfiguration, TalosMachine


_CONDITIONS = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
)


_SYSTEM = {
    "architecture": "amd64",
    "operatingSystem": "linux",
    "kernelVersion": "6.18.9-talos",
    "containerRuntimeVersion": "containerd://2.2.2",
    "kubeProxyVersion": "",
}


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
        boot_id: another one after each boot.
        disk: another one whenever its disk for volumes is empty.
        images: those of static pods, by component; without, Kubernetes' own in the kubelet's version.
        labels: `machine.nodeLabels` of the machine config.
        schedulable: `allowSchedulingOnControlPlanes`, for control planes.
        serving_certificate: `rotate-server-certificates`: whether the kubelet asks for a serving certificate.
        cpu_features: as in /proc/cpuinfo.
    """

    name: str
    addresses: tuple[str, ...]
    role: str = "worker"
    cores: int = 2
    memory_mib: int = 4096
    kubernetes: str = "v1.35.2"
    talos: str = "v1.13.9"
    uuid: str = ""
    boot_id: str = ""
    disk: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    schedulable: bool = False
    own_taints: tuple[Obj, ...] = ()
    serving_certificate: bool = True
    cpu_features: frozenset[str] = frozenset({"pclmulqdq"})
    images: dict[str, str] = field(default_factory=dict)

    @property
    def taints(self) -> list[Obj]:
        """The taints that it registers with: its own, and that of a control plane that takes no other pods."""
        tainted = self.role == "controlplane" and not self.schedulable
        role = [{"key": CONTROL_PLANE, "effect": "NoSchedule"}] if tainted else []
        return [*role, *self.own_taints]

    @property
    def user(self) -> User:
        """Who its kubelet is to the API."""
        return User(NODE_PREFIX + self.name, frozenset({NODES, "system:authenticated"}))


def node_info(node: TalosMachine, config: MachineConfiguration, version: str) -> NodeInfo:
    """What the kubelet of a Talos node knows; `version` is that of Kubernetes, such as 1.35.4."""
    kubelet = config.machine.get("kubelet") or {}
    arguments = kubelet.get("extraArgs") or {}
    tag = str(kubelet.get("image") or f":v{version}").rpartition(":")[2]
    images = {part: (config.cluster.get(place) or {}).get("image") for part, place in STATIC_PODS.items()}
    return NodeInfo(
        node.hostname,
        (node.address,),
        role=config.type,
        cores=node.vm.cores,
        memory_mib=node.vm.memory_mib,
        kubernetes=tag.partition("-")[0],
        talos=node.image.version,
        uuid=node.vm.uuid,
        boot_id=node.boot_id,
        disk=node.disk.data,
        labels={str(k): str(v) for k, v in (config.machine.get("nodeLabels") or {}).items()},
        own_taints=tuple((kubelet.get("extraConfig") or {}).get("registerWithTaints") or ()),
        schedulable=bool(config.cluster.get("allowSchedulingOnControlPlanes")),
        serving_certificate=str(arguments.get("rotate-server-certificates", "")).lower() == "true",
        cpu_features=node.vm.cpu_features,
        images={part: str(image) for part, image in images.items() if image},
    )


def node_object(info: NodeInfo, pod_cidr: str) -> Obj:
    """The Node as a kubelet registers it, with the role label that Talos gives it."""
    labels = {"kubernetes.io/hostname": info.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
    labels |= info.labels
    taints = [*info.taints, {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]
    if info.role == "controlplane":
        labels |= {CONTROL_PLANE: ""}
        labels |= {"node.kubernetes.io/exclude-from-external-load-balancers": ""}
    spec = {"podCIDR": pod_cidr, "podCIDRs": [pod_cidr], "taints": taints}
    spec |= {"providerID": f"proxmox://cluster/{info.uuid}"} if info.uuid else {}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": info.name, "labels": labels}, "spec": spec}
    return {**node, "status": node_status(info, [])}


def node_status(info: NodeInfo, conditions: list[Obj]) -> Obj:
    """What a kubelet reports; `conditions` are the Node's, of which it sets its own."""
    for entry in _CONDITIONS:
        conditions = with_condition(conditions, *entry)
    conditions = [{**c, "lastHeartbeatTime": timestamp()} for c in conditions]
    addresses = [{"type": "InternalIP", "address": address} for address in info.addresses]
    capacity = {"cpu": str(info.cores), "memory": f"{info.memory_mib}Mi", "pods": "110"}
    return {
        "addresses": [*addresses, {"type": "Hostname", "address": info.name}],
        "capacity": capacity,
        "allocatable": capacity,
        "conditions": conditions,
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": {
            **_SYSTEM,
            "machineID": info.uuid.replace("-", ""),
            "systemUUID": info.uuid,
            "bootID": info.boot_id or info.uuid,
            "osImage": f"Talos ({info.talos})",
            "kubeletVersion": info.kubernetes,
        },
    }


STATIC_PODS = {
    "kube-apiserver": "apiServer",
    "kube-controller-manager": "controllerManager",
    "kube-scheduler": "scheduler",
}
"""The parts of a control plane that run as static pods, and where `cluster` of a machine configuration has them."""


def static_pod(component: str, node: NodeInfo) -> Obj:
    """The mirror pod of a part of the control plane, which kubelets run from files and show in the API."""
    labels = {"k8s-app": component, "component": component, "tier": "control-plane"}
    image = node.images.get(component) or f"registry.k8s.io/{component}:{node.kubernetes}"
    spec: Obj = {"nodeName": node.name, "hostNetwork": True, "containers": [{"name": component, "image": image}]}
    spec["tolerations"] = [{"operator": "Exists", "effect": "NoExecute"}]
    metadata: Obj = {"name": f"{component}-{node.name}", "namespace": "kube-system", "labels": labels}
    metadata["annotations"] = {"kubernetes.io/config.mirror": node.name, "kubernetes.io/config.source": "file"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def serving_request(node: NodeInfo) -> Obj:
    """The CertificateSigningRequest for a kubelet's own server certificate."""
    return signing_request(requested(node, names=True)[0], KUBELET_SERVING, "server auth")


def client_request(node: NodeInfo) -> Obj:
    """The CertificateSigningRequest by which a kubelet becomes system:node:NAME."""
    return signing_request(requested(node, names=False)[0], KUBELET_CLIENT, "client auth")


def signing_request(pem: bytes, signer: str, usage: str) -> Obj:
    """A CertificateSigningRequest with a generated name, as kubelets file them."""
    spec = {"request": base64.b64encode(pem).decode(), "signerName": signer, "usages": ["digital signature", usage]}
    head = {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest"}
    return {**head, "metadata": {"generateName": "csr-"}, "spec": spec}


def requested(node: NodeInfo, *, names: bool) -> tuple[bytes, str]:
    """A certificate request and its new key; with the machine's name and addresses for a server's certificate."""
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
    key = ec.generate_private_key(ec.SECP256R1())
    signed = builder.sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM), key_pem(key)


LEASE_SECONDS = 10.0
"""Real seconds between renewals of the lease, as kubelets have it; its times are real ones too."""
REFUSED_SECONDS = 10.0
"""Lab seconds after which a refused request is followed by another."""
RETRY_SECONDS = 900.0
"""Lab seconds after which a serving request that was not answered is filed again."""

_log = logging.getLogger(__name__)

__all__ = ["Kubelet", "NodeInfo"]


class Kubelet:
    """A kubelet that lives until `stop`; `start` it again after a reboot.

    Args:
        store: the cluster.
        clock: the lab's clock.
        node: the machine.
        heartbeats: where it says that it lives.
        bootstrap_user: the name of the bootstrap token's user.
        pod_cidr: the Node's own part of the pod network.
        certified: it was here before: the client certificate on its disk, as a request has it; "" if it has none.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        node: NodeInfo,
        heartbeats: Heartbeats,
        *,
        bootstrap_user: str,
        pod_cidr: str,
        certified: str = "",
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
        self.certificate = certified
        self._may_have_serving_certificate = bool(certified)

    def has_certificates_of(self, node: NodeInfo) -> bool:
        """Whether it is that machine, and has been let in."""
        return bool(self.certificate) and (node.name, node.uuid) == (self._node.name, self._node.uuid)

    def is_certified_by(self, authorities: Iterable[str]) -> bool:
        """Whether it has no certificate yet, or one of these authorities (PEM)."""
        return not self.certificate or is_issued_by(self.certificate, tuple(authorities))

    def start(self) -> None:
        """Begin; returns at once."""
        task = asyncio.create_task(self._run(), name=f"kubelet {self._node.name}")
        task.add_done_callback(_log_failure)
        self._tasks = [task]

    def stop(self) -> None:
        """End at once, as a power cut does: the Node stays and becomes NotReady after its grace period."""
        self._heartbeats.end(self._node.name)
        for task in self._tasks:
            task.cancel()
        self._tasks = []
        self._may_have_serving_certificate = True

    async def _run(self) -> None:
        if not self.certificate:
            self.certificate = await self._certified(client_request(self._node), self._bootstrap)
        self._register()
        self._static_pods()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._renew())
            if self._node.serving_certificate:
                group.create_task(self._serve())

    async def _renew(self) -> None:
        while True:
            own = lease(self._node.name)
            known = self._store.find(own["apiVersion"], "Lease", self._node.name, own["metadata"]["namespace"])
            (self._store.update if known else self._store.create)(own)
            await asyncio.sleep(LEASE_SECONDS)

    async def _serve(self) -> None:
        """Ask for a serving certificate until there is one; a request left lying is filed again."""
        while not (self._may_have_serving_certificate and has_serving_certificate(self._store, self._node.name)):
            if await self._certified(serving_request(self._node), self._node.user, RETRY_SECONDS):
                return

    async def _certified(self, request: Obj, user: User, patience: float | None = None) -> str:
        """File a request and wait for its certificate; "" if it is refused, or patience ends."""
        watch = self._store.watch(CSR_VERSION, CSR_KIND)
        try:
            name = name_of(self._store.create(request, Write(user=user)))
            answer = asyncio.create_task(_answer(watch, name))
            ending = [asyncio.create_task(self._clock.sleep(patience))] if patience else []
            try:
                await asyncio.wait([answer, *ending], return_when=asyncio.FIRST_COMPLETED)
                certified = answer.result() if answer.done() else ""
            finally:
                for task in (answer, *ending):
                    task.cancel()
        finally:
            watch.close()
        if answer.done() and not certified:
            await self._clock.sleep(REFUSED_SECONDS)
        return certified

    def _register(self) -> None:
        node = self._store.find("v1", "Node", self._node.name)
        self._heartbeats.begin(self._node.name)
        if node is None:
            self._store.create(node_object(self._node, self._pod_cidr))
            return
        self._store.set_status(
            node,
            {**node.get("status", {}), **node_status(self._node, (node.get("status") or {}).get("conditions") or [])},
        )

    def _static_pods(self) -> None:
        """Mirror pods of the control plane, which kubelets run from files and show in the API."""
        if self._node.role != "controlplane":
            return
        for component in STATIC_PODS:
            wanted = static_pod(component, self._node)
            pod = self._store.find("v1", "Pod", name_of(wanted), "kube-system")
            if pod is None or image_of(pod) != image_of(wanted):
                remove_static_pod(self._store, component, self._node)
                self._store.create(wanted)


def image_of(pod: Obj) -> str:
    """The image of a pod's first container."""
    return str(pod["spec"]["containers"][0].get("image", ""))


def remove_static_pod(store: Store, component: str, node: NodeInfo) -> None:
    """Take a mirror pod out at once, as the kubelet does whose file of it changed."""
    name = f"{component}-{node.name}"
    if store.find("v1", "Pod", name, "kube-system") is not None:
        store.delete("v1", "Pod", name, "kube-system", options={"gracePeriodSeconds": 0})


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("%s failed", task.get_name(), exc_info=error)


async def _answer(watch: Watch, name: str) -> str:
    """The certificate of a request once that is decided; "" if it was refused."""
    async for event in watch:
        csr = event.object
        if name_of(csr) == name and (certificate := (csr.get("status") or {}).get("certificate")):
            return str(certificate)
        if name_of(csr) == name and (event.type == "DELETED" or is_true(csr, "Denied") or is_true(csr, "Failed")):
            return ""
    return ""
