"""Proxmox VE's tasks: their ids, their states, and how often to ask."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluobook.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Mapping

_UPID = re.compile(
    r"UPID:(?P<node>[^:\s]+):(?P<pid>[0-9A-Fa-f]{8}):(?P<pstart>[0-9A-Fa-f]{8,9}):(?P<start>[0-9A-Fa-f]{8})"
    r":(?P<type>[^:\s]+):(?P<id>[^:\s]*):(?P<user>[^:\s]+):"
)
LOG_TAIL = 20
"""Lines of a failed task's log that are shown."""


@dataclass(frozen=True)
class Upid:
    """The id of a task; `node` runs it, whichever node was asked. `str()` gives the text of Proxmox VE back."""

    text: str
    node: str
    started: int
    type: str
    id: str
    user: str

    @classmethod
    def parse(cls, text: str) -> Upid:
        """Read `UPID:node:pid:pstart:starttime:type:id:user:`.

        Raises:
            Rejected: the text is not such an id.
        """
        found = _UPID.fullmatch(str(text))
        if not found:
            raise Rejected(f"Proxmox VE answered {text!r}, which is not the id of a task", system="proxmox")
        return cls(text, found["node"], int(found["start"], 16), found["type"], found["id"], found["user"])

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class TaskStatus:
    """What a task is doing: `exit` is "" while it runs, then OK, `WARNINGS: n` or the error's text."""

    upid: Upid
    exit: str = ""

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return not self.exit

    @property
    def ok(self) -> bool:
        """Whether it ended well; warnings count as well."""
        return self.exit == "OK" or self.exit.startswith("WARNINGS")

    @classmethod
    def read(cls, upid: Upid, data: Mapping[str, Any]) -> TaskStatus:
        """From GET /nodes/{node}/tasks/{upid}/status."""
        ended = data.get("status") == "stopped"
        return cls(upid, str(data.get("exitstatus") or "unexpected status") if ended else "")

    @classmethod
    def listed(cls, data: Mapping[str, Any]) -> TaskStatus:
        """From an item of GET /cluster/tasks, which has an end time and `status` once it is over."""
        ended = bool(data.get("endtime"))
        return cls(Upid.parse(data["upid"]), str(data.get("status") or "unexpected status") if ended else "")
