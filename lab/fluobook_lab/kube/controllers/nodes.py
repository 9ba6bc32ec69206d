"""Nodes become Ready once the CNI runs on them, and NotReady when their kubelet no longer renews its lease."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from fluobook_lab.kube.controllers.loop import own_key
from fluobook_lab.kube.objects import is_true, labels_of, name_of, with_condition

if TYPE_CHECKING:
    from fluobook_lab.clock import Clock
    from fluobook_lab.kube.controllers.loop import Sources
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.storage import Key, Storage
    from fluobook_lab.kube.store import Store

RESOURCE = ("", "nodes")
HEARTBEATS = ("lab", "heartbeats")
LEASE_NAMESPACE = "kube-node-lease"
CNI_LABEL = ("k8s-app", "cilium")
GRACE_SECONDS = 40.0
"""Lab seconds without a lease after which a node's state is unknown, as in kube-controller-manager."""

NO_CNI = (
    "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady "
    "message:Network plugin returns error: cni plugin not initialized"
)
_NOT_READY = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
_UNREACHABLE = {"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"}
_LIFE_TAINTS = (_NOT_READY["key"], _UNREACHABLE["key"])


class Heartbeats:
    """Which kubelets live, and since when the others are silent; kubelets write it, the node controller reads it.

    Replaces their leases, whose times are real and do not follow the lab's clock.
    """

    def __init__(self, storage: Storage, clock: Clock) -> None:
        self._storage = storage
        self._clock = clock
        self._silent: dict[str, float] = {}

    def begin(self, node: str) -> None:
        """A kubelet renews its lease from now on."""
        self._silent.pop(node, None)
        self._storage.signal(HEARTBEATS, node)

    def end(self, node: str) -> None:
        """It does so no longer."""
        self._silent.setdefault(node, self._clock.now())
        self._storage.signal(HEARTBEATS, node)

    def silence(self, node: str) -> float | None:
        """Lab seconds since it ended; None while it lives."""
        since = self._silent.get(node)
        return None if since is None else self._clock.now() - since


class Nodes:
    """Keeps the Ready condition and the taints that go with it."""

    def __init__(self, store: Store, heartbeats: Heartbeats) -> None:
        self._store = store
        self._heartbeats = heartbeats
        self.sources: Sources = {RESOURCE: own_key, ("", "pods"): _home_of_cni, HEARTBEATS: own_key}

    def reconcile(self, key: Key) -> float | None:
        """As in `Controller`."""
        node = self._store.find("v1", "Node", key[1])
        if node is None:
            return None
        silence = self._heartbeats.silence(key[1])
        lost = silence is not None and silence >= GRACE_SECONDS
        networked = self._has_cni(key[1])
        if lost:
            condition = ("Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.")
        elif networked:
            condition = ("True", "KubeletReady", "kubelet is posting ready status")
        else:
            condition = ("False", "KubeletNotReady", NO_CNI)
        self._set(node, condition, networked=networked)
        return None if lost or silence is None else GRACE_SECONDS - silence

    def _has_cni(self, node: str) -> bool:
        pods = self._store.storage.scan(("", "pods"), "kube-system")
        return any(
            labels_of(pod).get(CNI_LABEL[0]) == CNI_LABEL[1]
            and pod["spec"].get("nodeName") == node
            and is_true(pod, "Ready")
            for _, pod in pods
        )

    def _set(self, node: Obj, condition: tuple[str, str, str], *, networked: bool) -> None:
        status = node.get("status") or {}
        conditions = with_condition(status.get("conditions") or [], "Ready", *condition)
        if networked:
            why = ("False", "CiliumIsUp", "Cilium is running on this node")
            conditions = with_condition(conditions, "NetworkUnavailable", *why)
        self._store.set_status(node, {**status, "conditions": conditions})
        taint = {"True": [], "Unknown": [_UNREACHABLE]}.get(condition[0], [_NOT_READY])
        old = (node.get("spec") or {}).get("taints") or []
        taints = [entry for entry in old if entry["key"] not in _LIFE_TAINTS] + taint
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
    metadata = {"name": name, "namespace": LEASE_NAMESPACE}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
