"""Longhorn in a lab, without Argo CD: what its chart brings, as far as a canary volume needs it."""

from __future__ import annotations

from typing import Any

from fluobook_lab.kube.controllers.longhorn import API, NAMESPACE

from fluobook.stages.day_two.canary import DRIVER, MANAGER, NAME, read_longhorn

IMAGE = "docker.io/longhornio/longhorn-manager:v1.12.1"


def crd(plural: str, kind: str) -> dict[str, Any]:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1beta2", "served": True, "storage": True, "subresources": {"status": {}}, "schema": schema}
    names = {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"}
    spec = {"group": "longhorn.io", "scope": "Namespaced", "names": names, "versions": [version]}
    head = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    return {**head, "metadata": {"name": f"{plural}.longhorn.io"}, "spec": spec}


def deployed() -> list[dict[str, Any]]:
    labels = {"app": MANAGER}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": MANAGER, "image": IMAGE}]}}
    metadata = {"name": MANAGER, "namespace": NAMESPACE}
    spec = {"selector": {"matchLabels": labels}, "template": pod}
    storage = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": DRIVER}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        crd("volumes", "Volume"),
        crd("replicas", "Replica"),
        {**storage, "metadata": {"name": "longhorn"}, "parameters": {"numberOfReplicas": "2"}},
        {**storage, "metadata": {"name": "kept"}, "reclaimPolicy": "Retain"},
        {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": metadata, "spec": spec},
    ]


def workload() -> dict[str, Any]:
    """A StatefulSet in `default` whose pod has a volume with as many replicas as the class longhorn has."""
    labels = {"app": "data"}
    claim: dict[str, Any] = {"accessModes": ["ReadWriteOnce"], "storageClassName": "longhorn"}
    claim["resources"] = {"requests": {"storage": "1Gi"}}
    container = {"name": "main", "image": "lab.invalid/data:1"}
    spec: dict[str, Any] = {"replicas": 1, "serviceName": "data", "selector": {"matchLabels": labels}}
    spec["template"] = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec["volumeClaimTemplates"] = [{"metadata": {"name": "data"}, "spec": claim}]
    metadata = {"name": "data", "namespace": "default"}
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata, "spec": spec}


def deploy(context: Any) -> None:
    """Deploy it, and wait until it runs on every node that takes its pods."""
    kube = context.kube()
    for obj in deployed():
        kube.create(obj)

    def runs() -> bool | None:
        status = kube.get("apps/v1", "DaemonSet", MANAGER, NAMESPACE).get("status") or {}
        wanted = status.get("desiredNumberScheduled")
        return True if wanted and status.get("numberReady") == wanted == len(read_longhorn(kube).nodes) else None

    context.wait_until("nodes_ready", "Longhorn to run", runs)


def left(kube: Any, *, of_all: bool = True) -> list[str]:
    """What is left of canaries.

    Args:
        kube: the cluster.
        of_all: no other volumes are there, so that each one is a canary's.
    """
    kinds = (("batch/v1", "Job"), ("v1", "Pod"), ("v1", "PersistentVolumeClaim"))
    found = [obj for kind in kinds for obj in kube.list(*kind, NAMESPACE, labels=f"app={NAME}")]
    volumes = [*kube.list("v1", "PersistentVolume"), *kube.list(API, "Volume", NAMESPACE)]
    return [obj["metadata"]["name"] for obj in [*found, *(volumes if of_all else ())]]
