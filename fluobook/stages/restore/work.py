"""Wipe, recover, join and restart; each action can be killed and done again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fluobook.context import RunContext
from fluobook.errors import PHASE, TALOSCTL, FluobookError, PlanChanged, Refused, TaskFailed
from fluobook.kubernetes.snapshot import SENTINEL, SYSTEM
from fluobook.params import Node
from fluobook.stages import health
from fluobook.stages.core.check import Check, CheckGroup, count, run_groups
from fluobook.stages.core.executor import Reporter
from fluobook.stages.core.plan import Action
from fluobook.stages.day_two import backups, drain
from fluobook.stages.etcd_snapshot import sentinel
from fluobook.stages.restore.plan import NAME, WAITS, WIPE, Observation, pending_of, read_marks, read_member
from fluobook.stages.upgrade_talos.work import restarted

MANAGER = f"fluobook-{NAME}"


def perform(context: RunContext, action: Action, report: Reporter) -> Mapping[str, Any] | None:
    """Do one action."""
    node = context.platform.node(action.data["node"])
    if action.verb == "reset":
        _reset(context, node)
    elif action.verb == "bootstrap":
        return _recover(context, node, action.data, report)
    elif action.verb == "join":
        _joined(context, node)
    else:
        _restart(context, node, report)
    return None


def _reset(context: RunContext, node: Node) -> None:
    """Wipe what etcd has on a node. It cannot leave the cluster, which has no quorum."""
    client = context.talos.client(node, "os:admin")
    if read_member(client).state != WAITS:
        client.reset(graceful=False, reboot=True, partitions=["EPHEMERAL"])
    waits = f"{node.name} to restart without data of etcd"
    context.wait_until("upgrade", waits, lambda: read_member(client).state == WAITS or None)


def _recover(context: RunContext, node: Node, data: Mapping[str, str], report: Reporter) -> Mapping[str, Any]:
    """Upload the snapshot and bootstrap with it, unless that is done; then prove that the cluster has it.

    Raises:
        TaskFailed: etcd refused the snapshot, or holds something else.
    """
    opened = backups.read(context, data["snapshot"])
    if opened.content.sha256 != data["sha256"]:
        raise PlanChanged(
            f"{data['snapshot']} is another file than the one in the plan", remedy=f"run {NAME} again for a new plan"
        )
    client = context.talos.client(node, "os:admin")

    def begin() -> bool | None:
        if not read_member(client).quorum:
            client.etcd_recover(opened.data, timeout=context.platform.deadlines.upgrade)
            client.bootstrap(recover=True)
        return True

    def serves() -> bool | None:
        etcd = next(service for service in client.services() if service.id == "etcd")
        if etcd.state == "Failed":
            raise TaskFailed(
                f"etcd on {node.name} did not start with the snapshot: {etcd.message}",
                system="talos",
                remedy=f"name another snapshot in etcd_snapshots.restore and run {NAME} again; what etcd says: "
                f"{TALOSCTL} -n {node.address} logs etcd",
                facts={"address": node.address},
            )
        return True if read_member(client).quorum else None

    report("uploads the snapshot")
    context.wait_until("etcd", f"{node.name} to take the snapshot", begin, final=(Refused,))
    report("waits for etcd")
    context.wait_until("etcd", f"etcd on {node.name} to run", serves, final=(TaskFailed,))
    report("waits for the Kubernetes API")
    marks, uid = context.wait_until(
        "nodes_ready", "the Kubernetes API to answer", lambda: read_marks(context), interval=0.5
    )
    name = marks.get("name")
    if not opened.content.has(SYSTEM, uid) or (opened.record and name != opened.record.name):
        raise TaskFailed(
            f"the cluster does not hold the snapshot {data['snapshot']}; the one that it names is {name or 'none'}",
            system="kubernetes",
            cause="somebody else has bootstrapped etcd at the same time",
            remedy=f"wipe each control plane (`{WIPE}`), then run {NAME} again",
        )
    _mark(context, opened.content.sha256, [node.name for node in context.platform.nodes if node.role == "worker"])
    taken = opened.record.taken if opened.record else "not recorded"
    return {k: v for k, v in data.items() if k != "node"} | {"revision": opened.content.revision, "taken": taken}


def _mark(context: RunContext, sha256: str, pending: Iterable[str]) -> None:
    """Note in the cluster what is restored, and which workers have still to restart."""
    context.kube().apply(sentinel(restored=sha256, pending=" ".join(pending)), force=True, manager=MANAGER)


def _joined(context: RunContext, node: Node) -> None:
    """Wait until a node is a member that votes, which it becomes by itself."""
    client = context.talos.client(node)

    def step() -> bool | None:
        own = [member for member in client.etcd_members() if member.hostname == node.name]
        return True if own and not own[0].learner and not client.etcd_status().errors else None

    context.wait_until("etcd", f"{node.name} to join etcd", step, interval=0.5)


def _restart(context: RunContext, node: Node, report: Reporter) -> None:
    """Restart a worker, so that whatever runs there reads everything again, and note it in the cluster."""
    client = context.talos.client(node, "os:admin")
    before = client.boot_id()
    client.reboot()
    report("restarts")
    restarted(context, node, before)
    drain.until_ready(context, node)
    marks = context.kube().get("v1", "ConfigMap", SENTINEL, "kube-system")["data"]
    _mark(context, marks["restored"], [name for name in pending_of(marks) if name != node.name])


def verify(context: RunContext, observation: Observation) -> Sequence[Check]:
    """Check that the cluster holds the snapshot, if one was to be restored, and that etcd and all nodes are whole."""
    checks = list(run_groups(context, health.WHOLE[:1]))
    if observation.whole:
        return checks
    marks, remedy = observation.marks or {}, f"fluobook run {PHASE} {NAME}"
    left = observation.pending
    return [
        Check("the cluster holds the snapshot", observation.restored, marks.get("name", "it names none"), remedy),
        Check("every worker has restarted since", not left, count(len(observation.workers), left), remedy),
        *checks,
        *run_groups(context, (CheckGroup("nodes can be read", lambda c: health.node_checks(c.platform, _nodes(c))),)),
    ]


def _nodes(context: RunContext) -> Sequence[Mapping[str, Any]]:
    def all_ready() -> Sequence[Mapping[str, Any]] | None:
        nodes = context.kube().list("v1", "Node")
        failed = [check for check in health.node_checks(context.platform, nodes) if not check.passed]
        return None if failed else nodes

    try:
        return context.wait_until("nodes_ready", "every node to be Ready", all_ready, interval=0.5)
    except FluobookError:
        return context.kube().list("v1", "Node")
