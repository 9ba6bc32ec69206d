"""Nodes become Ready once the CNI runs on them, and NotReady without a kubelet; then their pods are evicted."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from fluobook.kubernetes.selectors import tolerates
from fluobook_lab.kube.controllers.loop import own_key, record
from fluobook_lab.kube.objects import CONTROL_PLANE, is_true, labels_of, name_of, namespace_of, with_condition

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from fluobook_lab.clock import Clock
    from fluobook_lab.faults import Faults
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
_NOT_READY, _UNREACHABLE = "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"
_LIFE_TAINTS = (_NOT_READY, _UNREACHABLE)
TAINTED, _REPAIR = "kube.workers-tainted", {"key": "lab/repair", "value": "true", "effect": "NoSchedule"}
_FEW, _UNHEALTHY_SHARE = 2, 0.55
"""With more nodes that are not ready, and that share of all, pods stay: as kube-controller-manager has it."""
STEP = 5.0
"""Lab seconds that pass at most between two looks at a node, for the time after which its pods are evicted."""


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
    """Keeps the Ready condition and the taints that go with it.

    Args:
        store: the cluster.
        heartbeats: which kubelets live.
        faults: "kube.workers-tainted": somebody keeps pods away from the workers.
    """

    def __init__(self, store: Store, heartbeats: Heartbeats, faults: Faults) -> None:
        self._store = store
        self._heartbeats = heartbeats
        self._faults = faults
        self.sources: Sources = {RESOURCE: self._concerned, ("", "pods"): _home_of_cni, HEARTBEATS: own_key}

    def _concerned(self, node: Obj) -> list[Key]:
        """The node, and those that are not ready: whether their pods are evicted depends on the others."""
        nodes = self._store.storage.scan(RESOURCE)
        return [*own_key(node), *(key for key, each in nodes if not is_true(each, "Ready"))]

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
        key = {"True": "", "Unknown": _UNREACHABLE}.get(condition[0], _NOT_READY)
        old = (node.get("spec") or {}).get("taints") or []
        own = []
        if key:
            others = [each for each in self._store.view("v1", "Node") if name_of(each) != name_of(node)]
            ready = [False, *(is_true(each, "Ready") for each in others)]
            evicts = may_evict(ready, begun={"key": key, "effect": "NoExecute"} in old)
            own = [{"key": key, "effect": effect} for effect in ("NoSchedule", "NoExecute")[: 1 + evicts]]
        own += [_REPAIR] if self._faults.on(TAINTED) and CONTROL_PLANE not in labels_of(node) else []
        taints = [entry for entry in old if entry["key"] not in _LIFE_TAINTS and entry != _REPAIR] + own
        if taints != old:
            body = {"spec": {"taints": taints or None}}
            self._store.patch("v1", "Node", name_of(node), body=body)


def may_evict(ready: Collection[bool], *, begun: bool) -> bool:
    """Whether pods are evicted from nodes that are not ready.

    With no node left it is more likely that something else has failed; with most of them gone, no more begin.

    Args:
        ready: for each node, whether it is.
        begun: it was decided already for this node.
    """
    lost = len(ready) - sum(ready)
    most = lost > _FEW and lost / len(ready) >= _UNHEALTHY_SHARE
    return lost < len(ready) and (begun or not most)


def tolerated_seconds(spec: Obj, taints: Collection[Obj]) -> float | None:
    """How long a pod stays on a node with these taints, NoExecute; None for ever."""
    listed, limits = spec.get("tolerations") or [], []
    for taint in taints:
        toleration = next((each for each in listed if tolerates({"tolerations": [each]}, taint)), None)
        if toleration is None:
            return 0.0
        limits += [max(0.0, seconds)] if (seconds := toleration.get("tolerationSeconds")) is not None else []
    return min(limits, default=None)


class Evictions:
    """Deletes the pods of a node with a taint NoExecute, once the time is over for which they tolerate it.

    Those of DaemonSets and static ones tolerate it for ever. No kubelet ends a pod that was deleted on a lost node: it
    stays Terminating until the node returns or its Node is deleted. Meanwhile a Deployment has another one in its
    place, and a StatefulSet has not.

    Time is counted in small steps, none of which counts for more: where the machine under the lab is busy, nodes boot
    later by the lab's clock, and pods are evicted later too.

    Args:
        store: the cluster.
        clock: the lab's clock.
        works: whether a controller manager can write, which needs etcd's quorum.
    """

    def __init__(self, store: Store, clock: Clock, works: Callable[[], bool] = lambda: True) -> None:
        self._store, self._clock, self._works = store, clock, works
        self._spent: dict[str, float] = {}
        self._seen: dict[str, float] = {}
        self.sources: Sources = {RESOURCE: own_key, ("", "pods"): lambda pod: [("", pod["spec"].get("nodeName", ""))]}

    def reconcile(self, key: Key) -> float | None:
        """As in `Controller`."""
        name, node, now = key[1], self._store.find("v1", "Node", key[1]), self._clock.now()
        listed = ((node or {}).get("spec") or {}).get("taints") or []
        taints = [taint for taint in listed if taint["effect"] == "NoExecute"]
        since = self._seen.pop(name, now)
        if not taints:
            self._spent.pop(name, None)
            return None
        self._seen[name] = now
        spent = self._spent.get(name, 0.0) + min(now - since, STEP) * self._works()
        self._spent[name] = spent
        left = list[float]()
        for _, pod in self._store.storage.scan(("", "pods")):
            if pod["spec"].get("nodeName") != name or pod["metadata"].get("deletionTimestamp"):
                continue
            seconds = tolerated_seconds(pod["spec"], taints)
            if seconds is not None and seconds <= spent and self._works():
                message = f"Marking for deletion Pod {namespace_of(pod)}/{name_of(pod)}"
                record(self._store, pod, "TaintManagerEviction", message, source="taint-eviction-controller")
                self._store.delete("v1", "Pod", name_of(pod), namespace_of(pod))
            elif seconds is not None:
                left.append(max(seconds - spent, 0.0))
        return min(STEP, *left) or STEP if left else None


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
