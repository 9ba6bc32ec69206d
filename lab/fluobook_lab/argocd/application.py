"""The controller's worker for one Application: compares it when something of it changes, and syncs it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fluobook_lab.argocd import configuration, objects
from fluobook_lab.argocd.comparison import Comparer, Comparison
from fluobook_lab.argocd.health import HEALTHY, PROGRESSING, Health, HealthChecks
from fluobook_lab.argocd.operation import (
    TERMINATING,
    Operation,
    application_status,
    automatic,
    automatic_request,
    history,
    summary_of,
)
from fluobook_lab.argocd.repo_server import CommandError, Request, load_error
from fluobook_lab.argocd.sync import Applier, Sync, tasks
from fluobook_lab.kube.access import Write
from fluobook_lab.kube.errors import ApiError
from fluobook_lab.kube.objects import clone, timestamp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook_lab.argocd.comparison import Cluster
    from fluobook_lab.argocd.repo_server import Rendered, RepoServer
    from fluobook_lab.clock import Clock
    from fluobook_lab.faults import Faults
    from fluobook_lab.kube.objects import Obj

RESYNC = 120.0
"""Lab seconds between two checks of a source, the real controller's default."""
SHORTEST_RESYNC = 30.0
"""Real seconds between two such checks at least: a lab with a fast clock would otherwise do nothing else."""
DEBOUNCE = 0.01
"""Real seconds in which changes are collected before an Application is compared."""


class Environment:
    """What the workers share: cluster, settings, repo-server, clock.

    Args:
        cluster: the live objects.
        repo_server: renders.
        clock: the lab's clock.
        faults: the faults to inject.
        kube_version: the Kubernetes version that charts see.
    """

    def __init__(
        self, cluster: Cluster, repo_server: RepoServer, clock: Clock, faults: Faults, kube_version: str
    ) -> None:
        self.cluster, self.repo_server, self.clock, self.faults = cluster, repo_server, clock, faults
        self.kube_version = kube_version
        self.active = False
        self.timeline: list[tuple[float, str, str]] = []
        self._settings: tuple[configuration.Settings, HealthChecks] | None = None

    def _read(self) -> tuple[configuration.Settings, HealthChecks]:
        if self._settings is None:
            settings = configuration.read(self.cluster.store)
            self._settings = settings, HealthChecks(settings.health)
        return self._settings

    @property
    def settings(self) -> configuration.Settings:
        """The settings, as last read."""
        return self._read()[0]

    @property
    def checks(self) -> HealthChecks:
        """The health checks, with the Lua of the settings."""
        return self._read()[1]

    def reset_settings(self) -> None:
        """Read the settings again when they are needed next."""
        self._settings = None


@dataclass
class View:
    """The result of comparing an Application once."""

    app: Obj
    conditions: dict[str, str] = field(default_factory=dict)
    rendered: Rendered | None = None
    comparison: Comparison | None = None
    refreshed: bool = False


class Application:
    """The worker.

    Args:
        name: the Application's.
        environment: what it needs.
    """

    def __init__(self, name: str, environment: Environment) -> None:
        self.name = name
        self._environment, self._cluster, self._clock = environment, environment.cluster, environment.clock
        self._comparer = Comparer(environment.cluster, name)
        self._wake = asyncio.Event()
        self._spec = ""
        self._rendered: Rendered | None = None
        self._refreshed_at = float("-inf")
        self._targets: list[objects.Target] = []
        self._warnings: list[str] = []
        self._targets_of: tuple[Rendered | None, object] = (None, None)
        self._operation: Operation | None = None
        self._ended_at = float("-inf")

    def wake(self) -> None:
        """Compare the Application soon: something of it changed."""
        self._wake.set()

    async def run(self) -> None:
        """Compare it whenever it is woken, until it is deleted."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(DEBOUNCE)
            self._wake.clear()
            if self._environment.active and not await self._reconcile():
                return

    async def _reconcile(self) -> bool:
        """Compare and act once; False when the Application is gone."""
        app = self._find()
        if app is None:
            return False
        if app["metadata"].get("deletionTimestamp"):
            return await self._delete(app)
        view = await self._compare(app)
        current = self._find()
        if current is None:
            return False
        view.app = self._follow_hooks(current) if view.comparison else current
        self._operate(view)
        self._write(view)
        return True

    # ---- comparing -------------------------------------------------------------------------------------------------

    async def _compare(self, app: Obj) -> View:
        """Compare project, source and cluster as they are now."""
        view, spec = View(app), app["spec"]
        if refusals := configuration.refusals(app, self._project(spec)):
            view.conditions["InvalidSpecError"] = ";".join(refusals)
            return view
        try:
            view.rendered = await self._render(app, view)
        except CommandError as error:
            view.conditions["ComparisonError"] = str(error)
            return view
        self._update_targets(spec, view.rendered)
        if self._warnings:
            view.conditions["RepeatedResourceWarning"] = ";".join(self._warnings)
        view.comparison = self._comparer.compare(self._targets, self._ignored(spec), self._environment.checks)
        return view

    async def _render(self, app: Obj, view: View) -> Rendered:
        """The documents; the source is checked only when there is a reason, as the real controller does."""
        spec, refresh = app["spec"], objects.annotation(app, objects.REFRESH)
        spec_text, resync = json.dumps(spec, sort_keys=True), self._resync()
        due = self._clock.now() - self._refreshed_at >= resync or bool(
            self._operation and self._operation.needs_refresh
        )
        if self._rendered is not None and spec_text == self._spec and not (refresh or due):
            return self._rendered
        view.refreshed, self._spec, self._refreshed_at = True, spec_text, self._clock.now()
        if refresh:
            body = {"metadata": {"annotations": {objects.REFRESH: None}}}
            write = Write(manager=objects.CONTROLLER)
            self._cluster.store.patch(objects.API, "Application", self.name, objects.NAMESPACE, body=body, write=write)
        self._rendered = None
        try:
            self._rendered = await self._fresh(spec, hard=refresh == "hard")
        finally:
            self._wake_in(self._resync())
        return self._rendered

    def _resync(self) -> float:
        """Lab seconds until the next check of the source; sooner if the last one failed."""
        configured = self._environment.settings.resync
        shortest = 0.0 if self._rendered is None else SHORTEST_RESYNC * self._clock.speed
        return max(RESYNC, shortest) if configured is None else configured

    async def _fresh(self, spec: Obj, *, hard: bool) -> Rendered:
        environment = self._environment
        try:
            revisions = await environment.repo_server.resolve(spec)
        except CommandError as error:
            raise CommandError(load_error(error)) from error
        apis = self._cluster.api_versions()
        request = Request(self.name, spec, revisions, environment.settings, environment.kube_version, apis)
        return await environment.repo_server.render(request, fresh=hard)

    def _update_targets(self, spec: Obj, rendered: Rendered) -> None:
        """Keep the same targets while nothing changed, so that comparing is cheap."""
        namespace, tracking = (spec.get("destination") or {}).get("namespace", ""), self._environment.settings.tracking
        inputs = (namespace, tracking, self._cluster.store.registry.generation)
        if self._targets_of[0] is not rendered or self._targets_of[1] != inputs:
            self._targets, self._warnings = objects.targets(
                self.name,
                rendered.documents,
                namespace=namespace,
                tracking=tracking,
                namespaced=self._cluster.namespaced,
            )
            self._targets_of = (rendered, inputs)

    # ---- acting ----------------------------------------------------------------------------------------------------

    def _operate(self, view: View) -> None:
        """Begin an operation if one is due, and continue the current one."""
        if self._operation is None and view.comparison is not None and view.rendered is not None:
            self._begin(view, view.comparison, view.rendered)
        operation = self._operation
        if operation is None:
            return
        if objects.operation_phase(view.app) == TERMINATING:
            operation.terminate()
        if operation.needs_refresh and view.rendered is not None:
            operation.rendered, operation.targets = view.rendered, self._targets
        operation.step(self._environment.checks)
        if operation.wake_in is not None:
            self._wake_in(operation.wake_in)

    def _begin(self, view: View, comparison: Comparison, rendered: Rendered) -> None:
        app = view.app
        request = app.get("operation")
        if request is None:
            decision = automatic(app, comparison, rendered, self._clock.now() - self._ended_at)
            if decision.problem:
                view.conditions["SyncError"] = decision.problem
            if decision.later is not None:
                self._wake_in(decision.later)
            if not decision.now:
                return
            request = automatic_request(app)
        spec, request = clone(app["spec"]), clone(request)
        self._operation = Operation(
            request, spec, rendered, self._targets, lambda wanted: self._sync(spec, request, wanted), self._clock.now
        )

    def _sync(self, spec: Obj, request: Obj, wanted: list[objects.Target]) -> Sync:
        """A sync of these targets, for one attempt of an operation."""
        environment, policy, sync = self._environment, spec.get("syncPolicy") or {}, request.get("sync") or {}
        options = sync.get("syncOptions") or policy.get("syncOptions") or ()
        ignored, destination = self._ignored(spec), spec.get("destination") or {}
        applier = Applier(self._cluster, options, ignored, environment.faults)
        if "CreateNamespace=true" in options and destination.get("namespace"):
            applier.create_namespace(destination["namespace"], policy.get("managedNamespaceMetadata"))
        comparison = self._comparer.compare(wanted, ignored, environment.checks)
        steps = tasks(wanted, comparison, prune=bool(sync.get("prune")), options=options)
        project, delay = self._project(spec) or {}, environment.settings.wave_delay
        return Sync(steps, applier, self._cluster, project, destination, self._clock.now, delay, self._approved)

    def _approved(self) -> bool:
        """Whether a person has approved to prune since the operation started."""
        app = self._find() or {}
        operation = (app.get("status") or {}).get("operationState") or {}
        return objects.is_approved(app, operation.get("startedAt", ""))

    async def _delete(self, app: Obj) -> bool:
        """Delete its objects first, after the current operation; False when the Application is gone."""
        if self._operation is not None:
            if objects.operation_phase(app) != TERMINATING:
                self._operation.step(self._environment.checks)
                if not self._operation.ended:
                    return True
            self._operation = None
        try:
            if {*objects.DELETE_HOOKS.values()} & {*(app["metadata"].get("finalizers") or ())}:
                self._update_targets(app["spec"], await self._render(app, View(app)))  # a commit may have fixed a hook
            for done, finalizers in self._deletion(app):
                if not done:
                    break
                self._remove_finalizers(finalizers)
        except (ApiError, CommandError) as error:
            self._write(View(app, {"DeletionError": str(error)}))
        return self._find() is not None

    def _deletion(self, app: Obj) -> Iterator[tuple[bool, set[str]]]:
        """The steps of a deletion: whether each is done, and the finalizers that stand for it.

        Raises:
            ApiError: an object cannot be deleted, or a hook failed.
        """
        finalizers = app["metadata"].get("finalizers") or ()
        before, after = objects.DELETE_HOOKS.values()
        if before in finalizers:
            yield self._run_hooks("PreDelete"), {before}
        if cascade := {name for name in finalizers if name.split("/")[0] == objects.FINALIZER}:
            yield self._delete_objects(app), cascade
        if after in finalizers:
            yield self._run_hooks("PostDelete"), {after}
        for phase, name in objects.DELETE_HOOKS.items():
            if f"{name}/cleanup" in finalizers:
                for live in filter(None, (self._cluster.live(hook.obj) for hook in self._hooks(phase))):
                    self._cluster.delete(live)
                yield True, {f"{name}/cleanup"}

    def _hooks(self, phase: str) -> list[objects.Target]:
        return [target for target in self._targets if phase in target.phases]

    def _run_hooks(self, phase: str) -> bool:
        """Create the hooks of a phase of deletion; whether all have succeeded.

        Raises:
            ApiError: one failed; it is deleted, and created again at the next attempt.
        """
        live = [(hook, self._cluster.live(hook.obj)) for hook in self._hooks(phase)]
        if missing := [hook.obj for hook, obj in live if obj is None]:
            for obj in missing:
                created = clone(obj)
                created["metadata"]["annotations"][objects.TRACKING] = objects.tracking_id(self.name, obj)
                self._cluster.store.create(created, Write(manager=objects.MANAGER))
            return False
        states = [(obj, self._environment.checks.health(obj) or HEALTHY) for _, obj in live if obj]
        if failed := [obj for obj, health in states if health.status == "Degraded"]:
            for obj in failed:
                self._cluster.delete(obj)
            names = ", ".join(f"{obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}" for obj in failed)
            executing = "error executing pre-delete hooks: " if phase == "PreDelete" else ""
            raise ApiError(500, "InternalError", f"{executing}{phase} hook(s) failed: {names}")
        return all(health.status != PROGRESSING for _, health in states)

    def _delete_objects(self, app: Obj) -> bool:
        """Delete the objects that may be deleted with the Application; whether all of them are gone.

        CustomResourceDefinitions stay, and so does what Helm keeps. Nothing is deleted while one of them waits for a
        person's approval.

        Raises:
            ApiError: an object cannot be deleted.
        """
        options = (app["spec"].get("syncPolicy") or {}).get("syncOptions") or ()
        live_objects = [
            obj
            for obj in self._cluster.objects_of(self.name).values()
            if not objects.is_set("Delete=false", obj, options)
            and obj["kind"] != "CustomResourceDefinition"
            and objects.annotation(obj, "helm.sh/resource-policy") != "keep"
        ]
        asks = any(objects.is_set("Delete=confirm", obj, options) for obj in live_objects)
        if asks and not objects.is_approved(app, app["metadata"]["deletionTimestamp"]):
            return False
        for obj in live_objects:
            if not obj["metadata"].get("deletionTimestamp"):
                self._cluster.delete(obj)
        return not live_objects

    def _remove_finalizers(self, names: set[str]) -> None:
        if current := self._find():
            left = [name for name in current["metadata"].get("finalizers") or () if name not in names]
            current["metadata"]["finalizers"] = left
            self._cluster.store.update(current, Write(manager=objects.CONTROLLER))

    def _follow_hooks(self, app: Obj) -> Obj:
        """Give the Application the finalizers of the hooks for deletion that its source has now."""
        old = app["metadata"].get("finalizers") or []
        names = {name + end: phase for phase, name in objects.DELETE_HOOKS.items() for end in ("", "/cleanup")}
        wanted = [name for name, phase in names.items() if self._hooks(phase)]
        new = [name for name in old if name not in names or name in wanted]
        new += [name for name in wanted if name not in old]
        if new == old:
            return app
        changed = {**app, "metadata": {**app["metadata"], "finalizers": new}}
        return self._cluster.store.update(changed, Write(manager=objects.CONTROLLER))

    # ---- reporting -------------------------------------------------------------------------------------------------

    def _write(self, view: View) -> None:
        """Write the status if it changed."""
        app, comparison, environment = view.app, view.comparison, self._environment
        if self._operation is not None and comparison is not None and view.rendered is not None:
            comparison = self._comparer.compare(self._targets, self._ignored(app["spec"]), environment.checks)
        health, persist = comparison.health() if comparison else Health("Unknown"), environment.settings.persist_health
        status = application_status(app, view.conditions, view.rendered, comparison, health, persist_health=persist)
        if view.refreshed:
            status["reconciledAt"] = timestamp()
        status |= self._operation_status(app.get("status") or {})
        self._store(app, status)

    def _operation_status(self, old: Obj) -> dict[str, Any]:
        operation = self._operation
        if operation is None:
            return {}
        state = operation.state()
        parts: dict[str, Any] = {"operationState": state}
        if operation.ended:
            self._operation, self._ended_at = None, self._clock.now()
            if operation.phase == "Succeeded":
                parts["history"] = history(old.get("history") or [], state)
            self.wake()
        return parts

    def _store(self, app: Obj, status: Obj) -> None:
        current, store = {**app, "status": status}, self._cluster.store
        begun = app.get("operation") is not None and bool(objects.operation_phase(current))
        if begun:
            current.pop("operation")
        if status == app.get("status") and not begun:
            return
        store.update(current, Write(manager=objects.CONTROLLER))
        if "status" in store.registry.by_kind(objects.API, "Application").subresources:
            current["metadata"].pop("resourceVersion", None)
            store.update(current, Write(manager=objects.CONTROLLER, subresource="status"))
        self._environment.timeline.append((self._clock.now(), self.name, summary_of(status)))

    def _project(self, spec: Obj) -> Obj | None:
        return self._cluster.store.find(objects.API, "AppProject", spec.get("project") or "default", objects.NAMESPACE)

    def _ignored(self, spec: Obj) -> list[Obj]:
        """The differences to ignore: the Application's own, and those of all Applications."""
        return [*(spec.get("ignoreDifferences") or ()), *map(dict, self._environment.settings.ignored)]

    def _find(self) -> Obj | None:
        return self._cluster.store.find(objects.API, "Application", self.name, objects.NAMESPACE)

    def _wake_in(self, lab_seconds: float) -> None:
        asyncio.get_running_loop().call_later(lab_seconds / self._clock.speed + 0.001, self.wake)
