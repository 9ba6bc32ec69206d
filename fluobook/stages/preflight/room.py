"""Whether a host has the bridge, and storages that take what is planned and have the room for it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluobook.stages.core.check import Check
from fluobook.stages.create_vms.hardware import disks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fluobook.params import Platform, ProxmoxEndpoint
    from fluobook.stages.create_vms.observe import Observation

GIB = 2**30
IMAGE_GIB = 0.5
"""Room for a Talos ISO: they have some 100 to 300 MiB."""
BRIDGES = frozenset({"bridge", "OVSBridge"})


@dataclass(frozen=True)
class Wanted:
    """What a host's storages have to take.

    Args:
        host: the host.
        image_storage: where the image goes.
        disk_storage: where disks go.
        image_gib: room for the image; 0 if it is there.
        disks_gib: the disks of the host's nodes that do not exist yet.
        shared_gib: the same for all hosts of the endpoint: what a shared storage has to take.
    """

    host: str
    image_storage: str
    disk_storage: str
    image_gib: float = 0
    disks_gib: float = 0
    shared_gib: float = 0

    @classmethod
    def of(cls, platform: Platform, endpoint: ProxmoxEndpoint, host: str, seen: Observation | None) -> Wanted:
        """What is planned for a host; no room is asked for where it is not known what exists already."""
        if seen is None:
            return cls(host, endpoint.image_storage, endpoint.disk_storage)
        new = [node for node in platform.nodes if node.host in endpoint.hosts and seen.ours(node) is None]
        sizes = [(node.host, sum(disks(node).values())) for node in new]
        return cls(
            host,
            endpoint.image_storage,
            endpoint.disk_storage,
            0 if host in seen.images else IMAGE_GIB,
            sum(size for where, size in sizes if where == host),
            sum(size for _, size in sizes),
        )

    def needs(self, storage: Mapping[str, Any]) -> float:
        """GiB that a storage of the host has to take."""
        new = self.shared_gib if storage.get("shared") else self.disks_gib
        image = self.image_gib if storage["storage"] == self.image_storage else 0
        return image + (new if storage["storage"] == self.disk_storage else 0)


def bridge(claim: str, networks: Sequence[Mapping[str, Any]], name: str) -> Check:
    """Whether a host has the bridge; Proxmox VE leaves out what the token may not use."""
    there = sorted(str(network["iface"]) for network in networks if network.get("type") in BRIDGES)
    return Check(
        claim,
        name in there,
        name if name in there else f"it shows {', '.join(there) or 'none'}",
        "set network.bridge in the params to one that it has, or grant SDN.Use and SDN.Audit on the bridge",
    )


def storages(wanted: Wanted, found: Sequence[Mapping[str, Any]]) -> Iterator[Check]:
    """Whether the storages are there, take what they have to, and have room for it."""
    by_name = {str(storage["storage"]): storage for storage in found}
    for name, content, key in (
        (wanted.image_storage, "iso", "image_storage"),
        (wanted.disk_storage, "images", "disk_storage"),
    ):
        yield _takes(wanted.host, by_name, name, content, key=key)
    usable = [by_name[n] for n in dict.fromkeys((wanted.image_storage, wanted.disk_storage)) if n in by_name]
    if tight := [text for storage in usable if (text := _tight(storage, wanted.needs(storage)))]:
        yield _room(wanted, ok=False, evidence="; ".join(tight))
    elif usable and all(map(_is_active, usable)):
        yield _room(wanted, ok=True, evidence=f"{wanted.disks_gib:g} GiB of disks are to come")


def _takes(host: str, found: Mapping[str, Mapping[str, Any]], name: str, content: str, *, key: str) -> Check:
    storage = found.get(name)
    taken = str(storage.get("content", "")).split(",") if storage else []
    others = sorted(other for other, one in found.items() if content in str(one.get("content", "")).split(","))
    if storage is None:
        problem = f"it shows {', '.join(sorted(found)) or 'no storage'}"
    elif not _is_active(storage):
        problem = "it is not active"
    else:
        problem = "" if content in taken else f"it takes {', '.join(filter(None, taken)) or 'nothing'}"
    keep = ",".join([*filter(None, taken), content])
    mend = f"pvesm set {name} --content {keep}" if problem.startswith("it takes") else f"pvesm status on {host}"
    other = f", or set proxmox[].{key} in the params to {' or '.join(others)}" if others else ""
    return Check(f"{host} has the storage {name} for {content}", not problem, problem or name, mend + other)


def _room(wanted: Wanted, *, ok: bool, evidence: str) -> Check:
    remedy = "free space on it, choose another storage in the params, or plan smaller disks"
    return Check(f"{wanted.host} has room for what is planned", ok, evidence, remedy)


def _is_active(storage: Mapping[str, Any]) -> bool:
    return bool(int(storage.get("active", 1))) and bool(int(storage.get("enabled", 1)))


def _tight(storage: Mapping[str, Any], gib: float) -> str:
    """What is said of a storage without the room for so much; "" if it has it, or does not report."""
    if "avail" not in storage or int(storage["avail"]) >= gib * GIB:
        return ""
    return f"{storage['storage']} has {int(storage['avail']) / GIB:.1f} GiB free, {gib:g} GiB are planned"
