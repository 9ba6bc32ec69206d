"""Snapshots of etcd as files: each encrypted with age, with a record beside it that says what it is.

The record is written first and the file last, in one step: a record without its file was never finished, counts as
none, and is removed when the next snapshot is written.
"""

from __future__ import annotations

import datetime as dt
import errno
import hashlib
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from fluobook.clients import age, sops
from fluobook.context import RunContext
from fluobook.errors import PHASE, BadFile, Refused
from fluobook.files import parse_json, read_text, remove_partial_files, write_bytes, write_json
from fluobook.gitops.secrets import wanted_for
from fluobook.kubernetes import snapshot as etcd
from fluobook.kubernetes.snapshot import NAMED, DamagedError, Snapshot
from fluobook.params import Platform
from fluobook.params.secrets import located

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


def folder_of(context: RunContext) -> Path:
    """Where the snapshots are."""
    folder = context.platform.etcd_snapshots.folder
    return located(folder, context.root) if folder else context.home / "etcd-snapshots"


def records(folder: Path) -> tuple[Record, ...]:
    """The snapshots in a folder, the newest first; one whose file is missing is none.

    Raises:
        BadFile: a record cannot be read.
    """
    found = [_read(path) for path in folder.glob(f"*{RECORD}") if (folder / f"{path.stem}{DATA}").exists()]
    return tuple(sorted(found, key=lambda record: record.taken, reverse=True))


def _read(path: Path) -> Record:
    data = parse_json(read_text(path), path)
    try:
        record = Record(**{**{name.name: data[name.name] for name in fields(Record)}, "recipients": ()})
        record.age(dt.datetime.now(dt.UTC))
    except (KeyError, TypeError, ValueError):
        raise BadFile(path, "is no record of a snapshot", remedy="move it away") from None
    return record


def expired(found: Sequence[Record], platform: Platform, now: dt.datetime, *, more: int = 0) -> tuple[Record, ...]:
    """The snapshots that are no longer kept, once there are `more` new ones; those of other clusters always are."""
    limits = platform.etcd_snapshots
    own = [record for record in found if record.cluster == platform.cluster.name]
    rest = own[max(0, limits.keep - more) :]
    return tuple(record for record in rest if record.age(now) > dt.timedelta(days=limits.keep_days))


def newest(found: Iterable[Record], platform: Platform) -> Record | None:
    """The newest snapshot of the platform's cluster."""
    return next((record for record in found if record.cluster == platform.cluster.name), None)


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
    """
    folder = prepared(context)
    sealed = age.encrypt(data, record.recipients)
    whole = Record(**{**asdict(record), "encrypted": hashlib.sha256(sealed).hexdigest()})
    write_json(folder / f"{record.name}{RECORD}", asdict(whole))
    try:
        write_bytes(folder / f"{record.name}{DATA}", sealed, mode=0o600)
    except BadFile:
        (folder / f"{record.name}{RECORD}").unlink(missing_ok=True)
        raise
    return whole


def prepared(context: RunContext) -> Path:
    """The folder of the snapshots, writable, and without what killed runs left half written.

    Raises:
        BadFile: it cannot be written.
    """
    folder, cluster = folder_of(context), context.platform.cluster.name
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, "it is read-only")
        remove_partial_files(folder)
        for path in folder.glob(f"{cluster}-*{RECORD}"):
            with suppress(BadFile):  # somebody else's
                if not path.with_name(f"{path.stem}{DATA}").exists() and _read(path).cluster == cluster:
                    path.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return folder


def _unwritable(path: Path, error: OSError) -> BadFile:
    remedy = "make its folder writable, or name another one in etcd_snapshots.folder"
    return BadFile(path, f"cannot be written: {error.strerror}", remedy=remedy)


def delete(context: RunContext, name: str) -> None:
    """Delete a snapshot: its record last, so that a run that is killed leaves nothing that the next does not remove.

    Raises:
        BadFile: the folder cannot be written.
    """
    for end in (DATA, RECORD):
        path = folder_of(context) / f"{name}{end}"
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(path, error) from error


@dataclass(frozen=True)
class Opened:
    """A snapshot that was read and checked: its file, its bytes, what it holds, and its record if there is one."""

    path: Path
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
        Rejected: it cannot be decrypted.
    """
    path, record = find(context, wanted)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise Refused(
            f"{path} cannot be read: {error.strerror}", remedy="name a snapshot in etcd_snapshots.restore"
        ) from error
    data = age.decrypt(raw, context.secrets.age_key(), str(path)) if raw.startswith(age.HEADER) else raw
    try:
        content = etcd.read(data)
    except DamagedError as error:
        raise Refused(
            f"{path} is no intact snapshot: {error}", remedy="use another one; never restore one whose checksum fails"
        ) from error
    bundle = context.secrets.bundle()
    if problem := refusal(content, record, bundle.kubernetes.crt, bundle.cluster_id):
        raise Refused(f"{path}: {problem}", remedy="use a snapshot of this cluster that its record describes")
    return Opened(path, data, content, record)


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


def find(context: RunContext, wanted: str | None) -> tuple[Path, Record | None]:
    """The file of a snapshot, and its record if there is one; see `read`.

    Raises:
        Refused: there is none.
    """
    folder = folder_of(context)
    found = records(folder)
    if wanted and ("/" in wanted or wanted.endswith((".db", ".age"))):
        path = located(wanted, context.root)
        return path, next((record for record in found if path == folder / f"{record.name}{DATA}"), None)
    chosen = next((r for r in found if r.name == wanted), None) if wanted else newest(found, context.platform)
    if chosen is None:
        raise Refused(
            f"there is no snapshot {wanted} in {folder}" if wanted else f"there is no snapshot of etcd in {folder}",
            remedy=f"set etcd_snapshots.restore to the path of one, or take one: fluobook run {PHASE} etcd-snapshot",
        )
    return folder / f"{chosen.name}{DATA}", chosen
