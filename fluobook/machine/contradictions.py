"""What in a node's configuration contradicts the params, or what the tree needs of Talos.

Patches are merged last, and much of what they can break shows late or never. Stage 2 refuses it before any node has the
configuration; `fluobook check` reports the patch that it comes from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fluobook.errors import ParamsError
from fluobook.machine.contracts import fold, value_at
from fluobook.machine.documents import Document, load
from fluobook.machine.merging import merge
from fluobook.machine.node import (
    kubernetes_endpoint,
    node_documents,
    patches_by_path,
    placeholder_documents,
    subnets_contain,
    without_effect,
)
from fluobook.params import Node, Platform


def patch_contradictions(platform: Platform, patches: Mapping[str, str]) -> list[tuple[str, str]]:
    """What contradicts the params once all patches are merged: the path of the patch that causes it, the problem."""
    generated = placeholder_documents(platform)
    reported: dict[tuple[str, str], str] = {}
    for node in platform.nodes:
        documents = node_documents(generated, platform, node)
        before: set[str] = set()
        origins: dict[str, str] = {}
        for path, text in patches_by_path(node, patches).items():
            try:
                documents = merge(documents, load(text, path))
            except ParamsError:
                break  # `patch_problems` has it
            after = set(contradictions_of_params(documents, platform, node))
            origins |= dict.fromkeys(after - before, path)
            before = after
        else:
            for problem in sorted(before):  # one for each field, which its first word names
                reported.setdefault((origins[problem], problem.split()[0]), problem)
    return sorted((path, problem) for (path, _), problem in reported.items())


def contradictions_of_params(documents: Sequence[Document], platform: Platform, node: Node) -> Iterator[str]:
    """What is wrong with a node's documents, by the names of fields; secrets and certificates are not compared."""
    main = fold(documents)
    yield from _of_the_params(main, platform, node)
    hostnames = [document.get("hostname") for document in documents if document.get("kind") == "HostnameConfig"]
    if hostnames != [node.name]:
        yield f"HostnameConfig gives the name {_shown(hostnames)}; the params say {node.name}"
    yield from _shared_address(documents, platform, node)
    yield from without_effect(documents, node)
    if node.role == "controlplane":
        yield from _of_the_control_plane(main, platform, node)


def _shared_address(documents: Iterable[Document], platform: Platform, node: Node) -> Iterator[str]:
    """The control planes' shared address is on the interface with the node's MAC address; workers have none."""
    wanted = [str(platform.network.vip)] if platform.network.vip and node.role == "controlplane" else []
    of_kind: dict[str, list[Document]] = {"Layer2VIPConfig": [], "LinkAliasConfig": []}
    for document in documents:
        of_kind.get(str(document.get("kind")), []).append(document)
    vips = of_kind["Layer2VIPConfig"]
    if (addresses := [vip.get("name") for vip in vips]) != wanted:
        yield f"Layer2VIPConfig gives the address {_shown(addresses)}; the params say {_shown(wanted)}"
    links = {alias.get("name"): str(value_at(alias, "selector.match")) for alias in of_kind["LinkAliasConfig"]}
    for vip in vips:
        if (link := vip.get("link")) in links and node.mac.lower() not in links[link].lower():
            yield f"LinkAliasConfig {link} does not choose the interface with the MAC address {node.mac.lower()}"


def _of_the_params(main: Document, platform: Platform, node: Node) -> Iterator[str]:
    """What every node has from the params."""
    wanted = {
        "machine.type": node.role,
        "cluster.clusterName": platform.cluster.name,
        "cluster.controlPlane.endpoint": kubernetes_endpoint(platform),
        "cluster.network.dnsDomain": "cluster.local",  # the tree's own URLs end in it
        "cluster.network.podSubnets": [str(platform.cluster.pod_cidr)],
        "cluster.network.serviceSubnets": [str(platform.cluster.service_cidr)],
    }
    for path, value in wanted.items():
        if (actual := value_at(main, path)) != value:
            yield f"{path} is {_shown(actual)}; the params say {_shown(value)}"
    if value_at(main, "machine.install.disk") and value_at(main, "machine.install.diskSelector"):
        yield "machine.install.disk has no effect beside diskSelector; name the disk in the params (vm.install_disk)"
    yield from _version(main, "machine.kubelet.image", platform)
    yield from _subnets(main, "machine.kubelet.nodeIP.validSubnets", str(node.address))
    if value_at(main, "machine.kubelet.skipNodeRegistration"):
        yield "machine.kubelet.skipNodeRegistration is true: Kubernetes would never know the node"
    if str(value_at(main, "machine.kubelet.extraArgs.rotate-server-certificates")).lower() != "true":
        yield (
            "machine.kubelet.extraArgs has no rotate-server-certificates: true; its kubelet would sign its own"
            " serving certificate, which nobody can verify"
        )


def _of_the_control_plane(main: Document, platform: Platform, node: Node) -> Iterator[str]:
    """What control planes need for what the tree brings, Cilium above all."""
    yield from _subnets(main, "cluster.etcd.advertisedSubnets", str(node.address))
    for component in ("apiServer", "controllerManager", "scheduler"):
        yield from _version(main, f"cluster.{component}.image", platform)
    if (cni := value_at(main, "cluster.network.cni.name")) != "none":
        yield f"cluster.network.cni.name is {_shown(cni)}; it must be none: the network is Cilium, not Talos' flannel"
    if value_at(main, "cluster.proxy.disabled") is not True:
        yield "cluster.proxy.disabled is not true: Cilium takes kube-proxy's place, and both would write rules"
    yield from _admission(value_at(main, "cluster.apiServer.admissionControl") or ())


def _admission(plugins: Iterable[Document]) -> Iterator[str]:
    """A namespace that needs privileged pods has a label in the tree; by default none may have them."""
    settings = next((p.get("configuration") or {} for p in plugins if p.get("name") == "PodSecurity"), {})
    path = "cluster.apiServer.admissionControl: PodSecurity"
    level = (settings.get("defaults") or {}).get("enforce")
    if level not in ("baseline", "restricted"):
        yield f"{path} enforces {_shown(level)} by default; it must be baseline or restricted"
    exempted = [name for names in (settings.get("exemptions") or {}).values() for name in names or ()]
    if others := [str(name) for name in exempted if name != "kube-system"]:  # which Talos exempts
        yield f"{path} exempts {', '.join(others)}; label the namespace in the tree instead"


def _version(main: Document, path: str, platform: Platform) -> Iterator[str]:
    """All components have one version. Talos would choose an image that is not named by its own default."""
    wanted = f"v{platform.versions.kubernetes.removeprefix('v')}"
    tag = str(value_at(main, path) or "").partition("@")[0].rpartition(":")[2]
    if tag != wanted:
        yield f"{path} is {_shown(value_at(main, path))}; the params say {wanted}"


def _subnets(main: Document, path: str, address: str) -> Iterator[str]:
    """The subnets from which Talos chooses an address contain the node's address."""
    subnets = value_at(main, path) or ()
    try:
        if not subnets_contain(subnets, address):
            yield f"{path} is {_shown(subnets)}, which leaves out the node's own address {address}"
    except ValueError as error:
        yield f"{path}: {error}"


def _shown(value: Any) -> str:
    values = value if isinstance(value, list | tuple) else [value]
    return ", ".join(str(item) for item in values if item not in (None, "")) or "not set"
