"""Pods are scheduled to nodes, and become Ready once what they refer to exists."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from fluobook.kubernetes.selectors import CORDONED, meets, tolerates
from fluobook.params.versions import ordered
from fluobook_lab.kube.controllers.created import ended, exit_code
from fluobook_lab.kube.controllers.longhorn import RESTORED, faulted_volume, volume_of
from fluobook_lab.kube.controllers.loop import draw, own_key, record
from fluobook_lab.kube.objects import (
    claims_of,
    condition,
    controller_of,
    is_true,
    labels_of,
    name_of,
    namespace_of,
    timestamp,
    with_condition,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fluobook_lab.clock import Clock
    from fluobook_lab.faults import Faults
    from fluobook_lab.kube.controllers.loop import Sources
    from fluobook_lab.kube.kubelet import NodeInfo
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.storage import Key
    from fluobook_lab.kube.store import Store


_VOLUMES = (("secret", "Secret", "secretName"), ("configMap", "ConfigMap", "name"))
_VALUES = (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap"))
_SOURCES = (("secretRef", "Secret"), ("configMapRef", "ConfigMap"))


def missing_for_volumes(store: Store, pod: Obj) -> str:
    """The first object that a volume waits for, "" if all are there."""
    for claim in claims_of(pod):
        stored = store.find("v1", "PersistentVolumeClaim", claim, namespace_of(pod))
        if stored is None or (stored.get("status") or {}).get("phase") != "Bound":
            return f'persistentvolumeclaim "{claim}"'
    for volume in pod["spec"].get("volumes") or []:
        for key, kind, name in _VOLUMES:
            if missing := _missing(store, pod, kind, volume.get(key), name):
                return missing
    return ""


def missing_for_containers(store: Store, pod: Obj) -> str:
    """The first object that an environment variable waits for, "" if all are there."""
    return next(
        (missing for kind, reference in _environment(pod) if (missing := _missing(store, pod, kind, reference))), ""
    )


def _environment(pod: Obj) -> Iterator[tuple[str, Obj]]:
    for container in [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]:
        for item in container.get("env") or []:
            source = item.get("valueFrom") or {}
            yield from ((kind, source[key]) for key, kind in _VALUES if key in source)
        for source in container.get("envFrom") or []:
            yield from ((kind, source[key]) for key, kind in _SOURCES if key in source)


def _missing(store: Store, pod: Obj, kind: str, reference: Obj | None, name: str = "name") -> str:
    if not reference or reference.get("optional") or store.find("v1", kind, reference.get(name, ""), namespace_of(pod)):
        return ""
    return f'{kind.lower()} "{reference.get(name, "")}"'


_BLOCKING = ("NoSchedule", "NoExecute")
DAEMON_TOLERATED = (
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/unschedulable",
    "node.kubernetes.io/network-unavailable",
)


def can_run(spec: Obj, node: Obj, *, daemon: bool = False) -> bool:
    """Whether a pod's spec lets it run on a node.

    Args:
        spec: the pod's spec.
        node: the Node.
        daemon: the pod is a DaemonSet's, which comes to nodes that are not ready as well.
    """
    return not why_not_on(spec, node, daemon=daemon)


def why_not_on(spec: Obj, node: Obj, *, daemon: bool = False) -> str:
    """Why a pod cannot run on a node, in the scheduler's words and order; "" if it can."""
    if not daemon and (node.get("spec") or {}).get("unschedulable") and not tolerates(spec, CORDONED):
        return "node(s) were unschedulable"
    if taint := next(_repelling(spec, node, daemon=daemon), None):
        return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
    if not daemon and not is_true(node, "Ready"):
        return "node(s) had untolerated taint {node.kubernetes.io/not-ready: }"
    labels = labels_of(node)
    selected = all(labels.get(key) == value for key, value in (spec.get("nodeSelector") or {}).items())
    return "" if selected and _affine(spec, labels) else "node(s) didn't match Pod's node affinity/selector"


def _affine(spec: Obj, labels: dict[str, str]) -> bool:
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    terms = required.get("nodeSelectorTerms") or []
    return any(all(meets(rule, labels) for rule in term.get("matchExpressions") or []) for term in terms)


def _repelling(spec: Obj, node: Obj, *, daemon: bool) -> Iterator[Obj]:
    taints = [taint for taint in (node.get("spec") or {}).get("taints") or [] if taint["effect"] in _BLOCKING]
    if daemon:
        taints = [taint for taint in taints if taint["key"] not in DAEMON_TOLERATED]
    yield from (taint for taint in taints if not tolerates(spec, taint))


RESOURCE = ("", "pods")
NODES = ("", "nodes")
PULL_SECONDS = (3.0, 9.0)
"""Lab seconds for an image that the node does not have yet."""
START_SECONDS = (0.8, 2.5)
"""Lab seconds from an image that is there to a container that is ready."""
JOB_SECONDS = (1.0, 4.0)
STOP_SECONDS = 1.5
ORPHAN_SECONDS = 40.0
LOOK_AGAIN_SECONDS = 2.0
"""Lab seconds between checks for a Secret, ConfigMap or claim that a pod waits for."""
BACK_OFF_SECONDS = 10.0
_MOMENT = 1e-6
"""Less than this is no time at all."""


_IMAGE = re.compile(r"[a-z0-9]([\w.:/-]*[\w-])?(@sha256:[0-9a-f]{64})?")
"""What a kubelet takes for the reference of an image, roughly."""
SCHEDULER = "default-scheduler"
ISCSI = "iscsiadm: Unknown parameter name node.session.conn_reopen_log_freq; exit status 7"
"""What open-iscsi says to the records of another version of it."""
SCYLLA_NEEDS_PCLMUL = 71
"""ScyllaDB's exit code on a CPU without SSE 4.2 or PCLMULQDQ."""


class Hurdle(NamedTuple):
    """Why a pod does not run yet, when to check again (None: when something changes), and the event's message.

    `exit_code` is that of a container that ends as soon as it has started.
    """

    reason: str
    seconds: float | None
    message: str = ""
    exit_code: int | None = None


class Kubelets:
    """Runs the pods of all nodes.

    Args:
        store: the cluster.
        clock: the lab's clock.
        faults: "kube.image-pull-fails": images of pods in `default` and application namespaces cannot be pulled;
            "kube.attach-fails": volumes are not attached to nodes that run a newer Talos than others.
        seed: makes every delay the same in every run.
        machines: the machines of the nodes.
    """

    def __init__(self, store: Store, clock: Clock, faults: Faults, seed: int, machines: Mapping[str, NodeInfo]) -> None:
        self._store = store
        self._machines = machines
        self._clock = clock
        self._faults = faults
        self._seed = seed
        self._pulled: set[tuple[str, str]] = set()
        self._restarts: dict[str, int] = {}
        self._due: dict[str, float] = {}  # uid → when the next step is done
        self._addresses = 0
        self.sources: Sources = {
            RESOURCE: own_key,
            NODES: self._on_node,
            ("", "persistentvolumeclaims"): self._waiting_in,
            RESTORED: self._using,
        }

    def reconcile(self, key: Key) -> float | None:
        """As in `Controller`."""
        pod = self._store.find("v1", "Pod", key[1], key[0])
        if pod is None:
            return None
        if pod["metadata"].get("deletionTimestamp"):
            return self._end(pod)
        node = pod["spec"].get("nodeName")
        if not node or self._store.storage.get(NODES, ("", node)) is None:
            return self._collect(pod) if node else self._schedule(pod)
        phase = (pod.get("status") or {}).get("phase", "Pending")
        if phase == "Pending" or _is_crashing(pod):
            return self._start(pod, node)
        if phase == "Running" and _is_job(pod):
            left = self._wait(pod, "job", JOB_SECONDS)
            if left is None:
                self._complete(pod)
            return left
        # Without its volume a container's writes fail. Longhorn has such pods start again once the volume is back.
        cut_off = self._is_lost(node) or bool(faulted_volume(self._store, pod))
        if phase == "Running" and is_true(pod, "Ready") == cut_off:
            self._follow(pod, lost=cut_off)
        return None

    def _using(self, volume: Obj) -> list[Key]:
        """A volume of Longhorn concerns the pods that use it."""
        pods = self._store.storage.scan(RESOURCE)
        return [
            key
            for key, pod in pods
            if any(volume_of(self._store, key[0], claim) == name_of(volume) for claim in claims_of(pod))
        ]

    def _on_node(self, node: Obj) -> list[Key]:
        """A node concerns the pods that wait for one, and the ones on it when it is lost, found or deleted."""
        lost, gone = self._is_lost(name_of(node)), self._store.storage.get(NODES, ("", name_of(node))) is None
        running = [
            key
            for key, pod in self._store.storage.scan(RESOURCE)
            if pod["spec"].get("nodeName") == name_of(node)
            and (gone or pod["metadata"].get("deletionTimestamp") or is_true(pod, "Ready") == lost)
        ]
        return [*self._waiting_in({"metadata": {}}), *running]

    def _is_lost(self, node: str) -> bool:
        stored = self._store.storage.get(NODES, ("", node))
        return stored is not None and (condition(stored, "Ready") or {}).get("status") == "Unknown"

    def _follow(self, pod: Obj, *, lost: bool) -> None:
        """Pods on a lost node, or without a volume of theirs, are not ready; they restart when it returns."""
        reason = "NodeNotReady" if lost else ""
        changes = [(kind, "False" if lost else "True", reason, "") for kind in ("ContainersReady", "Ready")]
        self._set(pod, conditions=changes, running=not lost)
        if not lost:
            record(self._store, pod, "Started", "Started container", source="kubelet")

    def _waiting_in(self, obj: Obj) -> list[Key]:
        pods = self._store.storage.scan(RESOURCE, namespace_of(obj))
        return [key for key, pod in pods if (pod.get("status") or {}).get("phase", "Pending") == "Pending"]

    def _schedule(self, pod: Obj) -> float | None:
        if pod["spec"].get("schedulerName", SCHEDULER) != SCHEDULER:
            return None  # another scheduler's business
        reasons = [(node, why_not_on(pod["spec"], node)) for node in self._store.view("v1", "Node")]
        nodes = [node for node, reason in reasons if not reason]
        if not nodes:
            counts = sorted(f"{count} {reason}" for reason, count in Counter(r for _, r in reasons).items())
            message = f"0/{len(reasons)} nodes are available: {', '.join(counts)}."
            self._set(pod, conditions=[("PodScheduled", "False", "Unschedulable", message)])
            return None
        taken = [p["spec"].get("nodeName") for _, p in self._store.storage.scan(RESOURCE)]
        chosen = min(nodes, key=lambda node: (taken.count(name_of(node)), name_of(node)))
        pod["spec"]["nodeName"] = name_of(chosen)
        self._store.update(pod)
        return None

    def _start(self, pod: Obj, node: str) -> float | None:
        hurdle = next(self._hurdles(pod, node), None)
        if hurdle is None:
            self._run(pod, node)
            return None
        if hurdle.message:
            record(self._store, pod, "Failed", hurdle.message, source="kubelet", warning=True)
        if hurdle.exit_code is None:
            self._set(pod, waiting=hurdle.reason, message=hurdle.message)
        else:
            self._crash(pod, hurdle)
        return hurdle.seconds

    def _crash(self, pod: Obj, hurdle: Hurdle) -> None:
        """The container ended and waits for its next start, as a kubelet reports it."""
        status = {**(pod.get("status") or {}), "phase": "Running"}
        for kind in ("ContainersReady", "Ready"):
            status["conditions"] = with_condition(
                status.get("conditions") or [], kind, "False", "ContainersNotReady", ""
            )
        uid = pod["metadata"]["uid"]
        self._restarts[uid] = self._restarts.get(uid, 0) + 1
        state = {"waiting": {"reason": hurdle.reason, "message": hurdle.message}}
        ended = {"terminated": {"exitCode": hurdle.exit_code, "reason": "Error"}}
        status["containerStatuses"] = [
            _container_status(c, state, ready=False) | {"restartCount": self._restarts[uid], "lastState": ended}
            for c in pod["spec"]["containers"]
        ]
        self._store.set_status(pod, status)

    def _hurdles(self, pod: Obj, node: str) -> Iterator[Hurdle]:
        """What still keeps a pod from running, in the order in which a kubelet comes upon it."""
        image = pod["spec"]["containers"][0].get("image", "")
        if not self._has_network(pod, node):
            yield Hurdle("ContainerCreating", None)
        if problem := self._volume_problem(pod, node):
            yield Hurdle("ContainerCreating", LOOK_AGAIN_SECONDS, problem)
        if self._faults.on("kube.image-pull-fails") and namespace_of(pod) != "kube-system":
            yield Hurdle("ImagePullBackOff", BACK_OFF_SECONDS, f'Failed to pull image "{image}": not found')
        if not _IMAGE.fullmatch(image):
            problem = f'couldn\'t parse image name "{image}": invalid reference format'
            yield Hurdle(
                "InvalidImageName", BACK_OFF_SECONDS, f'Failed to apply default image tag "{image}": {problem}'
            )
        if (node, image) not in self._pulled:
            if left := self._wait(pod, "pull", PULL_SECONDS):
                yield Hurdle("ContainerCreating", left)
            self._pulled.add((node, image))
        if missing := missing_for_containers(self._store, pod):
            yield Hurdle("CreateContainerConfigError", LOOK_AGAIN_SECONDS, f"Error: {missing} not found")
        if left := self._wait(pod, "start", START_SECONDS):
            yield Hurdle("ContainerCreating", left)
        machine = self._machines.get(node)
        if "/scylla:" in image and machine and "pclmulqdq" not in machine.cpu_features:
            message = f"back-off restarting failed container {pod['spec']['containers'][0]['name']}"
            yield Hurdle("CrashLoopBackOff", BACK_OFF_SECONDS, message, SCYLLA_NEEDS_PCLMUL)

    def _volume_problem(self, pod: Obj, node: str) -> str:
        """What a volume waits for, or the fault that keeps it from a node with a newer Talos than another; else ""."""
        if missing := missing_for_volumes(self._store, pod):
            return f"MountVolume.SetUp failed: {missing} not found"
        if volume := faulted_volume(self._store, pod):
            why = f"volume {volume} is not ready for workloads"
            return f'AttachVolume.Attach failed for volume "{volume}" : rpc error: code = Aborted desc = {why}'
        if holder := self._holder(pod, node):
            return f"Multi-Attach error: the volume is already used by pod(s) {holder}"
        versions = {name: ordered(machine.talos) for name, machine in self._machines.items()}
        newer = versions.get(node, ()) > min(versions.values(), default=())
        claim = next(iter(claims_of(pod)), "")
        if not (claim and newer and self._faults.on("kube.attach-fails")):
            return ""
        return f"AttachVolume.Attach failed for the volume of {claim}: rpc error: code = Internal desc = {ISCSI}"

    def _holder(self, pod: Obj, node: str) -> str:
        """The pod on another node, which is lost, that has a volume of this one: only its end frees it."""
        for key, other in self._store.storage.scan(RESOURCE, namespace_of(pod)):
            place = other["spec"].get("nodeName", "")
            if place != node and self._is_lost(place) and set(claims_of(other)) & set(claims_of(pod)):
                return key[1]
        return ""

    def _has_network(self, pod: Obj, node: str) -> bool:
        stored = self._store.find("v1", "Node", node)
        return stored is not None and (bool(pod["spec"].get("hostNetwork")) or is_true(stored, "Ready"))

    def _wait(self, pod: Obj, step: str, bounds: tuple[float, float]) -> float | None:
        """The seconds that a step still takes; None once it is done."""
        key = f"{pod['metadata']['uid']}/{step}"
        now = self._clock.now()
        image = pod["spec"]["containers"][0].get("image", "")
        subject = image if step == "pull" else f"{namespace_of(pod)}/{name_of(pod)}"
        due = self._due.setdefault(key, now + draw(self._seed, f"{step}/{subject}", *bounds))
        return due - now if due - now > _MOMENT else None

    def _run(self, pod: Obj, node: str) -> None:
        stored = self._store.get("v1", "Node", node)
        host = next((a["address"] for a in stored["status"].get("addresses") or [] if a["type"] == "InternalIP"), "")
        address = host if pod["spec"].get("hostNetwork") else self._next_address(stored)
        fields: Obj = {"phase": "Running", "hostIP": host, "podIP": address, "podIPs": [{"ip": address}]}
        ready = [(kind, "True", "", "") for kind in ("Initialized", "PodScheduled", "ContainersReady", "Ready")]
        self._set(pod, conditions=ready, running=True, fields=fields | {"startTime": timestamp()})
        record(self._store, pod, "Started", "Started container", source="kubelet")

    def _next_address(self, node: Obj) -> str:
        self._addresses += 1
        base = (node["spec"].get("podCIDR") or "10.244.0.0/24").partition("/")[0].rpartition(".")[0]
        return f"{base}.{2 + self._addresses % 250}"

    def _complete(self, pod: Obj) -> None:
        status = pod.get("status") or {}
        self._store.set_status(pod, {**status, **ended(pod, exit_code(self._store, pod, self._faults))})

    def _collect(self, pod: Obj) -> float | None:
        """Delete a pod whose Node was deleted, as kube-controller-manager does after a while."""
        if left := self._wait(pod, "orphan", (ORPHAN_SECONDS, ORPHAN_SECONDS)):
            return left
        self._store.delete("v1", "Pod", name_of(pod), namespace_of(pod), options={"gracePeriodSeconds": 0})
        return None

    def _end(self, pod: Obj) -> float | None:
        if self._is_lost(pod["spec"].get("nodeName", "")):
            return None  # no kubelet says that it has ended
        if left := self._wait(pod, "stop", (STOP_SECONDS, STOP_SECONDS)):
            return left
        self._store.delete("v1", "Pod", name_of(pod), namespace_of(pod), options={"gracePeriodSeconds": 0})
        return None

    def _set(
        self,
        pod: Obj,
        *,
        conditions: list[tuple[str, str, str, str]] | None = None,
        waiting: str = "",
        message: str = "",
        running: bool = False,
        fields: Obj | None = None,
    ) -> None:
        """Write a pod's status: conditions, what its containers do, and other fields."""
        status = {**(pod.get("status") or {}), **(fields or {})}
        for entry in conditions or [("PodScheduled", "True", "", "")]:
            status["conditions"] = with_condition(status.get("conditions") or [], *entry)
        state: Obj = (
            {"waiting": {"reason": waiting, "message": message}} if waiting else {"running": {"startedAt": timestamp()}}
        )
        if waiting or running:
            status["containerStatuses"] = [
                _container_status(c, state, ready=running) for c in pod["spec"]["containers"]
            ]
        self._store.set_status(pod, status)


def _container_status(container: Obj, state: Obj, *, ready: bool) -> Obj:
    image = container.get("image", "")
    status = {"name": container["name"], "image": image, "imageID": "", "restartCount": 0}
    return {**status, "ready": ready, "started": ready, "state": state}


def _is_crashing(pod: Obj) -> bool:
    containers = (pod.get("status") or {}).get("containerStatuses") or []
    return any("waiting" in container["state"] and "lastState" in container for container in containers)


def _is_job(pod: Obj) -> bool:
    owner = controller_of(pod)
    return owner is not None and owner["kind"] == "Job"
