"""YAML files as data with line numbers, so that a finding can name the place."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fluobook.clients.answers import without_credentials
from fluobook.errors import BadFile, Rejected
from fluobook.files import INVALID, invalid, parse_yaml, read_text, require_yaml
from fluobook.kubernetes.manifests import KubernetesLoader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Key = str | int
Defect = tuple[tuple[Key, ...], str, str]
"""The path of a value, what is wrong with it, and the remedy."""


class InvalidFile(Rejected):
    """A file of the tree is invalid: `file`, `line` (0: the whole file), and the `problem` there."""

    def __init__(
        self, message: str, *, file: Path, line: int = 0, system: str = "yaml", detail: str = "", remedy: str
    ) -> None:
        place = f"{file}:{line}" if line else str(file)
        super().__init__(f"{place} {message}", system=system, detail=detail, remedy=remedy)
        self.problem = message
        self.file = file
        self.line = line


class Incomplete(InvalidFile):
    """A part of the tree is missing because of it: what is missing there is a consequence."""


@dataclass(frozen=True, order=True)
class Finding:
    """One defect of the repository.

    `file` is relative to the repository, `line` counts from 1 (0: the file as a whole), `rule` is a key of `RULES`.
    """

    file: str
    line: int
    rule: str
    message: str
    remedy: str

    def line_of_text(self) -> str:
        """The finding on one line, for a terminal: place, rule, message, remedy."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: [{self.rule}] {self.message}; {self.remedy}"


@dataclass(frozen=True)
class Position:
    """A file and a line in it."""

    file: Path
    line: int = 0

    def __str__(self) -> str:
        """File and line, as a finding has them."""
        return f"{self.file}:{self.line}"

    def finding(self, message: str, remedy: str, rule: str = "") -> Finding:
        """A finding at this position; `fluobook.gitops.check` fills in the rule, and makes paths relative.

        It never shows the user information of a URL.
        """
        return Finding(str(self.file), self.line, rule, *map(without_credentials, (message, remedy)))


@dataclass(frozen=True)
class Document:
    """One YAML document: its file, its data, and the line of each part."""

    file: Path
    data: dict[str, Any]
    node: yaml.Node = field(repr=False, compare=False)

    @property
    def kind(self) -> str:
        """The object's kind, "" if it has none."""
        return str(self.data.get("kind", ""))

    @property
    def name(self) -> str:
        """metadata.name, "" if it has none."""
        return str((self.data.get("metadata") or {}).get("name", ""))

    @property
    def namespace(self) -> str:
        """metadata.namespace, "" if it has none."""
        return str((self.data.get("metadata") or {}).get("namespace", ""))

    @property
    def group(self) -> str:
        """The API group, "" for the core group."""
        group, slash, _ = str(self.data.get("apiVersion", "")).partition("/")
        return group if slash else ""

    @property
    def annotations(self) -> dict[str, str]:
        """metadata.annotations, empty if there are none."""
        return (self.data.get("metadata") or {}).get("annotations") or {}

    def line(self, *path: Key) -> int:
        """The line (from 1) of the value at `path`; of its nearest ancestor if there is no such value."""
        node, line = self.node, self.node.start_mark.line
        for step in path:
            child = _child(node, step)
            if child is None:
                break
            node, line = child
        return line + 1

    def at(self, *path: Key) -> Position:
        """The position of the value at `path`."""
        return Position(self.file, self.line(*path))

    def changed(self, data: dict[str, Any]) -> Document:
        """The same document with other data; the lines are still those of the file."""
        return replace(self, data=data)

    def made(self, data: dict[str, Any], *path: Key) -> Document:
        """An object that is generated from the value at `path`; the lines of its metadata are those of that value."""
        node = self.node
        for step in path:
            child = _child(node, step)
            node = child[0] if child else node
        key = yaml.ScalarNode("tag:yaml.org,2002:str", "metadata", node.start_mark)
        return Document(self.file, data, yaml.MappingNode(node.tag, [(key, node)], node.start_mark))

    def moved(self, file: Path) -> Document:
        """The same document in another file."""
        return replace(self, file=file)


def read(file: Path) -> list[Document]:
    """The documents of a file that are mappings, in their order.

    Raises:
        InvalidFile: the file is missing or not YAML.
    """
    try:
        return [document.moved(file) for document in parsed(read_text(file))]
    except BadFile as error:
        raise InvalidFile(error.problem, file=file, line=error.line, remedy=error.remedy) from error


class Reader:
    """Reads the files of a tree; the first invalid one ends it. `fluobook check` has a reader that continues.

    Args:
        refused: what was invalid, by its message.
        built: what kustomize made of folders.
        emptied: files and lines where a value is empty instead of wrong: other findings there are consequences.
    """

    def __init__(self) -> None:
        self.refused: dict[str, InvalidFile] = {}
        self.emptied: set[tuple[Path, int]] = set()
        self.built: dict[Path, list[Document]] = {}

    def read(self, file: Path) -> list[Document]:
        """The documents of a file; see `read`."""
        return read(file)

    def parse(self, text: str, document: Document) -> list[Document]:
        """The documents in a text that is a value of a document; they get its lines."""
        data = (data for data in parse_yaml(text, document.file, loader=KubernetesLoader) if isinstance(data, dict))
        return [document.changed(each) for each in data]

    def keep(self, folder: Path, objects: list[Document]) -> None:
        """Keep what kustomize made of a folder; here nothing is kept, since files change."""

    def refuse(self, error: InvalidFile) -> None:
        """Handle what is invalid: here it is raised."""
        raise error


STRICT = Reader()


def walk(data: Any, above: tuple[Key, ...] = ()) -> Iterator[tuple[tuple[Key, ...], Key, Any]]:
    """Every value below some data: its path, its own key or index, and the value."""
    pairs: Iterable[tuple[Key, Any]] = ()
    if isinstance(data, dict):
        pairs = data.items()
    elif isinstance(data, list):
        pairs = enumerate(data)
    for key, value in pairs:
        yield (*above, key), key, value
        yield from walk(value, (*above, key))


def value_under(data: Any, path: Sequence[Key]) -> Any:
    """The value at a path of keys and indexes; None where there is none."""
    for step in path:
        if isinstance(data, list) and isinstance(step, int):
            data = data[step] if step < len(data) else None
        else:
            data = data.get(step) if isinstance(data, dict) else None
    return data


def values_at(data: Any, path: Sequence[Key], above: tuple[Key, ...] = ()) -> Iterator[tuple[tuple[Key, ...], Any]]:
    """Every value at a path with its own path; * in the path stands for every key or index."""
    if not path:
        yield above, data
        return
    pairs: Iterable[tuple[Key, Any]] = enumerate(data) if isinstance(data, list) else ()
    if isinstance(data, dict):
        pairs = data.items()
    for key, value in pairs:
        if path[0] in ("*", key):
            yield from values_at(value, path[1:], (*above, key))


_POD_PATHS: dict[str, tuple[Key, ...]] = {
    "Pod": ("spec",),
    "CronJob": ("spec", "jobTemplate", "spec", "template", "spec"),
}


def pod_path(document: Document) -> tuple[Key, ...]:
    """The path of the pod's spec in a workload of Kubernetes' own, its kind misspelt or not; () in any other object."""
    path = _POD_PATHS.get(document.kind, ("spec", "template", "spec"))
    is_workload = document.group in ("apps", "batch") or (document.group, document.kind) == ("", "Pod")
    return path if is_workload and isinstance(value_under(document.data, path), dict) else ()


def issuer_of(document: Document) -> tuple[str, str, str]:
    """Kind, namespace ("" for a ClusterIssuer) and name of the issuer of a Certificate, an Ingress or a Gateway."""
    reference = value_under(document.data, ("spec", "issuerRef")) or {}
    own, shared = (document.annotations.get(f"cert-manager.io/{name}") for name in ("issuer", "cluster-issuer"))
    kind = str(reference.get("kind") or ("ClusterIssuer" if shared else "Issuer"))
    namespace = "" if kind == "ClusterIssuer" else document.namespace
    return kind, namespace, str(reference.get("name") or own or shared or "")


@lru_cache(maxsize=2048)
def _refusal(text: str) -> BadFile | None:
    """What `require_yaml` has against a text; a large one is refused again and again."""
    try:
        require_yaml(text, "the file")
    except BadFile as error:
        return error
    return None


def require(text: str) -> None:
    """As `require_yaml`, once for each text."""
    if error := _refusal(text):
        raise BadFile(error.path, error.problem, line=error.line, remedy=error.remedy)


def parse(text: str, file: Path) -> Iterator[Document]:
    """The documents of a text that are mappings, in their order.

    Raises:
        BadFile: the text is not YAML.
    """
    require(text)
    loader = KubernetesLoader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            data = loader.construct_document(node) if node else None
            if node and isinstance(data, dict):
                yield from _items(Document(file, data, node))
    except INVALID as error:
        raise invalid(file, "YAML", error, text) from None
    finally:
        loader.dispose()


@lru_cache(maxsize=2048)
def parsed(text: str) -> tuple[Document, ...]:
    """The documents of a text, read once; they name no file, and nobody may change their data."""
    return tuple(parse(text, Path("the file")))


def _items(document: Document) -> Iterator[Document]:
    """The objects of a `List`, which kubectl and kustomize split; else the document itself."""
    items = document.data.get("items")
    if document.kind != "List" or not isinstance(items, list):
        yield document
        return
    child = _child(document.node, "items")
    nodes = child[0].value if child else []
    yield from (
        Document(document.file, item, node) for item, node in zip(items, nodes, strict=False) if isinstance(item, dict)
    )


def _child(node: yaml.Node, step: Key) -> tuple[yaml.Node, int] | None:
    """The value under a key or an index, and the line of that key or item."""
    if isinstance(node, yaml.MappingNode):
        pairs = ((key, value) for key, value in node.value if key.value == str(step))
        return next(((value, key.start_mark.line) for key, value in pairs), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step].start_mark.line
    return None
