"""What stage host-network reads of the hosts and of Proxmox VE's SDN, and the plan that follows from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fluobook.clients.ssh import run_script
from fluobook.context import RunContext
from fluobook.errors import ForeignObject, Refused
from fluobook.files import write_text
from fluobook.params import Platform, ProxmoxEndpoint
from fluobook.params.platform import Wireguard
from fluobook.stages.core.executor import in_parallel
from fluobook.stages.core.plan import Action, Plan
from fluobook.stages.host_network import mesh as meshes
from fluobook.stages.host_network.mesh import HostState

NAME = "host-network"
SKIPPED = "skipped: the params have no mesh between hosts (platform.wireguard)"
Json = Mapping[str, Any]


@dataclass(frozen=True)
class SdnState:
    """The SDN of one endpoint, pending changes included: objects by kind and id, and each node's status of the zone."""

    objects: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)
    status: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Observation:
    """The state of the hosts that have ssh, and of the SDN of the endpoints."""

    hosts: Mapping[str, HostState]
    sdn: Mapping[str, SdnState]
    by_hand: Sequence[str] = ()


class States(dict[str, HostState]):
    """What each host reported last, for the actions of this run: a host's file holds the keys of all others."""


def observe(context: RunContext) -> Observation | None:
    """Read all hosts and endpoints in parallel; None without a mesh."""
    mesh = context.platform.wireguard
    if mesh is None:
        return None
    states = context.shared(States, States)
    names = [host.host for host in mesh.hosts if host.ssh]
    states |= dict(zip(names, in_parallel(lambda name: run_on_host(context, name, "observe"), names), strict=True))
    endpoints = endpoints_of(context.platform)
    sdn = in_parallel(lambda endpoint: sdn_of(context, endpoint), endpoints) if mesh.vxlan else []
    by_name = {endpoint.name: state for endpoint, state in zip(endpoints, sdn, strict=False)}
    return Observation(dict(states), by_name, list(_written_scripts(context, mesh, states)))


def run_on_host(context: RunContext, name: str, verb: str, content: str = "") -> HostState:
    """Run the script on a host with ssh, and read what it reports."""
    mesh = context.platform.wireguard
    assert mesh is not None  # noqa: S101  (narrows the type; there are no actions without a mesh)
    script, seconds = meshes.script(mesh, name, verb, content), context.platform.deadlines.host_network
    return meshes.read(run_script(mesh.ssh_program, mesh.host(name).ssh or "", script, deadline=seconds))


def _written_scripts(context: RunContext, mesh: Wireguard, states: Mapping[str, HostState]) -> Iterator[str]:
    """Write the script of each host without ssh into the run's folder; no private key is in it."""
    folder = (context.journal.path.parent if context.journal.path else context.home) / "host-network"
    keys = meshes.active_keys(mesh, states)
    for name in meshes.unseen(mesh):
        known = all(key for host, key in keys.items() if host != name)
        content = meshes.configuration(mesh, name, keys) if known else ""
        write_text(folder / f"{name}.sh", meshes.script(mesh, name, "mesh" if known else "key", content))
        yield f"run {name}.sh, in {folder.name} of the run's folder, as root on {name}; it prints the public key"


def endpoints_of(platform: Platform) -> list[ProxmoxEndpoint]:
    """The endpoints with hosts of the mesh."""
    joined = {host.host for host in platform.wireguard.hosts} if platform.wireguard else set()
    return [endpoint for endpoint in platform.proxmox if joined.intersection(endpoint.hosts)]


def hosts_of(platform: Platform, endpoint: ProxmoxEndpoint) -> list[str]:
    """The hosts of the mesh behind an endpoint."""
    return [host.host for host in platform.wireguard.hosts if host.host in endpoint.hosts] if platform.wireguard else []


def sdn_of(context: RunContext, endpoint: ProxmoxEndpoint) -> SdnState:
    """The objects of an endpoint's SDN, and the status of our zone on each of our hosts."""
    client, vxlan = context.proxmox(endpoint.name), context.platform.wireguard and context.platform.wireguard.vxlan
    objects = client.sdn()
    statuses = {host: client.zone_status(host) for host in hosts_of(context.platform, endpoint)}
    return SdnState(objects, {host: each.get(vxlan.zone, "") for host, each in statuses.items()} if vxlan else {})


def wanted(platform: Platform, endpoint: ProxmoxEndpoint) -> dict[str, dict[str, dict[str, Any]]]:
    """The zone, VNet and subnet of an endpoint, by kind and id. Their MTU is always sent: it has a default, 1450."""
    mesh, network = platform.wireguard, platform.network
    if mesh is None or mesh.vxlan is None:
        return {}
    zone = {
        "type": "vxlan",
        "peers": ",".join(host.address for host in mesh.hosts),
        "mtu": network.mtu,
        "vxlan-port": mesh.vxlan.port,
        "nodes": ",".join(hosts_of(platform, endpoint)),
    }
    vnet, subnet = {"zone": mesh.vxlan.zone, "tag": mesh.vxlan.tag}, {"gateway": network.gateway}
    subnet_id = f"{mesh.vxlan.zone}-{network.cidr.replace('/', '-')}"
    return {"zones": {mesh.vxlan.zone: zone}, "vnets": {network.bridge: vnet}, "subnets": {subnet_id: subnet}}


def foreign(platform: Platform, endpoint: ProxmoxEndpoint, state: SdnState) -> list[str]:
    """Pending changes of objects that are not ours; applying ours would publish them too."""
    ours = {(kind, name) for kind, objects in wanted(platform, endpoint).items() for name in objects}
    return [
        f"{kind.removesuffix('s')} {name} ({pending})"
        for kind, objects in state.objects.items()
        for name, content in objects.items()
        if (pending := content.get("state")) and ((kind, name) not in ours or pending == "deleted")
    ]


def require_no_foreign_changes(platform: Platform, endpoint: ProxmoxEndpoint, state: SdnState) -> None:
    """Require that applying would publish nothing but our own changes.

    Raises:
        ForeignObject: there are pending changes of other people, or another VNet has our tag.
    """
    if pending := foreign(platform, endpoint, state):
        raise ForeignObject(
            f"the SDN of {endpoint.name} has pending changes of somebody else: {', '.join(pending)}",
            cause="applying our changes would publish these too",
            remedy="let their author apply them, or withdraw them (Datacenter > SDN), then run the stage again",
        )
    ours = wanted(platform, endpoint)
    for kind, key in (("zones", "type"), ("vnets", "zone"), ("vnets", "tag")):
        for name, content in state.objects.get(kind, {}).items():
            value = _current(content).get(key)
            for own, wish in ours.get(kind, {}).items():
                clash = value == wish[key] and name != own if key == "tag" else value != wish[key] and name == own
                if clash:
                    raise ForeignObject(
                        f"the SDN of {endpoint.name} has the {kind.removesuffix('s')} {name} with {key} {value}",
                        cause="somebody else made it",
                        remedy="choose another zone and tag (wireguard.vxlan) or VNet (network.bridge) in the params",
                    )


def _current(content: Json) -> Json:
    return {**content, **(content.get("pending") or {})}


def sdn_differences(platform: Platform, endpoint: ProxmoxEndpoint, state: SdnState) -> list[str]:
    """What an endpoint's SDN lacks."""
    lacking = []
    for kind, objects in wanted(platform, endpoint).items():
        for name, wish in objects.items():
            label, content = f"{kind.removesuffix('s')} {name}", state.objects.get(kind, {}).get(name)
            if content is None:
                lacking.append(f"no {label}")
                continue
            lacking += [f"{label} has {key} {_shown(_current(content), key)}" for key in changed(content, wish)]
            lacking += [f"{label} is not applied"] if content.get("state") and not changed(content, wish) else []
    lacking += [f"{host} reports {status}" for host, status in state.status.items() if status not in ("", "available")]
    return lacking


def changed(content: Json, wish: Json) -> list[str]:
    """The options of an object that differ; lists may be in another order."""
    current = _current(content)
    return [key for key, value in wish.items() if _parts(current.get(key, "")) != _parts(value)]


def _parts(value: Any) -> list[str]:
    return sorted(str(value).replace(",", " ").split())


def _shown(content: Json, key: str) -> str:
    return str(content[key]) if key in content else "no value"


def plan(platform: Platform, observation: Observation | None) -> Plan:
    """Keys, then each host's file, then replaced keys one host after the other, then the SDN of each endpoint.

    Raises:
        ForeignObject: pending changes of somebody else, or objects with our names.
        Refused: a host has another key, or a port is taken.
    """
    mesh = platform.wireguard
    if mesh is None or observation is None:
        return Plan(NAME, (), 0, platform.digest_data(), notes=(SKIPPED,))
    if wrong := list(meshes.problems(mesh, observation.hosts)):
        raise Refused("; ".join(wrong), remedy="correct platform.wireguard in the params, or the host")
    actions = [*_keys(mesh, observation), *_files(mesh, observation)]
    for endpoint in endpoints_of(platform) if mesh.vxlan else ():
        state = observation.sdn[endpoint.name]
        require_no_foreign_changes(platform, endpoint, state)
        if lacking := sdn_differences(platform, endpoint, state):
            actions.append(_sdn(platform, endpoint, lacking, tuple(action.id for action in actions)))
    kept = len(mesh.hosts) + len(observation.sdn) - len({action.object for action in actions})
    return Plan(NAME, tuple(actions), max(kept, 0), platform.digest_data(), notes=tuple(observation.by_hand))


def _keys(mesh: Wireguard, observation: Observation) -> list[Action]:
    return [
        Action(
            f"key {name}",
            "create",
            f"tunnel of {name}",
            f"key {mesh.host(name).key} of {mesh.interface}, made on {name}",
            "no key" if state.tools else "wireguard-tools is not installed",
            system=f"host:{name}",
            data={"host": name},
        )
        for name, state in observation.hosts.items()
        if not state.public
    ]


def _files(mesh: Wireguard, observation: Observation) -> list[Action]:
    keys = tuple(f"key {name}" for name in observation.hosts)
    files, rotations = list[Action](), list[Action]()
    for name, state in observation.hosts.items():
        detail, data = f"{mesh.host(name).address}, {len(mesh.hosts) - 1} peers, MTU {mesh.mtu}", {"host": name}
        if meshes.is_rotated(state):
            rotations.append(
                Action(
                    f"rotate {name}",
                    "rotate",
                    f"tunnel of {name}",
                    f"its peers learn the new key, then {name} takes it",
                    f"it uses another key than number {mesh.host(name).key}",
                    (*keys, *(f"mesh {other}" for other in observation.hosts), *(action.id for action in rotations)),
                    "rotation",
                    data,
                )
            )
        elif reasons := "; ".join(meshes.differences(mesh, name, observation.hosts)):
            verb = "change" if state.file else "write"
            files.append(Action(f"mesh {name}", verb, f"tunnel of {name}", detail, reasons, keys, f"host:{name}", data))
    return files + rotations


def _sdn(platform: Platform, endpoint: ProxmoxEndpoint, lacking: list[str], needs: tuple[str, ...]) -> Action:
    objects, network = wanted(platform, endpoint), platform.network
    return Action(
        f"sdn {endpoint.name}",
        "create" if any(text.startswith("no zone") for text in lacking) else "change",
        f"SDN of {endpoint.name}",
        f"zone {next(iter(objects['zones']))}, VNet {network.bridge}, MTU {network.mtu}",
        "; ".join(lacking),
        needs,
        f"proxmox:{endpoint.name}",
        {"endpoint": endpoint.name, "objects": objects},
    )
