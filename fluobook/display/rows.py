"""The rows of a live table with the revision at which each changed, so that a page receives only what it lacks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from fluobook.display.table import Cell, Table, tone_of

CHUNK = 500
"""Rows of one message: a page draws between two."""
REMEMBERED = 5000
"""Rows that are gone and still known as such; a page that is further behind receives everything again."""


class Rows:
    """The present rows of one table; not safe for threads."""

    def __init__(self) -> None:
        self.revision = 0
        self._rows: dict[str, tuple[int, Sequence[Any]]] = {}
        self._gone: dict[str, int] = {}
        self._oldest = 0
        self._head: tuple[int, dict[str, Any]] = 0, {}

    def put(self, table: Table) -> bool:
        """Take in the table as it is now; returns whether anything has changed."""
        names = "columns", "title", "note", "bar", "sort", "pickers", "optional", "details"
        head = {name: getattr(table, name) for name in names}
        rows, known, revision = keyed(table), self._rows, self.revision + 1
        new = {key: row for key, row in rows.items() if key not in known or known[key][1] != row}
        gone = known.keys() - rows.keys()
        if not (new or gone or head != self._head[1]):
            return False
        self.revision = revision
        if head != self._head[1]:
            self._head = revision, head
        for key in gone:
            del known[key]
            self._gone[key] = revision
        for key, row in new.items():
            known[key] = revision, row
            self._gone.pop(key, None)
        if len(self._gone) > REMEMBERED:
            self._gone, self._oldest = {}, revision
        return True

    def since(self, base: int) -> Iterator[Mapping[str, Any]]:
        """What changed after a revision, as messages to the page; all rows if that is too long ago.

        Rows are JSON in one text, which costs the redactor less than many.
        """
        if clear := not self._oldest <= base <= self.revision or base == 0:
            base = 0
        changed = [[key, list(map(encoded, row))] for key, (revision, row) in self._rows.items() if revision > base]
        gone = [] if clear else [key for key, revision in self._gone.items() if revision > base]
        head = _json(self._head[1]) if self._head[0] > base else ""
        for start in range(0, max(1, len(changed)), CHUNK):
            rows, last = _json(changed[start : start + CHUNK]), start + CHUNK >= len(changed)
            content = {"clear": clear, "head": head, "gone": _json(gone), "rows": rows, "last": last}
            yield {"base": base, "revision": self.revision, **content}
            clear, gone, head = False, [], ""


def keyed(table: Table) -> dict[str, Sequence[Any]]:
    """The rows by what names them; equal names get a number."""
    indexes = [table.columns.index(name) for name in table.key]
    rows: dict[str, Sequence[Any]] = {}
    for number, row in enumerate(table.rows):
        key = "\t".join(str(row[i]) for i in indexes) if indexes else f"{number:06}"
        rows[f"{key}\t{number}" if key in rows else key] = row
    return rows


def encoded(cell: Any) -> Any:
    """A cell as table.js understands it."""
    if isinstance(cell, Cell):
        return [str(cell), tone_of(cell), cell.link, cell.text]
    if isinstance(cell, datetime):
        return {"t": cell.timestamp()}
    return cell if cell is None or isinstance(cell, int | float) else str(cell)


def _json(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))
