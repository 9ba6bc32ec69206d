"""Builds a kustomization with `kubectl kustomize`, as the repo-server does with its own kustomize."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluobook.kubernetes import manifests, rendering
from fluobook_lab.argocd import ksops
from fluobook_lab.argocd.processes import CommandError

if TYPE_CHECKING:
    from fluobook_lab.argocd.processes import Programs, Runner
    from fluobook_lab.argocd.settings import Settings
    from fluobook_lab.kube.objects import Obj

EXEC = "--enable-exec"
COPIED = (
    "namePrefix",
    "nameSuffix",
    "namespace",
    "images",
    "replicas",
    "components",
    "commonAnnotations",
    "commonLabels",
)


def is_kustomization(folder: Path) -> bool:
    """Whether Argo CD would build this folder with kustomize."""
    return any((folder / name).exists() for name in rendering.KUSTOMIZATIONS)


@dataclass(frozen=True)
class Build:
    """What is to be built.

    Args:
        tree: the checkout, made ready by `use_legacy_ksops`.
        path: the kustomization's folder in it.
        source: `spec.source.kustomize` of the Application.
        settings: build options, the age key.
    """

    tree: Path
    path: str
    source: dict[str, Any]
    settings: Settings

    @property
    def folder(self) -> Path:
        """The kustomization's folder."""
        return self.tree / self.path


async def build(order: Build, *, programs: Programs, runner: Runner) -> list[Obj]:
    """The documents of a kustomization.

    Args:
        order: what to build.
        programs: kubectl and sops.
        runner: runs them.

    Raises:
        CommandError: kustomize, KSOPS or sops refused; or the documents are not as many as the files listed.
    """
    path, settings = order.path, order.settings
    encrypted = ksops.files(order.folder)
    if encrypted and not {rendering.ALPHA_PLUGINS, EXEC} <= set(settings.build_options):
        missing = " ".join(sorted({rendering.ALPHA_PLUGINS, EXEC} - set(settings.build_options)))
        why = f"Error: KSOPS needs {missing} in kustomize.buildOptions"
        raise CommandError(f"`kustomize build {path}` failed exit status 1: {why}")
    home = runner.home / ("plugins" if settings.has_ksops else "no-plugins")
    if settings.has_ksops:
        ksops.install(home)
    log = Path(tempfile.mktemp(dir=runner.home, prefix="ksops-"))  # noqa: S306  in a folder of our own
    env = {
        **rendering.kustomize_environment(home),
        "FLUOBOOK_SOPS": str(programs.sops),
        "FLUOBOOK_KSOPS_LOG": str(log),
        "SOPS_AGE_KEY": settings.age_key,
    }
    flags = [option for option in settings.build_options if option != EXEC]
    target = overlay(order.tree, path, order.source) if order.source else order.folder
    command: list[str | Path] = [programs.kubectl, *rendering.kustomize_build(target, flags)]
    text = await runner.run(command, env=env, name=f"kustomize build {path}")
    _counted(log, len(encrypted), path)
    return manifests.load(text)


def _counted(log: Path, expected: int, path: str) -> None:
    """Kustomize drops a generator that it does not know without a word: what came back is counted.

    Raises:
        CommandError: fewer files were decrypted than are listed.
    """
    decrypted = len(log.read_text().splitlines()) if log.exists() else 0
    log.unlink(missing_ok=True)
    if decrypted != expected:
        raise CommandError(f"KSOPS decrypted {decrypted} of {expected} files in {path}")


def overlay(tree: Path, path: str, source: dict[str, Any]) -> Path:
    """A kustomization over the one at `path`, with what the Application sets itself (patches, images, names…)."""
    name = hashlib.sha256(json.dumps([path, source], sort_keys=True).encode()).hexdigest()[:16]
    folder = tree / ".argocd" / name
    folder.mkdir(parents=True, exist_ok=True)
    wanted: dict[str, Any] = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    wanted["resources"] = [f"../../{path}"]
    wanted |= {key: source[key] for key in COPIED if key in source}
    if "images" in source:
        wanted["images"] = [_image(text) for text in source["images"]]
    if "patches" in source:
        wanted["patches"] = source["patches"]
    (folder / "kustomization.yaml").write_text(json.dumps(wanted))
    return folder


def _image(text: str) -> dict[str, str]:
    """An entry of `images` from "name=new:tag" or "name:tag"."""
    name, _, new = text.rpartition("=")
    image, _, tag = (new or text).rpartition(":")
    return {"name": name or image, "newName": image, "newTag": tag}
