"""Whether etcd runs, which nodes Kubernetes knows, and which files are written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from fluobook.clients.talos import EtcdMember, Mode
from fluobook.errors import FluobookError
from fluobook.stages.core.cluster import probe_nodes
from fluobook.stages.core.executor import in_parallel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from fluobook.context import RunContext
    from fluobook.params import Node

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
