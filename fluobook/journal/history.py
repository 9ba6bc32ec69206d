"""What a journal says of the actions of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Performed:
    """An action as a run performed it.

    `began` and `ended` are seconds since the epoch; `ended` is None if the journal has no outcome. `needs` are ids of
    actions of the same stage. `result` is done, failed, or empty without an outcome.
    """

    stage: str
    action: str
    verb: str
    object: str
    began: float
    ended: float | None = None
    result: str = ""
    error: str = ""
    needs: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """How long it took; 0 without an outcome."""
        return max(self.ended - self.began, 0.0) if self.ended is not None else 0.0


def moment(event: Mapping[str, Any]) -> float | None:
    """When an event was written, in seconds since the epoch; None if the journal does not say."""
    try:
        return datetime.fromisoformat(event["at"]).timestamp()
    except (LookupError, TypeError, ValueError, OverflowError):
        return None


def performed(events: Iterable[Mapping[str, Any]]) -> list[Performed]:
    """The actions of a journal, in the order in which they began; one that was performed twice is there twice."""
    actions: list[Performed] = []
    running: dict[tuple[str, str], int] = {}
    for event in events:
        key, at = (str(event.get("stage", "")), str(event.get("action", ""))), moment(event)
        if at is None or event["event"] not in ("intent", "outcome"):
            continue
        if event["event"] == "intent":
            running[key] = len(actions)
            needs = tuple(event.get("needs", ()))
            actions.append(Performed(*key, event.get("verb", ""), event.get("object", ""), at, needs=needs))
        elif key in running:
            begun = actions[running[key]]
            result, error = event.get("result", ""), event.get("error", "")
            fields = {"ended": at, "result": result, "error": error}
            actions[running.pop(key)] = Performed(**{**vars(begun), **fields})
    return actions
