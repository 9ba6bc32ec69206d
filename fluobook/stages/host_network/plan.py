"""What stage host-network reads of the hosts and of Proxmox VE, and the plan that follows from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from fluobook.clients.proxmox import ProxmoxClient
from fluobook.clients.ssh import run_script
from fluobook.context import RunContext
from fluobook.errors import Refused
from fluobook.files import write_text
from fluobook.params import Platform, ProxmoxEndpoint
from fluobook.params.platform import Wireguard
from fluobook.stages.core.executor import in_parallel
from fluobook.stages.core.plan import Action, Plan
from fluobook.stages.host_network import mesh as meshes
from fluobook.stages.host_network import sdn
from fluobook.stages.host_network.mesh import HostState
from fluobook.stages.host_network.sdn import SdnState

NAME = "host-network"
CORRECT = "correct platform.wireguard in the params, or the host"
SKIPPED = "skipped: the params have no mesh between hosts (platform.wireguard)"


@dataclass(frozen=True)
class Observation:
    """The state of the hosts that have ssh, and of the SDN and the firewalls of the endpoints.

    `fabric` is whether the mesh is a fabric of the SDN; else wg-quick runs it.
    """

    hosts: Mapping[str, HostState]
    sdn: Mapping[str, SdnState]
    by_hand: Sequence[str] = ()
    fabric: bool = False

    def keys(self, mesh: Wireguard) -> dict[str, str]:
        """The public key of each host."""
        return sdn.public_keys(mesh, self.sdn) if self.fabric else meshes.active_keys(mesh, self.hosts)


@dataclass
class States:
    """What each host reported last, for the actions of this run: a host's file holds the keys of all others.

    `rotating` is the host whose key in a fabric is being replaced.
    """

    hosts: dict[str, HostState] = field(default_factory=dict)
    fabric: bool = False
    rotating: str = ""


def observe(context: RunContext) -> Observation | None:
    """Read all hosts and endpoints in parallel; None without a mesh."""
    mesh = context.platform.wireguard
    if mesh is None:
        return None
    _require_keys(context, mesh)
    states, endpoints = context.shared(States, States), endpoints_of(context.platform)
    by_name = dict(zip([e.name for e in endpoints], in_parallel(lambda e: sdn_of(context, e), endpoints), strict=True))
    states.fabric = not sdn.fabric_obstacles(mesh, [state.version for state in by_name.values()])
    states.hosts = observe_hosts(context, mesh)
    if states.fabric and any(host.file or host.public for host in states.hosts.values()):  # wg-quick keeps its mesh
        states.fabric = False
        states.hosts = observe_hosts(context, mesh)
    scripts = [] if states.fabric else list(_written_scripts(context, mesh, states.hosts))
    return Observation(dict(states.hosts), by_name, scripts, states.fabric)


def _require_keys(context: RunContext, mesh: Wireguard) -> None:
    """Require that each private key from outside is one, and that of its host.

    Raises:
        Refused: it is not.
    """
    owners, wrong = {host.public_key: host.host for host in mesh.members if host.public_key}, list[str]()
    for host in mesh.members:
        if host.private_key is None:
            continue
        public, named = meshes.public_key(context.secret(host.private_key)), f"{host.private_key}, of {host.host},"
        if not public:
            wrong.append(f"{named} is no private key of WireGuard")
        elif host.public_key not in (None, public):
            wrong.append(f"{named} has the public key {public}, and the params say {host.public_key}")
        elif (owner := owners.setdefault(public, host.host)) != host.host:
            wrong.append(f"{named} is the key of {owner} too")
    if wrong:
        raise Refused("; ".join(wrong), remedy="correct what is stored; `wg genkey` makes a private key")


def observe_hosts(context: RunContext, mesh: Wireguard) -> dict[str, HostState]:
    """What all hosts with ssh report."""
    names = [host.host for host in mesh.hosts if host.ssh]
    return dict(zip(names, in_parallel(lambda name: run_on_host(context, name, "observe"), names), strict=True))


def run_on_host(context: RunContext, name: str, verb: str, content: str = "") -> HostState:
    """Run the script on a host with ssh, and read what it reports."""
    mesh = context.platform.wireguard
    assert mesh is not None  # noqa: S101  (narrows the type; there are no actions without a mesh)
    host, seconds = mesh.host(name), context.platform.deadlines.host_network
    given, fabric = context.secret(host.private_key) if host.private_key else "", context.shared(States, States).fabric
    script = meshes.script(mesh, name, verb, content, fabric=fabric, given=given)
    return meshes.read(run_script(mesh.ssh_program, host.ssh or "", script, deadline=seconds))


def _written_scripts(context: RunContext, mesh: Wireguard, states: Mapping[str, HostState]) -> Iterator[str]:
    """Write the script of each host without ssh into the run's folder; no private key is in it."""
    folder = (context.journal.path.parent if context.journal.path else context.home) / "host-network"
    keys = meshes.active_keys(mesh, states)
    for name in meshes.unseen(mesh):
        known = all(key for host, key in keys.items() if host != name)
        verb = "remove" if mesh.host(name).removed else "mesh" if known else "key"
        content = meshes.configuration(mesh, name, keys) if verb == "mesh" else ""
        write_text(folder / f"{name}.sh", meshes.script(mesh, name, verb, content))
        place = "the run's folder" if context.journal.path else str(folder.parent)
        yield f"run {name}.sh, in {folder.name} of {place}, as root on {name}; it prints the public key"


def endpoints_of(platform: Platform) -> list[ProxmoxEndpoint]:
    """The endpoints with hosts of the mesh, those that leave it included."""
    joined = {host.host for host in platform.wireguard.hosts} if platform.wireguard else set()
    return [endpoint for endpoint in platform.proxmox if joined.intersection(endpoint.hosts)]


def sdn_of(context: RunContext, endpoint: ProxmoxEndpoint) -> SdnState:
    """The objects of an endpoint's SDN, the status of our zone on each of our hosts, and their firewalls' rules."""
    client, mesh = context.proxmox(endpoint.name), context.platform.wireguard
    assert mesh is not None  # noqa: S101  (narrows the type)
    members = [host.host for host in sdn.hosts_of(context.platform, endpoint)]
    joined = [host.host for host in mesh.hosts if host.host in endpoint.hosts]
    status = {host: client.zone_status(host).get(mesh.vxlan.zone, "") for host in members} if mesh.vxlan else {}
    users = [] if members else _users(client, context.platform.network.bridge)
    rules = {host: client.firewall_rules(host) for host in joined}
    objects = client.sdn()
    unseen = [host for host in joined if not mesh.host(host).ssh and f"{mesh.interface}/{host}" in objects["nodes"]]
    reports = {host: client.fabric_status(host, mesh.interface) for host in unseen}
    return SdnState(objects, status, client.version()["version"], rules, users, reports)


def _users(client: ProxmoxClient, bridge: str) -> list[str]:
    """The VMs with a network card on a bridge."""
    vms = [vm for vm in client.resources("vm") if vm["type"] == "qemu"]
    configs = {str(vm.get("name") or vm["vmid"]): client.config(vm["node"], int(vm["vmid"])) for vm in vms}
    needle = f"bridge={bridge}"
    return [name for name, config in configs.items() if any(needle in str(v).split(",") for v in config.values())]


def plan(platform: Platform, observation: Observation | None) -> Plan:
    """Keys, then each host's tunnel, then replaced keys one host after the other, then the SDN of each endpoint.

    Raises:
        ForeignObject: pending changes of somebody else, or objects with our names.
        Refused: a host has another key, or a port is taken.
    """
    mesh = platform.wireguard
    if mesh is None or observation is None:
        return Plan(NAME, (), 0, platform.digest_data(), notes=(SKIPPED,))
    if not observation.fabric:
        sdn.require_possible(mesh, observation.sdn)
    present = sdn.as_present(platform, observation.sdn) if observation.fabric else platform
    assert present.wireguard is not None  # noqa: S101  (narrows the type)
    rotated = [host for host, now in zip(mesh.hosts, present.wireguard.hosts, strict=True) if host.key != now.key]
    mesh_now = present.wireguard
    keys = observation.keys(mesh_now)
    wrong = list(meshes.problems(mesh, observation.hosts, keys, fabric=observation.fabric))
    if wrong := [*wrong, *sdn.interface_problems(mesh_now, observation.sdn)]:
        by_hand = [*observation.by_hand, "write the keys into wireguard.hosts[].public_key"]
        remedy = "; ".join(by_hand) if all(meshes.NO_KEY in text for text in wrong) else CORRECT
        raise Refused("; ".join(wrong), remedy=remedy)
    for endpoint in endpoints_of(platform):
        sdn.require_ours(present, endpoint, observation.sdn[endpoint.name], keys if observation.fabric else None)
    actions = _fabrics(present, mesh_now, observation) if observation.fabric else _tunnels(mesh, observation)
    if mesh.vxlan or observation.fabric:
        actions += _sdn(present, observation, actions, [host.host for host in rotated])
    for host in rotated:
        reason = f"it uses another key than number {host.key}"
        actions.append(_rotation(host.host, reason, tuple(action.id for action in actions)))
    actions += _firewalls(platform, mesh, observation)
    actions += _removals(mesh, observation, actions)
    kept = len(mesh.hosts) + 2 * len(observation.sdn) - len({action.object for action in actions})
    return Plan(NAME, tuple(actions), max(kept, 0), platform.digest_data(), notes=tuple(observation.by_hand))


def _tunnels(mesh: Wireguard, observation: Observation) -> list[Action]:
    keys = [
        Action(
            f"key {name}",
            "create",
            f"tunnel of {name}",
            f"key {mesh.host(name).key} of {mesh.interface}, "
            + (f"from {mesh.host(name).private_key}" if mesh.host(name).private_key else f"made on {name}"),
            "no key" if state.tools else "wireguard-tools is not installed",
            system=f"host:{name}",
            data={"host": name},
        )
        for name, state in observation.hosts.items()
        if not state.public and not mesh.host(name).removed
    ]
    return keys + _files(mesh, observation)


def _files(mesh: Wireguard, observation: Observation) -> list[Action]:
    members = {host.host: observation.hosts[host.host] for host in mesh.members if host.ssh}
    keys = tuple(f"key {name}" for name in members)
    files, rotations = list[Action](), list[Action]()
    for name, state in members.items():
        detail, data = f"{mesh.host(name).address}, {len(mesh.members) - 1} peers, MTU {mesh.mtu}", {"host": name}
        if meshes.is_rotated(state):
            needs = (*keys, *(f"mesh {other}" for other in members), *(action.id for action in rotations))
            reason = f"it uses another key than number {mesh.host(name).key}"
            rotations.append(_rotation(name, reason, needs))
        elif reasons := "; ".join(meshes.differences(mesh, name, observation.hosts)):
            verb = "change" if state.file else "write"
            files.append(Action(f"mesh {name}", verb, f"tunnel of {name}", detail, reasons, keys, f"host:{name}", data))
    return files + rotations


def _rotation(name: str, reason: str, needs: tuple[str, ...]) -> Action:
    detail = f"its peers learn the new key, then {name} takes it"
    return Action(f"rotate {name}", "rotate", f"tunnel of {name}", detail, reason, needs, "rotation", {"host": name})


def _fabrics(platform: Platform, mesh: Wireguard, observation: Observation) -> list[Action]:
    """WireGuard's programs, then the interface of each host, whose key Proxmox VE makes."""
    keys, actions = observation.keys(mesh), list[Action]()
    for host in mesh.members:
        state = observation.hosts.get(host.host)
        if state and not state.tools:
            actions.append(
                Action(
                    f"tools {host.host}",
                    "install",
                    f"programs of {host.host}",
                    "wireguard-tools",
                    "it is not installed",
                    system=f"host:{host.host}",
                    data={"host": host.host},
                )
            )
    for endpoint in endpoints_of(platform):
        if new := [host.host for host in sdn.hosts_of(platform, endpoint) if not keys[host.host]]:
            detail = f"{mesh.interface} on {', '.join(new)}, whose key Proxmox VE makes"
            actions.append(
                Action(
                    f"fabric {endpoint.name}",
                    "create",
                    f"fabric of {endpoint.name}",
                    detail,
                    "no interface",
                    system=f"proxmox:{endpoint.name}",
                    data={"endpoint": endpoint.name},
                )
            )
    return actions


def _sdn(
    platform: Platform, observation: Observation, before: Sequence[Action], rotated: Sequence[str]
) -> list[Action]:
    mesh, network, actions = platform.wireguard, platform.network, list[Action]()
    assert mesh is not None  # noqa: S101  (narrows the type)
    keys, needs = observation.keys(mesh) if observation.fabric else None, tuple(action.id for action in before)
    for endpoint in endpoints_of(platform):
        state, members = observation.sdn[endpoint.name], sdn.hosts_of(platform, endpoint)
        lacking = list(sdn.differences(platform, endpoint, state, keys))
        for host in members if observation.fabric and not lacking else ():
            lacking += [f"the tunnel of {host.host} is down"] if sdn.is_down(mesh, host, state) else []
            if host.host in observation.hosts and host.host not in rotated:
                own = observation.hosts[host.host]
                lacking += sdn.host_differences(mesh, host.host, own, keys) if own.tools and keys else ()
        if lacking:
            objects, nodes = sdn.objects_of(platform, endpoint, None), state.objects.get("nodes", {})
            leaving = [host.host for host in mesh.hosts if host.removed and host.host in endpoint.hosts]
            destroys = [host for host in leaving if observation.fabric and f"{mesh.interface}/{host}" in nodes]
            destroys += [] if members else [f"{network.bridge}@{endpoint.name}"]
            parts = [f"fabric {mesh.interface}"] if observation.fabric else []
            parts += [f"zone {mesh.vxlan.zone}, VNet {network.bridge}, MTU {network.mtu}"] if mesh.vxlan else []
            is_new = any(text.startswith(("no zone", "no fabric")) for text in lacking)
            actions.append(
                Action(
                    f"sdn {endpoint.name}",
                    "delete" if not members else "create" if is_new else "change",
                    f"SDN of {endpoint.name}",
                    ", ".join(parts),
                    "; ".join(lacking),
                    needs,
                    f"proxmox:{endpoint.name}",
                    {"endpoint": endpoint.name, "objects": objects},
                    tuple(destroys),
                )
            )
    return actions


def _firewalls(platform: Platform, mesh: Wireguard, observation: Observation) -> list[Action]:
    actions = []
    for endpoint in endpoints_of(platform):
        state = observation.sdn[endpoint.name]
        for host in (host for host in mesh.hosts if host.host in endpoint.hosts):
            rules = sdn.firewall_rules(platform, host, state, fabric=observation.fabric)
            if sdn.rules_differ(mesh, state.rules[host.host], rules):
                ports = ", ".join(f"{rule['action']} UDP {rule['dport']}" for rule in rules)
                actions.append(
                    Action(
                        f"firewall {host.host}",
                        "write" if rules else "change",
                        f"firewall of {host.host}",
                        ports or "our rules are removed",
                        "its rules differ" if sdn.our_rules(mesh, state.rules[host.host]) else "no rules",
                        system=f"proxmox:{endpoint.name}",
                        data={"endpoint": endpoint.name, "host": host.host, "rules": rules},
                    )
                )
    return actions


def _removals(mesh: Wireguard, observation: Observation, before: Sequence[Action]) -> list[Action]:
    """What is removed from the hosts that leave the mesh, when nothing needs it any more."""
    return [
        Action(
            f"remove {name}",
            "delete",
            f"tunnel of {name}",
            f"file, keys and stanza of {mesh.interface}",
            "it leaves the mesh",
            tuple(action.id for action in before),
            f"host:{name}",
            {"host": name},
            (name,),
        )
        for name, state in observation.hosts.items()
        if mesh.host(name).removed and (state.file or state.public or state.stanza)
    ]
