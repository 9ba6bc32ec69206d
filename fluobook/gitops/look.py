"""What the rules of `fluobook check` look at: one repository, read once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from fluobook import params
from fluobook.errors import ParamsError
from fluobook.gitops import documents, secrets, tree
from fluobook.gitops.finding import Finding, Place

if TYPE_CHECKING:
    from pathlib import Path

    from fluobook.gitops.application import Application
    from fluobook.gitops.documents import Document, Key
    from fluobook.gitops.secrets import EncryptedFile
    from fluobook.gitops.tree import Tree
    from fluobook.params import Params


@dataclass(frozen=True)
class Look:
    """A repository to be checked.

    `root` is the repository, `path` the folder of the root Application in it.
    """

    root: Path
    path: str = tree.ROOT_PATH

    @cached_property
    def tree(self) -> Tree:
        """The tree that the root Application deploys."""
        return tree.read(self.root, self.path)

    @cached_property
    def roots(self) -> tuple[Tree, ...]:
        """The tree of every root: bootstrap, and its variants."""
        folders = (folder for folder in self.kustomizations if folder.name.startswith("bootstrap"))
        return tuple(tree.read(self.root, folder.relative_to(self.root).as_posix()) for folder in folders)

    @property
    def top(self) -> Path:
        """The folder of the GitOps tree."""
        return self.root / "cluster-gitops"

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """Every YAML file of the GitOps tree, encrypted ones too, in order."""
        return tuple(sorted(path for path in self.top.rglob("*") if path.suffix in (".yaml", ".yml")))

    @cached_property
    def documents(self) -> tuple[Document, ...]:
        """Every document of every YAML file of the GitOps tree."""
        return tuple(document for file in self.files for document in documents.read(file))

    @cached_property
    def encrypted(self) -> tuple[EncryptedFile, ...]:
        """Every file that SOPS has encrypted, or should have."""
        return secrets.encrypted_files(self.root)

    @cached_property
    def kustomizations(self) -> tuple[Path, ...]:
        """Every folder of the GitOps tree that is a kustomization."""
        return tuple(file.parent for file in self.files if file.name == "kustomization.yaml")

    @cached_property
    def deployed(self) -> tuple[tuple[Application, Document], ...]:
        """Every object that an Application deploys from a folder of ours."""
        return tuple(
            (application, document)
            for application in self.tree.applications
            for document in self.tree.deployed_by(application)
        )

    @cached_property
    def phases(self) -> dict[Path, Params | ParamsError]:
        """Each phase's params file, read; or why it cannot be."""
        return {file: _loaded(file) for file in sorted((self.root / "params").glob("phase*.yaml"))}

    @property
    def networks(self) -> tuple[IPv4Network, ...]:
        """The network of each phase, each of them once."""
        found = (one.platform.network.cidr for one in self.phases.values() if not isinstance(one, ParamsError))
        return tuple(dict.fromkeys(IPv4Network(str(cidr)) for cidr in found))

    def at(self, document: Document, *path: Key) -> Place:
        """The place of a value in a document."""
        return Place(self.root, document.file, document.line(*path))

    def told(self, document: Document, *path: Key) -> str:
        """The place of a value in a document, for a message: "cluster-gitops/projects/apps.yaml:12"."""
        place = self.at(document, *path)
        return f"{place.file.resolve().relative_to(self.root.resolve())}:{place.line}"

    def in_file(self, file: Path, line: int = 0) -> Place:
        """A place in a file."""
        return Place(self.root, file, line)


def _loaded(file: Path) -> Params | ParamsError:
    try:
        return params.load(file)
    except ParamsError as error:
        return error


__all__ = ["Finding", "Look", "Place"]
