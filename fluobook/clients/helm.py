"""helm: renders charts as Argo CD does, and reads chart repositories.

Its home is below fluobook's cache folder, so the operator's repositories and plugins have no effect; values are passed
by standard input.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import requests
import yaml

from fluobook.clients.tools import find, run_tool
from fluobook.errors import NotFound, OutsideError, Rejected, ToolFailed, Unreachable
from fluobook.kubernetes import manifests, rendering
from fluobook.params import cache_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

DEADLINE = 300.0
"""Seconds for a command that may download a chart."""
CONNECT, READ = 10.0, 60.0
REPOSITORY = "chart repository"


@dataclass(frozen=True)
class ChartVersion:
    """One version of a chart in a repository's index."""

    version: str
    app_version: str
    deprecated: bool


def template(
    chart: str,
    *,
    repo: str,
    version: str,
    release: str,
    namespace: str,
    values: Mapping[str, Any],
    kube_version: str,
    api_versions: Sequence[str] = (),
    include_crds: bool = True,
    ca_file: Path | None = None,
) -> list[manifests.Manifest]:
    """The manifests of a chart, rendered without a cluster.

    Args:
        chart: its name in the repository.
        repo: the repository: https://…, or oci://….
        version: its exact version.
        release: the release's name.
        namespace: the release's namespace.
        values: values that replace the chart's own.
        kube_version: the Kubernetes version that the chart sees ("1.35.4").
        api_versions: APIs that the chart sees ("monitoring.coreos.com/v1").
        include_crds: with the chart's crds/ folder, as Argo CD does.
        ca_file: CA certificates for the repository, instead of the system's.

    Raises:
        NotFound: the repository has no such chart or version.
        Unreachable: the repository does not answer.
        Rejected: the chart refuses these values.
        ToolFailed: helm failed otherwise.
    """
    command = rendering.helm_template(
        rendering.chart_arguments(chart, repo, version, ca_file),
        release=release,
        namespace=namespace,
        kube_version=kube_version,
        api_versions=api_versions,
        include_crds=include_crds,
    )
    return manifests.load(_helm(command, stdin=json.dumps(values), what=f"{chart} {version} of {repo}"))


def versions(repo: str, chart: str, *, ca_file: Path | None = None) -> list[ChartVersion]:
    """The versions of a chart in an https repository, as its index lists them (newest first, by custom).

    Raises:
        Unreachable: the repository does not answer, or its certificate is not trusted.
        NotFound: it has no index, or no such chart; the cause names its charts.
        Rejected: its index is not valid.
    """
    url = f"{repo.rstrip('/')}/index.yaml"
    try:
        answer = requests.get(url, timeout=(CONNECT, READ), verify=str(ca_file) if ca_file else True)
        entries = yaml.load(answer.text, Loader=manifests.KubernetesLoader)["entries"] if answer.ok else {}  # noqa: S506
    except requests.RequestException as error:
        raise Unreachable(
            f"{repo} does not answer", system=REPOSITORY, detail=str(error), facts={"repository": repo}
        ) from error
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise Rejected(
            f"{url} is not a chart index", system=REPOSITORY, remedy="correct the repository's URL"
        ) from error
    if not answer.ok or chart not in entries:
        has = ", ".join(sorted(entries)) or f"{answer.status_code} {answer.reason}"
        raise NotFound(
            f"{repo} has no chart {chart}",
            system=REPOSITORY,
            code=str(answer.status_code),
            cause=f"it has: {has}",
        )
    return [
        ChartVersion(str(entry["version"]), str(entry.get("appVersion", "")), bool(entry.get("deprecated")))
        for entry in entries[chart]
    ]


def _helm(arguments: list[str], *, what: str, stdin: str = "") -> str:
    home = cache_folder() / "helm"
    env: dict[str, str | None] = {**rendering.helm_environment(home), "HELM_PLUGINS": str(home / "plugins")}
    env |= {"KUBECONFIG": None, "HELM_NAMESPACE": None}
    command: list[str | Path] = [find("helm").path, *arguments]
    try:
        return run_tool("helm", command, stdin=stdin, env=env, deadline=DEADLINE).stdout
    except ToolFailed as error:
        raise _translated(error, what) from error


KINDS: tuple[tuple[tuple[str, ...], type[OutsideError], str], ...] = (
    (
        ("not a valid chart repository", "dial tcp", "certificate"),
        Unreachable,
        "the repository of {what} does not answer",
    ),
    (("not found in", "no chart version found", "404"), NotFound, "there is no {what}"),
    (("execution error", "schema", "parse error", "kubeversion"), Rejected, "the chart {what} refuses its values"),
)
"""helm's exit code is always 1, so its text decides: any of these texts, the error, its message."""


def _translated(error: ToolFailed, what: str) -> OutsideError:
    """The error for helm's answer; unchanged if its text is not known."""
    answer = error.detail.lower()
    for texts, kind, message in KINDS:
        if any(text in answer for text in texts):
            return kind(message.format(what=what), system="helm", detail=error.detail, code=error.code)
    return error
