"""A snapshot of etcd, read without etcd: whether it is intact, how far it goes, and what it holds under some keys.

The file is etcd's database (bbolt, https://github.com/etcd-io/bbolt) with the SHA-256 of its bytes behind it. Objects
of Kubernetes are in the bucket `key` by revision; all but Secrets are stored in plaintext.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

TRAILER: Final = 32
"""Bytes of the SHA-256 behind the database."""
SECTOR: Final = 512
"""A database has a multiple of these bytes."""
MAGIC: Final = 0xED0CDAED
DEFAULT_SIZE: Final = 4096
"""Bytes of a page on most machines."""
BRANCH, LEAF, META, FREELIST = 0x01, 0x02, 0x04, 0x10
"""Flags of pages."""
BUCKET: Final = 0x01
"""Flag of an element that is a bucket."""
PAGE: Final = struct.Struct("<QHHI")
"""id, flags, number of elements, number of further pages."""
HEADER: Final = struct.Struct("<IIIIQQQQQQ")
"""magic, version, page size, flags, root page, sequence, freelist page, number of pages, transaction, checksum."""
LEAF_ELEMENT: Final = struct.Struct("<IIII")
"""flags, position of the key from here, length of the key, length of the value."""
BRANCH_ELEMENT: Final = struct.Struct("<IIQ")
"""position of the key from here, length of the key, page."""
REVISION: Final = struct.Struct(">QcQ")
"""The key of an entry: revision, "_", number within it; one more byte marks a deletion."""
BYTES: Final = 2
"""The wire type of bytes in a message; others of etcd's entries are numbers."""
NAME, VALUE = 1, 5
"""Fields of an entry."""
ROOT_CA: Final = "/registry/configmaps/kube-system/kube-root-ca.crt"
"""The cluster's CA as every namespace has it."""
SYSTEM: Final = "/registry/namespaces/kube-system"
"""Its uid is made with the cluster."""
SENTINEL: Final = "fluobook-snapshot"
"""The ConfigMap in kube-system that fluobook writes before a snapshot, with the snapshot's name."""
NAMED: Final = f"/registry/configmaps/kube-system/{SENTINEL}"
DEEPEST: Final = 16
"""Pages from the root of a bucket to its elements, at most."""


class DamagedError(ValueError):
    """The file is no intact snapshot; the message says why."""


@dataclass(frozen=True)
class Snapshot:
    """What a snapshot holds.

    Args:
        sha256: of its database, which is also its trailer.
        size: in bytes.
        revision: the newest.
        values: what is stored under the keys of interest.
    """

    sha256: str
    size: int
    revision: int
    values: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    def is_of(self, authority: str) -> bool:
        """Whether the cluster has this CA (PEM), which no other cluster has."""
        return _bare(authority.encode()) in _bare(self.values.get(ROOT_CA, b""))

    def has(self, key: str, text: str) -> bool:
        """Whether the object under a key contains a text."""
        return bool(text) and text.encode() in self.values.get(key, b"")


def _bare(text: bytes) -> bytes:
    """Text without line ends, as they are or escaped."""
    return re.sub(rb"\\n|\s", b"", text)


def read(data: bytes) -> Snapshot:
    """Check a snapshot, and read what identifies it.

    Raises:
        DamagedError: it is truncated, was changed, or is something else.
    """
    if len(data) % SECTOR != TRAILER:
        raise DamagedError(f"no checksum found: {len(data)} bytes are no database with a SHA-256 behind it")
    digest = hashlib.sha256(memoryview(data)[:-TRAILER]).digest()
    if digest != data[-TRAILER:]:
        raise DamagedError("the checksum does not match: it was changed or damaged after it was taken")
    revision, values = 0, dict[str, bytes]()
    wanted = {key.encode(): key for key in (ROOT_CA, SYSTEM, NAMED)}
    for key, value in entries(data, b"key"):
        revision = max(revision, REVISION.unpack_from(key)[0])
        _keep(values, wanted, key, value)
    if not revision:
        raise DamagedError("it holds nothing")
    return Snapshot(digest.hex(), len(data), revision, values)


def _keep(values: dict[str, bytes], wanted: Mapping[bytes, str], key: bytes, value: bytes) -> None:
    name = wanted.get(part(value, NAME))
    if name and len(key) > REVISION.size:
        values.pop(name, None)
    elif name:
        values[name] = value


def part(entry: bytes, number: int) -> bytes:
    """A field of bytes of an entry (etcd's KeyValue message): 1 is the name, 5 the value; b"" if there is none."""
    at = 0
    while at < len(entry):
        tag, at = _varint(entry, at)
        length, at = _varint(entry, at)
        if tag & 7 == BYTES and tag >> 3 == number:
            return entry[at : at + length]
        at += length if tag & 7 == BYTES else 0
    return b""


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of variable length, and where it ends."""
    value, shift = data[at] & 0x7F, 7
    while data[at] > 0x7F:  # noqa: PLR2004  more bytes follow
        at += 1
        value |= (data[at] & 0x7F) << shift
        shift += 7
    return value, at + 1


def entries(data: bytes, bucket: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a bucket, in the order of the keys.

    Raises:
        DamagedError: the database cannot be read.
    """
    for key, start, end in located(data, bucket):
        yield key, data[start:end]


def located(data: bytes, bucket: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The keys of a bucket, and where in the file their values begin and end.

    Raises:
        DamagedError: the database cannot be read.
    """
    try:
        size, root = _root(data)
        for flags, key, start, _end in _elements(data, size, root * size):
            if flags & BUCKET and key == bucket:
                (page,) = struct.unpack_from("<Q", data, start)
                inline = start + 16
                for _, name, first, last in _elements(data, size, page * size if page else inline):
                    yield name, first, last
    except (struct.error, RecursionError, IndexError) as error:
        raise DamagedError("its database cannot be read") from error


def _root(data: bytes) -> tuple[int, int]:
    """The page size, and the root page of the newest transaction."""
    metas: list[tuple[int, int, int]] = []
    for start in (0, struct.unpack_from("<I", data, PAGE.size + 8)[0], DEFAULT_SIZE):
        if start + PAGE.size + HEADER.size > len(data):
            continue
        magic, version, size, _, root, _, _, _, transaction, _ = HEADER.unpack_from(data, start + PAGE.size)
        if (magic, version) == (MAGIC, 2):
            metas.append((transaction, size, root))
    if not metas:
        raise DamagedError("it is no database of etcd")
    _, size, root = max(metas)
    return size, root


def _elements(data: bytes, size: int, at: int, depth: int = 0) -> Iterator[tuple[int, bytes, int, int]]:
    """The elements below a page: flags, key, where the value begins and ends."""
    _, flags, count, _ = PAGE.unpack_from(data, at)
    if depth > DEEPEST or not flags & (BRANCH | LEAF):
        raise DamagedError("its database cannot be read")
    for number in range(count):
        here = at + PAGE.size + number * LEAF_ELEMENT.size
        if flags & BRANCH:
            _, _, page = BRANCH_ELEMENT.unpack_from(data, here)
            yield from _elements(data, size, page * size, depth + 1)
        else:
            kind, position, key, value = LEAF_ELEMENT.unpack_from(data, here)
            start = here + position
            yield kind, data[start : start + key], start + key, start + key + value
