"""Claims are bound once their StorageClass is there and its driver runs, and their volumes go with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.kubernetes.quantities import amount
from fluobook_lab.kube.controllers.loop import Delays, own_key
from fluobook_lab.kube.objects import annotations_of, clone, name_of, namespace_of, owner_reference

if TYPE_CHECKING:
    from fluobook_lab.clock import Clock
    from fluobook_lab.kube.controllers.loop import Sources
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.storage import Key
    from fluobook_lab.kube.store import Store

CLAIMS = ("", "persistentvolumeclaims")
CLASSES = ("storage.k8s.io", "storageclasses")
VOLUMES = ("", "persistentvolumes")
DEFAULT = "storageclass.kubernetes.io/is-default-class"
BIND_SECONDS = (0.5, 2.0)
DRIVERS = {"driver.longhorn.io": ("longhorn-system", "longhorn-manager")}
"""Provisioners that are a DaemonSet: namespace and name; others bind at once."""


class Volumes:
    """Makes a PersistentVolume for each claim that names none, and deletes it after the claim unless it is retained.

    Args:
        store: the cluster.
        clock: the lab's clock.
        seed: makes delays the same in every run.
    """

    def __init__(self, store: Store, clock: Clock, seed: int) -> None:
        self._store = store
        self._delays = Delays(clock, seed)
        self.sources: Sources = {CLAIMS: own_key, CLASSES: self._pending, ("apps", "daemonsets"): self._pending}
        self.sources[VOLUMES] = self._pending

    def _pending(self, obj: Obj) -> list[Key]:
        del obj
        claims = self._store.storage.scan(CLAIMS)
        return [key for key, claim in claims if (claim.get("status") or {}).get("phase") != "Bound"]

    def reconcile(self, key: Key) -> float | None:
        """As in `Controller`."""
        claim = self._store.find("v1", "PersistentVolumeClaim", key[1], key[0])
        if claim is None:
            self._delete_volume(key)
        if claim is None or (claim.get("status") or {}).get("phase") == "Bound":
            return None
        if not claim["metadata"]["uid"]:
            return None  # the real API has not stored it yet; its event brings the uid, after which volumes are named
        if claim["spec"].get("volumeName"):
            self._bind_named(claim)
            return None
        storage_class = self._class(claim)
        if storage_class is None or not self._driver_runs(storage_class["provisioner"]):
            return None
        left = self._delays.left(claim["metadata"]["uid"], f"bind/{key}", BIND_SECONDS)
        if left > 0:
            return left
        self._bind(claim, storage_class)
        return None

    def _bind_named(self, claim: Obj) -> None:
        """Bind a claim to the volume that it names, if that is for it: by reference, class and size."""
        volume = self._store.find("v1", "PersistentVolume", claim["spec"]["volumeName"])
        own = {"namespace": namespace_of(claim), "name": name_of(claim), "uid": claim["metadata"]["uid"]}
        reference = (volume["spec"].get("claimRef") if volume else None) or {}
        if volume is None or any(reference.get(key, value) != value for key, value in own.items()):
            return
        wanted, classes = claim["spec"]["resources"]["requests"]["storage"], (claim["spec"], volume["spec"])
        capacity = volume["spec"]["capacity"]
        if len({spec.get("storageClassName", "") for spec in classes}) > 1:
            return
        if amount(capacity["storage"]) < amount(wanted):
            return
        body = {"spec": {"claimRef": {"kind": "PersistentVolumeClaim", "apiVersion": "v1", **own}}}
        bound = self._store.patch("v1", "PersistentVolume", name_of(volume), body=body)
        self._store.set_status(bound, {"phase": "Bound"})
        status = {"phase": "Bound", "accessModes": volume["spec"]["accessModes"], "capacity": capacity}
        self._store.set_status(claim, status)

    def _delete_volume(self, claim: Key) -> None:
        """Delete the volume of a claim that is gone."""
        for _, volume in self._store.storage.scan(VOLUMES):
            reference = volume["spec"].get("claimRef") or {}
            if (reference.get("namespace"), reference.get("name")) != claim:
                continue
            if volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete":
                self._store.delete("v1", "PersistentVolume", name_of(volume))
                return

    def _class(self, claim: Obj) -> Obj | None:
        wanted = claim["spec"].get("storageClassName")
        if wanted is not None:
            return self._store.find("storage.k8s.io/v1", "StorageClass", wanted)
        classes = self._store.view("storage.k8s.io/v1", "StorageClass")
        return next((item for item in classes if annotations_of(item).get(DEFAULT) == "true"), None)

    def _driver_runs(self, provisioner: str) -> bool:
        if provisioner not in DRIVERS:
            return True
        namespace, name = DRIVERS[provisioner]
        driver = self._store.find("apps/v1", "DaemonSet", name, namespace)
        return driver is not None and (driver.get("status") or {}).get("numberReady", 0) > 0

    def _bind(self, claim: Obj, storage_class: Obj) -> None:
        uid = claim["metadata"]["uid"]
        volume, capacity = f"pvc-{uid}", {"storage": claim["spec"]["resources"]["requests"]["storage"]}
        modes = claim["spec"].get("accessModes") or ["ReadWriteOnce"]
        reference = {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "name": name_of(claim), "uid": uid}
        spec = {
            "capacity": capacity,
            "accessModes": modes,
            "claimRef": {**reference, "namespace": namespace_of(claim)},
            "storageClassName": name_of(storage_class),
            "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy", "Delete"),
            "csi": {"driver": storage_class["provisioner"], "volumeHandle": volume},
        }
        if self._store.find("v1", "PersistentVolume", volume) is None:
            made = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume}, "spec": spec}
            self._store.set_status(self._store.create(made), {"phase": "Bound"})
        body = {"spec": {"volumeName": volume, "storageClassName": name_of(storage_class)}}
        bound = self._store.patch("v1", "PersistentVolumeClaim", name_of(claim), namespace_of(claim), body=body)
        self._store.set_status(bound, {"phase": "Bound", "accessModes": modes, "capacity": capacity})


class EphemeralVolumes:
    """Makes the claims of the volumes that live and die with their pod."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.sources: Sources = {("", "pods"): own_key}

    def reconcile(self, key: Key) -> float | None:
        """As in `Controller`."""
        pod = self._store.find("v1", "Pod", key[1], key[0])
        if pod is None or pod["metadata"].get("deletionTimestamp"):
            return None
        for volume in pod["spec"].get("volumes") or []:
            name = f"{key[1]}-{volume['name']}"
            if not volume.get("ephemeral") or self._store.find("v1", "PersistentVolumeClaim", name, key[0]):
                continue
            template = clone(volume["ephemeral"]["volumeClaimTemplate"])
            metadata = {**(template.get("metadata") or {}), "name": name, "namespace": key[0]}
            metadata["ownerReferences"] = [owner_reference(pod)]
            claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata}
            self._store.create({**claim, "spec": template["spec"]})
        return None
