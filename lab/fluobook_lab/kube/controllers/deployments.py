"""Deployments become ReplicaSets, and ReplicaSets pods."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook_lab.kube.controllers.loop import own_key
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
from fluobook_lab.kube.objects import clone, name_of, namespace_of, owner_reference, with_condition

if TYPE_CHECKING:
    from fluobook_lab.kube.controllers.loop import Sources
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.storage import Key
    from fluobook_lab.kube.store import Store

APPS = "apps/v1"
HASH = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"


class Deployments:
    """Keeps one ReplicaSet for each template, and lets the newest take over."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.sources: Sources = {("apps", "deployments"): own_key, ("apps", "replicasets"): owner_key("Deployment")}

    def reconcile(self, key: Key) -> float | None:
        """As in `Controller`."""
        deployment = self._store.find(APPS, "Deployment", key[1], key[0])
        if deployment is None or deployment["metadata"].get("deletionTimestamp"):
            return None
        sets = owned(self._store, deployment, APPS, "ReplicaSet")
        current, old = self._current(deployment, sets)
        wanted = deployment["spec"].get("replicas", 1)
        self._scale(current, wanted)
        for one in old:
            if (current.get("status") or {}).get("readyReplicas", 0) >= wanted:
                self._scale(one, 0)
        self._tell(deployment, current, old)
        return None

    def _current(self, deployment: Obj, sets: list[Obj]) -> tuple[Obj, list[Obj]]:
        digest = template_hash(deployment["spec"]["template"])
        name = f"{name_of(deployment)}-{digest}"
        old = [one for one in sets if name_of(one) != name]
        for one in sets:
            if name_of(one) == name:
                return one, old
        return self._new_set(deployment, name, digest, revision=len(sets) + 1), old

    def _new_set(self, deployment: Obj, name: str, digest: str, *, revision: int) -> Obj:
        template = clone(deployment["spec"]["template"])
        labels = {**((template.get("metadata") or {}).get("labels") or {}), HASH: digest}
        template["metadata"] = {**(template.get("metadata") or {}), "labels": labels}
        selector = clone(deployment["spec"].get("selector") or {})
        selector["matchLabels"] = {**(selector.get("matchLabels") or {}), HASH: digest}
        metadata = {"name": name, "namespace": namespace_of(deployment), "labels": labels}
        metadata |= {"ownerReferences": [owner_reference(deployment)], "annotations": {REVISION: str(revision)}}
        spec = {"replicas": deployment["spec"].get("replicas", 1), "selector": selector, "template": template}
        annotations = {**(deployment["metadata"].get("annotations") or {}), REVISION: str(revision)}
        body = {"metadata": {"annotations": annotations}}
        self._store.patch(APPS, "Deployment", name_of(deployment), namespace_of(deployment), body=body)
        return self._store.create({"apiVersion": APPS, "kind": "ReplicaSet", "metadata": metadata, "spec": spec})

    def _scale(self, replica_set: Obj, replicas: int) -> None:
        if replica_set["spec"].get("replicas") != replicas:
            body = {"spec": {"replicas": replicas}}
            self._store.patch(APPS, "ReplicaSet", name_of(replica_set), namespace_of(replica_set), body=body)

    def _tell(self, deployment: Obj, current: Obj, old: list[Obj]) -> None:
        wanted = deployment["spec"].get("replicas", 1)
        mine = current.get("status") or {}
        sets = [mine, *((one.get("status") or {}) for one in old)]
        available = sum(one.get("readyReplicas", 0) for one in sets)
        updated = mine.get("readyReplicas", 0)
        status = dict(deployment.get("status") or {})
        status |= {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": sum(one.get("replicas", 0) for one in sets),
            "updatedReplicas": mine.get("replicas", 0),
            "readyReplicas": available,
            "availableReplicas": available,
            "unavailableReplicas": max(wanted - available, 0),
        }
        status = {key: value for key, value in status.items() if value != 0}
        enough = available >= wanted
        conditions = with_condition(
            status.get("conditions") or [],
            "Available",
            "True" if enough else "False",
            "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
            f"Deployment {'has' if enough else 'does not have'} minimum availability.",
        )
        done = updated >= wanted and all((one.get("status") or {}).get("replicas", 0) == 0 for one in old)
        reason = "NewReplicaSetAvailable" if done else "ReplicaSetUpdated"
        what = "has successfully progressed" if done else "is progressing"
        message = f'ReplicaSet "{name_of(current)}" {what}.'
        status["conditions"] = with_condition(conditions, "Progressing", "True", reason, message)
        self._store.set_status(deployment, status)


class ReplicaSets:
    """Keeps as many pods as a ReplicaSet says."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.sources: Sources = {("apps", "replicasets"): own_key, ("", "pods"): owner_key("ReplicaSet")}

    def reconcile(self, key: Key) -> float | None:
        """As in `Controller`."""
        replica_set = self._store.find(APPS, "ReplicaSet", key[1], key[0])
        if replica_set is None or replica_set["metadata"].get("deletionTimestamp"):
            return None
        pods = living(owned(self._store, replica_set, "v1", "Pod"))
        wanted = replica_set["spec"].get("replicas", 1)
        failure = ""
        for _ in range(wanted - len(pods)):
            failure = create_pod(self._store, replica_set, new_pod(replica_set))
            if failure:
                break
        surplus = sorted(pods, key=lambda pod: (bool(ready([pod])), name_of(pod)))[: max(len(pods) - wanted, 0)]
        delete_pods(self._store, surplus)
        self._tell(replica_set, [pod for pod in pods if pod not in surplus], failure)
        return RETRY_SECONDS if failure else None

    def _tell(self, replica_set: Obj, pods: list[Obj], failure: str) -> None:
        count = len(ready(pods))
        status = {"observedGeneration": replica_set["metadata"]["generation"], "replicas": len(pods)}
        status |= {"fullyLabeledReplicas": len(pods), "readyReplicas": count, "availableReplicas": count}
        status = {key: value for key, value in status.items() if value != 0 or key == "replicas"}
        if failure:
            old = (replica_set.get("status") or {}).get("conditions") or []
            status["conditions"] = with_condition(old, "ReplicaFailure", "True", "FailedCreate", failure)
        self._store.set_status(replica_set, status)
