"""A plan's digest covers what would be done and for which platform, and nothing that changes by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fluobook import params
from fluobook.stages.core.plan import Action, Plan

A = Action("create a", "create", "vm a", detail="2 vCPU", reason="not there", data={"vmid": 1})
B = Action("start a", "start", "vm a", needs=("create a",))
PLAN = Plan("create-vms", (A, B), platform={"name": "fluodata"})


def test_the_digest_changes_with_the_platform_and_with_what_is_done():
    others = [
        replace(PLAN, platform={"name": "another"}),
        replace(PLAN, actions=(replace(A, data={"vmid": 2}), B)),
        replace(PLAN, actions=(A,)),
        replace(PLAN, actions=(replace(A, destroys=("a",)), B)),
        replace(PLAN, stage="another"),
    ]
    assert len({plan.digest for plan in (PLAN, *others)}) == len(others) + 1


def test_the_digest_does_not_change_with_words_for_people():
    spoken = replace(A, detail="two", reason="gone")
    assert replace(PLAN, actions=(spoken, replace(B, needs=())), kept=7, notes=("note",)).digest == PLAN.digest


def test_the_digest_is_the_same_wherever_the_lab_listens():
    platform = params.load("phase1").platform
    mapped = params.overlay(
        platform,
        {
            "endpoints": {"192.168.1.100:8006": "127.0.0.1:40001"},
            "trust": {"192.168.1.100:8006": "/tmp/ca.pem"},  # noqa: S108
            "gitops": {"mirrors": {"https://helm.cilium.io": "http://127.0.0.1:40002"}},
            "secrets": {"bundle": "/tmp/lab/secrets.sops.yaml"},  # noqa: S108
        },
    )
    plan, other = (Plan("create-vms", (A,), platform=p.digest_data()) for p in (platform, mapped))
    assert plan.digest == other.digest


def test_a_prediction_and_an_empty_plan_have_no_digest():
    assert replace(PLAN, waits_for="preflight").digest == ""
    assert Plan("create-vms").digest == ""


def test_what_is_left_of_an_approved_plan_may_go_on():
    assert PLAN.rest_of(PLAN)
    assert replace(PLAN, actions=(B,)).rest_of(PLAN)
    assert replace(PLAN, actions=()).rest_of(PLAN)


def test_what_was_not_approved_may_not():
    more = replace(PLAN, actions=(A, B, replace(A, id="create b")))
    assert not more.rest_of(PLAN)
    assert not replace(PLAN, actions=(replace(A, data={"vmid": 9}),)).rest_of(PLAN)
    assert not replace(PLAN, platform={}).rest_of(PLAN)
    assert not replace(PLAN, waits_for="preflight").rest_of(PLAN)


def test_a_plan_reads_well():
    text = replace(PLAN, kept=2, notes=("mind the gap",)).table().text()
    assert text.splitlines()[0] == "plan of create-vms"
    assert "+ create" in text
    assert text.splitlines()[-2:] == [
        "mind the gap",
        f"Plan {PLAN.digest}: 2 to create, 0 to change, 0 to destroy, 2 unchanged.",
    ]


@pytest.mark.parametrize(
    ("plan", "summary"),
    [
        (Plan("preflight"), "No changes."),
        (Plan("create-vms", kept=1), "No changes. 1 resource is up to date."),
        (Plan("create-vms", kept=3), "No changes. 3 resources are up to date."),
        (replace(PLAN, waits_for="preflight"), "Blocked: run preflight first. 2 actions predicted, no digest."),
    ],
)
def test_a_plan_without_a_digest_has_its_own_summary(plan, summary):
    assert plan.summary() == summary


def test_what_would_be_destroyed_is_named_before_the_digest():
    plan = Plan("reset", (Action("reset a", "reset", "node a", destroys=("etcd-of-a",)),))
    assert "WILL BE DESTROYED: etcd-of-a" in plan.table().text()
    assert "1 to destroy" in plan.summary()
