"""A rehearsal of one runbook in a lab that resembles the live platform: what is prepared before the notebook runs.

The live platform is only read. The lab is brought up by the same stages as the platform was, then takes over what
differs; the plan that is made there is compared with the plan on the live platform.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fluobook import params
from fluobook.context import RunContext, beginning_of, open_context
from fluobook.errors import Refused, StageMissing
from fluobook.files import write_json
from fluobook.journal.journal import Journal, Rehearses
from fluobook.lab import Lab, Provider
from fluobook.params import Params
from fluobook.redact import Redactor
from fluobook.run.headless import RunRequest
from fluobook.stages import catalogue, health, likeness
from fluobook.stages.core.check import run_groups
from fluobook.stages.core.executor import Executor, Progress
from fluobook.stages.core.plan import Plan
from fluobook.stages.core.stage import Stage

FIRST, LAST_WITHOUT_ARGOCD = "host-network", "approve-csrs"
LAST = "root-application"
"""The stages that bring a lab up, from the first to the last, or to the last where Argo CD has no Applications."""
STATE = "state.json"
"""The file of a run folder with the document of the live platform."""
SHORTEST_GATE = 60.0
"""Seconds that a gate between two nodes waits at least in a lab, whatever its time scale."""


@dataclass(frozen=True)
class Script:
    """What is rehearsed.

    Args:
        stage: the runbook.
        plan: its plan on the live platform, or why it was refused there.
        state: the document of the live platform.
        at: when it was read, UTC.
        of: what was read: the name of the live cluster, or which lab stands for it.
    """

    stage: Stage
    plan: Plan | Refused
    state: Mapping[str, Any] = field(repr=False)
    at: str
    of: str

    @property
    def digest(self) -> str:
        """The digest of the live plan; "" for one that was refused."""
        return self.plan.digest if isinstance(self.plan, Plan) else ""

    @property
    def summary(self) -> str:
        """The live plan in one line."""
        return self.plan.summary() if isinstance(self.plan, Plan) else f"refused: {self.plan}"


def planned(stage: Stage, context: RunContext) -> Plan | Refused:
    """What a runbook would do, or why it refuses.

    Raises:
        StageMissing: an earlier stage has to run first.
    """
    try:
        plan = stage.plan(context.platform, stage.observe(context.limited_to(stage.uses)))
    except Refused as error:
        return error
    if plan.waits_for:
        raise StageMissing(
            f"{stage.name} is blocked: run {plan.waits_for} first", remedy=f"a rehearsal of {stage.name} comes after it"
        )
    return plan


def source_of(chosen: Params, like: str) -> str:
    """What a rehearsal stands for: the live cluster by its name, or which lab."""
    return chosen.platform.cluster.name if like == "live" else f"the lab of {chosen.phase}"


def read_live(stage: Stage, chosen: Params, *, root: Path, like: str, redactor: Redactor) -> Script:
    """Read the live platform, or the phase's lab where `like` is "lab", and plan there; changes nothing."""
    with closing(open_context(chosen, root=root, target=like, redactor=redactor)) as context:
        plan, at = planned(stage, context), dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        observed = likeness.observe(context.limited_to(("proxmox", "talos", "kubernetes", "image factory")))
        state = redactor.data(likeness.state_of(context.platform, observed))
        return Script(stage, plan, state, at, source_of(chosen, like))


def context_in(lab: Lab, chosen: Params, *, root: Path, redactor: Redactor) -> RunContext:
    """The context of a phase in a lab."""
    platform = params.overlay(chosen.platform, lab.overlay)
    return RunContext(chosen.phase, platform, "lab", root, lab.cluster_folder, redactor, Journal(None, redactor), lab)


def bring_up(context: RunContext, *, deployed: bool, report: Callable[[str], None]) -> None:
    """Bring a lab up by the stages, without their notebooks; `deployed` says whether Argo CD has Applications."""
    names = [stage.name for stage in catalogue.STAGES]
    last = LAST if deployed else LAST_WITHOUT_ARGOCD
    for stage in catalogue.STAGES[names.index(FIRST) : names.index(last) + 1]:
        limited = context.limited_to(stage.uses)
        with context.cancellation.on_interrupt():
            plan = stage.plan(context.platform, stage.observe(limited))
            number = len(plan.actions)
            report(f"the lab is brought up: {stage.name}, {number} {'action' if number == 1 else 'actions'}")
            executor = Executor(
                partial(stage.perform, limited),
                context.journal,
                widths=stage.widths,
                check=context.cancellation.check,
                phase=context.in_commands,
            )
            executor.run(plan, Progress(plan.actions))


@dataclass(frozen=True)
class Ready:
    """A lab that resembles the platform.

    Args:
        lab: the lab.
        plan: the runbook's plan in it, or why it refuses.
        unlike: how it differs from the platform, as far as that is known.
    """

    lab: Lab
    plan: Plan | Refused
    unlike: Sequence[str]


def prepare(
    script: Script, chosen: Params, lab: Lab, *, provider: Provider, root: Path, report: Callable[[str], None]
) -> Ready:
    """Bring up a lab that was started with `likeness.as_running`, let it resemble the platform, and plan there."""
    redactor = Redactor()
    with closing(context_in(lab, likeness.as_running(chosen, script.state), root=root, redactor=redactor)) as context:
        bring_up(context, deployed=script.state["deployed"], report=report)
    notes = [f"not taken over: {note}" for note in provider.resemble(lab, script.state)]
    with closing(context_in(lab, chosen, root=root, redactor=redactor)) as context:
        likeness.share_files(context, script.state)
        plan = planned(script.stage, context)
        gates = likeness.unlike(script.state, run_groups(context, health.BETWEEN))
    differing = _differing(script.plan, plan)
    return Ready(lab, plan, [*differing, *(f"passes in the lab alone: {gate}" for gate in gates), *notes])


def _differing(live: Plan | Refused, lab: Plan | Refused) -> list[str]:
    if isinstance(live, Plan) and isinstance(lab, Plan):
        return likeness.differences(live, lab)
    if isinstance(live, Plan):
        return [f"refused in the lab alone: {lab}"]
    return [] if isinstance(lab, Refused) else [f"refused on the live platform alone: {live}"]


def request_of(script: Script, ready: Ready, chosen: Params, *, folder: Path, root: Path) -> RunRequest:
    """The run of the notebook in the lab: the plan in it is approved, and the record says what it stands for."""
    lab, stage = ready.lab, script.stage
    digest = ready.plan.digest if isinstance(ready.plan, Plan) else ""
    write_json(folder / STATE, script.state)
    rehearses = Rehearses(script.of, stage.name, script.digest, script.at, tuple(ready.unlike))
    begun = beginning_of(chosen.phase, chosen.platform, [stage.name], root=root, target="lab", lab=lab)
    return RunRequest(
        chosen.phase,
        _with_short_gate(chosen, lab),
        "lab",
        f"{stage.name}={digest}" if digest else "",
        [stage],
        root,
        folder,
        lab.folder,
        facts={**begun, "rehearses": asdict(rehearses)},
    )


def _with_short_gate(chosen: Params, lab: Lab) -> dict[str, Any]:
    """The params of the notebook: a gate waits as many simulated seconds as it would wait live."""
    written, gate = dict(chosen.platform.written), float(chosen.platform.deadlines.gate)
    seconds = min(gate, max(SHORTEST_GATE, gate / lab.speed))
    return {**written, "deadlines": {**(written.get("deadlines") or {}), "gate": seconds}}
