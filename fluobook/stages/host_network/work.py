"""What stage host-network does on the hosts and in the SDN, and the checks of the outcome."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from fluobook.clients.proxmox import ProxmoxClient, Upid
from fluobook.context import RunContext
from fluobook.errors import Refused, TaskFailed
from fluobook.params import Platform, ProxmoxEndpoint
from fluobook.params.platform import Wireguard
from fluobook.stages.core.check import Check, count
from fluobook.stages.core.executor import Reporter, in_parallel
from fluobook.stages.core.plan import Action
from fluobook.stages.host_network import mesh as meshes
from fluobook.stages.host_network import sdn
from fluobook.stages.host_network.plan import (
    NAME,
    SKIPPED,
    Observation,
    States,
    endpoints_of,
    observe_hosts,
    run_on_host,
    sdn_of,
)
from fluobook.stages.host_network.sdn import SdnState

RELOAD = "srvreload"
"""The type of the task in which a node reloads its network."""


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
