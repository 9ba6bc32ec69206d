"""Command lines and environments for `helm template` and `kubectl kustomize`; callers run them in their own way."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from fluobook.errors import BadFile
from fluobook.files import parse_yaml, read_text

ALPHA_PLUGINS = "--enable-alpha-plugins"
KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")
"""The file names that make a folder a kustomization."""
FUNCTION = "config.kubernetes.io/function"
"""The annotation that makes a generator an exec function."""


def chart_arguments(chart: str, repo: str, version: str, ca_file: Path | None = None) -> list[str]:
    """The arguments that name a chart; an OCI registry has no index and is part of the name."""
    trust = ["--ca-file", str(ca_file)] if ca_file else []
    if repo.startswith("oci://"):
        return [f"{repo.rstrip('/')}/{chart}", "--version", version, *trust]
    return [chart, "--repo", repo, "--version", version, *trust]


def helm_template(
    chart: Sequence[str],
    *,
    release: str,
    namespace: str,
    kube_version: str,
    api_versions: Sequence[str] = (),
    include_crds: bool = True,
    further: Iterable[str] = (),
) -> list[str]:
    """The arguments of `helm template`, as Argo CD renders a chart; the values come on standard input, as JSON.

    Args:
        chart: the arguments that name it: a folder, or `chart_arguments`.
        release: the release's name.
        namespace: the release's namespace.
        kube_version: the Kubernetes version that the chart sees ("1.35.4").
        api_versions: APIs that the chart sees ("monitoring.coreos.com/v1").
        include_crds: with the chart's crds/ folder.
        further: more options.
    """
    flags = ["--namespace", namespace, "--kube-version", kube_version]
    flags += [f"--api-versions={api}" for api in api_versions]
    flags += ["--include-crds"] if include_crds else []
    return ["template", release, *chart, *flags, *further, "--values", "-"]


def helm_environment(home: Path) -> dict[str, str]:
    """Helm's own folders below `home`, so that the user's repositories and settings have no effect."""
    return {f"HELM_{kind.upper()}_HOME": str(home / kind) for kind in ("cache", "config", "data")}


def kustomize_build(folder: Path, options: Sequence[str] = (ALPHA_PLUGINS,)) -> list[str]:
    """The arguments of kubectl that build a folder."""
    return ["kustomize", str(folder), *options]


def kustomize_environment(plugins: Path) -> dict[str, str]:
    """The environment in which kustomize finds the plugins that `install_ksops` installed."""
    return {"KUSTOMIZE_PLUGIN_HOME": str(plugins)}


def is_ksops_generator(document: Any) -> bool:
    """Whether a document is a KSOPS generator."""
    return (
        isinstance(document, dict)
        and document.get("kind") == "ksops"
        and "viaduct.ai/" in str(document.get("apiVersion", ""))
    )


def use_legacy_ksops(tree: Path) -> None:
    """Make every KSOPS generator below a folder a legacy plugin.

    Argo CD needs them as exec functions. kubectl cannot run those: it answers with no document and exit code 0.
    """
    for file in tree.rglob("*.y*ml"):
        try:
            text = read_text(file)
            documents = parse_yaml(text, file) if "viaduct.ai/" in text else []
        except BadFile:
            continue  # kustomize reports it
        documents = [document for document in documents if document is not None]
        generators = [document for document in documents if is_ksops_generator(document)]
        for generator in generators:
            (generator["metadata"].get("annotations") or {}).pop(FUNCTION, None)
        if generators:
            file.write_text(yaml.safe_dump_all(documents, sort_keys=False))


def install_ksops(plugins: Path, source: str) -> None:
    """Write a Python program where kustomize looks for the KSOPS plugin."""
    program = plugins / "viaduct.ai" / "v1" / "ksops" / "ksops"
    program.parent.mkdir(parents=True, exist_ok=True)
    script = program.with_suffix(".py")
    script.write_text(source)
    # `#!` would break at a space in the path of Python, or at its 127th character
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(script))} "$@"\n')
    program.chmod(0o755)
