"""Renders charts with `helm template`, as the repo-server does; a release is never installed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

from fluobook.kubernetes import manifests, rendering

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fluobook_lab.argocd.processes import Programs, Runner
    from fluobook_lab.kube.objects import Obj


async def template(
    chart: Sequence[str],
    settings: dict[str, Any],
    *,
    release: str,
    namespace: str,
    kube_version: str,
    api_versions: Sequence[str],
    value_files: Sequence[Path],
    programs: Programs,
    runner: Runner,
) -> list[Obj]:
    """The documents of a chart.

    Args:
        chart: what names it: a folder, or a name with `--repo` and `--version`.
        settings: `spec.source.helm`.
        release: the release's name, unless the settings say another.
        namespace: of the release.
        kube_version: what the chart is told.
        api_versions: likewise.
        value_files: go under the settings' own values, in this order.
        programs: helm.
        runner: runs it.

    Raises:
        CommandError: helm refused.
    """
    command = rendering.helm_template(
        chart,
        release=settings.get("releaseName") or release,
        namespace=namespace,
        kube_version=kube_version,
        api_versions=api_versions,
        include_crds=not settings.get("skipCrds"),
        skip_tests=bool(settings.get("skipTests")),
        value_files=value_files,
        parameters=settings.get("parameters") or (),
    )
    values = settings.get("valuesObject") or yaml.safe_load(settings.get("values") or "") or {}
    name = f"helm template {chart[0]}"
    return manifests.load(await runner.run([programs.helm, *command], stdin=json.dumps(values), name=name))
