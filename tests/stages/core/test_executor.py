"""Actions run as soon as what they need is done, and what fails stops only what needs it."""

from __future__ import annotations

import threading
from collections import Counter
from graphlib import CycleError
from types import SimpleNamespace

import pytest

from fluobook.errors import Locked, Refused
from fluobook.journal.journal import Journal
from fluobook.redact import Redactor
from fluobook.stages.core import executor
from fluobook.stages.core.executor import Executor, Progress
from fluobook.stages.core.plan import Action, Plan
from fluobook.waiting import Cancellation, wait_until

BOUND = 10


def action(name, *needs, system="proxmox"):
    return Action(name, "create", name, needs=needs, system=system)


class Work:
    """Performs actions: notes their order, raises the given errors."""

    def __init__(self, **fails):
        self.fails, self.order = fails, []
        self.journal = Journal(None, Redactor())

    def run(self, *actions, perform=None, **options):
        plan = Plan("a-stage", actions)
        progress = Progress(plan.actions)
        Executor(perform or self.perform, self.journal, **options).run(plan, progress)
        return progress

    def perform(self, action, report):
        self.order.append(action.id)
        report.evidence(upid=f"UPID:{action.id}")
        if error := self.fails.get(action.id):
            raise error
        return {"done": action.id}

    def recorded(self, event):
        return [line["action"] for line in self.journal.events if line["event"] == event]


def test_what_is_needed_comes_first():
    work = Work()
    work.run(action("c", "b"), action("b", "a"), action("a"))
    assert work.order == ["a", "b", "c"]


def test_a_need_that_is_not_in_the_plan_was_met_before():
    work = Work()
    work.run(action("b", "a"))
    assert work.order == ["b"]


def test_actions_that_need_each_other_are_refused_before_any_runs():
    work = Work()
    with pytest.raises(CycleError):
        work.run(action("a", "b"), action("b", "a"), action("c"))
    assert work.order == []


def test_independent_actions_run_at_the_same_time():
    meeting = threading.Barrier(3)
    Work().run(*(action(name) for name in "abc"), perform=lambda *_: {"arrived": meeting.wait(BOUND)})
    assert not meeting.broken


def test_no_more_actions_run_on_one_system_than_its_width():
    now, most, lock = Counter(), Counter(), threading.Lock()
    meeting = threading.Barrier(3)

    def perform(action, _report):
        with lock:
            now[action.system] += 1
            most[action.system] = max(most[action.system], now[action.system])
        if action.system == "proxmox:a":
            meeting.wait(BOUND)
        with lock:
            now[action.system] -= 1

    actions = [action(f"{system} {n}", system=system) for n in range(6) for system in ("proxmox:a", "cycle")]
    Work().run(*actions, perform=perform, widths={"proxmox": 3, "cycle": 1})
    assert most["cycle"] == 1
    assert most["proxmox:a"] == 3


def test_who_only_waits_gives_its_place_to_the_next():
    both = threading.Barrier(2)

    def perform(_one, report):
        report.release_slot()
        both.wait(BOUND)

    Work().run(action("a"), action("b"), perform=perform, widths={"proxmox": 1})
    assert not both.broken


def test_what_needs_a_failed_action_is_skipped_and_all_else_is_done():
    work = Work(a=Refused("no"))
    with pytest.raises(Refused, match="a-stage, a: no"):
        work.run(action("a"), action("b", "a"), action("c", "b"), action("d"))
    assert sorted(work.order) == ["a", "d"]


def test_the_error_is_that_of_the_first_in_the_plan_and_names_all_others_whichever_failed_first():
    b_failed = threading.Event()

    def perform(one, _report):
        if one.id == "a":
            b_failed.wait(BOUND)
        else:
            b_failed.set()
        raise Refused(f"no {one.id}")

    with pytest.raises(Refused, match=r"^a-stage, a: no a \(and 1 more failed: b\)$"):
        Work().run(action("a"), action("b"), perform=perform)


def test_states_are_reported_while_the_plan_is_applied():
    plan = Plan("a-stage", (action("a"), action("b", "a")))
    progress, states = Progress(plan.actions), []
    progress.changed = lambda: states.append({a.id: progress.of(a).state for a in plan.actions})
    with pytest.raises(ValueError, match="bad"):
        Executor(lambda *_: (_ for _ in ()).throw(ValueError("bad")), Journal(None, Redactor())).run(plan, progress)
    assert {"a": "running", "b": "waiting"} in states
    ended = [(progress.of(a).state, progress.of(a).message) for a in plan.actions]
    assert ended == [("failed", "bad"), ("skipped", "an action that it needs failed")]


def test_a_running_action_shows_its_limit_and_offers_the_tail_of_its_log(monkeypatch):
    monkeypatch.setattr(executor, "time", SimpleNamespace(monotonic=lambda: 7.0))
    plan, during = Plan("a-stage", (action("a"), action("b"), action("c"))), {}
    progress = Progress(plan.actions)
    journal = Journal(None, Redactor())

    def perform(running, report):
        report("asks for it")
        if running.id != "b":
            report.follow(lambda: ("line 1", "line 2") if running.id == "a" else unreadable())
        wait_until(lambda: True, what="a task", timeout=600, cancellation=Cancellation())
        now = progress.of(running)
        during[running.id] = (now.state, now.limit - now.started, list(progress.tails()[running.id]()))

    def unreadable():
        raise Refused("no permission")

    Executor(perform, journal, widths={"proxmox": 1}).run(plan, progress)
    assert during == {
        "a": ("running", 600, ["line 1", "line 2"]),
        "b": ("running", 600, ["asks for it", "waiting for a task"]),
        "c": ("running", 600, ["asks for it", "waiting for a task", "the log cannot be read: no permission"]),
    }
    ended = progress.of(plan.actions[0])
    assert (ended.limit, ended.ended >= ended.started, progress.tails()) == (None, True, {})
    waits = [(line["what"], line["seconds"]) for line in journal.events if line["event"] == "wait"]
    assert waits == 3 * [("a task", 600)]
    wait_until(lambda: True, what="nothing of an action", timeout=1, cancellation=Cancellation())
    assert sum(line["event"] == "wait" for line in journal.events) == 3


def test_intent_is_in_the_journal_before_and_the_outcome_after():
    work = Work(b=Refused("no", remedy="do it"))
    with pytest.raises(Refused):
        work.run(action("a"), action("b", "a"))
    events = [(line["event"], line["action"]) for line in work.journal.events]
    assert events == [(event, name) for name in "ab" for event in ("intent", "evidence", "outcome")]
    assert work.journal.events[2]["evidence"] == {"done": "a"}
    assert work.journal.events[-1]["error"] == "no\n  remedy:  do it"


def test_an_interrupt_is_journalled_with_what_was_at_work():
    work = Work()
    started, plan = threading.Event(), Plan("a-stage", (action("a"), action("b", "a")))
    progress = Progress(plan.actions)

    def perform(*_):
        started.set()

    def changed():
        if started.is_set():
            raise KeyboardInterrupt

    progress.changed = changed
    with pytest.raises(KeyboardInterrupt):
        Executor(perform, work.journal).run(plan, progress)
    assert "interrupted" in [line["event"] for line in work.journal.events]


def test_a_message_is_not_shown_after_cancellation():
    def check():
        raise Refused("halted")

    with pytest.raises(Refused, match="halted"):
        Work().run(action("a"), perform=lambda _, report: report("still here"), check=check)


def test_no_action_begins_once_work_is_broken_off():
    work, lost = Work(), []

    def check():
        if lost:
            raise Locked("bob holds the lock on this cluster")

    def perform(action, _):
        lost.append(action.id)

    with pytest.raises(Locked, match="bob holds the lock"):
        work.run(action("a"), action("b", "a"), perform=perform, check=check)
    assert lost == ["a"]
    assert work.recorded("intent") == ["a"]
