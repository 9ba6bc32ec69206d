"""What a pod needs before its containers can start: Secrets, ConfigMaps and bound claims."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook_lab.kube.objects import namespace_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.store import Store

_VOLUMES = (("secret", "Secret", "secretName"), ("configMap", "ConfigMap", "name"))
_VALUES = (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap"))
_SOURCES = (("secretRef", "Secret"), ("configMapRef", "ConfigMap"))


def missing_for_volumes(store: Store, pod: Obj) -> str:
    """The first object that a volume waits for, "" if all are there."""
    for volume in pod["spec"].get("volumes") or []:
        if claim := volume.get("persistentVolumeClaim"):
            found = store.find("v1", "PersistentVolumeClaim", claim["claimName"], namespace_of(pod))
            if found is None or found["status"].get("phase") != "Bound":
                return f'persistentvolumeclaim "{claim["claimName"]}"'
        for key, kind, name in _VOLUMES:
            if missing := _missing(store, pod, kind, volume.get(key), name):
                return missing
    return ""


def missing_for_containers(store: Store, pod: Obj) -> str:
    """The first object that an environment variable waits for, "" if all are there."""
    return next((missing for kind, told in _environment(pod) if (missing := _missing(store, pod, kind, told))), "")


def _environment(pod: Obj) -> Iterator[tuple[str, Obj]]:
    for container in [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]:
        for item in container.get("env") or []:
            source = item.get("valueFrom") or {}
            yield from ((kind, source[key]) for key, kind in _VALUES if key in source)
        for source in container.get("envFrom") or []:
            yield from ((kind, source[key]) for key, kind in _SOURCES if key in source)


def _missing(store: Store, pod: Obj, kind: str, told: Obj | None, name: str = "name") -> str:
    if not told or told.get("optional") or store.find("v1", kind, told.get(name, ""), namespace_of(pod)):
        return ""
    return f'{kind.lower()} "{told.get(name, "")}"'
