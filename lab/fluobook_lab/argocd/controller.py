"""Argo CD in the lab's cluster: active while the cluster's own Argo CD workloads are ready."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING

from fluobook_lab.argocd import objects
from fluobook_lab.argocd.application import Application, Environment
from fluobook_lab.argocd.comparison import Cluster
from fluobook_lab.argocd.configuration import first_start
from fluobook_lab.argocd.health import deployment, stateful_set
from fluobook_lab.argocd.objects import API, CONTROLLER, NAMESPACE, annotation, is_hook, operation_phase
from fluobook_lab.argocd.operation import TERMINATING
from fluobook_lab.argocd.repo_server import Programs, RepoServer
from fluobook_lab.faults import Faults

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from fluobook_lab.clock import Clock
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.store import Store

RESTART = 0.2
"""Real seconds until a worker that failed continues."""

log = logging.getLogger(__name__)


class ArgoCD:
    """Application controller, repo-server and the first start of argocd-server.

    It does nothing until the argocd-application-controller StatefulSet and the argocd-repo-server Deployment in the
    namespace argocd are ready, and pauses whenever they are not.

    Args:
        store: the lab's Kubernetes.
        clock: the lab's clock.
        programs: git, kubectl, helm and sops.
        folder: for checkouts and caches; created if missing.
        kube_version: the Kubernetes version that charts see ("1.35.4").
        random: generates argocd-server's first passwords.
        faults: the faults to inject.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        programs: Programs,
        folder: Path,
        kube_version: str,
        random: random.Random,
        faults: Faults | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        faults = faults or Faults()
        self._store, self._random = store, random
        self._started: Obj | None = None
        repo_server = RepoServer(folder, programs, faults)
        self._environment = Environment(Cluster(store, self._changed), repo_server, clock, faults, kube_version)
        self._workers: dict[str, tuple[Application, asyncio.Task[None]]] = {}
        self._inputs: dict[str, str] = {}

    @property
    def timeline(self) -> list[tuple[float, str, str]]:
        """(lab seconds, Application, "sync health operation") for each change, in order."""
        return self._environment.timeline

    async def start(self) -> None:
        """Watch the cluster, and act when Argo CD's workloads are ready in it."""
        self._environment.cluster.start()
        self._update_active()

    async def stop(self) -> None:
        """Stop all work."""
        await self._environment.cluster.stop()
        running = [task for _, task in self._workers.values()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._workers.clear()

    def _changed(self, app: str, obj: Obj) -> None:
        """An object of an Application changed, or an object of none (app "")."""
        kind = obj["kind"]
        if app in self._workers:
            self._workers[app][0].wake()
        elif is_hook(obj):
            self._wake_all()  # a hook has no tracking id, so it may be any Application's
        if obj["metadata"].get("namespace") != NAMESPACE:
            return
        if kind == "Application":
            self._application_changed(obj)
        elif kind == "AppProject":
            self._wake_all()
        elif kind in {"ConfigMap", "Secret"}:
            self._environment.reset_settings()
            if kind == "ConfigMap":
                self._wake_all()
        elif kind in {"Deployment", "StatefulSet"}:
            self._environment.reset_settings()
            self._update_active()

    def _application_changed(self, obj: Obj) -> None:
        """Wake its worker if its inputs changed; the status that the worker writes is no input."""
        if obj.get("apiVersion") != API or not self._environment.active:
            return
        name, metadata = obj["metadata"]["name"], obj["metadata"]
        asked = [annotation(obj, key) for key in (objects.REFRESH, objects.APPROVED)]
        inputs = [obj.get("spec"), obj.get("operation"), asked, operation_phase(obj) == TERMINATING]
        text = json.dumps([metadata.get("uid"), metadata.get("deletionTimestamp"), *inputs], sort_keys=True)
        if self._inputs.get(name) != text or name not in self._workers:
            self._inputs[name] = text
            self._worker(name).wake()

    def _worker(self, name: str) -> Application:
        if name not in self._workers:
            worker = Application(name, self._environment)
            task = asyncio.create_task(self._run(worker), name=f"argocd application {name}")
            self._workers[name] = (worker, task)
        return self._workers[name][0]

    async def _run(self, worker: Application) -> None:
        """Run a worker; an unexpected error is logged, and the worker continues."""
        while True:
            try:
                await worker.run()
                break
            except Exception:
                log.exception("application %s", worker.name)
                await asyncio.sleep(RESTART)
                worker.wake()
        self._workers.pop(worker.name, None)
        self._inputs.pop(worker.name, None)

    def _wake_all(self) -> None:
        for worker, _ in self._workers.values():
            worker.wake()

    def _update_active(self) -> None:
        """Become active or pause, depending on Argo CD's own workloads."""
        server, repo_server = (
            self._store.find("apps/v1", "Deployment", name, NAMESPACE)
            for name in ("argocd-server", "argocd-repo-server")
        )
        controller = self._store.find("apps/v1", "StatefulSet", CONTROLLER, NAMESPACE)
        template = (server or {}).get("spec", {}).get("template")
        if _is_ready(server):
            first_start(self._store, self._random, starts=template != self._started)
            self._started = template
        was_active, self._environment.active = (
            self._environment.active,
            _is_ready(controller) and _is_ready(repo_server),
        )
        if self._environment.active and not was_active:
            for app in self._store.list(API, "Application", NAMESPACE):
                self._worker(app["metadata"]["name"]).wake()


def _is_ready(workload: Obj | None) -> bool:
    """Whether it has pods and all are ready."""
    if workload is None or (workload.get("status") or {}).get("readyReplicas", 0) < 1:
        return False
    check = deployment if workload["kind"] == "Deployment" else stateful_set
    return check(workload).status == "Healthy"
