"""StatefulSets: pods with numbers and claims of their own, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook_lab.kube.controllers.loop import own_key
from fluobook_lab.kube.controllers.workloads import (
    RETRY_SECONDS,
    create_pod,
    delete_pods,
    new_pod,
    owned,
    owner_key,
    ready,
    template_hash,
)
from fluobook_lab.kube.objects import clone, labels_of, name_of, namespace_of

if TYPE_CHECKING:
    from fluobook_lab.kube.controllers.loop import Sources
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.storage import Key
    from fluobook_lab.kube.store import Store

APPS = "apps/v1"
HASH = "controller-revision-hash"
INDEX = "apps.kubernetes.io/pod-index"
NAME = "statefulset.kubernetes.io/pod-name"


class StatefulSets:
    """Keeps the numbered pods of a StatefulSet."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.sources: Sources = {("apps", "statefulsets"): own_key, ("", "pods"): owner_key("StatefulSet")}

    def reconcile(self, key: Key) -> float | None:
        """As in `Controller`."""
        stateful_set = self._store.find(APPS, "StatefulSet", key[1], key[0])
        if stateful_set is None or stateful_set["metadata"].get("deletionTimestamp"):
            return None
        pods = {name_of(pod): pod for pod in owned(self._store, stateful_set, "v1", "Pod")}
        wanted = [f"{key[1]}-{number}" for number in range(stateful_set["spec"].get("replicas", 1))]
        digest = template_hash(stateful_set["spec"]["template"])
        failure = self._fill(stateful_set, wanted, pods, digest)
        self._remove(pods, wanted, digest)
        self._tell(stateful_set, list(pods.values()), digest)
        return RETRY_SECONDS if failure else None

    def _fill(self, stateful_set: Obj, wanted: list[str], pods: dict[str, Obj], digest: str) -> str:
        """Make the next pod, or all of them where the policy says so."""
        parallel = stateful_set["spec"].get("podManagementPolicy") == "Parallel"
        for number, name in enumerate(wanted):
            if name in pods:
                if parallel or ready([pods[name]]):
                    continue
                return ""
            pod = new_pod(stateful_set, name=name, labels={HASH: digest, INDEX: str(number), NAME: name})
            self._claim(stateful_set, pod)
            failure = create_pod(self._store, stateful_set, pod)
            if failure or not parallel:
                return failure
        return ""

    def _claim(self, stateful_set: Obj, pod: Obj) -> None:
        volumes = pod["spec"].setdefault("volumes", [])
        for template in stateful_set["spec"].get("volumeClaimTemplates") or []:
            name = f"{template['metadata']['name']}-{name_of(pod)}"
            volumes.append({"name": template["metadata"]["name"], "persistentVolumeClaim": {"claimName": name}})
            if self._store.find("v1", "PersistentVolumeClaim", name, namespace_of(pod)) is None:
                labels = (stateful_set["spec"].get("selector") or {}).get("matchLabels") or {}
                metadata = {"name": name, "namespace": namespace_of(pod), "labels": dict(labels)}
                claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata}
                self._store.create({**claim, "spec": clone(template["spec"])})

    def _remove(self, pods: dict[str, Obj], wanted: list[str], digest: str) -> None:
        """What is too many, highest number first; then one that is out of date, once all others are ready."""
        living = {name: pod for name, pod in pods.items() if not pod["metadata"].get("deletionTimestamp")}
        surplus = sorted(set(living) - set(wanted), key=_number, reverse=True)
        stale = sorted((n for n in living if labels_of(living[n]).get(HASH) != digest), key=_number, reverse=True)
        settled = len(ready(list(pods.values()))) == len(pods) == len(wanted)
        delete_pods(self._store, [living[name] for name in (surplus[:1] or (stale[:1] if settled else []))])

    def _tell(self, stateful_set: Obj, pods: list[Obj], digest: str) -> None:
        count = len(ready(pods))
        revision = f"{name_of(stateful_set)}-{digest}"
        updated = sum(labels_of(pod).get(HASH) == digest for pod in pods)
        done = updated == len(pods) == count
        old = (stateful_set.get("status") or {}).get("currentRevision", revision)
        status = {
            "observedGeneration": stateful_set["metadata"]["generation"],
            "replicas": len(pods),
            "readyReplicas": count,
            "availableReplicas": count,
            "currentReplicas": updated,
            "updatedReplicas": updated,
            "currentRevision": revision if done else old,
            "updateRevision": revision,
        }
        self._store.set_status(
            stateful_set, {key: value for key, value in status.items() if value or key == "replicas"}
        )


def _number(name: str) -> int:
    return int(name.rpartition("-")[2])
