"""A stage reaches the clients that it declares, and no other."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fluobook.context import POLICIES, RunContext
from fluobook.errors import Refused
from fluobook.journal.journal import Journal
from fluobook.notebook import stage_run
from fluobook.redact import Redactor
from fluobook.stages import catalogue
from fluobook.stages.core.gate import Approval, Gate
from fluobook.stages.core.plan import Action
from fluobook.stages.core.stage import Stage, read_only_stage

REACH = {
    "proxmox": lambda context: context.proxmox("laptop"),
    "talos": lambda context: context.talos,
    "kubernetes": lambda context: context.kube(),
    "image factory": lambda context: context.factory,
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
