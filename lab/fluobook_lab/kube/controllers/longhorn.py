"""Longhorn's volumes: one for each PersistentVolume of its driver, with replicas and health; and its backup targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook_lab.kube.controllers.loop import own_key
from fluobook_lab.kube.objects import claims_of, is_true, labels_of, name_of, namespace_of

if TYPE_CHECKING:
    from fluobook_lab.clock import Clock
    from fluobook_lab.kube.controllers.loop import Sources
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.storage import Key
    from fluobook_lab.kube.store import Store

DRIVER, NAMESPACE, API = "driver.longhorn.io", "longhorn-system", "longhorn.io/v1beta2"
VOLUMES = ("", "persistentvolumes")
REPLICAS, TARGETS = ("longhorn.io", "replicas"), ("longhorn.io", "backuptargets")
RESTORED, BACKUPS = ("longhorn.io", "volumes"), ("longhorn.io", "backups")
CREDENTIALS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
REBUILD_SECONDS = 20.0
"""Lab seconds from the return of a node until its replicas are healthy again."""


class Longhorn:
    """Makes volumes.longhorn.io, and keeps state and robustness: healthy, degraded, faulted; unknown while detached.

    A replica is lost while its node is not Ready, and is rebuilt some time after the node has returned; one with a time
    in `failedAt` is lost until that is removed. A backup target is available with a URL and credentials, and takes no
    backups; a volume that is made from one (`fromBackup`) is restored if there is a complete Backup of that URL.

    Args:
        store: the cluster.
        clock: the lab's clock.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._returned: dict[str, float] = {}
        everything: Sources = dict.fromkeys((("", "nodes"), ("", "pods")), self._concerned)
        self.sources: Sources = {VOLUMES: own_key, REPLICAS: _volume_of, **everything}
        self.sources |= {TARGETS: own_key, ("", "secrets"): self._targets, RESTORED: _restored, BACKUPS: self._waiting}

    def _concerned(self, obj: Obj) -> list[Key]:
        """All volumes for a node; for a pod those of its claims."""
        claims = None
        if obj["kind"] == "Pod":
            claims = {(namespace_of(obj), name) for name in claims_of(obj)}
            if not claims:
                return []
        return [key for key, volume in self._store.storage.scan(VOLUMES) if claims is None or _claim(volume) in claims]

    def _targets(self, secret: Obj) -> list[Key]:
        found = self._store.storage.scan(TARGETS, NAMESPACE) if namespace_of(secret) == NAMESPACE else []
        return [key for key, target in found if target["spec"].get("credentialSecret") == name_of(secret)]

    def reconcile(self, key: Key) -> float | None:
        """As in `Controller`; a key without a namespace is a volume's, others are those of backup targets."""
        if key[0]:
            self._open(key[1])
            return None
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
        made = self._store.find(API, "Volume", key[1], NAMESPACE) or self._make(volume)
        return self._report(volume, made)

    def _delete(self, name: str) -> None:
        """Delete the volume of a PersistentVolume that is gone, with its replicas."""
        names = [
            key[1]
            for key, replica in self._store.storage.scan(REPLICAS, NAMESPACE)
            if replica["spec"]["volumeName"] == name
        ]
        for kind, each in [("Replica", replica) for replica in names] + [("Volume", name)]:
            if self._store.find(API, kind, each, NAMESPACE):
                self._store.delete(API, kind, each, NAMESPACE)

    def _open(self, name: str) -> None:
        """Report a backup target as available if it has a URL, and a Secret with the keys for it."""
        if (target := self._store.find(API, "BackupTarget", name, NAMESPACE)) is None:
            return
        url, secret = target["spec"].get("backupTargetURL"), target["spec"].get("credentialSecret") or ""
        credentials = (self._store.find("v1", "Secret", secret, NAMESPACE) or {}).get("data") or {}
        message = "" if credentials.keys() >= CREDENTIALS else f"cannot find {' and '.join(sorted(CREDENTIALS))}"
        message = message if url else "backup target URL is empty"
        condition = {"type": "Unavailable", "status": str(bool(message)), "message": message}
        self._store.set_status(target, {"available": not message, "conditions": [condition]})

    def _waiting(self, backup: Obj) -> list[Key]:
        """The volumes that are made from a backup."""
        url = (backup.get("status") or {}).get("url")
        found = self._store.storage.scan(RESTORED, NAMESPACE)
        return [("", key[1]) for key, volume in found if url and volume["spec"].get("fromBackup") == url]

    def _restore(self, made: Obj) -> Obj | None:
        """Restore a volume from its backup; the volume once its data is there."""
        old, url = made.get("status") or {}, made["spec"]["fromBackup"]
        if old.get("restoreRequired") is False:
            return made
        backups = (backup.get("status") or {} for _, backup in self._store.storage.scan(BACKUPS, NAMESPACE))
        found = any((status.get("url"), status.get("state")) == (url, "Completed") for status in backups)
        if found:
            self._replicate(name_of(made), made["spec"].get("numberOfReplicas", 1))
        condition = {"type": "Restore", "status": str(found), "message": "" if found else f"cannot find backup {url}"}
        status = {"state": "detached", "robustness": "unknown", "restoreRequired": not found}
        reported = self._store.set_status(made, {**old, **status, "conditions": [condition]})
        return reported if found else None

    def _make(self, volume: Obj) -> Obj:
        """The volume, with as many replicas as its class wants."""
        wanted = self._replicas(volume)
        metadata: Obj = {"name": name_of(volume), "namespace": NAMESPACE}
        spec = {"numberOfReplicas": wanted, "frontend": "blockdev", "dataEngine": "v1"}
        made = self._store.create({"apiVersion": API, "kind": "Volume", "metadata": metadata, "spec": spec})
        self._replicate(name_of(volume), wanted)
        return made

    def _replicate(self, volume: str, wanted: int) -> None:
        """Make the replicas of a volume, on the nodes that have a disk for them."""
        nodes = sorted(self._store.view("v1", "Node"), key=name_of)
        workers = [name_of(node) for node in nodes if CONTROL_PLANE not in labels_of(node)] or list(map(name_of, nodes))
        first = sum(map(ord, volume)) % len(workers) if workers else 0
        chosen = [workers[(first + number) % len(workers)] for number in range(min(wanted, len(workers)))]
        for number, node in enumerate(chosen):
            labels = {"longhornvolume": volume}
            replica: Obj = {"metadata": {"name": f"{volume}-r-{number}", "namespace": NAMESPACE, "labels": labels}}
            replica["spec"] = {"volumeName": volume, "nodeID": node, "dataEngine": "v1"}
            self._store.create({"apiVersion": API, "kind": "Replica", **replica})

    def _replicas(self, volume: Obj) -> int:
        storage_class = self._store.find("storage.k8s.io/v1", "StorageClass", volume["spec"]["storageClassName"])
        return int(((storage_class or {}).get("parameters") or {}).get("numberOfReplicas", 1))

    def _report(self, volume: Obj, made: Obj) -> float | None:
        """Set state and robustness; the lab seconds until a rebuild ends."""
        user = self._user(_claim(volume))
        healthy, wait = 0, 0.0
        replicas = [
            replica
            for _, replica in self._store.storage.scan(REPLICAS, NAMESPACE)
            if replica["spec"]["volumeName"] == name_of(volume)
        ]
        for replica in replicas:
            # One that has failed stays so: what Longhorn would need to rebuild it is not in the lab.
            left = None if replica["spec"].get("failedAt") else self._until_rebuilt(replica["spec"]["nodeID"])
            healthy += left == 0
            wait = max(wait, left or 0.0)
        robustness = "healthy" if healthy == made["spec"]["numberOfReplicas"] else "degraded" if healthy else "faulted"
        status: dict[str, Any] = {
            "state": "attached" if user else "detached",
            "robustness": robustness if user or robustness == "faulted" else "unknown",
            "currentNodeID": user,
        }
        self._store.set_status(made, {**(made.get("status") or {}), **status})
        return wait or None

    def _user(self, claim: tuple[str, str]) -> str:
        """The node of the pod that uses a claim; "" if none does."""
        for _, pod in self._store.storage.scan(("", "pods"), claim[0]):
            if claim[1] in claims_of(pod) and pod["spec"].get("nodeName"):
                return str(pod["spec"]["nodeName"])
        return ""

    def _until_rebuilt(self, node: str) -> float | None:
        """Lab seconds until the replicas of a node are healthy: 0 if they are, None while it is away."""
        found = self._store.find("v1", "Node", node)
        if found is None or not is_true(found, "Ready"):
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


def _volume_of(replica: Obj) -> list[Key]:
    return [("", replica["spec"]["volumeName"])]


def _restored(volume: Obj) -> list[Key]:
    """A volume that is made from a backup; the others are kept by their PersistentVolumes."""
    return [("", name_of(volume))] if volume["spec"].get("fromBackup") else []


def _claim(volume: Obj) -> tuple[str, str]:
    """Namespace and name of the claim of a PersistentVolume."""
    reference = volume["spec"].get("claimRef") or {}
    return reference.get("namespace", ""), reference.get("name", "")
