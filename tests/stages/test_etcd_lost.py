"""Snapshots of etcd, and what brings it back, in a lab that loses it."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from fluobook_lab.kube import snapshots

from fluobook import params
from fluobook.context import POLICIES
from fluobook.errors import ApprovalNeeded, FluobookError, OutsideError, Refused, TaskFailed
from fluobook.kubernetes.snapshot import ROOT_CA, SENTINEL
from fluobook.machine.pki import new_authority
from fluobook.notebook import stage_run
from fluobook.stages import etcd_snapshot, restore
from fluobook.stages.core.plan import Approval, Gate
from fluobook.stages.day_two import backups
from fluobook.stages.restore import work
from fluobook.stages.restore.plan import WAITS, read_member
from tests.stages.conftest import interrupting

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.lab

BEFORE = ("create-vms", "apply-talos-config", "bootstrap-kubernetes", "approve-csrs")


def named(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}}


@pytest.fixture(scope="module")
def lab(shared_labs: Callable[..., Any]) -> Any:
    lab = shared_labs()
    lab.bring_up(*BEFORE)
    lab.context().kube().create(named("before"))
    return lab


def done(stage: Any) -> dict[str, bool]:
    """Plan, apply and verify; each check, and whether it passed."""
    stage.apply(stage.plan())
    return {check.name: check.passed for check in stage.verify().checks}


def test_a_snapshot_is_taken_once_proved_and_recorded(lab: Any) -> None:
    """A damaged one leaves nothing behind."""
    lab.add_fault("talos.snapshot-damaged-once")
    with pytest.raises(TaskFailed, match="is damaged: the checksum does not match"):
        done(lab.stage("etcd-snapshot"))
    context = lab.context()
    folder = backups.store_of(context).path
    assert list(folder.iterdir()) == []
    assert all(done(lab.stage("etcd-snapshot")).values())
    (record,) = backups.records(backups.store_of(context))
    assert sorted(path.suffix for path in folder.iterdir()) == [".age", ".json"]
    assert {path.stat().st_mode & 0o077 for path in folder.glob("*.age")} == {0}
    assert context.kube().get("v1", "ConfigMap", SENTINEL, "kube-system")["data"] == {"name": record.name}
    opened = backups.read(context, record.name)
    assert opened.content.revision == record.revision > 100
    assert b"ca.crt" in opened.data
    lab.mark()
    assert lab.stage("etcd-snapshot").plan().actions == ()
    assert all(done(lab.stage("etcd-snapshot")).values())
    assert lab.requests(mutating=True) == []


def test_a_file_that_was_changed_fails_the_check(lab: Any) -> None:
    context = lab.context()
    (record,) = backups.records(backups.store_of(context))
    path = backups.store_of(context).path / f"{record.name}.db.age"
    whole = path.read_bytes()
    path.write_bytes(bytes([*whole[:-9], whole[-9] ^ 1, *whole[-8:]]))
    try:
        checks = etcd_snapshot.STAGE.verify(context, etcd_snapshot.observe(context))
    finally:
        path.write_bytes(whole)
    (failed,) = [check for check in checks if not check.passed]
    assert failed.name == "the newest snapshot decrypts, is intact, and is this cluster's"
    assert "is not what was written: its SHA-256 is" in failed.result


def interrupted(lab: Any, after: int) -> list[str]:
    """Run a restore and fail at the action with that number, half of the time after it was done; what was left."""
    context, perform = lab.context(), interrupting(restore.STAGE.perform, after)
    planned = stage_run(restore.STAGE, context, gate_of("all", context)).plan()

    stage = stage_run(replace(restore.STAGE, perform=perform), context, gate_of(f"restore={planned.digest}", context))
    with pytest.raises(FluobookError, match="the laptop was closed"):
        stage.apply(stage.plan())
    return [action.id for action in planned.actions]


def closed(*_: object) -> None:
    raise FluobookError("the laptop was closed")


def gate_of(approval: str, context: Any) -> Gate:
    return Gate(Approval.parse(approval), POLICIES["lab"], context.platform.cluster.name)


def restored(lab: Any) -> None:
    """Restore to the end, and again: nothing is left to do, and the cluster has what the snapshot has."""
    digest = lab.stage("restore").plan().digest
    assert all(done(lab.stage("restore", approve=f"restore={digest}")).values())
    lab.mark()
    again = lab.stage("restore")
    assert again.plan().actions == ()
    assert all(done(again).values())
    assert lab.requests(mutating=True) == []
    kube = lab.context().kube()
    assert kube.find("v1", "ConfigMap", "before", "default")
    assert kube.find("v1", "ConfigMap", "later", "default") is None
    lab.bring_up("approve-csrs")


def test_while_there_is_a_quorum_nothing_is_restored(lab: Any) -> None:
    name = backups.records(backups.store_of(lab.context()))[0].name
    lab.context().kube().create(named("later"))
    assert lab.stage("restore").plan().actions == ()
    assert all(done(lab.stage("restore")).values())
    with pytest.raises(Refused, match="so nothing is lost"):
        lab.stage("restore", f"platform.etcd_snapshots.restore={name}").plan()


def test_what_is_no_snapshot_of_this_cluster_is_refused_before_anything_is_touched(lab: Any, tmp_path: Path) -> None:
    whole = backups.read(lab.context(), None).data
    other = new_authority(organization="kubernetes").crt
    forged = [(ROOT_CA, {"metadata": {"resourceVersion": "5"}, "data": {"ca.crt": other}})]
    flipped = bytes([*whole[:50_000], whole[50_000] ^ 1, *whole[50_001:]])
    wipe(lab, "talos-cp-1")
    lab.mark()
    for name, data, expected in (
        ("flipped.db", flipped, "the checksum does not match"),
        ("cut.db", whole[: len(whole) // 2], "no checksum found"),
        ("other.db", snapshots.written(forged, {}, 5), "it is a snapshot of another cluster"),
        ("missing.db", None, "cannot be read"),
    ):
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(Refused, match=expected):
            lab.stage("restore", f"platform.etcd_snapshots.restore={path}").plan()
    assert lab.requests(mutating=True) == []


def wipe(lab: Any, *names: str) -> None:
    """Let control planes lose what etcd has, and wait until each waits for a bootstrap."""
    context = lab.context()
    for name in names:
        client = context.talos.client(context.platform.node(name), "os:admin")
        client.reset(graceful=False, partitions=["EPHEMERAL"])
        lost = partial(waits, client)
        context.wait_until("install", f"{name} to wait for a bootstrap", lost)


def waits(client: Any) -> bool | None:
    return read_member(client).state == WAITS or None


def test_a_lost_control_plane_comes_back_with_what_the_snapshot_has(lab: Any, monkeypatch: Any) -> None:
    """Interrupted before the recovery, before it was proved, and between two workers."""
    with pytest.raises(ApprovalNeeded, match="restore needs approval"):
        done(lab.stage("restore"))
    everything = ["recover etcd", "restart talos-worker-1", "restart talos-worker-2"]
    assert interrupted(lab, 1) == everything
    with monkeypatch.context() as patched:
        patched.setattr(work, "_mark", closed)
        digest = lab.stage("restore").plan().digest
        with pytest.raises(FluobookError, match="the laptop was closed"):
            done(lab.stage("restore", approve=f"restore={digest}"))
    assert interrupted(lab, 2) == everything
    context = lab.context()
    (take,) = etcd_snapshot.plan(context.platform, etcd_snapshot.Observation(dt.datetime.now(dt.UTC))).actions
    etcd_snapshot.perform(context, take, lambda _: None)
    left = [action.id for action in lab.stage("restore").plan().actions]
    assert left == ["restart talos-worker-2"]  # whatever was taken since
    restored(lab)


def destroy(lab: Any, name: str) -> None:
    """Destroy a VM with its disks."""
    context = lab.context()
    node = context.platform.node(name)
    client = context.proxmox(context.platform.endpoint_of(node).name)
    for change in (client.stop, client.delete):
        task = change(node.host, node.vmid)
        ended = partial(has_ended, client, task)
        context.wait_until("vm_start", f"{name} to go", ended)


def has_ended(client: Any, task: Any) -> bool | None:
    return not client.task_status(task).running or None


def with_bucket(folder: Path, phase: str) -> Path:
    """The params file of a phase whose snapshots are in a bucket."""
    written = params.load(phase, root=params.repository_root()).platform.written
    bucket = {"name": "fluodata-etcd", "region": "eu-central-1", "endpoint": "https://s3.lab.example:9000"}
    path = folder / f"{phase}.yaml"
    path.write_text(yaml.safe_dump({"phase": phase, "platform": {**written, "etcd_snapshots": {"bucket": bucket}}}))
    return path


@pytest.mark.timeout(300)
def test_a_snapshot_in_a_bucket_is_taken_kept_and_restored(labs: Callable[..., Any], tmp_path: Path) -> None:
    """A service that refuses, or breaks off, leaves nothing behind; a flipped byte is refused before anything else."""
    lab = labs(phase=with_bucket(tmp_path, "phase1"))
    lab.bring_up(*BEFORE)
    kube, stored = lab.context().kube(), lab.environment.bucket.objects
    kube.create(named("before"))
    for fault, expected in (("s3.write-refused", "AccessDenied"), ("s3.other-region", "PermanentRedirect")):
        lab.inject(fault)
        with pytest.raises(OutsideError, match=expected):
            done(lab.stage("etcd-snapshot"))
        assert stored == {}
    lab.inject()
    assert all(done(lab.stage("etcd-snapshot")).values())
    (record,) = backups.records(backups.store_of(lab.context()))
    assert sorted(stored) == [f"fluodata/{record.name}.db.age", f"fluodata/{record.name}.json"]
    assert not (lab.folder / "cluster" / "etcd-snapshots").exists()
    lab.mark()
    assert all(done(lab.stage("etcd-snapshot")).values())
    assert lab.requests(mutating=True) == []

    kube.create(named("later"))
    wipe(lab, "talos-cp-1")
    key = f"fluodata/{record.name}.db.age"
    whole = stored[key]
    for damaged in (bytes([*whole[:-9], whole[-9] ^ 1, *whole[-8:]]), whole[: len(whole) // 2]):
        stored[key] = damaged
        lab.mark()
        with pytest.raises(Refused, match="is not what was written: its SHA-256 is"):
            lab.stage("restore").plan()
        assert lab.requests(mutating=True) == []
    stored[key] = whole
    lab.inject("s3.truncated")
    with pytest.raises(OutsideError, match="is incomplete"):
        lab.stage("restore").plan()
    lab.inject()
    restored(lab)


@pytest.mark.long
@pytest.mark.timeout(580)
@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_a_lost_quorum_is_restored_with_two_new_machines(labs: Callable[..., Any], tmp_path: Path, place: str) -> None:
    lab = labs(phase=with_bucket(tmp_path, "phase3") if place == "bucket" else "phase3")
    lab.bring_up("host-network", *BEFORE)
    kube = lab.context().kube()
    kube.create(named("before"))
    done(lab.stage("etcd-snapshot"))
    kube.create(named("later"))
    for name in ("talos-cp-2", "talos-cp-3"):
        destroy(lab, name)
    with pytest.raises(OutsideError):
        kube.create(named("refused"))
    with pytest.raises(Refused, match="no answer from talos-cp-2, talos-cp-3"):
        lab.stage("restore").plan()
    lab.bring_up("create-vms")
    stage = lab.stage("apply-talos-config")
    stage.apply(stage.plan())
    with pytest.raises(ApprovalNeeded, match="restore needs approval"):
        done(lab.stage("restore"))
    whole = interrupted(lab, 1)
    assert whole[:2] == ["reset talos-cp-1", "recover etcd"]
    assert len(whole) == 7
    for after in (2, 2, 1):
        interrupted(lab, after)
    restored(lab)
