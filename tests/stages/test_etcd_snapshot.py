"""When a snapshot is due, which ones are kept, and what is refused."""

from __future__ import annotations

import datetime as dt
import subprocess
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from fluobook_lab.kube import snapshots

from fluobook import params
from fluobook.clients import age
from fluobook.errors import BadFile, Refused, Rejected
from fluobook.files import write_json
from fluobook.kubernetes import snapshot as etcd
from fluobook.machine.pki import new_authority
from fluobook.stages.core.cluster import Missing
from fluobook.stages.day_two import backups
from fluobook.stages.day_two.backups import Record
from fluobook.stages.etcd_snapshot import Observation, age_check, plan

if TYPE_CHECKING:
    from pathlib import Path

    from fluobook.params import Platform

NOW = dt.datetime(2026, 11, 29, 12, tzinfo=dt.UTC)
AUTHORITY, OTHER = new_authority(organization="k"), new_authority(organization="k")


def record(hours: float, cluster: str = "fluodata", **changes: Any) -> Record:
    """A record of a snapshot that was taken so many hours ago."""
    taken = NOW - dt.timedelta(hours=hours)
    values: dict[str, Any] = dict.fromkeys(Record.__dataclass_fields__, "") | {"revision": 1, "index": 1, "size": 1}
    given = {"name": f"{cluster}-{hours:g}", "cluster": cluster, "taken": taken.isoformat(), "recipients": ()}
    return Record(**{**values, **given, **changes})


@pytest.fixture
def limits(platform: Platform) -> Platform:
    """24 hours, three are kept, others for ten days."""
    return params.overlay(platform, {"etcd_snapshots": {"keep": 3, "keep_days": 10}})


def ids(platform: Platform, *found: Record, **changes: Any) -> list[str]:
    return [action.id for action in plan(platform, Observation(NOW, found, **changes)).actions]


def test_a_snapshot_is_due_once_half_of_the_limit_has_passed(limits: Platform) -> None:
    assert ids(limits) == ["take a snapshot"]
    assert ids(limits, record(11.9)) == []
    assert ids(limits, record(12)) == ["take a snapshot"]
    assert ids(limits, record(1, cluster="other")) == ["take a snapshot"]


def test_those_are_deleted_that_are_neither_new_enough_nor_young_enough(limits: Platform) -> None:
    old = [record(24 * days) for days in (9, 11, 12, 13)]
    assert ids(limits, record(1), *old) == ["delete fluodata-288", "delete fluodata-312"]
    other = record(24 * 400, cluster="other")
    assert ids(limits, record(1), record(2), record(3), other) == []


def test_nothing_is_deleted_before_the_new_one_is_whole(limits: Platform) -> None:
    old = [record(24 * days) for days in (11, 12, 13)]
    take, delete = plan(limits, Observation(NOW, old)).actions
    assert (take.id, delete.id, delete.needs) == ("take a snapshot", "delete fluodata-312", ("take a snapshot",))


def test_without_a_quorum_it_is_refused_unless_none_is_due(limits: Platform) -> None:
    with pytest.raises(Refused, match="no quorum"):
        ids(limits, problem="no quorum")
    assert ids(limits, record(1), problem="no quorum") == []


def test_before_there_is_a_cluster_the_missing_stage_is_named(limits: Platform) -> None:
    missing = Observation(NOW, missing=Missing("bootstrap-kubernetes", ""))
    assert plan(limits, missing).waits_for == "bootstrap-kubernetes"


@pytest.mark.parametrize(
    ("found", "passed", "advisory"),
    [([], False, True), ([record(24)], True, False), ([record(24.1)], False, False)],
)
def test_the_health_gate_is_the_age_of_the_newest(
    found: list[Record], passed: bool, advisory: bool, limits: Platform
) -> None:
    check = age_check(found, limits, NOW)
    assert (check.passed, check.advisory) == (passed, advisory)


def content(name: str = "here") -> etcd.Snapshot:
    def obj(revision: int, **fields: Any) -> dict[str, Any]:
        return {"metadata": {"resourceVersion": str(revision)}, **fields}

    objects = [(etcd.ROOT_CA, obj(3, data={"ca.crt": AUTHORITY.crt})), (etcd.NAMED, obj(5, data={"name": name}))]
    return etcd.read(snapshots.written(objects, {}, 5))


OURS = record(1, name="here", revision=5, sha256=content().sha256)
REFUSED: dict[str, tuple[Record | None, str, str]] = {
    "another cluster": (None, OTHER.crt, "snapshot of another cluster"),
    "another revision": (replace(OURS, revision=6), AUTHORITY.crt, "revision 5, not 6"),
    "another database": (replace(OURS, sha256="00"), AUTHORITY.crt, "not the snapshot that its record describes"),
    "another name": (replace(OURS, name="there"), AUTHORITY.crt, "it is not the snapshot there"),
    "ours": (OURS, AUTHORITY.crt, ""),
    "ours without a record": (None, AUTHORITY.crt, ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_snapshot_must_be_the_one_that_was_named(name: str) -> None:
    known, authority, expected = REFUSED[name]
    problem = backups.refusal(content(), known, authority)
    assert expected in problem
    assert bool(problem) == bool(expected)


def test_a_snapshot_from_before_the_authority_was_rotated_is_known_by_the_clusters_id() -> None:
    assert backups.refusal(content(), OURS, OTHER.crt, OURS.cluster_id) == ""
    assert "another cluster" in backups.refusal(content(), OURS, OTHER.crt, "another id")
    assert "another cluster" in backups.refusal(content(), None, OTHER.crt, OURS.cluster_id)


def test_records_are_read_with_their_files_only(tmp_path: Path) -> None:
    for each in (record(2), record(1), record(3)):
        write_json(tmp_path / f"{each.name}.json", backups.asdict(each))
        (tmp_path / f"{each.name}.db.age").touch()
    (tmp_path / "fluodata-2.db.age").unlink()
    assert [each.name for each in backups.records(backups.Folder(tmp_path))] == ["fluodata-1", "fluodata-3"]
    assert backups.records(backups.Folder(tmp_path / "none")) == ()
    (tmp_path / "fluodata-1.json").write_text('{"name": 1}')
    with pytest.raises(BadFile, match="is no record"):
        backups.records(backups.Folder(tmp_path))


@pytest.fixture
def context(platform: Platform, tmp_path: Path) -> Any:
    """What `backups` reads of a context."""
    return SimpleNamespace(platform=platform, home=tmp_path, root=tmp_path)


def test_what_a_killed_run_left_half_written_is_removed_and_nothing_else(context: Any) -> None:
    folder = backups.store_of(context).path
    folder.mkdir()
    process = subprocess.Popen(["true"])
    process.wait()
    for each in (record(1), record(2), record(3, cluster="fluodata-ha")):
        write_json(folder / f"{each.name}.json", backups.asdict(each))
    stay = {"fluodata-1.json", "fluodata-ha-3.json", "fluodata-notes.json", "fluodata-1.db.age", "fluodata-copy.db.age"}
    for name in (*stay - {"fluodata-1.json", "fluodata-ha-3.json"}, f".fluodata-2.db.age.{process.pid}"):
        (folder / name).touch()
    assert backups.prepared(context) == backups.Folder(folder)
    assert {path.name for path in folder.iterdir()} == stay


def test_a_snapshot_that_cannot_be_written_leaves_nothing_behind(context: Any, monkeypatch: Any) -> None:
    def full(path: Path, *_: Any, **__: Any) -> None:
        raise BadFile(path, "cannot be written: No space left on device")

    monkeypatch.setattr(backups, "write_bytes", full)
    with pytest.raises(BadFile, match="No space left"):
        backups.write(context, b"", replace(OURS, recipients=(age.generate().recipient,)))
    assert list(backups.store_of(context).path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named_before_anything_is_read(context: Any) -> None:
    backups.store_of(context).path.write_text("a file")
    with pytest.raises(BadFile, match="etcd-snapshots cannot be written"):
        backups.prepared(context)


def test_a_deletion_that_is_killed_leaves_no_file_that_nobody_removes(context: Any, monkeypatch: Any) -> None:
    folder = backups.store_of(context).path
    write_json(folder / "fluodata-1.json", backups.asdict(record(1)))
    (folder / "fluodata-1.db.age").touch()
    gone: list[str] = []
    monkeypatch.setattr(type(folder), "unlink", lambda path, **_: gone.append(path.suffix))
    backups.delete(context, "fluodata-1")
    assert gone == [".age", ".json"]


def test_what_age_encrypts_only_its_recipients_decrypt() -> None:
    ours, others = age.generate(), age.generate()
    data = age.encrypt(b"secret", [ours.recipient])
    assert age.decrypt(data, ours.file(), "a") == b"secret"
    for keys, text in ((others.file(), data), (ours.file(), bytes([*data[:-1], data[-1] ^ 1]))):
        with pytest.raises(BadFile, match="a cannot be decrypted"):
            age.decrypt(text, keys, "a")
    with pytest.raises(Rejected):
        age.encrypt(b"", ["age1nothing"])
