"""Events: what controllers and kubelets tell about objects, one object for each thing that happened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook_lab.kube.objects import name_of, namespace_of, timestamp

if TYPE_CHECKING:
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.store import Store


def record(store: Store, about: Obj, reason: str, message: str, *, source: str, warning: bool = False) -> None:
    """Tell something about an object; the same thing told again counts up."""
    namespace = namespace_of(about) or "default"
    name = f"{name_of(about)}.{reason.lower()}"[:250]
    now = timestamp()
    old = store.find("v1", "Event", name, namespace)
    if old is not None:
        if old["message"] != message:
            store.update({**old, "message": message, "lastTimestamp": now, "count": old["count"] + 1})
        return
    involved = {key: about[key] for key in ("apiVersion", "kind")}
    involved |= {"name": name_of(about), "namespace": namespace_of(about), "uid": about["metadata"]["uid"]}
    event: Obj = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": namespace}}
    event |= {"involvedObject": involved, "reason": reason, "message": message, "source": {"component": source}}
    event |= {"type": "Warning" if warning else "Normal", "count": 1, "firstTimestamp": now, "lastTimestamp": now}
    store.create(event)
