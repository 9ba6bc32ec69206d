"""What stage host-network does on the hosts and in the SDN, and the checks of the outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from fluobook.clients.proxmox import ProxmoxClient, Upid
from fluobook.context import RunContext
from fluobook.errors import TaskFailed
from fluobook.params import ProxmoxEndpoint
from fluobook.params.platform import Wireguard
from fluobook.stages.core.check import Check, count
from fluobook.stages.core.executor import Reporter, in_parallel
from fluobook.stages.core.plan import Action
from fluobook.stages.host_network import mesh as meshes
from fluobook.stages.host_network.plan import (
    NAME,
    SKIPPED,
    Observation,
    SdnState,
    States,
    changed,
    hosts_of,
    require_no_foreign_changes,
    run_on_host,
    sdn_differences,
    sdn_of,
    wanted,
)

RELOAD = "srvreload"
"""The type of the task in which a node reloads its network."""


def perform(context: RunContext, action: Action, report: Reporter) -> Mapping[str, Any] | None:
    """Perform one action; a host's evidence is its public key, that of the SDN its tasks."""
    mesh, states = context.platform.wireguard, context.shared(States, States)
    assert mesh is not None  # noqa: S101  (narrows the type; there are no actions without a mesh)
    kind = action.id.split()[0]
    if kind == "sdn":
        return _apply_sdn(context, action, report)
    name = action.data["host"]
    if kind == "key":
        states[name] = run_on_host(context, name, "key")
        return {"public_key": states[name].public}
    keys = meshes.active_keys(mesh, states) | {name: states[name].public}
    if kind == "rotate":
        report("tells its peers the new key")
        others = [peer.host for peer in mesh.hosts if peer.ssh and peer.host != name]
        contents = [meshes.configuration(mesh, other, keys) for other in others]
        updated = in_parallel(
            lambda pair: run_on_host(context, pair[0], "peers", pair[1]), zip(others, contents, strict=True)
        )
        states |= dict(zip(others, updated, strict=True))
    states[name] = run_on_host(context, name, "mesh", meshes.configuration(mesh, name, keys))
    if kind == "rotate":
        report("waits for a handshake with each peer")
        context.wait_until(
            "host_network", f"the new key of {name} to be in use", partial(_shakes_hands, context, mesh, name)
        )
    return {"public_key": states[name].running}


def _shakes_hands(context: RunContext, mesh: Wireguard, name: str) -> bool | None:
    """Whether a host exchanges packets with all peers that have ssh; before that, no other host changes its key."""
    states = context.shared(States, States)
    states[name] = run_on_host(context, name, "observe")
    lost = [pair for pair in meshes.silent_pairs(mesh, states) if pair.startswith(f"{name} to ")]
    return None if any(pair.rpartition(" ")[2] in states for pair in lost) else True


def _apply_sdn(context: RunContext, action: Action, report: Reporter) -> Mapping[str, Any]:
    """Make the objects, apply them, and read what became of it on each node: a node's failure is a mere warning."""
    endpoint = next(e for e in context.platform.proxmox if e.name == action.data["endpoint"])
    client, state = context.proxmox(endpoint.name), sdn_of(context, endpoint)
    require_no_foreign_changes(context.platform, endpoint, state)
    vnet = context.platform.network.bridge
    for kind, objects in wanted(context.platform, endpoint).items():
        for name, wish in objects.items():
            content = state.objects.get(kind, {}).get(name)
            if content is None:
                client.create_sdn(kind, name, wish, vnet=vnet)
            elif differing := changed(content, wish):
                client.change_sdn(kind, name, {key: wish[key] for key in differing}, vnet=vnet)
    require_no_foreign_changes(context.platform, endpoint, sdn_of(context, endpoint))
    seconds = context.platform.deadlines.host_network
    report("reloads the network of its nodes")
    upid = client.apply_sdn()
    report.evidence(upid=str(upid))
    client.wait(upid, deadline=seconds, name="host_network", on_poll=lambda _: report.check())
    hosts = hosts_of(context.platform, endpoint)
    reloads = [_reload(client, host, upid, seconds) for host in hosts]
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
    return {"upid": str(upid), "reloads": [str(reload) for reload in reloads if reload]}


def _reload(client: ProxmoxClient, host: str, applied: Upid, seconds: float) -> Upid | None:
    """Wait for a node's own reload task; None if the token may not see it.

    Raises:
        TaskFailed: the reload failed; its log's tail is the detail.
    """
    tasks = [task for task in client.cluster_tasks() if (task.upid.type, task.upid.node) == (RELOAD, host)]
    newest = next((task for task in tasks if task.upid.started >= applied.started), None)
    return client.wait(newest.upid, deadline=seconds, name="host_network").upid if newest else None


def verify(context: RunContext, observation: Observation | None) -> Sequence[Check]:
    """The checks of the tunnel and of the segment over it, from what the hosts and Proxmox VE report themselves."""
    mesh = context.platform.wireguard
    if mesh is None or observation is None:
        return (Check("the hosts form a mesh", passed=True, result=SKIPPED),)
    checks = _tunnel(context, mesh, observation)
    if unseen := meshes.unseen(mesh):
        remedy = "name ssh for it in the params (wireguard.hosts[].ssh), or run `wg show` on it"
        checks.append(
            Check(
                "every host was inspected",
                passed=False,
                result=count(len(mesh.hosts), unseen),
                remedy=remedy,
                advisory=True,
            )
        )
    if mesh.vxlan:
        for endpoint in context.platform.proxmox:
            if state := observation.sdn.get(endpoint.name):
                checks.append(_segment(context, endpoint, state))
    return checks


def _tunnel(context: RunContext, mesh: Wireguard, observation: Observation) -> list[Check]:
    again, hosts = f"run stage {NAME} again", observation.hosts
    wrong = {name: "; ".join(meshes.differences(mesh, name, hosts)) for name in hosts}
    wrong |= {name: "it uses another key than the params ask for" for name in hosts if meshes.is_rotated(hosts[name])}
    differing = [f"{name} ({reason})" for name, reason in wrong.items() if reason]
    silent = meshes.silent_pairs(mesh, hosts)
    directions = len(hosts) * (len(mesh.hosts) - 1)
    context.journal.write(
        "evidence",
        stage=NAME,
        peers={name: {key: vars(peer) for key, peer in state.peers.items()} for name, state in hosts.items()},
    )
    lost = [f"{pair} ({reason})" for pair, reason in silent.items()]
    wire = f"packets of {mesh.underlay_mtu} bytes must pass between them"
    remedy = f"UDP port {mesh.port} must reach the endpoints, and {wire}; then {again}"
    return [
        Check("each host runs WireGuard with the planned file", not differing, count(len(hosts), differing), again),
        Check(
            f"each pair of hosts exchanges packets of {mesh.mtu} bytes, with a recent handshake",
            not lost,
            f"directions: {count(directions, lost)}",
            remedy,
        ),
    ]


def _segment(context: RunContext, endpoint: ProxmoxEndpoint, state: SdnState) -> Check:
    lacking, network = sdn_differences(context.platform, endpoint, state), context.platform.network
    lacking += [f"{host} reports no status" for host, status in state.status.items() if not status]
    result = "; ".join(lacking) or f"VNet {network.bridge}, MTU {network.mtu}, available on {', '.join(state.status)}"
    return Check(
        f"the VXLAN zone of {endpoint.name} is applied on its nodes", not lacking, result, f"run stage {NAME} again"
    )
