"""An Application that is being deleted takes its objects with it, if it carries the finalizer that says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook_lab.argocd.names import CONTROLLER, FINALIZER, options_of
from fluobook_lab.kube.errors import ApiError
from fluobook_lab.kube.identity import Write

if TYPE_CHECKING:
    from fluobook_lab.argocd.cluster import Cluster
    from fluobook_lab.kube.objects import Obj


def finalize(cluster: Cluster, app: Obj) -> str:
    """Delete what is left of an Application's objects, then let it go; why it cannot go, "" if it can."""
    metadata = app["metadata"]
    ours = [one for one in metadata.get("finalizers") or () if one.split("/")[0] == FINALIZER]
    if not ours:
        return ""
    left = [obj for obj in cluster.owned(metadata["name"]).values() if "Delete=false" not in options_of(obj)]
    for obj in left:
        place = obj["metadata"]
        if place.get("deletionTimestamp"):
            continue
        try:
            cluster.store.delete(obj["apiVersion"], obj["kind"], place["name"], place.get("namespace", ""))
        except ApiError as error:
            if error.code != 404:  # noqa: PLR2004
                return error.message
    if not left:
        kept = [one for one in metadata["finalizers"] if one not in ours]
        current = cluster.store.find(app["apiVersion"], app["kind"], metadata["name"], metadata["namespace"])
        if current:
            current["metadata"]["finalizers"] = kept
            cluster.store.update(current, Write(manager=CONTROLLER))
    return ""
