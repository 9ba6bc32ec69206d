"""DaemonSets: a pod on every node that may have one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook_lab.kube.controllers.loop import own_key
from fluobook_lab.kube.controllers.scheduling import can_run
from fluobook_lab.kube.controllers.workloads import (
    RETRY_SECONDS,
    create_pod,
    delete_pods,
    living,
    new_pod,
    owned,
    owner_key,
    ready,
    template_hash,
)
from fluobook_lab.kube.objects import labels_of, name_of

if TYPE_CHECKING:
    from fluobook_lab.kube.controllers.loop import Sources
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.storage import Key
    from fluobook_lab.kube.store import Store

APPS = "apps/v1"
RESOURCE = ("apps", "daemonsets")
HASH = "controller-revision-hash"


class DaemonSets:
    """Keeps one pod of the current template on each node."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.sources: Sources = {RESOURCE: own_key, ("", "pods"): owner_key("DaemonSet"), ("", "nodes"): self._all}

    def _all(self, node: Obj) -> list[Key]:
        del node
        return [key for key, _ in self._store.storage.scan(RESOURCE)]

    def reconcile(self, key: Key) -> float | None:
        """As in `Controller`."""
        daemon_set = self._store.find(APPS, "DaemonSet", key[1], key[0])
        if daemon_set is None or daemon_set["metadata"].get("deletionTimestamp"):
            return None
        spec = daemon_set["spec"]["template"]["spec"]
        nodes = [name_of(node) for node in self._store.view("v1", "Node") if can_run(spec, node, daemon=True)]
        digest = template_hash(daemon_set["spec"]["template"])
        pods = living(owned(self._store, daemon_set, "v1", "Pod"))
        stale = [p for p in pods if p["spec"]["nodeName"] not in nodes or labels_of(p).get(HASH) != digest]
        # One at a time once pods run, as maxUnavailable says; the next goes when this one's successor is ready.
        if len(ready(pods)) == len(pods) or any(p["spec"]["nodeName"] not in nodes for p in stale):
            delete_pods(self._store, stale[:1])
        covered = {pod["spec"]["nodeName"] for pod in owned(self._store, daemon_set, "v1", "Pod")}
        failure = self._fill(daemon_set, [node for node in nodes if node not in covered], digest)
        self._tell(daemon_set, nodes, living(owned(self._store, daemon_set, "v1", "Pod")), digest)
        return RETRY_SECONDS if failure else None

    def _fill(self, daemon_set: Obj, nodes: list[str], digest: str) -> str:
        for node in nodes:
            pod = new_pod(daemon_set, node=node, labels={HASH: digest})
            if failure := create_pod(self._store, daemon_set, pod):
                return failure
        return ""

    def _tell(self, daemon_set: Obj, nodes: list[str], pods: list[Obj], digest: str) -> None:
        count = len(ready(pods))
        status = {
            "observedGeneration": daemon_set["metadata"]["generation"],
            "desiredNumberScheduled": len(nodes),
            "currentNumberScheduled": len(pods),
            "updatedNumberScheduled": sum(labels_of(pod).get(HASH) == digest for pod in pods),
            "numberReady": count,
            "numberAvailable": count,
            "numberUnavailable": len(nodes) - count,
            "numberMisscheduled": 0,
        }
        always = ("desiredNumberScheduled", "currentNumberScheduled", "numberReady", "numberMisscheduled")
        self._store.set_status(daemon_set, {key: value for key, value in status.items() if value or key in always})
