"""Longhorn when a node leaves: what keeps the copies of volumes there, their way to other nodes, the node's entry.

A copy is evicted while the node lives: Longhorn makes another one first, then deletes it. Copies on a node that is gone
are deleted, so that Longhorn makes others at once; the only copy of a volume never without its name being typed. The
same goes for the copies on a disk in whose place there is another one, which is then made known to Longhorn.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fluobook.clients.kube import Kube
from fluobook.context import RunContext
from fluobook.errors import KUBECTL, AccessDenied, FluobookError
from fluobook.machine.contracts import value_at
from fluobook.stages.core.executor import Reporter
from fluobook.stages.core.readiness import has_condition, listed
from fluobook.stages.day_two.drain import CORDONED_BY, LONGHORN, LONGHORN_API, SHOWN, Load, setting_of

Obj = Mapping[str, Any]

PROVISIONING = "storage-over-provisioning-percentage"
GONE = frozenset({"KubernetesNodeGone", "ManagerPodMissing"})
"""Why Longhorn's entry of a node is not ready, so that Longhorn lets it be deleted."""

REPLACED = "DiskFilesystemChanged", "doesn't match"
"""Reason and message of a disk that is not ready because it is another one than Longhorn knows."""
RENEWED = "fluobook/disks"
"""The annotation of Longhorn's entry of a node with the disks that are taken out of it and added again."""


@dataclass(frozen=True)
class Storage:
    """What Longhorn has, as far as it decides whether a node can leave.

    Args:
        homes: Longhorn's own entries of nodes.
        volumes: all volumes.
        replicas: the copies of all volumes.
        nodes: the Nodes of Kubernetes.
        provisioning: how much of a disk may be promised to volumes, in percent.
    """

    homes: Sequence[Obj] = ()
    volumes: Sequence[Obj] = ()
    replicas: Sequence[Obj] = ()
    nodes: Sequence[Obj] = field(default=(), repr=False)
    provisioning: int = 100

    @property
    def names(self) -> list[str]:
        """The nodes that Longhorn has an entry of."""
        return [home["metadata"]["name"] for home in self.homes]

    def home(self, name: str) -> Obj | None:
        """Longhorn's entry of a node."""
        return next((home for home in self.homes if home["metadata"]["name"] == name), None)

    def on(self, name: str) -> list[Obj]:
        """The copies on a node."""
        return [replica for replica in self.replicas if replica["spec"].get("nodeID") == name]

    def of(self, volume: str) -> list[Obj]:
        """The copies of a volume."""
        return [replica for replica in self.replicas if replica["spec"].get("volumeName") == volume]

    def title(self, volume: str) -> str:
        """A volume as people know it: its claim, if it has one."""
        volume_object = next((each for each in self.volumes if each["metadata"]["name"] == volume), {})
        status = value_at(volume_object, "status.kubernetesStatus") or {}
        return f"{volume} ({status['namespace']}/{status['pvcName']})" if status.get("pvcName") else volume

    def with_only(self, name: str, disks: Collection[str]) -> Storage:
        """The same, with those copies on one node that lie on disks of these UUIDs."""
        kept = [
            each for each in self.replicas if each["spec"].get("nodeID") != name or each["spec"].get("diskID") in disks
        ]
        return replace(self, replicas=kept)


def is_whole(replica: Obj) -> bool:
    """Whether a copy has all data, as far as it says itself."""
    spec = replica.get("spec") or {}
    return not spec.get("failedAt") and spec.get("healthyAt") != ""


def read_storage(kube: Kube, load: Load, nodes: Sequence[Obj]) -> Storage:
    """What Longhorn has; nothing in a cluster without it."""
    homes = listed(kube, LONGHORN_API, "Node", LONGHORN)
    share = setting_of(kube, PROVISIONING) if homes else ""
    return Storage(homes, load.volumes, load.replicas, nodes, int(share) if share.isdecimal() else 100)


def free_bytes(storage: Storage, home: Obj) -> int:
    """Bytes that may still be promised on the roomiest disk that takes copies; 0 if none does."""
    disks, status = value_at(home, "spec.disks") or {}, value_at(home, "status.diskStatus") or {}
    free = [0]
    for name, disk in disks.items():
        reported = status.get(name) or {}
        if disk.get("allowScheduling") and not disk.get("evictionRequested") and "storageMaximum" in reported:
            limit = (reported["storageMaximum"] - disk.get("storageReserved", 0)) * storage.provisioning // 100
            free.append(limit - reported.get("storageScheduled", 0))
    return max(free)


def open_homes(storage: Storage, leaving: Collection[str]) -> dict[str, int]:
    """The nodes that take copies, each with the bytes that it has left."""
    usable = {
        node["metadata"]["name"]
        for node in storage.nodes
        if has_condition(node, "Ready") and not value_at(node, "spec.unschedulable")
    }
    return {
        home["metadata"]["name"]: free_bytes(storage, home)
        for home in storage.homes
        if home["metadata"]["name"] in usable - set(leaving) and home["spec"].get("allowScheduling")
    }


def stuck(name: str, storage: Storage, leaving: Collection[str]) -> Iterator[str]:
    """Why the copies on a node could never leave it, each with the way out.

    Args:
        name: the node.
        storage: what Longhorn has.
        leaving: all nodes that leave, which take no copies.
    """
    free = open_homes(storage, leaving)
    sizes = {volume["metadata"]["name"]: int(volume["spec"].get("size") or 0) for volume in storage.volumes}
    broken, crowded, full = list[str](), list[str](), list[str]()
    for volume in sorted({replica["spec"]["volumeName"] for replica in storage.on(name)}):
        copies = storage.of(volume)
        others = [place for place in free if place not in {copy["spec"].get("nodeID") for copy in copies}]
        roomy = [place for place in others if free[place] >= sizes.get(volume, 0)]
        if not any(map(is_whole, copies)):
            broken.append(storage.title(volume))
        elif not others:
            crowded.append(f"{storage.title(volume)}, {len(copies)} {'copy' if len(copies) == 1 else 'copies'}")
        elif not roomy:
            full.append(f"{storage.title(volume)}, {sizes.get(volume, 0) >> 30} GiB")
        else:
            free[max(roomy, key=lambda place: free[place])] -= sizes.get(volume, 0)
    edit = f"{KUBECTL} -n {LONGHORN} edit volumes.longhorn.io NAME"
    if broken:
        yield (
            f"no healthy copy exists of {_some(broken)}: bring back the node of one, restore it from a backup, or "
            "delete its claim"
        )
    if crowded:
        fewer = f", or want fewer copies: storage.replicas in the params, and numberOfReplicas ({edit})" if free else ""
        yield (
            f"no other node takes a copy of {_some(crowded)}; {len(free)} other nodes accept copies: add a worker "
            f"first{fewer}"
        )
    if full:
        roomiest = max(free, key=lambda place: free[place])
        yield (
            f"no node has space for {_some(full)}; the most free is on {roomiest}, {max(free[roomiest], 0) >> 30} "
            "GiB: grow data_disk_gib of another worker, or add one"
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return "; ".join(names[:SHOWN]) + more


def only_copies(name: str, storage: Storage, lost: Collection[str]) -> list[str]:
    """The volumes that have no whole copy but on a node that is gone, or on others that are."""
    gone, places = {name, *lost}, [node["metadata"]["name"] for node in storage.nodes]
    return sorted(
        volume
        for volume in {replica["spec"]["volumeName"] for replica in storage.on(name)}
        if not any(
            is_whole(copy) and copy["spec"].get("nodeID") in places and copy["spec"].get("nodeID") not in gone
            for copy in storage.of(volume)
        )
    )


def replaced_disks(home: Obj) -> dict[str, str]:
    """The disks of a node in whose place there is another one, each with the UUID that Longhorn expects.

    One that was taken out already, to be added again, has none.
    """
    disks, (reason, message) = dict.fromkeys(_taken_out(home), ""), REPLACED
    for name, status in (value_at(home, "status.diskStatus") or {}).items():
        for each in status.get("conditions") or ():
            if each["type"] == "Ready" and each.get("reason") == reason and message in each.get("message", ""):
                disks[name] = str(status.get("diskUUID") or "")
    return disks


def _taken_out(home: Obj) -> dict[str, Any]:
    text = (home["metadata"].get("annotations") or {}).get(RENEWED)
    return dict(json.loads(text)) if text else {}


def rebuildable(storage: Storage) -> list[str]:
    """The volumes that lack copies, and for which there is another node."""
    free = open_homes(storage, ())
    copies = []
    for volume in storage.volumes:
        name = volume["metadata"]["name"]
        homes = {copy["spec"].get("nodeID") for copy in storage.of(name)}
        building = any(not is_whole(copy) and not copy["spec"].get("failedAt") for copy in storage.of(name))
        others = any(
            place not in homes and room >= int(volume["spec"].get("size") or 0) for place, room in free.items()
        )
        if value_at(volume, "status.robustness") == "degraded" and (others or building):
            copies.append(name)
    return copies


# ---- work ----------------------------------------------------------------------------------------------------------


def _read(context: RunContext) -> Storage:
    kube = context.kube()
    volumes, replicas = (listed(kube, LONGHORN_API, kind, LONGHORN) for kind in ("Volume", "Replica"))
    return read_storage(kube, Load(volumes=volumes, replicas=replicas), kube.list("v1", "Node"))


def close_home(kube: Kube, name: str, stage: str, *, evict: bool) -> None:
    """Take no new copies on a node, and have those there moved; an entry that somebody else closed is not marked."""
    home = kube.find(LONGHORN_API, "Node", name, LONGHORN)
    spec = (home or {}).get("spec") or {}
    if home is None or (not spec.get("allowScheduling") and (spec.get("evictionRequested") or not evict)):
        return
    mark = {"metadata": {"annotations": {CORDONED_BY: stage}}} if spec.get("allowScheduling") and stage else {}
    body = {**mark, "spec": {"allowScheduling": False, "evictionRequested": evict}}
    kube.patch(LONGHORN_API, "Node", name, LONGHORN, body=body)


def closed_by(home: Obj) -> str:
    """The stage that closed a node for copies; "" if fluobook did not."""
    return str((home["metadata"].get("annotations") or {}).get(CORDONED_BY) or "")


def open_home(kube: Kube, name: str) -> None:
    """Let copies come to a node again, if fluobook closed it."""
    home = kube.find(LONGHORN_API, "Node", name, LONGHORN)
    if home and closed_by(home):
        spec = {"allowScheduling": True, "evictionRequested": False}
        body = {"metadata": {"annotations": {CORDONED_BY: None}}, "spec": spec}
        kube.patch(LONGHORN_API, "Node", name, LONGHORN, body=body)


def evict(context: RunContext, name: str, stage: str, report: Reporter) -> int:
    """Have Longhorn move all copies away from a node, and wait until none is left; how many there were.

    Raises:
        DeadlineExceeded: one did not go in time; the message names it. Longhorn goes on, and so does the next run.
    """
    kube, seen = context.kube(), set[str]()
    close_home(kube, name, stage, evict=True)

    def step() -> bool | None:
        left = [each for each in listed(kube, LONGHORN_API, "Replica", LONGHORN) if each["spec"].get("nodeID") == name]
        images = [
            image
            for disk in (value_at(kube.get(LONGHORN_API, "Node", name, LONGHORN), "status.diskStatus") or {}).values()
            for image in disk.get("scheduledBackingImage") or ()
        ]
        seen.update(each["metadata"]["name"] for each in left)
        if left or images:
            report(f"{len(left)} of {len(seen)} copies are left")
            names = sorted({each["spec"]["volumeName"] for each in left} | {f"image {image}" for image in images})
            raise FluobookError(f"still there: {_some(names)}")
        return True

    context.wait_until("gate", f"Longhorn to move the copies of volumes away from {name}", step, interval=0.5)
    return len(seen)


def forget_copies(
    context: RunContext, name: str, volume: str, stage: str, disks: Collection[str] = ()
) -> Sequence[str]:
    """Delete the copies on a node that is gone, or on these disks: of one volume, or all that are whole elsewhere."""
    kube, storage = context.kube(), _read(context)
    if disks:
        storage = storage.with_only(name, disks)
    else:
        close_home(kube, name, stage, evict=False)
    kept = () if volume else only_copies(name, storage, ())
    gone = [
        each["metadata"]["name"]
        for each in storage.on(name)
        if each["spec"]["volumeName"] == volume or (not volume and each["spec"]["volumeName"] not in kept)
    ]
    for replica in gone:
        kube.delete(LONGHORN_API, "Replica", replica, LONGHORN)
    return gone


def renew_disk(context: RunContext, name: str, disk: str) -> None:
    """Take a disk out of Longhorn's entry of a node and add it again, so that the one that is there is used.

    Raises:
        DeadlineExceeded: copies are still expected on it.
    """
    kube = context.kube()

    def entry() -> Obj:
        return kube.get(LONGHORN_API, "Node", name, LONGHORN)

    def patch(taken_out: Mapping[str, Any], change: Mapping[str, Any] | None) -> None:
        mark = {"annotations": {RENEWED: json.dumps(taken_out) if taken_out else None}}
        kube.patch(LONGHORN_API, "Node", name, LONGHORN, body={"metadata": mark, "spec": {"disks": {disk: change}}})

    home = entry()
    saved = _taken_out(home)
    if disk not in saved:
        saved[disk] = value_at(home, "spec.disks")[disk]
        patch(saved, {"allowScheduling": False})

    def removed() -> bool | None:
        home = entry()
        status = (value_at(home, "status.diskStatus") or {}).get(disk)
        if disk not in (value_at(home, "spec.disks") or {}):
            return True if status is None else None
        if copies := (status or {}).get("scheduledReplica"):
            raise FluobookError(f"{len(copies)} copies are still expected on it: {_some(sorted(copies))}")
        patch(saved, None)
        return None

    context.wait_until("gate", f"Longhorn to forget disk {disk} of {name}", removed, interval=0.5)
    patch({key: value for key, value in saved.items() if key != disk}, saved[disk])


def rebuilt(context: RunContext, report: Reporter) -> None:
    """Wait until Longhorn has made the copies that can be made.

    Raises:
        DeadlineExceeded: a volume is still degraded; the message names it.
    """

    def step() -> bool | None:
        storage = _read(context)
        if waiting := rebuildable(storage):
            report(f"{len(waiting)} volumes are degraded")
            raise FluobookError(f"degraded: {_some([storage.title(name) for name in waiting])}")
        return True

    context.wait_until("gate", "Longhorn to rebuild the copies of volumes", step, interval=0.5)


def degraded(kube: Kube) -> list[str]:
    """The volumes that lack a copy; none in a cluster without Longhorn."""
    volumes = listed(kube, LONGHORN_API, "Volume", LONGHORN)
    return [v["metadata"]["name"] for v in volumes if value_at(v, "status.robustness") in ("degraded", "faulted")]


def forget_home(context: RunContext, name: str, stage: str) -> Mapping[str, Any]:
    """Delete Longhorn's entry of a node, once Longhorn has noticed that the node is gone and runs nothing there."""
    kube = context.kube()
    close_home(kube, name, stage, evict=False)

    def deleted() -> bool | None:
        home = kube.find(LONGHORN_API, "Node", name, LONGHORN)
        if home is None:
            return False
        ready: Obj = next((c for c in value_at(home, "status.conditions") or () if c["type"] == "Ready"), {})
        if ready.get("status") != "False" or ready.get("reason") not in GONE:
            raise FluobookError(f"Longhorn reports the node as Ready {ready.get('status')} {ready.get('reason', '')}")
        try:
            return kube.delete(LONGHORN_API, "Node", name, LONGHORN)
        except AccessDenied as error:
            if "admission webhook" not in error.message:
                raise
            raise FluobookError(error.message) from error  # engines of volumes are there until their pods have moved

    return {"deleted": context.wait_until("gate", f"Longhorn to let go of {name}", deleted, interval=0.5)}
