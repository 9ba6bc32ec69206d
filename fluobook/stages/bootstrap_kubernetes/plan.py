"""What stage 3 reads of etcd and Kubernetes, the plan that follows from it, and the checks after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

from fluobook.clients.https import NO_CONNECTION
from fluobook.clients.kube import Kube
from fluobook.clients.talos import EtcdMember, Mode, TalosNode
from fluobook.cluster_secrets import AccessFile
from fluobook.context import RunContext
from fluobook.errors import TALOSCTL, ForeignObject, OutsideError, may_be_starting
from fluobook.params import Platform
from fluobook.stages.core.check import Check, count
from fluobook.stages.core.cluster import probe_nodes
from fluobook.stages.core.executor import in_parallel
from fluobook.stages.core.plan import Action, Plan
from fluobook.stages.core.readiness import has_condition

NAME = "bootstrap-kubernetes"
CILIUM = "k8s-app=cilium"


@dataclass(frozen=True)
class Kubernetes:
    """What the Kubernetes API reports; nothing while it does not answer.

    Args:
        problem: why it does not answer, if it is not just absent.
        version: the API's version.
        ready: for each node whether it is Ready.
        cilium: nodes on which a Cilium agent is ready.
        pods: the pod subnets of the nodes that have one.
        error: the error that it answered with, or that there was no answer.
    """

    problem: str = ""
    version: str = ""
    ready: Mapping[str, bool] = field(default_factory=dict)
    cilium: frozenset[str] = frozenset()
    pods: tuple[str, ...] = ()
    error: OutsideError | None = None


@dataclass(frozen=True)
class Observation:
    """The state of etcd and Kubernetes.

    Args:
        without_config: nodes that have no configuration of this cluster.
        members: etcd's members as reported by each control plane whose etcd runs.
        kubernetes: what Kubernetes reports.
        service: the address of the Service `kubernetes`, the first of its subnet; "" if it is not known.
        files: the kubeconfig and the talosconfig.
    """

    without_config: Sequence[str]
    members: Mapping[str, Sequence[EtcdMember]] = field(default_factory=dict)
    kubernetes: Kubernetes = field(default_factory=Kubernetes)
    service: str = ""
    files: Mapping[str, AccessFile] = field(default_factory=dict)


def observe(context: RunContext) -> Observation:
    """Probe all nodes, then read Kubernetes."""
    without_config = [name for name, probe in probe_nodes(context).items() if probe.mode is not Mode.CONFIGURED]
    if without_config and not context.secrets.has_bundle():
        return Observation(without_config)
    nodes = context.platform.control_planes
    answers = in_parallel(lambda node: etcd_members(context.talos.client(node)), nodes)
    members = {node.name: known for node, known in zip(nodes, answers, strict=True) if known}
    kubernetes = read_kubernetes(context.kube()) if members else Kubernetes()
    api_service = context.kube().find("v1", "Service", "kubernetes", "default") if kubernetes.version else None
    service = str(api_service["spec"]["clusterIP"]) if api_service else ""
    return Observation(
        without_config, members, kubernetes, service, context.secrets.access_files(context.platform, context.home)
    )


def etcd_members(talos: TalosNode) -> Sequence[EtcdMember]:
    """The members that a control plane's etcd knows; none while it does not run.

    Raises:
        OutsideError: the node does not answer us, so nobody knows whether etcd has data.
    """
    try:
        return talos.etcd_members()
    except OutsideError as error:
        if not may_be_starting(error):
            raise
        return ()


def read_kubernetes(kube: Kube) -> Kubernetes:
    """What the Kubernetes API reports.

    Raises:
        OutsideError: something answers, but not as our cluster's API answers us.
    """
    try:
        version, nodes = kube.version(), kube.list("v1", "Node")
        agents = kube.list("v1", "Pod", "kube-system", labels=CILIUM)
    except OutsideError as error:
        if not may_be_starting(error):
            raise
        return Kubernetes("" if error.code in NO_CONNECTION else error.message, error=error)
    return Kubernetes(
        "",
        version,
        {node["metadata"]["name"]: has_condition(node, "Ready") for node in nodes},
        frozenset(pod["spec"].get("nodeName", "") for pod in agents if has_condition(pod, "Ready")),
        tuple(node["spec"]["podCIDR"] for node in nodes if node["spec"].get("podCIDR")),
    )


def plan(platform: Platform, observation: Observation) -> Plan:
    """The actions of stage 3.

    Raises:
        ForeignObject: control planes run separate etcds.
    """
    clusters = {frozenset(member.id for member in members) for members in observation.members.values()}
    if any(not a & b for a in clusters for b in clusters):
        raise ForeignObject(
            f"control planes run separate etcds: {', '.join(sorted(observation.members))}",
            cause="etcd was bootstrapped on more than one node (F29)",
            remedy=f"compare what each has (`{TALOSCTL} -n ADDRESS etcd members`, `etcd status`); reset only the node "
            "without data that you need, which then joins the other: "
            f"{TALOSCTL} -n NODE_TO_RESET reset --graceful=false --reboot",
        )
    actions: list[Action] = []
    if not observation.members:
        first = platform.control_planes[0]
        reason, data = "etcd has no data on any control plane", {"node": first.name}
        actions.append(
            Action("bootstrap", "bootstrap", f"etcd on {first.name}", first.address, reason, system="talos", data=data)
        )
    needs = () if observation.members else ("bootstrap",)
    ready, cilium = observation.kubernetes.ready, observation.kubernetes.cilium
    for name in [node.name for node in platform.nodes if not (ready.get(node.name) and node.name in cilium)]:
        reason = observation.kubernetes.problem or "Kubernetes does not know it yet"
        reason = "not Ready" if name in ready else reason
        title, data = f"node {name}", {"node": name}
        actions.append(Action(title, "await", title, "Ready, with Cilium", reason, needs, "kubernetes", data))
    actions += file_actions(observation.files)
    kept = 1 + len(platform.nodes) + 2 - len(actions)
    waits = "apply-talos-config" if observation.without_config else ""
    return Plan(NAME, tuple(actions), kept, platform.digest_data(), waits)


def file_actions(files: Mapping[str, AccessFile]) -> Sequence[Action]:
    """What writes or renews the kubeconfig and the talosconfig."""
    actions = []
    for name in ("kubeconfig", "talosconfig"):
        file = files.get(name, AccessFile(exists=False, problem="does not exist"))
        if file.problem:
            verb, detail = "renew" if file.exists else "write", "readable only by its owner"
            actions.append(Action(f"file {name}", verb, name, detail, file.problem, data={"file": name}))
    return actions


def verify(context: RunContext, observation: Observation) -> Sequence[Check]:
    """The checks of stage 3."""
    platform, kubernetes = context.platform, observation.kubernetes
    members = {member.hostname for known in observation.members.values() for member in known}
    unready = [node.name for node in platform.nodes if not kubernetes.ready.get(node.name)]
    bare = [node.name for node in platform.nodes if node.name not in kubernetes.cilium]
    total, version = len(platform.nodes), f"v{platform.versions.kubernetes.removeprefix('v')}"
    files = observation.files
    return (
        Check(
            "etcd has exactly our control planes as members",
            members == {node.name for node in platform.control_planes},
            ", ".join(sorted(members)) or "none",
        ),
        Check(
            "the Kubernetes API answers",
            kubernetes.version == version,
            kubernetes.version or kubernetes.problem or "no answer",
        ),
        _networks(platform, observation),
        Check("every node is Ready", not unready, count(total, unready)),
        Check("a Cilium agent is ready on every node", not bare, count(total, bare)),
        files_check(files),
    )


def files_check(files: Mapping[str, AccessFile]) -> Check:
    """Whether the kubeconfig and the talosconfig are there, and up to date."""
    problems = [f"{name} {file.problem}" for name, file in files.items() if file.problem]
    return Check(
        "kubeconfig and talosconfig are written, readable only by their owner",
        bool(files) and not problems,
        "; ".join(problems) or ", ".join(sorted(files)) or "not compared yet",
    )


def _networks(platform: Platform, observation: Observation) -> Check:
    """A cluster with other networks than the params' works at first, and cannot be changed later."""
    title, cluster = "Services and pods have the networks of the params", platform.cluster
    if not observation.service:
        return Check(title, passed=False, result="no answer")
    # Which node has which subnet is chance; a stored output may not depend on it.
    pods = sorted(ip_network(subnet) for subnet in observation.kubernetes.pods)
    allowed: Any = ip_network(cluster.pod_cidr)
    matches = ip_address(observation.service) in ip_network(cluster.service_cidr)
    matches = matches and all(subnet.subnet_of(allowed) for subnet in pods)
    result = f"Services {observation.service}, pods {', '.join(map(str, pods)) or 'none'}"
    wanted = f"; wanted {cluster.service_cidr} and {cluster.pod_cidr}"
    remedy = (
        "cluster.network of the machine configurations differs: correct it before anything is stored, then create the "
        "cluster again"
    )
    return Check(title, matches, result + ("" if matches else wanted), remedy)
