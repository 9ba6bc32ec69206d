"""The SDN and the firewall as pure functions: the objects of an endpoint, how they differ, the steps to change them.

From Proxmox VE 9.2 on a WireGuard fabric is the mesh: each endpoint has the nodes behind it as internal nodes, whose
keys Proxmox VE makes, and all other hosts as external ones. The VXLAN zone is the same for all versions. Every MTU that
can be sent is sent: a zone without one has 1450.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fluobook.errors import ForeignObject, Refused
from fluobook.params import Platform, ProxmoxEndpoint
from fluobook.params.platform import Wireguard, WireguardHost
from fluobook.stages.host_network.mesh import HostState, allowed_ips, is_address, networks

Json = Mapping[str, Any]
Objects = Mapping[str, Mapping[str, Json]]
"""Objects of the SDN by kind and id."""
Step = tuple[str, str, str, dict[str, Any]]
"""A change of the SDN: create, change or delete, the kind, the id and the content."""

FABRIC_MTU = 1420
"""The MTU of a fabric's interfaces, which cannot be set."""
_FABRIC_SINCE = (9, 2)
_KINDS = ("fabrics", "nodes", "zones", "vnets", "subnets")
"""In the order of creation."""
_DELETION = ("subnets", "vnets", "zones", "nodes", "fabrics")
_LAST = ("nodes", "peers")
"""What is set when all objects exist."""
_NO_OPTIONS = {"digest", "type", "vnet", "zone", "id", "fabric_id", "node_id"}
"""What an object has beside its options."""
_CLASHES = (("zones", "type"), ("fabrics", "protocol"), ("vnets", "zone"), ("vnets", "tag"))
"""Kinds, and the key that shows whether an object with our id is somebody else's."""


@dataclass(frozen=True)
class SdnState:
    """What Proxmox VE reports of one endpoint.

    Args:
        objects: the objects of the SDN, pending changes included.
        status: the status of the zone, by host.
        version: of Proxmox VE.
        rules: the firewall rules, by host.
        users: the VMs on the VNet, if the endpoint leaves the mesh.
        reports: of each host without ssh, the states of the fabric's interfaces and of its neighbours.
    """

    objects: Objects = field(default_factory=dict)
    status: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    rules: Mapping[str, Sequence[Json]] = field(default_factory=dict)
    users: Sequence[str] = ()
    reports: Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]] = field(default_factory=dict)


def fabric_obstacles(mesh: Wireguard, versions: Sequence[str]) -> list[str]:
    """Why Proxmox VE's API cannot make the whole mesh: it knows neither MTU, nor NAT, nor keys from elsewhere."""
    older = [text for text in versions if tuple(int(part) for part in re.findall(r"\d+", text)[:2]) < _FABRIC_SINCE]
    obstacles = {
        f"Proxmox VE {', '.join(older)}": older,
        f"MTU {mesh.mtu}": mesh.mtu != FABRIC_MTU,
        "a host behind NAT": any(host.endpoint is None for host in mesh.hosts),
        "a private_key": any(host.private_key for host in mesh.hosts),
        "a public_key of a host without ssh": any(host.public_key and not host.ssh for host in mesh.hosts),
    }
    return [text for text, exists in obstacles.items() if exists]


def require_possible(mesh: Wireguard, states: Mapping[str, SdnState]) -> None:
    """Require that no fabric runs a mesh that wg-quick would have to run.

    Raises:
        Refused: a fabric with our name exists, and the params ask for what it cannot have.
    """
    owners = [name for name, state in states.items() if mesh.interface in state.objects.get("fabrics", {})]
    if owners and (obstacles := fabric_obstacles(mesh, [state.version for state in states.values()])):
        raise Refused(
            f"the mesh is a fabric of the SDN of {', '.join(owners)}, which cannot have {', '.join(obstacles)}",
            remedy="take this back in the params, or remove the mesh (removed: true for all hosts) and make it again",
        )


def hosts_of(platform: Platform, endpoint: ProxmoxEndpoint) -> list[WireguardHost]:
    """The members of the mesh behind an endpoint."""
    return [host for host in platform.wireguard.members if host.host in endpoint.hosts] if platform.wireguard else []


def objects_of(
    platform: Platform, endpoint: ProxmoxEndpoint, keys: Mapping[str, str] | None
) -> dict[str, dict[str, dict[str, Any]]]:
    """Our objects of an endpoint by kind and id; nodes and peers whose key is not known yet are left out.

    Args:
        platform: the platform.
        endpoint: the endpoint.
        keys: the public keys by host; None if the mesh is not a fabric.
    """
    mesh, network = platform.wireguard, platform.network
    objects: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in _KINDS}
    if mesh is None:
        return objects
    if keys is not None:
        objects["fabrics"] = {mesh.interface: {"protocol": "wireguard"}}
        objects["nodes"] = dict(_nodes(mesh, endpoint, keys))
    if mesh.vxlan:
        objects["zones"][mesh.vxlan.zone] = {
            "type": "vxlan",
            "peers": ",".join(host.address for host in mesh.members),
            "mtu": network.mtu,
            "vxlan-port": mesh.vxlan.port,
            "nodes": ",".join(host.host for host in hosts_of(platform, endpoint)),
        }
        objects["vnets"][network.bridge] = {"zone": mesh.vxlan.zone, "tag": mesh.vxlan.tag}
        subnet = f"{mesh.vxlan.zone}-{network.cidr.replace('/', '-')}"
        objects["subnets"][subnet] = {"gateway": network.gateway}
    return objects


def _nodes(mesh: Wireguard, endpoint: ProxmoxEndpoint, keys: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for host in mesh.members:
        node: dict[str, Any] = {"protocol": "wireguard"}
        port = mesh.port_of(host)
        if host.host in endpoint.hosts:
            interface = f"name={mesh.interface_on(host, fabric=True)},listen_port={port},ip={host.address}/32"
            peers = [_peer(mesh, endpoint, host, peer) for peer in mesh.members if peer is not host and keys[peer.host]]
            lists = {"interfaces": [interface], "peers": peers, "allowed_ips": list(host.networks)}
            yield f"{mesh.interface}/{host.host}", {**node, "role": "internal", "endpoint": host.endpoint, **lists}
        elif keys[host.host]:
            node |= {"role": "external", "public_key": keys[host.host], "allowed_ips": allowed_ips(host)}
            yield f"{mesh.interface}/{host.host}", {**node, "endpoint": f"{host.endpoint}:{port}"}


def _peer(mesh: Wireguard, endpoint: ProxmoxEndpoint, host: WireguardHost, peer: WireguardHost) -> str:
    own = f"node={peer.host},iface={mesh.interface_on(host, fabric=True)}"
    internal = peer.host in endpoint.hosts
    return (
        f"type=internal,node_iface={mesh.interface_on(peer, fabric=True)},{own}" if internal else f"type=external,{own}"
    )


def wanted(platform: Platform, endpoint: ProxmoxEndpoint, keys: Mapping[str, str] | None) -> Objects:
    """The objects that an endpoint has to have: ours, or none if all of its hosts leave the mesh."""
    return objects_of(platform, endpoint, keys) if hosts_of(platform, endpoint) else {}


def public_keys(mesh: Wireguard, states: Mapping[str, SdnState]) -> dict[str, str]:
    """The public key of each member's interface in its fabric; "" where there is none yet."""
    keys = {host.host: "" for host in mesh.members}
    for state in states.values():
        for name, node in state.objects.get("nodes", {}).items():
            fabric, _, host = name.partition("/")
            for interface in map(_properties, current(node).get("interfaces") or ()):
                if fabric == mesh.interface and host in keys and node.get("state") != "deleted":
                    is_planned = interface.get("name") == mesh.interface_on(mesh.host(host), fabric=True)
                    keys[host] = interface.get("public_key", "") if is_planned else keys[host]
    return keys


def _properties(text: str) -> dict[str, str]:
    return {key: value for key, _, value in (part.partition("=") for part in text.split(","))}


def as_present(platform: Platform, states: Mapping[str, SdnState], rotating: str = "") -> Platform:
    """The platform with the numbers of the keys that the fabric's interfaces have now, but for one host's.

    So that no host's key is replaced before its turn.
    """
    mesh = platform.wireguard
    if mesh is None:
        return platform
    numbers: dict[str, int] = {}
    for state in states.values():
        for name, node in state.objects.get("nodes", {}).items():
            fabric, _, host = name.partition("/")
            names = [_properties(text).get("name") for text in current(node).get("interfaces") or ()]
            if names and fabric == mesh.interface and host != rotating and node.get("state") != "deleted":
                numbers[host] = next((n for n in range(1, 100) if mesh.interface_named(n) in names), 1)
    hosts = [host.model_copy(update={"key": numbers.get(host.host, host.key)}) for host in mesh.hosts]
    return platform.model_copy(update={"wireguard": mesh.model_copy(update={"hosts": tuple(hosts)})})


def interface_problems(mesh: Wireguard, states: Mapping[str, SdnState]) -> Iterator[str]:
    """Interfaces of other fabrics with our ports, names or addresses."""
    for state in states.values():
        for name, node in state.objects.get("nodes", {}).items():
            fabric, _, host = name.partition("/")
            ours = next((member for member in mesh.members if member.host == host), None)
            for interface in map(_properties, current(node).get("interfaces") or ()):
                address = interface.get("ip", "").partition("/")[0]
                if ours is None or fabric == mesh.interface:
                    continue
                owner = f"{host} is used by interface {interface['name']} of fabric {fabric}"
                if interface.get("listen_port") == str(mesh.port_of(ours)):
                    yield f"UDP port {mesh.port_of(ours)} of {owner}"
                if mesh.owns(interface["name"]):
                    yield f"the interface {mesh.interface} of {owner}"
                if address == ours.address:
                    yield f"the address {address} of {owner}"


def current(content: Json) -> Json:
    """An object with its pending changes."""
    return {**content, **(content.get("pending") or {})}


def owned(objects: Objects, ours: Objects) -> set[tuple[str, str]]:
    """Kind and id of the objects that are ours; all nodes of our fabric are."""
    names = {(kind, name) for kind, content in ours.items() for name in content}
    nodes = objects.get("nodes", {})
    return names | {("nodes", name) for name in nodes if name.partition("/")[0] in ours.get("fabrics", {})}


def require_ours(
    platform: Platform, endpoint: ProxmoxEndpoint, state: SdnState, keys: Mapping[str, str] | None
) -> None:
    """Require that applying would publish nothing but our own changes, and delete nothing that others use.

    Raises:
        ForeignObject: there are pending changes of other people, another object has our id or tag, or is in our zone.
    """
    ours, planned = objects_of(platform, endpoint, keys), wanted(platform, endpoint, keys)
    names, mesh = owned(state.objects, ours), platform.wireguard
    hosts = {host.host for host in mesh.hosts} if mesh else set()
    new = {("nodes", name) for name, node in state.objects.get("nodes", {}).items() if node.get("state") == "new"}
    names -= {(kind, name) for kind, name in new if name.partition("/")[2] not in hosts}
    if pending := [
        f"{kind.removesuffix('s')} {name} ({change})"
        for kind, objects in state.objects.items()
        for name, content in objects.items()
        if (change := _change_of_others(content, planned.get(kind, {}).get(name), ours=(kind, name) in names))
    ]:
        raise ForeignObject(
            f"the SDN of {endpoint.name} has pending changes of somebody else: {', '.join(pending)}",
            cause="applying our changes would publish these too",
            remedy="let their author apply them, or withdraw them (Datacenter > SDN), then run the stage again",
        )
    segments = _segments(state)
    for kind, key in _CLASHES:
        for name, content in state.objects.get(kind, {}).items():
            value = current(content).get(key) if key != "tag" or current(content).get("zone") in segments else None
            for own, wish in ours[kind].items():
                if value == wish[key] and name != own if key == "tag" else value != wish[key] and name == own:
                    raise ForeignObject(
                        f"the SDN of {endpoint.name} has the {kind.removesuffix('s')} {name} with {key} {value}",
                        cause="somebody else made it",
                        remedy="choose another zone and tag (wireguard.vxlan), VNet (network.bridge) or interface "
                        "(wireguard.interface) in the params",
                    )
    users = [f"VM {user}" for user in state.users]
    users += [f"VNet {name}" for name, vnet in _others(state, ours, "vnets") if current(vnet)["zone"] in ours["zones"]]
    users += [f"subnet {name}" for name, net in _others(state, ours, "subnets") if net.get("vnet") in ours["vnets"]]
    if users and not planned:
        raise ForeignObject(
            f"the network of {endpoint.name} is in use by {', '.join(users)}",
            cause="its hosts leave the mesh, which deletes the zone and the VNet",
            remedy="move or delete what uses it, then run the stage again",
        )


def _change_of_others(content: Json, wish: Json | None, *, ours: bool) -> str:
    """What of an object's pending change is not ours, "" for nothing."""
    state = str(content.get("state") or "")
    if not ours or (state == "deleted" and wish is not None):
        return state
    options = sorted(set(content.get("pending") or ()) - set(wish or ()) - _NO_OPTIONS)
    return f"{state}: {', '.join(options)}" if options and state == "changed" and wish is not None else ""


def _segments(state: SdnState) -> set[str]:
    """The zones whose tags are VXLAN network identifiers."""
    zones = state.objects.get("zones", {})
    return {name for name, zone in zones.items() if current(zone).get("type") in ("vxlan", "evpn")}


def _others(state: SdnState, ours: Objects, kind: str) -> list[tuple[str, Json]]:
    return [(name, content) for name, content in state.objects.get(kind, {}).items() if name not in ours[kind]]


def differences(
    platform: Platform, endpoint: ProxmoxEndpoint, state: SdnState, keys: Mapping[str, str] | None
) -> Iterator[str]:
    """How an endpoint's SDN differs from the params."""
    planned = wanted(platform, endpoint, keys)
    for kind, name in sorted(owned(state.objects, objects_of(platform, endpoint, keys))):
        label, content = f"{kind.removesuffix('s')} {name}", state.objects.get(kind, {}).get(name)
        wish = planned.get(kind, {}).get(name)
        if wish is None:
            yield from [f"{label} is not in the params"] if content else []
        elif content is None or content.get("state") == "deleted":
            yield f"no {label}"
        elif keys_changed := changed(content, wish):
            yield from (f"{label} has {key} {current(content).get(key) or 'no value'}" for key in keys_changed)
        elif content.get("state"):
            yield f"{label} is not applied"
    for host in planned and [peer for peer, key in (keys or {}).items() if not key]:
        yield f"{host} gets a new key"
    for host, status in state.status.items():
        yield from [f"{host} reports {status}"] if planned and status not in ("", "available") else []


def changed(content: Json, wish: Json) -> list[str]:
    """The options of an object that differ; lists may be in another order, and an interface's key is the server's."""
    now = current(content)
    return [key for key, value in wish.items() if _parts(now.get(key) or "") != _parts(value)]


def _parts(value: Any) -> list[str]:
    text = " ".join(value) if isinstance(value, list) else str(value)
    return sorted(part for part in text.replace(",", " ").split() if not part.startswith("public_key="))


def steps(objects: Objects, ours: Objects, planned: Objects) -> Iterator[Step]:
    """The changes that lead from the objects to the planned ones.

    Peers are set when all nodes exist. An interface that others name as their peer cannot be replaced, so that all
    peers are removed first.
    """
    present = {
        (kind, name): content
        for kind, name in owned(objects, ours)
        if (content := objects.get(kind, {}).get(name)) and content.get("state") != "deleted"
    }
    for kind in _KINDS:
        for name, wish in planned.get(kind, {}).items():
            if (kind, name) not in present:
                content = {key: value for key, value in wish.items() if (kind, key) != _LAST and value != []}
                yield "create", kind, name, content
                present[kind, name] = content
    yield from _changes(planned, present)
    gone = {key for key in present if key[1] not in planned.get(key[0], {})}
    for kind in _DELETION:
        for name in sorted(name for each, name in gone if each == kind):
            if kind != "nodes" or planned.get("fabrics"):  # a fabric's nodes go with it
                yield "delete", kind, name, {}


def _changes(planned: Objects, present: dict[tuple[str, str], Json]) -> Iterator[Step]:
    nodes = planned.get("nodes", {})
    fixed = {("nodes", name): {key: wish[key] for key in ("protocol", "role")} for name, wish in nodes.items()}
    if any("interfaces" in changed(present["nodes", name], wish) for name, wish in nodes.items()):
        for key in [key for key in fixed if current(present[key]).get("peers")]:
            yield "change", *key, {**fixed[key], "delete": ["peers"]}
            present[key] = {**current(present[key]), "pending": {"peers": []}}
    for last in (False, True):
        for kind, name, wish in [(each, *item) for each in _KINDS for item in planned.get(each, {}).items()]:
            differing = [key for key in changed(present[kind, name], wish) if ((kind, key) == _LAST) == last]
            if differing:
                values = {key: wish[key] for key in differing if wish[key] != []}
                emptied = [key for key in differing if wish[key] == []]
                delete = {"delete": emptied} if emptied else {}
                yield "change", kind, name, {**fixed.get((kind, name), {}), **values, **delete}


def firewall_rules(platform: Platform, host: WireguardHost, state: SdnState, *, fabric: bool) -> list[dict[str, Any]]:
    """The rules of a host: WireGuard's port for the other hosts, and VXLAN's only inside the tunnel.

    VXLAN is not dropped elsewhere if the endpoint has zones of other people that use its port too.
    """
    mesh = platform.wireguard
    if mesh is None or host.removed:
        return []
    addresses = [str(peer.endpoint) for peer in mesh.members if peer is not host]
    source = {"source": ",".join(addresses)} if all(map(is_address, addresses)) else {}
    rules: list[dict[str, Any]] = [{"action": "ACCEPT", "dport": str(mesh.port_of(host)), **source}]
    if mesh.vxlan:
        port = {"dport": str(mesh.vxlan.port)}
        rules.append({"action": "ACCEPT", **port, "source": mesh.cidr, "iface": mesh.interface_on(host, fabric=fabric)})
        rules += [{"action": "DROP", **port}] if _segments(state) <= {mesh.vxlan.zone} else []
    return [{"type": "in", "proto": "udp", "enable": 1, "comment": _comment(mesh), **rule} for rule in rules]


def _comment(mesh: Wireguard) -> str:
    return f"fluobook: {mesh.interface}"


def our_rules(mesh: Wireguard, rules: Sequence[Json]) -> list[Json]:
    """The rules of a host's firewall that are ours, in their order."""
    return [rule for rule in rules if rule.get("comment") == _comment(mesh)]


def rules_differ(mesh: Wireguard, rules: Sequence[Json], planned: Sequence[Json]) -> bool:
    """Whether our rules are others than planned."""
    ours = our_rules(mesh, rules)
    names = ("type", "action", "proto", "dport", "source", "iface", "enable")
    shown: Callable[[Json], list[str]] = lambda rule: [str(rule.get(name, "")) for name in names]  # noqa: E731
    return list(map(shown, ours)) != list(map(shown, planned))


def is_down(mesh: Wireguard, host: WireguardHost, state: SdnState) -> bool:
    """Whether Proxmox VE itself reports that the fabric's interface on a host is down."""
    return state.reports.get(host.host, ({}, {}))[0].get(mesh.interface_on(host, fabric=True)) == "down"


def reported(state: SdnState, keys: Mapping[str, str]) -> Iterator[str]:
    """What Proxmox VE itself reports of the hosts without ssh; a neighbour is given by its key or its name."""
    names = {key: name for name, key in keys.items()}
    for host, (interfaces, neighbors) in state.reports.items():
        parts = [*interfaces.items(), *((names.get(peer, peer), status) for peer, status in neighbors.items())]
        yield f"{host}: " + (", ".join(f"{name} {status}" for name, status in parts) or "nothing")


def host_differences(mesh: Wireguard, name: str, state: HostState, keys: Mapping[str, str]) -> Iterator[str]:
    """What a host with ssh reports of its fabric's interface that is not as planned."""
    key, allowed = keys[name], {key: peer.allowed for key, peer in state.peers.items()}
    planned = networks(mesh, name, keys)
    port = state.ports.get(mesh.interface_on(mesh.host(name), fabric=True))
    if not state.running:
        yield f"the tunnel of {name} is down"
    elif key and state.running != key:
        yield f"the tunnel of {name} runs with another key"
    elif (state.mtu, port) != (mesh.mtu, mesh.port_of(mesh.host(name))):
        yield f"the tunnel of {name} runs with MTU {state.mtu} on port {port}"
    elif lost := [peer for peer, key in keys.items() if planned.get(key, frozenset()) - allowed.get(key, frozenset())]:
        yield f"the tunnel of {name} does not have {', '.join(lost)}, or a network behind it"
