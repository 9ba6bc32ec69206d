"""What programs of the platform create when they run, beside the objects of their charts (created.yaml)."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import yaml

from fluobook_lab.kube.controllers.backups import BUCKET_FAULT
from fluobook_lab.kube.objects import (
    controller_of,
    data_file,
    is_true,
    labels_of,
    name_of,
    namespace_of,
    with_condition,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fluobook_lab.faults import Faults
    from fluobook_lab.kube.controllers.loop import Sources
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.storage import Key
    from fluobook_lab.kube.store import Store

CREATED: list[Obj] = data_file("controllers/created.yaml")
PLACEHOLDER = "bGFi"
"""The value of keys in a Secret that no program of the lab reads."""
ENDING = {
    (entry["program"]["namespace"], entry["program"]["name"]): entry["fails_unless"]
    for entry in CREATED
    if "fails_unless" in entry
}
FAULTY = {
    (entry["program"]["namespace"], entry["program"]["name"]): entry["fails_with"]
    for entry in CREATED
    if "fails_with" in entry
}
"""The Jobs whose end depends on the configuration, and those that end with a fault."""
NAME = "app.kubernetes.io/name"
EXPORTING = {"rabbitmq-definitions": BUCKET_FAULT}
"""By their label, the pods of CronJobs that end with a fault; their Jobs have names of every time."""
AGE = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}


class Created:
    """Creates what is missing as soon as a program runs."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.sources: Sources = {("apps", plural): self._key for plural in ("daemonsets", "deployments")}
        self.sources |= {("batch", "jobs"): self._key, ("", "configmaps"): self._of_configuration}

    def _key(self, workload: Obj) -> list[Key]:
        return [(namespace_of(workload), name_of(workload))]

    def _of_configuration(self, config: Obj) -> list[Key]:
        source = (namespace_of(config), name_of(config))
        return [_key(entry) for entry in CREATED if (_key(entry)[0], entry.get("from", {}).get("name")) == source]

    def reconcile(self, key: Key) -> float | None:
        """As in `Controller`."""
        for entry in CREATED:
            namespace, pattern = _key(entry)
            if namespace != key[0] or not fnmatchcase(key[1], pattern) or not self._runs(entry["program"], key[1]):
                continue
            for obj in self._objects(entry):
                if self._store.find(obj["apiVersion"], obj["kind"], name_of(obj), namespace_of(obj)) is None:
                    self._store.create(obj)
        return None

    def _runs(self, program: Obj, name: str) -> bool:
        version = "batch/v1" if program["kind"] == "Job" else "apps/v1"
        workload = self._store.find(version, program["kind"], name, program["namespace"])
        if workload is None:
            return False
        status = workload.get("status") or {}
        return is_true(workload, "Available") or any(
            status.get(count) for count in ("numberReady", "active", "succeeded")
        )

    def _objects(self, entry: Obj) -> Iterable[Obj]:
        if source := entry.get("from"):
            config = self._store.find("v1", "ConfigMap", source["name"], entry["program"]["namespace"])
            return [yaml.safe_load(config["data"][source["key"]])] if config else []
        if secrets := entry.get("secrets"):
            return [_secret(entry["program"]["namespace"], name, keys) for name, keys in secrets.items()]
        definitions = entry.get("definitions", {"group": "", "kinds": {}})
        return [_definition(definitions["group"], kind, **options) for kind, options in definitions["kinds"].items()]


class Ends:
    """Ends the pods of Jobs that depend on the configuration or a fault, where another program runs all others."""

    def __init__(self, store: Store, faults: Faults) -> None:
        self._store, self._faults = store, faults
        self.sources: Sources = {
            ("", "pods"): lambda pod: [(namespace_of(pod), name_of(pod))] if _job(pod) in ENDING | FAULTY else []
        }

    def reconcile(self, key: Key) -> float | None:
        """As in `Controller`."""
        pod = self._store.find("v1", "Pod", key[1], key[0])
        if pod and pod["status"].get("phase") == "Running":
            self._store.set_status(pod, {**pod["status"], **ended(pod, exit_code(self._store, pod, self._faults))})
        return None


def exit_code(store: Store, pod: Obj, faults: Faults) -> int:
    """With which code the containers of a Job's pod end."""
    if (fault := FAULTY.get(_job(pod)) or EXPORTING.get(labels_of(pod).get(NAME, ""))) and faults.on(fault):
        return 1
    if not (needed := ENDING.get(_job(pod))):
        return 0
    config = store.find("v1", "ConfigMap", needed["name"], namespace_of(pod))
    text = (config or {}).get("data", {}).get(needed["key"], "")
    return int(needed["text"] not in text.replace('"', ""))


def ended(pod: Obj, code: int) -> Obj:
    """The status of a pod whose containers ended with a code."""
    state = {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}
    conditions = (pod.get("status") or {}).get("conditions") or []
    for kind in ("Ready", "ContainersReady"):
        conditions = with_condition(conditions, kind, "False", "PodFailed" if code else "PodCompleted")
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return {
        "phase": "Failed" if code else "Succeeded",
        "conditions": conditions,
        "containerStatuses": [{**status, "ready": False, "started": False, "state": state} for status in statuses],
    }


def _job(pod: Obj) -> Key:
    owner = controller_of(pod)
    return (namespace_of(pod), owner["name"] if owner and owner["kind"] == "Job" else "")


def _key(entry: Obj) -> Key:
    return (entry["program"]["namespace"], entry["program"]["name"])


def _secret(namespace: str, name: str, keys: Iterable[str]) -> Obj:
    metadata, data = {"name": name, "namespace": namespace}, dict.fromkeys(keys, PLACEHOLDER)
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": data}


def _definition(
    group: str, kind: str, *, names: list[str], version: str = "v2", scope: str = "Cluster", columns: Iterable[Obj] = ()
) -> Obj:
    plural, *short = names
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    served: dict[str, Any] = {"name": version, "served": True, "storage": True, "schema": schema}
    served |= {"subresources": {"status": {}}, "additionalPrinterColumns": [*columns, AGE]}
    kinds = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower(), "shortNames": short}
    spec = {"group": group, "scope": scope, "names": kinds, "versions": [served]}
    metadata = {"name": f"{plural}.{group}"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": metadata,
        "spec": spec,
    }
