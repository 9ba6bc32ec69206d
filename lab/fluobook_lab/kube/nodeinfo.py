"""What a machine is to Kubernetes: its Node, its certificate requests and its static pods, as plain functions."""

from __future__ import annotations

import base64
import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fluobook.machine.pki import key_pem
from fluobook_lab.kube.controllers.certificates import KUBELET_CLIENT, KUBELET_SERVING
from fluobook_lab.kube.identity import NODE_PREFIX, NODES, User
from fluobook_lab.kube.objects import timestamp, with_condition

if TYPE_CHECKING:
    from fluobook_lab.kube.objects import Obj

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


def node_object(info: NodeInfo, pod_cidr: str) -> Obj:
    """The Node as a kubelet registers it, with the role label that Talos gives it."""
    labels = {"kubernetes.io/hostname": info.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
    labels |= info.labels
    taints = [*info.taints, {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]
    if info.role == "controlplane":
        labels |= {"node-role.kubernetes.io/control-plane": ""}
        labels |= {"node.kubernetes.io/exclude-from-external-load-balancers": ""}
        if not info.schedulable:
            taints = [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}, *taints]
    spec = {"podCIDR": pod_cidr, "podCIDRs": [pod_cidr], "taints": taints}
    spec |= {"providerID": f"proxmox://cluster/{info.uuid}"} if info.uuid else {}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": info.name, "labels": labels}, "spec": spec}
    return {**node, "status": node_status(info, [])}


def node_status(info: NodeInfo, conditions: list[Obj]) -> Obj:
    """What a kubelet reports; `conditions` are the Node's, of which it sets its own."""
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
        "nodeInfo": _system(info),
    }


def _system(info: NodeInfo) -> Obj:
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


def static_pod(component: str, node: NodeInfo) -> Obj:
    """The mirror pod of a part of the control plane, which kubelets run from files and show in the API."""
    labels = {"k8s-app": component, "component": component, "tier": "control-plane"}
    image = f"registry.k8s.io/{component}:{node.kubernetes}"
    spec = {"nodeName": node.name, "hostNetwork": True, "containers": [{"name": component, "image": image}]}
    metadata: Obj = {"name": f"{component}-{node.name}", "namespace": "kube-system", "labels": labels}
    metadata["annotations"] = {"kubernetes.io/config.mirror": node.name, "kubernetes.io/config.source": "file"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def serving_request(node: NodeInfo) -> Obj:
    """The CertificateSigningRequest for a kubelet's own server certificate."""
    return signing_request(request_pem(node, names=True), KUBELET_SERVING, "server auth")


def client_request(node: NodeInfo) -> Obj:
    """The CertificateSigningRequest by which a kubelet becomes system:node:NAME."""
    return signing_request(request_pem(node, names=False), KUBELET_CLIENT, "client auth")


def signing_request(pem: bytes, signer: str, usage: str) -> Obj:
    """A CertificateSigningRequest with a generated name, as kubelets file them."""
    spec = {"request": base64.b64encode(pem).decode(), "signerName": signer, "usages": ["digital signature", usage]}
    head = {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest"}
    return {**head, "metadata": {"generateName": "csr-"}, "spec": spec}


def request_pem(node: NodeInfo, *, names: bool) -> bytes:
    """A certificate request with a new key that nobody keeps, as `requested`."""
    return requested(node, names=names)[0]


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
