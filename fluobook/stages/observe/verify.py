"""Proves that the platform is in good health, from the cluster alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.stages.approve_csrs.stage import requests_of
from fluobook.stages.core.check import Check, CheckGroup, run_groups
from fluobook.stages.observe import flows, rows
from fluobook.stages.observe.watch import cluster

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
    ready = {node["metadata"]["name"] for node in context.kube().list("v1", "Node") if rows.is_ready(node)}
    unready = [node.name for node in context.platform.nodes if node.name not in ready]
    evidence = rows.count(len(context.platform.nodes), unready)
    yield Check("every node is Ready", not unready, evidence, "kubectl describe node; talosctl -n ADDRESS dmesg")


def _requests(context: RunContext) -> Iterator[Check]:
    pending = [request for request in requests_of(context) if request.pending]
    ours = sorted({request.node for request in pending if request.fits})
    foreign = sorted({request.node or "nobody" for request in pending if not request.fits})
    told = f"pending for {', '.join(ours)}" if ours else "none is pending"
    yield Check(
        "no node of ours waits for a certificate",
        not ours,
        told + (f"; left alone, for {', '.join(foreign)}" if foreign else ""),
        "run the stage approve-csrs; then look why kubelet-csr-approver does not: kubectl -n kube-system get pods",
    )


def _applications(context: RunContext) -> Iterator[Check]:
    found = context.kube().list("argoproj.io/v1alpha1", "Application", "argocd")
    wrong = [f"{one['metadata']['name']} ({', '.join(rows.status_of(one))})" for one in found if not rows.is_well(one)]
    evidence = rows.count(len(found), wrong) if found else "there is none"
    yield Check(
        "every Application is Synced and Healthy",
        bool(found) and not wrong,
        evidence,
        "run the stage root-application again: it waits, and tells what each one waits for",
    )


def _flows(context: RunContext) -> Iterator[Check]:
    with flows.relay(context) as hubble:
        silent = flows.silent(context, hubble.nodes())
        evidence = f"nodes known to it: {rows.count(len(context.platform.nodes), silent)}"
        seen = flows.read(hubble).counts()
    yield Check(
        "the Hubble relay answers with flows of every node",
        bool(seen) and not silent,
        evidence if seen else "it has no flows",
        "kubectl -n kube-system rollout status deployment/hubble-relay; cilium status",
    )


GROUPS = (
    CheckGroup("every node is Ready", _nodes),
    CheckGroup("no node of ours waits for a certificate", _requests),
    CheckGroup("every Application is Synced and Healthy", _applications),
    CheckGroup("the Hubble relay answers with flows of every node", _flows),
)
