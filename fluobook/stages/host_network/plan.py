"""What stage host-network reads of the hosts and of Proxmox VE, its plan, its work there, and the checks after it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fluobook.clients.proxmox import ProxmoxClient, Upid
from fluobook.clients.ssh import run_script
from fluobook.context import RunContext
from fluobook.errors import Refused, TaskFailed
from fluobook.files import write_text
from fluobook.params import Platform, ProxmoxEndpoint
from fluobook.params.platform import Wireguard
from fluobook.stages.core.check import Check, count
from fluobook.stages.core.executor import Reporter, in_parallel
from fluobook.stages.core.plan import Action, Plan
from fluobook.stages.host_network import mesh as meshes
from fluobook.stages.host_network import sdn
from fluobook.stages.host_network.mesh import HostState
from fluobook.stages.host_network.sdn import SdnState

NAME = "host-network"
CORRECT = "correct platform.wireguard in the params, or the host"
RELOAD = "srvreload"
"""The type of the task in which a node reloads its network."""
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


def perform(context: RunContext, action: Action, report: Reporter) -> Mapping[str, Any] | None:
    """Perform one action; a host's evidence is its public key, that of the SDN its tasks."""
    mesh, states, kind = context.platform.wireguard, context.shared(States, States), action.id.split()[0]
    assert mesh is not None  # noqa: S101  (narrows the type; there are no actions without a mesh)
    if kind == "firewall":
        _write_rules(context, mesh, action.data)
        return None
    if kind in ("fabric", "sdn"):
        endpoint = next(e for e in context.platform.proxmox if e.name == action.data["endpoint"])
        if kind == "sdn":
            return _apply_sdn(context, endpoint, report)
        _write_sdn(context, endpoint, only="create")
        return {"public_keys": _fabric_keys(context)}
    name = action.data["host"]
    if kind == "rotate" and states.fabric:
        return _rotate_in_fabric(context, mesh, name, report)
    if kind in ("tools", "key", "remove"):
        states.hosts[name] = run_on_host(context, name, kind)
        _refuse_problems(mesh, meshes.problems(mesh, states.hosts, meshes.active_keys(mesh, states.hosts), fabric=True))
        return {"public_key": states.hosts[name].public}
    keys = meshes.active_keys(mesh, states.hosts) | {name: states.hosts[name].public}
    if kind == "rotate":
        report("tells its peers the new key")
        others = [peer.host for peer in mesh.members if peer.ssh and peer.host != name]
        contents = [meshes.configuration(mesh, other, keys) for other in others]
        updated = in_parallel(
            lambda pair: run_on_host(context, pair[0], "peers", pair[1]), zip(others, contents, strict=True)
        )
        states.hosts |= dict(zip(others, updated, strict=True))
    states.hosts[name] = run_on_host(context, name, "mesh", meshes.configuration(mesh, name, keys))
    if kind == "rotate":
        _wait_for_handshakes(context, mesh, name, report)
    return {"public_key": states.hosts[name].running}


def _refuse_problems(mesh: Wireguard, problems: Iterable[str]) -> None:
    if wrong := list(problems):
        raise Refused("; ".join(wrong), remedy=f"correct the hosts of {mesh.interface} in platform.wireguard")


def _wait_for_handshakes(context: RunContext, mesh: Wireguard, name: str, report: Reporter) -> None:
    report("waits for a handshake with each peer")
    condition = f"the new key of {name} to be in use"
    context.wait_until("host_network", condition, partial(_shakes_hands, context, mesh, name))


def _shakes_hands(context: RunContext, mesh: Wireguard, name: str) -> bool | None:
    """Whether a host exchanges packets with all peers that have ssh; before that, no other host changes its key."""
    states = context.shared(States, States)
    states.hosts[name] = run_on_host(context, name, "observe")
    keys = _fabric_keys(context) if states.fabric else meshes.active_keys(mesh, states.hosts)
    lost = [pair for pair in meshes.silent_pairs(mesh, states.hosts, keys) if pair.startswith(f"{name} to ")]
    return None if any(pair.rpartition(" ")[2] in states.hosts for pair in lost) else True


def _rotate_in_fabric(context: RunContext, mesh: Wireguard, name: str, report: Reporter) -> dict[str, Any]:
    """Let Proxmox VE make the new key, let the other endpoints learn it, then let the host take it."""
    endpoints = endpoints_of(context.platform)
    own = next(endpoint for endpoint in endpoints if name in endpoint.hosts)
    report("makes the new key")
    states = context.shared(States, States)
    states.rotating = name
    _write_sdn(context, own)
    for endpoint in [*(endpoint for endpoint in endpoints if endpoint is not own), own]:
        _apply_sdn(context, endpoint, report)
    states.hosts = observe_hosts(context, mesh)
    if name in states.hosts:
        _wait_for_handshakes(context, mesh, name, report)
    return {"public_keys": _fabric_keys(context)}


def _write_rules(context: RunContext, mesh: Wireguard, data: Mapping[str, Any]) -> None:
    """Write a host's firewall rules before the old ones, then delete these."""
    client, host = context.proxmox(data["endpoint"]), data["host"]
    for rule in reversed(data["rules"]):
        client.add_firewall_rule(host, rule)
    old = sdn.our_rules(mesh, client.firewall_rules(host))[len(data["rules"]) :]
    for rule in reversed(old):
        client.delete_firewall_rule(host, int(rule["pos"]))


def _fabric_states(context: RunContext) -> dict[str, SdnState]:
    endpoints = endpoints_of(context.platform)
    objects = in_parallel(lambda endpoint: context.proxmox(endpoint.name).sdn(), endpoints)
    return {endpoint.name: SdnState(each) for endpoint, each in zip(endpoints, objects, strict=True)}


def _fabric_keys(context: RunContext) -> dict[str, str]:
    states, rotating = _fabric_states(context), context.shared(States, States).rotating
    present = sdn.as_present(context.platform, states, rotating).wireguard
    return sdn.public_keys(present, states) if present else {}


def _require_ours(context: RunContext, endpoint: ProxmoxEndpoint) -> tuple[Platform, SdnState, dict[str, str] | None]:
    """The platform with its present keys, and the state of an endpoint, if nothing in it is somebody else's."""
    states, state, keys, platform = context.shared(States, States), sdn_of(context, endpoint), None, context.platform
    if states.fabric:
        fabrics = _fabric_states(context)
        platform = sdn.as_present(platform, fabrics, states.rotating)
        assert platform.wireguard is not None  # noqa: S101  (narrows the type)
        keys = sdn.public_keys(platform.wireguard, fabrics)
        _refuse_problems(platform.wireguard, meshes.problems(platform.wireguard, {}, keys, fabric=True))
    sdn.require_ours(platform, endpoint, state, keys)
    return platform, state, keys


def _write_sdn(context: RunContext, endpoint: ProxmoxEndpoint, only: str = "") -> None:
    """Write what differs, which stays pending; `only` the steps with this verb."""
    client, (platform, state, keys) = context.proxmox(endpoint.name), _require_ours(context, endpoint)
    ours, planned = (of(platform, endpoint, keys) for of in (sdn.objects_of, sdn.wanted))
    planned = {kind: planned[kind] for kind in ("fabrics", "nodes")} if only else planned
    vnet = context.platform.network.bridge
    for verb, kind, name, content in sdn.steps(state.objects, ours, planned):
        if verb == "delete":
            client.delete_sdn(kind, name, vnet=vnet)
        elif verb == (only or verb):
            {"create": client.create_sdn, "change": client.change_sdn}[verb](kind, name, content, vnet=vnet)


def _apply_sdn(context: RunContext, endpoint: ProxmoxEndpoint, report: Reporter) -> dict[str, Any]:
    """Make the objects, apply them, and read what became of it on each node: a node's failure is a mere warning."""
    _write_sdn(context, endpoint)
    _require_ours(context, endpoint)
    client, seconds = context.proxmox(endpoint.name), context.platform.deadlines.host_network
    report("reloads the network of its nodes")
    upid = client.apply_sdn()
    report.evidence(upid=str(upid))
    client.wait(upid, deadline=seconds, name="host_network", on_poll=lambda _: report.check())
    mesh = context.platform.wireguard
    reloads = _reloads(client, [host.host for host in mesh.hosts] if mesh else [], upid, seconds)
    final = sdn_of(context, endpoint)
    if failing := [
        f"{host} reports {status or 'nothing'}" for host, status in final.status.items() if status != "available"
    ]:
        raise TaskFailed(
            f"the SDN of {endpoint.name} is applied, and its zone is not available: {', '.join(failing)}",
            system="proxmox",
            code=str(upid),
            remedy=f"`ifreload -a` as root on the node shows what is wrong; then run stage {NAME} again",
        )
    return {"upid": str(upid), "reloads": reloads}


def _reloads(client: ProxmoxClient, hosts: Sequence[str], applied: Upid, seconds: float) -> list[str]:
    """Wait for each node's own reload task, as far as the token may see it.

    Raises:
        TaskFailed: a reload failed; its log's tail is the detail, and the others that failed are named.
    """
    newest: dict[str, Upid] = {}
    for task in client.cluster_tasks():
        if task.upid.type == RELOAD and task.upid.node in hosts and task.upid.started >= applied.started:
            newest.setdefault(task.upid.node, task.upid)
    failures = list[TaskFailed]()
    for upid in newest.values():
        try:
            client.wait(upid, deadline=seconds, name="host_network")
        except TaskFailed as error:
            failures.append(error)
    if failures:
        failures[0].message = "; ".join(error.message for error in failures)
        failures[0].args = (failures[0].message,)
        raise failures[0]
    return list(map(str, newest.values()))


def verify(context: RunContext, observation: Observation | None) -> Sequence[Check]:
    """The checks of the tunnel and of the segment over it, from what the hosts and Proxmox VE report themselves."""
    mesh = context.platform.wireguard
    if mesh is None or observation is None:
        return (Check("the hosts form a mesh", passed=True, result=SKIPPED),)
    checks = _tunnel(context, mesh, observation) if observation.hosts or observation.fabric else []
    if unseen := [host for host in meshes.unseen(mesh) if not mesh.host(host).removed]:
        shown = [count(len(mesh.members), unseen)]
        shown += [text for state in observation.sdn.values() for text in sdn.reported(state, observation.keys(mesh))]
        remedy = "name ssh for it in the params (wireguard.hosts[].ssh), or run `wg show` on it"
        checks.append(
            Check(
                "every host was inspected",
                passed=False,
                result="; Proxmox VE reports of ".join(shown),
                remedy=remedy,
                advisory=True,
            )
        )
    keys = observation.keys(mesh) if observation.fabric else None
    for endpoint in endpoints_of(context.platform) if mesh.vxlan or observation.fabric else ():
        checks.append(_segment(context, endpoint, observation.sdn[endpoint.name], keys))
    return [*checks, _firewall(context, mesh, observation)]


def _firewall(context: RunContext, mesh: Wireguard, observation: Observation) -> Check:
    differing, hosts = [], {host.host: host for host in mesh.hosts}
    for endpoint in endpoints_of(context.platform):
        state = observation.sdn[endpoint.name]
        for name, rules in state.rules.items():
            planned = sdn.firewall_rules(context.platform, hosts[name], state, fabric=observation.fabric)
            differing += [name] if sdn.rules_differ(mesh, rules, planned) else []
    name = "the firewall of each host lets WireGuard pass, and VXLAN only inside the tunnel"
    return Check(name, not differing, count(len(hosts), differing), f"run stage {NAME} again")


def _tunnel(context: RunContext, mesh: Wireguard, observation: Observation) -> list[Check]:
    again, hosts, keys = f"run stage {NAME} again", dict(observation.hosts), observation.keys(mesh)
    left = [f"{name} (it leaves the mesh)" for name, state in hosts.items() if mesh.host(name).removed and state.file]
    hosts = {name: state for name, state in hosts.items() if not mesh.host(name).removed}
    if observation.fabric:
        wrong = {name: "; ".join(sdn.host_differences(mesh, name, hosts[name], keys)) for name in hosts}
        states = observation.sdn.values()
        down = [host.host for host in mesh.members if any(sdn.is_down(mesh, host, state) for state in states)]
        wrong |= dict.fromkeys(down, "Proxmox VE reports that its tunnel is down")
    else:
        wrong = {name: "; ".join(meshes.differences(mesh, name, hosts)) for name in hosts}
        wrong |= {
            name: "it uses another key than the params ask for" for name in hosts if meshes.is_rotated(hosts[name])
        }
    differing = left + [f"{name} ({reason})" for name, reason in wrong.items() if reason]
    silent = meshes.elsewhere(mesh, hosts, keys) | meshes.silent_pairs(mesh, hosts, keys)
    directions = len(hosts) * (len(mesh.members) - 1)
    context.journal.write(
        "evidence",
        stage=NAME,
        peers={name: {key: peer.evidence() for key, peer in state.peers.items()} for name, state in hosts.items()},
        reports={host: report for state in observation.sdn.values() for host, report in state.reports.items()},
    )
    lost = [f"{pair} ({reason})" for pair, reason in silent.items()]
    wire = f"packets of {mesh.underlay_mtu} bytes must pass between them"
    remedy = f"UDP port {mesh.port} must reach the endpoints, and {wire}; then {again}"
    checks = [
        Check("each host runs WireGuard as planned", not differing, count(len({*hosts, *wrong}), differing), again),
        Check(
            f"each pair of hosts exchanges packets of {mesh.mtu} bytes, with a recent handshake",
            not lost,
            f"directions: {count(directions, lost)}",
            remedy,
        ),
    ]
    return checks if directions or not mesh.members else checks[:1]


def _segment(context: RunContext, endpoint: ProxmoxEndpoint, state: SdnState, keys: Mapping[str, str] | None) -> Check:
    lacking, network = list(sdn.differences(context.platform, endpoint, state, keys)), context.platform.network
    lacking += [f"{host} reports no status" for host, status in state.status.items() if not status]
    shown = f"VNet {network.bridge}, MTU {network.mtu}, available on {', '.join(state.status)}"
    result = "; ".join(lacking) or (
        shown if sdn.hosts_of(context.platform, endpoint) else "nothing of the mesh is left"
    )
    name = f"the SDN of {endpoint.name} is as planned, and applied on its nodes"
    return Check(name, not lacking, result, f"run stage {NAME} again")
