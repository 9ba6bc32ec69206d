"""Values derived from the platform: VM ids, MAC addresses and uuids of the nodes, and their DHCP reservations.

Ids, MAC addresses and uuids depend on the names of cluster and node alone, so every operator addresses the same VMs.
Talos sends no host name to a DHCP server, so the reservations identify nodes by their MAC addresses.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

from fluobook.errors import UsageError
from fluobook.params.fields import PROXMOX_OUI
from fluobook.params.problems import did_you_mean
from fluobook.params.versions import CONTRACTS, minor_of, ordered

if TYPE_CHECKING:
    from fluobook.params.platform import Platform
    from fluobook.params.versions import Versions

NAMESPACE = uuid5(NAMESPACE_URL, "https://github.com/fluodata/fluobook")
"""The namespace of the nodes' uuids."""

_FIRST_VMID, _VMIDS = 100_000, 900_000


def vmid_of(cluster: str, node: str) -> int:
    """The VM id, from 100000 to 999999: far above numbers chosen by hand."""
    return _FIRST_VMID + int.from_bytes(_hash("vmid", cluster, node)[:8]) % _VMIDS


def mac_of(cluster: str, node: str) -> str:
    """The MAC address, under Proxmox VE's vendor prefix."""
    return ":".join([PROXMOX_OUI, *(f"{byte:02X}" for byte in _hash("mac", cluster, node)[:3])])


def uuid_of(cluster: str, node: str) -> str:
    """The SMBIOS uuid that identifies a VM of the platform."""
    return str(uuid5(NAMESPACE, f"{cluster}/{node}"))


def complete(platform: Mapping[str, Any], pins: Versions) -> dict[str, Any]:
    """The platform as written, with derived values filled in; parts of the wrong type are left to the models."""
    cluster = platform.get("cluster")
    name = cluster.get("name") if isinstance(cluster, Mapping) else None
    completed = {
        **platform,
        "versions": _versions(platform.get("versions"), pins),
        "secrets": _filled(platform.get("secrets"), {"bundle": f"talos/secrets/{name}.sops.yaml"}),
    }
    nodes = platform.get("nodes")
    if isinstance(nodes, list | tuple):
        completed["nodes"] = [_complete_node(node, str(name)) for node in nodes]
    return completed


def _versions(written: Any, pins: Versions) -> Any:
    """The versions; an older Talos than the pin's contract brings its own contract."""
    versions = _filled(written, pins.model_dump())
    talos = minor_of(str(versions.get("talos"))) if isinstance(versions, Mapping) else ""
    if talos in CONTRACTS and not (written or {}).get("contract"):
        return {**versions, "contract": min(pins.contract, talos, key=ordered)}
    return versions


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


def reservations(platform: Platform, server: str) -> str:
    """The DHCP reservations of all nodes, in the form that one DHCP server reads.

    Args:
        platform: the platform.
        server: "dnsmasq", "isc" (dhcpd), "kea" or "routeros" (MikroTik).

    Raises:
        UsageError: there is no such server in the list.
    """
    if server not in DHCP_SERVERS:
        raise UsageError(f"no DHCP reservations are known for {server!r}", remedy=did_you_mean(server, DHCP_SERVERS))
    network = platform.network
    if server == "kea":
        hosts = [{"hw-address": n.mac, "ip-address": n.address, "hostname": n.name} for n in platform.nodes]
        subnet = {"id": 1, "subnet": network.cidr, "reservations": hosts}
        return json.dumps({"Dhcp4": {"subnet4": [subnet]}}, indent=2) + "\n"
    reservation, options = DHCP_SERVERS[server]
    lines = [reservation.format(node=node) for node in platform.nodes]
    return (
        "\n".join([*lines, *(line.format(net=network, dns=",".join(network.nameservers)) for line in options)]) + "\n"
    )


DHCP_SERVERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "dnsmasq": (
        "dhcp-host={node.mac},{node.address},{node.name},infinite",
        ("dhcp-option=option:router,{net.gateway}", "dhcp-option=option:dns-server,{dns}"),
    ),
    "isc": (
        (
            "host {node.name} {{ hardware ethernet {node.mac}; fixed-address {node.address};"
            ' option host-name "{node.name}"; }}'
        ),
        (),
    ),
    "kea": ("", ()),
    "routeros": (
        "/ip dhcp-server lease add mac-address={node.mac} address={node.address} comment={node.name} server=all",
        ("/ip dhcp-server network add address={net.cidr} gateway={net.gateway} dns-server={dns}",),
    ),
}
"""For each DHCP server: the form of a reservation, and of the lines after all of them; kea reads JSON."""
