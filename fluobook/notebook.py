"""The notebook API: `open_runbook` returns a `Runbook`, which gives its stages, live tables and the platform tree.

The same few calls work in JupyterLab and headless, in the lab and on a live platform.
"""

from __future__ import annotations

import getpass
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from fluobook import params
from fluobook.context import POLICIES, RunContext, beginning_of, open_context, operator
from fluobook.display import buttons
from fluobook.display.kernel import guard_kernel, interactive, show
from fluobook.display.live import Live
from fluobook.display.table import Cell, Displayed, Picture, Table
from fluobook.display.tree import PlatformTree
from fluobook.errors import PHASE, ApprovalNeeded, PlanChanged, UsageError, in_commands
from fluobook.failures import present
from fluobook.journal.durations import Kind, comparable, kind_of, time_text, usual
from fluobook.journal.folder import cluster_lock, new_folder, newest_first
from fluobook.journal.history import rehearsal_note, rehearsals
from fluobook.params.load import recorded
from fluobook.redact import Redactor
from fluobook.run.board import board_table, last_runs, read_state
from fluobook.stages import catalogue, diagnose, observe, secrets
from fluobook.stages.core.check import Checks
from fluobook.stages.core.executor import ActionProgress, Executor, Progress, in_parallel
from fluobook.stages.core.plan import Answer, Approval, Gate, Plan, Question
from fluobook.stages.core.stage import Stage
from fluobook.stages.day_two import expiry
from fluobook.waiting import Cancelled

__all__ = ["Checks", "Plan", "PlatformTree", "Runbook", "StageRun", "Table", "open_runbook"]

LOCK_TIMEOUT = 120.0
"""Seconds to wait for another run on the same cluster: a killed run holds the lock until its kernel is gone."""

OBSERVATION_VALID = 60.0
"""Seconds for which `verify` reuses the observation of `plan`, if nothing was applied in between."""

_TONES = {"done": "ok", "failed": "bad", "skipped": "bad"}


@dataclass
class StageRun:
    """One stage of a runbook: `plan`, `apply`, `verify`, in this order.

    Example:
        stage = runbook.stage("create-vms")
        plan = stage.plan()    # a table of actions, and the digest to approve
        stage.apply(plan)      # asks for approval, then shows a table of progress
        stage.verify()         # a table of checks, read from the live systems
    """

    stage: Stage
    context: RunContext
    gate: Gate
    _observation: Any = field(default=None, repr=False)
    _valid_until: float = field(default=0.0, repr=False)
    _seconds: float | None = field(default=None, repr=False)

    def plan(self) -> Plan:
        """Read the live systems and return the actions that lead from there to the platform. Changes nothing."""
        self._seconds = None
        with self._recorded(), self.context.cancellation.on_interrupt():
            self._observe()
            plan = self.stage.plan(self.context.platform, self._observation)
        plan = for_approval(plan, self.context)
        self._log(
            "planned",
            digest=plan.digest,
            waits_for=plan.waits_for,
            kept=plan.kept,
            actions=[{"verb": a.verb, "object": a.object, "reason": a.reason} for a in plan.actions],
        )
        return plan

    def apply(self, plan: Plan) -> None:
        """Get the plan approved, then perform it while a table shows the progress. Running it again is safe.

        Raises:
            ApprovalNeeded: the plan is not approved; nothing was changed.
            StageMissing: an earlier stage has not run; nothing was changed.
            Locked: somebody else holds the lock on this cluster; nothing was changed.
            FluobookError: an action failed; fix the cause, then run the notebook again.
        """
        with self._recorded():
            self._apply(plan)

    def _apply(self, plan: Plan) -> None:
        asked = time.monotonic()
        person, host = operator()
        try:
            answer = self.gate.admit(plan)
        except ApprovalNeeded:
            self._log("not-approved", digest=plan.digest, person=person, host=host)
            raise
        finally:
            if self._seconds is not None:  # what a person takes to decide is no work
                self._seconds -= time.monotonic() - asked
        if not plan.actions:
            self._log("applied", digest="", actions=0)
            show(Table(f"{self.stage.name}: no changes", []))
            return
        if interactive() and self.context.journal.path is None:
            self._keep_journal()
        known = {"rehearsed": note} if (note := rehearsal_of(plan, self.context)) else {}
        self._log("approved", digest=plan.digest, form=answer.form, text=answer.text, person=person, host=host, **known)
        self._valid_until = 0.0  # another run may do it while this one waits for the lock
        cancellation = self.context.cancellation
        lock = cluster_lock(
            self.context.home, patience=LOCK_TIMEOUT, on_wait=self._report_waiting, cancellation=cancellation
        )
        with cancellation.on_interrupt(), lock, self.context.lease() as check_lease:
            if (remaining := self._remaining(plan)).actions:
                self._execute(remaining, check_lease, answer.place)
                return
        self._log("applied", digest=plan.digest, actions=0)
        show(Table(f"{self.stage.name}: no changes, what was planned has been done in the meantime", []))

    def verify(self) -> Checks:
        """Check the result against the live systems.

        Raises:
            CheckFailed: at least one check failed.
        """
        with self._recorded(ends=True):
            return self._verify()

    def _verify(self) -> Checks:
        with self.context.cancellation.on_interrupt():
            if time.monotonic() > self._valid_until:
                self._observe()
            made = self.stage.verify(self.context, self._observation)
        texts = [[text.replace(PHASE, self.context.in_commands) for text in (c.result, c.remedy)] for c in made]
        filled = [replace(c, result=result, remedy=remedy) for c, (result, remedy) in zip(made, texts, strict=True)]
        checks = Checks(self.stage.name, filled, self.stage.failure)
        results = [{"check": c.name, "passed": c.passed, "result": c.result} for c in checks.checks]
        self._log("verified", ok=checks.ok, checks=results)
        if not checks.ok:
            show(checks.table())
        checks.require()
        return checks

    @contextmanager
    def _recorded(self, *, ends: bool = False) -> Iterator[None]:
        """Record by hand what a headless run records: when a stage begins, how it ends, the seconds of work.

        Args:
            ends: whether the stage is done when the block is.
        """
        if not interactive():
            yield
            return
        if self._seconds is None:
            self._log("notebook-started", notebook=self.stage.notebook)
            self._seconds = 0.0
        started, status, text = time.monotonic(), "done" if ends else "", ""
        try:
            yield
        except BaseException as error:
            interrupted = isinstance(error, (KeyboardInterrupt, Cancelled))
            status = "interrupted" if interrupted else "refused" if isinstance(error, ApprovalNeeded) else "failed"
            text = f"{type(error).__name__}: {present(error, phase=self.context.in_commands).text()}"
            raise
        finally:
            self._seconds += time.monotonic() - started
            if status:
                self._log("notebook-ended", status=status, seconds=round(self._seconds, 2), error=text)
                self._seconds = None

    def _keep_journal(self) -> None:
        """Work in JupyterLab leaves the journal that a headless run leaves."""
        context = self.context
        journal = new_folder(context.root / "runs", context.phase) / "events.jsonl"
        stages, target = [self.stage.name], context.target
        begun = beginning_of(context.phase, context.platform, stages, root=context.root, target=target, lab=context.lab)
        context.journal.keep(journal, "run-started", **begun)

    def _observe(self) -> None:
        self._observation = self.stage.observe(self.context)
        self._valid_until = time.monotonic() + OBSERVATION_VALID

    def _remaining(self, approved: Plan) -> Plan:
        now = self.stage.plan(self.context.platform, self.stage.observe(self.context))
        if not now.rest_of(approved):
            raise PlanChanged(
                f"{self.stage.name}: {approved.digest} was approved, {now.digest or now.summary()} is what would be "
                "done now",
                cause="somebody changed the live systems in between",
                remedy="run the plan cell again and check the new plan",
            )
        return now

    def _execute(self, plan: Plan, check_lease: Callable[[], None], place: buttons.Place | None) -> None:
        def check() -> None:
            self.context.cancellation.check()
            check_lease()

        progress = Progress(plan.actions)
        live = Live(lambda: _progress_table(plan, progress, expected), place=place)
        expected = self._expected() if live.live else None
        if place:
            place.offer(progress.tails)
        progress.changed = live.touch
        executor = Executor(
            lambda action, report: self.stage.perform(self.context, action, report),
            self.context.journal,
            widths=self.stage.widths,
            check=check,
            phase=self.context.in_commands,
        )
        with live:
            executor.run(plan, progress)
        self._log("applied", digest=plan.digest, actions=len(plan.actions))

    def _expected(self) -> Mapping[Kind, float]:
        """The usual seconds of each kind of action, from the journals of earlier runs under the same conditions."""
        return usual(comparable(newest_first(self.context.root / "runs"), self.context.conditions))

    def _report_waiting(self, holder: str) -> None:
        self._log("waiting", holder=holder)
        show(Table(f"{self.stage.name} is waiting: {holder} holds the lock on this cluster", []))

    def _log(self, event: str, **fields: Any) -> None:
        self.context.journal.write(event, stage=self.stage.name, **fields)


def _progress_table(plan: Plan, progress: Progress, expected: Mapping[Kind, float] | None) -> Table:
    """The actions of a plan with their states; live also with their times, from the usual seconds of each kind."""
    columns = ["state", "action", "object", *(["detail"] if expected is None else ["time"]), "progress"]
    rows = []
    for action in plan.actions:
        now, detail = progress.of(action), action.detail
        if expected is not None:
            detail = _time_of(now, expected.get(kind_of(plan.stage, action.verb, action.object)))
        state = Cell(now.state, _TONES.get(now.state, "wait"))
        rows.append([state, action.verb, action.object, detail, now.message])
    done = sum(progress.of(action).state == "done" for action in plan.actions)
    return Table(f"{plan.stage}: {done} of {len(rows)} done", columns, rows, bar=done / len(rows))


def _time_of(action: ActionProgress, expected: float | None) -> str:
    """What is known about the time of an action."""
    if action.started is None:
        return f"about {expected:.0f} s" if expected else ""
    if action.ended is not None:
        return f"{action.ended - action.started:.0f} s"
    limit = action.limit - action.started if action.limit is not None else None
    return time_text(time.monotonic() - action.started, expected, limit)


@dataclass
class Runbook(Displayed):
    """The runbook of one phase and target; shows the platform's nodes.

    Opening it contacts nothing. For target "lab", the first call that needs the lab finds it or starts one.

    Example:
        runbook = fluobook.open_runbook("phase1")
        runbook                       # the platform as a table
        runbook.stage("create-vms")   # a `StageRun`
        runbook.nodes()               # a live table of the cluster's nodes
        runbook.tree.applications()   # the platform tree in Git
    """

    chosen: params.Params
    root: Path
    target: str
    gate: Gate
    redactor: Redactor = field(default_factory=Redactor, repr=False)

    @cached_property
    def context(self) -> RunContext:
        """What stages work with; made at first use."""
        return open_context(self.chosen, root=self.root, target=self.target, redactor=self.redactor)

    @cached_property
    def tree(self) -> PlatformTree:
        """The platform tree of the repository. Needs neither lab nor cluster."""
        return PlatformTree(self.root, self.chosen)

    def stage(self, name: str) -> StageRun:
        """One stage, by its name or number.

        Raises:
            UsageError: there is no such stage.
        """
        return stage_run(catalogue.find(name), self.context, self.gate)

    def secrets(self, changes: Mapping[str, Mapping[str, str]] | None = None) -> StageRun:
        """The stage that manages the secrets in Git, with changes to make.

        Args:
            changes: for each file, one choice for each key to change: "ask", "random", "renew", "remove" or "keep".
                Never a value. Example: `{"apps/secrets/mail": {"password": "random"}}`.

        Raises:
            UsageError: a change is not understood, or a value has to be typed and nobody can be asked.
        """
        _require("secrets", changes or {}, Mapping)
        for file, choices in (changes or {}).items():
            _require(f"secrets of {file}", choices, Mapping)
        ask = getpass.getpass if interactive() else None
        return stage_run(secrets.stage(changes or {}, ask), self.context, self.gate)

    def diagnose(self) -> Checks:
        """Examine the platform, and show the known failures that it has with causes, remedy and next command.

        Raises:
            CheckFailed: something was found.
        """
        runs = last_runs(newest_first(self.root / "runs"), self.chosen.phase, self.target)
        failed = {stage: run.error for stage, run in runs.items() if run.status == "failed"}
        return stage_run(diagnose.stage(catalogue.STAGES, failed), self.context, self.gate).verify()

    def board(self, *, seconds: float = 20.0) -> None:
        """Show every stage with its state from the live systems, its last run, and a link to its notebook.

        In JupyterLab the board appears at once and fills itself while the kernel is free for other cells. Headless it
        is shown once, when all states are known or after this many seconds.
        """
        runs = last_runs(newest_first(self.root / "runs"), self.chosen.phase, self.target)
        states: dict[str, Cell] = {}
        live, context = Live(lambda: board_table(self._title, dict(states), runs)), self.context

        def read(stage: Stage) -> None:
            states[stage.name] = read_state(stage, context)
            live.touch()

        def fill() -> None:
            in_parallel(read, (*catalogue.STAGES, *catalogue.DAY_TWO), width=4)
            if live.live:
                live.close()

        reader = threading.Thread(target=fill, name="board", daemon=True)
        if live.live:
            live.show()
            reader.start()
            return
        with live:
            reader.start()
            reader.join(seconds)

    def certificates(self) -> Table:
        """What expires on the platform, how long it lasts, and what renews it.

        Raises:
            FluobookError: the secrets bundle cannot be read.
        """
        return expiry.table(expiry.read(self.context), datetime.now(UTC))

    def nodes(self) -> Live:
        """The cluster's nodes. In JupyterLab the table is live until it is closed; `to_frame` gives its rows."""
        return observe.watch_nodes(self.context)

    def csrs(self) -> Live:
        """Certificate signing requests, and whether each matches the params; see `nodes`."""
        return observe.watch_csrs(self.context)

    def applications(self) -> Live:
        """Argo CD's Applications by wave, and what each one waits for; see `nodes`."""
        return observe.watch_applications(self.context)

    def flows(self, *, stream: bool = False) -> Live:
        """Network flows by their rate, and what the network policies drop; see `nodes`.

        Args:
            stream: the latest flows, one by one.
        """
        return observe.watch_flows(self.context, lambda: self.tree.policies, stream=stream)

    def dashboard(self) -> None:
        """Show nodes, CSRs, Applications and flows, each with its counts; see `nodes`.

        Raises:
            StageMissing: a table has nothing to follow yet; the tables before it are shown.
        """
        for table in (self.nodes, self.csrs, self.applications, self.flows):
            table().show()

    def waves(self) -> Picture:
        """The waves of Argo CD's Applications, and the health of each, as a diagram."""
        return observe.waves(self.context)

    def traffic(self) -> Picture:
        """Which namespaces talk to which, and what is dropped between them, as a diagram."""
        return observe.traffic(self.context)

    @property
    def _title(self) -> str:
        return f"{self.chosen.platform.cluster.name}, {self.chosen.phase}: {place_of(self.target)}"

    def table(self) -> Table:
        """The platform in one table: its nodes and their hosts."""
        rows = [
            [
                *(node.name, node.role, node.host, node.address, node.cores),
                *(
                    f"{size} GiB" if size else "none"
                    for size in (node.memory_gib, node.boot_disk_gib, node.data_disk_gib)
                ),
            ]
            for node in self.context.platform.nodes
        ]
        columns = ["node", "role", "host", "address", "vCPU", "memory", "boot disk", "data disk"]
        return Table(self._title, columns, rows, note="\n".join(self.context.lab.remarks if self.context.lab else ()))


def place_of(target: str) -> str:
    """What a person must know about a target."""
    return "rehearsal in the lab" if target == "lab" else "LIVE"


def for_approval(plan: Plan, context: RunContext) -> Plan:
    """A plan as a person sees it before approving: with its target, and whether it was rehearsed."""
    notes = [*plan.notes, *filter(None, [rehearsal_of(plan, context)])]
    return replace(plan, target=f"{context.platform.cluster.name}, {place_of(context.target)}", notes=tuple(notes))


def rehearsal_of(plan: Plan, context: RunContext) -> str:
    """Whether a plan of day-2 work was rehearsed in a lab like the platform; "" where that is not asked."""
    can_be = any(stage.name == plan.stage and stage.uses for stage in catalogue.DAY_TWO)
    if not (can_be and plan.digest and context.policy.shows_rehearsals):
        return ""
    earlier = rehearsals(newest_first(context.root / "runs"), context.platform.cluster.name, plan.stage)
    return rehearsal_note(earlier, plan.digest, datetime.now(UTC))


def stage_run(stage: Stage, context: RunContext, gate: Gate) -> StageRun:
    """One run of a stage, with the clients that it declares and no others."""
    return StageRun(stage, context.limited_to(stage.uses), gate)


def open_runbook(
    phase: str, platform: Mapping[str, Any] | None = None, *, target: str = "lab", approve: str = ""
) -> Runbook:
    """Open the runbook of a phase.

    Args:
        phase: a name in `params/`, or a path to such a file.
        platform: the platform as plain data, if papermill injected one; else it is read from the phase's file.
        target: "lab" rehearses on this machine, "live" acts on the endpoints in the params.
        approve: what is approved in advance: "", "all" or "stage=digest,…".

    Raises:
        ParamsError: the parameters are wrong.
        UsageError: target or approve is not understood.

    Example:
        import fluobook

        runbook = fluobook.open_runbook("phase1", target="lab")
    """
    if target not in ("lab", "live"):
        raise UsageError(
            f'target {target!r} is neither "lab" nor "live"',
            remedy='set target="lab" to rehearse, target="live" to act',
        )
    _require("phase", phase, str)
    _require("approve", approve, str)
    _require("platform", platform or {}, Mapping)
    root = params.repository_root(Path.cwd())
    run = os.environ.get("FLUOBOOK_RUN")
    chosen = params.parse({"phase": phase, "platform": dict(platform)}, root=root) if platform else None
    chosen = chosen or (recorded(Path(run), phase, root=root) if run else None) or params.load(phase, root=root)
    redactor = Redactor()
    if interactive() or os.environ.get("JPY_PARENT_PID"):
        guard_kernel(redactor, in_commands(chosen.phase, target))
    approve = approve or (os.environ.get("FLUOBOOK_APPROVE", "") if target == "lab" else "")
    ask = ask_person if interactive() else None
    gate = Gate(parse_approval(approve), POLICIES[target], chosen.platform.cluster.name, ask)
    return Runbook(chosen, root, target, gate, redactor)


def ask_person(question: Question) -> Answer:
    """Ask by buttons where a page can show them, else by a prompt."""
    table, destroyed = question.plan.table(), question.plan.destroys
    clicked = buttons.ask(table, names=question.names, destroyed=destroyed, accepts=question.accepts)
    return Answer("button", *clicked) if clicked else Answer("prompt", input(question.prompt))


def _require(name: str, value: object, kind: type) -> None:
    """Refuse a parameter of another type, in one line: `papermill -p` takes everything for a text or a number.

    Raises:
        UsageError: the type is another.
    """
    if not isinstance(value, kind):
        given = repr(value) if isinstance(value, int | float) else f"a {type(value).__name__}"
        wanted = "a text" if kind is str else "a mapping"
        example = {"approve": "create-vms=63155a", "phase": "phase1"}.get(name, "{…}")
        quoted = f'"{example}"' if kind is str else example
        raise UsageError(f"the parameter {name} is {given}, not {wanted}", remedy=f"papermill … -y '{name}: {quoted}'")


def parse_approval(text: str) -> Approval:
    """What is approved in advance; stages may be given by name or number.

    Raises:
        UsageError: the text is not understood, or there is no such stage.
    """
    approved = Approval.parse(text)
    return replace(approved, digests={catalogue.find(name).name: digest for name, digest in approved.digests.items()})
