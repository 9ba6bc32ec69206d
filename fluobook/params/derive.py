"""What follows from the names of cluster and node, the same on every machine and every day.

VM ids, MAC addresses and SMBIOS uuids are not chosen by anybody, so a second operator, or the same one a year later,
arrives at the same machines.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

from fluobook.params.fields import PROXMOX_OUI

if TYPE_CHECKING:
    from fluobook.params.versions import Versions

NAMESPACE = uuid5(NAMESPACE_URL, "https://github.com/fluodata/fluobook")
"""The namespace of the nodes' uuids."""

_FIRST_VMID, _VMIDS = 100_000, 900_000


def vmid_of(cluster: str, node: str) -> int:
    """The VM id, from 100000 to 999999: far above what people number by hand."""
    return _FIRST_VMID + int.from_bytes(_hash("vmid", cluster, node)[:8]) % _VMIDS


def mac_of(cluster: str, node: str) -> str:
    """The MAC address, under Proxmox VE's vendor prefix."""
    return ":".join([PROXMOX_OUI, *(f"{byte:02X}" for byte in _hash("mac", cluster, node)[:3])])


def uuid_of(cluster: str, node: str) -> str:
    """The SMBIOS uuid by which a VM is known as ours."""
    return str(uuid5(NAMESPACE, f"{cluster}/{node}"))


def complete(platform: Mapping[str, Any], pins: Versions) -> dict[str, Any]:
    """The platform as written, with what is derived filled in; misshapen parts are left for the models to refuse."""
    cluster = platform.get("cluster")
    name = cluster.get("name") if isinstance(cluster, Mapping) else None
    completed = {
        **platform,
        "versions": _filled(platform.get("versions"), pins.model_dump()),
        "secrets": _filled(platform.get("secrets"), {"bundle": f"talos/secrets/{name}.sops.yaml"}),
    }
    nodes = platform.get("nodes")
    if isinstance(nodes, list | tuple):
        completed["nodes"] = [_complete_node(node, str(name)) for node in nodes]
    return completed


def _complete_node(node: Any, cluster: str) -> Any:
    if not isinstance(node, Mapping):
        return node
    name = str(node.get("name"))
    derived = {"vmid": vmid_of(cluster, name), "mac": mac_of(cluster, name), "uuid": uuid_of(cluster, name)}
    return _filled(node, derived)


def _filled(written: Any, defaults: Mapping[str, Any]) -> Any:
    if written is not None and not isinstance(written, Mapping):
        return written
    given = {key: value for key, value in (written or {}).items() if not (key in defaults and value is None)}
    return {**defaults, **given}


def _hash(*words: str) -> bytes:
    return hashlib.sha256("/".join(words).encode()).digest()
