"""A node's resources, derived from its state: the work of about a hundred controllers in Talos."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

from fluobook.kubernetes import manifests
from fluobook.machine.disks import GIB, bytes_of
from fluobook.params import KUBERNETES_PORT
from fluobook_lab.kube import system
from fluobook_lab.talos.disks import Disk, matching
from fluobook_lab.talos.resources import Key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fluobook_lab.talos.config import MachineConfiguration
    from fluobook_lab.talos.node import TalosMachine

LINKS = {"nocloud": "eth0", "metal": "ens18"}
"""The name of the first network card by platform: images for nocloud switch predictable names off (net.ifnames=0)."""

Described = tuple[Key, Any]


def describe(node: TalosMachine) -> Iterator[Described]:
    """All resources of a node."""
    yield _runtime("MachineStatuses.runtime.talos.dev", "machine", _machine_status(node))
    yield from _hardware(node)
    yield from _network(node)
    yield from _platform(node)
    for name, service in node.services.items():
        unknown = service.healthy is None
        spec = {"running": service.running, "healthy": bool(service.healthy), "unknown": unknown}
        yield _runtime("Services.v1alpha1.talos.dev", name, spec)
    if node.config is not None:
        yield from _configured(node, node.config)


def _machine_status(node: TalosMachine) -> dict[str, Any]:
    unmet = list(_unmet(node)) if node.stage in {"booting", "running"} else []
    return {"stage": node.stage, "status": {"ready": not unmet, "unmetConditions": unmet}}


def _unmet(node: TalosMachine) -> Iterator[dict[str, str]]:
    control_plane = node.config is not None and node.config.is_control_plane
    required = ("apid", "machined", "kubelet", *(("etcd", "trustd") if control_plane else ()))
    running = {name for name, service in node.services.items() if service.running}
    if node.nodes.faults.on("talos.time-not-synced"):
        yield {"name": "time", "reason": "time is not synced"}
    if missing := [f"{name} not running" for name in required if name not in running]:
        yield {"name": "services", "reason": ", ".join(missing)}
    if node.missing_pods:
        names = sorted(f"kube-system/{name}-{node.hostname}" for name in node.missing_pods)
        yield {"name": "staticPods", "reason": f"{', '.join(names)} not ready"}
    if not node.node_ready:
        reason = "is not ready" if node.kubelet_announced else "status is not available yet"
        yield {"name": "nodeReady", "reason": f'node "{node.hostname}" {reason}'}


def _hardware(node: TalosMachine) -> Iterator[Described]:
    vm = node.vm
    swapped = node.nodes.faults.on("talos.uuid-byte-order")
    uuid = str(UUID(bytes_le=UUID(vm.uuid).bytes)) if swapped else vm.uuid
    system = {"manufacturer": "QEMU", "productName": "Standard PC (Q35 + ICH9, 2009)", "uuid": uuid}
    yield Key("hardware", "SystemInformations.hardware.talos.dev", "systeminformation"), system
    cpu = {"socket": "CPU 0", "manufacturer": "QEMU", "coreCount": vm.cores, "threadCount": vm.cores}
    yield Key("hardware", "Processors.hardware.talos.dev", "CPU-0"), cpu
    memory = {"sizeMiB": vm.memory_mib, "deviceLocator": "DIMM 0", "manufacturer": "QEMU"}
    yield Key("hardware", "MemoryModules.hardware.talos.dev", "DIMM-0"), memory
    for disk in node.disks:
        yield _runtime("Disks.block.talos.dev", disk.name, disk.spec)
    if vm.image:
        kind = {"cdrom": True, "readonly": True, "model": "QEMU DVD-ROM", "transport": "ata"}
        yield _runtime("Disks.block.talos.dev", "sr0", Disk("ide2", "sr0", 0).spec | kind)


def _network(node: TalosMachine) -> Iterator[Described]:
    mac, up, link = node.vm.mac.lower(), {"operationalState": "up", "linkState": True}, LINKS[node.image.platform]
    links = {
        "lo": {"index": 1, "type": "loopback", "hardwareAddr": "", "mtu": 65536, "kind": "", **up},
        link: {"index": 2, "type": "ether", "hardwareAddr": mac, "permanentAddr": mac, "mtu": 1500, "kind": "", **up},
    }
    for name, spec in links.items():
        yield Key("network", "LinkStatuses.net.talos.dev", name), spec
    prefix = node.vm.address or (f"{node.address}/24" if node.address else "")
    if prefix:
        for kind in ("default", "current", "accumulative", "routed"):
            addresses = {"addresses": [prefix], "sortAlgorithm": "v1"}
            yield Key("network", "NodeAddresses.net.talos.dev", kind), addresses
        address = {"address": prefix, "linkName": link, "family": "inet4", "scope": "global"}
        yield Key("network", "AddressStatuses.net.talos.dev", f"{link}/{prefix}"), address
    hostname = {"hostname": node.hostname, "domainname": ""}
    yield Key("network", "HostnameStatuses.net.talos.dev", "hostname"), hostname
    ready = dict.fromkeys(("addressReady", "connectivityReady", "hostnameReady", "etcFilesReady"), True)
    yield Key("network", "NetworkStatuses.net.talos.dev", "status"), ready


def _platform(node: TalosMachine) -> Iterator[Described]:
    metadata = {"platform": node.image.platform, "hostname": node.vm.hostname, "instanceId": f"{node.vm.vmid}"}
    yield _runtime("PlatformMetadatas.talos.dev", "platformmetadata", metadata)
    synced = not node.nodes.faults.on("talos.time-not-synced")
    yield _runtime("TimeStatuses.v1alpha1.talos.dev", "node", {"synced": synced, "epoch": 1, "syncDisabled": False})
    yield _runtime("SecurityStates.talos.dev", "securitystate", {"secureBoot": False, "bootedWithUKI": True})
    yield _runtime("Versions.runtime.talos.dev", "version", {"name": "Talos", "version": node.image.version})
    for number, (name, version) in enumerate(node.nodes.extensions_of(node.image)):
        metadata = {"name": name, "version": version, "author": "Sidero Labs", "description": ""}
        yield _runtime("ExtensionStatuses.runtime.talos.dev", str(number), {"image": "", "metadata": metadata})


def _configured(node: TalosMachine, config: MachineConfiguration) -> Iterator[Described]:
    yield Key("config", "MachineTypes.config.talos.dev", "machine-type"), config.type
    yield Key("config", "MachineConfigs.config.talos.dev", "v1alpha1"), config.canonical
    nodename = {"nodename": node.hostname, "hostnameVersion": "1", "skipNodeRegistration": False}
    yield Key("k8s", "Nodenames.kubernetes.talos.dev", "nodename"), nodename
    if node.address:
        yield Key("k8s", "NodeIPs.kubernetes.talos.dev", "kubelet"), {"addresses": [node.address]}
    if node.kubelet_announced:
        status = {"nodename": node.hostname, "nodeReady": node.node_ready, "unschedulable": False}
        yield Key("k8s", "NodeStatuses.kubernetes.talos.dev", node.hostname), status
    yield from _cluster(node, config)
    yield from _volumes(node, config)
    if config.is_control_plane:
        subnets = (config.cluster.get("network") or {}).get("serviceSubnets") or ["10.96.0.0/12"]
        items = _own_objects(str(config.cluster.get("token") or ""), str(subnets[0]))
        yield Key("controlplane", "Manifests.kubernetes.talos.dev", "00-own"), items
        for entry in config.cluster.get("inlineManifests") or ():
            objects = _inline_objects(str(entry.get("contents") or ""))
            yield Key("controlplane", "Manifests.kubernetes.talos.dev", f"99-{entry.get('name')}"), objects
    if node.etcd_is_up and node.disk.etcd:
        member = {"memberID": f"{node.disk.etcd.members[node.vm.uuid].id:016x}"}
        yield Key("etcd", "EtcdMembers.etcd.talos.dev", "local"), member


@lru_cache
def _own_objects(token: str, service_cidr: str) -> list[Any]:
    """What Talos brings besides inline manifests; real nodes have a resource for each kind of these."""
    return system.of_talos(bootstrap_token=token, service_cidr=service_cidr)


@lru_cache(maxsize=8)
def _inline_objects(text: str) -> list[Any]:
    return manifests.load(text)


def _cluster(node: TalosMachine, config: MachineConfiguration) -> Iterator[Described]:
    info = {"clusterId": config.cluster_id, "clusterName": config.cluster_name}
    yield Key("cluster", "Infos.cluster.talos.dev", "current"), info
    yield Key("cluster", "Identities.cluster.talos.dev", "local"), {"nodeId": _node_id(node)}
    for member in node.nodes.members_of(config.cluster_id):
        yield Key("cluster", "Members.cluster.talos.dev", member.hostname), _member(member)


def _member(node: TalosMachine) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "nodeId": _node_id(node),
        "addresses": [node.address],
        "hostname": node.hostname,
        "machineType": node.config.type if node.config else "",
        "operatingSystem": f"Talos ({node.image.version})",
    }
    return spec | ({"controlPlane": {"port": KUBERNETES_PORT}} if spec["machineType"] == "controlplane" else {})


def _volumes(node: TalosMachine, config: MachineConfiguration) -> Iterator[Described]:
    if not node.disk.image:
        return
    system = next(disk for disk in node.disks if disk.drive == node.disk.drive)
    yield _runtime("SystemDisks.block.talos.dev", "system-disk", {"diskID": system.name, "devPath": system.path})
    sizes = {"META": 1 << 20, "STATE": 100 << 20, "EPHEMERAL": (system.gib - 3) * GIB}
    for number, (name, volume) in enumerate(sizes.items(), 3):
        yield _runtime("VolumeStatuses.block.talos.dev", name, _volume(system.path, number, volume))
    for document in config.of_kind("UserVolumeConfig"):
        yield _runtime("VolumeStatuses.block.talos.dev", f"u-{document.get('name')}", _user_volume(node, document))


def _user_volume(node: TalosMachine, document: Mapping[str, Any]) -> dict[str, Any]:
    """The status of a volume; the system disk has no room left: EPHEMERAL takes all of it."""
    provisioning = document.get("provisioning") or {}
    match = (provisioning.get("diskSelector") or {}).get("match") or "!system_disk"
    try:
        disks = matching(str(match), node.disks, node.disk.drive)
    except ValueError as error:
        return {"phase": "failed", "type": "partition", "errorMessage": str(error)}
    smallest = bytes_of(str(provisioning.get("minSize") or 0))
    large = [disk for disk in disks if disk.drive != node.disk.drive and disk.gib * GIB >= smallest]
    if large:
        return _volume(large[0].path, 1, large[0].gib * GIB)
    problem = "not enough space" if disks else "no disks matched for volume"
    return {"phase": "failed", "type": "partition", "errorMessage": problem}


def _volume(device: str, number: int, size: int) -> dict[str, Any]:
    return {
        "phase": "ready",
        "type": "partition",
        "location": f"{device}{number}",
        "parentLocation": device,
        "partitionIndex": number,
        "size": size,
        "prettySize": f"{size / 1e9:.1f} GB",
        "filesystem": "xfs",
    }


def _node_id(node: TalosMachine) -> str:
    """The node's identity in discovery, derived from its uuid; in Talos it is random and stored on disk."""
    return hashlib.sha256(node.vm.uuid.encode()).hexdigest()[:44]


def _runtime(type_: str, name: str, spec: Any) -> Described:
    return Key("runtime", type_, name), spec
