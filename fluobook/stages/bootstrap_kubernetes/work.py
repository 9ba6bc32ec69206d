"""Does one action of stage 3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook.errors import Conflict, FluobookError, Rejected
from fluobook.files import write_text
from fluobook.machine.access import dump
from fluobook.stages.bootstrap_kubernetes.complaints import Complaints
from fluobook.stages.bootstrap_kubernetes.plan import etcd_members, kubernetes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fluobook.context import RunContext
    from fluobook.params import Node
    from fluobook.stages.core.executor import Reporter
    from fluobook.stages.core.plan import Action


def perform(context: RunContext, action: Action, report: Reporter) -> Mapping[str, Any] | None:
    """Do one action."""
    if action.verb == "bootstrap":
        return _bootstrap(context, action, report)
    if action.verb == "await":
        return _await(context, action.data["node"], report)
    return _write(context, action.data["file"])


def _bootstrap(context: RunContext, action: Action, report: Reporter) -> Mapping[str, Any]:
    node = context.platform.node(action.data["node"])
    answer = context.wait_until("etcd", f"etcd is bootstrapped on {node.name}", lambda: _ask(context, action))
    report.evidence(bootstrap=answer)
    report("waits for etcd")
    members = context.wait_until("etcd", f"etcd runs on {node.name}", lambda: etcd_members(context, node) or None)
    return {"answer": answer, "members": [member.hostname for member in members]}


def _ask(context: RunContext, action: Action) -> str:
    """Ask once; AlreadyExists means that it was done, by a run that did not live to report (F28).

    A node that is still on its way says that it is not available yet, or its time not in sync: the caller asks again.

    Where any control plane's etcd runs, the others join it by themselves, and asking could only make a second cluster.
    """
    node = context.platform.node(action.data["node"])
    if any(_etcd_runs(context, other) for other in context.platform.control_planes if other != node):
        return "runs elsewhere"
    try:
        context.talos.client(node, "os:admin").bootstrap()
    except Conflict:
        return "AlreadyExists"
    return "OK"


def _etcd_runs(context: RunContext, node: Node) -> bool:
    """Whether a control plane's etcd runs, healthy or not: it has data then. No answer raises: then nobody knows."""
    return any(service.id == "etcd" and service.state == "Running" for service in context.talos.client(node).services())


def _await(context: RunContext, name: str, report: Reporter) -> Mapping[str, Any]:
    complaints = Complaints(context, context.platform.node(name))
    what = f"node {name} is Ready with Cilium"
    context.wait_until("nodes_ready", what, lambda: _ready(context, complaints, report), final=(Rejected,))
    return {"ready": True}


def _ready(context: RunContext, complaints: Complaints, report: Reporter) -> bool | None:
    name = complaints.node.name
    ready, cilium, version = kubernetes(context)
    if name not in ready:
        report("not registered yet" if version else "the API does not answer yet")
        if problem := complaints.check(api=bool(version)):
            raise FluobookError(problem)
    elif ready[name] and name in cilium:
        return True
    else:
        report("Cilium is not ready yet" if ready[name] else "not Ready yet")
        if problem := complaints.of_the_network():
            raise FluobookError(problem)
    return None


def _write(context: RunContext, name: str) -> Mapping[str, Any]:
    config = (
        context.secrets.kubeconfig(context.platform)
        if name == "kubeconfig"
        else context.secrets.talosconfig(context.platform)
    )
    write_text(context.home / name, dump(config), mode=0o600)
    return {"file": name}
