"""Snapshots of etcd as the lab writes and restores them: a bbolt database with its SHA-256 behind it."""

from __future__ import annotations

import hashlib
import json
import struct
from typing import TYPE_CHECKING

from fluobook.kubernetes import snapshot as form

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fluobook_lab.kube.objects import Obj

PAGE_SIZE = 4096
INDEX = b"consistent_index"


def written(objects: Iterable[tuple[str, Obj]], members: Mapping[str, Obj], revision: int) -> bytes:
    """A snapshot.

    Args:
        objects: the objects with the keys under which etcd has them; they are stored as JSON.
        members: the members by id.
        revision: of the whole.
    """
    by_revision = {int(obj["metadata"]["resourceVersion"]): (path, obj) for path, obj in objects}
    stored = [(_key(number), _value(path, number, obj)) for number, (path, obj) in sorted(by_revision.items())]
    if not stored or revision > max(by_revision):
        stored.append((_key(revision) + b"t", b"\x0a\x01-"))  # the last change was a deletion
    buckets = {
        b"key": stored,
        b"members": [(name.encode(), json.dumps(member).encode()) for name, member in sorted(members.items())],
        b"meta": [(INDEX, struct.pack(">Q", revision))],
    }
    pages, roots = b"", []
    for name, entries in sorted(buckets.items()):
        number = 4 + len(pages) // PAGE_SIZE
        pages += _leaf(number, [(0, key, value) for key, value in entries])
        roots.append((form.BUCKET, name, struct.pack("<QQ", number, 0)))
    count = 4 + len(pages) // PAGE_SIZE
    head = _meta(0, count, 0) + _meta(1, count, 1) + _padded(form.PAGE.pack(2, form.FREELIST, 0, 0))
    database = head + _leaf(3, roots) + pages
    return sealed(database)


def sealed(database: bytes) -> bytes:
    """A database with its SHA-256 behind it."""
    return database + hashlib.sha256(database).digest()


def restored(data: bytes) -> tuple[list[Obj], int]:
    """The objects in a snapshot of the lab, and its revision.

    Raises:
        DamagedError: it is not intact.
    """
    entries = [value for key, value in form.entries(data, b"key") if len(key) == form.REVISION.size]
    return [json.loads(form.part(value, form.VALUE)) for value in entries], form.read(data).revision


def startable(data: bytes) -> bytes:
    """The database of a real snapshot for a new member: what etcd applied of its former log is forgotten."""
    database = bytearray(data[: -form.TRAILER])
    for key, start, end in form.located(data, b"meta"):
        if key in (INDEX, b"term"):
            database[start:end] = bytes(end - start)
    return bytes(database)


def _key(revision: int) -> bytes:
    return form.REVISION.pack(revision, b"_", 0)


def _value(path: str, revision: int, obj: Obj) -> bytes:
    """The KeyValue message: key, revisions of creation and of the last change, version, value."""
    body = json.dumps(obj, separators=(",", ":")).encode()
    numbers = b"".join(bytes([tag]) + _varint(revision) for tag in (0x10, 0x18)) + b"\x20\x01"
    return b"\x0a" + _varint(len(path)) + path.encode() + numbers + b"\x2a" + _varint(len(body)) + body


def _varint(number: int) -> bytes:
    def groups() -> Iterator[int]:
        rest = number
        while rest > 0x7F:  # noqa: PLR2004
            yield rest & 0x7F | 0x80
            rest >>= 7
        yield rest

    return bytes(groups())


def _leaf(number: int, elements: list[tuple[int, bytes, bytes]]) -> bytes:
    heads, bodies, size = b"", b"".join(key + value for _, key, value in elements), form.LEAF_ELEMENT.size
    offset = len(elements) * size
    parts = []
    for index, (flags, key, value) in enumerate(elements):
        parts.append(form.LEAF_ELEMENT.pack(flags, offset - index * size, len(key), len(value)))
        offset += len(key) + len(value)
    heads = b"".join(parts)
    more = (form.PAGE.size + len(heads) + len(bodies) - 1) // PAGE_SIZE
    return _padded(form.PAGE.pack(number, form.LEAF, len(elements), more) + heads + bodies)


def _meta(number: int, pages: int, transaction: int) -> bytes:
    checked = form.HEADER.pack(form.MAGIC, 2, PAGE_SIZE, 0, 3, 0, 2, pages, transaction, 0)[:-8]
    checksum = 0xCBF29CE484222325  # FNV-1a, 64 bits
    for byte in checked:
        checksum = (checksum ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return _padded(form.PAGE.pack(number, form.META, 0, 0) + checked + struct.pack("<Q", checksum))


def _padded(page: bytes) -> bytes:
    return page + bytes(-len(page) % PAGE_SIZE)
