"""What a journal says of the actions of a run."""

from __future__ import annotations

from typing import Any

import pytest

from fluobook.journal.history import performed


def intent(action: str, second: float, **fields: Any) -> dict[str, Any]:
    return written("intent", action, second, verb=action.split(maxsplit=1)[0], object=f"vm {action}", **fields)


def outcome(action: str, second: float, result: str = "done") -> dict[str, Any]:
    return written("outcome", action, second, result=result)


def written(event: str, action: str, second: float, **fields: Any) -> dict[str, Any]:
    at = f"2026-11-28T10:00:{second:06.3f}+00:00"
    return {"at": at, "event": event, "stage": "create-vms", "action": action, **fields}


def test_an_action_is_its_intent_with_its_outcome_and_each_attempt_counts() -> None:
    events = [intent("start a", 1), outcome("start a", 3.5, "failed"), intent("start a", 4, needs=["create a"])]
    events += [intent("start b", 5), outcome("start a", 6), outcome("never begun", 7)]
    assert [(a.action, a.result, a.seconds, a.needs) for a in performed(events)] == [
        ("start a", "failed", 2.5, ()),
        ("start a", "done", 2.0, ("create a",)),
        ("start b", "", 0.0, ()),
    ]


@pytest.mark.parametrize("at", [None, 5, "", "yesterday", "2026-11-28T10:00:99+00:00"])
def test_an_event_without_a_time_is_no_action(at: Any) -> None:
    assert performed([{**intent("start a", 1), "at": at}]) == []
