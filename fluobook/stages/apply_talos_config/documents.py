"""Machine configurations: how a node's is generated, and what must not be in it.

Patches are merged last, over what is generated from params and secrets, and much of what they can break shows late or
never: a cluster without an encryption key stores Secrets in plaintext and still runs; a service account key of another
cluster fails only when a second control plane is asked; pod and service networks cannot be changed afterwards. Pure,
except that helm renders Cilium.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml
from cryptography import x509

from fluobook import gitops
from fluobook.cluster_secrets import ClusterSecrets
from fluobook.context import RunContext
from fluobook.errors import PHASE, ParamsError, Refused
from fluobook.files import read_text
from fluobook.gitops.versions import unsupported
from fluobook.machine import generate, pki
from fluobook.machine.contracts import fold, value_at
from fluobook.machine.contradictions import contradictions_of_params
from fluobook.machine.documents import dump, load
from fluobook.machine.node import (
    kubernetes_endpoint,
    node_documents,
    patch_problems,
    patches_by_path,
    read_patches,
)
from fluobook.machine.schematic import image_of
from fluobook.machine.secrets import SecretsBundle
from fluobook.params import KUBERNETES_PORT, TALOS_PORT, Node, Platform


@dataclass(frozen=True)
class Ingredients:
    """What goes into every node's configuration besides params and secrets.

    Args:
        patches: the patches by their paths, in the order in which they apply.
        installer: the installer image.
        cilium: the inline manifest.
    """

    patches: dict[str, str]
    installer: str
    cilium: str

    def digest(self) -> str:
        """A hash of all of it, for the plan: a changed patch makes another plan."""
        content = [*(f"{path}\n{text}" for path, text in self.patches.items()), self.installer, self.cilium]
        return hashlib.sha256("\0".join(content).encode()).hexdigest()[:12]


class Configurations:
    """Every node's configuration. The texts contain secrets; they are generated at first use. Safe for threads.

    Args:
        platform: the params.
        root: the repository.
        secrets: give the bundle, once it exists.
    """

    def __init__(self, platform: Platform, root: Path, secrets: ClusterSecrets) -> None:
        self.ingredients = gather(platform, root)
        self._platform, self._secrets = platform, secrets
        self._lock = threading.Lock()
        self._texts: list[tuple[SecretsBundle, dict[str, str]]] = []

    @classmethod
    def of(cls, context: RunContext) -> Self:
        """Those of a run, which all its threads share: rendering takes a moment."""
        return context.shared(cls, lambda: cls(context.platform, context.root, context.secrets))

    def text(self, node: Node, bundle: SecretsBundle | None = None) -> str:
        """The configuration of a node as YAML.

        Args:
            node: the node.
            bundle: other secrets than the cluster's: those of another phase of a rotation.

        Raises:
            ParamsError: a node's configuration contradicts the params or the bundle.
        """
        bundle = bundle or self._secrets.bundle()
        with self._lock:
            texts = next((made for secrets, made in self._texts if secrets == bundle), None)
            if texts is None:
                texts = node_texts(self._platform, bundle, self.ingredients)
                refuse_contradictions(self._platform, bundle, self.ingredients, texts)
                self._texts.append((bundle, texts))
            return texts[node.name]


def gather(platform: Platform, root: Path) -> Ingredients:
    """Read the patches and the schematic, and render Cilium from its Application.

    Raises:
        ParamsError: Talos would refuse a patch, or it has no effect.
    """
    patches = read_patches(platform, root)
    if problems := tuple(f"{path}: {problem}" for path, problem in patch_problems(platform, patches)):
        remedy = "correct it; `fluobook check` lists every problem"
        raise ParamsError("Talos would refuse a patch", problems=problems, remedy=remedy)
    image = image_of(read_text(root / "talos" / "schematic.yaml"), platform.versions.talos)
    return Ingredients(patches, image.installer, cilium_manifest(platform, root))


def cilium_manifest(platform: Platform, root: Path) -> str:
    """The inline manifest: the chart, version and values of the Application `cilium`, as the phase sees it.

    Raises:
        Refused: that version does not support the platform's version of Kubernetes.
    """
    tree = gitops.for_phase(platform, gitops.of(platform, root))
    source = gitops.chart_source(tree, "cilium")
    for each in unsupported(platform, [tree.application("cilium")]):
        raise Refused(each.reason, cause="the network of every pod is Cilium's", remedy=each.remedy)
    objects = gitops.render_chart(platform, source)
    return yaml.safe_dump_all(objects, sort_keys=False, width=1_000_000)


def node_texts(platform: Platform, secrets: SecretsBundle, ingredients: Ingredients) -> dict[str, str]:
    """The complete configuration of every node as YAML, by name. They contain secrets."""
    generated = generate(
        platform.cluster.name,
        kubernetes_endpoint(platform),
        platform.versions.kubernetes,
        secrets,
        install_image=ingredients.installer,
        contract=platform.versions.contract,
    )
    return {
        node.name: dump(
            node_documents(
                generated,
                platform,
                node,
                patches=list(patches_by_path(node, ingredients.patches).values()),
                cert_sans=_further_names(platform, node),
                inline_manifests={"cilium": ingredients.cilium} if node.role == "controlplane" else None,
            )
        )
        for node in platform.nodes
    }


def _further_names(platform: Platform, node: Node) -> list[str]:
    """Further names in a node's certificates: the shared address, and where params map its endpoints to."""
    names = [platform.route(node.address, TALOS_PORT)[0]]
    if node.role == "controlplane":
        addresses = (node.address, platform.api_address)
        mapped = [platform.route(address, KUBERNETES_PORT)[0] for address in addresses]
        names = [platform.api_address, *names, *mapped]
    return [name for name in dict.fromkeys(names) if name != node.address]


Main = dict[str, Any]


def refuse_contradictions(
    platform: Platform, secrets: SecretsBundle, ingredients: Ingredients, texts: Mapping[str, str]
) -> None:
    """Refuse configurations that cannot be right, before any node has one.

    Args:
        platform: the params.
        secrets: the bundle.
        ingredients: what else went into them.
        texts: every node's configuration as YAML.

    Raises:
        ParamsError: at least one contradicts the params or the bundle; all that do are named, no secret value is.
    """
    concerned: dict[str, list[str]] = {}
    for node in platform.nodes:
        for problem in contradictions(platform, node, secrets, ingredients, texts[node.name]):
            concerned.setdefault(problem, []).append(node.name)
    problems = [f"{', '.join(nodes)}: {problem}" for problem, nodes in concerned.items()]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ParamsError(
            f"the machine configuration of {problems[0]}{more}",
            problems=tuple(problems) if more else (),
            cause="a file in talos/patches overrides it, or the secrets are another cluster's",
            remedy=f"correct talos/patches, then inspect the documents: `fluobook render {PHASE} --out build`",
        )


def contradictions(
    platform: Platform, node: Node, secrets: SecretsBundle, ingredients: Ingredients, text: str
) -> Iterator[str]:
    """What is wrong with one node's configuration, by the names of its fields."""
    documents = load(text)
    main: Main = fold(documents)
    yield from _of_the_bundle(main, node, secrets)
    yield from contradictions_of_params(documents, platform, node)
    certificates = ["machine.certSANs"]
    if node.role == "controlplane":
        certificates.append("cluster.apiServer.certSANs")
        inline = value_at(main, "cluster.inlineManifests") or ()
        manifests = [manifest.get("contents") for manifest in inline if manifest.get("name") == "cilium"]
        if manifests != [ingredients.cilium]:
            problem = (
                "is not what its Application renders to" if manifests else "is missing: no node would become Ready"
            )
            yield f"cluster.inlineManifests: cilium {problem}"
    for path in certificates:
        if missing := [name for name in _further_names(platform, node) if name not in (value_at(main, path) or ())]:
            yield f"{path} lacks {', '.join(missing)}: certificates would not be valid for the params' endpoint"


def _of_the_bundle(main: Main, node: Node, secrets: SecretsBundle) -> Iterator[str]:
    """Every secret has one value in the whole cluster."""
    wanted = {
        "machine.token": secrets.trustd_token,
        "cluster.id": secrets.cluster_id,
        "cluster.secret": secrets.cluster_secret,
        "cluster.token": secrets.bootstrap_token,
    }
    pairs = {"machine.ca": secrets.talos, "cluster.ca": secrets.kubernetes}
    if node.role == "controlplane":
        wanted["cluster.secretboxEncryptionSecret"] = secrets.secretbox_encryption_secret
        wanted["cluster.aescbcEncryptionSecret"] = secrets.aescbc_encryption_secret
        wanted["cluster.serviceAccount.key"] = secrets.as_mapping()["certs"]["k8sserviceaccount"]["key"]
        pairs |= {"cluster.aggregatorCA": secrets.aggregator, "cluster.etcd.ca": secrets.etcd}
    for path, pair in pairs.items():
        yield from _authority(path, pki.certificate(pair.crt))
        encoded = pair.to_base64()
        wanted |= {f"{path}.crt": encoded["crt"], f"{path}.key": encoded["key"] if node.role == "controlplane" else ""}
    for path, value in wanted.items():
        actual = value_at(main, path) or ""
        if actual != value:
            yield f"{path} {'is not that of' if actual else 'is missing, unlike in'} the secrets bundle"


def _authority(path: str, ca: x509.Certificate) -> Iterator[str]:
    """A bundle may be old, or made by hand."""
    if ca.not_valid_after_utc < dt.datetime.now(dt.UTC):
        yield f"{path}.crt expired at {ca.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, and so did the secrets bundle's"
    try:
        can_sign = ca.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        can_sign = False
    if not can_sign:
        yield f"{path}.crt is no certificate authority's, nor is it in the secrets bundle"
