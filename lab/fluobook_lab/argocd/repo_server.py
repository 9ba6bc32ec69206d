"""The repo-server: from an Application's sources to documents, with the real git, helm, kubectl and sops.

KSOPS needs preparation: the tree has the form for Argo CD, a generator with an exec-function annotation. `kubectl
kustomize` answers that with no documents and exit code 0, since it cannot run functions. So the annotation is removed
from each checkout, which makes the generator a legacy plugin (`ksops.py`), and decrypted files are counted.
"""

from __future__ import annotations

import asyncio
import fnmatch
import hashlib
import json
import os
import re
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fluobook.kubernetes import manifests, rendering
from fluobook_lab.argocd.ksops import FIELDS
from fluobook_lab.argocd.objects import sources_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fluobook_lab.argocd.configuration import Settings
    from fluobook_lab.faults import Faults
    from fluobook_lab.kube.objects import Obj

PARALLEL_PROCESSES = 2
PROCESS_TIMEOUT = 90.0
"""Real seconds for one process; Argo CD's own exec timeout."""
CACHE_SIZE = 200
SHA = re.compile(r"[0-9a-f]{40}")
EXEC = "--enable-exec"
COPIED = (
    "namePrefix",
    "nameSuffix",
    "namespace",
    "replicas",
    "components",
    "commonAnnotations",
    "commonLabels",
    "patches",
)
"""Fields of `spec.source.kustomize` that a kustomization has under the same name."""


class CommandError(Exception):
    """A process failed; the message is what Argo CD shows in a condition."""


@dataclass(frozen=True)
class Programs:
    """Paths of the programs that the repo-server runs."""

    git: Path
    kubectl: Path
    helm: Path
    sops: Path


class Runner:
    """Runs processes, at most `PARALLEL_PROCESSES` at a time.

    Args:
        home: their home folder; created if missing.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self._limit = asyncio.Semaphore(PARALLEL_PROCESSES)
        home.mkdir(parents=True, exist_ok=True)

    async def run(
        self,
        command: Sequence[str | Path],
        name: str,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: str = "",
    ) -> str:
        """The standard output of a command.

        Args:
            command: program and arguments.
            name: the name of the command in errors.
            env: added to a minimal environment; may hold secrets.
            cwd: the folder it starts in.
            stdin: its standard input.

        Raises:
            CommandError: the exit code is not 0, or `PROCESS_TIMEOUT` passed.
        """
        async with self._limit:
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec(
                *map(str, command), stdin=pipe, stdout=pipe, stderr=pipe, env={**self._env(), **(env or {})}, cwd=cwd
            )
            try:
                async with asyncio.timeout(PROCESS_TIMEOUT):
                    output, errors = await process.communicate(stdin.encode())
            except TimeoutError:
                raise CommandError(f"`{name}` failed timeout after {PROCESS_TIMEOUT:g}s") from None
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        if process.returncode:
            reason = errors.decode(errors="replace").strip()
            raise CommandError(f"`{name}` failed exit status {process.returncode}: {reason}")
        return output.decode(errors="replace")

    def _env(self) -> dict[str, str]:
        """Nothing of the operator's: no kubeconfig, no age keys, no git settings."""
        return {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self.home),
            "XDG_CONFIG_HOME": str(self.home / ".config"),
            **rendering.helm_environment(self.home / "helm"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "SOPS_DISABLE_VERSION_CHECK": "1",
        }


class Repositories:
    """Mirrors of git repositories, and a folder for each commit that was requested.

    Args:
        folder: where they are stored.
        git: the git program.
        runner: runs it.
    """

    def __init__(self, folder: Path, git: Path, runner: Runner) -> None:
        self._folder, self._git, self._runner = folder, git, runner
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._refs: dict[str, tuple[float, dict[str, str]]] = {}

    async def resolve(self, url: str, revision: str) -> str:
        """The commit of a branch or tag.

        Raises:
            CommandError: the remote is not reachable, or has no such revision.
        """
        if SHA.fullmatch(revision):
            return revision
        refs = await self._remote(url)
        for name in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}^{{}}", f"refs/tags/{revision}"):
            if name in refs:
                return refs[name]
        raise CommandError(f"unable to resolve '{revision}' to a commit SHA")

    async def checkout(self, url: str, sha: str) -> Path:
        """A read-only folder with the files of a commit, ready for kubectl (see `rendering.use_legacy_ksops`).

        Raises:
            CommandError: no such commit.
        """
        name, git = hashlib.sha256(url.encode()).hexdigest()[:12], self._git
        mirror, files = self._folder / f"{name}.git", self._folder / name / sha
        async with self._locks[url]:
            if files.exists():
                return files
            if not mirror.exists():
                await self._runner.run([git, "clone", "-q", "--mirror", url, mirror], "git clone")
            else:
                await self._runner.run([git, "fetch", "-q", "--prune", "origin"], "git fetch", cwd=mirror)
            partial = files.with_suffix(".part")
            partial.mkdir(parents=True, exist_ok=True)
            env = {"GIT_DIR": str(mirror), "GIT_WORK_TREE": str(partial), "GIT_INDEX_FILE": f"{partial}.index"}
            await self._runner.run([git, "checkout", "-f", sha, "--", "."], "git checkout", env=env, cwd=partial)
            rendering.use_legacy_ksops(partial)
            partial.rename(files)
        return files

    async def _remote(self, url: str) -> dict[str, str]:
        """The branches and tags; one request answers all callers that came before it started."""
        requested = time.monotonic()
        async with self._locks[f"refs {url}"]:
            started, refs = self._refs.get(url, (0.0, {}))
            if started < requested:
                started = time.monotonic()
                output = await self._runner.run([self._git, "ls-remote", url], "git ls-remote")
                refs = {name: sha for sha, _, name in (line.partition("\t") for line in output.splitlines())}
                self._refs[url] = (started, refs)
        return refs


@dataclass(frozen=True)
class Rendered:
    """The documents of an Application's sources at these revisions; documents are shared: copy before changing."""

    revisions: tuple[str, ...]
    types: tuple[str, ...]
    documents: tuple[Obj, ...] = field(repr=False)


@dataclass(frozen=True)
class Request:
    """A request to render an Application.

    Args:
        app: the Application's name, which is also a chart's release unless the source names another.
        spec: the Application's spec.
        revisions: of each source, from `RepoServer.resolve`.
        settings: Argo CD's.
        kube_version: the Kubernetes version that charts see ("1.35.4").
        api_versions: the APIs that charts see.
    """

    app: str
    spec: dict[str, Any] = field(repr=False)
    revisions: tuple[str, ...]
    settings: Settings = field(repr=False)
    kube_version: str
    api_versions: tuple[str, ...] = field(repr=False)

    @property
    def sources(self) -> list[dict[str, Any]]:
        """All sources."""
        return sources_of(self.spec)

    def digest(self) -> str:
        """Equal for requests with the same result."""
        value: list[Any] = [self.app, self.spec.get("destination"), self.sources, self.revisions]
        if any(source.get("chart") or source.get("helm") for source in self.sources):
            value += [self.kube_version, self.api_versions]
        if any(source.get("path") for source in self.sources):
            value += [self.settings.build_options, self.settings.has_ksops, self.settings.age_key]
        return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


class RepoServer:
    """Renders Applications, each (revision, source) once.

    Args:
        folder: for checkouts, caches and the programs' home.
        programs: what it runs.
        faults: the faults to inject.
    """

    def __init__(self, folder: Path, programs: Programs, faults: Faults) -> None:
        self._programs, self._faults = programs, faults
        self._runner = Runner(folder / "home")
        self._repositories = Repositories(folder / "repositories", programs.git, self._runner)
        self._cache: dict[str, Rendered] = {}

    async def resolve(self, spec: dict[str, Any]) -> tuple[str, ...]:
        """The current revision of each source.

        Raises:
            CommandError: with the message for a condition.
        """
        if self._faults.take("argocd.repository-down-once"):
            raise CommandError(f"failed to list refs: {sources_of(spec)[0].get('repoURL')}: connection refused")
        return tuple([await self._revision(source) for source in sources_of(spec)])

    async def _revision(self, source: dict[str, Any]) -> str:
        wanted = str(source.get("targetRevision") or "HEAD")
        return wanted if source.get("chart") else await self._repositories.resolve(source.get("repoURL", ""), wanted)

    async def render(self, request: Request, *, fresh: bool = False) -> Rendered:
        """The documents of all sources; `fresh` bypasses the cache, as a hard refresh does.

        Raises:
            CommandError: with the message for a condition.
        """
        key = request.digest()
        if fresh or key not in self._cache:
            types: list[str] = []
            documents: list[Obj] = []
            for number, source in enumerate(request.sources):
                if source.get("ref") and not source.get("path") and not source.get("chart"):
                    continue
                try:
                    kind, rendered = await self._source(request, source, request.revisions[number])
                except (CommandError, yaml.YAMLError, ValueError) as error:
                    raise CommandError(load_error(error, number + 1, len(request.sources))) from error
                types.append(kind)
                documents += rendered
            self._cache[key] = Rendered(request.revisions, tuple(types), tuple(documents))
            while len(self._cache) > CACHE_SIZE:
                del self._cache[next(iter(self._cache))]
        return self._cache[key]

    async def _source(self, request: Request, source: dict[str, Any], revision: str) -> tuple[str, list[Obj]]:
        """The type of a source (Helm, Kustomize or Directory) and its documents."""
        if source.get("chart"):
            chart = rendering.chart_arguments(source["chart"], source["repoURL"], revision)
            return "Helm", await self._helm(request, source, chart)
        tree = await self._repositories.checkout(source["repoURL"], revision)
        path = source.get("path") or "."
        folder = tree / path
        if not folder.is_dir():
            raise CommandError(f"{path}: app path does not exist")
        if (folder / "Chart.yaml").exists():
            return "Helm", await self._helm(request, source, [str(folder)])
        if any((folder / name).exists() for name in rendering.KUSTOMIZATIONS):
            return "Kustomize", await self._kustomize(tree, path, source.get("kustomize") or {}, request.settings)
        return "Directory", _directory(folder, source.get("directory") or {})

    async def _helm(self, request: Request, source: dict[str, Any], chart: list[str]) -> list[Obj]:
        settings = source.get("helm") or {}
        files = [await self._value_file(request, chart[0], name) for name in settings.get("valueFiles") or ()]
        command = rendering.helm_template(
            chart,
            release=settings.get("releaseName") or request.app,
            namespace=(request.spec.get("destination") or {}).get("namespace", ""),
            kube_version=request.kube_version,
            api_versions=request.api_versions,
            include_crds=not settings.get("skipCrds"),
            further=helm_flags(settings, files),
        )
        values = json.dumps(settings.get("valuesObject") or yaml.safe_load(settings.get("values") or "") or {})
        name = f"helm template {chart[0]}"
        return manifests.load(await self._runner.run([self._programs.helm, *command], name, stdin=values))

    async def _value_file(self, request: Request, chart: str, name: str) -> Path:
        """A values file: relative to the chart, or in another source as `$ref/path`."""
        if not name.startswith("$"):
            return self._runner.home / chart / name
        reference, _, path = name[1:].partition("/")
        for source, revision in zip(request.sources, request.revisions, strict=True):
            if source.get("ref") == reference:
                return await self._repositories.checkout(source["repoURL"], revision) / path
        raise CommandError(f"source referenced {reference!r}, but no source has a matching 'ref' field defined")

    async def _kustomize(self, tree: Path, path: str, source: dict[str, Any], settings: Settings) -> list[Obj]:
        """The documents of a kustomization, with what the Application's source adds to it.

        Raises:
            CommandError: kustomize, KSOPS or sops failed, or not every listed file was decrypted.
        """
        encrypted, name = _encrypted_files(tree / path), f"kustomize build {path}"
        missing = {rendering.ALPHA_PLUGINS, EXEC} - set(settings.build_options)
        if encrypted and missing:
            needs = f"KSOPS needs {' '.join(sorted(missing))} in kustomize.buildOptions"
            raise CommandError(f"`{name}` failed exit status 1: Error: {needs}")
        plugins = self._runner.home / ("plugins" if settings.has_ksops else "no-plugins")
        if settings.has_ksops:
            rendering.install_ksops(plugins, Path(__file__).with_name("ksops.py").read_text())
        log = Path(tempfile.mktemp(dir=self._runner.home, prefix="ksops-"))  # noqa: S306  in a folder of our own
        env = {
            **rendering.kustomize_environment(plugins),
            "FLUOBOOK_SOPS": str(self._programs.sops),
            "FLUOBOOK_KSOPS_LOG": str(log),
            "SOPS_AGE_KEY": settings.age_key,
        }
        folder = _overlay(tree, path, source) if source else tree / path
        options = [option for option in settings.build_options if option != EXEC]
        command: list[str | Path] = [self._programs.kubectl, *rendering.kustomize_build(folder, options)]
        text = await self._runner.run(command, name, env=env)
        if (decrypted := _take_count(log)) != len(encrypted):
            raise CommandError(f"KSOPS decrypted {decrypted} of {len(encrypted)} files in {path}")
        return manifests.load(text)


def load_error(error: Exception, number: int = 1, total: int = 1) -> str:
    """The condition for a source that cannot be rendered, as the real controller words it."""
    reason = f"failed to generate manifest for source {number} of {total}"
    return f"Failed to load target state: {reason}: rpc error: code = Unknown desc = {error}"


def _take_count(log: Path) -> int:
    """How many files were decrypted: kustomize ignores an unknown generator silently, so they must be counted."""
    count = len(log.read_text().splitlines()) if log.exists() else 0
    log.unlink(missing_ok=True)
    return count


def _encrypted_files(folder: Path) -> list[Path]:
    """The files that the KSOPS generators of a kustomization list, including those of its bases."""
    files: list[Path] = []
    kustomization = next((folder / name for name in rendering.KUSTOMIZATIONS if (folder / name).exists()), None)
    content = yaml.safe_load(kustomization.read_text()) if kustomization else None
    if not isinstance(content, dict):
        return files
    generators = [name for name in content.get("generators") or () if "\n" not in name]  # not those written inline
    for name in generators:
        if (folder / name).is_file():
            try:
                documents = list(yaml.safe_load_all((folder / name).read_text()))
            except yaml.YAMLError:
                continue  # kustomize reports it
            for document in filter(rendering.is_ksops_generator, documents):
                secrets = [secret.get(field) or () for secret in document.get("secretFrom") or () for field in FIELDS]
                files += [folder / file for file in document.get("files") or ()]
                files += [folder / file.rpartition("=")[2] for listed in secrets for file in listed]
    for name in [
        *generators,
        *(name for key in ("resources", "bases", "components") for name in content.get(key) or ()),
    ]:
        if (folder / name).is_dir():
            files += _encrypted_files(folder / name)
    return files


def _overlay(tree: Path, path: str, source: dict[str, Any]) -> Path:
    """A kustomization over the one at `path`, with `spec.source.kustomize` (patches, images, names…)."""
    name = hashlib.sha256(json.dumps([path, source], sort_keys=True).encode()).hexdigest()[:16]
    folder = tree / ".argocd" / name
    folder.mkdir(parents=True, exist_ok=True)
    kustomization: dict[str, Any] = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    kustomization |= {"resources": [f"../../{path}"], **{key: source[key] for key in COPIED if key in source}}
    if "images" in source:
        kustomization["images"] = [_image(text) for text in source["images"]]
    (folder / "kustomization.yaml").write_text(json.dumps(kustomization))
    return folder


def _image(text: str) -> dict[str, str]:
    """An entry of `images` from "name=new:tag" or "name:tag"."""
    name, _, new = text.rpartition("=")
    image, _, tag = (new or text).rpartition(":")
    return {"name": name or image, "newName": image, "newTag": tag}


def _directory(folder: Path, options: dict[str, Any]) -> list[Obj]:
    """The documents of plain files, in the order of their names."""

    def matches(name: str, patterns: str) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns.strip("{}").split(",") if pattern)

    include, exclude = options.get("include") or "*", options.get("exclude") or ""
    files = [
        file
        for file in sorted(folder.rglob("*") if options.get("recurse") else folder.glob("*"))
        if file.is_file()
        and file.suffix in {".yaml", ".yml", ".json"}
        and matches(file.name, include)
        and not matches(file.name, exclude)
    ]
    return [document for file in files for document in manifests.load(file.read_text())]


def helm_flags(settings: Mapping[str, Any], value_files: Iterable[Path]) -> list[str]:
    """The flags for `spec.source.helm`: the values files in their order, then the parameters."""
    flags = ["--skip-tests"] if settings.get("skipTests") else []
    for file in value_files:
        flags += ["--values", str(file)]
    for parameter in settings.get("parameters") or ():
        option = "--set-string" if parameter.get("forceString") else "--set"
        flags += [option, f"{parameter['name']}={parameter['value']}"]
    return flags
