"""Objects that a stage makes and Argo CD keeps: applied so that Argo CD takes them over without a difference.

They are applied under Argo CD's own field manager. Under another one, each field would have two owners from then on,
and what a later commit takes out would stay in the cluster: server-side apply removes a field with its last owner only,
and Argo CD, which compares by server-side apply too, would not even show it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fluobook.errors import Rejected
from fluobook.stages.core.executor import in_parallel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fluobook.clients.kube import Kube

    Obj = dict[str, Any]

MANAGER = "argocd-controller"
"""The field manager of Argo CD's server-side apply."""
TRACKING = "argocd.argoproj.io/tracking-id"
"""The annotation by which Argo CD knows its objects."""
READS = 4
"""How often an object is read while others keep writing it."""
_OF_THE_SERVER = ("managedFields", "resourceVersion", "generation", "creationTimestamp", "uid")


@dataclass(frozen=True)
class Compared:
    """The desired and the live object (None: it does not exist); `differs` is what applying it would report."""

    wanted: Obj = field(repr=False)
    live: Obj | None = field(repr=False)
    differs: bool

    @property
    def missing(self) -> bool:
        """Whether it is not there."""
        return self.live is None

    @property
    def title(self) -> str:
        """Kind and name, for people: "Deployment argocd-server"."""
        return title(self.wanted)


def title(obj: Mapping[str, Any]) -> str:
    """Kind and name of an object."""
    return f"{obj['kind']} {obj['metadata']['name']}"


def compare(kube: Kube, wanted: Obj, *, manager: str = MANAGER) -> Compared:
    """Ask the server what applying would change, by a dry run: so defaults and other managers' fields do not count.

    An object that was written between the two reads is read again: that write is no difference.
    """
    for _ in range(READS - 1):
        compared, moved = _compare(kube, wanted, manager)
        if not (compared.differs and moved):
            return compared
    return _compare(kube, wanted, manager)[0]


def _compare(kube: Kube, wanted: Obj, manager: str) -> tuple[Compared, bool]:
    """As `compare`, once; and whether the object was written meanwhile."""
    metadata = wanted["metadata"]
    live = kube.find(wanted["apiVersion"], wanted["kind"], metadata["name"], metadata.get("namespace", ""))
    if live is None:
        return Compared(wanted, None, differs=True), False
    try:
        then = kube.apply(_still_tracked(wanted, live), force=True, dry_run=True, manager=manager)
    except Rejected:
        return Compared(wanted, live, differs=True), False
    moved = then["metadata"].get("resourceVersion") != live["metadata"].get("resourceVersion")
    return Compared(wanted, live, differs=_essence(then) != _essence(live)), moved


def compare_all(kube: Kube, objects: Sequence[Obj]) -> list[Compared]:
    """As `compare`, in parallel; the results are in the order given."""
    return in_parallel(lambda obj: compare(kube, obj), objects)


def apply(kube: Kube, wanted: Obj, *, manager: str = MANAGER) -> Obj:
    """Apply the desired object; Argo CD's tracking annotation on it stays.

    Raises:
        OutsideError: the API refuses.
    """
    metadata = wanted["metadata"]
    live = kube.find(wanted["apiVersion"], wanted["kind"], metadata["name"], metadata.get("namespace", ""))
    return kube.apply(_still_tracked(wanted, live or {}), force=True, manager=manager)


def _still_tracked(wanted: Obj, live: Mapping[str, Any]) -> Obj:
    """The object with the tracking id that Argo CD gave it: the same manager would else take it away."""
    mark = ((live.get("metadata") or {}).get("annotations") or {}).get(TRACKING)
    if not mark:
        return wanted
    metadata = wanted["metadata"]
    return {**wanted, "metadata": {**metadata, "annotations": {**(metadata.get("annotations") or {}), TRACKING: mark}}}


def _essence(obj: Mapping[str, Any]) -> Obj:
    """An object without what the server and its controllers write."""
    metadata = {key: value for key, value in obj["metadata"].items() if key not in _OF_THE_SERVER}
    return {**{key: value for key, value in obj.items() if key not in ("status", "operation")}, "metadata": metadata}
