"""The chart of Argo CD: what it is called, and what it comes to, hooks apart."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fluobook import gitops
from fluobook.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fluobook.clients.kube import Kube
    from fluobook.context import RunContext
    from fluobook.gitops import ChartSource

    Obj = dict[str, Any]

APPLICATION = "argocd"
"""The Application in the tree that Argo CD manages itself with."""
HOOK, WEIGHT = "helm.sh/hook", "helm.sh/hook-weight"
BEFORE, AFTER = "pre-install", "post-install"


@dataclass(frozen=True)
class Chart:
    """Where the chart comes from, and what it is given.

    Args:
        source: as the phase sees it, mirrors included.
        digest: a short name of all of it but the mirrors.
    """

    source: ChartSource = field(repr=False)
    digest: str

    @property
    def title(self) -> str:
        """Chart and version: "argo-cd 10.1.1"."""
        return f"{self.source.chart} {self.source.version}"


@dataclass(frozen=True)
class Rendered:
    """What the chart comes to: hooks before, the objects, hooks after, each in the order to be applied."""

    before: tuple[Obj, ...]
    objects: tuple[Obj, ...]
    after: tuple[Obj, ...]


def chart_of(context: RunContext) -> Chart:
    """The chart that the tree's Application asks for."""
    tree = gitops.read(context.root, context.platform.gitops.path)
    source = gitops.chart_source(gitops.for_phase(context.platform, tree), APPLICATION)
    told = [tree.application(APPLICATION).repo, source.chart, source.version, source.release, source.namespace]
    content = json.dumps([*told, source.values], sort_keys=True)
    return Chart(source, hashlib.sha256(content.encode()).hexdigest()[:12])


def render(context: RunContext, kube: Kube, chart: Chart) -> Rendered:
    """Render the chart as Argo CD will.

    Raises:
        OutsideError: the chart repository does not answer, or the chart refuses its values.
    """
    placed = [_placed(kube, obj, chart.source.namespace) for obj in gitops.render_chart(context.platform, chart.source)]
    plain = tuple(obj for obj in placed if not _hooks(obj))
    return Rendered(_hooked(placed, BEFORE), plain, _hooked(placed, AFTER))


def _placed(kube: Kube, obj: Obj, namespace: str) -> Obj:
    """The object in the release's namespace, unless it names one, or lives in none."""
    if obj["metadata"].get("namespace"):
        return obj
    try:
        namespaced = kube.transport.kind(obj["apiVersion"], obj["kind"]).namespaced
    except NotFound:
        namespaced = True
    return {**obj, "metadata": {**obj["metadata"], "namespace": namespace}} if namespaced else obj


def _hooked(objects: Iterable[Obj], hook: str) -> tuple[Obj, ...]:
    """The objects of a hook in Helm's order: by weight; those of one weight as rendered."""
    found = [obj for obj in objects if hook in _hooks(obj)]
    return tuple(sorted(found, key=lambda obj: int(_annotations(obj).get(WEIGHT, "0"))))


def _hooks(obj: Mapping[str, Any]) -> list[str]:
    return [word.strip() for word in _annotations(obj).get(HOOK, "").split(",") if word.strip()]


def _annotations(obj: Mapping[str, Any]) -> dict[str, str]:
    return obj["metadata"].get("annotations") or {}
