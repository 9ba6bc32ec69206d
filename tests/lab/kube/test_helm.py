"""The real helm against the lab's API."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.lab


@pytest.fixture
def chart(tmp_path: Path, deployment: dict[str, Any]) -> Path:
    folder = tmp_path / "demo"
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text("apiVersion: v2\nname: demo\nversion: 0.1.0\n")
    (folder / "values.yaml").write_text("replicas: 1\n")
    del deployment["metadata"]["namespace"]
    deployment["spec"]["replicas"] = "REPLICAS"
    text = yaml.safe_dump(deployment).replace("REPLICAS", "{{ .Values.replicas }}")
    (folder / "templates" / "web.yaml").write_text(text)
    return folder


def test_a_chart_is_installed_upgraded_rolled_back_and_removed(
    kubernetes: Callable[..., Any], nodes: Any, cilium: dict[str, Any], chart: Path
) -> None:
    rig = kubernetes(nodes=nodes)
    rig.kube.apply(cilium)
    where = ("demo", "-n", "demo")
    rig.run("helm", "install", *where[:1], str(chart), *where[1:], "--create-namespace", "--wait", "--timeout", "50s")
    rig.run("helm", "upgrade", *where[:1], str(chart), *where[1:], "--set", "replicas=2")
    assert rig.kube.get("apps/v1", "Deployment", "web", "demo")["spec"]["replicas"] == 2
    rig.run("helm", "rollback", "demo", "1", "-n", "demo")
    assert rig.kube.get("apps/v1", "Deployment", "web", "demo")["spec"]["replicas"] == 1
    assert len(json.loads(rig.run("helm", "history", *where, "-o", "json"))) == 3
    rig.run("helm", "uninstall", *where)
    assert rig.kube.find("apps/v1", "Deployment", "web", "demo") is None


def test_a_template_asks_the_cluster_for_its_versions(kubernetes: Callable[..., Any], chart: Path) -> None:
    rig = kubernetes(controllers=False)
    (chart / "templates" / "version.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: version}\n"
        "data: {version: '{{ .Capabilities.KubeVersion.Version }}', "
        "apps: '{{ .Capabilities.APIVersions.Has \"apps/v1/Deployment\" }}'}\n"
    )
    rig.run("helm", "install", "demo", str(chart))
    data = rig.kube.get("v1", "ConfigMap", "version", "default")["data"]
    assert data == {"version": rig.lab.api.version, "apps": "true"}
