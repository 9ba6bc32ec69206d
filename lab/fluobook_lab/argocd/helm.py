"""Renders charts with `helm template`, as the repo-server does; a release is never installed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

from fluobook.machine import manifests

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fluobook_lab.argocd.processes import Programs, Runner
    from fluobook_lab.kube.objects import Obj


async def template(
    chart: Sequence[str | Path],
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
    flags: list[str | Path] = ["--namespace", namespace, "--kube-version", kube_version]
    flags += [f"--api-versions={one}" for one in api_versions]
    flags += [] if settings.get("skipCrds") else ["--include-crds"]
    flags += ["--skip-tests"] if settings.get("skipTests") else []
    for file in value_files:
        flags += ["--values", file]
    for parameter in settings.get("parameters") or ():
        flags += [
            "--set-string" if parameter.get("forceString") else "--set",
            f"{parameter['name']}={parameter['value']}",
        ]
    values = settings.get("valuesObject") or yaml.safe_load(settings.get("values") or "") or {}
    command = [programs.helm, "template", settings.get("releaseName") or release, *chart, *flags, "--values", "-"]
    return manifests.load(await runner.run(command, stdin=json.dumps(values), name=f"helm template {chart[0]}"))
