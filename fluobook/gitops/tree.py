"""The platform tree as the root Application sees it: projects, Applications, and what each of them deploys."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fluobook.clients import helm
from fluobook.errors import BadFile, NotFound
from fluobook.files import parse_yaml
from fluobook.gitops import kustomization
from fluobook.gitops.documents import STRICT, Incomplete, InvalidFile, Reader, value_under
from fluobook.kubernetes.selectors import matches

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fluobook.gitops.documents import Document, Key
    from fluobook.params import Platform

ROOT_PATH = "cluster-gitops/bootstrap"
TOPS = ("cluster-gitops", "site")
"""The folders with manifests: upstream's, and the operator's own, which upstream leaves empty."""
WITHOUT_PODS = ("Namespace", "NetworkPolicy", "CiliumNetworkPolicy")
WAVE = "argocd.argoproj.io/sync-wave"
HOOK = "argocd.argoproj.io/hook"
FINALIZER = "resources-finalizer.argocd.argoproj.io"
NEEDED_BEFORE = "fluobook/needed-before"
POOL_KIND = "CiliumLoadBalancerIPPool"
DASHBOARD = "grafana_dashboard"
"""The label that Grafana's sidecar watches by default."""
PHASE_VALUES = "fluobook/phase-values"
ONLY_WITH = "fluobook/only-with"
BACKUPS = "backups"
"""What params can switch on, as `fluobook/only-with` and a phase value name it: platform.backups has a bucket."""
_T = TypeVar("_T", str, list[Any], dict[str, Any])
GONE = "which does not exist", "which has no kustomization"
"""How the finding ends about an Application whose folder is not there."""
INTEGER = re.compile(r"[-+]?[0-9]{1,9}")


@dataclass(frozen=True)
class PhaseValue:
    """A place in the tree, and the template of the value that a phase puts there.

    An Application lists them in the annotation `fluobook/phase-values`:

        - {path: /spec/source/helm/valuesObject/operator/replicas, value: "{cilium_operator_replicas}"}
        - {kind: CiliumLoadBalancerIPPool, name: mqtt, path: /spec/blocks/0/start, value: "{pool.mqtt.start}"}

    Without a kind, the path is in the Application itself; with one, in an object that the Application deploys. With
    `only_with` instead of a value, what is at the path in Git is removed unless the platform has that.
    """

    path: str
    value: str = ""
    kind: str = ""
    name: str = ""
    only_with: str = ""


@dataclass(frozen=True)
class Application:
    """An Argo CD Application: its source, its destination and its wave.

    `chart` is "" for a git source and `path` is "" for a chart; `version` is targetRevision in either case. `only_with`
    is what a platform must have for it to be deployed; "" for nothing.
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
    only_with: str
    document: Document = field(repr=False)

    @property
    def file(self) -> Path:
        """The file that has it."""
        return self.document.file

    @property
    def source(self) -> str:
        """Chart or path with its version, for a person: "cilium 1.20.2"."""
        return f"{self.chart or self.path} {self.version}"

    @classmethod
    def parse(cls, document: Document, reader: Reader = STRICT) -> Application:
        """The Application in a document.

        Raises:
            InvalidFile: something is missing that Argo CD needs; names file and line.
        """
        fields = _Fields(document, reader)
        if value_under(document.data, ("spec", "sources")):
            remedy = "write one source with valuesObject, or give each source an Application of its own"
            problem = "has several sources (spec.sources), and fluobook reads one (spec.source)"
            fields.refuse(problem, "spec", "sources", remedy=remedy)
        elif not any(value_under(document.data, ("spec", "source", key)) for key in ("chart", "path")):
            problem = "is not a valid Application: it has no source with a chart or a path"
            written = [
                key for key in ("chart", "path") if value_under(document.data, ("spec", "source", key)) is not None
            ]
            fields.refuse(problem, "spec", "source", *written[:1], kind=Incomplete)
        source, helm = ("spec", "source"), ("spec", "source", "helm")
        finalizers = fields.optional(list, "metadata", "finalizers")
        return cls(
            name=document.name,
            project=fields.required("spec", "project"),
            wave=fields.wave(),
            repo=fields.required(*source, "repoURL"),
            version=fields.required(*source, "targetRevision"),
            chart=fields.optional(str, *source, "chart"),
            path=fields.optional(str, *source, "path"),
            namespace=fields.optional(str, "spec", "destination", "namespace"),
            release=fields.optional(str, *helm, "releaseName") or document.name,
            values=fields.optional(dict, *helm, "valuesObject"),
            kustomize=fields.optional(dict, *source, "kustomize"),
            sync_options=tuple(fields.optional(list, "spec", "syncPolicy", "syncOptions")),
            prune=bool(value_under(document.data, ("spec", "syncPolicy", "automated", "prune"))),
            finalizer=any(str(name).startswith(FINALIZER) for name in finalizers),
            phase_values=fields.phase_values(),
            only_with=str(document.annotations.get(ONLY_WITH, "")),
            document=document,
        )


@dataclass(frozen=True)
class _Fields:
    """The fields of an Application; the reader refuses what is missing or invalid."""

    document: Document
    reader: Reader

    def refuse(self, problem: str, *path: Key, remedy: str = "", kind: type[InvalidFile] = InvalidFile) -> None:
        needs = "it needs project, source (repoURL, targetRevision, chart or path), destination, an integer wave"
        line = self.document.line(*path)
        error = kind(problem, file=self.document.file, line=line, system="argocd", remedy=remedy or needs)
        self.reader.refuse(error)

    def optional(self, kind: type[_T], *path: Key) -> _T:
        """The value at a path; an empty one if there is none."""
        value = value_under(self.document.data, path)
        if value is not None and not isinstance(value, kind):
            self.refuse(f"is not a valid Application: {'.'.join(map(str, path))} is {value!r}", *path)
        return value if isinstance(value, kind) else kind()

    def required(self, *path: Key) -> str:
        value = value_under(self.document.data, path)
        has_source = path[1] != "source" or value_under(self.document.data, ("spec", "source"))
        if (value in (None, "") or isinstance(value, dict | list)) and has_source:
            self.refuse(f"is not a valid Application: it has no {path[-1]}", *path)
        return "" if isinstance(value, dict | list) else str(value or "")

    def wave(self) -> int:
        text = str(self.document.annotations.get(WAVE, "0"))
        if not INTEGER.fullmatch(text):
            self.refuse(
                f"has the wave {text}", "metadata", "annotations", WAVE, remedy="a whole number", kind=Incomplete
            )
            return 0
        return int(text)

    def phase_values(self) -> tuple[PhaseValue, ...]:
        text = str(self.document.annotations.get(PHASE_VALUES, ""))
        try:
            entries = next(iter(parse_yaml(text, PHASE_VALUES)), None) or ()
            values = tuple(PhaseValue(**entry) for entry in entries)
            if all(isinstance(field, str) for value in values for field in vars(value).values()):
                return values
            problem = "a value in it is no text"
        except (BadFile, TypeError) as error:
            problem = str(error).replace("PhaseValue.__init__() ", "")
        remedy = 'write it as a list of {path: /spec/…, value: "{name}"}, with kind and name for an object'
        self.refuse(f"has invalid {PHASE_VALUES}: {problem}", "metadata", "annotations", PHASE_VALUES, remedy=remedy)
        return ()


@dataclass(frozen=True)
class ChartSource:
    """What helm needs in order to render exactly what Argo CD will."""

    repo: str
    chart: str
    version: str
    release: str
    namespace: str
    values: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Tree:
    """What the root Application deploys.

    `root` is the repository, `path` the folder of the root Application in it, `documents` its objects. `without` names
    the components that are left out: folders with Applications, or single Applications; `has` what the platform has of
    what Applications are `only_with`.
    """

    root: Path
    path: str
    documents: tuple[Document, ...]
    without: tuple[str, ...] = ()
    has: tuple[str, ...] = ()
    reader: Reader = field(default=STRICT, repr=False, compare=False)

    @cached_property
    def all_applications(self) -> tuple[Application, ...]:
        """Every Application, those that are left out too: by wave, then by name."""
        documents = (document for document in self.documents if document.kind == "Application")
        applications = (Application.parse(document, self.reader) for document in documents)
        return tuple(sorted(applications, key=lambda application: (application.wave, application.name)))

    @cached_property
    def components(self) -> dict[str, list[Application]]:
        """The Applications of each folder: cluster-gitops/apps/NAME, cluster-gitops/infrastructure/NAME, site/NAME."""
        components: dict[str, list[Application]] = {}
        for app in self.all_applications:
            parts = app.file.relative_to(self.root).parts
            depth = len(Path(self.path).parts) if parts[0] == TOPS[1] else 2
            if len(parts) > depth + 1:
                components.setdefault(parts[depth], []).append(app)
        return components

    @cached_property
    def left_out(self) -> tuple[Application, ...]:
        """The Applications of the components that are left out, and those that the platform has no use for."""
        apps = {app.name: [app] for app in self.all_applications}
        named = [app for name in self.without for app in self.components.get(name) or apps.get(name) or ()]
        unused = [app for app in self.all_applications if app.only_with and app.only_with not in self.has]
        return (*named, *(app for app in unused if app not in named))

    @cached_property
    def applications(self) -> tuple[Application, ...]:
        """Every Application that is deployed, in the order in which Argo CD syncs them: by wave, then by name."""
        names = {app.name for app in self.left_out}
        return tuple(app for app in self.all_applications if app.name not in names)

    @cached_property
    def dropped_namespaces(self) -> frozenset[str]:
        """The namespaces that only Applications use that are left out; neither they nor their policies are deployed."""
        kept = {name for app in self.applications for name in self._namespaces_used_by(app)}
        return frozenset(name for app in self.left_out for name in self._namespaces_used_by(app)) - kept

    @cached_property
    def dropped_pools(self) -> frozenset[str]:
        """The pools of addresses for which only Services of Applications ask that are left out."""
        gone, kept = (
            [doc for app in apps for doc in self.all_deployed_by(app)] for apps in (self.left_out, self.applications)
        )
        pools = {
            doc.name: value_under(doc.data, ("spec", "serviceSelector")) or {} for doc in kept if doc.kind == POOL_KIND
        }

        def served(objects: list[Document]) -> set[str]:
            services = [
                value_under(each.data, ("metadata", "labels")) or {} for each in objects if each.kind == "Service"
            ]
            return {
                name
                for name, selector in pools.items()
                if selector.get("matchLabels") and any(matches(selector, labels) for labels in services)
            }

        return frozenset(served(gone) - served(kept))

    def _namespaces_used_by(self, app: Application) -> set[str]:
        objects = [document for document in self.all_deployed_by(app) if document.kind not in WITHOUT_PODS]
        makes_secrets = self.is_ours(app) and bool(kustomization.generators(self.root / app.path, self.reader))
        own = {app.namespace} if objects or makes_secrets or not self.is_ours(app) else set()
        return own | {document.namespace for document in objects if document.namespace}

    @cached_property
    def projects(self) -> tuple[Document, ...]:
        """Every AppProject."""
        return tuple(document for document in self.documents if document.kind == "AppProject")

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
        """Whether the Application deploys a folder of this repository."""
        return bool(application.path) and (self.root / application.path / kustomization.NAME).exists()

    def all_deployed_by(self, application: Application) -> list[Document]:
        """As `deployed_by`, with the objects of namespaces that are dropped."""
        if not self.is_ours(application):
            return []
        if application.path not in self._built:
            self._built[application.path] = kustomization.resources(self.root / application.path, self.reader)
        return list(self._built[application.path])

    @cached_property
    def _built(self) -> dict[str, list[Document]]:
        """The objects of each folder of an Application, built once for a tree: it is the repository at one moment."""
        return {}

    def is_dropped(self, document: Document) -> bool:
        """Whether an object is a namespace that is dropped, or in one, or a pool without Services."""
        if document.kind == POOL_KIND:
            return document.name in self.dropped_pools
        name = document.name if document.kind == "Namespace" else document.namespace
        return name in self.dropped_namespaces

    def deployed_by(self, application: Application) -> list[Document]:
        """The objects that an Application deploys from a folder of this repository, as they are in their files."""
        objects = self.all_deployed_by(application)
        return [document for document in objects if not self.is_dropped(document)] if self.without else objects

    def only_left_out(self, file: Path) -> bool:
        """Whether a file is in a folder of an Application that is left out, and in none of another."""
        apps = [app for app in self.all_applications if app.path and file.is_relative_to(self.root / app.path)]
        return bool(apps) and all(app in self.left_out for app in apps)


def settings_of(platform: Platform) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """What decides which tree a platform has: path, without and has, as `read` takes them."""
    has = (BACKUPS,) if platform.backups.bucket else ()
    return platform.gitops.path, platform.gitops.without, has


def read(
    root: Path,
    path: str = ROOT_PATH,
    without: Iterable[str] = (),
    has: Iterable[str] = (),
    reader: Reader = STRICT,
) -> Tree:
    """The tree of a repository; `fluobook.gitops.of` refuses what cannot be left out.

    Args:
        root: the repository.
        path: the folder of the root Application (`platform.gitops.path`).
        without: the components that are left out (`platform.gitops.without`).
        has: what the platform has of what Applications are only deployed with.
        reader: reads the files, and handles those that are invalid.

    Raises:
        Rejected: a file is missing or invalid; names file and line.
    """
    documents = tuple(kustomization.resources(root / path, reader))
    return Tree(root, path, documents, tuple(without), tuple(has), reader)


def site_folder(root: Path, path: str) -> Path | None:
    """The operator's own folder, if the root Application is in it: what is there applies to the platform."""
    return root / path if Path(path).parts[0] == TOPS[1] else None


def waves(tree: Tree) -> dict[int, tuple[Application, ...]]:
    """The Applications of each wave, the first wave first."""
    numbers = sorted({app.wave for app in tree.applications})
    return {wave: tuple(app for app in tree.applications if app.wave == wave) for wave in numbers}


def chart_source(tree: Tree, name: str) -> ChartSource:
    """What helm needs to render the chart of an Application; take the tree from `for_phase` to render as Argo CD will.

    Raises:
        NotFound: there is no such Application, or it has no chart.
    """
    app = tree.application(name)
    if not app.chart:
        raise NotFound(f"Application {name} has no chart", system="gitops", remedy=f"check {app.file}")
    return ChartSource(app.repo, app.chart, app.version, app.release, app.namespace, app.values)


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
    """The namespaces that must exist before Argo CD does, by their annotation, in the tree's order."""
    return [
        document.data
        for app in tree.applications
        for document in tree.deployed_by(app)
        if document.kind == "Namespace" and document.annotations.get(NEEDED_BEFORE) == "argocd"
    ]
