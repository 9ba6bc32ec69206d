"""Longhorn: a volume for each PersistentVolume of its driver, with replicas and health; its nodes; backup targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook.kubernetes.quantities import amount
from fluobook_lab.kube.controllers.backups import AGAIN, BUCKET_FAULT
from fluobook_lab.kube.controllers.loop import own_key
from fluobook_lab.kube.objects import (
    CONTROL_PLANE,
    claims_of,
    is_true,
    labels_of,
    name_of,
    namespace_of,
    timestamp,
    with_condition,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fluobook_lab.clock import Clock
    from fluobook_lab.faults import Faults
    from fluobook_lab.kube.controllers.loop import Sources
    from fluobook_lab.kube.kubelet import NodeInfo
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.storage import Key
    from fluobook_lab.kube.store import Store

DRIVER, NAMESPACE, API = "driver.longhorn.io", "longhorn-system", "longhorn.io/v1beta2"
VOLUMES = ("", "persistentvolumes")
REPLICAS, TARGETS = ("longhorn.io", "replicas"), ("longhorn.io", "backuptargets")
RESTORED, BACKUPS = ("longhorn.io", "volumes"), ("longhorn.io", "backups")
CREDENTIALS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
WAITS = "WaitForFirstConsumer"
"""How a class binds volumes that are made once it is known where their pod runs."""
LOCAL = frozenset({"best-effort", "strict-local"})
"""Values of `dataLocality` with which a replica lies on the node of the pod; the lab does not move one after it."""
REBUILD_SECONDS = 20.0
"""Lab seconds from the return of a node, or from the creation of a replica, until the replicas are healthy."""
HOMES = ("longhorn.io", "nodes")
DISK, DISK_BYTES = "default-disk-lab", 200 << 30
"""The one disk of each of Longhorn's nodes."""


class Longhorn:
    """Makes volumes.longhorn.io, and keeps state and robustness: healthy, degraded, faulted; unknown while detached.

    A replica is lost while its node is not Ready, and is rebuilt some time after the node has returned; one with a time
    in `failedAt` is lost until that is removed. A replica of an attached volume that is missing, or one on a node whose
    eviction is requested, is made on another node that may take it, while a copy is healthy; one that is lost may
    return, so it is replaced once it is deleted. With an empty disk in the place of the one that Longhorn knows, the
    replicas that lay on that are lost for good, and replaced on other nodes; the disk takes no replicas until it is
    removed from the node's entry and added again. A backup target is available with a URL and credentials, and takes no
    backups; a volume that is made from one (`fromBackup`) is restored if there is a complete Backup of that URL.

    Args:
        store: the cluster.
        clock: the lab's clock.
        faults: "kube.bucket-unreachable": no backup target is available.
        machines: the machines of the nodes.

    Attributes:
        moments: at which time which volume had how many healthy replicas, and how many it wants.
    """

    def __init__(
        self, store: Store, clock: Clock, faults: Faults | None = None, machines: Mapping[str, NodeInfo] | None = None
    ) -> None:
        self._store, self._clock, self._faults = store, clock, faults
        self._machines = {} if machines is None else machines
        self._returned: dict[str, float] = {}
        self._healthy: dict[str, int] = {}
        self.moments: list[tuple[float, str, int, int]] = []
        self._begun: dict[str, float] = {}
        self.sources: Sources = {VOLUMES: own_key, REPLICAS: self._of_replica, ("", "pods"): self._concerned}
        self.sources |= {("", "nodes"): self._of_node, HOMES: self._of_node}
        self.sources |= {TARGETS: own_key, ("", "secrets"): self._targets, RESTORED: _restored, BACKUPS: self._waiting}

    def _of_node(self, node: Obj) -> list[Key]:
        """A node concerns its entry, and all volumes."""
        return [(HOMES[1], name_of(node)), *self._concerned(node)]

    def _of_replica(self, replica: Obj) -> list[Key]:
        return [("", replica["spec"]["volumeName"]), (HOMES[1], replica["spec"]["nodeID"])]

    def _concerned(self, obj: Obj) -> list[Key]:
        """All volumes for a node; for a pod those of its claims."""
        claims = None
        if obj["kind"] == "Pod":
            claims = {(namespace_of(obj), name) for name in claims_of(obj)}
            if not claims:
                return []
        return [key for key, volume in self._store.storage.scan(VOLUMES) if claims is None or _claim(volume) in claims]

    def _targets(self, secret: Obj) -> list[Key]:
        targets = self._store.storage.scan(TARGETS, NAMESPACE) if namespace_of(secret) == NAMESPACE else []
        return [key for key, target in targets if target["spec"].get("credentialSecret") == name_of(secret)]

    def reconcile(self, key: Key) -> float | None:
        """As in `Controller`; a key without a namespace is a volume's, others are a node's or a backup target's."""
        if key[0] == HOMES[1]:
            self._keep_home(key[1])
            return None
        if key[0]:
            return self._open(key[1])
        volume = self._store.find("v1", "PersistentVolume", key[1])
        served = self._store.registry.find(API, "Volume")
        restored = self._store.find(API, "Volume", key[1], NAMESPACE) if served else None
        if restored and restored["spec"].get("fromBackup"):
            whole = self._restore(restored)
            return self._report(volume, whole) if whole and volume else None
        if volume is None and served is not None:
            self._delete(key[1])
        if volume is None or served is None or (volume["spec"].get("csi") or {}).get("driver") != DRIVER:
            return None
        made = self._store.find(API, "Volume", key[1], NAMESPACE)
        if made is None and self._class_of(volume).get("volumeBindingMode") == WAITS and not self._user(_claim(volume)):
            return None
        return self._report(volume, made or self._make(volume))

    def _delete(self, name: str) -> None:
        """Delete the volume of a PersistentVolume that is gone, with its replicas."""
        names = [name_of(replica) for replica in self._replicas_of(name)]
        for kind, each in [("Replica", replica) for replica in names] + [("Volume", name)]:
            if self._store.find(API, kind, each, NAMESPACE):
                self._store.delete(API, kind, each, NAMESPACE)

    def _open(self, name: str) -> float | None:
        """Report a backup target as available if it has a URL, and a Secret with the keys for it; when to try again."""
        if (target := self._store.find(API, "BackupTarget", name, NAMESPACE)) is None:
            return None
        url, secret = target["spec"].get("backupTargetURL"), target["spec"].get("credentialSecret") or ""
        credentials = (self._store.find("v1", "Secret", secret, NAMESPACE) or {}).get("data") or {}
        message = "" if credentials.keys() >= CREDENTIALS else f"cannot find {' and '.join(sorted(CREDENTIALS))}"
        if self._faults and self._faults.on(BUCKET_FAULT):
            message = message or "error listing backup volume names: RequestError: send request failed"
        message = message if url else "backup target URL is empty"
        condition = {"type": "Unavailable", "status": str(bool(message)), "message": message}
        self._store.set_status(target, {"available": not message, "conditions": [condition]})
        return AGAIN if url else None

    def _waiting(self, backup: Obj) -> list[Key]:
        """The volumes that are made from a backup."""
        url = (backup.get("status") or {}).get("url")
        volumes = self._store.storage.scan(RESTORED, NAMESPACE)
        return [("", key[1]) for key, volume in volumes if url and volume["spec"].get("fromBackup") == url]

    def _restore(self, made: Obj) -> Obj | None:
        """Restore a volume from its backup; the volume once its data is there."""
        old, url = made.get("status") or {}, made["spec"]["fromBackup"]
        if old.get("restoreRequired") is False:
            return made
        backups = (backup.get("status") or {} for _, backup in self._store.storage.scan(BACKUPS, NAMESPACE))
        complete = any((status.get("url"), status.get("state")) == (url, "Completed") for status in backups)
        if complete:
            self._replicate(made, made["spec"].get("numberOfReplicas", 1))
        condition = {
            "type": "Restore",
            "status": str(complete),
            "message": "" if complete else f"cannot find backup {url}",
        }
        status = {"state": "detached", "robustness": "unknown", "restoreRequired": not complete}
        reported = self._store.set_status(made, {**old, **status, "conditions": [condition]})
        return reported if complete else None

    def _make(self, volume: Obj) -> Obj:
        """The volume, which has as many replicas as its class wants."""
        wanted = int(self._parameters(volume).get("numberOfReplicas", 1))
        metadata: Obj = {"name": name_of(volume), "namespace": NAMESPACE}
        size = str(int(amount(volume["spec"]["capacity"]["storage"])))
        spec = {"numberOfReplicas": wanted, "frontend": "blockdev", "dataEngine": "v1", "size": size}
        return self._store.create({"apiVersion": API, "kind": "Volume", "metadata": metadata, "spec": spec})

    def _replicate(self, volume: Obj, wanted: int, *, near: str = "") -> None:
        """Make the replicas of a volume, on nodes that have a disk for them; the first near the pod that uses it."""
        workers = [name for name in self._workers() if self._is_open(name)]
        first = sum(map(ord, name_of(volume))) % len(workers) if workers else 0
        first = workers.index(near) if near in workers else first
        for number in range(min(wanted, len(workers))):
            self._add(volume, workers[(first + number) % len(workers)])

    def _add(self, volume: Obj, node: str, **spec: Any) -> str:
        """Create a replica on a node; its name."""
        taken = {name_of(replica) for replica in self._replicas_of(name_of(volume))}
        name = next(n for number in range(len(taken) + 1) if (n := f"{name_of(volume)}-r-{number}") not in taken)
        metadata = {"name": name, "namespace": NAMESPACE, "labels": {"longhornvolume": name_of(volume)}}
        spec = {"volumeName": name_of(volume), "nodeID": node, "diskID": self._disk(node), "dataEngine": "v1", **spec}
        self._store.create({"apiVersion": API, "kind": "Replica", "metadata": metadata, "spec": spec})
        return name

    def _replicas_of(self, volume: str) -> list[Obj]:
        replicas = self._store.storage.scan(REPLICAS, NAMESPACE)
        return [replica for _, replica in replicas if replica["spec"]["volumeName"] == volume]

    def _class_of(self, volume: Obj) -> Obj:
        name = volume["spec"].get("storageClassName") or ""
        return (self._store.find("storage.k8s.io/v1", "StorageClass", name) if name else None) or {}

    def _parameters(self, volume: Obj) -> Obj:
        return self._class_of(volume).get("parameters") or {}

    def _report(self, volume: Obj, made: Obj) -> float | None:
        """Move and rebuild replicas, set state and robustness; the lab seconds until a rebuild ends."""
        name, wanted = name_of(volume), made["spec"]["numberOfReplicas"]
        user = self._user(_claim(volume))
        if not made.get("status") and not self._replicas_of(name):
            is_local = self._parameters(volume).get("dataLocality") in LOCAL
            self._replicate(made, wanted, near=user if is_local else "")
            if not self._replicas_of(name):
                return None  # no node takes any yet
        for replica in self._replicas_of(name):
            self._compare_disk(replica)
        left = {name_of(replica): self._left(replica) for replica in self._replicas_of(name)}
        self._move(made, left, attached=bool(user))
        replicas = self._replicas_of(name)
        left = {name_of(replica): self._left(replica) for replica in replicas}
        healthy = sum(each == 0 for each in left.values())
        if self._healthy.get(name) != healthy:
            self._healthy[name] = healthy
            self.moments.append((self._clock.now(), name, healthy, wanted))
        robustness = "healthy" if healthy >= wanted else "degraded" if healthy else "faulted"
        status: dict[str, Any] = {
            "state": "attached" if user else "detached",
            "robustness": robustness if user or robustness == "faulted" else "unknown",
            "currentNodeID": user,
        }
        self._store.set_status(made, {**(made.get("status") or {}), **status})
        return max((each or 0.0 for each in left.values()), default=0.0) or None

    def _move(self, volume: Obj, left: dict[str, float | None], *, attached: bool) -> None:
        """Note which replicas are built, make those that are missing, delete those that are evicted and copied."""
        replicas = self._replicas_of(name_of(volume))
        for replica in replicas:
            if replica["spec"].get("healthyAt") == "" and left[name_of(replica)] == 0:
                self._begun.pop(name_of(replica), None)
                body = {"spec": {"healthyAt": timestamp()}}
                self._store.patch(API, "Replica", name_of(replica), NAMESPACE, body=body)
        wanted = volume["spec"]["numberOfReplicas"]
        whole = [replica for replica in replicas if left[name_of(replica)] == 0]
        moving = [replica for replica in whole if self._evicts(replica["spec"]["nodeID"])]
        healthy = [replica for replica in whole if replica not in moving]
        if len(healthy) >= wanted:
            for replica in [*healthy[wanted:], *moving]:
                self._store.delete(API, "Replica", name_of(replica), NAMESPACE)
        elif whole and (attached or moving):
            usable = [replica for replica in replicas if not self._is_foreign(replica)]
            homes = {replica["spec"]["nodeID"] for replica in usable}
            size = int(volume["spec"].get("size", 0))
            candidates = [name for name in self._workers() if name not in homes and self._is_open(name, size)]
            for node in candidates[: max(0, wanted - len(usable) + len(moving))]:
                made = self._add(volume, node, healthyAt="")
                self._begun[made] = self._clock.now()
                left[made] = REBUILD_SECONDS

    def _compare_disk(self, replica: Obj) -> None:
        """Note the disk of a replica that names none, and that one has failed whose disk is not there any more."""
        spec, node = replica["spec"], self._store.find("v1", "Node", replica["spec"]["nodeID"])
        if node is None or not is_true(node, "Ready"):
            return
        change = {} if spec.get("diskID") else {"diskID": self._disk(spec["nodeID"])}
        change |= {"failedAt": timestamp()} if self._is_foreign(replica) and not spec.get("failedAt") else {}
        if change:
            self._store.patch(API, "Replica", name_of(replica), NAMESPACE, body={"spec": change})

    def _is_foreign(self, replica: Obj) -> bool:
        """Whether the data of a replica lay on a disk that its node no longer has."""
        spec = replica["spec"]
        return spec.get("diskID", "") not in ("", self._disk(spec["nodeID"]))

    def _left(self, replica: Obj) -> float | None:
        """Lab seconds until a replica is healthy: 0 if it is, None while it is lost."""
        spec = replica["spec"]
        if spec.get("failedAt"):
            return None
        left = self._until_rebuilt(spec["nodeID"])
        if left is None or spec.get("healthyAt") != "":
            return left
        since = self._begun.setdefault(name_of(replica), self._clock.now())
        return max(left, since + REBUILD_SECONDS - self._clock.now(), 0.0)

    # ---- nodes ----------------------------------------------------------------------------------------------------

    def _workers(self) -> list[str]:
        """The nodes that Longhorn uses."""
        nodes = sorted(self._store.view("v1", "Node"), key=name_of)
        return [name_of(node) for node in nodes if CONTROL_PLANE not in labels_of(node)] or list(map(name_of, nodes))

    def _disk(self, node: str) -> str:
        """What Longhorn has written to the disk of a node, to know it again."""
        machine = self._machines.get(node)
        return (machine.disk if machine else "") or f"disk-of-{node}"

    def _evicts(self, node: str) -> bool:
        home = self._store.find(API, "Node", node, NAMESPACE)
        return home is not None and bool(home["spec"].get("evictionRequested"))

    def _is_open(self, name: str, size: int = 0) -> bool:
        """Whether a node takes another replica of so many bytes."""
        node, home = self._store.find("v1", "Node", name), self._store.find(API, "Node", name, NAMESPACE)
        if node is None or not is_true(node, "Ready") or node.get("spec", {}).get("unschedulable"):
            return False
        if home is None:
            return True
        disk, recorded = (home["spec"].get("disks") or {}).get(DISK), _recorded(home)
        if disk is None or recorded not in ("", self._disk(name)):
            return False
        free = DISK_BYTES - disk.get("storageReserved", 0) - sum(self._scheduled(name).values())
        return bool(home["spec"]["allowScheduling"] and disk["allowScheduling"] and size <= free)

    def _scheduled(self, node: str) -> dict[str, int]:
        """The replicas on a node, each with its bytes."""
        replicas = [each for _, each in self._store.storage.scan(REPLICAS, NAMESPACE) if each["spec"]["nodeID"] == node]
        volumes = {name_of(each): each for each in self._store.view(API, "Volume", NAMESPACE)}
        sizes = {each["spec"]["volumeName"]: volumes.get(each["spec"]["volumeName"]) for each in replicas}
        return {
            name_of(each): int((sizes[each["spec"]["volumeName"]] or {"spec": {}})["spec"].get("size", 0))
            for each in replicas
        }

    def _keep_home(self, name: str) -> None:
        """Longhorn's own entry of a node: made when the node comes, and deleted only by a person once it is gone."""
        node, home = self._store.find("v1", "Node", name), self._store.find(API, "Node", name, NAMESPACE)
        if home is None:
            if node is None or name not in self._workers() or self._store.registry.find(API, "Node") is None:
                return
            disk = {"path": "/var/mnt/longhorn", "allowScheduling": True, "evictionRequested": False}
            spec = {"name": name, "allowScheduling": True, "evictionRequested": False, "disks": {DISK: disk}}
            metadata = {"name": name, "namespace": NAMESPACE}
            home = self._store.create({"apiVersion": API, "kind": "Node", "metadata": metadata, "spec": spec})
        ready = node is not None and is_true(node, "Ready")
        reason = "" if ready else "KubernetesNodeGone" if node is None else "KubernetesNodeNotReady"
        status = home.get("status") or {}
        conditions = with_condition(status.get("conditions") or [], "Ready", str(ready), reason)
        disks = {DISK: self._disk_status(name, home, ready=ready)} if DISK in (home["spec"].get("disks") or {}) else {}
        self._store.set_status(home, {**status, "conditions": conditions, "diskStatus": disks})

    def _disk_status(self, name: str, home: Obj, *, ready: bool) -> Obj:
        """What is known of a node's disk; another than the one recorded is not used, as Longhorn has it."""
        known, scheduled = _recorded(home) or self._disk(name), self._scheduled(name)
        strange = ready and known != self._disk(name)
        message = f"record diskUUID doesn't match the one on the disk {DISK} on node {name}" if strange else ""
        condition = ("Ready", str(not strange), "DiskFilesystemChanged" if strange else "", message)
        size, promised = 0 if strange else DISK_BYTES, sum(scheduled.values())
        old = ((home.get("status") or {}).get("diskStatus") or {}).get(DISK) or {}
        return {
            "conditions": with_condition(old.get("conditions") or [], *condition),
            "diskUUID": known,
            "scheduledReplica": scheduled,
            "storageMaximum": size,
            "storageAvailable": max(size - promised, 0),
            "storageScheduled": promised,
        }

    def _user(self, claim: tuple[str, str]) -> str:
        """The node of the pod that uses a claim; "" if none does."""
        for _, pod in self._store.storage.scan(("", "pods"), claim[0]):
            if claim[1] in claims_of(pod) and pod["spec"].get("nodeName"):
                return str(pod["spec"]["nodeName"])
        return ""

    def _until_rebuilt(self, node: str) -> float | None:
        """Lab seconds until the replicas of a node are healthy: 0 if they are, None while it is away."""
        node_object = self._store.find("v1", "Node", node)
        if node_object is None or not is_true(node_object, "Ready"):
            self._returned[node] = float("inf")
            return None
        since = self._returned.get(node)
        if since is None:
            return 0
        if since == float("inf"):
            since = self._returned[node] = self._clock.now()
        left = since + REBUILD_SECONDS - self._clock.now()
        if left > 0:
            return left
        del self._returned[node]
        return 0


def volume_of(store: Store, namespace: str, claim: str) -> str:
    """The name of the volume to which a claim is bound; "" if it is to none."""
    stored = store.find("v1", "PersistentVolumeClaim", claim, namespace) or {}
    return str((stored.get("spec") or {}).get("volumeName") or "")


def faulted_volume(store: Store, pod: Obj) -> str:
    """A volume of a pod that has no healthy replica; "" if there is none."""
    for claim in claims_of(pod):
        name = volume_of(store, namespace_of(pod), claim)
        volume = store.storage.get(RESTORED, (NAMESPACE, name)) if name else None
        if volume and (volume.get("status") or {}).get("robustness") == "faulted":
            return name
    return ""


def _recorded(home: Obj) -> str:
    """The disk that Longhorn expects in a node; "" if it has seen none yet."""
    disks = (home.get("status") or {}).get("diskStatus") or {}
    return str((disks.get(DISK) or {}).get("diskUUID") or "")


def _restored(volume: Obj) -> list[Key]:
    """A volume that is made from a backup; the others are kept by their PersistentVolumes."""
    return [("", name_of(volume))] if volume["spec"].get("fromBackup") else []


def _claim(volume: Obj) -> tuple[str, str]:
    """Namespace and name of the claim of a PersistentVolume."""
    reference = volume["spec"].get("claimRef") or {}
    return reference.get("namespace", ""), reference.get("name", "")
