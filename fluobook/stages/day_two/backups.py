"""Snapshots of etcd in a folder or a bucket: each encrypted with age, with a record beside it that says what it is.

The record is written first and the snapshot last, in one step: a record without its snapshot was never finished, counts
as none, and is removed when the next snapshot is written.
"""

from __future__ import annotations

import datetime as dt
import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Protocol

from fluobook.clients import age, sops
from fluobook.clients.s3 import Bucket
from fluobook.context import RunContext
from fluobook.errors import PHASE, BadFile, FluobookError, Refused
from fluobook.files import parse_json, remove_partial_files, write_bytes
from fluobook.gitops.secrets import wanted_for
from fluobook.kubernetes import snapshot as etcd
from fluobook.kubernetes.snapshot import NAMED, DamagedError, Snapshot
from fluobook.params import Platform
from fluobook.params.secrets import located
from fluobook.stages.core.executor import in_parallel

DATA, RECORD = ".db.age", ".json"
"""Ends of the names of a snapshot's two files."""


@dataclass(frozen=True)
class Record:
    """What is known of a snapshot.

    Args:
        name: of its files; the snapshot holds it too, in the ConfigMap of `fluobook.kubernetes.snapshot.SENTINEL`.
        cluster: the cluster's name.
        cluster_id: the id in its secrets bundle.
        taken: when, in UTC.
        member: the control plane that it came from.
        revision: the newest that it holds.
        index: of etcd's log at that time; a cluster that was restored from it is behind it.
        sha256: of the database.
        size: of the snapshot in bytes.
        encrypted: the SHA-256 of the encrypted file.
        talos: the version of Talos.
        kubernetes: that of Kubernetes.
        etcd: that of etcd.
        recipients: who can decrypt it.
    """

    name: str
    cluster: str
    cluster_id: str
    taken: str
    member: str
    revision: int
    index: int
    sha256: str
    size: int
    encrypted: str
    talos: str
    kubernetes: str
    etcd: str
    recipients: tuple[str, ...]

    def age(self, now: dt.datetime) -> dt.timedelta:
        """How old its data is."""
        return now - dt.datetime.fromisoformat(self.taken)


class Store(Protocol):
    """Where snapshots are, each with its record: two files, or two objects."""

    @property
    def title(self) -> str:
        """The place, for people."""

    def names(self) -> Sequence[str]:
        """The names of all files."""

    def read(self, name: str) -> bytes:
        """A file."""

    def write(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all."""

    def delete(self, name: str) -> None:
        """Delete a file; one that is gone is fine."""

    def prepare(self) -> None:
        """Make the place ready to be written, without what killed runs left half written."""


@dataclass(frozen=True)
class Folder:
    """Snapshots in a folder."""

    path: Path

    @property
    def title(self) -> str:
        """As in `Store`."""
        return str(self.path)

    def names(self) -> Sequence[str]:
        """As in `Store`."""
        return [path.name for path in self.path.iterdir()] if self.path.is_dir() else []

    def read(self, name: str) -> bytes:
        """As in `Store`.

        Raises:
            Refused: it cannot be read.
        """
        return read_file(self.path / name)

    def write(self, name: str, data: bytes) -> None:
        """As in `Store`.

        Raises:
            BadFile: it cannot be written.
        """
        write_bytes(self.path / name, data, mode=0o600)

    def delete(self, name: str) -> None:
        """As in `Store`.

        Raises:
            BadFile: the folder cannot be written.
        """
        try:
            (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(self.path / name, error) from error

    def prepare(self) -> None:
        """As in `Store`.

        Raises:
            BadFile: the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not os.access(self.path, os.W_OK):
                raise PermissionError(errno.EACCES, "it is read-only")
            remove_partial_files(self.path)
        except OSError as error:
            raise _unwritable(self.path, error) from error


@dataclass(frozen=True)
class InBucket:
    """Snapshots in a bucket, below the cluster's name; the service writes an object whole or not at all."""

    bucket: Bucket
    prefix: str

    @property
    def title(self) -> str:
        """As in `Store`."""
        return f"s3://{self.bucket.name}/{self.prefix}"

    def names(self) -> Sequence[str]:
        """As in `Store`."""
        return [key.removeprefix(self.prefix) for key in self.bucket.list(self.prefix)]

    def read(self, name: str) -> bytes:
        """As in `Store`."""
        return self.bucket.read(self.prefix + name)

    def write(self, name: str, data: bytes) -> None:
        """As in `Store`."""
        self.bucket.write(self.prefix + name, data)

    def delete(self, name: str) -> None:
        """As in `Store`."""
        self.bucket.delete(self.prefix + name)

    def prepare(self) -> None:
        """As in `Store`: nothing to do."""


def store_of(context: RunContext) -> Store:
    """Where the snapshots are."""
    wanted, name = context.platform.etcd_snapshots, context.platform.cluster.name
    if wanted.bucket:
        return InBucket(context.bucket, f"{name}/")
    return Folder(located(wanted.folder, context.root) if wanted.folder else context.home / "etcd-snapshots")


def records(store: Store) -> tuple[Record, ...]:
    """The snapshots in a place, the newest first; one whose file is missing is none.

    Raises:
        BadFile: a record cannot be read.
    """
    names = set(store.names())
    whole = sorted(n for n in names if n.endswith(RECORD) and f"{n.removesuffix(RECORD)}{DATA}" in names)
    entries = in_parallel(lambda name: _record(store.read(name), f"{store.title}/{name}"), whole)
    return tuple(sorted(entries, key=lambda record: record.taken, reverse=True))


def _record(content: bytes, title: str) -> Record:
    try:
        data = parse_json(content.decode(), title)
        record = Record(**{**{name.name: data[name.name] for name in fields(Record)}, "recipients": ()})
        record.age(dt.datetime.now(dt.UTC))
    except (KeyError, TypeError, ValueError):
        raise BadFile(
            title, "is no record of a snapshot", remedy="move it out of the folder or the bucket of snapshots"
        ) from None
    return record


def expired(entries: Sequence[Record], platform: Platform, now: dt.datetime, *, more: int = 0) -> tuple[Record, ...]:
    """The snapshots that are no longer kept, once there are `more` new ones; those of other clusters always are."""
    limits = platform.etcd_snapshots
    own = [record for record in entries if record.cluster == platform.cluster.name]
    rest = own[max(0, limits.keep - more) :]
    return tuple(record for record in rest if record.age(now) > dt.timedelta(days=limits.keep_days))


def newest(entries: Iterable[Record], platform: Platform) -> Record | None:
    """The newest snapshot of the platform's cluster."""
    return next((record for record in entries if record.cluster == platform.cluster.name), None)


def recipients_of(context: RunContext) -> tuple[str, ...]:
    """For whom snapshots are encrypted: whom .sops.yaml names for the bundle, as far as age can; always our own key."""
    path, wanted = context.secrets.path, None
    if path.is_relative_to(context.root):
        wanted = wanted_for(path, context.root)
    return tuple(sorted({context.secrets.recipient(), *filter(sops.is_age, wanted or ())}))


def write(context: RunContext, data: bytes, record: Record) -> Record:
    """Write the record of a snapshot, then the snapshot, encrypted; what cannot be written leaves nothing behind.

    Raises:
        BadFile: the folder cannot be written.
        OutsideError: the bucket cannot be written.
    """
    store = prepared(context)
    sealed = age.encrypt(data, record.recipients)
    whole = Record(**{**asdict(record), "encrypted": hashlib.sha256(sealed).hexdigest()})
    store.write(f"{record.name}{RECORD}", f"{json.dumps(asdict(whole), indent=2)}\n".encode())
    try:
        store.write(f"{record.name}{DATA}", sealed)
    except FluobookError:
        store.delete(f"{record.name}{RECORD}")
        raise
    return whole


def prepared(context: RunContext) -> Store:
    """The place of the snapshots, writable, and without what killed runs left half written.

    Raises:
        BadFile: the folder cannot be written.
        OutsideError: the bucket refuses.
    """
    store, cluster = store_of(context), context.platform.cluster.name
    store.prepare()
    names = set(store.names())
    for name in sorted(names):
        begun = name.startswith(f"{cluster}-") and name.endswith(RECORD)
        if begun and f"{name.removesuffix(RECORD)}{DATA}" not in names:
            with suppress(BadFile):  # somebody else's
                if _record(store.read(name), name).cluster == cluster:
                    store.delete(name)
    return store


def _unwritable(path: Path, error: OSError) -> BadFile:
    remedy = "make its folder writable, or name another one in etcd_snapshots.folder"
    return BadFile(path, f"cannot be written: {error.strerror}", remedy=remedy)


def read_file(path: Path) -> bytes:
    """A file of a snapshot.

    Raises:
        Refused: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise Refused(
            f"{path} cannot be read: {error.strerror}",
            remedy="make it readable, or name another snapshot in etcd_snapshots.restore",
        ) from error


def delete(context: RunContext, name: str) -> None:
    """Delete a snapshot: its record last, so that a run that is killed leaves nothing that the next does not remove.

    Raises:
        BadFile: the folder cannot be written.
        OutsideError: the bucket refuses.
    """
    store = store_of(context)
    for end in (DATA, RECORD):
        store.delete(f"{name}{end}")


@dataclass(frozen=True)
class Found:
    """A snapshot: where it is, and its record if there is one; `read` reads its bytes."""

    title: str
    record: Record | None
    read: Callable[[], bytes] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Opened:
    """A snapshot that was read and checked: where it is, its bytes, what it holds, and its record if there is one."""

    title: str
    data: bytes
    content: Snapshot
    record: Record | None


def read(context: RunContext, wanted: str | None) -> Opened:
    """Read a snapshot, and check that it is intact, of this cluster, and the one that is named.

    Args:
        context: the platform.
        wanted: its name, or the path of a file, encrypted or not; None for the newest.

    Raises:
        Refused: there is none, or it is not what it should be.
        BadFile: it cannot be decrypted.
        OutsideError: the bucket refuses.
    """
    chosen = find(context, wanted)
    raw, record = chosen.read(), chosen.record
    another = "name an older snapshot in etcd_snapshots.restore; never restore one whose checksum fails"
    digest = hashlib.sha256(raw).hexdigest()
    if record and record.encrypted not in ("", digest):
        raise Refused(
            f"{chosen.title} is not what was written: its SHA-256 is {digest[:12]}, not {record.encrypted[:12]}",
            remedy=another,
        )
    data = age.decrypt(raw, context.secrets.age_key(), chosen.title) if raw.startswith(age.HEADER) else raw
    try:
        content = etcd.read(data)
    except DamagedError as error:
        raise Refused(f"{chosen.title} is no intact snapshot: {error}", remedy=another) from error
    bundle = context.secrets.bundle()
    if problem := refusal(content, record, bundle.kubernetes.crt, bundle.cluster_id):
        raise Refused(
            f"{chosen.title}: {problem}", remedy="name an older snapshot of this cluster in etcd_snapshots.restore"
        )
    return Opened(chosen.title, data, content, record)


def refusal(content: Snapshot, record: Record | None, authority: str, cluster_id: str = "") -> str:
    """Why a snapshot is not what it should be; "" if it is.

    Args:
        content: what was read.
        record: what is recorded of it, if anything.
        authority: the CA of the cluster's Kubernetes API.
        cluster_id: the cluster's id; one that was recorded before the CA was rotated is known by it.
    """
    if not content.is_of(authority) and (record is None or record.cluster_id != cluster_id):
        return "it is a snapshot of another cluster: the CA in it is not the one in the secrets bundle"
    if record and (record.sha256, record.revision) != (content.sha256, content.revision):
        return f"it is not the snapshot that its record describes (revision {content.revision}, not {record.revision})"
    if record and not content.has(NAMED, record.name):
        return f"it is not the snapshot {record.name}: it holds another name"
    return ""


def find(context: RunContext, wanted: str | None) -> Found:
    """A snapshot, with its record if there is one; see `read`.

    Raises:
        Refused: there is none.
        BadFile: a record cannot be read.
        OutsideError: the bucket refuses.
    """
    if wanted and ("/" in wanted or wanted.endswith((".db", ".age"))):
        path = located(wanted, context.root)
        beside = path.with_name(f"{path.name.removesuffix(DATA)}{RECORD}")
        known = path.name.endswith(DATA) and beside.exists()
        record = _record(read_file(beside), str(beside)) if known else None
        return Found(str(path), record, lambda: read_file(path))
    store = store_of(context)
    entries = records(store)
    chosen = next((r for r in entries if r.name == wanted), None) if wanted else newest(entries, context.platform)
    if chosen is None:
        raise Refused(
            f"there is no snapshot {wanted} in {store.title}"
            if wanted
            else f"there is no snapshot of etcd in {store.title}",
            remedy="set etcd_snapshots.restore to the path of a copy; as long as etcd has its quorum, a new one is "
            f"taken by fluobook run {PHASE} etcd-snapshot",
        )
    name = f"{chosen.name}{DATA}"
    return Found(f"{store.title.rstrip('/')}/{name}", chosen, lambda: store.read(name))
