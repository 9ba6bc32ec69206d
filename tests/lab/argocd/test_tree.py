"""The project's own platform tree, as it stands, on the lab's cluster: every Application becomes healthy."""

import asyncio
import base64
import random
import subprocess
from pathlib import Path

import pytest
import yaml
from fluobook_lab.argocd.controller import ArgoCD
from fluobook_lab.argocd.repo_server import Programs
from fluobook_lab.charts import HERE, ChartServer, repositories, repository_path
from fluobook_lab.clock import Clock
from fluobook_lab.faults import Faults
from fluobook_lab.git_server import GitServer
from fluobook_lab.kube.cluster import KubeCluster
from fluobook_lab.kube.kubelet import NodeInfo

from fluobook import params
from fluobook.clients import helm, tools
from fluobook.gitops import tree as trees
from fluobook.gitops.root import root_application
from fluobook.kubernetes import manifests
from fluobook.machine.pki import new_authority

pytestmark = pytest.mark.lab
ROOT = Path(__file__).parents[3]
TREE = ROOT / "cluster-gitops"
API = "argoproj.io/v1alpha1"
WELL = ("Synced", "Healthy", "Succeeded")


def state(app):
    status = app.get("status") or {}
    parts = (status.get("sync", {}).get("status"), status.get("health", {}).get("status"))
    return (*parts, status.get("operationState", {}).get("phase"))


class Site:
    """A cluster with nodes, the hosts it deploys from, and Argo CD in it."""

    def __init__(self, folder):
        self.clock = Clock(100)
        self.cluster = KubeCluster(self.clock, Faults(), version="v1.35.4")
        self.store = self.cluster.api.store
        programs = Programs(**{name: tools.find(name).path for name in ("git", "kubectl", "helm", "sops")})
        self.git = GitServer(folder / "git", self.clock, git=programs.git)
        self.charts = ChartServer(TREE, clock=self.clock)
        self.argocd = ArgoCD(
            self.store,
            self.clock,
            programs=programs,
            folder=folder / "argocd",
            kube_version="1.35.4",
            random=random.Random(1),
        )

    async def start(self):
        self.cluster.start_controllers(new_authority(organization="kubernetes"))
        self.cluster.join(NodeInfo("talos-cp-1", ("10.10.0.10",), "controlplane"))
        for number in (1, 2):
            self.cluster.join(NodeInfo(f"talos-worker-{number}", (f"10.10.0.2{number}",), cores=4, memory_mib=12288))
        await self.git.start()
        await self.charts.start()
        self.platform = self._platform()
        await self._install()
        await self.argocd.start()

    async def stop(self):
        await self.argocd.stop()
        await self.cluster.stop()
        await self.charts.stop()
        await self.git.stop()

    def _platform(self):
        platform = params.load("phase1").platform
        ours = platform.gitops.repository
        self.git.seed(repository_path(ours), ROOT, ["cluster-gitops"])
        mirrors = {**self.charts.mirrors(), ours: self.git.url(repository_path(ours))}
        for pin in repositories(TREE):
            if (HERE / "standins-git" / pin.path).is_dir():
                self.git.seed(pin.path, HERE / "standins-git" / pin.path, tags=[pin.version])
                mirrors[pin.repository] = self.git.url(pin.path)
        return params.overlay(platform, {"gitops": {"mirrors": mirrors}})

    async def _install(self):
        """What the stages before the root Application leave behind."""
        kubectl = [str(tools.find("kubectl").path), "kustomize", str(TREE / "infrastructure" / "namespaces")]
        spaces = await asyncio.to_thread(subprocess.check_output, kubectl, text=True)
        charts = [await self._chart(name) for name in ("cilium", "argocd")]
        for obj in [*manifests.load(spaces), *(obj for objs in charts for obj in objs)]:
            self.store.apply(obj, manager="test", force=True)
        data = {"keys.txt": base64.b64encode((ROOT / "params/lab/lab.age").read_bytes()).decode()}
        key = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "sops-age-key", "namespace": "argocd"},
            "data": data,
        }
        self.store.apply(key, manager="test", force=True)

    async def _chart(self, name):
        app = yaml.safe_load((TREE / "infrastructure" / name / "application.yaml").read_text())["spec"]
        source, space = app["source"], app["destination"]["namespace"]
        objs = await asyncio.to_thread(
            helm.template,
            source["chart"],
            repo=self.charts.url(source["repoURL"]),
            version=source["targetRevision"],
            release=source["helm"]["releaseName"],
            namespace=space,
            values=source["helm"]["valuesObject"],
            kube_version="1.35.4",
        )
        objs = sorted(objs, key=lambda obj: obj["kind"] != "CustomResourceDefinition")
        for obj in objs:
            resource = self.store.registry.find(obj["apiVersion"], obj["kind"])
            if resource is None or resource.namespaced:
                obj["metadata"].setdefault("namespace", space)
        return [obj for obj in objs if not any("hook" in key for key in obj["metadata"].get("annotations") or ())]

    def applications(self):
        return {app["metadata"]["name"]: app for app in self.store.list(API, "Application", "argocd")}

    async def until_all_are_well(self):
        wanted = {entry.name for entry in trees.read(ROOT).applications} | {"root"}
        watch = self.store.watch(API, "Application")
        try:
            async with asyncio.timeout(200):
                async for _ in watch:
                    if {name for name, app in self.applications().items() if state(app) == WELL} == wanted:
                        break
        except TimeoutError:
            left = {name: state(app) for name, app in self.applications().items() if state(app) != WELL}
            missing = wanted - set(self.applications())
            raise AssertionError(f"not well: {left}; missing: {missing}") from None
        finally:
            watch.close()


async def _comes_to_rest(folder):
    site = Site(folder)
    try:
        await site.start()
        site.store.create(root_application(site.platform, trees.read(ROOT)))
        await site.until_all_are_well()
        begun = {name: at for at, name, _ in reversed(site.argocd.timeline)}
        waves = trees.waves(trees.read(ROOT))
        firsts = [min(begun[entry.name] for entry in waves[wave]) for wave in sorted(waves)]
        assert firsts == sorted(firsts)
        ours = site.platform.gitops.repository
        revisions = [
            app["status"]["sync"]["revision"]
            for app in site.applications().values()
            if app["spec"]["source"]["repoURL"] == site.platform.gitops.mirrors[ours]
        ]
        assert len(revisions) > 1
        assert set(revisions) == {site.git.head(repository_path(ours))}
        deployed = {name: len(app["status"]["history"]) for name, app in site.applications().items()}
        await site.clock.sleep(300)
        assert {name: len(app["status"]["history"]) for name, app in site.applications().items()} == deployed
    finally:
        await site.stop()


def test_every_application_of_the_tree_becomes_healthy_in_the_order_of_its_wave(tmp_path):
    asyncio.run(_comes_to_rest(tmp_path))
