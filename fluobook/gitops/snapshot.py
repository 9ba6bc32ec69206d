"""One repository, read once for the rules of `fluobook check`."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluobook import params
from fluobook.errors import BadFile, ParamsError, Rejected
from fluobook.files import read_text
from fluobook.gitops import documents, kustomization, metrics, reachability, root, schemas, secrets, tree
from fluobook.gitops.charts import pods_of
from fluobook.gitops.documents import Document, InvalidFile, Reader

if TYPE_CHECKING:
    from fluobook.gitops.documents import Key, Position
    from fluobook.gitops.kustomization import Generator
    from fluobook.gitops.reachability import Table
    from fluobook.gitops.secrets import EncryptedFile
    from fluobook.gitops.tree import Application, Tree
    from fluobook.params import Params, Platform

INITIAL_NAMESPACES = {"default", "kube-system", "kube-public", "kube-node-lease"}
_OF_ROOTS = ("Application", "AppProject")
_NAMES_OF_JOBS = ("VMPodScrape", "PodMonitor", "VMServiceScrape", "ServiceMonitor", "Service")


class UnsoundTable(InvalidFile):
    """A table has another shape than rules need. The rule `shape` reports it; those that need the table end."""


@dataclass(frozen=True)
class Checked:
    """A document in the form that rules can read, what in it does not match its schema, and what was emptied."""

    document: Document
    mismatches: list[schemas.Mismatch]
    emptied: list[tuple[Key, ...]]


@lru_cache(maxsize=2048)
def _checked(text: str, name: str) -> tuple[Checked, ...]:
    """The documents of a text; what many snapshots have in common is read and compared once."""
    return tuple(
        Checked(document.changed(data), mismatches, emptied)
        for document in documents.parsed(text)
        for data, mismatches, emptied in [schemas.checked(document.data, name)]
    )


def checked(file: Path) -> list[Checked]:
    """The documents of a file, compared with their schemas.

    Raises:
        BadFile: the file cannot be read.
    """
    return [replace(part, document=part.document.moved(file)) for part in _checked(read_text(file), file.name)]


class TolerantReader(Reader):
    """Reads what rules can read, and collects the rest: one invalid file hides no finding of another."""

    def read(self, file: Path) -> list[Document]:
        """The documents of a file, as rules can read them."""
        try:
            parts = checked(file)
        except BadFile as error:
            self.refuse(InvalidFile(error.problem, file=file, line=error.line, remedy=error.remedy))
            return []
        self.emptied |= {(file, part.document.line(*path)) for part in parts for path in part.emptied}
        return [part.document for part in parts]

    def parse(self, text: str, document: Document) -> list[Document]:
        """The documents in a text that is a value of a document, as rules can read them."""
        try:
            listed = _checked(text, "")
        except BadFile as error:
            self.refuse(InvalidFile(error.problem, file=document.file, line=document.line(), remedy=error.remedy))
            return []
        return [document.changed(part.document.data) for part in listed]

    def keep(self, folder: Path, objects: list[Document]) -> None:
        """Keep what kustomize made of a folder: it is built once."""
        self.built[folder] = objects

    def refuse(self, error: InvalidFile) -> None:
        """Keep what is invalid, once."""
        self.refused.setdefault(error.message, error)


@dataclass(frozen=True)
class Snapshot:
    """A repository as it is now.

    `root` is the repository, `path` the folder of the root Application in it, `without` what the params leave out,
    `has` what they have of what Applications are only deployed with.
    """

    root: Path
    path: str = tree.ROOT_PATH
    without: tuple[str, ...] = ()
    has: tuple[str, ...] = ()
    reader: Reader = field(default_factory=TolerantReader, repr=False, compare=False)

    def __str__(self) -> str:
        """The root, for a message: "cluster-gitops/bootstrap with backups without scylladb"."""
        named = " with ".join(filter(None, (self.path, ", ".join(self.has))))
        return " without ".join(filter(None, (named, ", ".join(self.without))))

    @cached_property
    def tree(self) -> Tree:
        """The tree that the root Application deploys, with the Applications that no kustomization lists."""
        listed = tree.read(self.root, self.path, self.without, self.has, self.reader)
        folders = [part.file.parent for part in kustomization.below(self.root / self.path, self.reader)]
        known = {(document.kind, document.name) for document in listed.documents}
        forgotten = tuple(
            document
            for _, document in self.forgotten
            if document.kind in _OF_ROOTS and any(map(document.file.is_relative_to, folders))
            if (document.kind, document.name) not in known
        )
        return replace(listed, documents=(*listed.documents, *forgotten))

    @property
    def applications(self) -> tuple[Application, ...]:
        """Every Application of the tree."""
        return self.tree.applications

    @cached_property
    def roots(self) -> tuple[Tree, ...]:
        """The tree of every root: bootstrap and its variants, and those that params files use."""
        folders = [folder for folder in self.kustomizations if folder.name.startswith("bootstrap")]
        paths = [folder.relative_to(self.root).as_posix() for folder in folders]
        paths += [variant.path for variant in self.variants]
        paths = [path for path in dict.fromkeys(paths) if (self.root / path / kustomization.NAME).exists()]
        return tuple(tree.read(self.root, path, reader=self.reader) for path in paths)

    @cached_property
    def variants(self) -> tuple[Snapshot, ...]:
        """The repository under each root that a params file uses; under the default root if none can be read."""
        platforms = [loaded.platform for loaded in self.params.values() if isinstance(loaded, params.Params)]
        roots = dict.fromkeys(map(tree.settings_of, platforms))
        variants = tuple(Snapshot(self.root, *settings, self.reader) for settings in roots)
        return variants or (Snapshot(self.root, reader=self.reader),)

    @property
    def top(self) -> Path:
        """Upstream's folder of the GitOps tree."""
        return self.root / tree.TOPS[0]

    @cached_property
    def all_files(self) -> tuple[Path, ...]:
        """Every file of the GitOps tree, in order; params and Talos patches of the operator are not part of it."""
        sites = [tree.site_folder(self.root, variant.path) for variant in self.variants]
        folders = [self.root / tree.TOPS[1] / "params", *(site / "talos" for site in sites if site)]
        others = [*folders, self.root / tree.TOPS[1] / "talos"]
        paths = (path for top in tree.TOPS for path in sorted((self.root / top).rglob("*")))
        return tuple(path for path in paths if path.is_file() and not any(map(path.is_relative_to, others)))

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """Every YAML file of the GitOps tree, encrypted ones too, in order."""
        return tuple(path for path in self.all_files if path.suffix in (".yaml", ".yml"))

    def contains(self, file: Path) -> bool:
        """Whether a file is part of the GitOps tree."""
        return any(file.is_relative_to(self.root / top) for top in tree.TOPS)

    @cached_property
    def own_sources(self) -> tuple[set[str], set[str]]:
        """The URLs and the revisions of this repository.

        The root replaces those in upstream's files by the platform's: a fork need not edit them.
        """
        settings = [platform.gitops for platform in self.platforms.values()]
        folders = [app for app in self.applications if app.path and self.contains(self.root / app.path)]
        upstream = Counter((app.repo, app.version) for app in folders if app.file.is_relative_to(self.top))
        usual = [source for source, _ in upstream.most_common(1)]
        return (
            {gitops.repository for gitops in settings} | {repo for repo, _ in usual},
            {gitops.revision for gitops in settings} | {revision for _, revision in usual},
        )

    def is_in_tree(self, app: Application) -> bool:
        """Whether the source of an Application is this repository, whether or not its path exists."""
        return bool(app.path and self.contains(self.root / app.path)) or app.repo in self.own_sources[0]

    def tables(self, name: str) -> tuple[Document, ...]:
        """Upstream's table of that name (reachability.yaml, metrics.yaml) and the operator's, if the root has one."""
        folders = filter(None, (self.top, tree.site_folder(self.root, self.path)))
        files = [folder / name for folder in folders if (folder / name).exists() or folder == self.top]
        return tuple(document for file in files for document in self.reader.read(file)[:1])

    def _sound(self, name: str) -> tuple[Document, ...]:
        tables = self.tables(name)
        if not tables or any(part.mismatches for table in tables for part in checked(table.file)):
            raise UnsoundTable("has another shape", file=self.top / name, remedy="correct it")
        return tables

    @cached_property
    def documents(self) -> tuple[Document, ...]:
        """Every document of every YAML file of the GitOps tree but for patches, which are parts of objects."""
        return tuple(document for file in self.files if file not in self.patches for document in self.reader.read(file))

    @cached_property
    def patches(self) -> set[Path]:
        """The files that kustomizations name as patches."""
        parts = (kustomization.load(folder, self.reader) for folder in self.kustomizations)
        named = ((part.file.parent, patch) for part in parts for patch in part.data.get("patches") or ())
        return {Path(os.path.normpath(folder / patch["path"])) for folder, patch in named if patch.get("path")}

    @cached_property
    def encrypted(self) -> tuple[EncryptedFile, ...]:
        """Every file that SOPS has encrypted, or should have: by its name, or because a KSOPS generator reads it."""
        read = {source.file for generator in self.generators for source in generator.sources if source.file.is_file()}
        return secrets.encrypted_files(self.root, read, self.reader)

    @cached_property
    def generators(self) -> tuple[Generator, ...]:
        """The generators of every kustomization."""
        folders = self.kustomizations
        return tuple(each for folder in folders for each in kustomization.generators(folder, self.reader))

    @cached_property
    def kustomizations(self) -> tuple[Path, ...]:
        """Every folder of the GitOps tree that is a kustomization."""
        return tuple(file.parent for file in self.files if file.name == "kustomization.yaml")

    @cached_property
    def listed(self) -> set[Path]:
        """Every file and folder that a kustomization names."""
        return set().union(*(kustomization.files(folder, self.reader) for folder in self.kustomizations))

    @cached_property
    def named(self) -> set[Path]:
        """The folders of the roots and of their Applications."""
        paths = {app.path for root in self.roots for app in root.all_applications if app.path}
        return {(self.root / path).resolve() for path in (*paths, *(root.path for root in self.roots))}

    @cached_property
    def forgotten(self) -> list[tuple[Path, Document]]:
        """The objects that no kustomization and no generator lists, each with the nearest kustomization's folder.

        The rule `listing` or `generator` reports their files; the other rules read them as if they were listed.
        """
        folders, result = set(self.kustomizations), []
        for file in self.files:
            unit = file.parent if file.name == kustomization.NAME else file
            if unit.resolve() in self.listed | (self.named if unit in folders else set()):
                continue
            nearest = next((folder for folder in unit.parents if folder in folders), self.root)
            objects = kustomization.resources(unit, self.reader) if unit in folders else self.reader.read(file)
            for generator in (kustomization.Generator(file.parent, document) for document in objects):
                objects += [each for source in generator.sources for each in self._read(source.file)]
            result += [(nearest, each) for each in objects if each.kind and not kustomization.is_ksops(each)]
        return result

    def _read(self, file: Path) -> list[Document]:
        return self.reader.read(file) if file.is_file() else []

    @cached_property
    def deployed(self) -> tuple[tuple[Application, Document], ...]:
        """Every object that an Application deploys from a folder of this repository: listed, generated, forgotten.

        One without a namespace is in the Application's, as for Argo CD.
        """
        deployed = []
        for app in filter(self.tree.is_ours, self.applications):
            folders = [part.file.parent for part in kustomization.below(self.root / app.path, self.reader)]
            made = [each for folder in folders for each in kustomization.generated(folder, self.reader)]
            objects = [root.without_unused(each, app, self.has) for each in self.tree.deployed_by(app)]
            built = {(each.kind, each.namespace, each.name) for each in objects if each.kind == "ConfigMap"}
            made = [each for each in made if (each.kind, each.namespace, each.name) not in built]
            objects += [each for each in made if not self.tree.is_dropped(each)]
            for patch in app.kustomize.get("patches") or ():
                with suppress(Rejected, BadFile):  # Argo CD reports it
                    objects = kustomization.patched_by(objects, patch, self.root / app.path)
            known = {(each.kind, each.namespace, each.name) for each in objects}
            objects += [
                each
                for folder, each in self.forgotten
                if folder in folders
                and (each.kind, each.namespace, each.name) not in known
                and each.kind not in _OF_ROOTS
            ]
            deployed += [(app, _placed(document, app.namespace)) for document in objects]
        return tuple(deployed)

    def deployed_by(self, app: Application) -> list[Document]:
        """The objects that one Application deploys from a folder of this repository."""
        return [document for other, document in self.deployed if other is app]

    def objects(self, *kinds: str) -> list[Document]:
        """The deployed objects of these kinds; all of them if none is given."""
        return [document for _, document in self.deployed if not kinds or document.kind in kinds]

    @cached_property
    def namespaces(self) -> dict[str, tuple[Application, Document]]:
        """The namespaces of the tree: the Application that creates each, and its manifest."""
        return {document.name: (app, document) for app, document in self.deployed if document.kind == "Namespace"}

    @cached_property
    def table(self) -> Table:
        """The expected connections."""
        rendered: dict[str, tuple[Position, dict[str, Any]]] = {}
        for app in self.tree.all_applications:
            for name, pod in pods_of(app).items():
                unique = f"{name} of {app.name}" if name in rendered else name
                rendered[unique] = app.document.at("metadata", "name"), {"namespace": app.namespace, **pod}
        tables = self._sound(reachability.NAME)
        hidden = self.tree.dropped_namespaces | {pod["namespace"] for _, _, pod in self.homeless_pods}
        return reachability.Table(tables, rendered, frozenset(hidden))

    @cached_property
    def homeless_pods(self) -> list[tuple[Position, str, dict[str, Any]]]:
        """The pods of reachability.yaml in a namespace that no Application creates or uses: position, name, facts."""
        known = INITIAL_NAMESPACES.union(self.namespaces, self.tree.dropped_namespaces)
        known = known.union(app.namespace for app in self.tree.all_applications)
        return [
            (table.at("pods", name), name, pod)
            for table in self.tables(reachability.NAME)
            for name, pod in (table.data.get("pods") or {}).items()
            if pod["namespace"] not in known
        ]

    @cached_property
    def metrics(self) -> metrics.MetricTable:
        """The metrics that the platform's programs have."""
        named: dict[str, set[str]] = {}
        for document in self.documents:
            named.setdefault(document.kind, set()).add(document.name)
            if document.kind in ("VMPodScrape", "PodMonitor"):
                named[document.kind].add(f"{document.namespace}/{document.name}")
        namespaces = INITIAL_NAMESPACES.union(named.get("Namespace", ()), (app.namespace for app in self.applications))
        jobs = set[str]().union(*(named.get(kind, ()) for kind in _NAMES_OF_JOBS))
        return metrics.MetricTable(self._sound(metrics.NAME), tuple(sorted(namespaces)), tuple(sorted(jobs)))

    @cached_property
    def params(self) -> dict[Path, Params | ParamsError]:
        """Every params file of the repository, or why it is invalid."""
        return {file: _load(file) for file in params.files(self.root).values()}

    @cached_property
    def platforms(self) -> dict[Path, Platform]:
        """The platforms that use this root, by their params files; those of invalid files are unknown."""
        valid = ((file, loaded.platform) for file, loaded in self.params.items() if isinstance(loaded, params.Params))
        own = (self.path, self.without, self.has)
        return {file: platform for file, platform in valid if tree.settings_of(platform) == own}

    @cached_property
    def objects_by_platform(self) -> list[tuple[Platform | None, list[Document]]]:
        """The deployed objects as each platform receives them; as they are in the files if no platform fits them."""
        try:
            platforms = self.platforms.values()
            by_platform = [(platform, root.objects_for(platform, self.tree)) for platform in platforms]
        except (ParamsError, Rejected):  # reported by the rule phase-value
            by_platform = []
        return [*by_platform] or [(None, self.objects())]


def _placed(document: Document, namespace: str) -> Document:
    """An object in its namespace."""
    if document.namespace or not document.kind or schemas.is_cluster_scoped(document.group, document.kind):
        return document
    metadata = {**(document.data.get("metadata") or {}), "namespace": namespace}
    return document.changed({**document.data, "metadata": metadata})


def _load(file: Path) -> Params | ParamsError:
    try:
        return params.load(file)
    except ParamsError as error:
        return error
