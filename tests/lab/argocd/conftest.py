"""An environment for the tests of the lab's Argo CD: a store, a git and a chart server, workloads that become ready."""

from __future__ import annotations

import asyncio
import base64
import random
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from fluobook_lab.argocd.controller import ArgoCD
from fluobook_lab.argocd.repo_server import Programs
from fluobook_lab.charts import ChartServer
from fluobook_lab.clock import Clock
from fluobook_lab.faults import Faults
from fluobook_lab.git_server import GitServer
from fluobook_lab.kube.store import Store

from fluobook.clients import tools

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

API = "argoproj.io/v1alpha1"
STRICT = (Path(__file__).parents[3] / "cluster-gitops/infrastructure/argocd/application.yaml").read_text()
LUA = yaml.safe_load(STRICT)["spec"]["source"]["helm"]["valuesObject"]["configs"]["cm"][
    "resource.customizations.health.argoproj.io_Application"
]
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")
DEADLINE = 60.0


def programs() -> Programs:
    return Programs(**{name: tools.find(name).path for name in ("git", "kubectl", "helm", "sops")})


def crd(group: str, kind: str, plural: str, scope: str = "Namespaced") -> dict[str, Any]:
    version = {
        "name": "v1alpha1" if group == "argoproj.io" else "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "scope": scope, "names": {"kind": kind, "plural": plural}, "versions": [version]},
    }


def workload(
    kind: str, name: str, namespace: str = "", pod: Mapping[str, Any] | None = None, **spec: Any
) -> dict[str, Any]:
    containers = {"containers": [{"name": "main", "image": "lab.invalid/main:1"}]}
    body: dict[str, Any] = {
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {**containers, **(pod or {})}},
        **spec,
    }
    if kind == "StatefulSet":
        body["serviceName"] = name
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": body}


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


REPO_SERVER = {
    "containers": [
        {
            "name": "repo-server",
            "image": "quay.io/argoproj/argocd:v3.4.4",
            "env": [{"name": "SOPS_AGE_KEY_FILE", "value": "/.config/sops/age/keys.txt"}],
            "volumeMounts": [
                {"name": "tools", "mountPath": "/usr/local/bin/ksops", "subPath": "ksops"},
                {"name": "age", "mountPath": "/.config/sops/age"},
            ],
        }
    ],
    "volumes": [{"name": "tools", "emptyDir": {}}, {"name": "age", "secret": {"secretName": "sops-age-key"}}],
}


def secret(name: str, **data: str) -> dict[str, Any]:
    encoded = {key.replace("_", "."): base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "Opaque", "data": encoded}


class Lab:
    """The environment and what a test does in it."""

    workload = staticmethod(workload)
    config_map = staticmethod(config_map)
    secret = staticmethod(secret)
    crd = staticmethod(crd)
    api = API
    lua = LUA

    def __init__(self, folder: Path, *, speed: float = 200.0) -> None:
        self.folder = folder
        self.faults = Faults()
        self.clock = Clock(speed)
        self.store = Store()
        self.tree = folder / "tree"
        self.tree.mkdir(parents=True)
        self.git = GitServer(folder / "git", self.clock, git=programs().git)
        self.charts = ChartServer(self.tree, clock=self.clock, standins=folder / "standins")
        self.argocd = ArgoCD(
            self.store,
            self.clock,
            programs=programs(),
            folder=folder / "argocd",
            kube_version="1.35.4",
            random=random.Random(1),
            faults=self.faults,
        )
        self.held: set[str] = set()
        self.messages: dict[str, list[str]] = defaultdict(list)
        """What the operations of each Application said, also what was there for a moment only."""
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def write(self, files: Mapping[str, Any]) -> None:
        for path, content in files.items():
            target = self.tree / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(self.text(content))

    @staticmethod
    def text(content: Any) -> str:
        if isinstance(content, str):
            return content
        return yaml.safe_dump_all(content if isinstance(content, list) else [content])

    async def up(self, *, lua: str | None = LUA, ready: bool = True, **cm: str) -> None:
        self.git.seed("infra", self.tree)
        if not self.git.port:
            await self.git.start()
        await self.charts.start()
        self.store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "argocd"}})
        for group, kind, plural in ((API[:11], "Application", "applications"), (API[:11], "AppProject", "appprojects")):
            self.store.create(crd(group, kind, plural))
        data = {"kustomize.buildOptions": "--enable-alpha-plugins --enable-exec", **cm}
        data |= {"resource.customizations.health.argoproj.io_Application": lua} if lua else {}
        self.apply({**config_map("argocd-cm", **data)}, "argocd")
        for kind, name, pod in (
            ("StatefulSet", "argocd-application-controller", None),
            ("Deployment", "argocd-repo-server", REPO_SERVER),
            ("Deployment", "argocd-server", None),
        ):
            if not ready:
                self.held.add(name)
            self.apply(workload(kind, name, pod=pod), "argocd")
        for kind in (*WORKLOADS, "Application"):
            self._tasks.append(asyncio.create_task(self._follow(kind)))
        await asyncio.sleep(0)
        await self.argocd.start()

    async def down(self) -> None:
        await self.argocd.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.charts.stop()
        await self.git.stop()

    def apply(self, obj: dict[str, Any], namespace: str = "") -> None:
        if namespace:
            obj["metadata"].setdefault("namespace", namespace)
        self.store.apply(obj, manager="test", force=True)

    def application(self, name: str, path: str = "", *, create: bool = True, **changes: Any) -> dict[str, Any]:
        source: dict[str, Any] = {"repoURL": self.git.url("infra"), "targetRevision": "main", "path": path}
        spec: dict[str, Any] = {
            "project": "default",
            "source": changes.pop("source", source),
            "destination": {
                "server": "https://kubernetes.default.svc",
                "namespace": changes.pop("namespace", "default"),
            },
            "syncPolicy": {
                "automated": changes.pop("automated", {"prune": True, "selfHeal": True}),
                "syncOptions": changes.pop("options", ["ServerSideApply=true", "CreateNamespace=true"]),
                "retry": changes.pop("retry", {"limit": 0}),
            },
        }
        metadata: dict[str, Any] = {"name": name, "namespace": "argocd", **changes.pop("metadata", {})}
        obj = {"apiVersion": API, "kind": "Application", "metadata": metadata, "spec": {**spec, **changes}}
        if create:
            self.store.create(obj)
        return obj

    def app(self, name: str) -> dict[str, Any]:
        return self.store.find(API, "Application", name, "argocd") or {}

    def status(self, name: str) -> dict[str, Any]:
        return self.app(name).get("status") or {}

    def state(self, name: str) -> tuple[str, str, str]:
        status = self.status(name)
        return (
            status.get("sync", {}).get("status", ""),
            status.get("health", {}).get("status", ""),
            status.get("operationState", {}).get("phase", ""),
        )

    def refresh(self, name: str, kind: str = "normal") -> None:
        body = {"metadata": {"annotations": {"argocd.argoproj.io/refresh": kind}}}
        self.store.patch(API, "Application", name, "argocd", body=body)

    def push(self, files: Mapping[str, Any]) -> str:
        return self.git.commit(
            "infra", {path: None if content is None else self.text(content) for path, content in files.items()}
        )

    async def until(self, condition: Callable[[], Any], why: str = "") -> Any:
        """Wait for a condition; checks it whenever an Application or a workload changed."""
        try:
            async with asyncio.timeout(DEADLINE):
                while not (result := condition()):
                    self._changed.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(0.2):
                            await self._changed.wait()
        except TimeoutError:
            raise AssertionError(
                f"timed out after {DEADLINE} s waiting for {why or condition}\n{yaml.safe_dump(self.states())}"
            ) from None
        return result

    def states(self) -> dict[str, Any]:
        """The state of every Application, for a failure."""
        return {
            name: [
                *self.state(name),
                self.status(name).get("operationState", {}).get("message"),
                self.status(name).get("conditions"),
            ]
            for name in (app["metadata"]["name"] for app in self.store.list(API, "Application"))
        }

    async def well(self, *names: str) -> None:
        for name in names:
            await self.until(lambda name=name: self.state(name) == ("Synced", "Healthy", "Succeeded"), f"{name} well")

    async def _follow(self, kind: str) -> None:
        api = API if kind == "Application" else "apps/v1"
        watch = self.store.watch(api, kind)
        try:
            for obj in self.store.list(api, kind):
                self._settle(obj)
            async for event in watch:
                self._settle(event.object)
                if message := ((event.object.get("status") or {}).get("operationState") or {}).get("message"):
                    self.messages[event.object["metadata"]["name"]].append(message)
                self._changed.set()
        finally:
            watch.close()

    def _settle(self, obj: dict[str, Any]) -> None:
        if obj["kind"] in WORKLOADS and obj["metadata"]["name"] not in self.held:
            self.make_ready(obj)

    def make_ready(self, obj: dict[str, Any]) -> None:
        count, generation = obj["spec"].get("replicas", 1), obj["metadata"].get("generation", 1)
        status = {"observedGeneration": generation, "replicas": count, "readyReplicas": count, "updatedReplicas": count}
        status |= {"availableReplicas": count}
        if obj["kind"] == "StatefulSet":
            status |= {"currentRevision": "a", "updateRevision": "a"}
        if obj["kind"] == "DaemonSet":
            status = {"observedGeneration": generation, "currentNumberScheduled": 1, "desiredNumberScheduled": 1}
            status |= {"numberMisscheduled": 0, "numberReady": 1, "numberAvailable": 1, "updatedNumberScheduled": 1}
        current = self.store.get(obj["apiVersion"], obj["kind"], obj["metadata"]["name"], obj["metadata"]["namespace"])
        if current.get("status") != status:
            self.store.set_status(current, status)

    def release(self, kind: str, name: str, namespace: str) -> None:
        self.held.discard(name)
        self.make_ready(self.store.get("apps/v1", kind, name, namespace))


@pytest.fixture
def in_lab(tmp_path):
    """Run a coroutine function as a test in an environment of its own: `in_lab(test)`."""

    def run(test: Callable[[Lab], Awaitable[None]], **options: Any) -> None:
        async def go() -> None:
            lab = Lab(tmp_path, **options)
            try:
                await test(lab)
            finally:
                await lab.down()

        asyncio.run(go())

    return run
