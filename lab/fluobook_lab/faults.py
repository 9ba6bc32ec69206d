"""The faults that the lab can inject, by name; those that only answer for a server are data (faults.yaml)."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fluobook_lab.data import table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True)
class Answer:
    """What a fault does to the requests to a server.

    Args:
        effect: what happens, for people.
        request: a regular expression for the whole of "METHOD path"; of a Talos node for the name of the RPC.
        status: the HTTP status, or the name of a gRPC status.
        reason: the reason phrase, in which Proxmox VE writes its messages; of a Talos node the message.
        body: a text, or JSON.
        headers: of the answer.
        breaks: after how many bytes of the body the connection breaks.
        down: whether nothing listens.
        certificate: how the server's certificate differs from the right one: `host`, `days`, `untrusted`.
    """

    effect: str
    request: str = ".*"
    status: int | str = 200
    reason: str = ""
    body: Any = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    breaks: int | None = None
    down: bool = False
    certificate: Mapping[str, Any] = field(default_factory=dict)


_TABLE: dict[str, Any] = table("faults.yaml")
ANSWERS = {name: Answer(**entry) for name, entry in _TABLE.items() if isinstance(entry, dict)}
FAULTS: dict[str, str] = {name: ANSWERS[name].effect if name in ANSWERS else entry for name, entry in _TABLE.items()}
"""Every fault: its name and its effect."""


class Faults:
    """The faults of one lab; a name that is given n times happens n times.

    Args:
        names: names from `FAULTS`.

    Raises:
        ValueError: a name is not in `FAULTS`.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.replace(names)

    def replace(self, names: Iterable[str]) -> None:
        """Inject these faults and no others from now on."""
        left = Counter(names)
        if unknown := sorted(set(left) - set(FAULTS)):
            raise ValueError(f"unknown faults {', '.join(unknown)}; known: {', '.join(sorted(FAULTS))}")
        self._left = left

    def add(self, name: str, times: int = 1) -> None:
        """Inject a fault while the lab runs."""
        self.replace([*self._left.elements(), *[name] * times])

    def take(self, name: str) -> bool:
        """Whether the fault happens now; counts as one of its times."""
        happens = self._left[name] > 0
        self._left[name] -= happens
        return happens

    def on(self, name: str) -> bool:
        """Whether the fault is injected; it lasts."""
        return self._left[name] > 0

    def answer(self, server: str, request: str = "") -> Answer | None:
        """What the first lasting fault of a server does to a request, or to all of them; None if there is none.

        Args:
            server: the first part of the names of its faults.
            request: "METHOD path" or the name of an RPC; "" for what concerns the server as a whole.
        """
        for name in self._left:
            if name.startswith(f"{server}.") and name in ANSWERS and self.on(name):
                answer = ANSWERS[name]
                whole = answer.down or bool(answer.certificate)
                if whole == (not request) and (whole or re.fullmatch(answer.request, request)):
                    return answer
        return None
