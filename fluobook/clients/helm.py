"""helm: renders charts as Argo CD does, and reads chart repositories.

Its home is below fluobook's cache folder, so the operator's repositories and plugins have no effect; values are passed
by standard input.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from fluobook.clients import answers
from fluobook.clients.https import OVERDUE, PORTS, HttpClient, Target, is_passing
from fluobook.clients.tools import find, run_tool
from fluobook.environment import cache_folder
from fluobook.errors import AccessDenied, DeadlineExceeded, NotFound, OutsideError, Rejected, ToolFailed, Unreachable
from fluobook.kubernetes import manifests, rendering

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

DEADLINE = 300.0
"""Seconds for a command that may download a chart."""
INDEX_DEADLINE = 120.0
"""Seconds for a repository's index, which may have 20 MB."""
LARGEST = 128 << 20
"""Bytes of an index or of an archive."""
REPOSITORY = "chart repository"
_SCALAR = re.compile(r"(?s)(?!(nan|-?inf)$).*")
_VERSIONS = [{"version": _SCALAR, "appVersion?": _SCALAR, "urls?": [str], "digest?": str}]


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
    deadline: float = DEADLINE,
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
        deadline: seconds for the whole of it.

    Raises:
        NotFound: the repository has no such chart or version.
        Unreachable: the repository does not answer.
        InvalidAnswer: what it answers is no index or no chart.
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
    name = f"{chart} {version} of {repo}"
    try:
        output = _helm(command, json.dumps(values), deadline)
    except DeadlineExceeded:
        message = f"{repo} did not answer completely within {deadline:g} s; could not render {chart} {version}"
        raise Unreachable(message, system="helm", code=OVERDUE, facts={"repository": repo, "url": repo}) from None
    except ToolFailed as error:
        if _REFUSES.search(error.detail):
            message = f"the chart {name} refuses its values"
            raise Rejected(message, system="helm", detail=error.detail, code=error.code) from error
        if repo.startswith(("https://", "http://")):
            _require_chart(repo, chart, version, ca_file, deadline)
        failure = _translated(error, name, repo)
        if repo.startswith("oci://") and failure.code in (error.code, answers.MALFORMED):
            _require_manifest(repo, chart, version, ca_file, deadline)
        raise failure from error
    return manifests.load(output)


def versions(
    repo: str, chart: str, *, ca_file: Path | None = None, deadline: float = INDEX_DEADLINE
) -> list[ChartVersion]:
    """The versions of a chart in an https repository, as its index lists them (newest first, by custom).

    Raises:
        Unreachable: the repository does not answer, or its certificate is not trusted.
        AccessDenied: it denies access.
        NotFound: it has no index, or no such chart; the cause names its charts.
        InvalidAnswer: what it answers is no index, or it redirects to another scheme, host or port
            (helm itself follows such redirects).
    """
    return [
        ChartVersion(str(entry["version"]), str(entry.get("appVersion") or ""), entry.get("deprecated") is True)
        for entry in entries(repo, chart, ca_file, deadline)
    ]


def entries(repo: str, chart: str, ca_file: Path | None, deadline: float) -> list[dict[str, Any]]:
    """The versions of a chart as its repository's index has them; raises as `versions` does."""
    doing = f"read the index of {answers.public_url(repo)}"
    with closing(client(repo, ca_file, deadline)) as http:
        try:
            path = f"{urlsplit(repo).path.rstrip('/')}/index.yaml"
            answer = http.send("GET", path, doing=doing, repeat_if=is_passing, largest=LARGEST)
        except NotFound as error:
            cause = f"there is no index.yaml at this address ({error.code})"
            raise _without_chart(repo, chart, cause, error.code) from None
        charts = http.read(answer, doing, {"entries": {}}, _parse_index)["entries"]
        if chart not in charts:
            names = sorted(map(str, charts))
            cause = f"it has: {', '.join(names[:30])}" + (f" and {len(names) - 30} others" if len(names) > 30 else "")  # noqa: PLR2004
            raise _without_chart(repo, chart, cause if names else "its index has no charts", "NO_CHART")
        if wrong := answers.mismatch(charts[chart], _VERSIONS, f"entries.{chart}"):
            raise http.invalid(answers.UNEXPECTED, f"is not of the expected form: {wrong}", doing, body=answer.body)
        listed: list[dict[str, Any]] = charts[chart]
        return listed


def _parse_index(body: bytes) -> Any:
    return answers.parse_yaml(body, manifests.KubernetesLoader)


def _without_chart(repo: str, chart: str, cause: str, code: str) -> NotFound:
    facts = {"repository": answers.public_url(repo)}
    return NotFound(f"{repo} has no chart {chart}", system=REPOSITORY, code=code, cause=cause, facts=facts)


def client(url: str, ca_file: Path | None, deadline: float, *, secrets: Sequence[str] = ()) -> HttpClient:
    """The client for the server of a URL.

    Raises:
        Rejected: it is no http(s) URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in PORTS or not parts.hostname:
        raise Rejected(f"{url} is not an https chart repository", system=REPOSITORY, remedy="correct its repoURL")
    port, file = parts.port or PORTS[parts.scheme], str(ca_file) if ca_file else None
    facts = {"repository": answers.public_url(url), "host": parts.hostname}
    target = Target(parts.hostname, port, ca_file=file, scheme=parts.scheme)
    return HttpClient(
        target, system=REPOSITORY, name="the chart repository", facts=facts, deadline=deadline, secrets=secrets
    )


def _require_chart(repo: str, chart: str, version: str, ca_file: Path | None, deadline: float) -> None:
    """Read the index and the archive as helm does, for what helm's exit code 1 does not say.

    Raises:
        OutsideError: one of them cannot be read, or the chart is not in the index.
    """
    try:
        listed = entries(repo, chart, ca_file, deadline)
    except NotFound as error:
        raise NotFound(
            f"there is no {chart} {version} of {repo}", system="helm", code=error.code, cause=error.cause
        ) from None
    entry = next((e for e in listed if str(e["version"]).removeprefix("v") == version.removeprefix("v")), None)
    if entry is None:
        message = f"there is no {chart} {version} of {repo}"
        newest = ", ".join(str(entry["version"]) for entry in listed[:5])
        raise NotFound(message, system="helm", code="NO_CHART", cause=f"its index lists {newest or 'no version'}")
    doing = f"download {chart} {version}"
    url = urljoin(f"{repo.rstrip('/')}/", (entry.get("urls") or [""])[0])
    with closing(client(url, ca_file, deadline)) as http, suppress(_Redirected):
        parts = urlsplit(url)
        try:
            answer = http.send(
                "GET", parts.path + (f"?{parts.query}" if parts.query else ""), doing=doing, largest=LARGEST
            )
        except OutsideError as error:
            if error.code == answers.REDIRECT:
                raise _Redirected from None  # helm follows it; archives are often kept elsewhere
            raise
        try:
            gzip.decompress(answer.body)
        except EOFError:
            raise http.invalid(answers.TRUNCATED, "is incomplete", doing, body=answer.body) from None
        except (OSError, zlib.error):
            raise http.unparsable(answer.body, doing, ValueError("it is no gzip archive")) from None


def _require_manifest(repo: str, chart: str, version: str, ca_file: Path | None, deadline: float) -> None:
    """Read the manifest of a chart in a registry, for what helm's text does not say.

    Raises:
        InvalidAnswer: it is no manifest.
    """
    parts = urlsplit(repo)
    with closing(client(f"https://{parts.netloc}", ca_file, deadline)) as http, suppress(AccessDenied):
        path = f"/v2{parts.path.rstrip('/')}/{chart}/manifests/{version}"
        kinds = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json"
        doing, shape = f"read the manifest of {chart} {version}", {"schemaVersion": int}
        http.json("GET", path, doing=doing, shape=shape, headers={"Accept": kinds}, largest=LARGEST)


class _Redirected(Exception):
    """The archive is on another host."""


def _helm(arguments: list[str], stdin: str, deadline: float) -> str:
    home = cache_folder() / "helm"
    env: dict[str, str | None] = {**rendering.helm_environment(home), "HELM_PLUGINS": str(home / "plugins")}
    env |= {"KUBECONFIG": None, "HELM_NAMESPACE": None}
    command: list[str | Path] = [find("helm").path, *arguments]
    return run_tool("helm", command, stdin=stdin, env=env, deadline=deadline).stdout


_REFUSES = re.compile(r"(?i)execution error|values don't meet|schema|parse error|kubeversion")
"""What helm writes when the chart, and not its repository, is the reason."""
_MESSAGES = {"404": "there is no {name}", "NO_CHART": "there is no {name}"}


def _translated(error: ToolFailed, name: str, repo: str) -> OutsideError:
    """The error for helm's answer, whose exit code is always 1; unchanged if its text is not known."""
    detail = answers.without_credentials(error.detail)
    code, kind = answers.tool_failure(detail)
    if not code:
        return error
    message = _MESSAGES.get(code, "the repository of {name} does not answer as it should").format(name=name)
    facts = {"repository": answers.public_url(repo), "url": answers.public_url(repo)}
    return kind(message, system="helm", detail=detail, code=code, facts=facts)
