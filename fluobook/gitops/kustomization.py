"""Reads the objects of a kustomization with their files and lines.

It reads resources (files and folders), patches that are JSON 6902 or delete an object, generators of ConfigMaps and
KSOPS, namespace, labels and annotations itself, which is fast. What uses more, kustomize builds.
"""

from __future__ import annotations

import difflib
import os
import re
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fluobook.clients.tools import find, run_tool
from fluobook.errors import BadFile, DeadlineExceeded, Rejected, ToolFailed
from fluobook.files import parse_yaml, read_text, read_yaml, temporary_folder
from fluobook.gitops import documents, schemas
from fluobook.gitops.documents import STRICT, Document, Incomplete, InvalidFile, Reader
from fluobook.kubernetes import json_patch, manifests, rendering
from fluobook.kubernetes.rendering import is_ksops_generator

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fluobook.gitops.documents import Key

NAME = "kustomization.yaml"
_SELECTED = ("kind", "name", "namespace")
"""What a patch's target may name; the first two are regular expressions for kustomize, so only plain names are read."""
_NAME = re.compile(r"[\w.-]+")
_BY_KUSTOMIZE = {"components", "images", "namePrefix", "nameSuffix", "replacements", "replicas", "configurations"}
"""The fields that kustomize evaluates, not this reader."""
_KNOWN = _BY_KUSTOMIZE | {
    "apiVersion", "kind", "metadata", "resources", "patches", "generators", "configMapGenerator", "generatorOptions",
    "namespace", "labels", "commonAnnotations", "sortOptions", "buildMetadata",
}  # fmt: skip
_REMEDIES = {
    "secretGenerator": "its values would be plaintext in Git: encrypt a Secret with SOPS, and list it in a generator",
    "bases": "list them under resources: newer versions of kustomize do not know it",
    "commonLabels": "write labels with pairs and includeSelectors: newer versions of kustomize do not know it",
    "patchesStrategicMerge": "write them under patches: newer versions of kustomize do not know it",
    "patchesJson6902": "write them under patches: newer versions of kustomize do not know it",
    "vars": "write replacements: newer versions of kustomize do not know it",
    "helmCharts": "write an Application with the chart: Argo CD builds without --enable-helm",
}
_ORIGIN = "config.kubernetes.io/origin"

_REMOTE = re.compile(
    r"://|^git(@|::)|[?&]ref=|^[\w-]+(\.[\w-]+)*\.(com|org|net|io|dev)[/:]|^[^/]+\.[a-z]+/[^/]+/[^/]+//"
)
"""Entries that kustomize fetches: URLs, and hosts with a path."""


class KustomizeError(Incomplete):
    """A kustomization is invalid, or uses what this reader does not support."""

    def __init__(self, message: str, *, file: Path, line: int = 0, remedy: str) -> None:
        super().__init__(message, file=file, line=line, system="kustomize", remedy=remedy)


class RemoteResource(KustomizeError):
    """A kustomization lists what kustomize would fetch from elsewhere."""


def load(folder: Path, reader: Reader = STRICT) -> Document:
    """The kustomization of a folder.

    Raises:
        InvalidFile: there is none, or it is not YAML.
    """
    content = reader.read(folder / NAME)
    if not content:
        reader.refuse(KustomizeError("is empty", file=folder / NAME, remedy="list its resources, or delete it"))
    return next(iter(content or documents.parse("{}", folder / NAME)))


def resources(folder: Path, reader: Reader = STRICT, above: tuple[Path, ...] = ()) -> list[Document]:
    """Every object that the kustomization lists, itself or through folders, with its patches applied.

    Without the output of generators: secrets and dashboards are checked as files.

    Raises:
        InvalidFile: a file or folder is missing, or the kustomization uses what this reader does not support.
    """
    kustomization = load(folder, reader)
    file = kustomization.file
    for key in sorted(set(kustomization.data) - _KNOWN):
        similar = difflib.get_close_matches(key, _KNOWN, n=1, cutoff=0.8)
        remedy = f"did you mean {similar[0]}?" if similar else "correct the field"
        remedy = _REMEDIES.get(key, remedy)
        reader.refuse(KustomizeError(f"uses `{key}`", file=file, line=kustomization.line(key), remedy=remedy))
    if is_built(kustomization):
        return _built(kustomization, reader)
    objects: list[Document] = []
    entries = kustomization.data.get("resources") or []
    for index, entry in enumerate(entries):
        if entry in entries[:index]:
            line, remedy = kustomization.line("resources", index), "remove one of the two"
            reader.refuse(KustomizeError(f"lists {entry} twice", file=file, line=line, remedy=remedy))
            continue
        try:
            objects += _listed(folder, entry, reader, (*above, folder))
        except KustomizeError as error:
            line = error.line or kustomization.line("resources", index)
            reader.refuse(type(error)(error.problem, file=error.file, line=line, remedy=error.remedy))
    for index, patch in enumerate(kustomization.data.get("patches") or []):
        try:
            objects = patched_by(objects, patch, folder)
        except (Rejected, BadFile) as error:
            file, line = kustomization.file, kustomization.line("patches", index)
            if isinstance(error, Rejected) and not isinstance(error, InvalidFile) and "path" in patch:
                file, line = folder / patch["path"], 1
            problem = getattr(error, "problem", f"cannot be built: {error.message}")
            reader.refuse(KustomizeError(problem, file=file, line=line, remedy=error.remedy))
    return [_transformed(document, kustomization.data) for document in objects]


def _transformed(document: Document, data: dict[str, Any]) -> Document:
    """An object with the namespace, the labels and the annotations that a kustomization gives to all of its objects."""
    if not data.keys() & {"namespace", "labels", "commonAnnotations"} or not document.kind:
        return document
    changed = deepcopy(document.data)
    metadata = changed.setdefault("metadata", {})
    if data.get("namespace") and not schemas.is_cluster_scoped(document.group, document.kind):
        metadata["namespace"] = data["namespace"]
    if annotations := data.get("commonAnnotations"):
        metadata["annotations"] = {**(metadata.get("annotations") or {}), **annotations}
    for entry in data.get("labels") or ():
        holders = [metadata]
        template = documents.value_under(changed, ("spec", "template"))
        if isinstance(template, dict) and entry.get("includeTemplates"):
            holders.append(template.setdefault("metadata", {}))
        for holder in holders:
            holder["labels"] = {**(holder.get("labels") or {}), **(entry.get("pairs") or {})}
    return document.changed(changed)


def is_built(kustomization: Document) -> bool:
    """Whether kustomize builds it, because it uses what this reader does not evaluate."""
    data = kustomization.data
    selects = any(entry.get("includeSelectors") or entry.get("fields") for entry in data.get("labels") or ())
    patches = (patch for patch in data.get("patches") or () if isinstance(patch, dict))
    is_whole = not set(data) - _KNOWN
    is_plain = all(_is_plain(patch, kustomization.file) for patch in patches)
    return is_whole and (bool(_BY_KUSTOMIZE & set(data)) or selects or not is_plain)


def _is_plain(patch: dict[str, Any], file: Path) -> bool:
    """Whether this reader applies a patch: operations or a deletion, for one object by its name."""
    target, path = patch.get("target") or {}, file.parent / str(patch.get("path"))
    is_named = all(key in _SELECTED and _NAME.fullmatch(str(value)) for key, value in target.items())
    try:
        text = patch.get("patch") or (read_text(path) if path.is_file() else "")
        change = next(iter(parse_yaml(text, file)), None)
    except BadFile:
        return True  # which reports it
    return is_named and (not isinstance(change, dict) or change.get("$patch") == "delete")


def _built(kustomization: Document, reader: Reader) -> list[Document]:
    """What kustomize makes of a folder, but for the Secrets of KSOPS; each object has the lines of its source."""
    folder = kustomization.file.parent
    if folder in reader.built:
        return reader.built[folder]
    with temporary_folder("kustomize") as temporary:
        home = temporary.resolve()
        beside = os.path.relpath(folder.resolve(), home)
        (home / NAME).write_text(yaml.safe_dump({"resources": [beside], "buildMetadata": ["originAnnotations"]}))
        env = rendering.kustomize_environment(home / "plugins")
        rendering.install_ksops(home / "plugins", "")  # the Secrets are read as files: see `generated`
        try:
            command: list[str | Path] = [find("kubectl").path, *rendering.kustomize_build(home)]
            text = run_tool("kubectl", command, env=env, remedy=f"correct {kustomization.file}").stdout
        except (DeadlineExceeded, ToolFailed) as error:
            lines = [line.strip(":` ") for line in getattr(error, "detail", "").splitlines() if line.strip(":` ")] or [
                error.message
            ]
            remedy = f"kubectl kustomize {folder} shows more"
            reason = f"cannot be built: {lines[-1].replace(f'{beside}/', '')}"
            reader.refuse(KustomizeError(reason, file=kustomization.file, line=1, remedy=remedy))
            return []
        objects = [_with_origin(data, home, folder, reader) for data in manifests.load(text)]
    for problem in _unused(kustomization, objects):
        reader.refuse(problem)
    reader.keep(folder, objects)
    return objects


def _with_origin(data: dict[str, Any], home: Path, folder: Path, reader: Reader) -> Document:
    """A built object with the lines of the document, or of the generator, that it comes from."""
    annotations = data["metadata"]["annotations"]
    origin = next(iter(parse_yaml(annotations.pop(_ORIGIN), folder)))
    if not annotations:
        del data["metadata"]["annotations"]
    place = Path(os.path.normpath(home / (origin.get("path") or origin["configuredIn"])))
    place = folder / os.path.relpath(place, folder.resolve())
    place, name = Path(os.path.normpath(place)), data["metadata"]["name"]
    sources = reader.read(place)
    if "path" not in origin:
        entries = sources[0].data.get("configMapGenerator") or ()
        index = next((at for at, entry in enumerate(entries) if str(entry.get("name")) in name), 0)
        return sources[0].made(data, "configMapGenerator", index)
    of_kind = [source for source in sources if source.kind == data["kind"]] or sources
    named = [source for source in of_kind if source.name == name] + [each for each in of_kind if each.name in name]
    return (named or of_kind)[0].changed(data)


def _is_selected(document: Document, target: Mapping[str, Any], ends: Sequence[str]) -> bool:
    """Whether kustomize's selector, of regular expressions and labels, matches an object; its name was given `ends`."""
    original = document.name.removeprefix(ends[0]).removesuffix(ends[1])
    fields = {"kind": [document.kind], "namespace": [document.namespace], "name": [document.name, original]}
    labels = {**(document.data["metadata"].get("labels") or {})}
    pairs = [part.split("=", 1) for part in str(target.get("labelSelector") or "").split(",") if "=" in part]
    return all(
        any(re.fullmatch(str(target[field]), value) for value in values)
        for field, values in fields.items()
        if target.get(field)
    ) and all(labels.get(key.strip("! ")) == value.lstrip("= ") for key, value in pairs if not key.endswith("!"))


def _unused(kustomization: Document, objects: Iterable[Document]) -> Iterable[InvalidFile]:
    """Images and targets of patches that nothing in a kustomization has: kustomize ignores them silently."""
    ends = [str(kustomization.data.get(key) or "") for key in ("namePrefix", "nameSuffix")]
    for index, patch in enumerate(kustomization.data.get("patches") or ()):
        target = (patch.get("target") or {}) if "$patch: delete" not in str(patch.get("patch")) else {}
        if not any(_is_selected(document, target, ends) for document in objects):
            line, remedy = kustomization.line("patches", index), "correct its target"
            yield KustomizeError(
                f"patches {target}, which is not there", file=kustomization.file, line=line, remedy=remedy
            )
    values = (value for each in objects for _, key, value in documents.walk(each.data) if key == "image")
    images = {re.sub(r"(:[^:/]*)?(@.*)?$", "", str(value)) for value in values}
    for index, entry in enumerate(kustomization.data.get("images") or ()):
        name = str(entry.get("newName") or entry.get("name"))
        if name not in images:
            problem, remedy = f"changes the image {entry.get('name')}, which nothing here has", "correct its name"
            line = kustomization.line("images", index)
            yield InvalidFile(problem, file=kustomization.file, line=line, system="kustomize", remedy=remedy)


def generated(folder: Path, reader: Reader = STRICT) -> list[Document]:
    """The ConfigMaps and Secrets that the generators of a kustomization make, without the folders that it lists.

    Values of files are empty. The lines are those of the generator, or of the encrypted file.

    Raises:
        InvalidFile: a file is missing.
    """
    kustomization = load(folder, reader)
    objects = []
    entries = () if is_built(kustomization) else kustomization.data.get("configMapGenerator") or ()
    for index, entry in enumerate(entries):
        keys: list[str] = [str(literal).partition("=")[0] for literal in entry.get("literals") or ()]
        for number, text in enumerate(entry.get("files") or ()):
            key, _, name = str(text).rpartition("=")
            keys.append(key or Path(name).name)
            if not (folder / name).exists():
                line = kustomization.line("configMapGenerator", index, "files", number)
                remedy = "correct the name, or restore the file"
                problem = f"lists {name}, which is not there"
                reader.refuse(KustomizeError(problem, file=kustomization.file, line=line, remedy=remedy))
        if entry.get("behavior", "create") == "create":
            metadata = {key: entry[key] for key in ("name", "namespace") if entry.get(key)}
            metadata |= {key: (entry.get("options") or {}).get(key) or {} for key in ("labels", "annotations")}
            data = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict.fromkeys(keys, "")}
            objects.append(kustomization.made(data, "configMapGenerator", index))
    for generator in generators(folder, reader):
        for index, secret in enumerate(generator.document.data.get("secretFrom") or () if generator.is_ksops else ()):
            metadata = secret.get("metadata") or {}
            names = (str(name) for field in ("files", "binaryFiles") for name in secret.get(field) or ())
            keys = [key or Path(name).name for key, _, name in (name.rpartition("=") for name in names)]
            data = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": dict.fromkeys(keys, "")}
            objects.append(generator.document.made(data, "secretFrom", index, "metadata"))
        for source in generator.sources:
            if source.path[0] == "files" and source.file.is_file():
                objects += [document for document in reader.read(source.file) if document.kind]
    return [_transformed(document, kustomization.data) for document in objects]


def _listed(folder: Path, entry: Any, reader: Reader, above: tuple[Path, ...]) -> list[Document]:
    """The objects of an entry of `resources`; `above` are the folders that are being read."""
    path, file = Path(os.path.normpath(folder / str(entry))), folder / NAME
    if not entry or Path(str(entry)).is_absolute():
        remedy = "name a file or folder of this repository, relative to the kustomization"
        raise KustomizeError(f"lists '{entry}', which is no relative path", file=file, remedy=remedy)
    if not path.exists() and _REMOTE.search(str(entry)):
        remedy = "copy it into the tree, or deploy it by an Application with that source"
        message = f"lists {entry}, which is outside this repository: fluobook neither reads nor checks it"
        raise RemoteResource(message, file=file, remedy=remedy)
    is_broken = path.is_symlink() and not path.exists()
    if is_broken or (path.is_dir() and path.suffix in (".yaml", ".yml") and not (path / NAME).exists()):
        return reader.read(path)  # which refuses a link to nothing, and a folder
    if not path.exists():
        remedy = "remove it from the list, or restore the file"
        raise KustomizeError(f"lists {entry}, which is not there", file=file, remedy=remedy)
    if path.is_dir() and not (path / NAME).exists():
        remedy = "list its files, or write its kustomization"
        raise KustomizeError(f"lists {entry}, a folder without {NAME}", file=file, remedy=remedy)
    if path.is_file() and path.suffix not in (".yaml", ".yml", ".json"):
        raise KustomizeError(f"lists {entry}, which is no manifest", file=file, remedy="remove it from the list")
    if path in above:
        raise KustomizeError(f"lists {entry}, which lists it", file=file, remedy="remove it from the list")
    objects = resources(path, reader, above) if path.is_dir() else reader.read(path)
    if not objects and path.is_file():
        raise KustomizeError("has no object", file=path, line=1, remedy="write one, or delete the file")
    return objects


def files(folder: Path, reader: Reader = STRICT) -> set[Path]:
    """Every file that the kustomization of one folder names: resources, generators, patches and what these read."""
    data = load(folder, reader).data
    names = [
        *(data.get("resources") or []),
        *(data.get("components") or []),
        *(name for name in data.get("generators") or [] if "\n" not in name),
    ]
    names += [patch["path"] for patch in data.get("patches") or [] if isinstance(patch, dict) and "path" in patch]
    for generator in data.get("configMapGenerator") or []:
        names += [
            str(entry).rpartition("=")[2] for entry in (*(generator.get("files") or ()), *(generator.get("envs") or ()))
        ]
    sources = (source.file for generator in generators(folder, reader) for source in generator.sources)
    return {Path(os.path.realpath(path)) for path in (*(folder / name for name in names), *sources)}


def below(folder: Path, reader: Reader = STRICT) -> list[Document]:
    """The kustomization of a folder, and those of the folders that it lists as resources, however deep."""
    documents: dict[Path, Document] = {}
    waiting = [Path(os.path.normpath(folder))]
    while waiting:
        if (place := waiting.pop()) not in documents and (place / NAME).is_file():
            documents[place] = load(place, reader)
            entries = documents[place].data.get("resources") or ()
            waiting += [Path(os.path.normpath(place / str(entry))) for entry in entries]
    return list(documents.values())


@dataclass(frozen=True)
class Source:
    """An encrypted file that a generator reads: where it says so, in which words, and the file that this means."""

    path: tuple[Key, ...]
    text: str
    file: Path


def is_ksops(document: Document) -> bool:
    """Whether a document is a KSOPS generator."""
    return is_ksops_generator(document.data)


@dataclass(frozen=True)
class Generator:
    """A generator that a kustomization lists; `folder` is the kustomization's, from which paths are resolved."""

    folder: Path
    document: Document

    @property
    def is_ksops(self) -> bool:
        """Whether KSOPS runs it; kustomize and other programs have generators too."""
        return is_ksops(self.document)

    @property
    def sources(self) -> list[Source]:
        """The encrypted files of a KSOPS generator: of `files`, and of each Secret under `secretFrom`."""
        data = self.document.data if self.is_ksops else {}
        names: list[tuple[tuple[Key, ...], str]] = [
            (("files", index), str(name)) for index, name in enumerate(data.get("files") or ())
        ]
        for number, secret in enumerate(data.get("secretFrom") or ()):
            for field in ("files", "binaryFiles", "envs"):
                for index, name in enumerate(secret.get(field) or ()):  # files may be "key=file"
                    names.append((("secretFrom", number, field, index), str(name).rpartition("=")[2]))
        return [Source(path, name, Path(os.path.normpath(self.folder / name))) for path, name in names]


def generators(folder: Path, reader: Reader = STRICT) -> list[Generator]:
    """The generators that a kustomization lists: in files, in folders, or written into the list itself.

    Raises:
        InvalidFile: a file is missing, or not YAML.
    """
    kustomization = load(folder, reader)
    listed: list[Document] = []
    for entry in map(str, kustomization.data.get("generators") or ()):
        if "\n" in entry:
            listed += reader.parse(entry, kustomization)
        elif (folder / entry).is_dir():
            listed += resources(folder / entry, reader)
        else:
            listed += reader.read(folder / entry)
    return [Generator(folder, document) for document in listed]


def patched(document: Document, operations: Iterable[json_patch.Operation]) -> Document:
    """The document with JSON patch operations applied.

    Raises:
        Rejected: an operation does not match the document.
    """
    try:
        return document.changed(json_patch.apply(document.data, operations))
    except json_patch.PatchError as error:
        raise Rejected(
            f"a patch does not match {document.kind} {document.name}: {error}",
            system="kustomize",
            remedy="compare the patch's paths with the object",
        ) from error


def patched_by(objects: list[Document], patch: dict[str, Any], folder: Path) -> list[Document]:
    """The objects with an entry of `patches` applied.

    Raises:
        Rejected: it matches no object, or does not fit.
    """
    file = folder / NAME
    if not isinstance(patch, dict) or not (patch.get("patch") or patch.get("path")):
        remedy = "write it as {path: file, target: {kind: …, name: …}}"
        raise KustomizeError("has a patch without `patch` and without `path`", file=file, remedy=remedy)
    changes = parse_yaml(patch["patch"], file) if patch.get("patch") else _read_patch(folder / patch["path"], file)
    change = changes[0] if changes else {}
    target = patch.get("target") or _target_of(change, file)

    def is_target(document: Document) -> bool:
        values = (document.kind, document.name, document.namespace)
        return all(target.get(key, value) == value for key, value in zip(_SELECTED, values, strict=True))

    if not any(map(is_target, objects)):
        raise KustomizeError(f"patches {target}, which is not there", file=file, remedy="correct its target")
    if isinstance(change, dict) and change.get("$patch") == "delete":
        return [document for document in objects if not is_target(document)]
    return [patched(document, change) if is_target(document) else document for document in objects]


def _read_patch(path: Path, file: Path) -> list[Any]:
    if not path.is_file():
        remedy = "restore the file, or remove the patch"
        raise KustomizeError(f"has the patch {path.name}, which is not there", file=file, remedy=remedy)
    return read_yaml(path)


def _target_of(change: Any, file: Path) -> dict[str, Any]:
    """What a patch without `target` changes: the object that it names."""
    try:
        return {"kind": change["kind"], "name": change["metadata"]["name"]}
    except (KeyError, TypeError):
        remedy = "give it target: {kind: …, name: …}"
        raise KustomizeError("has a patch that names no object", file=file, remedy=remedy) from None
