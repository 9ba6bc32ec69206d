"""What stage 3 reads of etcd and Kubernetes, the plan that follows from it, and the checks after it."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

import yaml

from fluobook.clients.talos import EtcdMember, Mode
from fluobook.errors import FluobookError, ForeignObject
from fluobook.stages.core.check import Check
from fluobook.stages.core.cluster import probe_nodes
from fluobook.stages.core.executor import in_parallel
from fluobook.stages.core.plan import Action, Plan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from fluobook.context import RunContext
    from fluobook.params import Node, Platform


CILIUM = "k8s-app=cilium"


@dataclass(frozen=True)
class Networks:
    """Addresses that report which networks the cluster was started with.

    Args:
        service: that of the Service `kubernetes`, the first of its subnet.
        pods: the subnets of the nodes that have one.
    """

    service: str
    pods: tuple[str, ...]


@dataclass(frozen=True)
class Observation:
    """What there is.

    Args:
        without_config: nodes that have no configuration of this cluster.
        members: etcd's members as each control plane whose etcd runs tells them.
        ready: for each Kubernetes node whether it is Ready; empty while the API does not answer.
        cilium: nodes on which a Cilium agent is ready.
        api: the API's version, "" while it does not answer.
        files: which of kubeconfig and talosconfig are there and fit.
        networks: the addresses that the cluster gives out; None while the API does not answer.
    """

    without_config: Sequence[str]
    members: Mapping[str, Sequence[EtcdMember]] = field(default_factory=dict)
    ready: Mapping[str, bool] = field(default_factory=dict)
    cilium: frozenset[str] = frozenset()
    api: str = ""
    files: Mapping[str, bool] = field(default_factory=dict)
    networks: Networks | None = None

    @property
    def bootstrapped(self) -> bool:
        """Whether etcd has data anywhere."""
        return bool(self.members)


def observe(context: RunContext) -> Observation:
    """Look at all nodes, then at Kubernetes."""
    missing = [name for name, seen in probe_nodes(context).items() if seen.mode is not Mode.CONFIGURED]
    if missing and not context.secrets.has_bundle():
        return Observation(missing)
    answers = in_parallel(lambda node: etcd_members(context, node), context.platform.control_planes)
    members = {node.name: found for node, found in zip(context.platform.control_planes, answers, strict=True) if found}
    ready, cilium, version = kubernetes(context) if members else ({}, frozenset(), "")
    return Observation(missing, members, ready, cilium, version, files(context), networks(context) if version else None)


def etcd_members(context: RunContext, node: Node) -> Sequence[EtcdMember]:
    """The members that a control plane's etcd knows; none while it does not run."""
    try:
        return context.talos.client(node).etcd_members()
    except FluobookError:
        return ()


def kubernetes(context: RunContext) -> tuple[dict[str, bool], frozenset[str], str]:
    """Which nodes are Ready, on which Cilium is, and the API's version."""
    try:
        kube = context.kube()
        version = kube.version()
        nodes = kube.list("v1", "Node")
        pods = kube.list("v1", "Pod", "kube-system", labels=CILIUM)
    except FluobookError:
        return {}, frozenset(), ""
    ready = {node["metadata"]["name"]: condition(node, "Ready") for node in nodes}
    return ready, frozenset(pod["spec"].get("nodeName", "") for pod in pods if condition(pod, "Ready")), version


def networks(context: RunContext) -> Networks | None:
    """The addresses that the cluster gives out."""
    try:
        service = context.kube().get("v1", "Service", "kubernetes", "default")
        nodes = context.kube().list("v1", "Node")
    except FluobookError:
        return None
    return Networks(
        service["spec"]["clusterIP"], tuple(n["spec"]["podCIDR"] for n in nodes if n["spec"].get("podCIDR"))
    )


def condition(obj: Mapping[str, Any], name: str) -> bool:
    """Whether a condition of an object is True."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return any(c["type"] == name and c["status"] == "True" for c in conditions)


def files(context: RunContext) -> dict[str, bool]:
    """Whether the files are there and belong to this cluster's bundle and endpoints."""
    wanted = {
        "kubeconfig": _essence(context.secrets.kubeconfig(context.platform)),
        "talosconfig": _essence(context.secrets.talosconfig(context.platform)),
    }
    return {name: _essence(_read(context.home / name)) == essence for name, essence in wanted.items()}


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text()) if path.exists() else None


def _essence(config: Any) -> Any:
    """A kubeconfig or talosconfig without its client certificate, which is issued anew each time."""
    if isinstance(config, dict):
        own = ("crt", "key", "client-certificate-data", "client-key-data")
        return {key: _essence(value) for key, value in config.items() if key not in own}
    return [_essence(item) for item in config] if isinstance(config, list) else config


NAME = "bootstrap-kubernetes"


def plan(platform: Platform, seen: Observation) -> Plan:
    """The actions of stage 3.

    Raises:
        ForeignObject: control planes run separate etcds.
    """
    _one_etcd(seen)
    actions = [] if seen.bootstrapped else [_bootstrap(platform)]
    actions += [
        _await(node.name, seen)
        for node in platform.nodes
        if not (seen.ready.get(node.name) and node.name in seen.cilium)
    ]
    actions += [_write(name) for name in ("kubeconfig", "talosconfig") if not seen.files.get(name)]
    kept = 1 + len(platform.nodes) + 2 - len(actions)
    waits = "apply-talos-config" if seen.without_config else ""
    return Plan(NAME, tuple(actions), kept, platform.digest_data(), waits)


def _one_etcd(seen: Observation) -> None:
    clusters = {frozenset(member.id for member in members) for members in seen.members.values()}
    if any(not a & b for a in clusters for b in clusters):
        raise ForeignObject(
            f"control planes run separate etcds: {', '.join(sorted(seen.members))}",
            cause="etcd was bootstrapped on more than one node (F29)",
            remedy="reset the wrong one with `talosctl reset --graceful=false --reboot`; it will join the other",
        )


def _bootstrap(platform: Platform) -> Action:
    first = platform.control_planes[0]
    return Action(
        "bootstrap",
        "bootstrap",
        f"etcd on {first.name}",
        first.address,
        "etcd has no data on any control plane",
        system="talos",
        data={"node": first.name},
    )


def _await(name: str, seen: Observation) -> Action:
    reason = "Kubernetes does not know it yet" if name not in seen.ready else "not Ready"
    needs = () if seen.bootstrapped else ("bootstrap",)
    return Action(
        f"node {name}", "await", f"node {name}", "Ready, with Cilium", reason, needs, "kubernetes", {"node": name}
    )


def _write(name: str) -> Action:
    return Action(
        f"file {name}",
        "write",
        name,
        "readable by its owner alone",
        "missing, or of another cluster",
        data={"file": name},
    )


def verify(context: RunContext, seen: Observation) -> Sequence[Check]:
    """The checks of stage 3."""
    platform = context.platform
    wanted = {node.name for node in platform.control_planes}
    members = {member.hostname for found in seen.members.values() for member in found}
    unready = [node.name for node in platform.nodes if not seen.ready.get(node.name)]
    bare = [node.name for node in platform.nodes if node.name not in seen.cilium]
    total, version = len(platform.nodes), f"v{platform.versions.kubernetes.removeprefix('v')}"
    private = all((context.home / name).stat().st_mode & 0o077 == 0 for name in seen.files if seen.files[name])
    return (
        Check(
            "etcd has exactly our control planes as members", members == wanted, ", ".join(sorted(members)) or "none"
        ),
        Check("the Kubernetes API answers", seen.api == version, seen.api or "no answer"),
        _networks(platform, seen.networks),
        Check("every node is Ready", not unready, _count(total, unready)),
        Check("a Cilium agent is ready on every node", not bare, _count(total, bare)),
        Check(
            "kubeconfig and talosconfig are written, for their owner alone",
            all(seen.files.values()) and private,
            ", ".join(sorted(seen.files)),
        ),
    )


def _networks(platform: Platform, seen: Networks | None) -> Check:
    """A cluster with other networks than the params' works at first, and cannot be changed later."""
    claim, cluster = "Services and pods have the networks of the params", platform.cluster
    if seen is None:
        return Check(claim, False, "no answer")  # noqa: FBT003 (a check's outcome, by position as the others)
    fits = ip_address(seen.service) in ip_network(cluster.service_cidr)
    # Which node got which part is chance; a stored output may not depend on it.
    parts = sorted(ip_network(pods) for pods in seen.pods)
    fits = fits and all(part.subnet_of(ip_network(cluster.pod_cidr)) for part in parts)  # type: ignore[arg-type]
    told = f"Services {seen.service}, pods {', '.join(map(str, parts)) or 'none'}"
    wanted = f"; wanted {cluster.service_cidr} and {cluster.pod_cidr}"
    remedy = (
        "cluster.network of the machine configurations differs: correct it before anything is stored, and begin anew"
    )
    return Check(claim, fits, told + ("" if fits else wanted), remedy=remedy)


def _count(total: int, wrong: Sequence[str]) -> str:
    return f"{total - len(wrong)} of {total}" + (f"; not: {', '.join(wrong)}" if wrong else "")
