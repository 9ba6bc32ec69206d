"""A plan's digest covers what would be done and where, and nothing that changes by itself; the gate admits by it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fluobook import params
from fluobook.context import POLICIES
from fluobook.errors import ApprovalNeeded, PlanChanged, StageMissing, UsageError
from fluobook.stages.core.plan import Action, Answer, Approval, Gate, Plan

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


CHANGE = Plan("create-vms", (Action("create a", "create", "vm a"),))
LOSS = Plan("reset", (Action("reset a", "reset", "node a", destroys=("a",)),))
LOSSES = Plan("secrets", (Action("x", "unlist", "generator x", destroys=("a", "b-1")),))
DIGEST = CHANGE.digest


def gate(approve="", *, target="lab", answer=None):
    ask = None if answer is None else lambda _question: Answer("prompt", answer)
    return Gate(Approval.parse(approve), POLICIES[target], "fluodata", ask)


def test_a_plan_with_nothing_to_do_needs_no_approval():
    assert gate().admit(Plan("create-vms")) == Answer("", "")


def test_without_approval_the_command_that_approves_is_shown():
    with pytest.raises(ApprovalNeeded, match=f"create-vms needs approval: Plan {DIGEST}: 1 to create") as caught:
        gate().admit(CHANGE)
    assert caught.value.remedy == f"approve it with --approve create-vms={DIGEST}"


def test_the_right_digest_opens_the_gate():
    assert gate(f"create-vms={DIGEST}").admit(CHANGE) == Answer("option", DIGEST)


def test_a_stale_digest_is_refused_and_both_are_named():
    with pytest.raises(PlanChanged, match=f"000000 was approved, the plan is now {DIGEST}"):
        gate("create-vms=000000").admit(CHANGE)


def test_a_stale_digest_is_refused_even_beside_all():
    with pytest.raises(PlanChanged):
        gate("all,create-vms=000000").admit(CHANGE)


def test_the_digest_of_another_stage_opens_nothing():
    with pytest.raises(ApprovalNeeded):
        gate(f"reset={DIGEST}").admit(CHANGE)


def test_all_is_enough_for_the_lab():
    assert gate("all").admit(CHANGE) == Answer("option", "all")


def test_all_on_a_live_platform_needs_the_clusters_name():
    with pytest.raises(ApprovalNeeded, match="needs approval") as caught:
        gate("all", target="live").admit(CHANGE)
    assert "--cluster fluodata" in caught.value.cause
    with pytest.raises(ApprovalNeeded):
        gate("all,cluster=another", target="live").admit(CHANGE)
    assert gate("all,cluster=fluodata", target="live").admit(CHANGE) == Answer("option", "all")


@pytest.mark.parametrize("approve", ["all", "all,cluster=fluodata"])
def test_all_is_never_enough_for_what_destroys_data(approve):
    for target in ("lab", "live"):
        with pytest.raises(ApprovalNeeded) as caught:
            gate(approve, target=target).admit(LOSS)
        assert "never approves" in caught.value.cause


def test_a_prediction_is_refused_and_the_missing_stage_named():
    with pytest.raises(StageMissing, match="apply-talos-config is blocked: run create-vms first"):
        gate("all").admit(Plan("apply-talos-config", CHANGE.actions, waits_for="create-vms"))


@pytest.mark.parametrize(
    ("plan", "target", "word"),
    [
        (CHANGE, "lab", "yes"),
        (CHANGE, "live", "fluodata"),
        (LOSS, "lab", "a"),
        (LOSS, "live", "fluodata a"),
        (LOSSES, "live", "fluodata a b-1"),
    ],
)
def test_a_person_types_yes_in_the_lab_and_a_name_where_it_matters(plan, target, word):
    assert gate(target=target, answer=f" {word} ").admit(plan) == Answer("prompt", f" {word} ")
    with pytest.raises(ApprovalNeeded, match="not approved; nothing was changed"):
        gate(target=target, answer="no").admit(plan)


@pytest.mark.parametrize("answer", ["b-1, a", "b-1 a"])
def test_several_names_are_typed_in_any_order(answer):
    assert gate(answer=answer).admit(LOSSES) == Answer("prompt", answer)


@pytest.mark.parametrize("answer", ["fluodata", "yes", "a", "2", "", "a a", "a b"])
def test_no_other_word_approves_what_destroys_several_things(answer):
    with pytest.raises(ApprovalNeeded):
        gate(answer=answer).admit(LOSSES)


def test_a_rejection_approves_nothing():
    with pytest.raises(ApprovalNeeded):
        gate(answer="").admit(CHANGE)


def test_the_question_says_what_to_type_and_what_it_destroys():
    asked = []

    def ask(question):
        asked.append(question)
        return Answer("button", question.word)

    for plan in (CHANGE, LOSSES):
        Gate(Approval(), POLICIES["live"], "fluodata", ask).admit(plan)
    assert [question.names for question in asked] == [("fluodata",), ("fluodata", "a", "b-1")]
    assert asked[0].prompt.endswith('0 unchanged. Approve? Type "fluodata": ')
    assert asked[1].prompt.endswith('Approve? Type "fluodata a b-1", the names of what will be destroyed: ')


@pytest.mark.parametrize("text", ["everything", "create-vms", "create-vms="])
def test_what_is_not_understood_is_a_usage_error(text):
    with pytest.raises(UsageError, match="is neither"):
        Approval.parse(text)


def test_approvals_are_separated_by_commas():
    approval = Approval.parse(" create-vms=aa , approve-csrs=bb, create-vms=aa,")
    assert dict(approval.digests) == {"create-vms": "aa", "approve-csrs": "bb"}
    assert not approval.everything


@pytest.mark.parametrize("text", ["create-vms=aa,create-vms=bb", "all,cluster=a,cluster=b"])
def test_two_values_for_one_approval_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="the approval names two values for c"):
        Approval.parse(text)
