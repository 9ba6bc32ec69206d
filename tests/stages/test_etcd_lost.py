"""Snapshots of etcd, and what brings it back, in a lab that loses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fluobook.errors import TaskFailed
from fluobook.kubernetes.snapshot import SENTINEL
from fluobook.stages import etcd_snapshot
from fluobook.stages.core import backups

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.lab

BEFORE = ("create-vms", "apply-talos-config", "bootstrap-kubernetes", "approve-csrs")
OBJECT = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "sentinel", "namespace": "default"}}


@pytest.fixture(scope="module")
def lab(shared_labs: Callable[..., Any]) -> Any:
    lab = shared_labs()
    lab.bring_up(*BEFORE)
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
    folder = backups.folder_of(context)
    assert not folder.exists()
    assert all(done(lab.stage("etcd-snapshot")).values())
    (record,) = backups.records(folder)
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
    (record,) = backups.records(backups.folder_of(context))
    path = backups.folder_of(context) / f"{record.name}.db.age"
    whole = path.read_bytes()
    path.write_bytes(bytes([*whole[:-9], whole[-9] ^ 1, *whole[-8:]]))
    try:
        checks = etcd_snapshot.STAGE.verify(context, etcd_snapshot.observe(context))
    finally:
        path.write_bytes(whole)
    (failed,) = [check for check in checks if not check.passed]
    assert failed.name == "the newest snapshot decrypts, is intact, and is this cluster's"
    assert "cannot be decrypted" in failed.result
