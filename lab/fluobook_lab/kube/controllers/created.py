"""What programs of the platform create when they run, beside the objects of their charts (created.yaml)."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import yaml

from fluobook_lab.kube.objects import data_file, is_true, name_of, namespace_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fluobook_lab.kube.controllers.loop import Sources
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.storage import Key
    from fluobook_lab.kube.store import Store

CREATED: list[Obj] = data_file("controllers/created.yaml")
PLACEHOLDER = "bGFi"
"""The value of keys in a Secret that no program of the lab reads."""
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
        definitions = entry["definitions"]
        return [_definition(definitions["group"], kind, **options) for kind, options in definitions["kinds"].items()]


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
