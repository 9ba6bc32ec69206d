"""Nodes and hosts: unique identities, number and size of nodes, endpoints of hosts, versions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fluobook.params.derive import uuid_of
from fluobook.params.problems import NO_VALUE, Problem, clashes, did_you_mean
from fluobook.params.versions import minor_of, ordered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.params.platform import Platform
    from fluobook.params.versions import Matrix

SMALLEST_BOOT_DISK_GIB = 12
"""Below this, image pulls put a node under disk pressure."""
_KUBERNETES_DOMAIN = re.compile(r"(^|\.)(kubernetes|k8s)\.io$")
_ALLOWED_DOMAIN = re.compile(r"(^|\.)(node|kubelet)\.kubernetes\.io$")
_ALLOWED_LABELS = (
    "topology.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
)
_KUBELET_LABELS = (
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
)
"""What a kubelet sets. The type of the instance it sets only where a cloud provider knows it."""
_KUBERNETES_TAINTS = re.compile(
    r"node(\.cloudprovider)?\.kubernetes\.io/|node-role\.kubernetes\.io/(control-plane|master)$"
)
_DERIVED_LABELS = ("topology.kubernetes.io/zone", "node.longhorn.io/create-default-disk")
_SMALLEST = {"controlplane": {"memory_gib": 2, "cores": 2}, "worker": {"memory_gib": 1, "cores": 1}}


def names_are_unique(platform: Platform) -> Iterator[Problem]:
    """Nodes, endpoints, pools and hosts of a mesh are listed once each, and no URL has two endpoints."""
    mesh = platform.wireguard.hosts if platform.wireguard else ()
    lists = {
        "nodes": [node.name for node in platform.nodes],
        "proxmox": [endpoint.name for endpoint in platform.proxmox],
        "network.load_balancer.pools": [pool.name for pool in platform.network.load_balancer.pools],
        "wireguard.hosts": [peer.host for peer in mesh],
    }
    for path, names in lists.items():
        owned = [(f"platform.{path}[{index}]", name) for index, name in enumerate(names)]
        yield from clashes(owned, "give each a name of its own")
    urls = [(f"platform.proxmox.{endpoint.name}.url", endpoint.url) for endpoint in platform.proxmox]
    yield from clashes(urls, "make one endpoint of the two, with the hosts of both")


def identities_are_unique(platform: Platform) -> Iterator[Problem]:
    """No VM id and no MAC address, pinned or derived, belongs to two nodes."""
    for field in ("vmid", "mac"):
        owned = [(f"platform.nodes.{node.name}.{field}", getattr(node, field)) for node in platform.nodes]
        yield from clashes(owned, f"pin another {field} for one of the two")


def uuids_are_derived(platform: Platform) -> Iterator[Problem]:
    """The uuid that identifies a VM of the platform cannot be set."""
    for node in platform.nodes:
        if node.uuid != uuid_of(platform.cluster.name, node.name):
            path, rule = f"platform.nodes.{node.name}.uuid", "follows from cluster and node name"
            yield Problem(path, node.uuid, rule, "leave it out")


def control_planes_are_odd(platform: Platform) -> Iterator[Problem]:
    """An even number of etcd members survives no more failures than one member less."""
    count = len(platform.control_planes)
    if count == 0:
        yield Problem("platform.nodes", NO_VALUE, "there must be a control plane", "1, 3 or 5 of them")
    elif count % 2 == 0:
        rule = f"the number of control planes must be odd, and there are {count}"
        meant = (
            f"etcd needs {count // 2 + 1} of {count} members, so it survives no more failures than with {count - 1};"
            f" use {count - 1} or {count + 1}"
        )
        yield Problem("platform.nodes", NO_VALUE, rule, meant)


def there_are_workers(platform: Platform) -> Iterator[Problem]:
    """Workloads and their volumes run on workers."""
    if not platform.workers:
        yield Problem("platform.nodes", NO_VALUE, "there must be a worker", "add a node with role: worker")
    elif all(node.repels for node in platform.workers):
        rule = "every worker has a taint that keeps the platform's own pods away"
        yield Problem("platform.nodes", NO_VALUE, rule, "leave one worker without NoSchedule and NoExecute")


def is_refused_label(key: str) -> bool:
    """Whether NodeRestriction refuses a label that a kubelet gives its node itself."""
    domain = key.rpartition("/")[0]
    is_allowed = key in (*_ALLOWED_LABELS, *_KUBELET_LABELS, *_DERIVED_LABELS) or _ALLOWED_DOMAIN.search(domain)
    return bool(_KUBERNETES_DOMAIN.search(domain)) and not is_allowed


def labels_and_taints_can_be_set(platform: Platform) -> Iterator[Problem]:
    """A kubelet may give its node only some labels of Kubernetes' own domains (NodeRestriction)."""
    for node in platform.nodes:
        path = f"platform.nodes.{node.name}"
        for key in node.labels:
            if key in _DERIVED_LABELS:
                yield Problem(f"{path}.labels", key, "follows from host and disks", "leave it out")
            elif key in _KUBELET_LABELS:
                yield Problem(
                    f"{path}.labels", key, "is set by the kubelet, and pods and volumes rely on it", "leave it out"
                )
            elif is_refused_label(key):
                rule = "is a label that Kubernetes does not let a node give itself"
                yield Problem(f"{path}.labels", key, rule, "use a domain of your own, such as example.org/rack")
        for key in filter(_KUBERNETES_TAINTS.match, node.taints):
            meant = "use a domain of your own, such as example.org/dedicated"
            yield Problem(f"{path}.taints", key, "is set and removed by Kubernetes or Talos itself", meant)
        if node.role == "controlplane" and node.taints:
            meant = "Talos keeps other pods away from control planes; leave it out"
            yield Problem(f"{path}.taints", node.taints, "is for workers", meant)


def nodes_are_large_enough(platform: Platform) -> Iterator[Problem]:
    """Talos' own minimum for memory and cores, and a boot disk that takes the images."""
    for node in platform.nodes:
        path = f"platform.nodes.{node.name}"
        for field, least in _SMALLEST[node.role].items():
            if (value := getattr(node, field)) < least:
                yield Problem(f"{path}.{field}", value, f"is too small for a {node.role}", f"{least} at least")
        if node.boot_disk_gib < SMALLEST_BOOT_DISK_GIB:
            meant = f"{SMALLEST_BOOT_DISK_GIB} at least, 20 is usual"
            yield Problem(f"{path}.boot_disk_gib", node.boot_disk_gib, "would fill up with images", meant)


def workers_have_data_disks(platform: Platform) -> Iterator[Problem]:
    """Longhorn keeps its volumes on the workers' data disks, and on nothing else; not if a role is missing or wrong."""
    for node in platform.nodes if platform.control_planes and platform.workers else ():
        path = f"platform.nodes.{node.name}.data_disk_gib"
        if node.role == "worker" and node.data_disk_gib is None:
            yield Problem(path, None, "is required for a worker", "Longhorn keeps its volumes there; 80 is usual")
        if node.role == "controlplane" and node.data_disk_gib is not None:
            meant = "leave it out; Longhorn runs on workers"
            yield Problem(path, node.data_disk_gib, "is of no use to a control plane", meant)


def replicas_fit_the_failure_domains(platform: Platform) -> Iterator[Problem]:
    """Two copies on one host fail together."""
    domains = platform.failure_domains
    if domains and platform.storage.replicas > len(domains):
        rule = f"is more than the {len(domains)} failure domains ({', '.join(domains)})"
        yield Problem("platform.storage.replicas", platform.storage.replicas, rule, f"{len(domains)} at most")


def hosts_have_one_endpoint(platform: Platform) -> Iterator[Problem]:
    """A node's host is known, and no host belongs to two endpoints."""
    owned = [
        (f"platform.proxmox.{endpoint.name}.hosts[{index}]", host)
        for endpoint in platform.proxmox
        for index, host in enumerate(endpoint.hosts)
    ]
    yield from clashes(owned, "a host belongs to exactly one endpoint")
    known = {host for _, host in owned}
    for node in platform.nodes:
        if node.host not in known:
            yield _unknown_host(f"platform.nodes.{node.name}.host", node.host, known)


def certificates_have_one_check(platform: Platform) -> Iterator[Problem]:
    """A certificate is verified by its CA or by its fingerprint, not by both."""
    for endpoint in platform.proxmox:
        if endpoint.ca_file and endpoint.fingerprint:
            path = f"platform.proxmox.{endpoint.name}.fingerprint"
            yield Problem(path, endpoint.fingerprint, "is set beside ca_file", "keep one of the two")


def mesh_joins_every_host(platform: Platform) -> Iterator[Problem]:
    """A mesh names only hosts that exist, and includes every host with nodes."""
    if platform.wireguard is None:
        return
    known = {host for endpoint in platform.proxmox for host in endpoint.hosts}
    joined = {peer.host for peer in platform.wireguard.hosts}
    for host in sorted(joined - known):
        yield _unknown_host(f"platform.wireguard.hosts.{host}.host", host, known)
    distinct = len(joined) == len(platform.wireguard.hosts)
    for host in platform.hosts if joined <= known and distinct else ():
        if host in known - joined:
            yield Problem("platform.wireguard.hosts", host, "has nodes but is not in the mesh", "add it")
    staying = [peer.host for peer in platform.wireguard.members]
    if len(staying) == 1:
        meant = "keep two hosts at least, or set removed for all"
        yield Problem("platform.wireguard.hosts", staying[0], "is the only host that stays in the mesh", meant)
    for peer in platform.wireguard.hosts:
        path = f"platform.wireguard.hosts.{peer.host}"
        if staying and peer.removed and peer.host in platform.hosts:
            yield Problem(f"{path}.removed", value=True, rule="the host has nodes", meant="move or remove them first")
        if peer.private_key and not peer.ssh:
            yield Problem(f"{path}.private_key", str(peer.private_key), "needs ssh", "name ssh, or leave it out")


def _unknown_host(path: str, host: str, known: set[str]) -> Problem:
    return Problem(path, host, "is a host of no endpoint in platform.proxmox", did_you_mean(host, known))


def versions_are_compatible(platform: Platform, matrix: Matrix) -> Iterator[Problem]:
    """Talos supports this Kubernetes, and reads configurations of this contract."""
    versions, refusal = (
        platform.versions,
        matrix.refusal("talos", platform.versions.talos, platform.versions.kubernetes),
    )
    if refusal:
        field = "talos" if "has no row" in refusal else "kubernetes"
        meant = "null takes the version that this release was tested with"
        yield Problem(f"platform.versions.{field}", getattr(versions, field), refusal, meant)
    elif reason := matrix.denied.get("talos", {}).get(versions.talos):
        yield Problem("platform.versions.talos", versions.talos, f"is not installed: {reason}", "take a later patch")
    elif ordered(versions.contract) > ordered(minor_of(versions.talos)):
        meant = "a cluster keeps the contract of the Talos version that it was made with"
        problem = f"is newer than Talos {versions.talos}, which could not read the configurations"
        yield Problem("platform.versions.contract", versions.contract, problem, meant)
    elif versions.migrates_from and ordered(versions.migrates_from) >= ordered(versions.contract):
        meant = "a cluster moves to a newer contract; null once all nodes have it"
        problem = f"is not older than contract {versions.contract}"
        yield Problem("platform.versions.migrates_from", versions.migrates_from, problem, meant)
