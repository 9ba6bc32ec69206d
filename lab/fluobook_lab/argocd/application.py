"""One Application: looked at whenever something of it changed, and brought a step nearer to its source."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fluobook_lab.argocd import deletion, project, status
from fluobook_lab.argocd.applying import Applier
from fluobook_lab.argocd.comparison import Comparer, Comparison
from fluobook_lab.argocd.health.verdict import Health
from fluobook_lab.argocd.names import API, CONTROLLER, NAMESPACE, REFRESH, annotation
from fluobook_lab.argocd.operation import TERMINATING, Operation, automatic, requested
from fluobook_lab.argocd.processes import CommandError
from fluobook_lab.argocd.sync import Sync
from fluobook_lab.argocd.targets import Target, targets
from fluobook_lab.argocd.tasks import tasks
from fluobook_lab.kube.identity import Write
from fluobook_lab.kube.objects import clone, timestamp

if TYPE_CHECKING:
    from fluobook_lab.argocd.controller import Surroundings
    from fluobook_lab.argocd.sources import Rendered
    from fluobook_lab.kube.objects import Obj

RESYNC = 120.0
"""World seconds between two looks at a source, as the real controller's default."""
SELDOM = 30.0
"""Real seconds between two such looks at least: a world that runs fast would else spend all its time on them."""
DEBOUNCE = 0.01
"""Real seconds in which changes are gathered before an Application is looked at."""
UNKNOWN = Health("Unknown")


@dataclass
class View:
    """What one look at an Application came to."""

    app: Obj
    conditions: dict[str, str] = field(default_factory=dict)
    rendered: Rendered | None = None
    comparison: Comparison | None = None
    looked: bool = False


class Application:
    """The controller's worker for one Application.

    Args:
        name: the Application's.
        around: everything it needs.
    """

    def __init__(self, name: str, around: Surroundings) -> None:
        self.name = name
        self._around = around
        self._comparer = Comparer(around.cluster, name)
        self._wake = asyncio.Event()
        self._spec = ""
        self._last: Rendered | None = None
        self._looked_at = float("-inf")
        self._targets: tuple[Rendered | None, list[Target], list[str]] = (None, [], [])
        self._known: object = None
        self._operation: Operation | None = None
        self._ended_at = float("-inf")

    def wake(self) -> None:
        """Something of it changed: look at it soon."""
        self._wake.set()

    async def run(self) -> None:
        """Look at it whenever it is woken, until it is gone."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(DEBOUNCE)
            self._wake.clear()
            if self._around.active and not await self._look():
                return

    async def _look(self) -> bool:
        """One look; False once the Application is gone."""
        app = self._find()
        if app is None:
            return False
        if app["metadata"].get("deletionTimestamp"):
            return self._delete(app)
        view = await self._compared(app)
        current = self._find()
        if current is None:
            return False
        view.app = current
        self._operate(view)
        self._write(view)
        return True

    # ---- looking -----------------------------------------------------------------------------------------------

    async def _compared(self, app: Obj) -> View:
        """Project, source and cluster, as they stand now."""
        around, view, spec = self._around, View(app), app["spec"]
        projects = spec.get("project") or "default"
        if refused := project.refusals(app, around.cluster.store.find(API, "AppProject", projects, NAMESPACE)):
            view.conditions["InvalidSpecError"] = ";".join(refused)
            return view
        try:
            view.rendered = await self._rendered(app, view)
        except CommandError as error:
            view.conditions["ComparisonError"] = str(error)
            return view
        wanted, warnings = self._wanted(spec, view.rendered)
        if warnings:
            view.conditions["RepeatedResourceWarning"] = ";".join(warnings)
        view.comparison = self._comparer.compare(wanted, self._ignored(spec), around.judge())
        return view

    async def _rendered(self, app: Obj, view: View) -> Rendered:
        """The documents; the source is asked anew only when there is a reason to, as the real controller does."""
        around, spec = self._around, app["spec"]
        refresh, told = annotation(app, REFRESH), json.dumps(spec, sort_keys=True)
        afresh = self._operation is not None and self._operation.starts_afresh
        due = afresh or around.clock.now() - self._looked_at >= self._resync()
        if self._last is not None and told == self._spec and not (refresh or due):
            return self._last
        view.looked, self._spec, self._looked_at = True, told, around.clock.now()
        if refresh:
            self._unmark()
        self._last = None
        try:
            self._last = await self._fresh(spec, hard=refresh == "hard")
        finally:
            self._wake_in(self._resync())
        return self._last

    def _resync(self) -> float:
        """World seconds until the next look at the source; what could not be had is soon asked for again."""
        told = self._around.settings().resync
        seldom = 0.0 if self._last is None else SELDOM * self._around.clock.speed
        return max(RESYNC, seldom) if told is None else told

    async def _fresh(self, spec: Obj, *, hard: bool) -> Rendered:
        around = self._around
        try:
            revisions = await around.sources.resolve(spec)
        except CommandError as error:
            why = "failed to generate manifest for source 1 of 1"
            raise CommandError(
                f"Failed to load target state: {why}: rpc error: code = Unknown desc = {error}"
            ) from error
        return await around.sources.render(around.order(self.name, spec, revisions), fresh=hard)

    def _wanted(self, spec: Obj, rendered: Rendered) -> tuple[list[Target], list[str]]:
        """The targets; the same objects as last time while nothing changed, so that comparing is cheap."""
        cluster, tracking = self._around.cluster, self._around.settings().tracking
        space = (spec.get("destination") or {}).get("namespace", "")
        known = (space, tracking, cluster.store.registry.generation)
        if self._targets[0] is not rendered or self._known != known:
            made = targets(
                self.name, rendered.documents, namespace=space, tracking=tracking, namespaced=cluster.namespaced
            )
            self._targets, self._known = (rendered, *made), known
        return self._targets[1], self._targets[2]

    # ---- acting ------------------------------------------------------------------------------------------------

    def _operate(self, view: View) -> None:
        """Begin an operation if one is due, and take the one under way a step further."""
        app, around = view.app, self._around
        if self._operation is None and view.comparison is not None and view.rendered is not None:
            self._begin(view, view.comparison, view.rendered)
        operation = self._operation
        if operation is None:
            return
        if ((app.get("status") or {}).get("operationState") or {}).get("phase") == TERMINATING:
            operation.terminate()
        if operation.starts_afresh and view.rendered is not None:
            operation.rendered, operation.targets = view.rendered, self._targets[1]
        operation.step(around.judge())
        if operation.wake_in is not None:
            self._wake_in(operation.wake_in)

    def _begin(self, view: View, comparison: Comparison, rendered: Rendered) -> None:
        app, around = view.app, self._around
        asked = app.get("operation")
        if asked is None:
            since = around.clock.now() - self._ended_at
            decision = automatic(app, comparison, rendered, since)
            if decision.problem:
                view.conditions["SyncError"] = decision.problem
            if decision.later is not None:
                self._wake_in(decision.later)
            asked = requested(app) if decision.go else None
        if asked is not None:
            wanted = self._targets[1]
            begin = lambda chosen: self._sync(app["spec"], asked, chosen)  # noqa: E731
            self._operation = Operation(clone(asked), clone(app["spec"]), rendered, wanted, begin, around.clock.now)

    def _sync(self, spec: Obj, asked: Obj, wanted: list[Target]) -> Sync:
        """A sync of what is wanted now, for one attempt of an operation."""
        around, policy = self._around, spec.get("syncPolicy") or {}
        order = asked.get("sync") or {}
        options = order.get("syncOptions") or policy.get("syncOptions") or ()
        ignored = self._ignored(spec)
        destination = spec.get("destination") or {}
        applier = Applier(around.cluster, options, ignored, around.faults)
        if "CreateNamespace=true" in options and destination.get("namespace"):
            applier.create_namespace(destination["namespace"], policy.get("managedNamespaceMetadata"))
        comparison = self._comparer.compare(wanted, ignored, around.judge())
        made = tasks(wanted, comparison, prune=bool(order.get("prune")), prune_last="PruneLast=true" in options)
        owner = around.cluster.store.find(API, "AppProject", spec.get("project") or "default", NAMESPACE) or {}
        return Sync(made, applier, around.cluster, owner, destination, around.clock.now, around.settings().wave_delay)

    def _delete(self, app: Obj) -> bool:
        """Take its objects away first; an operation under way comes before that."""
        if self._operation is not None:
            phase = ((app.get("status") or {}).get("operationState") or {}).get("phase")
            if phase != TERMINATING:
                self._operation.step(self._around.judge())
                if not self._operation.ended:
                    return True
            self._operation = None
        if problem := deletion.finalize(self._around.cluster, app):
            view = View(app, {"DeletionError": problem})
            self._write(view)
        return self._find() is not None

    # ---- telling -----------------------------------------------------------------------------------------------

    def _write(self, view: View) -> None:
        """Write the status, if it says anything new."""
        app, spec = view.app, view.app["spec"]
        old = app.get("status") or {}
        comparison = view.comparison
        if self._operation is not None and comparison is not None and view.rendered is not None:
            comparison = self._comparer.compare(self._targets[1], self._ignored(spec), self._around.judge())
        parts: dict[str, Any] = {
            "conditions": status.conditions(old.get("conditions") or (), view.conditions) or None,
            "sync": status.compared(spec, view.rendered, comparison),
            "health": status.health(old.get("health") or {}, comparison.health() if comparison else UNKNOWN),
        }
        if comparison is not None and view.rendered is not None:
            parts["resources"] = status.resources(comparison, with_health=self._around.settings().persist_health)
            parts["summary"] = status.summary(comparison)
            kinds = view.rendered.types or ("Directory",)
            parts |= {"sourceTypes": list(kinds)} if spec.get("sources") else {"sourceType": kinds[0]}
        if view.looked:
            parts["reconciledAt"] = timestamp()
        self._tell(app, status.whole(old, {**parts, **self._operation_parts(old)}))

    def _operation_parts(self, old: Obj) -> dict[str, Any]:
        operation = self._operation
        if operation is None:
            return {}
        state = operation.state()
        parts: dict[str, Any] = {"operationState": state}
        if operation.ended:
            self._operation, self._ended_at = None, self._around.clock.now()
            if operation.phase == "Succeeded":
                parts["history"] = status.history(old.get("history") or [], state, state["syncResult"])
            self.wake()
        return parts

    def _tell(self, app: Obj, told: Obj) -> None:
        current = {**app, "status": told}
        begun = app.get("operation") is not None and (told.get("operationState") or {}).get("phase") is not None
        if begun:
            current.pop("operation")
        if told != app.get("status") or begun:
            self._around.store_application(current)
            self._around.note(self.name, told)

    def _unmark(self) -> None:
        """Take the refresh annotation away: it has been seen."""
        body = {"metadata": {"annotations": {REFRESH: None}}}
        write = Write(manager=CONTROLLER)
        self._around.cluster.store.patch(API, "Application", self.name, NAMESPACE, body=body, write=write)

    def _ignored(self, spec: Obj) -> list[Obj]:
        """The differences to overlook: the Application's own, and those that hold for all."""
        return [*(spec.get("ignoreDifferences") or ()), *map(dict, self._around.settings().ignored)]

    def _find(self) -> Obj | None:
        return self._around.cluster.store.find(API, "Application", self.name, NAMESPACE)

    def _wake_in(self, world_seconds: float) -> None:
        real = world_seconds / self._around.clock.speed
        asyncio.get_running_loop().call_later(real + 0.001, self.wake)
