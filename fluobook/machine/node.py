"""The configuration of one node of the platform: Talos' own, what follows from the params, and the patches.

What all nodes of a kind share is in talos/patches, for people to read and change; what differs from node to node, or
follows from an address or a disk, is generated here. The patches are applied last.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, Literal

from fluobook.machine.merging import Patch, merge

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fluobook.machine.documents import Document
    from fluobook.machine.generation import Documents

Role = Literal["controlplane", "worker"]

LINK = "net0"
"""Alias of the node's network interface, found by its MAC address whatever its kernel name is."""
DEFAULT_MTU = 1500
VOLUME = "longhorn"
"""The data disk's volume; it is mounted at /var/mnt/longhorn."""
ZONE_LABEL = "topology.kubernetes.io/zone"
"""The label with the host of a node. A worker may set it itself, unlike node-role.kubernetes.io labels."""
DISK_LABEL = "node.longhorn.io/create-default-disk"
"""The label of nodes for Longhorn's data; a node without a data disk would fill its system disk."""

# The partition table and Talos' alignment use a little of the disk.
_USABLE_PERCENT = 95


@dataclass(frozen=True)
class NetworkSettings:
    """The network of all nodes."""

    cidr: str
    """Network of the nodes; etcd and kubelet use no other."""
    nameservers: tuple[str, ...]
    """Addresses of DNS servers."""
    time_servers: tuple[str, ...]
    """Names or addresses of NTP servers."""
    pod_cidr: str
    """Addresses of pods."""
    service_cidr: str
    """Addresses of Services."""
    vip: str = ""
    """Address that the control planes share, or ""."""
    mtu: int = DEFAULT_MTU
    """Largest packet, in bytes."""
    dhcp: bool = False
    """Whether addresses come by DHCP; else from the cloud-init drive."""


@dataclass(frozen=True)
class NodeSettings:
    """The settings of one node."""

    hostname: str
    """Host name and Kubernetes node name."""
    role: Role
    """controlplane or worker."""
    mac: str
    """MAC address of its network interface."""
    host: str = ""
    """Its Proxmox VE host: its failure domain."""
    data_disk_gib: int = 0
    """Size of the Longhorn disk in GiB; 0 for none."""


def node_documents(
    generated: Documents,
    node: NodeSettings,
    network: NetworkSettings,
    *,
    patches: Iterable[Patch] = (),
    cert_sans: Iterable[str] = (),
    inline_manifests: Mapping[str, str] | None = None,
) -> list[Document]:
    """The complete configuration of one node.

    Args:
        generated: the result of `generate` for the cluster.
        node: the node.
        network: the network of all nodes.
        patches: talos/patches/common.yaml, then that of the node's role, as text or documents.
        cert_sans: further names and addresses for the certificates of the Talos and Kubernetes APIs: the VIP, the
            endpoint's name, and the addresses that params map endpoints to.
        inline_manifests: manifests by name that control planes apply to Kubernetes at bootstrap.

    Raises:
        ParamsError: a patch does not match.
    """
    documents = merge(generated.of(node.role), _machine(node, network, list(cert_sans)))
    if node.role == "controlplane":
        documents = merge(documents, _controlplane(network, list(cert_sans), inline_manifests or {}))
    documents = merge(documents, [*_links(node, network), *_volumes(node)])
    for patch in patches:
        documents = merge(documents, patch)
    return documents


def _machine(node: NodeSettings, network: NetworkSettings, sans: list[str]) -> list[Document]:
    labels = {ZONE_LABEL: node.host} if node.host else {}
    labels |= {DISK_LABEL: "true"} if node.data_disk_gib else {}
    machine: dict[str, Any] = {
        "certSANs": sans,
        "kubelet": {"nodeIP": {"validSubnets": [network.cidr]}},
        **({"nodeLabels": labels} if labels else {}),
    }
    subnets = {"podSubnets": [network.pod_cidr], "serviceSubnets": [network.service_cidr]}
    return [
        # Talos still writes `persist`, ignores it, and does not know it in its own JSON Schema.
        {"persist": {"$patch": "delete"}, "machine": machine, "cluster": {"network": subnets}},
        # `auto` and `hostname` exclude each other: Talos would refuse the generated `auto` (F25).
        _document("HostnameConfig", auto="off", hostname=node.hostname),
        _document("ResolverConfig", nameservers=[{"address": address} for address in network.nameservers]),
        _document("TimeSyncConfig", ntp={"servers": list(network.time_servers)}),
    ]


def _controlplane(network: NetworkSettings, sans: list[str], manifests: Mapping[str, str]) -> Document:
    cluster: dict[str, Any] = {"etcd": {"advertisedSubnets": [network.cidr]}}
    if sans:
        cluster["apiServer"] = {"certSANs": sans}
    if manifests:
        cluster["inlineManifests"] = [{"name": name, "contents": text} for name, text in manifests.items()]
    return {"cluster": cluster}


def _links(node: NodeSettings, network: NetworkSettings) -> list[Document]:
    """Documents about the interface, where the cloud-init drive is not enough.

    Any LinkConfig stops Talos' own DHCP on all interfaces, so DHCP is then configured by name.
    """
    own_mtu, vip = network.mtu != DEFAULT_MTU, network.vip if node.role == "controlplane" else ""
    documents = []
    if own_mtu or vip:
        match = f'mac(link.hardware_addr) == "{node.mac.lower()}"'
        documents.append(_document("LinkAliasConfig", name=LINK, selector={"match": match}))
    if own_mtu:
        documents.append(_document("LinkConfig", name=LINK, mtu=network.mtu))
    if own_mtu and network.dhcp:
        documents.append(_document("DHCPv4Config", name=LINK))
    if vip:
        documents.append(_document("Layer2VIPConfig", name=vip, link=LINK))
    return documents


def _volumes(node: NodeSettings) -> list[Document]:
    if not node.data_disk_gib:
        return []
    smallest = node.data_disk_gib * 1024 * _USABLE_PERCENT // 100
    provisioning = {
        # The cloud-init drive and the installer's ISO are disks too.
        "diskSelector": {"match": "!system_disk && !disk.readonly && !disk.cdrom"},
        "minSize": f"{smallest}MiB",
        "grow": True,
    }
    return [_document("UserVolumeConfig", name=VOLUME, provisioning=provisioning)]


def _document(kind: str, **fields: Any) -> Document:
    return {"apiVersion": "v1alpha1", "kind": kind, **fields}


def subnets_contain(subnets: Iterable[str], address: str) -> bool:
    """Whether Talos picks an address by a list of subnets, such as the kubelet's `nodeIP.validSubnets`.

    It is in one of them, and in none that begins with `!`; an empty list admits every address.

    Raises:
        ValueError: an entry is not a subnet.
    """
    hits = {subnet: ip_address(address) in ip_network(subnet.lstrip("!"), strict=False) for subnet in map(str, subnets)}
    excluded = any(hit for subnet, hit in hits.items() if subnet.startswith("!"))
    return not hits or (not excluded and any(hits.values()))
