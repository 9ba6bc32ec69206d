"""Does one action of stage 3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fluobook.context import RunContext, TalosNodes
from fluobook.errors import Conflict, FluobookError, OutsideError, Rejected
from fluobook.files import write_text
from fluobook.machine.access import dump
from fluobook.params import Node
from fluobook.stages.bootstrap_kubernetes.complaints import Complaints
from fluobook.stages.bootstrap_kubernetes.plan import Kubernetes, etcd_members, read_kubernetes
from fluobook.stages.core.executor import Reporter
from fluobook.stages.core.plan import Action


def perform(context: RunContext, action: Action, report: Reporter) -> Mapping[str, Any] | None:
    """Do one action."""
    if name := action.data.get("file"):
        write_file(context, name)
        return {"file": name}
    node = context.platform.node(action.data["node"])
    if action.verb == "bootstrap":
        return _bootstrap(context, node, report)
    complaints = Complaints(context, node)
    context.wait_until(
        "nodes_ready",
        f"node {node.name} to be Ready with Cilium",
        lambda: _is_ready(context, complaints, report),
        final=(Rejected,),
    )
    return {"ready": True}


def write_file(context: RunContext, name: str) -> None:
    """Write the kubeconfig or the talosconfig, made from the bundle."""
    config = context.secrets.kubeconfig if name == "kubeconfig" else context.secrets.talosconfig
    write_text(context.home / name, dump(config(context.platform)), mode=0o600)


def _bootstrap(context: RunContext, node: Node, report: Reporter) -> Mapping[str, Any]:
    talos, others = context.talos, [other for other in context.platform.control_planes if other != node]
    answer = context.wait_until("etcd", f"etcd to start on {node.name}", lambda: _request_start(talos, node, others))
    report.evidence(bootstrap=answer)
    report("waits for etcd")
    members = context.wait_until(
        "etcd", f"etcd to run on {node.name}", lambda: etcd_members(talos.client(node)) or None
    )
    return {"answer": answer, "members": [member.hostname for member in members]}


def _request_start(talos: TalosNodes, node: Node, others: list[Node]) -> str:
    """Request the bootstrap once; AlreadyExists means that a run did it that was killed before it could report (F28).

    A node that is still starting answers that it is not available yet, or its time not in sync: the caller repeats.

    Where any other control plane's etcd runs, this one joins it by itself, and a request could only make a second
    cluster. If another one does not answer, nobody knows: its error is raised.
    """
    services = (service for other in others for service in talos.client(other).services())
    if any(service.id == "etcd" and service.state == "Running" for service in services):
        return "runs elsewhere"  # healthy or not: it has data
    try:
        talos.client(node, "os:admin").bootstrap()
    except Conflict:
        return "AlreadyExists"
    return "OK"


def _is_ready(context: RunContext, complaints: Complaints, report: Reporter) -> bool | None:
    name = complaints.node.name
    try:
        kubernetes = read_kubernetes(context.kube())
    except OutsideError as error:
        kubernetes = Kubernetes(error=error)
    if kubernetes.ready.get(name) and name in kubernetes.cilium:
        return True
    if name not in kubernetes.ready:
        report("not registered yet" if kubernetes.version else "the API does not answer yet")
        problem = complaints.check(api=bool(kubernetes.version))
    else:
        report("Cilium is not ready yet" if kubernetes.ready[name] else "not Ready yet")
        problem = complaints.of_the_network()
    if problem or kubernetes.error:
        raise FluobookError(problem or str(kubernetes.error)) from kubernetes.error
    return None
