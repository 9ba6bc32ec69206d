"""Does one action of stage 3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook.errors import Conflict, FluobookError, Rejected
from fluobook.machine.access import dump
from fluobook.record.folder import write_text
from fluobook.stages.bootstrap_kubernetes.complaints import Complaints
from fluobook.stages.bootstrap_kubernetes.observe import etcd_members, kubernetes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fluobook.params import Node
    from fluobook.stages.core.executor import Tell
    from fluobook.stages.core.plan import Action
    from fluobook.stages.core.site import Site


def perform(site: Site, action: Action, tell: Tell) -> Mapping[str, Any] | None:
    """Do one action."""
    if action.verb == "bootstrap":
        return _bootstrap(site, action, tell)
    if action.verb == "await":
        return _await(site, action.data["node"], tell)
    return _write(site, action.data["file"])


def _bootstrap(site: Site, action: Action, tell: Tell) -> Mapping[str, Any]:
    node = site.platform.node(action.data["node"])
    answer = site.wait_until("etcd", f"etcd is bootstrapped on {node.name}", lambda: _ask(site, action))
    tell.evidence(bootstrap=answer)
    tell("waits for etcd")
    members = site.wait_until("etcd", f"etcd runs on {node.name}", lambda: etcd_members(site, node) or None)
    return {"answer": answer, "members": [member.hostname for member in members]}


def _ask(site: Site, action: Action) -> str:
    """Ask once; AlreadyExists means that it was done, by a run that did not live to tell (F28).

    A node that is still on its way says that it is not available yet, or its time not in sync: the caller asks again.

    Where any control plane's etcd runs, the others join it by themselves, and asking could only make a second cluster.
    """
    node = site.platform.node(action.data["node"])
    if any(_etcd_runs(site, other) for other in site.platform.control_planes if other != node):
        return "runs elsewhere"
    try:
        site.talos(node, "os:admin").bootstrap()
    except Conflict:
        return "AlreadyExists"
    return "OK"


def _etcd_runs(site: Site, node: Node) -> bool:
    """Whether a control plane's etcd runs, healthy or not: it has data then. No answer raises: then nobody knows."""
    return any(service.id == "etcd" and service.state == "Running" for service in site.talos(node).services())


def _await(site: Site, name: str, tell: Tell) -> Mapping[str, Any]:
    complaints = Complaints(site, site.platform.node(name))
    what = f"node {name} is Ready with Cilium"
    site.wait_until("nodes_ready", what, lambda: _ready(site, complaints, tell), final=(Rejected,))
    return {"ready": True}


def _ready(site: Site, complaints: Complaints, tell: Tell) -> bool | None:
    name = complaints.node.name
    ready, cilium, version = kubernetes(site)
    if name not in ready:
        tell("not registered yet" if version else "the API does not answer yet")
        if said := complaints.look(api=bool(version)):
            raise FluobookError(said)
    elif ready[name] and name in cilium:
        return True
    else:
        tell("Cilium is not ready yet" if ready[name] else "not Ready yet")
        if said := complaints.of_the_network():
            raise FluobookError(said)
    return None


def _write(site: Site, name: str) -> Mapping[str, Any]:
    config = site.vault.kubeconfig(site.platform) if name == "kubeconfig" else site.vault.talosconfig(site.platform)
    write_text(site.home / name, dump(config), mode=0o600)
    return {"file": name}
