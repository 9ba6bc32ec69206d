"""helm: renders charts as Argo CD will, reads chart repositories, and installs the one release that Argo CD cannot.

fluobook's helm has a home of its own below the cache folder, so the operator's repositories and plugins neither help
nor hinder it; values travel by standard input.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import requests
import yaml

from fluobook.clients import payload
from fluobook.clients.run_tool import run_tool
from fluobook.clients.tools import find
from fluobook.errors import NotFound, OutsideError, Rejected, ToolFailed, Unreachable
from fluobook.kubernetes import manifests, rendering

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

DEADLINE = 300.0
"""Seconds for what may have to download a chart."""
CONNECT, READ = 10.0, 60.0


@dataclass(frozen=True)
class Release:
    """A Helm release as the cluster remembers it; `values` are those the user gave, not the chart's own."""

    name: str
    namespace: str
    revision: int
    status: str
    chart: str
    version: str
    values: dict[str, Any] = field(repr=False)

    @property
    def deployed(self) -> bool:
        """Whether the last operation on it came to its end."""
        return self.status == "deployed"

    @property
    def interrupted(self) -> bool:
        """Whether an operation is under way, or was killed; helm refuses every other until that is cleared."""
        return self.status.startswith("pending-")

    def is_at(self, chart: str, version: str, values: Mapping[str, Any]) -> bool:
        """Whether an upgrade to this chart, version and values would change nothing."""
        same = self.version.removeprefix("v") == version.removeprefix("v")
        return self.deployed and self.chart == chart and same and self.values == values


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
        values: what goes over the chart's own values.
        kube_version: the Kubernetes version that the chart is told ("1.35.4").
        api_versions: APIs that the chart is told to be there ("monitoring.coreos.com/v1").
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


def upgrade(
    release: str,
    chart: str,
    *,
    repo: str,
    version: str,
    namespace: str,
    values: Mapping[str, Any],
    kubeconfig: Path,
    ca_file: Path | None = None,
    deadline: float = DEADLINE,
) -> Release:
    """Install a release, or bring it to another version or other values; waits for its hooks, not for its workloads.

    Args:
        release: its name.
        chart: as in `template`, like `repo`, `version`, `values` and `ca_file`.
        repo: the chart repository.
        version: the chart's exact version.
        namespace: an existing one.
        values: all of the user's values; earlier ones are forgotten.
        kubeconfig: how to reach the cluster.
        ca_file: for the repository.
        deadline: seconds for all of it.

    Returns:
        the release as it is now.

    Raises:
        NotFound, Unreachable, Rejected, ToolFailed: as in `template`.
        DeadlineExceeded: it took longer.
    """
    flags = ["--install", "--reset-values", "--values", "-", "--timeout", f"{int(deadline)}s", "--output", "json"]
    source = rendering.chart_arguments(chart, repo, version, ca_file)
    command = ["upgrade", release, *source, *flags, *_cluster(kubeconfig, namespace)]
    told = _helm(command, stdin=json.dumps(values), what=f"{chart} {version} of {repo}", deadline=deadline + 30)
    return _release(json.loads(told))


def status(release: str, *, namespace: str, kubeconfig: Path) -> Release | None:
    """The release as the cluster remembers it, or None if there is none.

    Raises:
        Unreachable: the cluster does not answer.
        ToolFailed: helm failed otherwise.
    """
    try:
        told = _helm(["status", release, "--output", "json", *_cluster(kubeconfig, namespace)], what=release)
        chart = _helm(["get", "metadata", release, "--output", "json", *_cluster(kubeconfig, namespace)], what=release)
    except NotFound:
        return None
    return _release(json.loads(told), json.loads(chart))


def unlock(release: Release, *, kubeconfig: Path) -> None:
    """Clear what a killed helm left behind, so that the release can be upgraded again; its objects stay untouched.

    Only for a caller that knows that nobody else is at work on the cluster. Does nothing unless the release is
    `interrupted`.

    Raises:
        ToolFailed: kubectl failed.
    """
    if not release.interrupted:
        return
    secret = f"sh.helm.release.v1.{release.name}.v{release.revision}"
    command: list[str | Path] = [find("kubectl").path, "delete", "secret", secret, "--ignore-not-found"]
    run_tool("kubectl", [*command, *_cluster(kubeconfig, release.namespace)], deadline=DEADLINE)


def versions(repo: str, chart: str, *, ca_file: Path | None = None) -> list[ChartVersion]:
    """The versions of a chart in an https repository, as its index lists them (newest first, by custom).

    Raises:
        Unreachable: the repository does not answer, or its certificate is not trusted.
        NotFound: it has no index, or no such chart in it; the charts that it has are named.
        Rejected: its index is not one.
    """
    url = f"{repo.rstrip('/')}/index.yaml"
    try:
        answer = requests.get(url, timeout=(CONNECT, READ), verify=str(ca_file) if ca_file else True)
        entries = yaml.load(answer.text, Loader=manifests.KubernetesLoader)["entries"] if answer.ok else {}  # noqa: S506
    except requests.RequestException as error:
        raise Unreachable(
            f"{repo} does not answer", system="chart repository", detail=str(error),
            remedy="check the network, or set platform.gitops.mirrors",
        ) from error  # fmt: skip
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise Rejected(
            f"{url} is no chart index", system="chart repository", remedy="check the repository's URL"
        ) from error
    if not answer.ok or chart not in entries:
        has = ", ".join(sorted(entries)) or f"{answer.status_code} {answer.reason}"
        raise NotFound(
            f"{repo} has no chart {chart}",
            system="chart repository",
            code=str(answer.status_code),
            cause=f"it has: {has}",
            remedy="correct repoURL and chart in the application.yaml",
        )
    return [
        ChartVersion(str(entry["version"]), str(entry.get("appVersion", "")), bool(entry.get("deprecated")))
        for entry in entries[chart]
    ]


def _cluster(kubeconfig: Path, namespace: str) -> list[str]:
    return ["--kubeconfig", str(kubeconfig), "--namespace", namespace]


def _helm(arguments: list[str], *, what: str, stdin: str = "", deadline: float = DEADLINE) -> str:
    home = payload.cache_folder() / "helm"
    env: dict[str, str | None] = {**rendering.helm_environment(home), "HELM_PLUGINS": str(home / "plugins")}
    env |= {"KUBECONFIG": None, "HELM_NAMESPACE": None}
    command: list[str | Path] = [find("helm").path, *arguments]
    try:
        return run_tool("helm", command, stdin=stdin, env=env, deadline=deadline).stdout
    except ToolFailed as error:
        raise _explained(error, what) from error


def _release(told: dict[str, Any], metadata: dict[str, Any] | None = None) -> Release:
    """From `helm status` or `helm upgrade`; which of both carries the chart depends on helm's version."""
    chart = (told.get("chart") or {}).get("metadata") or {}
    chart = chart or {"name": (metadata or {}).get("chart", ""), "version": (metadata or {}).get("version", "")}
    return Release(
        name=told["name"],
        namespace=told["namespace"],
        revision=int(told["version"]),
        status=told["info"]["status"],
        chart=chart["name"],
        version=chart["version"],
        values=told.get("config") or {},
    )


MEANINGS: tuple[tuple[tuple[str, ...], type[OutsideError], str, str, str], ...] = (
    (("release: not found",), NotFound, "there is no release {what}", "", ""),
    (
        ("another operation",),
        ToolFailed,
        "{what} cannot be installed: an operation on this release is under way, or was killed",
        "helm keeps the release locked in a Secret sh.helm.release.v1.*",
        "run the stage again: it clears what a killed run left behind",
    ),
    (
        ("kubernetes cluster unreachable",),
        Unreachable,
        "helm does not reach the cluster",
        "",
        "run stage 3 again, or `fluobook doctor`",
    ),
    (
        ("not a valid chart repository", "dial tcp", "certificate"),
        Unreachable,
        "the repository of {what} does not answer",
        "",
        "check the network, or set platform.gitops.mirrors",
    ),
    (
        ("not found in", "no chart version found", "404"),
        NotFound,
        "there is no {what}",
        "",
        "correct targetRevision and chart in its application.yaml",
    ),
    (
        ("execution error", "schema", "parse error", "kubeversion"),
        Rejected,
        "the chart {what} refuses its values",
        "",
        "correct helm.valuesObject in its application.yaml",
    ),
)
"""helm's exit code is always 1; its words tell: (any of these words, error, message, cause, remedy)."""


def _explained(error: ToolFailed, what: str) -> OutsideError:
    """What helm's words mean, as an error of ours; the error itself where they are new."""
    said = error.detail.lower()
    for words, kind, message, cause, remedy in MEANINGS:
        if any(word in said for word in words):
            text = message.format(what=what)
            return kind(text, system="helm", detail=error.detail, code=error.code, cause=cause, remedy=remedy)
    return error
