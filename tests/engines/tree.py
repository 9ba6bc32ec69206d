"""The platform tree as tests change it: in a copy before a lab serves it, or by a push to the lab's Git host."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from fluobook_lab.environment import SERVED_TREE

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
ARGOCD = "cluster-gitops/infrastructure/argocd/application.yaml"
POLICIES = "cluster-gitops/infrastructure/network-policies"
HEALTH = "resource.customizations.health.argoproj.io_Application"
WIDGET = {"apiVersion": "example.org/v1", "kind": "Widget", "metadata": {"name": "planted", "namespace": "default"}}


def copied(folder: Path) -> Path:
    """A copy of the tree and the params, to be changed."""
    folder.mkdir()
    for name in (*SERVED_TREE, "params"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name)
        else:
            shutil.copy(source, folder / name)
    return folder


def without_health_check(root: Path) -> Path:
    """Argo CD does not know how healthy an Application is."""
    path = root / ARGOCD
    document = yaml.safe_load(path.read_text())
    del document["spec"]["source"]["helm"]["valuesObject"]["configs"]["cm"][HEALTH]
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return root


def with_what_cannot_be_synced(root: Path) -> Path:
    """Wave -3 holds an object of a kind that there is not; it is tried once, where the tree would try for an hour."""
    (root / POLICIES / "planted.yaml").write_text(yaml.safe_dump(WIDGET))
    listing = root / POLICIES / "kustomization.yaml"
    listing.write_text(listing.read_text() + "  - planted.yaml\n")
    application = root / POLICIES / "application.yaml"
    application.write_text(application.read_text().replace("limit: 10", "limit: 0"))
    return root


def without_it(root: Path) -> None:
    """The mistake is mended."""
    (root / POLICIES / "planted.yaml").unlink()
    listing = root / POLICIES / "kustomization.yaml"
    listing.write_text(listing.read_text().replace("  - planted.yaml\n", ""))


def push(url: str, folder: Path, change: Callable[[Path], object]) -> str:
    """Clone, change, commit and push, as a person does; the commit's id."""

    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=somebody", "-c", "user.email=somebody@example.org", *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200, check=True)
        return done.stdout.strip()

    folder.mkdir()
    git("clone", "-q", url, ".")
    change(folder)
    git("add", "-A")
    git("commit", "-q", "-m", "a change")
    git("push", "-q", "origin", "HEAD")
    return git("rev-parse", "HEAD")
