"""Snapshots of the real etcd: read without etcd, and restored."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fluobook_lab.engines.control_plane import ControlPlane
from fluobook_lab.kube import snapshots

from fluobook.kubernetes.snapshot import NAMED, SENTINEL, SYSTEM, read

from .engine import ADDRESS, BOUND

if TYPE_CHECKING:
    from pathlib import Path

    from fluobook_lab.talos.config import MachineConfiguration

MAPS = "/api/v1/namespaces/kube-system/configmaps"


async def taken_and_restored(programs: dict[str, str], configuration: MachineConfiguration, folder: Path) -> Any:
    """A snapshot with one object, and what a cluster that lost it has after it was restored."""
    plane = ControlPlane(programs, folder)
    try:
        await plane.start_etcd("cp-1", configuration, ADDRESS)
        server = await plane.start_server("cp-1", configuration, ADDRESS)
        admin = plane.administrator(server)
        await admin.wait_for("/api/v1/namespaces/kube-system")
        for number in range(300):  # more than one page of the database
            filler = {"metadata": {"name": f"filler-{number}"}, "data": {"text": "x" * 1000}}
            await admin.send("POST", MAPS, filler)
        sentinel = await admin.send("POST", MAPS, {"metadata": {"name": SENTINEL}, "data": {"name": "kept"}})
        data = await plane.snapshot()
        namespace = await admin.get("/api/v1/namespaces/kube-system")
        await admin.send("DELETE", f"{MAPS}/{SENTINEL}")
        later = await admin.send("POST", MAPS, {"metadata": {"name": "later"}})
        await plane.end_server("cp-1")
        await plane.restart_etcd("cp-1", configuration, ADDRESS, snapshots.startable(data))
        await plane.start_server("cp-1", configuration, ADDRESS)
        names = {obj["metadata"]["name"]: obj for obj in (await admin.get(MAPS))["items"]}
        again = await admin.send("POST", MAPS, {"metadata": {"name": "again"}})
        await admin.close()
        return data, namespace, sentinel, later, names, again
    finally:
        await plane.stop()


def test_a_snapshot_of_the_real_etcd_is_read_and_restored(
    background: Any, programs: dict[str, str], configuration: MachineConfiguration, tmp_path: Path
) -> None:
    work = taken_and_restored(programs, configuration, tmp_path)
    outcome = asyncio.run_coroutine_threadsafe(work, background.loop).result(BOUND)
    data, namespace, sentinel, later, names, again = outcome
    snapshot = read(data)
    assert snapshot.has(NAMED, "kept")
    assert snapshot.has(SYSTEM, namespace["metadata"]["uid"])
    revision = int(sentinel["metadata"]["resourceVersion"])
    assert revision <= snapshot.revision < int(later["metadata"]["resourceVersion"])
    assert names[SENTINEL]["metadata"] == sentinel["metadata"]
    assert "later" not in names
    assert int(again["metadata"]["resourceVersion"]) > snapshot.revision
