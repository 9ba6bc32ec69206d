"""A stage reaches the clients that it declares, and no other."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from fluobook.context import POLICIES, RunContext
from fluobook.errors import Refused
from fluobook.journal.journal import Journal, Rehearses, StageSummary, Summary
from fluobook.notebook import stage_run
from fluobook.redact import Redactor
from fluobook.stages import catalogue
from fluobook.stages.core.plan import Action, Approval, Gate, Plan
from fluobook.stages.core.stage import Stage, read_only_stage

REACH = {
    "proxmox": lambda context: context.proxmox("laptop"),
    "talos": lambda context: context.talos,
    "kubernetes": lambda context: context.kube(),
    "image factory": lambda context: context.factory,
    "bucket": lambda context: context.bucket,
}


@pytest.fixture
def context(platform, root, tmp_path):
    redactor = Redactor()
    return RunContext("phase1", platform, "lab", root, tmp_path, redactor, Journal(None, redactor))


@pytest.mark.parametrize("client", REACH)
def test_a_client_that_is_not_declared_is_refused(context, client):
    others = [name for name in REACH if name != client]
    with pytest.raises(RuntimeError, match=f"uses the {client} client but does not declare it"):
        REACH[client](context.limited_to(others))


def test_a_declared_client_is_the_one_of_the_whole_run(context):
    assert context.limited_to(["talos"]).talos is context.talos
    assert context.limited_to(["image factory"]).factory is context.factory


def test_a_runbook_limits_each_stage_to_what_it_declares(context):
    gate = Gate(Approval.parse("all"), POLICIES["lab"], "fluodata")
    for stage in (*catalogue.STAGES, *catalogue.DAY_TWO):
        assert stage_run(stage, context, gate).context.uses == frozenset(stage.uses)
        assert set(stage.uses) <= set(REACH)


def test_a_read_only_stage_plans_nothing_and_performs_nothing(context, platform):
    stage: Stage = read_only_stage(0, "preflight", "Check", lambda _: (), uses=())
    assert stage.plan(platform, stage.observe(context)).actions == ()
    with pytest.raises(Refused, match="changes nothing: it does not create vm a"):
        stage.perform(context, Action("create a", "create", "vm a"), SimpleNamespace())


def test_one_object_of_a_class_is_shared_until_the_run_is_closed(context):
    class Shared(list[int]):
        pass

    shared = context.shared(Shared, Shared)
    assert context.limited_to([]).shared(Shared, Shared) is shared
    context.close()
    assert context.shared(Shared, Shared) is not shared


@pytest.mark.parametrize(("digest", "expected"), [("", "rehearsed 2 hours ago in the lab, passed, 41 s"), ("x", "not")])
def test_a_live_plan_and_its_approval_say_whether_it_was_rehearsed(context, tmp_path, digest, expected):
    context.target, context.root = "live", tmp_path
    left = [Action("upgrade a", "upgrade", "node a")]
    stage = Stage(
        *(21, "upgrade-talos", "Upgrade", lambda _: None, lambda _platform, _: Plan("upgrade-talos", tuple(left))),
        *(lambda *_: left.clear(), lambda *_: []),
    )
    folder = tmp_path / "runs" / "20260101T000000Z-phase1"
    folder.mkdir(parents=True)
    at = (datetime.now(UTC) - timedelta(hours=2, minutes=1)).isoformat()
    approved = Plan("upgrade-talos", tuple(left)).digest
    rehearses = Rehearses(context.platform.cluster.name, "upgrade-talos", digest or approved, at)
    run = StageSummary("upgrade-talos", "21.ipynb", status="done", seconds=41.0)
    (folder / "summary.json").write_text(json.dumps(asdict(Summary("phase1", "lab", 0, (run,), rehearses=rehearses))))
    started = stage_run(stage, context, Gate(Approval.parse(f"upgrade-talos={approved}"), POLICIES["live"], "fluodata"))
    plan = started.plan()
    assert plan.notes[-1].startswith(expected)
    assert plan.digest == approved
    started.apply(plan)
    (event,) = [event for event in context.journal.events if event["event"] == "approved"]
    assert event["rehearsed"].startswith(expected)
