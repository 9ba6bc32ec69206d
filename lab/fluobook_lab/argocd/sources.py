"""From an Application's source to documents: which commit, which tool, and a cache, so that nothing is done twice."""

from __future__ import annotations

import fnmatch
import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from fluobook.kubernetes import manifests, rendering
from fluobook_lab.argocd import helm, kustomize
from fluobook_lab.argocd.processes import CommandError

if TYPE_CHECKING:
    from pathlib import Path

    from fluobook_lab.argocd.processes import Programs, Runner
    from fluobook_lab.argocd.repositories import Repositories
    from fluobook_lab.argocd.settings import Settings
    from fluobook_lab.faults import Faults
    from fluobook_lab.kube.objects import Obj

LARGEST_CACHE = 200


@dataclass(frozen=True)
class Capabilities:
    """What charts are told of the cluster."""

    kube_version: str
    api_versions: tuple[str, ...]


@dataclass(frozen=True)
class Rendered:
    """What an Application's sources come to, at these revisions; documents are shared: copy before changing."""

    revisions: tuple[str, ...]
    types: tuple[str, ...]
    documents: tuple[Obj, ...] = field(repr=False)


def sources_of(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """All sources of an Application, the one form or the other."""
    return list(spec.get("sources") or [spec.get("source") or {}])


@dataclass(frozen=True)
class Order:
    """What is to be rendered.

    Args:
        app: the Application's name: a chart's release, unless it says another.
        spec: the Application's.
        revisions: of each source, from `Sources.resolve`.
        settings: of Argo CD.
        known: what charts are told.
    """

    app: str
    spec: dict[str, Any] = field(repr=False)
    revisions: tuple[str, ...]
    settings: Settings = field(repr=False)
    known: Capabilities = field(repr=False)

    @property
    def sources(self) -> list[dict[str, Any]]:
        """All sources."""
        return sources_of(self.spec)

    def digest(self) -> str:
        """Equal for what renders to the same."""
        value: list[Any] = [self.app, self.spec.get("destination"), self.sources, self.revisions]
        if any(source.get("chart") or source.get("helm") for source in self.sources):
            value += [self.known.kube_version, self.known.api_versions]
        if any(source.get("path") for source in self.sources):
            value += [self.settings.build_options, self.settings.has_ksops, self.settings.age_key]
        return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


class Sources:
    """Renders Applications, each (revision, source) once."""

    def __init__(self, repositories: Repositories, programs: Programs, runner: Runner, faults: Faults) -> None:
        self._repositories = repositories
        self._programs = programs
        self._runner = runner
        self._faults = faults
        self._cache: dict[str, Rendered] = {}

    async def resolve(self, spec: dict[str, Any]) -> tuple[str, ...]:
        """The revision of each source now.

        Raises:
            CommandError: as it goes into a condition.
        """
        if self._faults.take("argocd.repository-down-once"):
            raise CommandError(f"failed to list refs: {sources_of(spec)[0].get('repoURL')}: connection refused")
        return tuple([await self._revision(source) for source in sources_of(spec)])

    async def render(self, order: Order, *, fresh: bool = False) -> Rendered:
        """The documents of all sources.

        Args:
            order: what to render.
            fresh: render again even what is cached, as a hard refresh does.

        Raises:
            CommandError: as it goes into a condition.
        """
        key = order.digest()
        if fresh or key not in self._cache:
            self._cache[key] = await self._all(order)
            while len(self._cache) > LARGEST_CACHE:
                del self._cache[next(iter(self._cache))]
        return self._cache[key]

    async def _all(self, order: Order) -> Rendered:
        types: list[str] = []
        documents: list[Obj] = []
        for number, source in enumerate(order.sources):
            if source.get("ref") and not source.get("path") and not source.get("chart"):
                continue
            try:
                kind, found = await self._one(order, number)
            except (CommandError, yaml.YAMLError, ValueError) as error:
                raise CommandError(_condition(error, number + 1, len(order.sources))) from error
            types.append(kind)
            documents += found
        return Rendered(order.revisions, tuple(types), tuple(documents))

    async def _revision(self, source: dict[str, Any]) -> str:
        wanted = str(source.get("targetRevision") or "HEAD")
        return wanted if source.get("chart") else await self._repositories.resolve(source.get("repoURL", ""), wanted)

    async def _one(self, order: Order, number: int) -> tuple[str, list[Obj]]:
        source, revision = order.sources[number], order.revisions[number]
        if source.get("chart"):
            chart = rendering.chart_arguments(source["chart"], source["repoURL"], revision)
            return "Helm", await self._helm(order, source, chart)
        tree = await self._repositories.checkout(source["repoURL"], revision)
        path = source.get("path") or "."
        folder = tree / path
        if not folder.is_dir():
            raise CommandError(f"{path}: app path does not exist")
        if (folder / "Chart.yaml").exists():
            return "Helm", await self._helm(order, source, [str(folder)])
        if kustomize.is_kustomization(folder):
            build = kustomize.Build(tree, path, source.get("kustomize") or {}, order.settings)
            return "Kustomize", await kustomize.build(build, programs=self._programs, runner=self._runner)
        return "Directory", _directory(folder, source.get("directory") or {})

    async def _helm(self, order: Order, source: dict[str, Any], chart: list[str]) -> list[Obj]:
        settings = source.get("helm") or {}
        return await helm.template(
            chart,
            settings,
            release=order.app,
            namespace=(order.spec.get("destination") or {}).get("namespace", ""),
            kube_version=order.known.kube_version,
            api_versions=order.known.api_versions,
            value_files=[await self._value_file(order, chart[0], name) for name in settings.get("valueFiles") or ()],
            programs=self._programs,
            runner=self._runner,
        )

    async def _value_file(self, order: Order, chart: str, name: str) -> Path:
        """A values file: beside the chart, or in another source as `$ref/path`."""
        if not name.startswith("$"):
            return self._runner.home / chart / name
        reference, _, path = name[1:].partition("/")
        for source, revision in zip(order.sources, order.revisions, strict=True):
            if source.get("ref") == reference:
                return await self._repositories.checkout(source["repoURL"], revision) / path
        raise CommandError(f"source referenced {reference!r}, but no source has a matching 'ref' field defined")


def _directory(folder: Path, options: dict[str, Any]) -> list[Obj]:
    """Plain files, in the order of their names."""
    every = sorted(folder.rglob("*") if options.get("recurse") else folder.glob("*"))
    include, exclude = options.get("include") or "*", options.get("exclude") or ""
    chosen = [
        file
        for file in every
        if file.is_file()
        and file.suffix in {".yaml", ".yml", ".json"}
        and _matches(file.name, include)
        and not _matches(file.name, exclude)
    ]
    return [document for file in chosen for document in manifests.load(file.read_text())]


def _matches(name: str, patterns: str) -> bool:
    return any(fnmatch.fnmatchcase(name, one) for one in patterns.strip("{}").split(",") if one)


def _condition(error: Exception, number: int, total: int) -> str:
    """As the real controller words it."""
    why = f"failed to generate manifest for source {number} of {total}"
    return f"Failed to load target state: {why}: rpc error: code = Unknown desc = {error}"
