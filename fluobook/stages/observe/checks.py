"""Checks that the platform is healthy, from the cluster alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.stages.approve_csrs.stage import requests_of
from fluobook.stages.core.check import Check, CheckGroup, count, run_groups
from fluobook.stages.observe import tables
from fluobook.stages.observe.watch import cluster, read_flows, relay, silent_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fluobook.context import RunContext


def verify(context: RunContext) -> Sequence[Check]:
    """The checks of stage 9.

    Raises:
        StageMissing: there is no cluster yet.
    """
    cluster(context)
    return run_groups(context, GROUPS)


def _nodes(context: RunContext) -> Iterator[Check]:
    ready = {node["metadata"]["name"] for node in context.kube().list("v1", "Node") if tables.is_ready(node)}
    unready = [node.name for node in context.platform.nodes if node.name not in ready]
    result = count(len(context.platform.nodes), unready)
    yield Check("every node is Ready", not unready, result, "kubectl describe node; talosctl -n ADDRESS dmesg")


def _requests(context: RunContext) -> Iterator[Check]:
    pending = [request for request in requests_of(context) if request.pending]
    own = sorted({request.node for request in pending if request.fits})
    foreign = sorted({request.node or "nobody" for request in pending if not request.fits})
    result = f"pending for {', '.join(own)}" if own else "none is pending"
    yield Check(
        "no declared node waits for a certificate",
        not own,
        result + (f"; not managed by fluobook: {', '.join(foreign)}" if foreign else ""),
        "run the stage approve-csrs; then inspect kubelet-csr-approver: kubectl -n kube-system get pods",
    )


def _applications(context: RunContext) -> Iterator[Check]:
    apps = context.kube().list("argoproj.io/v1alpha1", "Application", "argocd")
    unhealthy = [
        f"{app['metadata']['name']} ({', '.join(tables.status_of(app))})" for app in apps if not tables.is_healthy(app)
    ]
    yield Check(
        "every Application is Synced and Healthy",
        bool(apps) and not unhealthy,
        count(len(apps), unhealthy) if apps else "there is none",
        "run the stage root-application again: it waits, and shows what each one waits for",
    )


def _flows(context: RunContext) -> Iterator[Check]:
    platform = context.platform
    with relay(context.kube(), platform) as hubble:
        silent = silent_nodes(platform, hubble.nodes())
        flows = read_flows(hubble).counts()
    yield Check(
        "the Hubble relay has flows of every node",
        bool(flows) and not silent,
        f"nodes known to it: {count(len(platform.nodes), silent)}" if flows else "it has no flows",
        "kubectl -n kube-system rollout status deployment/hubble-relay; cilium status",
    )


GROUPS = (
    CheckGroup("every node is Ready", _nodes),
    CheckGroup("no declared node waits for a certificate", _requests),
    CheckGroup("every Application is Synced and Healthy", _applications),
    CheckGroup("the Hubble relay has flows of every node", _flows),
)
