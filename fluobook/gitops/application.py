"""An Argo CD Application, as far as fluobook needs to know it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fluobook.gitops.documents import Misplaced
from fluobook.gitops.phase import ANNOTATION, PhaseValue, phase_values

if TYPE_CHECKING:
    from pathlib import Path

    from fluobook.gitops.documents import Document

WAVE = "argocd.argoproj.io/sync-wave"
FINALIZER = "resources-finalizer.argocd.argoproj.io"


@dataclass(frozen=True)
class Application:
    """One Application: where it comes from, where it goes, and when.

    `chart` is "" for a git source and `path` is "" for a chart; `version` is targetRevision in either case.
    """

    name: str
    project: str
    wave: int
    repo: str
    version: str
    chart: str
    path: str
    namespace: str
    release: str
    values: dict[str, Any] = field(repr=False)
    kustomize: dict[str, Any] = field(repr=False)
    sync_options: tuple[str, ...]
    prune: bool
    finalizer: bool
    phase_values: tuple[PhaseValue, ...]
    document: Document = field(repr=False)

    @property
    def file(self) -> Path:
        """The one file in which it stands."""
        return self.document.file

    @property
    def line(self) -> int:
        """The line of its name."""
        return self.document.line("metadata", "name")

    @property
    def source(self) -> str:
        """Chart or path with its version, for a person: "cilium 1.20.2"."""
        return f"{self.chart or self.path} {self.version}"


@dataclass(frozen=True)
class ChartSource:
    """What helm needs in order to render exactly what Argo CD will."""

    repo: str
    chart: str
    version: str
    release: str
    namespace: str
    values: dict[str, Any] = field(repr=False)


def _wave(document: Document) -> int:
    text = str(document.annotations.get(WAVE, "0"))
    if not text.lstrip("-").isdigit():
        line = document.line("metadata", "annotations", WAVE)
        raise Misplaced(f"has the wave {text}", file=document.file, line=line, system="argocd", remedy="a whole number")
    return int(text)


def parse(document: Document) -> Application:
    """The Application in a document.

    Raises:
        Misplaced: something is missing that Argo CD needs; names file and line.
    """
    try:
        spec, source = document.data["spec"], document.data["spec"]["source"]
        helm = source.get("helm") or {}
        automated = (spec.get("syncPolicy") or {}).get("automated") or {}
        return Application(
            name=document.name,
            project=spec["project"],
            wave=_wave(document),
            repo=source["repoURL"],
            version=str(source["targetRevision"]),
            chart=source.get("chart", ""),
            path=source.get("path", ""),
            namespace=spec["destination"].get("namespace", ""),
            release=helm.get("releaseName", document.name),
            values=helm.get("valuesObject") or {},
            kustomize=source.get("kustomize") or {},
            sync_options=tuple((spec.get("syncPolicy") or {}).get("syncOptions") or ()),
            prune=bool(automated.get("prune")),
            finalizer=any(name.startswith(FINALIZER) for name in document.data["metadata"].get("finalizers") or ()),
            phase_values=phase_values(document.annotations.get(ANNOTATION, "")),
            document=document,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Misplaced(
            f"is no Application of ours: {error!r}",
            file=document.file,
            line=document.line("spec"),
            system="argocd",
            remedy="it needs project, source (repoURL, targetRevision, chart or path), destination and an integer wave",
        ) from error
