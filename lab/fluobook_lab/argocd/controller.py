"""The application controller and repo-server: at work while the cluster's own Argo CD workloads are ready."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from fluobook_lab.argocd import settings as reading
from fluobook_lab.argocd.application import Application
from fluobook_lab.argocd.cluster import Cluster
from fluobook_lab.argocd.health import Judge, builtin
from fluobook_lab.argocd.names import API, CONTROLLER, NAMESPACE, REFRESH, annotation
from fluobook_lab.argocd.processes import Programs, Runner
from fluobook_lab.argocd.repositories import Repositories
from fluobook_lab.argocd.server_start import first_start
from fluobook_lab.argocd.sources import Capabilities, Order, Sources
from fluobook_lab.argocd.targets import is_run
from fluobook_lab.faults import Faults
from fluobook_lab.kube.identity import Write

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from fluobook_lab.clock import Clock
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.store import Store

log = logging.getLogger(__name__)


class Surroundings:
    """What every Application's worker shares: the cluster, the settings, the sources, the clock.

    Args:
        cluster: live objects.
        sources: renders.
        clock: the world clock.
        faults: what goes wrong on purpose.
        kube_version: what charts are told.
    """

    def __init__(self, cluster: Cluster, sources: Sources, clock: Clock, faults: Faults, *, kube_version: str) -> None:
        self.cluster = cluster
        self.sources = sources
        self.clock = clock
        self.faults = faults
        self.active = False
        self.timeline: list[tuple[float, str, str]] = []
        self._kube_version = kube_version
        self._settings: reading.Settings | None = None
        self._judge: Judge | None = None

    def settings(self) -> reading.Settings:
        """The operator's settings, as last read."""
        if self._settings is None:
            self._settings = reading.read(self.cluster.store)
        return self._settings

    def judge(self) -> Judge:
        """The judge of health, with the Lua of the settings."""
        if self._judge is None:
            self._judge = Judge(self.settings().health)
        return self._judge

    def reread(self) -> None:
        """Read the settings again when they are next asked for."""
        self._settings = self._judge = None

    def order(self, name: str, spec: Obj, revisions: tuple[str, ...]) -> Order:
        """What the repo-server is asked to render."""
        known = Capabilities(self._kube_version, self.cluster.api_versions())
        return Order(name, spec, revisions, self.settings(), known)

    def store_application(self, app: Obj) -> None:
        """Write an Application with its status, wherever its CRD keeps that."""
        store = self.cluster.store
        resource = store.registry.by_kind(API, "Application")
        store.update(app, Write(manager=CONTROLLER))
        if "status" in resource.subresources:
            app["metadata"].pop("resourceVersion", None)
            store.update(app, Write(manager=CONTROLLER, subresource="status"))

    def note(self, name: str, status: Obj) -> None:
        """Remember what an Application came to, and when."""
        operation = (status.get("operationState") or {}).get("phase", "")
        told = f"{status['sync']['status']} {status['health']['status']} {operation}".strip()
        self.timeline.append((self.clock.now(), name, told))


class ArgoCD:
    """Argo CD in the lab's cluster.

    It does nothing until the argocd-application-controller StatefulSet and the argocd-repo-server Deployment in the
    namespace argocd are ready, and pauses whenever they are not.

    Args:
        store: the lab's Kubernetes.
        clock: the world clock.
        programs: git, kubectl, helm and sops.
        folder: its own, for checkouts and caches; made if it is not there.
        kube_version: the cluster's version, as charts are told ("1.35.4").
        dice: where argocd-server's first passwords come from.
        faults: what goes wrong on purpose.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        programs: Programs,
        folder: Path,
        kube_version: str,
        dice: random.Random,
        faults: Faults | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        runner = Runner(folder / "home")
        self._store = store
        self._dice = dice
        faults = faults or Faults()
        sources = Sources(Repositories(folder / "repositories", programs, runner), programs, runner, faults)
        self._around = Surroundings(Cluster(store, self._changed), sources, clock, faults, kube_version=kube_version)
        self._workers: dict[str, tuple[Application, asyncio.Task[None]]] = {}
        self._seen: dict[str, str] = {}

    @property
    def timeline(self) -> list[tuple[float, str, str]]:
        """(world seconds, Application, "sync health operation") for each change, in order."""
        return self._around.timeline

    async def start(self) -> None:
        """Follow the cluster, and act once Argo CD's workloads are ready in it."""
        self._around.cluster.start()
        self._check()

    async def stop(self) -> None:
        """Stop all work."""
        await self._around.cluster.stop()
        running = [task for _, task in self._workers.values()]
        for task in running:
            task.cancel()
        for task in running:
            with suppress(asyncio.CancelledError):
                await task
        self._workers.clear()

    def _changed(self, app: str, obj: Obj) -> None:
        """An object changed that belongs to an Application, or to none (app "")."""
        kind, metadata = obj["kind"], obj["metadata"]
        if app in self._workers:
            self._workers[app][0].wake()
        elif is_run(obj):
            self._wake_all()  # a hook bears nobody's mark: whoever runs it looks how far it is
        if metadata.get("namespace") != NAMESPACE:
            return
        if kind == "Application":
            self._application(obj)
        elif kind == "AppProject":
            self._wake_all()
        elif kind in {"ConfigMap", "Secret"}:
            self._around.reread()
            if kind == "ConfigMap":
                self._wake_all()
        elif kind in {"Deployment", "StatefulSet"}:
            self._around.reread()
            self._check()

    def _application(self, obj: Obj) -> None:
        """Wake its worker if it is asked for something; the status it wrote itself is no news."""
        if obj.get("apiVersion") != API or not self._around.active:
            return
        name, metadata = obj["metadata"]["name"], obj["metadata"]
        ending = ((obj.get("status") or {}).get("operationState") or {}).get("phase") == "Terminating"
        asked = [obj.get("spec"), obj.get("operation"), annotation(obj, REFRESH), ending]
        told = json.dumps([metadata.get("uid"), metadata.get("deletionTimestamp"), *asked], sort_keys=True)
        if self._seen.get(name) != told or name not in self._workers:
            self._seen[name] = told
            self._worker(name).wake()

    def _worker(self, name: str) -> Application:
        if name not in self._workers:
            worker = Application(name, self._around)
            task = asyncio.create_task(self._work(worker), name=f"argocd application {name}")
            self._workers[name] = (worker, task)
        return self._workers[name][0]

    async def _work(self, worker: Application) -> None:
        """Run a worker; what goes wrong inside it is logged, and it goes on."""
        while True:
            try:
                await worker.run()
                break
            except Exception:
                log.exception("application %s", worker.name)
                await asyncio.sleep(0.2)
                worker.wake()
        self._workers.pop(worker.name, None)
        self._seen.pop(worker.name, None)

    def _wake_all(self) -> None:
        for worker, _ in self._workers.values():
            worker.wake()

    def _check(self) -> None:
        """Whether Argo CD's own workloads are ready; go on or pause accordingly."""
        server = self._store.find("apps/v1", "Deployment", "argocd-server", NAMESPACE)
        if server and _ready(server):
            first_start(self._store, self._dice)
        was, self._around.active = self._around.active, self._at_work()
        if self._around.active and not was:
            for app in self._store.list(API, "Application", NAMESPACE):
                self._worker(app["metadata"]["name"]).wake()

    def _at_work(self) -> bool:
        controller = self._store.find("apps/v1", "StatefulSet", CONTROLLER, NAMESPACE)
        repo_server = self._store.find("apps/v1", "Deployment", "argocd-repo-server", NAMESPACE)
        return bool(controller and repo_server) and all(map(_ready, filter(None, (controller, repo_server))))


def _ready(workload: Obj) -> bool:
    """Whether it has pods and all are ready."""
    check = builtin.deployment if workload["kind"] == "Deployment" else builtin.stateful_set
    replicas = (workload.get("status") or {}).get("readyReplicas", 0)
    return replicas > 0 and check(workload).status == "Healthy"
