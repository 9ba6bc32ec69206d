"""What a notebook holds: the book of one platform, and its stages.

A notebook opens the book, shows a stage's plan, lets it through the gate, and verifies. The same few calls work by hand
and headless, against the lab and live; everything else is found here.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluobook import lab as labs
from fluobook import params
from fluobook.context import RunContext, open_context
from fluobook.display.kernel import ask_person, ask_secret, guard_kernel
from fluobook.display.live import Live, interactive, show_once
from fluobook.display.table import Cell, Table
from fluobook.errors import PlanChanged, UsageError
from fluobook.journal.folder import cluster_lock
from fluobook.redact import Redactor
from fluobook.stages import catalogue, observe
from fluobook.stages import secrets as secrets_stage
from fluobook.stages.core.check import Checks
from fluobook.stages.core.executor import Executor, Progress
from fluobook.stages.core.gate import Approval, Gate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fluobook.stages.core.plan import Plan
    from fluobook.stages.core.stage import Stage

LOCK_PATIENCE = 120.0
"""Seconds to wait for another run of ours on the same cluster: a killed one needs a moment until its kernel is gone."""

GOOD_FOR = 60.0
"""Seconds for which the checks may rest on the plan's observation, where nothing was applied in between."""

_TONES = {"done": "ok", "failed": "bad", "skipped": "bad"}


@dataclass
class StageRun:
    """One stage at work on one context: plan, apply, verify, in this order."""

    stage: Stage
    context: RunContext
    gate: Gate
    _observation: Any = field(default=None, repr=False)
    _good_until: float = field(default=0.0, repr=False)

    def plan(self) -> Plan:
        """Observe the live systems and say what leads from there to the platform. Changes nothing."""
        with self.context.cancellation.on_interrupt():
            self._observe()
        plan = self.stage.plan(self.context.platform, self._observation)
        self._note(
            "planned",
            digest=plan.digest,
            waits_for=plan.waits_for,
            kept=plan.kept,
            actions=[{"verb": a.verb, "object": a.object, "reason": a.reason} for a in plan.actions],
        )
        return plan

    def apply(self, plan: Plan) -> None:
        """Let the plan through the gate and do it, while a table shows how far it is.

        Raises:
            ApprovalNeeded: the gate stays shut; nothing was changed.
            StageMissing: an earlier stage has not run; nothing was changed.
            Locked: somebody else holds the lock on this cluster; nothing was changed.
            FluobookError: an action failed; run the notebook again when the cause is gone.
        """
        form = self.gate.admit(plan)
        if not plan.actions:
            self._note("applied", digest="", actions=0)
            show_once(Table(f"{self.stage.name}: no changes", []))
            return
        self._note("approved", digest=plan.digest, form=form)
        lock = cluster_lock(self.context.home, patience=LOCK_PATIENCE, on_wait=self._waiting)
        with self.context.cancellation.on_interrupt(), lock, self.context.lease() as still_ours:
            self._execute(self._rest_of(plan), still_ours)

    def verify(self) -> Checks:
        """Prove the outcome from the live systems.

        Raises:
            CheckFailed: at least one check failed.
        """
        with self.context.cancellation.on_interrupt():
            if time.monotonic() > self._good_until:
                self._observe()
            checks = Checks(self.stage.name, tuple(self.stage.verify(self.context, self._observation)))
        told = [{"check": c.name, "passed": c.passed, "result": c.result} for c in checks.checks]
        self._note("verified", ok=checks.ok, checks=told)
        if not checks.ok:
            show_once(checks.table())
        checks.require()
        return checks

    def _observe(self) -> None:
        self._observation = self.stage.observe(self.context)
        self._good_until = time.monotonic() + GOOD_FOR

    def _rest_of(self, approved: Plan) -> Plan:
        now = self.stage.plan(self.context.platform, self.stage.observe(self.context))
        if not now.rest_of(approved):
            raise PlanChanged(
                f"{self.stage.name}: {approved.digest} was approved, {now.digest or now.summary()} is what would be "
                "done now",
                cause="somebody changed the live systems in between",
                remedy="run the plan cell again and look at it",
            )
        return now

    def _execute(self, plan: Plan, still_ours: Callable[[], None]) -> None:
        def check() -> None:
            self.context.cancellation.check()
            still_ours()

        self._good_until = 0.0
        progress = Progress(plan.actions)
        live = Live(lambda: _progress_table(plan, progress))
        progress.changed = live.touch
        executor = Executor(
            lambda action, report: self.stage.perform(self.context, action, report),
            self.context.journal,
            widths=self.stage.widths,
            check=check,
        )
        with live:
            executor.run(plan, progress)
        self._note("applied", digest=plan.digest, actions=len(plan.actions))

    def _waiting(self, holder: str) -> None:
        self._note("waiting", holder=holder)
        show_once(Table(f"{self.stage.name} is waiting: {holder} holds the lock on this cluster", []))

    def _note(self, event: str, **fields: Any) -> None:
        self.context.journal.write(event, stage=self.stage.name, **fields)


def _progress_table(plan: Plan, progress: Progress) -> Table:
    rows = []
    for action in plan.actions:
        state, word = progress.of(action)
        rows.append([Cell(state, _TONES.get(state, "wait")), action.verb, action.object, action.detail, word])
    done = sum(progress.of(action)[0] == "done" for action in plan.actions)
    return Table(f"{plan.stage}", ["state", "action", "object", "detail", ""], rows, note=f"{done} of {len(rows)} done")


@dataclass(frozen=True)
class Runbook:
    """The runbook of one platform."""

    context: RunContext
    gate: Gate

    def stage(self, name: str) -> StageRun:
        """One stage, by name.

        Raises:
            UsageError: there is no such stage.
        """
        stage = catalogue.find(name)
        return StageRun(stage, self.context.limited_to(stage.uses), self.gate)

    def secrets(self, wanted: Mapping[str, Mapping[str, str]] | None = None) -> StageRun:
        """The stage that keeps the secrets in Git, with what shall be set in them.

        Args:
            wanted: for each file a word for each key, never a value; see `fluobook.stages.secrets.plan`.

        Raises:
            UsageError: it is not understood, or a value is to be typed and nobody can be asked.
        """
        ask = ask_secret if interactive() else None
        stage = secrets_stage.stage(wanted or {}, ask)
        return StageRun(stage, self.context.limited_to(stage.uses), self.gate)

    def nodes(self, *, seconds: float = observe.SECONDS) -> None:
        """Show the cluster's nodes; while a person watches, for so many seconds as they change."""
        observe.watch_nodes(self.context, seconds=seconds)

    def csrs(self, *, seconds: float = observe.SECONDS) -> None:
        """Show certificate requests, and whether each fits the params; see `nodes`."""
        observe.watch_csrs(self.context, seconds=seconds)

    def applications(self, *, seconds: float = observe.SECONDS) -> None:
        """Show Argo CD's Applications, wave by wave; see `nodes`."""
        observe.watch_applications(self.context, seconds=seconds)

    def flows(self, *, seconds: float = observe.SECONDS) -> None:
        """Show who talks to whom, and what network policies let through; see `nodes`."""
        observe.watch_flows(self.context, seconds=seconds)

    def table(self) -> Table:
        """The platform in one table: its nodes and where they stand."""
        rows = [
            [
                n.name,
                n.role,
                n.host,
                n.address,
                n.cores,
                f"{n.memory_gib} GiB",
                f"{n.boot_disk_gib} GiB",
                f"{n.data_disk_gib} GiB" if n.data_disk_gib else "none",
            ]
            for n in self.context.platform.nodes
        ]
        columns = ["node", "role", "host", "address", "vCPU", "memory", "boot disk", "data disk"]
        where = "rehearsal in the lab" if self.context.target == "lab" else "LIVE"
        title = f"{self.context.platform.cluster.name}, {self.context.phase}: {where}"
        return Table(title, columns, rows, note="\n".join(self.context.remarks))

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        return self.table()._repr_mimebundle_(**options)

    def __str__(self) -> str:
        return self.table().text()


def open_runbook(
    phase: str, platform: Mapping[str, Any] | None = None, *, target: str = "lab", approve: str = ""
) -> Runbook:
    """Open the book of a phase.

    Args:
        phase: a name in `params/`, or a path to such a file.
        platform: the platform as plain data, where papermill brought one; else the phase's file is read.
        target: "lab" rehearses, "live" acts.
        approve: what is approved beforehand: "", "all" or "stage=digest,…".

    Raises:
        ParamsError: the parameters are wrong.
        UsageError: target or approve is not understood.
    """
    if target not in ("lab", "live"):
        raise UsageError(
            f"target {target!r} is neither lab nor live", remedy='say target="lab" to rehearse, target="live" to act'
        )
    root = params.repository_root(Path.cwd())
    chosen = (
        params.parse({"phase": phase, "platform": dict(platform)}, root=root)
        if platform
        else params.load(phase, root=root)
    )
    redactor = Redactor()
    if interactive() or os.environ.get("JPY_PARENT_PID"):
        guard_kernel(redactor)
    context = open_context(chosen, root=root, target=target, redactor=redactor)
    ask = ask_person if interactive() else None
    approve = approve or (os.environ.get("FLUOBOOK_APPROVE", "") if target == "lab" else "")
    return Runbook(context, Gate(approval(approve), target, context.platform.cluster.name, ask))


def approval(text: str) -> Approval:
    """What was approved beforehand; each digest is one of a stage that there is.

    Raises:
        UsageError: it is not understood, or there is no such stage.
    """
    approved = Approval.parse(text)
    return replace(approved, digests={catalogue.find(name).name: told for name, told in approved.digests.items()})


def plans(chosen: params.Params, *, root: Path, target: str, redactor: Redactor) -> Iterator[Plan]:
    """What every stage would do, one after the other; changes nothing."""
    context = open_context(chosen, root=root, target=target, redactor=redactor)
    for stage in catalogue.STAGES:
        yield stage.plan(context.platform, stage.observe(context.limited_to(stage.uses)))


def with_mirrors(chosen: params.Params, *, root: Path, target: str) -> params.Params:
    """The parameters with their chart sources as the target has them; all else stays as it was written."""
    if target == "live":
        return chosen
    lab = labs.for_phase(chosen, root=root)
    platform = params.overlay(chosen.platform, {"gitops": {"mirrors": lab.overlay["gitops"]["mirrors"]}})
    return params.Params.model_construct(phase=chosen.phase, platform=platform)
