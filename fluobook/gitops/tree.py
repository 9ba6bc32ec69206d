"""The platform tree as the root Application sees it: projects, Applications, and what each of them deploys."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluobook.clients import helm
from fluobook.errors import NotFound
from fluobook.gitops import kustomization
from fluobook.gitops.application import Application, ChartSource, parse

if TYPE_CHECKING:
    from fluobook.gitops.documents import Document
    from fluobook.params import Platform

ROOT_PATH = "cluster-gitops/bootstrap"
NEEDED_BEFORE = "fluobook/needed-before"


@dataclass(frozen=True)
class Tree:
    """What the root Application deploys.

    `root` is the repository, `path` the folder of the root Application in it, `documents` its objects.
    """

    root: Path
    path: str
    documents: tuple[Document, ...]

    @cached_property
    def applications(self) -> tuple[Application, ...]:
        """Every Application, in the order in which Argo CD syncs them: by wave, then by name."""
        found = [parse(document) for document in self.documents if document.kind == "Application"]
        return tuple(sorted(found, key=lambda application: (application.wave, application.name)))

    @cached_property
    def projects(self) -> tuple[Document, ...]:
        """Every AppProject."""
        return tuple(document for document in self.documents if document.kind == "AppProject")

    @property
    def top(self) -> Path:
        """The folder of the whole tree, which the root path begins with."""
        return self.root / Path(self.path).parts[0]

    def application(self, name: str) -> Application:
        """The Application of that name.

        Raises:
            NotFound: there is none.
        """
        for application in self.applications:
            if application.name == name:
                return application
        raise NotFound(
            f"there is no Application {name} in {self.path}",
            system="gitops",
            remedy="list its file in a kustomization below the root path",
        )

    def is_ours(self, application: Application) -> bool:
        """Whether the Application deploys a folder of this very repository."""
        return bool(application.path) and (self.root / application.path / kustomization.NAME).exists()

    def deployed_by(self, application: Application) -> list[Document]:
        """The objects that an Application on a folder of ours deploys, as they stand in their files."""
        return kustomization.resources(self.root / application.path) if self.is_ours(application) else []


def read(root: Path, path: str = ROOT_PATH) -> Tree:
    """The tree of a repository.

    Args:
        root: the repository.
        path: the folder of the root Application (`platform.gitops.path`).

    Raises:
        Rejected: a file is missing, or is not what it should be; names file and line.
    """
    return Tree(root, path, tuple(kustomization.resources(root / path)))


def waves(tree: Tree) -> dict[int, tuple[Application, ...]]:
    """The Applications of each wave, the first wave first."""
    numbers = sorted({application.wave for application in tree.applications})
    return {wave: tuple(one for one in tree.applications if one.wave == wave) for wave in numbers}


def chart_source(tree: Tree, name: str) -> ChartSource:
    """What helm needs to render the chart of an Application; take the tree from `for_phase` to render as Argo CD will.

    Raises:
        NotFound: there is no such Application, or it has no chart.
    """
    one = tree.application(name)
    if not one.chart:
        raise NotFound(f"Application {name} has no chart", system="gitops", remedy=f"look at {one.file}")
    return ChartSource(one.repo, one.chart, one.version, one.release, one.namespace, one.values)


def render_chart(platform: Platform, source: ChartSource) -> list[dict[str, Any]]:
    """The objects of a chart, for the platform's Kubernetes version.

    Raises:
        OutsideError: the chart repository does not answer, or the chart refuses its values.
    """
    return helm.template(
        source.chart,
        repo=source.repo,
        version=source.version,
        release=source.release,
        namespace=source.namespace,
        values=source.values,
        kube_version=platform.versions.kubernetes,
        ca_file=platform.ca_file(source.repo),
    )


def namespaces_needed_before_argocd(tree: Tree) -> list[dict[str, Any]]:
    """The namespaces that must exist before Argo CD does: the manifests that say so themselves, in the tree's order."""
    ours = [document for application in tree.applications for document in tree.deployed_by(application)]
    return [
        document.data
        for document in ours
        if document.kind == "Namespace" and document.annotations.get(NEEDED_BEFORE) == "argocd"
    ]
