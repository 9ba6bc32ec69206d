"""Builds folders of the tree with the real kustomize, to verify what `fluobook.gitops.kustomization` reads.

kubectl's kustomize runs no exec functions, so a copy of the tree is built in which KSOPS generators are legacy plugins.
The plugin here removes the SOPS metadata and leaves the values encrypted: a build needs no key and shows no secret.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fluobook.clients.tools import find, run_tool
from fluobook.files import temporary_folder, unwritable
from fluobook.gitops.kustomization import NAME
from fluobook.gitops.tree import TOPS
from fluobook.kubernetes import manifests, rendering

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PLUGIN = """import sys, yaml
generator = yaml.load(open(sys.argv[1]), yaml.BaseLoader)
documents = [each for name in generator.get("files") or [] for each in yaml.load_all(open(name), yaml.BaseLoader)]
for secret in generator.get("secretFrom") or []:
    documents.append({"apiVersion": "v1", "kind": "Secret", "metadata": secret.get("metadata") or {}})
for document in documents:
    document.pop("sops", None)
    print("---")
    print(yaml.safe_dump(document))
"""


@dataclass(frozen=True)
class Builder:
    """Builds folders of one copied repository; `home` is the copy's parent, where the plugin is too."""

    home: Path
    root: Path

    def build(self, folder: Path, patches: Sequence[dict[str, Any]] = ()) -> list[dict[str, Any]]:
        """The objects of a folder, as kustomize makes them.

        Args:
            folder: a folder of the repository.
            patches: entries of `patches`, as the root Application or a child's source would add them.

        Raises:
            ToolFailed: kustomize refuses; `detail` is what it said.
        """
        copied = self.home / "tree" / folder.relative_to(self.root)
        if patches:
            copied = self._patched(copied, patches)
        env = rendering.kustomize_environment(self.home / "plugins")
        command: list[str | Path] = [find("kubectl").path, *rendering.kustomize_build(copied)]
        text = run_tool("kubectl", command, env=env, remedy=f"correct {folder / NAME}").stdout
        return manifests.load(text)

    def _patched(self, folder: Path, patches: Sequence[dict[str, Any]]) -> Path:
        """A kustomization beside the tree that adds the patches, as Argo CD adds them to the folder's own."""
        beside = Path(tempfile.mkdtemp(dir=self.home))
        data = {"resources": [str(Path("..") / folder.relative_to(self.home))], "patches": list(patches)}
        (beside / NAME).write_text(yaml.safe_dump(data))
        return beside


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copytree(source, target, ignore=_special)
    except shutil.Error as error:  # one entry for each file
        reason = str(error.args[0][0][2]).partition("] ")[2].partition(":")[0]
        raise unwritable(target, OSError(0, reason)) from error


def _special(folder: str, names: list[str]) -> list[str]:
    """What is neither a file nor a folder: a FIFO, or a link to a folder, which may be a loop."""
    paths = {name: Path(folder) / name for name in names}
    return [name for name, path in paths.items() if not path.is_file() and (path.is_symlink() or not path.is_dir())]


@contextmanager
def builder(root: Path) -> Iterator[Builder]:
    """A builder for the kustomizations of a repository, for as long as the context lasts."""
    with temporary_folder("kustomize") as temporary:
        home = temporary.resolve()
        for top in TOPS:
            if (root / top).is_dir():
                _copy(root / top, home / "tree" / top)
        rendering.use_legacy_ksops(home / "tree")
        rendering.install_ksops(home / "plugins", _PLUGIN)
        yield Builder(home, root)
