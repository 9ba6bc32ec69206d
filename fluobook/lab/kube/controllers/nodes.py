"""Nodes become Ready once the CNI runs on them, and NotReady when their kubelet no longer renews its lease."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from fluobook.lab.kube.controllers.loop import own_key
from fluobook.lab.kube.objects import is_true, labels_of, name_of, with_condition

if TYPE_CHECKING:
    from fluobook.lab.clock import Clock
    from fluobook.lab.kube.controllers.loop import Sources
    from fluobook.lab.kube.objects import Obj
    from fluobook.lab.kube.storage import Key
    from fluobook.lab.kube.store import Store

RESOURCE = ("", "nodes")
LEASES = "kube-node-lease"
CNI_LABEL = ("k8s-app", "cilium")
GRACE_SECONDS = 40.0
"""World seconds without a lease after which a node's state is unknown, as in kube-controller-manager."""

NO_CNI = (
    "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady "
    "message:Network plugin returns error: cni plugin not initialized"
)
_NOT_READY = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
_UNREACHABLE = {"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"}
_LIFE_TAINTS = (_NOT_READY["key"], _UNREACHABLE["key"])


class Heartbeats:
    """When each kubelet was last heard of, in world seconds; kubelets write it, the node controller reads it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: dict[str, float] = {}

    def beat(self, node: str) -> None:
        """A kubelet was heard of."""
        self._last[node] = self._clock.now()

    def age(self, node: str) -> float:
        """World seconds since the last heartbeat."""
        return self._clock.now() - self._last.get(node, 0.0)


class Nodes:
    """Keeps the Ready condition and the taints that go with it."""

    def __init__(self, store: Store, heartbeats: Heartbeats) -> None:
        self._store = store
        self._heartbeats = heartbeats
        self.sources: Sources = {RESOURCE: own_key, ("", "pods"): _home_of_cni}

    def reconcile(self, key: Key) -> float | None:
        """As in `Controller`."""
        node = self._store.find("v1", "Node", key[1])
        if node is None:
            return None
        age = self._heartbeats.age(key[1])
        lost = age >= GRACE_SECONDS
        networked = self._has_cni(key[1])
        if lost:
            told = ("Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.")
        elif networked:
            told = ("True", "KubeletReady", "kubelet is posting ready status")
        else:
            told = ("False", "KubeletNotReady", NO_CNI)
        self._set(node, told, networked=networked)
        return 5.0 if lost else GRACE_SECONDS - age + 0.1

    def _has_cni(self, node: str) -> bool:
        pods = self._store.storage.scan(("", "pods"), "kube-system")
        return any(
            labels_of(pod).get(CNI_LABEL[0]) == CNI_LABEL[1]
            and pod["spec"].get("nodeName") == node
            and is_true(pod, "Ready")
            for _, pod in pods
        )

    def _set(self, node: Obj, told: tuple[str, str, str], *, networked: bool) -> None:
        status = node.get("status") or {}
        conditions = with_condition(status.get("conditions") or [], "Ready", *told)
        if networked:
            why = ("False", "CiliumIsUp", "Cilium is running on this node")
            conditions = with_condition(conditions, "NetworkUnavailable", *why)
        self._store.set_status(node, {**status, "conditions": conditions})
        taint = {"True": [], "Unknown": [_UNREACHABLE]}.get(told[0], [_NOT_READY])
        old = (node.get("spec") or {}).get("taints") or []
        taints = [one for one in old if one["key"] not in _LIFE_TAINTS] + taint
        if taints != old:
            body = {"spec": {"taints": taints or None}}
            self._store.patch("v1", "Node", name_of(node), body=body)


def _home_of_cni(pod: Obj) -> list[Key]:
    key, value = CNI_LABEL
    node = pod["spec"].get("nodeName")
    return [("", node)] if node and labels_of(pod).get(key) == value else []


def lease(name: str, seconds: float = GRACE_SECONDS) -> Obj:
    """The Lease by which a kubelet says that it lives."""
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": name, "leaseDurationSeconds": int(seconds), "renewTime": now}
    metadata = {"name": name, "namespace": LEASES}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
