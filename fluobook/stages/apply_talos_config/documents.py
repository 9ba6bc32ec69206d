"""A node's machine configuration, from the params, the patches, the secrets and the Cilium Application.

Pure but for rendering Cilium, which helm does.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from fluobook import gitops
from fluobook.machine import Documents, generate
from fluobook.machine.documents import dump
from fluobook.machine.node import NetworkSettings, NodeSettings, node_documents
from fluobook.machine.schematic import image_of
from fluobook.params import KUBERNETES_PORT, TALOS_PORT

if TYPE_CHECKING:
    from pathlib import Path

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
    """The complete configuration of one node as YAML. It holds secrets."""
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
