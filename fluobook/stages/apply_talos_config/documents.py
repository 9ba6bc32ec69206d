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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import yaml
from cryptography import x509

from fluobook import gitops
from fluobook.errors import ParamsError
from fluobook.files import read_text
from fluobook.gitops.documents import value_under
from fluobook.machine import generate, pki
from fluobook.machine.documents import dump, load
from fluobook.machine.node import (
    node_documents,
    patch_problems,
    patches_of,
    read_patches,
    subnets_contain,
    volume_problems,
)
from fluobook.machine.schematic import image_of
from fluobook.params import KUBERNETES_PORT, TALOS_PORT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from fluobook.cluster_secrets import ClusterSecrets
    from fluobook.context import RunContext
    from fluobook.machine.secrets import SecretsBundle
    from fluobook.params import Node, Platform


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
        self._texts: dict[str, str] = {}

    @classmethod
    def of(cls, context: RunContext) -> Self:
        """Those of a run, which all its threads share: rendering takes a moment."""
        return context.shared(cls, lambda: cls(context.platform, context.root, context.secrets))

    def text(self, node: Node) -> str:
        """The configuration of a node as YAML.

        Raises:
            ParamsError: a node's configuration contradicts the params or the bundle.
        """
        with self._lock:
            if not self._texts:
                bundle = self._secrets.bundle()
                texts = node_texts(self._platform, bundle, self.ingredients)
                refuse_contradictions(self._platform, bundle, self.ingredients, texts)
                self._texts = texts
            return self._texts[node.name]


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
    """The inline manifest: the chart, version and values of the Application `cilium`, as the phase sees it."""
    tree = gitops.for_phase(platform, gitops.of(platform, root))
    objects = gitops.render_chart(platform, gitops.chart_source(tree, "cilium"))
    return yaml.safe_dump_all(objects, sort_keys=False, width=1_000_000)


def node_texts(platform: Platform, secrets: SecretsBundle, ingredients: Ingredients) -> dict[str, str]:
    """The complete configuration of every node as YAML, by name. They contain secrets."""
    generated = generate(
        platform.cluster.name,
        _endpoint(platform),
        platform.versions.kubernetes,
        secrets,
        install_image=ingredients.installer,
    )
    return {
        node.name: dump(
            node_documents(
                generated,
                platform,
                node,
                patches=patches_of(node, ingredients.patches),
                cert_sans=_further_names(platform, node),
                inline_manifests={"cilium": ingredients.cilium} if node.role == "controlplane" else None,
            )
        )
        for node in platform.nodes
    }


def _endpoint(platform: Platform) -> str:
    return f"https://{platform.api_address}:{KUBERNETES_PORT}"


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
            remedy="correct talos/patches, then inspect the documents: `fluobook render PHASE --out build`",
        )


def contradictions(
    platform: Platform, node: Node, secrets: SecretsBundle, ingredients: Ingredients, text: str
) -> Iterator[str]:
    """What is wrong with one node's configuration, by the names of its fields."""
    documents = load(text)
    main: Main = next((document for document in documents if not document.get("kind")), {})
    yield from _of_the_bundle(main, node, secrets)
    yield from _of_the_params(main, platform, node)
    hostnames = [document.get("hostname") for document in documents if document.get("kind") == "HostnameConfig"]
    if hostnames != [node.name]:
        yield f"HostnameConfig gives the name {_shown(hostnames)}; the params say {node.name}"
    yield from _shared_address(documents, platform, node)
    yield from volume_problems(documents, node)
    certificates = ["machine.certSANs"]
    if node.role == "controlplane":
        certificates.append("cluster.apiServer.certSANs")
        yield from _of_the_control_plane(main, platform, node, ingredients)
    for path in certificates:
        if missing := [name for name in _further_names(platform, node) if name not in (_at(main, path) or ())]:
            yield f"{path} lacks {', '.join(missing)}: certificates would not be valid for the params' endpoint"


def _shared_address(documents: Iterable[Main], platform: Platform, node: Node) -> Iterator[str]:
    """The control planes' shared address is on the interface with the node's MAC address; workers have none."""
    wanted = [str(platform.network.vip)] if platform.network.vip and node.role == "controlplane" else []
    of_kind: dict[str, list[Main]] = {"Layer2VIPConfig": [], "LinkAliasConfig": []}
    for document in documents:
        of_kind.get(str(document.get("kind")), []).append(document)
    vips = of_kind["Layer2VIPConfig"]
    if (addresses := [vip.get("name") for vip in vips]) != wanted:
        yield f"Layer2VIPConfig gives the address {_shown(addresses)}; the params say {_shown(wanted)}"
    links = {alias.get("name"): str(value_under(alias, ["selector", "match"])) for alias in of_kind["LinkAliasConfig"]}
    for vip in vips:
        if (link := vip.get("link")) in links and node.mac.lower() not in links[link].lower():
            yield f"LinkAliasConfig {link} does not choose the interface with the MAC address {node.mac.lower()}"


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
        actual = _at(main, path) or ""
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


def _of_the_params(main: Main, platform: Platform, node: Node) -> Iterator[str]:
    """What every node has from the params."""
    wanted = {
        "machine.type": node.role,
        "cluster.clusterName": platform.cluster.name,
        "cluster.controlPlane.endpoint": _endpoint(platform),
        "cluster.network.dnsDomain": "cluster.local",  # the tree's own URLs end in it
        "cluster.network.podSubnets": [str(platform.cluster.pod_cidr)],
        "cluster.network.serviceSubnets": [str(platform.cluster.service_cidr)],
    }
    for path, value in wanted.items():
        if (actual := _at(main, path)) != value:
            yield f"{path} is {_shown(actual)}; the params say {_shown(value)}"
    if _at(main, "machine.install.disk") and _at(main, "machine.install.diskSelector"):
        yield "machine.install.disk has no effect beside diskSelector; name the disk in the params (vm.install_disk)"
    yield from _version(main, "machine.kubelet.image", platform)
    yield from _subnets(main, "machine.kubelet.nodeIP.validSubnets", str(node.address))
    if _at(main, "machine.kubelet.skipNodeRegistration"):
        yield "machine.kubelet.skipNodeRegistration is true: Kubernetes would never know the node"
    if str(_at(main, "machine.kubelet.extraArgs.rotate-server-certificates")).lower() != "true":
        yield (
            "machine.kubelet.extraArgs has no rotate-server-certificates: true; its kubelet would sign its own"
            " serving certificate, which nobody can verify"
        )


def _of_the_control_plane(main: Main, platform: Platform, node: Node, ingredients: Ingredients) -> Iterator[str]:
    """What control planes need for what the tree brings, Cilium above all."""
    yield from _subnets(main, "cluster.etcd.advertisedSubnets", str(node.address))
    for component in ("apiServer", "controllerManager", "scheduler"):
        yield from _version(main, f"cluster.{component}.image", platform)
    if (cni := _at(main, "cluster.network.cni.name")) != "none":
        yield f"cluster.network.cni.name is {_shown(cni)}; it must be none: the network is Cilium, not Talos' flannel"
    if _at(main, "cluster.proxy.disabled") is not True:
        yield "cluster.proxy.disabled is not true: Cilium takes kube-proxy's place, and both would write rules"
    inline = _at(main, "cluster.inlineManifests") or ()
    manifests = [manifest.get("contents") for manifest in inline if manifest.get("name") == "cilium"]
    if manifests != [ingredients.cilium]:
        problem = "is not what its Application renders to" if manifests else "is missing: no node would become Ready"
        yield f"cluster.inlineManifests: cilium {problem}"
    yield from _admission(_at(main, "cluster.apiServer.admissionControl") or ())


def _admission(plugins: Iterable[Main]) -> Iterator[str]:
    """A namespace that needs privileged pods has a label in the tree; by default none may have them."""
    settings = next((p.get("configuration") or {} for p in plugins if p.get("name") == "PodSecurity"), {})
    path = "cluster.apiServer.admissionControl: PodSecurity"
    level = (settings.get("defaults") or {}).get("enforce")
    if level not in ("baseline", "restricted"):
        yield f"{path} enforces {_shown(level)} by default; it must be baseline or restricted"
    exempted = [name for names in (settings.get("exemptions") or {}).values() for name in names or ()]
    if others := [str(name) for name in exempted if name != "kube-system"]:  # which Talos exempts
        yield f"{path} exempts {', '.join(others)}; label the namespace in the tree instead"


def _version(main: Main, path: str, platform: Platform) -> Iterator[str]:
    """All components have one version. Talos would choose an image that is not named by its own default."""
    wanted = f"v{platform.versions.kubernetes.removeprefix('v')}"
    tag = str(_at(main, path) or "").partition("@")[0].rpartition(":")[2]
    if tag != wanted:
        yield f"{path} is {_shown(_at(main, path))}; the params say {wanted}"


def _subnets(main: Main, path: str, address: str) -> Iterator[str]:
    """The subnets from which Talos chooses an address contain the node's address."""
    subnets = _at(main, path) or ()
    try:
        if not subnets_contain(subnets, address):
            yield f"{path} is {_shown(subnets)}, which leaves out the node's own address {address}"
    except ValueError as error:
        yield f"{path}: {error}"


def _at(main: Main, path: str) -> Any:
    return value_under(main, path.split("."))


def _shown(value: Any) -> str:
    values = value if isinstance(value, list | tuple) else [value]
    return ", ".join(str(item) for item in values if item not in (None, "")) or "not set"
