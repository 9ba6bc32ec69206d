"""KSOPS without Argo CD's own kustomize: the tree is made ready so that `kubectl kustomize` decrypts too.

The tree carries the form that Argo CD needs: a generator with an exec-function annotation. `kubectl kustomize` answers
that with no documents and exit code 0, since it cannot run functions. So the copy it builds has the annotation taken
out, which makes the generator a legacy plugin (`ksops_plugin.py`); and whoever builds counts what came back.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from fluobook.kubernetes.rendering import KUSTOMIZATIONS, install_ksops, is_ksops_generator

PLUGIN = Path(__file__).with_name("ksops_plugin.py")


def install(home: Path) -> None:
    """Put the plugin where kustomize looks for it, below `home` (`KUSTOMIZE_PLUGIN_HOME`)."""
    install_ksops(home, PLUGIN.read_text())


def remove(home: Path) -> None:
    """Take it away again, as for a repo-server without ksops."""
    shutil.rmtree(home / "viaduct.ai", ignore_errors=True)


def files(folder: Path) -> list[Path]:
    """The encrypted files that a kustomization's generators list, those of its bases included."""
    found: list[Path] = []
    kustomization = next((folder / name for name in KUSTOMIZATIONS if (folder / name).exists()), None)
    told = yaml.safe_load(kustomization.read_text()) if kustomization else None
    if not isinstance(told, dict):
        return found
    for name in told.get("generators") or ():
        if "\n" not in name and (folder / name).is_file():
            for document in filter(is_ksops_generator, _documents((folder / name).read_text())):
                found += [folder / listed for listed in document.get("files") or ()]
        elif "\n" not in name and (folder / name).is_dir():
            found += files(folder / name)
    for key in ("resources", "bases", "components"):
        for name in told.get(key) or ():
            if (folder / name).is_dir():
                found += files(folder / name)
    return found


def _documents(text: str) -> list[Any]:
    try:
        return [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError:
        return []
