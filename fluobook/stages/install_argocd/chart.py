"""The chart of Argo CD: its source, and its rendered objects with the hooks apart."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fluobook import gitops
from fluobook.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from fluobook.clients.kube import Kube
    from fluobook.gitops import ChartSource
    from fluobook.params import Platform

    Obj = dict[str, Any]

APPLICATION = "argocd"
"""The Application in the tree with which Argo CD manages itself."""
HOOK, WEIGHT = "helm.sh/hook", "helm.sh/hook-weight"
BEFORE, AFTER = "pre-install", "post-install"


@dataclass(frozen=True)
class Chart:
    """Source and values of the chart.

    Args:
        source: as the phase sees it, mirrors included.
        digest: a short hash of everything except the mirrors.
    """

    source: ChartSource = field(repr=False)
    digest: str

    @property
    def title(self) -> str:
        """Chart and version: "argo-cd 10.1.1"."""
        return f"{self.source.chart} {self.source.version}"


@dataclass(frozen=True)
class Rendered:
    """The rendered chart: hooks before, the objects, hooks after, each in the order in which they are applied."""

    before: tuple[Obj, ...]
    objects: tuple[Obj, ...]
    after: tuple[Obj, ...]


def chart_of(platform: Platform, root: Path) -> Chart:
    """The chart that the tree's Application names."""
    tree = gitops.read(root, platform.gitops.path)
    source = gitops.chart_source(gitops.for_phase(platform, tree), APPLICATION)
    repo = tree.application(APPLICATION).repo
    content = [repo, source.chart, source.version, source.release, source.namespace, source.values]
    return Chart(source, hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12])


def render(kube: Kube, platform: Platform, chart: Chart) -> Rendered:
    """Render the chart as Argo CD will.

    Raises:
        OutsideError: the chart repository does not answer, or the chart rejects its values.
    """
    namespace = chart.source.namespace
    objects = [_with_namespace(kube, obj, namespace) for obj in gitops.render_chart(platform, chart.source)]
    return Rendered(
        hooks_of(objects, BEFORE), tuple(obj for obj in objects if not _hooks(obj)), hooks_of(objects, AFTER)
    )


def _with_namespace(kube: Kube, obj: Obj, namespace: str) -> Obj:
    """The object in the release's namespace, unless it names one, or its kind is not namespaced."""
    if obj["metadata"].get("namespace"):
        return obj
    try:
        namespaced = kube.transport.kind(obj["apiVersion"], obj["kind"]).namespaced
    except NotFound:
        namespaced = True
    return {**obj, "metadata": {**obj["metadata"], "namespace": namespace}} if namespaced else obj


def hooks_of(objects: Iterable[Obj], hook: str) -> tuple[Obj, ...]:
    """The objects of a hook in Helm's order: by weight; those of one weight as rendered."""
    chosen = [obj for obj in objects if hook in _hooks(obj)]
    return tuple(sorted(chosen, key=lambda obj: int(_annotations(obj).get(WEIGHT, "0"))))


def _hooks(obj: Mapping[str, Any]) -> list[str]:
    return [hook.strip() for hook in _annotations(obj).get(HOOK, "").split(",") if hook.strip()]


def _annotations(obj: Mapping[str, Any]) -> dict[str, str]:
    return obj["metadata"].get("annotations") or {}
