"""Controllers of workloads: Deployments with their ReplicaSets, DaemonSets, StatefulSets, Jobs and CronJobs."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from fluobook_lab.kube.controllers.loop import own_key, record
from fluobook_lab.kube.controllers.pods import DAEMON_TOLERATED, can_run
from fluobook_lab.kube.errors import ApiError
from fluobook_lab.kube.objects import (
    clone,
    controller_of,
    is_true,
    labels_of,
    name_of,
    namespace_of,
    owner_reference,
    timestamp,
    with_condition,
)

if TYPE_CHECKING:
    from fluobook_lab.clock import Clock
    from fluobook_lab.kube.controllers.loop import KeysOf, Sources
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.storage import Key
    from fluobook_lab.kube.store import Store


RETRY_SECONDS = 5.0
"""Lab seconds after which a controller tries again to make a pod that was not admitted."""


def owner_key(kind: str) -> KeysOf:
    """A function from an object to the key of its controller of that kind."""

    def keys(obj: Obj) -> list[Key]:
        owner = controller_of(obj)
        return [(namespace_of(obj), owner["name"])] if owner and owner["kind"] == kind else []

    return keys


def owned(store: Store, owner: Obj, api_version: str, kind: str) -> list[Obj]:
    """The objects of a kind that `owner` controls; not to be changed."""
    objs = store.view(api_version, kind, namespace_of(owner))
    uid = owner["metadata"]["uid"]
    return [obj for obj in objs if (controller_of(obj) or {}).get("uid") == uid]


def living(pods: list[Obj]) -> list[Obj]:
    """Those that are not on their way out and have not failed."""
    return [
        pod
        for pod in pods
        if not pod["metadata"].get("deletionTimestamp") and (pod.get("status") or {}).get("phase") != "Failed"
    ]


def ready(pods: list[Obj]) -> list[Obj]:
    """Those that are ready."""
    return [pod for pod in pods if is_true(pod, "Ready")]


def template_hash(template: Obj) -> str:
    """A short name for a pod template, the same for the same template."""
    digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()
    return digest[:10].translate(str.maketrans("01aeiou3", "bcdfghjk"))


def new_pod(owner: Obj, *, name: str = "", node: str = "", labels: dict[str, str] | None = None) -> Obj:
    """A pod of the owner's template; with a generated name unless one is given."""
    template = clone(owner["spec"]["template"])
    metadata = {
        key: value for key, value in (template.get("metadata") or {}).items() if key in ("labels", "annotations")
    }
    metadata["labels"] = {**(metadata.get("labels") or {}), **(labels or {})}
    metadata |= {"name": name} if name else {"generateName": f"{name_of(owner)}-"}
    metadata |= {"namespace": namespace_of(owner), "ownerReferences": [owner_reference(owner)]}
    spec = {**template["spec"], **({"nodeName": node} if node else {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def create_pod(store: Store, owner: Obj, pod: Obj) -> str:
    """Create a pod; the error if it is not admitted, "" if it was."""
    try:
        store.create(pod)
    except ApiError as error:
        message = f"Error creating: {error.message}"
        record(store, owner, "FailedCreate", message, source=f"{owner['kind'].lower()}-controller", warning=True)
        return error.message
    return ""


def delete_pods(store: Store, pods: list[Obj]) -> None:
    """Delete some pods."""
    for pod in pods:
        store.delete("v1", "Pod", name_of(pod), namespace_of(pod))


APPS = "apps/v1"
HASH = "pod-template-hash"
REVISION_HASH = "controller-revision-hash"
REVISION = "deployment.kubernetes.io/revision"


class _Workloads:
    """A controller of one kind of workload: passes on each object that is not on its way out."""

    kind = ""
    resource = ("", "")
    dependents = ("", "pods")

    def __init__(self, store: Store) -> None:
        self._store = store
        self.sources: Sources = {self.resource: own_key, self.dependents: owner_key(self.kind)}

    def reconcile(self, key: Key) -> float | None:
        """As in `Controller`."""
        obj = self._store.find(f"{self.resource[0]}/v1", self.kind, key[1], key[0])
        return None if obj is None or obj["metadata"].get("deletionTimestamp") else self._reconcile(obj)

    def _reconcile(self, obj: Obj, /) -> float | None:
        raise NotImplementedError

    def _write_status(self, obj: Obj, status: Obj, *always: str) -> None:
        """Write a status without counts of zero, but for those that are always there."""
        self._store.set_status(obj, {key: value for key, value in status.items() if value != 0 or key in always})


class Deployments(_Workloads):
    """Keeps one ReplicaSet for each template, and lets the newest take over."""

    kind = "Deployment"
    resource = ("apps", "deployments")
    dependents = ("apps", "replicasets")

    def _reconcile(self, deployment: Obj, /) -> float | None:
        sets = owned(self._store, deployment, APPS, "ReplicaSet")
        current, old = self._current(deployment, sets)
        wanted = deployment["spec"].get("replicas", 1)
        self._scale(current, wanted)
        for replica_set in old:
            if (current.get("status") or {}).get("readyReplicas", 0) >= wanted:
                self._scale(replica_set, 0)
        self._set_status(deployment, current, old)
        return None

    def _current(self, deployment: Obj, sets: list[Obj]) -> tuple[Obj, list[Obj]]:
        digest = template_hash(deployment["spec"]["template"])
        name = f"{name_of(deployment)}-{digest}"
        old = [replica_set for replica_set in sets if name_of(replica_set) != name]
        for replica_set in sets:
            if name_of(replica_set) == name:
                return replica_set, old
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

    def _set_status(self, deployment: Obj, current: Obj, old: list[Obj]) -> None:
        wanted = deployment["spec"].get("replicas", 1)
        mine = current.get("status") or {}
        sets = [mine, *((item.get("status") or {}) for item in old)]
        available = sum(item.get("readyReplicas", 0) for item in sets)
        updated = mine.get("readyReplicas", 0)
        status = dict(deployment.get("status") or {})
        status |= {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": sum(item.get("replicas", 0) for item in sets),
            "updatedReplicas": mine.get("replicas", 0),
            "readyReplicas": available,
            "availableReplicas": available,
            "unavailableReplicas": max(wanted - available, 0),
        }
        enough = available >= wanted
        conditions = with_condition(
            status.get("conditions") or [],
            "Available",
            "True" if enough else "False",
            "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
            f"Deployment {'has' if enough else 'does not have'} minimum availability.",
        )
        done = updated >= wanted and all((item.get("status") or {}).get("replicas", 0) == 0 for item in old)
        reason = "NewReplicaSetAvailable" if done else "ReplicaSetUpdated"
        progress = "has successfully progressed" if done else "is progressing"
        message = f'ReplicaSet "{name_of(current)}" {progress}.'
        status["conditions"] = with_condition(conditions, "Progressing", "True", reason, message)
        self._write_status(deployment, status)


class ReplicaSets(_Workloads):
    """Keeps as many pods as a ReplicaSet says."""

    kind = "ReplicaSet"
    resource = ("apps", "replicasets")

    def _reconcile(self, replica_set: Obj, /) -> float | None:
        pods = living(owned(self._store, replica_set, "v1", "Pod"))
        wanted = replica_set["spec"].get("replicas", 1)
        failure = ""
        for _ in range(wanted - len(pods)):
            failure = create_pod(self._store, replica_set, new_pod(replica_set))
            if failure:
                break
        surplus = sorted(pods, key=lambda pod: (bool(ready([pod])), name_of(pod)))[: max(len(pods) - wanted, 0)]
        delete_pods(self._store, surplus)
        self._set_status(replica_set, [pod for pod in pods if pod not in surplus], failure)
        return RETRY_SECONDS if failure else None

    def _set_status(self, replica_set: Obj, pods: list[Obj], failure: str) -> None:
        count = len(ready(pods))
        status = {"observedGeneration": replica_set["metadata"]["generation"], "replicas": len(pods)}
        status |= {"fullyLabeledReplicas": len(pods), "readyReplicas": count, "availableReplicas": count}
        if failure:
            old = (replica_set.get("status") or {}).get("conditions") or []
            status["conditions"] = with_condition(old, "ReplicaFailure", "True", "FailedCreate", failure)
        self._write_status(replica_set, status, "replicas")


class DaemonSets(_Workloads):
    """Keeps one pod of the current template on each node."""

    kind = "DaemonSet"
    resource = ("apps", "daemonsets")

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.sources[("", "nodes")] = lambda _node: [key for key, _ in store.storage.scan(self.resource)]

    def _reconcile(self, daemon_set: Obj, /) -> float | None:
        spec = daemon_set["spec"]["template"]["spec"]
        nodes = [name_of(node) for node in self._store.view("v1", "Node") if can_run(spec, node, daemon=True)]
        digest = template_hash(daemon_set["spec"]["template"])
        pods = living(owned(self._store, daemon_set, "v1", "Pod"))
        stale = [p for p in pods if p["spec"]["nodeName"] not in nodes or labels_of(p).get(REVISION_HASH) != digest]
        # One at a time once pods run, as maxUnavailable says; the next goes when this one's successor is ready.
        if len(ready(pods)) == len(pods) or any(p["spec"]["nodeName"] not in nodes for p in stale):
            delete_pods(self._store, stale[:1])
        covered = {pod["spec"]["nodeName"] for pod in owned(self._store, daemon_set, "v1", "Pod")}
        failure = self._fill(daemon_set, [node for node in nodes if node not in covered], digest)
        self._set_status(daemon_set, nodes, living(owned(self._store, daemon_set, "v1", "Pod")), digest)
        return RETRY_SECONDS if failure else None

    def _fill(self, daemon_set: Obj, nodes: list[str], digest: str) -> str:
        for node in nodes:
            pod = new_pod(daemon_set, node=node, labels={REVISION_HASH: digest})
            tolerated = [{"key": key, "operator": "Exists"} for key in DAEMON_TOLERATED]
            pod["spec"]["tolerations"] = [*(pod["spec"].get("tolerations") or []), *tolerated]
            if failure := create_pod(self._store, daemon_set, pod):
                return failure
        return ""

    def _set_status(self, daemon_set: Obj, nodes: list[str], pods: list[Obj], digest: str) -> None:
        count = len(ready(pods))
        status = {
            "observedGeneration": daemon_set["metadata"]["generation"],
            "desiredNumberScheduled": len(nodes),
            "currentNumberScheduled": len(pods),
            "updatedNumberScheduled": sum(labels_of(pod).get(REVISION_HASH) == digest for pod in pods),
            "numberReady": count,
            "numberAvailable": count,
            "numberUnavailable": len(nodes) - count,
            "numberMisscheduled": 0,
        }
        always = ("desiredNumberScheduled", "currentNumberScheduled", "numberReady", "numberMisscheduled")
        self._write_status(daemon_set, status, *always)


INDEX = "apps.kubernetes.io/pod-index"
NAME = "statefulset.kubernetes.io/pod-name"


class StatefulSets(_Workloads):
    """Keeps the numbered pods of a StatefulSet."""

    kind = "StatefulSet"
    resource = ("apps", "statefulsets")

    def _reconcile(self, stateful_set: Obj, /) -> float | None:
        pods = {name_of(pod): pod for pod in owned(self._store, stateful_set, "v1", "Pod")}
        wanted = [f"{name_of(stateful_set)}-{number}" for number in range(stateful_set["spec"].get("replicas", 1))]
        digest = template_hash(stateful_set["spec"]["template"])
        failure = self._fill(stateful_set, wanted, pods, digest)
        self._remove(pods, wanted, digest)
        self._set_status(stateful_set, list(pods.values()), digest)
        return RETRY_SECONDS if failure else None

    def _fill(self, stateful_set: Obj, wanted: list[str], pods: dict[str, Obj], digest: str) -> str:
        """Make the next pod, or all of them where the policy says so."""
        parallel = stateful_set["spec"].get("podManagementPolicy") == "Parallel"
        for number, name in enumerate(wanted):
            if name in pods:
                if parallel or ready([pods[name]]):
                    continue
                return ""
            pod = new_pod(stateful_set, name=name, labels={REVISION_HASH: digest, INDEX: str(number), NAME: name})
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
        stale = sorted(
            (n for n in living if labels_of(living[n]).get(REVISION_HASH) != digest), key=_number, reverse=True
        )
        settled = len(ready(list(pods.values()))) == len(pods) == len(wanted)
        delete_pods(self._store, [living[name] for name in (surplus[:1] or (stale[:1] if settled else []))])

    def _set_status(self, stateful_set: Obj, pods: list[Obj], digest: str) -> None:
        count = len(ready(pods))
        revision = f"{name_of(stateful_set)}-{digest}"
        updated = sum(labels_of(pod).get(REVISION_HASH) == digest for pod in pods)
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
        self._write_status(stateful_set, status, "replicas")


def _number(name: str) -> int:
    return int(name.rpartition("-")[2])


_FAILURES = {
    "DeadlineExceeded": "Job was active longer than specified deadline",
    "BackoffLimitExceeded": "Job has reached the specified backoff limit",
}


class Jobs(_Workloads):
    """Runs each Job to its end: a failure once its activeDeadlineSeconds have passed, or too many pods have failed."""

    kind = "Job"
    resource = ("batch", "jobs")

    def __init__(self, store: Store, clock: Clock) -> None:
        super().__init__(store)
        self._clock, self._until = clock, dict[str, float]()

    def _reconcile(self, job: Obj, /) -> float | None:
        if is_true(job, "Complete") or is_true(job, "Failed"):
            return self._until_deleted(job)
        pods = owned(self._store, job, "v1", "Pod")
        limit, now = job["spec"].get("activeDeadlineSeconds"), self._clock.now()
        left = self._until.setdefault(job["metadata"]["uid"], now + limit) - now if limit else None
        phases = [(pod.get("status") or {}).get("phase") for pod in pods]
        done, failed, spec = phases.count("Succeeded"), phases.count("Failed"), job["spec"]
        is_late, is_over = left is not None and left <= 0, failed > spec["backoffLimit"]
        if is_late or is_over:
            self._fail(job, pods, failed, "DeadlineExceeded" if is_late else "BackoffLimitExceeded")
            return None
        wanted = spec.get("completions", 1)
        over = ("Succeeded", "Failed")
        running = [pod for pod in living(pods) if (pod.get("status") or {}).get("phase") not in over]
        failure = ""
        if not spec.get("suspend"):
            for _ in range(min(spec.get("parallelism", 1), wanted - done) - len(running)):
                failure = failure or create_pod(self._store, job, new_pod(job))
        self._set_status(job, running, done, complete=done >= wanted)
        return RETRY_SECONDS if failure else left

    def _until_deleted(self, job: Obj) -> float | None:
        """Delete a Job when it has been over for ttlSecondsAfterFinished; the lab seconds until then."""
        limit, now = job["spec"].get("ttlSecondsAfterFinished"), self._clock.now()
        if limit is None:
            return None
        left = self._until.setdefault(f"{job['metadata']['uid']}/ttl", now + limit) - now
        if left <= 0:
            self._store.delete("batch/v1", "Job", name_of(job), namespace_of(job))
        return left if left > 0 else None

    def _fail(self, job: Obj, pods: list[Obj], failed: int, reason: str) -> None:
        delete_pods(self._store, [pod for pod in living(pods) if (pod.get("status") or {}).get("phase") != "Failed"])
        status: Obj = {"startTime": timestamp(), **(job.get("status") or {})} | {"active": 0, "failed": failed}
        status["conditions"] = with_condition(
            status.get("conditions") or [], "Failed", "True", reason, _FAILURES[reason]
        )
        self._write_status(job, status)

    def _set_status(self, job: Obj, running: list[Obj], done: int, *, complete: bool) -> None:
        status = dict(job.get("status") or {})
        status.setdefault("startTime", timestamp())
        status |= {"active": len(running), "ready": len(ready(running)), "succeeded": done}
        if complete:
            status.setdefault("completionTime", timestamp())
            for kind in ("SuccessCriteriaMet", "Complete"):
                condition = (kind, "True", "CompletionsReached", "Reached expected number of succeeded pods")
                status["conditions"] = with_condition(status.get("conditions") or [], *condition)
        self._write_status(job, status)


class CronJobs(_Workloads):
    """Notes when a Job of a CronJob has succeeded. No time of a schedule comes: Jobs are made by hand."""

    kind = "CronJob"
    resource = ("batch", "cronjobs")
    dependents = ("batch", "jobs")

    def _reconcile(self, cron_job: Obj, /) -> float | None:
        jobs = owned(self._store, cron_job, "batch/v1", "Job")
        times = [job["status"]["completionTime"] for job in jobs if is_true(job, "Complete")]
        status = cron_job.get("status") or {}
        if times:
            self._store.set_status(cron_job, {**status, "lastSuccessfulTime": max(times)})
        return None
