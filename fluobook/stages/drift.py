"""Runbook 27, drift: whether what runs is still what the params and Git say; changes nothing.

Every stage of the bring-up is asked what it would do, and every pinned version is compared with the one that runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from fluobook import gitops
from fluobook.context import Client, RunContext
from fluobook.errors import PHASE, Drifted
from fluobook.gitops.versions import Pin, pins_of, running
from fluobook.stages.core.check import Check, CheckGroup, run_groups, some
from fluobook.stages.core.plan import Plan
from fluobook.stages.core.readiness import listed
from fluobook.stages.core.stage import Stage, read_only_stage

RUNNING = ("talos", "kubernetes", "chart", "git")
"""The kinds of pins of which a platform says what it runs."""


def stage_check(plan: Plan) -> Check:
    """Whether a stage has nothing to do."""
    name = f"{plan.stage} has nothing to do"
    remedy = f"fluobook run {PHASE} --only {plan.stage}, or write what runs into the params or Git"
    if plan.waits_for:
        return Check(name, passed=False, result=f"it waits for {plan.waits_for}", remedy=remedy)
    differences = [": ".join(filter(None, (f"{a.verb} {a.object}", a.detail or a.reason))) for a in plan.actions]
    return Check(name, not differences, some(differences) or plan.summary(), remedy)


def pin_checks(pins: Iterable[Pin], runs: Mapping[str, str]) -> Iterable[Check]:
    """Whether each pinned version is the one that runs, as far as the platform says what it runs.

    Args:
        pins: the pins of the tree and of the params.
        runs: the versions by component, as in `fluobook.gitops.versions.running`.
    """
    for pin in pins:
        if pin.kind in RUNNING and (version := runs.get(pin.component)):
            remedy = f"upgrade it, or write the version that runs into {pin.place}"
            result = version if version == pin.version else f"{version} runs"
            yield Check(f"{pin.component} runs {pin.version}", version == pin.version, result, remedy)


def _pins(context: RunContext) -> Iterable[Check]:
    kube, platform = context.kube(), context.platform
    tree = gitops.for_phase(platform, gitops.of(platform, context.root))
    applications = listed(kube, "argoproj.io/v1alpha1", "Application", "argocd")
    return pin_checks(pins_of(platform, tree, context.root), running(kube.list("v1", "Node"), applications))


def _asked(stage: Stage) -> CheckGroup:
    def checks(context: RunContext) -> Iterable[Check]:
        plan = stage.plan(context.platform, stage.observe(context.limited_to(stage.uses)))
        return [stage_check(plan)] if plan.actions or plan.kept or plan.waits_for else []

    return CheckGroup(f"{stage.name} can say what it would do", checks)


def verify(context: RunContext, stages: Sequence[Stage]) -> Sequence[Check]:
    """One check for each stage that looks after something, and one for each version that runs."""
    return run_groups(context, [*map(_asked, stages), CheckGroup("what runs can be read", _pins)])


def stage(stages: Sequence[Stage]) -> Stage:
    """The stage, which asks these what they would do."""
    uses: tuple[Client, ...] = ("proxmox", "talos", "kubernetes", "image factory")
    title = "Compare what runs with the params and Git"
    return replace(read_only_stage(27, "drift", title, partial(verify, stages=stages), uses=uses), failure=Drifted)
