"""Writes what would be applied to files, to read and compare: machine configurations, and the GitOps tree of a phase.

The live systems receive no request. Without a secrets bundle, generated secrets are used and masked, so that the files
may be shown to anybody and are the same each time.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from fluobook import gitops
from fluobook.clients import sops
from fluobook.files import read_yaml, write_text
from fluobook.gitops.build import builder
from fluobook.machine import access
from fluobook.machine.secrets import SecretsBundle, new_secrets
from fluobook.params import Params, Platform
from fluobook.redact import Redactor
from fluobook.stages.apply_talos_config import documents

SHARED, PRIVATE = 0o644, 0o600


def write_machines(params: Params, root: Path, out: Path, secrets: Path | None = None) -> list[Path]:
    """Write every node's machine configuration, the inline Cilium manifest and a talosconfig.

    Args:
        params: the phase.
        root: the repository.
        out: the folder to write to.
        secrets: a secrets bundle, encrypted with SOPS or not. With it the files hold secrets and only their owner can
            read them; without it every secret or random value in them is masked.

    Returns:
        The files, in the order of the nodes.

    Raises:
        NotFound: there is no such bundle, or the chart repository does not have Cilium's chart.
        AccessDenied: the age key does not decrypt the bundle.
        ParamsError: the bundle, a patch or the schematic is wrong.
        Unreachable: the chart repository does not answer.
    """
    platform = params.platform
    bundle = _bundle(platform, root, secrets) if secrets else new_secrets()
    identity = access.talos_client(bundle, access.ADMIN)
    redactor = Redactor()
    if not secrets:
        authorities = (bundle.talos, bundle.kubernetes, bundle.etcd, bundle.aggregator)
        redactor.add(*bundle.values(), identity.key, identity.crt, *(pair.crt for pair in authorities))
    ingredients = documents.gather(platform, root)
    by_node = documents.node_texts(platform, bundle, ingredients)
    documents.refuse_contradictions(platform, bundle, ingredients, by_node)
    texts = {f"{name}.yaml": text for name, text in by_node.items()}
    texts["cilium.yaml"] = ingredients.cilium
    endpoints = [str(node.address) for node in platform.control_planes]
    nodes = [str(node.address) for node in platform.nodes]
    config = access.talosconfig(platform.cluster.name, bundle, identity, endpoints=endpoints, nodes=nodes)
    texts["talosconfig"] = access.dump(config)
    return _write(out, {name: redactor.text(text) for name, text in texts.items()}, PRIVATE if secrets else SHARED)


def write_gitops(params: Params, root: Path, out: Path) -> list[Path]:
    """Write the GitOps tree as Argo CD sees it in a phase: root, projects, Applications, our objects.

    Encrypted values stay encrypted; charts are not rendered.

    Raises:
        ParamsError: the tree and the platform do not match.
        ToolFailed: kustomize rejects a folder.
    """
    platform = params.platform
    as_written = gitops.of(platform, root)
    tree = gitops.for_phase(platform, as_written)
    texts = {"root.yaml": _yaml([gitops.root_application(platform, as_written)])}
    texts |= {f"projects/{project.name}.yaml": _yaml([project.data]) for project in tree.projects}
    texts |= {f"applications/{app.name}.yaml": _yaml([app.document.data]) for app in tree.applications}
    with builder(root) as build:
        for app in tree.applications:
            if tree.is_ours(app):
                objects = build.build(root / app.path, app.kustomize.get("patches") or ())
                texts[f"objects/{app.name}.yaml"] = _yaml(objects)
    return _write(out, texts, SHARED)


def _bundle(platform: Platform, root: Path, file: Path) -> SecretsBundle:
    encrypted = sops.is_encrypted(file)
    data = sops.read(file, platform.secrets.age_key.resolve(root)) if encrypted else next(iter(read_yaml(file)), {})
    return SecretsBundle.parse(data)


def _yaml(objects: Iterable[dict[str, Any]]) -> str:
    return yaml.safe_dump_all(list(objects), sort_keys=False, width=1_000_000)


def _write(out: Path, texts: dict[str, str], mode: int) -> list[Path]:
    for name, text in texts.items():
        write_text(out / name, text, mode=mode)
    return [out / name for name in texts]
