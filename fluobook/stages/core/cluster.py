"""The state of the cluster as every stage asks for it: what answers at the nodes, and whether Kubernetes does."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fluobook.clients.https import NO_CONNECTION
from fluobook.clients.kube import Kube
from fluobook.clients.talos import EtcdMember, EtcdStatus, Mode, Probe, TalosNode
from fluobook.context import RunContext
from fluobook.errors import DeadlineExceeded, FluobookError, StageMissing, Unreachable
from fluobook.params import Node, Platform
from fluobook.stages.core.executor import in_parallel
from fluobook.waiting import wait_until

PATIENCE = 60.0
"""Seconds that `probe_nodes` waits for a node that is installing or restarting, before it counts as silent."""

RETURNS = 180.0
"""Seconds that a day-2 runbook waits for a node that it has restarted itself, when it is run again."""


class SilentNodes(set[str]):
    """Names of nodes that were waited for in vain; they are not waited for again in this run."""


def probe_nodes(context: RunContext) -> dict[str, Probe]:
    """What answers at the addresses of all nodes, by name, once each node has come to rest.

    A run may begin while nodes still install what a killed run gave them. Without a secrets bundle no node has been
    given anything, so there is nothing to wait for.
    """
    nodes, silent = context.platform.nodes, context.shared(SilentNodes, SilentNodes)
    answers: dict[str, Mode] = {}

    def has_settled(node: Node, answer: Probe) -> bool:
        answers[node.name] = answer.mode
        if answer.mode is not Mode.CONFIGURED:
            return answer.mode is not Mode.UNREACHABLE or waits_for_control_plane(node, context.platform, answers)
        return context.talos.is_at_rest(node)

    def settled(node: Node) -> Probe:
        until = time.monotonic() + PATIENCE
        while True:
            answer = context.talos.probe(node)
            if not context.secrets.has_bundle() or has_settled(node, answer) or node.name in silent:
                return answer
            if time.monotonic() > until:
                silent.add(node.name)
                return answer
            context.cancellation.pause(0.2)

    return dict(zip([node.name for node in nodes], in_parallel(settled, nodes, width=len(nodes)), strict=True))


def waits_for_control_plane(node: Node, platform: Platform, modes: Mapping[str, Mode]) -> bool:
    """Whether a silent worker may have its configuration: control planes sign its certificate, and none has one yet.

    Args:
        node: the silent node.
        platform: the params.
        modes: what is known to answer at the nodes, by name.
    """
    known = [modes.get(each.name) for each in platform.control_planes]
    return node.role == "worker" and Mode.MAINTENANCE in known and Mode.CONFIGURED not in known


@dataclass(frozen=True)
class Missing:
    """What an earlier stage has not done yet: the stage's name, and the reason."""

    stage: str
    reason: str


def cluster(context: RunContext) -> Kube:
    """The cluster's API.

    Raises:
        StageMissing: there is no cluster yet.
    """
    kube = api(context)
    if isinstance(kube, Missing):
        raise StageMissing(f"there is no cluster: {kube.reason}", remedy=f"run the stage {kube.stage} first")
    return kube


def api(context: RunContext) -> Kube | Missing:
    """The cluster's API if it answers; else what is missing. One request at most.

    Raises:
        OutsideError: something answers there, but not our cluster's API as it should.
        AccessDenied: it answers and does not accept our certificate.
    """
    if not context.secrets.has_bundle():
        return Missing("bootstrap-kubernetes", "there is no secrets bundle yet, so there is no cluster")
    try:
        kube = context.kube()
        kube.version()
    except Unreachable as error:
        if error.code not in NO_CONNECTION:
            raise
        return Missing("bootstrap-kubernetes", f"no Kubernetes API answers at {context.platform.api_address}")
    return kube


def returning_api(context: RunContext) -> Kube | Missing:
    """As `api`; where this cluster has a kubeconfig, its only API server may be restarting, and is waited for."""
    kube = api(context)
    if not isinstance(kube, Missing) or not (context.home / "kubeconfig").exists():
        return kube

    def step() -> Kube | None:
        return None if isinstance(kube := api(context), Missing) else kube

    try:
        return wait_until(step, what="the Kubernetes API", timeout=RETURNS, cancellation=context.cancellation)
    except DeadlineExceeded:
        return kube


@dataclass(frozen=True)
class EtcdReport:
    """What the etcd member of one control plane reports, or why it does not.

    Args:
        members: the members of the cluster as it sees them.
        status: its own status.
        error: why nothing was read.
    """

    members: Sequence[EtcdMember] = ()
    status: EtcdStatus | None = None
    error: str = ""


def read_etcd(client: TalosNode) -> EtcdReport:
    """What the etcd member on a control plane reports."""
    try:
        return EtcdReport(client.etcd_members(), client.etcd_status())
    except FluobookError as error:
        return EtcdReport(error=error.message)
