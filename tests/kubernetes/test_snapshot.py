"""Snapshots of etcd, read without etcd."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fluobook_lab.kube import snapshots

from fluobook.kubernetes.snapshot import NAMED, ROOT_CA, SYSTEM, DamagedError, entries, read
from fluobook.machine.pki import new_authority

if TYPE_CHECKING:
    from collections.abc import Callable

OURS, OTHER = new_authority(organization="a"), new_authority(organization="a")


def obj(revision: int, **fields: Any) -> dict[str, Any]:
    return {"metadata": {"resourceVersion": str(revision)}, **fields}


def written(revision: int = 41) -> bytes:
    objects = [
        (ROOT_CA, obj(3, data={"ca.crt": OURS.crt})),
        (NAMED, obj(5, data={"name": "first"})),
        (NAMED, obj(40, data={"name": "second"})),
        *((f"/registry/pods/a/{number}", obj(number, text="x" * number)) for number in range(100, 900)),
    ]
    return snapshots.written(objects, {"1": {"name": "cp-1"}}, revision)


def test_the_newest_values_and_the_revision_are_read() -> None:
    snapshot = read(written(950))
    assert (snapshot.revision, snapshot.size) == (950, len(written()))
    assert snapshot.has(NAMED, "second")
    assert not snapshot.has(NAMED, "first")
    assert not snapshot.has(SYSTEM, "anything")
    assert not snapshot.has(NAMED, "")


def test_a_snapshot_is_of_the_cluster_with_its_authority() -> None:
    snapshot = read(written())
    assert snapshot.is_of(OURS.crt)
    assert not snapshot.is_of(OTHER.crt)


def test_what_the_lab_writes_it_can_restore() -> None:
    objects, revision = snapshots.restored(written())
    assert (len(objects), revision) == (803, 899)
    assert objects[2] == obj(40, data={"name": "second"})


def test_a_new_member_forgets_how_much_of_its_log_was_applied() -> None:
    database = snapshots.startable(written())
    assert dict(entries(database, b"meta")) == {snapshots.INDEX: bytes(8)}


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a flipped byte": (lambda data: bytes([*data[:9000], data[9000] ^ 1, *data[9001:]]), "checksum does not match"),
    "a flipped byte of the checksum": (lambda data: bytes([*data[:-1], data[-1] ^ 1]), "checksum does not match"),
    "no checksum": (lambda data: data[:-32], "no checksum found"),
    "a lost end": (lambda data: data[: len(data) // 2], "no checksum found"),
    "nothing": (lambda _: b"", "no checksum found"),
    "something else": (lambda _: snapshots.sealed(b"x" * 8192), "no database"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_snapshot_is_refused(name: str) -> None:
    damage, reason = DAMAGES[name]
    with pytest.raises(DamagedError, match=reason):
        read(damage(written()))


def test_an_intact_checksum_over_a_broken_database_is_refused() -> None:
    whole = written()[:-32]
    for at in (16 + 16, 3 * 4096 + 10, 3 * 4096 + 20, 4 * 4096 + 8, 4 * 4096 + 24):
        broken = bytearray(whole)
        broken[at : at + 4] = b"\xff\xff\xff\x7f"
        broken[4096 + at : 4096 + at + 4] = b"\xff\xff\xff\x7f" if at < 4096 else broken[4096 + at : 4096 + at + 4]
        try:
            read(snapshots.sealed(bytes(broken)))
        except DamagedError:
            continue
        assert at > 4 * 4096  # the value of one entry, which nothing here reads
