"""The configuration of one node of the platform: Talos' own, what follows from the params, and the patches.

What all nodes of a kind share is in talos/patches and in a site's own patches, for people to read and change; what
differs from node to node, or follows from an address or a disk, is generated here. The patches are applied last.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address, ip_network
from pathlib import Path, PurePosixPath
from typing import Any

from fluobook import params
from fluobook.errors import ParamsError
from fluobook.files import read_text
from fluobook.machine import document_checks
from fluobook.machine.contracts import DOCUMENTS_FROM, fold, folder_of, has_documents, split, value_at
from fluobook.machine.disks import data_disk, install_disk
from fluobook.machine.documents import Document, load
from fluobook.machine.generation import Documents, generate
from fluobook.machine.merging import Patch, merge
from fluobook.machine.pki import KeyPair
from fluobook.machine.secrets import SecretsBundle
from fluobook.machine.validation import decoding_problem, refusals
from fluobook.params import Node, Platform
from fluobook.params.platform import KUBERNETES_PORT
from fluobook.params.rules.nodes import is_refused_label

LINK = "net0"
"""Alias of the node's network interface, found by its MAC address whatever its kernel name is."""
DEFAULT_MTU = 1500
PATCHES = "talos/patches"
"""The folder of the patches, in the repository and in a site's own folder."""
VOLUME = "longhorn"
"""The data disk's volume; it is mounted at /var/mnt/longhorn."""
USER_VOLUMES = "/var/mnt"
_GIB = 1 << 30
"""Where Talos mounts user volumes, for the host, the kubelet and pods: docs/decisions/longhorn-without-extra-mounts."""
ZONE_LABEL = "topology.kubernetes.io/zone"
"""The label with the host of a node. A worker may set it itself, unlike node-role.kubernetes.io labels."""
NO_KERNEL_ARGUMENTS = (
    "machine.install.extraKernelArgs has no effect: Talos boots a unified kernel image with its own arguments; put them"
    " into customization.extraKernelArgs of talos/schematic.yaml"
)
NO_WORKER_TAINTS = (
    "machine.nodeTaints fails on workers, because a kubelet may set taints only when it registers; put them into"
    " nodes[].taints of the params"
)
NO_WORKER_LABEL = "is one that Kubernetes does not let a worker give itself (NodeRestriction): Talos retries for ever"
DISK_LABEL = "node.longhorn.io/create-default-disk"
"""The label of nodes for Longhorn's data; a node without a data disk would fill its system disk."""

# The partition table and Talos' alignment use a little of the disk.
_USABLE_PERCENT = 95


def node_documents(
    generated: Documents,
    platform: Platform,
    node: Node,
    *,
    patches: Iterable[Patch] = (),
    cert_sans: Iterable[str] = (),
    inline_manifests: Mapping[str, str] | None = None,
) -> list[Document]:
    """The complete configuration of one node.

    Args:
        generated: the result of `generate` for the cluster.
        platform: the params.
        node: the node, one of the platform's.
        patches: talos/patches/common.yaml, then that of the node's role, as text or documents.
        cert_sans: further names and addresses for the certificates of the Talos and Kubernetes APIs: the VIP, the
            endpoint's name, and the addresses that params map endpoints to.
        inline_manifests: manifests by name that control planes apply to Kubernetes at bootstrap.

    Raises:
        ParamsError: a patch does not match.
    """
    network, sans = platform.network, list(cert_sans)
    labels = node.labels | {ZONE_LABEL: node.host} | ({DISK_LABEL: "true"} if node.data_disk_gib else {})
    kubelet: dict[str, Any] = {"nodeIP": {"validSubnets": [network.cidr]}}
    if node.taints:
        # Talos' own nodeTaints fail on a worker: a kubelet may set taints only when it registers (talos#10935).
        kubelet["extraConfig"] = {"registerWithTaints": [_taint(*item) for item in node.taints.items()]}
    machine = {
        "certSANs": sans,
        "kubelet": kubelet,
        "nodeLabels": labels,
        "install": install_disk(platform),
    }
    cluster: dict[str, Any] = {
        "network": {"podSubnets": [platform.cluster.pod_cidr], "serviceSubnets": [platform.cluster.service_cidr]}
    }
    if node.role == "controlplane":
        cluster |= _controlplane(network.cidr, sans, inline_manifests or {})
    main = {"machine": machine, "cluster": cluster}
    changes: list[Patch] = [
        # Talos still writes `persist`, ignores it, and does not know it in its own JSON Schema.
        {"persist": {"$patch": "delete"}},
        split(main) if has_documents(platform.versions.contract) else main,
        # `auto` and `hostname` exclude each other: Talos would refuse the generated `auto` (F25).
        _document("HostnameConfig", auto="off", hostname=node.name),
        _document("ResolverConfig", nameservers=[{"address": address} for address in network.nameservers]),
        _document("TimeSyncConfig", ntp={"servers": list(network.ntp)}),
    ]
    documents = generated.of(node.role)
    for change in [*changes, _links(platform, node), _volumes(platform, node), *patches]:
        documents = merge(documents, change)
    return documents


def _taint(key: str, text: str) -> dict[str, str]:
    value, _, effect = text.rpartition(":")
    return {"key": key, **({"value": value} if value else {}), "effect": effect}


def _controlplane(cidr: str, sans: list[str], manifests: Mapping[str, str]) -> Document:
    cluster: dict[str, Any] = {"etcd": {"advertisedSubnets": [cidr]}}
    if sans:
        cluster["apiServer"] = {"certSANs": sans}
    if manifests:
        cluster["inlineManifests"] = [{"name": name, "contents": text} for name, text in manifests.items()]
    return cluster


def _links(platform: Platform, node: Node) -> list[Document]:
    """Documents about the interface, where the cloud-init drive is not enough.

    Any LinkConfig stops Talos' own DHCP on all interfaces, so DHCP is then configured by name.
    """
    network = platform.network
    own_mtu, vip = network.mtu != DEFAULT_MTU, network.vip if node.role == "controlplane" else None
    documents = []
    if own_mtu or vip:
        match = f'mac(link.hardware_addr) == "{node.mac.lower()}"'
        documents.append(_document("LinkAliasConfig", name=LINK, selector={"match": match}))
    if own_mtu:
        documents.append(_document("LinkConfig", name=LINK, mtu=network.mtu))
    if own_mtu and network.addressing == "dhcp":
        documents.append(_document("DHCPv4Config", name=LINK))
    if vip:
        documents.append(_document("Layer2VIPConfig", name=vip, link=LINK))
    return documents


def _volumes(platform: Platform, node: Node) -> list[Document]:
    if not node.data_disk_gib:
        return []
    provisioning = {
        "diskSelector": {"match": data_disk(platform)},
        "minSize": f"{node.data_disk_gib * 1024 * _USABLE_PERCENT // 100}MiB",
        "grow": True,
    }
    return [_document("UserVolumeConfig", name=VOLUME, provisioning=provisioning)]


def _document(kind: str, **fields: Any) -> Document:
    return {"apiVersion": "v1alpha1", "kind": kind, **fields}


def read_patches(platform: Platform, root: Path) -> dict[str, str]:
    """The text of each patch by its path, in the order in which they apply.

    Raises:
        BadFile: one cannot be read.
        ParamsError: a file beside them is named after no role and no node.
    """
    paths, strangers = find_patches(platform, root)
    if strangers:
        names = ", ".join(dict.fromkeys(below_patches(path) for paths in strangers.values() for path in paths))
        raise ParamsError(
            f"{', '.join(strangers)} applies to no node",
            cause="a patch applies to nodes with the role or name in its file's name, in the folder of their contract",
            remedy=f"rename it to one of {names}",
        )
    return {path: read_text(root / path) for path in paths}


def find_patches(platform: Platform, root: Path) -> tuple[list[str], dict[str, list[str]]]:
    """The paths of the patches in the order in which they apply, and those of files that apply to no node.

    Upstream's come first, then the site's own; in each folder `common` for all nodes, then those of a role, then (in a
    site) those that have a node's name. Each file that applies to no node comes with the paths that it may have; one
    of a newer contract, or for a node of another params file with the same root, is none of these.
    """
    roles, nodes = ["common", "controlplane", "worker"], [node.name for node in platform.nodes]
    folder, site = folder_of(platform.versions.contract), platform.gitops.site
    paths = [f"{PATCHES}/{folder}{name}.yaml" for name in roles]
    own = [f"{site}/{PATCHES}/{folder}{name}.yaml" for name in (*roles, *nodes)] if site else []
    both = {f"{PATCHES}/{each}{name}.yaml" for each in ("", f"{DOCUMENTS_FROM}/") for name in roles}
    newer = {f"{site}/{PATCHES}/{DOCUMENTS_FROM}/{name}.yaml" for name in (*roles, *nodes)}
    strangers: dict[str, list[str]] = {}
    for top, allowed, known in ((PATCHES, paths, both), (f"{site}/{PATCHES}", own, newer)):
        files = [file.relative_to(root).as_posix() for file in sorted((root / top).rglob("*")) if not file.is_dir()]
        strangers |= {
            path: allowed
            for path in files
            if allowed and path not in {*allowed, *known} and not path.endswith((".md", "/.gitkeep"))
        }
    theirs = _patches_of_the_root(platform.gitops.path, root) if strangers and own else set()
    strangers = {path: allowed for path, allowed in strangers.items() if path not in theirs}
    return paths + [path for path in own if (root / path).exists()], strangers


def below_patches(path: str) -> str:
    """The path of a patch below the folder of patches, which is upstream's or a site's own: "1.14/common.yaml"."""
    return path.rpartition(f"{PATCHES}/")[2]


def _patches_of_the_root(path: str, root: Path) -> set[str]:
    """The paths that patches may have for every valid params file whose root Application is at that path."""
    paths: set[str] = set()
    for file in params.files(root).values():
        try:
            platform = params.load(file).platform
        except ParamsError:
            continue  # of no consequence here: `fluobook check` reports it
        if platform.gitops.path == path:
            top = f"{platform.gitops.site}/{PATCHES}/{folder_of(platform.versions.contract)}"
            names = ("common", "controlplane", "worker", *(node.name for node in platform.nodes))
            paths |= {f"{top}{name}.yaml" for name in names}
    return paths


def patches_by_path(node: Node, patches: Mapping[str, str]) -> dict[str, str]:
    """The patches that apply to a node."""
    names = ("common", node.role, node.name)
    return {path: text for path, text in patches.items() if PurePosixPath(path).stem in names}


def kubernetes_endpoint(platform: Platform) -> str:
    """The URL of the Kubernetes API."""
    return f"https://{platform.api_address}:{KUBERNETES_PORT}"


def placeholder_documents(platform: Platform) -> Documents:
    """Talos' own documents for a platform, without secrets, to merge patches into."""
    pair = KeyPair("-", "-")
    bundle = SecretsBundle("-", "-", "-", "-", pair, pair, pair, "-", pair, "-")
    endpoint = kubernetes_endpoint(platform)
    versions = platform.versions
    return generate(
        platform.cluster.name, endpoint, versions.kubernetes, bundle, install_image="-", contract=versions.contract
    )


def patch_problems(platform: Platform, patches: Mapping[str, str]) -> list[tuple[str, str]]:
    """What Talos refuses in the patches, and what has no effect: the path of the patch and the problem."""
    generated = placeholder_documents(platform)
    refused: set[tuple[str, str]] = set()
    for node in {tuple(patches_by_path(node, patches)): node for node in platform.nodes}.values():
        documents = node_documents(generated, platform, node)
        for path, text in patches_by_path(node, patches).items():
            try:
                patch = load(text, path)
                documents = merge(documents, patch)
            except ParamsError as error:
                refused.add((path, f"{error.message}; {error.cause}" if error.cause else error.message))
                break
            talos = platform.versions.talos
            undecodable = [problem for each in documents if (problem := decoding_problem(each, talos))]
            problems = undecodable or [*map(str, refusals(documents, talos)), *without_effect(documents, node)]
            if any(((part.get("machine") or {}).get("install") or {}).get("extraKernelArgs") for part in patch):
                problems.append(NO_KERNEL_ARGUMENTS)
            if node.role == "worker" and any((part.get("machine") or {}).get("nodeTaints") for part in patch):
                problems.append(NO_WORKER_TAINTS)
            labels = value_at(fold(patch), "machine.nodeLabels") if node.role == "worker" else None
            for key in filter(is_refused_label, map(str, labels or ())):
                problems.append(f"the node label {key} {NO_WORKER_LABEL}")
            refused |= {(path, problem) for problem in problems}
            if problems:
                break
    return sorted(refused)


def labels_by_node(platform: Platform, root: Path) -> dict[Node, dict[str, str]]:
    """The labels of each Kubernetes node: the kubelet's, the params', and those of the patches that can be merged."""
    generated, (paths, _) = placeholder_documents(platform), find_patches(platform, root)
    result = {}
    for node in platform.nodes:
        kubelet = {"kubernetes.io/hostname": node.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        role = {"node-role.kubernetes.io/control-plane": ""} if node.role == "controlplane" else {}
        documents = node_documents(generated, platform, node)
        for path, text in patches_by_path(node, {path: read_text(root / path) for path in paths}).items():
            with suppress(ParamsError):
                documents = merge(documents, load(text, path))
        labels = (fold(documents).get("machine") or {}).get("nodeLabels") or {}
        result[node] = kubelet | role | {str(key): str(value) for key, value in labels.items()}
    return result


def without_effect(documents: Sequence[Document], node: Node) -> list[str]:
    """What Talos accepts, and what then keeps the node from booting, or Longhorn from its data disk."""
    files = [
        f"machine.files: {problem}"
        for document in documents
        for problem in document_checks.unwritable_files(document.get("machine") or {})
    ]
    return [*files, *_volume_problems(documents, node)]


def _volume_problems(documents: Sequence[Document], node: Node) -> list[str]:
    """Why Longhorn would not store its volumes on a node's data disk: the user volume is missing, or hidden."""
    volumes = [document.get("name") for document in documents if document.get("kind") == "UserVolumeConfig"]
    problems = []
    if node.data_disk_gib and VOLUME not in volumes:
        problems.append(f"UserVolumeConfig {VOLUME} is missing: Longhorn would store volumes on the system disk")
    for document in documents:
        disk = _disk_of(document, node)
        least = document_checks.size((document.get("provisioning") or {}).get("minSize")) or 0
        name = f"{document.get('kind')} {document.get('name')}"
        if disk and document.get("volumeType", "partition") != "partition":
            problems.append(f"{name} is no partition of the data disk: Longhorn would store volumes elsewhere")
        elif disk and least > disk * _GIB:
            problems.append(f"{name} wants {least / _GIB:g} GiB, and the disk has {disk}: Talos would never make it")
    kubelets = [(document.get("machine") or {}).get("kubelet") or {} for document in documents]
    for mount in (mount for kubelet in kubelets for mount in kubelet.get("extraMounts") or ()):
        paths = [posixpath.normpath(str(mount.get(end))) for end in ("source", "destination")]
        if any(f"{path}/".startswith((f"{USER_VOLUMES}/", "/var/lib/longhorn/")) for path in paths):
            mounted = f"machine.kubelet.extraMounts has {mount.get('destination')}"
            problems.append(f"{mounted}: the kubelet has {USER_VOLUMES}; a second mount can hide the data disk")
    return problems


def _disk_of(document: Document, node: Node) -> int:
    """The GiB of the disk that a volume of the params is on; 0 for other volumes, which may be on further disks."""
    match (document.get("kind"), document.get("name")):
        case ("UserVolumeConfig", name) if name == VOLUME:
            return node.data_disk_gib or 0
        case ("VolumeConfig", "EPHEMERAL") if not (document.get("provisioning") or {}).get("diskSelector"):
            return node.boot_disk_gib
    return 0


def subnets_contain(subnets: Iterable[str], address: str) -> bool:
    """Whether Talos picks an address by a list of subnets, such as the kubelet's `nodeIP.validSubnets`.

    It is in one of them, and in none that begins with `!`; an empty list admits every address.

    Raises:
        ValueError: an entry is not a subnet.
    """
    hits = {subnet: ip_address(address) in ip_network(subnet.lstrip("!"), strict=False) for subnet in map(str, subnets)}
    excluded = any(hit for subnet, hit in hits.items() if subnet.startswith("!"))
    return not hits or (not excluded and any(hits.values()))
