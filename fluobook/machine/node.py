"""The configuration of one node of our platform: Talos' own, what follows from the params, and the patches.

What is the same on all nodes of a kind stands in talos/patches, for people to read and change; what is different
from node to node, or follows from an address or a disk, is made here. The patches come last: they have the last word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from fluobook.machine.merging import Patch, merge

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fluobook.machine.documents import Document
    from fluobook.machine.generation import Documents

Role = Literal["controlplane", "worker"]

LINK = "net0"
"""The node's network interface, whatever its kernel name is: an alias for the one with our MAC address."""
DEFAULT_MTU = 1500
VOLUME = "longhorn"
"""The data disk's volume; it is mounted at /var/mnt/longhorn."""
ZONE_LABEL = "topology.kubernetes.io/zone"
"""Says on which host a node stands. A worker may set it itself, unlike node-role.kubernetes.io labels."""
DISK_LABEL = "node.longhorn.io/create-default-disk"
"""Where Longhorn may keep data; a node without a data disk would fill its system disk."""

# A partition table and Talos' own alignment take a little of the disk.
_USABLE_PERCENT = 95


@dataclass(frozen=True)
class NetworkSettings:
    """The network of all nodes."""

    cidr: str
    """Network of the nodes; etcd and kubelet keep to it."""
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
    """Whether addresses come by DHCP; else the cloud-init drive brings them."""


@dataclass(frozen=True)
class NodeSettings:
    """What makes one node different from the next."""

    hostname: str
    """Host name and Kubernetes node name."""
    role: Role
    """controlplane or worker."""
    mac: str
    """MAC address of its network interface."""
    host: str = ""
    """The Proxmox VE host on which it stands: its failure domain."""
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
        generated: what `generate` made for the cluster.
        node: the node.
        network: the network of all nodes.
        patches: talos/patches/common.yaml, then that of the node's role, as text or documents.
        cert_sans: further names and addresses for the certificates of the Talos and Kubernetes APIs: the VIP, the
            endpoint's name, and the addresses that params map endpoints to.
        inline_manifests: by name, what control planes apply to Kubernetes at bootstrap.

    Raises:
        ParamsError: a patch does not fit.
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
        # `auto` and `hostname` exclude each other; left as generated, Talos would refuse the configuration (F25).
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

    Any LinkConfig stops Talos' own DHCP on all interfaces, so DHCP is then asked for by name.
    """
    own_mtu, vip = network.mtu != DEFAULT_MTU, network.vip if node.role == "controlplane" else ""
    found = []
    if own_mtu or vip:
        match = f'mac(link.hardware_addr) == "{node.mac.lower()}"'
        found.append(_document("LinkAliasConfig", name=LINK, selector={"match": match}))
    if own_mtu:
        found.append(_document("LinkConfig", name=LINK, mtu=network.mtu))
    if own_mtu and network.dhcp:
        found.append(_document("DHCPv4Config", name=LINK))
    if vip:
        found.append(_document("Layer2VIPConfig", name=vip, link=LINK))
    return found


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
