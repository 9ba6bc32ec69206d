"""The timeline: which actions determined how long a stage took, what is drawn, and the waves."""

from __future__ import annotations

from typing import Any

import pytest

from fluobook.journal.history import Performed
from fluobook.run.timeline import MOST_ACTIONS, Bar, critical_path, drawing, timelines, waves


def action(name: str, began: float, ended: float | None, *needs: str, **fields: Any) -> Performed:
    result = "" if ended is None else "done"
    return Performed(
        "create-vms", name, "create", f"vm {name}", began, ended, **{"result": result, **fields}, needs=needs
    )


@pytest.mark.parametrize(
    ("actions", "path"),
    [
        ([action("a", 0, 1), action("b", 0, 3), action("c", 3, 4, "a", "b")], "bc"),
        ([action("a", 0, 5), action("b", 0, 1), action("c", 1, 7, "b")], "bc"),
        ([action("a", 0, 2), action("b", 2.01, 4)], "ab"),
        ([action("a", 0, 2), action("b", 1, 4)], "b"),
        ([action("a", 0, 2), action("b", 2, None, "a")], "a"),
        ([action("a", 0, 0), action("b", 0, 0, "b"), action("c", 0, 1, "c")], "c"),
        ([action("a", 2, 1, "b"), action("b", 1, 2, "a")], "ab"),
        ([], ""),
    ],
    ids=["needs", "the longest is not critical", "a slot", "overlap", "not ended", "no time", "backwards", "none"],
)
def test_the_critical_path_leads_from_the_last_action_to_the_first(actions: list[Performed], path: str) -> None:
    assert "".join(sorted(step.action for step in critical_path(actions))) == path


def test_many_actions_are_drawn_as_far_as_they_matter() -> None:
    first, last = action("first", 0, 0.1), action("last", 0.5, 90, "first")
    failed = action("failed", 0, 0.1, result="failed")
    short = [action(f"short {number}", 0.2, 0.3) for number in range(2 * MOST_ACTIONS)]
    page = timelines({"create-vms": [first, failed, *short, last]}, {"create-vms": (0, 90)})
    assert page.count("<g>") == MOST_ACTIONS + 1
    assert f"{MOST_ACTIONS + 3} shorter ones not drawn" in page
    assert all(mark in page for mark in ("◆ create vm first", "◆ create vm last", "✗ create vm failed"))


def test_a_drawing_stays_in_its_frame_and_is_escaped() -> None:
    page = drawing("<b>", [Bar("<script>", 5, 4), Bar("x" * 500, 4, 4), Bar("none", 4, 14, tone="bad")])
    assert "<b>" not in page
    assert "<script>" not in page
    assert f">{'x' * 41}…</text>" in page
    assert "x" * 201 not in page
    assert 'class="bad" x="47.00%" y="33" width="53.00%"' in page


def test_the_waves_are_those_that_the_run_waited_for() -> None:
    def awaited(name: str, evidence: Any) -> Performed:
        return Performed("root-application", name, "await", f"application {name}", 0, 1, "done", evidence=evidence)

    done = [awaited("b", {"wave": 2}), awaited("a", {"wave": -4}), awaited("old", {}), action("x", 0, 1)]
    names = {wave: [application.action for application in actions] for wave, actions in waves(done).items()}
    assert names == {-4: ["a"], 2: ["b"]}
