"""Machine configurations: how a node's is generated, and what must not be in it.

Patches are merged last, over what is generated from params and secrets, and much of what they can break shows late or
never: a cluster without an encryption key stores Secrets in plaintext and still runs; a service account key of another
cluster fails only when a second control plane is asked; pod and service networks cannot be changed afterwards. Pure,
except that helm renders Cilium.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml
from cryptography import x509

from fluobook import gitops
from fluobook.errors import ParamsError
from fluobook.gitops.documents import value_under
from fluobook.machine import Documents, generate
from fluobook.machine.documents import dump, load
from fluobook.machine.node import NetworkSettings, NodeSettings, node_documents, subnets_contain
from fluobook.machine.pki import certificate
from fluobook.machine.schematic import image_of
from fluobook.params import KUBERNETES_PORT, TALOS_PORT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from fluobook.machine.pki import KeyPair
    from fluobook.machine.secrets import SecretsBundle
    from fluobook.params import Node, Platform


SYSTEM_DISK = "/dev/sda"
"""scsi0, where Talos is installed."""


@dataclass(frozen=True)
class Ingredients:
    """What goes into every node's configuration besides params and secrets.

    Args:
        patches: talos/patches by name: common, controlplane, worker.
        installer: the installer image.
        cilium: the inline manifest.
    """

    patches: dict[str, str]
    installer: str
    cilium: str

    def digest(self) -> str:
        """A short name of all of it: it stands in the plan, so that a changed patch is another plan."""
        content = [*(f"{name}\n{text}" for name, text in sorted(self.patches.items())), self.installer, self.cilium]
        return hashlib.sha256("\0".join(content).encode()).hexdigest()[:12]


def gather(platform: Platform, root: Path) -> Ingredients:
    """Read the patches and the schematic, and render Cilium from its Application."""
    patches = {
        name: (root / "talos" / "patches" / f"{name}.yaml").read_text() for name in ("common", "controlplane", "worker")
    }
    image = image_of((root / "talos" / "schematic.yaml").read_text(), platform.versions.talos)
    return Ingredients(patches, image.installer, cilium_manifest(platform, root))


def cilium_manifest(platform: Platform, root: Path) -> str:
    """The inline manifest: the chart, version and values of the Application `cilium`, as the phase sees it."""
    tree = gitops.for_phase(platform, gitops.read(root, platform.gitops.path))
    objects = gitops.render_chart(platform, gitops.chart_source(tree, "cilium"))
    return yaml.safe_dump_all(objects, sort_keys=False, width=1_000_000)


def cluster_documents(platform: Platform, secrets: SecretsBundle, ingredients: Ingredients) -> Documents:
    """What Talos generates for the cluster, before anything of ours."""
    return generate(
        platform.cluster.name,
        f"https://{platform.api_address}:{KUBERNETES_PORT}",
        platform.versions.kubernetes,
        secrets,
        SYSTEM_DISK,
        install_image=ingredients.installer,
    )


def node_text(platform: Platform, node: Node, generated: Documents, ingredients: Ingredients) -> str:
    """The complete configuration of one node as YAML. It contains secrets."""
    documents = node_documents(
        generated,
        NodeSettings(node.name, node.role, node.mac, node.host, node.data_disk_gib or 0),
        _network(platform),
        patches=[ingredients.patches["common"], ingredients.patches[node.role]],
        cert_sans=names(platform, node),
        inline_manifests={"cilium": ingredients.cilium} if node.role == "controlplane" else None,
    )
    return dump(documents)


def names(platform: Platform, node: Node) -> list[str]:
    """Further names in a node's certificates: the shared address, and where params map its endpoints to."""
    routes = [(node.address, TALOS_PORT)]
    if node.role == "controlplane":
        routes += [(node.address, KUBERNETES_PORT), (platform.api_address, KUBERNETES_PORT)]
    reached = [platform.route(host, port)[0] for host, port in routes]
    shared = [platform.api_address] if node.role == "controlplane" else []
    return [name for name in dict.fromkeys([*shared, *reached]) if name != node.address]


def _network(platform: Platform) -> NetworkSettings:
    network = platform.network
    return NetworkSettings(
        cidr=str(network.cidr),
        nameservers=tuple(str(server) for server in network.nameservers),
        time_servers=tuple(network.ntp),
        pod_cidr=str(platform.cluster.pod_cidr),
        service_cidr=str(platform.cluster.service_cidr),
        vip=str(network.vip or ""),
        mtu=network.mtu,
        dhcp=network.addressing == "dhcp",
    )


ENFORCED = ("baseline", "restricted")
"""PodSecurity levels that hold privileged pods off; namespaces that need one say so in the tree."""
EXEMPT = "kube-system"
"""The one namespace that Talos exempts from PodSecurity."""
DNS_DOMAIN = "cluster.local"
"""What the tree's own URLs end in."""
IMAGES = ("apiServer", "controllerManager", "scheduler")

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
    main = next((document for document in documents if not document.get("kind")), {})
    yield from _of_the_bundle(main, node, secrets)
    yield from _of_the_params(main, platform, node)
    hostnames = [document.get("hostname") for document in documents if document.get("kind") == "HostnameConfig"]
    if hostnames != [node.name]:
        yield f"HostnameConfig gives the name {_shown(*hostnames)}; the params say {node.name}"
    yield from _shared(documents, platform, node)
    yield from _names(main, "machine.certSANs", names(platform, node))
    if node.role == "controlplane":
        yield from _names(main, "cluster.apiServer.certSANs", names(platform, node))
        yield from _of_the_platform(main, platform, node, ingredients)
        yield from _admission(main)


def _shared(documents: Iterable[Main], platform: Platform, node: Node) -> Iterator[str]:
    """The address that the control planes share stands on the interface with the node's MAC address, or nowhere."""
    wanted = str(platform.network.vip or "") if node.role == "controlplane" else ""
    vips = [document for document in documents if document.get("kind") == "Layer2VIPConfig"]
    if [vip.get("name") for vip in vips] != ([wanted] if wanted else []):
        addresses = _shown([vip.get("name") for vip in vips])
        yield f"Layer2VIPConfig gives the address {addresses}; the params say {_shown(wanted)}"
    aliases = [document for document in documents if _is_alias(document)]
    links = {alias.get("name"): str((alias.get("selector") or {}).get("match")) for alias in aliases}
    for vip in vips:
        if (link := vip.get("link")) in links and node.mac.lower() not in links[link].lower():
            yield f"LinkAliasConfig {link} does not choose the interface with the MAC address {node.mac.lower()}"


def _is_alias(document: Main) -> bool:
    return document.get("kind") == "LinkAliasConfig"


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
        yield from _authority(path, pair)
        wanted |= _halves(path, pair, key=node.role == "controlplane")
    for path, value in wanted.items():
        actual = _at(main, path) or ""
        if actual != value:
            yield f"{path} {'is not that of' if actual else 'is missing, unlike in'} the secrets bundle"


def _authority(path: str, pair: KeyPair) -> Iterator[str]:
    """The bundle may be of old, or put together by hand."""
    ca = certificate(pair.crt)
    if ca.not_valid_after_utc < dt.datetime.now(dt.UTC):
        yield f"{path}.crt expired at {ca.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, and so did the secrets bundle's"
    try:
        can_sign = ca.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        can_sign = False
    if not can_sign:
        yield f"{path}.crt is no certificate authority's, nor is it in the secrets bundle"


def _halves(path: str, pair: KeyPair, *, key: bool) -> dict[str, str]:
    encoded = pair.to_base64()
    return {f"{path}.crt": encoded["crt"], f"{path}.key": encoded["key"] if key else ""}


def _of_the_params(main: Main, platform: Platform, node: Node) -> Iterator[str]:
    """What every node has from the params."""
    cluster = platform.cluster
    wanted = {
        "machine.type": node.role,
        "cluster.clusterName": cluster.name,
        "cluster.controlPlane.endpoint": f"https://{platform.api_address}:{KUBERNETES_PORT}",
        "cluster.network.dnsDomain": DNS_DOMAIN,
        "cluster.network.podSubnets": [str(cluster.pod_cidr)],
        "cluster.network.serviceSubnets": [str(cluster.service_cidr)],
    }
    for path, value in wanted.items():
        if (actual := _at(main, path)) != value:
            yield f"{path} is {_shown(actual)}; the params say {_shown(value)}"
    yield from _version(main, "machine.kubelet.image", platform)
    yield from _holds(main, "machine.kubelet.nodeIP.validSubnets", str(node.address))
    if _at(main, "machine.kubelet.skipNodeRegistration"):
        yield "machine.kubelet.skipNodeRegistration is true: Kubernetes would never know the node"
    arguments = _at(main, "machine.kubelet.extraArgs") or {}
    if str(arguments.get("rotate-server-certificates")).lower() != "true":
        yield (
            "machine.kubelet.extraArgs has no rotate-server-certificates: true; its kubelet would sign its own"
            " serving certificate, which nobody can verify"
        )


def _of_the_platform(main: Main, platform: Platform, node: Node, ingredients: Ingredients) -> Iterator[str]:
    """What control planes need for what the tree brings, Cilium above all."""
    yield from _holds(main, "cluster.etcd.advertisedSubnets", str(node.address))
    for component in IMAGES:
        yield from _version(main, f"cluster.{component}.image", platform)
    if (cni := _at(main, "cluster.network.cni.name")) != "none":
        yield f"cluster.network.cni.name is {_shown(cni)}; it must be none: the network is Cilium, not Talos' flannel"
    if _at(main, "cluster.proxy.disabled") is not True:
        yield "cluster.proxy.disabled is not true: Cilium takes kube-proxy's place, and both would write rules"
    manifests = [
        manifest for manifest in _at(main, "cluster.inlineManifests") or () if manifest.get("name") == "cilium"
    ]
    if [manifest.get("contents") for manifest in manifests] != [ingredients.cilium]:
        problem = "is not what its Application renders to" if manifests else "is missing: no node would become Ready"
        yield f"cluster.inlineManifests: cilium {problem}"


def _admission(main: Main) -> Iterator[str]:
    """Who may run privileged pods is the namespaces' own say, in the tree, and nobody's by default."""
    plugins = _at(main, "cluster.apiServer.admissionControl") or ()
    settings = next(
        (plugin.get("configuration") or {} for plugin in plugins if plugin.get("name") == "PodSecurity"), {}
    )
    where = "cluster.apiServer.admissionControl: PodSecurity"
    level = (settings.get("defaults") or {}).get("enforce")
    if level not in ENFORCED:
        yield f"{where} enforces {_shown(level)} by default; it must be {' or '.join(ENFORCED)}"
    exempted = settings.get("exemptions") or {}
    if others := [name for kind in exempted.values() for name in kind or () if name != EXEMPT]:
        yield f"{where} exempts {', '.join(map(str, others))}; label the namespace in the tree instead"


def _names(main: Main, path: str, wanted: Iterable[str]) -> Iterator[str]:
    if missing := [name for name in wanted if name not in (_at(main, path) or ())]:
        yield f"{path} lacks {', '.join(missing)}: certificates would not be good for the endpoint that the params name"


def _version(main: Main, path: str, platform: Platform) -> Iterator[str]:
    """Every part is of one version; an image that is not named would be of Talos' own."""
    wanted = f"v{platform.versions.kubernetes.removeprefix('v')}"
    tag = str(_at(main, path) or "").partition("@")[0].rpartition(":")[2]
    if tag != wanted:
        yield f"{path} is {_shown(_at(main, path))}; the params say {wanted}"


def _holds(main: Main, path: str, address: str) -> Iterator[str]:
    """Where Talos chooses among addresses, it must come upon the one that the params give the node."""
    subnets = _at(main, path) or ()
    try:
        if not subnets_contain(subnets, address):
            yield f"{path} is {_shown(list(subnets))}, which leaves out the node's own address {address}"
    except ValueError as error:
        yield f"{path}: {error}"


def _at(main: Main, path: str) -> Any:
    return value_under(main, path.split("."))


def _shown(*values: Any) -> str:
    flat = [item for value in values for item in (value if isinstance(value, list) else [value])]
    return ", ".join(str(item) for item in flat if item not in (None, "")) or "not set"
