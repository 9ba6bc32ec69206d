"""Hooks for deletion, on both engines: their finalizers are no difference of a root, and a failed one blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fluobook.stages import catalogue
from tests.engines import tree
from tests.engines.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.engines.conftest import RealLab

API, KIND, NAMESPACE = "argoproj.io/v1alpha1", "Application", "argocd"
CASCADE, BEFORE = "resources-finalizer.argocd.argoproj.io", "pre-delete-finalizer.argocd.argoproj.io"
WITH_HOOK = {CASCADE, BEFORE, f"{BEFORE}/cleanup"}
FAILED = "error executing pre-delete hooks: PreDelete hook(s) failed: default/uninstall"
STAGES = tuple(stage.name for stage in catalogue.STAGES if 0 < stage.number <= 7)


def application(url: str, path: str, *finalizers: str) -> dict[str, Any]:
    metadata = {"name": path.rpartition("/")[2], "namespace": NAMESPACE, "finalizers": list(finalizers)}
    space = NAMESPACE if path == "hooks/parent" else "default"
    spec = {
        "project": "default",
        "source": {"repoURL": url, "targetRevision": "main", "path": path},
        "destination": {"server": "https://kubernetes.default.svc", "namespace": space},
        "syncPolicy": {"automated": {"selfHeal": True}, "syncOptions": ["ServerSideApply=true"]},
    }
    return {"apiVersion": API, "kind": KIND, "metadata": metadata, "spec": spec}


def uninstall(**pod: Any) -> dict[str, Any]:
    metadata = {"name": "uninstall", "annotations": {"helm.sh/hook": "pre-delete"}}
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "lab.invalid/x:1"}], **pod}}
    spec = {"activeDeadlineSeconds": 3 if pod else 600, "template": template}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


@pytest.mark.parametrize("engine", ["embedded", pytest.param("real", marks=pytest.mark.long)])
def test_a_hook_that_fails_blocks_the_deletion_and_its_finalizers_are_no_difference(
    engine: str, real_labs: Callable[..., RealLab], tmp_path: Path
) -> None:
    lab = real_labs(engine=engine)
    lab.apply(*STAGES)
    kube, settings = lab.context.kube(), lab.context.platform.gitops
    url = settings.mirrored(settings.repository)

    def push(name: str, **files: Any) -> None:
        def write(root: Path) -> None:
            for path, content in files.items():
                file = root / "hooks" / path.replace("_", "/")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.with_suffix(".yaml").write_text(yaml.safe_dump(content))

        tree.push(url, tmp_path / name, write)

    def live(name: str) -> dict[str, Any]:
        return kube.find(API, KIND, name, NAMESPACE) or {"metadata": {}}

    def refreshed(name: str) -> bool:
        annotations = live(name)["metadata"].get("annotations") or {}
        return "argocd.argoproj.io/refresh" not in annotations

    def state(name: str) -> str:
        return str(((live(name).get("status") or {}).get("sync") or {}).get("status", ""))

    settings_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "1"}}
    child = application(url, "hooks/child", CASCADE)
    push("1", parent_child=child, child_map=settings_map, child_job=uninstall(nodeSelector={"there": "is-none"}))
    kube.apply(application(url, "hooks/parent"))
    until(lambda: set(live("child")["metadata"].get("finalizers") or ()) == WITH_HOOK, bool, seconds=300)
    until(lambda: (state("child"), state("parent")) == ("Synced", "Synced"), bool, seconds=300)
    refresh = {"metadata": {"annotations": {"argocd.argoproj.io/refresh": "hard"}}}
    kube.patch(API, KIND, "parent", NAMESPACE, body=refresh)
    until(lambda: refreshed("parent"), bool, seconds=120)
    assert state("parent") == "Synced"
    assert set(live("child")["metadata"]["finalizers"]) == WITH_HOOK

    uid = live("child")["metadata"]["uid"]
    kube.delete(API, KIND, "child", NAMESPACE)
    until(lambda: str(live("child").get("status")), lambda text: FAILED in text, seconds=300)
    assert kube.find("v1", "ConfigMap", "settings", "default")
    push("2", child_job=uninstall())
    until(lambda: live("child")["metadata"].get("uid") != uid, bool, seconds=300)
