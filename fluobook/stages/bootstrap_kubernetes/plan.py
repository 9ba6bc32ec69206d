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
    """The state of etcd and Kubernetes.

    Args:
        without_config: nodes that have no configuration of this cluster.
        members: etcd's members as reported by each control plane whose etcd runs.
        ready: for each Kubernetes node whether it is Ready; empty while the API does not answer.
        cilium: nodes on which a Cilium agent is ready.
        api: the API's version, "" while it does not answer.
        files: which of kubeconfig and talosconfig exist and match this cluster.
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
    """Probe all nodes, then read Kubernetes."""
    missing = [name for name, probe in probe_nodes(context).items() if probe.mode is not Mode.CONFIGURED]
    if missing and not context.secrets.has_bundle():
        return Observation(missing)
    answers = in_parallel(lambda node: etcd_members(context, node), context.platform.control_planes)
    members = {node.name: known for node, known in zip(context.platform.control_planes, answers, strict=True) if known}
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
    """A kubeconfig or talosconfig without its client certificate, which is issued again each time."""
    if isinstance(config, dict):
        own = ("crt", "key", "client-certificate-data", "client-key-data")
        return {key: _essence(value) for key, value in config.items() if key not in own}
    return [_essence(item) for item in config] if isinstance(config, list) else config


NAME = "bootstrap-kubernetes"


def plan(platform: Platform, observation: Observation) -> Plan:
    """The actions of stage 3.

    Raises:
        ForeignObject: control planes run separate etcds.
    """
    _one_etcd(observation)
    actions = [] if observation.bootstrapped else [_bootstrap(platform)]
    actions += [
        _await(node.name, observation)
        for node in platform.nodes
        if not (observation.ready.get(node.name) and node.name in observation.cilium)
    ]
    actions += [_write(name) for name in ("kubeconfig", "talosconfig") if not observation.files.get(name)]
    kept = 1 + len(platform.nodes) + 2 - len(actions)
    waits = "apply-talos-config" if observation.without_config else ""
    return Plan(NAME, tuple(actions), kept, platform.digest_data(), waits)


def _one_etcd(observation: Observation) -> None:
    clusters = {frozenset(member.id for member in members) for members in observation.members.values()}
    if any(not a & b for a in clusters for b in clusters):
        raise ForeignObject(
            f"control planes run separate etcds: {', '.join(sorted(observation.members))}",
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


def _await(name: str, observation: Observation) -> Action:
    reason = "Kubernetes does not know it yet" if name not in observation.ready else "not Ready"
    needs = () if observation.bootstrapped else ("bootstrap",)
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


def verify(context: RunContext, observation: Observation) -> Sequence[Check]:
    """The checks of stage 3."""
    platform = context.platform
    wanted = {node.name for node in platform.control_planes}
    members = {member.hostname for known in observation.members.values() for member in known}
    unready = [node.name for node in platform.nodes if not observation.ready.get(node.name)]
    bare = [node.name for node in platform.nodes if node.name not in observation.cilium]
    total, version = len(platform.nodes), f"v{platform.versions.kubernetes.removeprefix('v')}"
    private = all(
        (context.home / name).stat().st_mode & 0o077 == 0 for name in observation.files if observation.files[name]
    )
    return (
        Check(
            "etcd has exactly our control planes as members", members == wanted, ", ".join(sorted(members)) or "none"
        ),
        Check("the Kubernetes API answers", observation.api == version, observation.api or "no answer"),
        _networks(platform, observation.networks),
        Check("every node is Ready", not unready, _count(total, unready)),
        Check("a Cilium agent is ready on every node", not bare, _count(total, bare)),
        Check(
            "kubeconfig and talosconfig are written, for their owner alone",
            all(observation.files.values()) and private,
            ", ".join(sorted(observation.files)),
        ),
    )


def _networks(platform: Platform, networks: Networks | None) -> Check:
    """A cluster with other networks than the params' works at first, and cannot be changed later."""
    title, cluster = "Services and pods have the networks of the params", platform.cluster
    if networks is None:
        return Check(title, False, "no answer")  # noqa: FBT003 (a check's outcome, by position as the others)
    matches = ip_address(networks.service) in ip_network(cluster.service_cidr)
    # Which node got which part is chance; a stored output may not depend on it.
    parts = sorted(ip_network(pods) for pods in networks.pods)
    matches = matches and all(part.subnet_of(ip_network(cluster.pod_cidr)) for part in parts)  # type: ignore[arg-type]
    result = f"Services {networks.service}, pods {', '.join(map(str, parts)) or 'none'}"
    wanted = f"; wanted {cluster.service_cidr} and {cluster.pod_cidr}"
    remedy = (
        "cluster.network of the machine configurations differs: correct it before anything is stored, then create the "
        "cluster again"
    )
    return Check(title, matches, result + ("" if matches else wanted), remedy=remedy)


def _count(total: int, wrong: Sequence[str]) -> str:
    return f"{total - len(wrong)} of {total}" + (f"; not: {', '.join(wrong)}" if wrong else "")
