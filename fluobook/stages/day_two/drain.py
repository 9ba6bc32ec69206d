"""Take the pods away from a node: what would never let them go, found before anything is cordoned, and the drain.

A drain goes through the eviction API, so that disruption budgets hold. Pods of DaemonSets and static pods stay.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fluobook.clients import answers
from fluobook.clients.kube import Kube
from fluobook.context import RunContext
from fluobook.errors import PHASE, FluobookError, Refused
from fluobook.kubernetes.quantities import disruptions_allowed
from fluobook.kubernetes.selectors import CORDONED, matches, tolerates
from fluobook.params import Node
from fluobook.stages.core.executor import Reporter
from fluobook.stages.core.plan import Action
from fluobook.stages.core.readiness import has_condition, listed

Obj = Mapping[str, Any]

CORDONED_BY = "fluobook/cordoned-by"
"""The annotation of a node that fluobook cordoned: the stage. A node that somebody else cordoned stays so."""
LONGHORN, LONGHORN_API = "longhorn-system", "longhorn.io/v1beta2"
POLICY = "node-drain-policy"
LETS_GO = frozenset({"allow-if-replica-is-stopped", "always-allow", "block-for-eviction"})
"""Longhorn's drain policies under which the last replica of a volume does not hold a node for ever."""
CNPG = "cnpg.io/cluster"
SHOWN = 3
"""Volumes that are named; the others are counted."""


def gate_action(where: str, needs: tuple[str, ...]) -> Action:
    """The health gates that pass before the next node is changed, such as "before talos-cp-1"."""
    return Action(f"gate {where}", "check", f"gates {where}", "etcd, volumes, databases", "", needs, "node")


def node_action(
    verb: str,
    node: Node,
    detail: str,
    reason: str,
    needs: tuple[str, ...],
    *,
    system: str = "node",
    data: Mapping[str, Any] | None = None,
) -> Action:
    """One step of what is done to a node; the node's name and `data` reach what performs it."""
    given = {"node": node.name, **(data or {})}
    return Action(f"{verb} {node.name}", verb, f"node {node.name}", detail, reason, needs, system, given)


def refuse_endless(nodes: Iterable[Node], blockers: Mapping[str, Sequence[str]], state: str) -> None:
    """Refuse a plan whose drains could never end.

    Args:
        nodes: those that are to be drained.
        blockers: by the node's name what `blockers` found.
        state: what has happened so far, such as "nothing was changed".

    Raises:
        Refused: with each blocker.
    """
    if blocked := [f"{node.name}: {why}" for node in nodes for why in blockers.get(node.name, ())]:
        raise Refused(
            f"a drain could never end, or would destroy a pod, so {state}:\n  " + "\n  ".join(dict.fromkeys(blocked)),
            cause="an eviction waits until disruption budgets and Longhorn allow it, and brings back only what has a "
            "controller",
            remedy="carry out what each line says; deleting a pod yourself does not ask its disruption budget",
        )


@dataclass(frozen=True)
class Load:
    """What runs in the cluster, as far as it decides about a drain.

    Args:
        pods: all pods.
        budgets: all PodDisruptionBudgets.
        databases: all clusters of CloudNativePG.
        volumes: all volumes of Longhorn.
        replicas: all replicas of Longhorn.
        policy: Longhorn's setting node-drain-policy.
    """

    pods: Sequence[Obj] = ()
    budgets: Sequence[Obj] = ()
    databases: Sequence[Obj] = ()
    volumes: Sequence[Obj] = ()
    replicas: Sequence[Obj] = ()
    policy: str = "block-if-contains-last-replica"


def has_to_go(pod: Obj) -> bool:
    """Whether a drain evicts a pod: not one that has ended, of a DaemonSet, or static."""
    metadata = pod["metadata"]
    owners = {owner["kind"] for owner in metadata.get("ownerReferences") or ()}
    static = "kubernetes.io/config.mirror" in (metadata.get("annotations") or {}) or "Node" in owners
    ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    return not (static or ended or "DaemonSet" in owners)


def pods_of(node: str, pods: Iterable[Obj]) -> list[Obj]:
    """The pods of a node that a drain evicts."""
    return [pod for pod in pods if pod["spec"].get("nodeName") == node and has_to_go(pod)]


def blockers(node: str, load: Load, *, seconds: float) -> Iterator[str]:
    """What would keep a drain of a node from ever ending, or be lost by it, each with the way out.

    Args:
        node: its name.
        load: what runs.
        seconds: the deadline of a drain.
    """
    pods = pods_of(node, load.pods)
    for pod in pods:
        name, namespace = pod["metadata"]["name"], pod["metadata"].get("namespace", "")
        if not any(owner.get("controller") for owner in pod["metadata"].get("ownerReferences") or ()):
            yield (
                f"pod {namespace}/{name} has no controller that would make it again elsewhere, so an eviction destroys "
                "it: delete it yourself, or run it as a Deployment or a Job"
            )
        budgets = [b for b in load.budgets if _covers(b, pod)]
        if len(budgets) > 1:
            yield f"pod {namespace}/{name} has {len(budgets)} disruption budgets, which the API refuses: remove one"
        elif budgets and _never_allows(budgets[0], load) and not _switches_over(pod, load):
            budget = budgets[0]["metadata"]["name"]
            yield (
                f"pod {namespace}/{name}: the disruption budget {budget} never allows its eviction; " + _way_out(pod)
            )
        grace = pod["spec"].get("terminationGracePeriodSeconds") or 0
        if grace > seconds:
            yield (
                f"pod {namespace}/{name} may take {grace} s to end (terminationGracePeriodSeconds), and a drain has "
                f"{seconds:g} s: lower it, or raise deadlines.drain"
            )
    held = sorted(last_replicas(node, load)) if load.policy not in LETS_GO else []
    if held:
        some = ", ".join(held[:SHOWN]) + (f" and {len(held) - SHOWN} more" if len(held) > SHOWN else "")
        yield (
            f"Longhorn's {POLICY} is {load.policy}, and this node has the only replica of {some}: add a replica, or "
            "set defaultSettings.nodeDrainPolicy to allow-if-replica-is-stopped"
        )


def _covers(budget: Obj, pod: Obj) -> bool:
    selector = budget["spec"].get("selector")
    same = budget["metadata"].get("namespace") == pod["metadata"].get("namespace")
    return bool(selector) and same and matches(selector, pod["metadata"].get("labels") or {})


def _never_allows(budget: Obj, load: Load) -> bool:
    """Whether a budget allows no eviction even if all its pods are healthy."""
    total = sum(_covers(budget, pod) for pod in load.pods)
    return disruptions_allowed(budget["spec"], total, total) <= 0


def _switches_over(pod: Obj, load: Load) -> bool:
    """Whether the pod is PostgreSQL's primary, and another instance takes over once the node is cordoned."""
    labels, namespace = pod["metadata"].get("labels") or {}, pod["metadata"].get("namespace")
    for database in load.databases:
        if (database["metadata"]["name"], database["metadata"].get("namespace")) == (labels.get(CNPG), namespace):
            return bool(database["spec"].get("instances", 1) > 1)
    return False


def _way_out(pod: Obj) -> str:
    if CNPG in (pod["metadata"].get("labels") or {}):
        return "its PostgreSQL cluster has one instance: set instances to 2 or more, or enablePDB to false"
    return "add a replica, or let the budget allow one unavailable pod"


def last_replicas(node: str, load: Load) -> Iterator[str]:
    """The volumes whose replicas are all on a node."""
    for volume in load.volumes:
        name = volume["metadata"]["name"]
        homes = {
            replica["spec"].get("nodeID") for replica in load.replicas if replica["spec"].get("volumeName") == name
        }
        if homes == {node}:
            yield name


def read_load(kube: Kube) -> Load:
    """What runs in the cluster; kinds that it does not serve are left out."""
    return Load(
        kube.list("v1", "Pod"),
        listed(kube, "policy/v1", "PodDisruptionBudget"),
        listed(kube, "postgresql.cnpg.io/v1", "Cluster"),
        listed(kube, LONGHORN_API, "Volume", LONGHORN),
        listed(kube, LONGHORN_API, "Replica", LONGHORN),
        setting_of(kube, POLICY) or Load.policy,
    )


def setting_of(kube: Kube, name: str) -> str:
    """A setting of Longhorn: its Setting, or what the chart gives it at the first start; "" for its default."""
    if setting := kube.find(LONGHORN_API, "Setting", name, LONGHORN):
        return str(setting.get("value") or "")
    defaults = kube.find("v1", "ConfigMap", "longhorn-default-setting", LONGHORN) or {}
    text = (defaults.get("data") or {}).get("default-setting.yaml") or "{}"
    try:
        return str((answers.parse_yaml(text.encode()) or {}).get(name) or "")
    except ValueError:
        return ""


def cordoned_by(node: Obj) -> str:
    """The stage that cordoned a node; "" if fluobook did not."""
    if not (node.get("spec") or {}).get("unschedulable"):
        return ""
    return str((node["metadata"].get("annotations") or {}).get(CORDONED_BY) or "")


def cordoned_by_others(nodes: Iterable[Obj], stage: str) -> dict[str, str]:
    """The nodes that other stages of fluobook have cordoned, each with the stage."""
    cordoned = {node["metadata"]["name"]: cordoned_by(node) for node in nodes}
    return {name: by for name, by in cordoned.items() if by not in ("", stage)}


def refuse_others(cordoned: Mapping[str, str]) -> None:
    """Refuse to take nodes away while another runbook is half done.

    Raises:
        Refused: with the nodes that it has cordoned, and the run to finish.
    """
    for stage in sorted(set(cordoned.values())):
        names = ", ".join(name for name, by in cordoned.items() if by == stage)
        raise Refused(
            f"{names}: cordoned by an unfinished run of {stage}",
            cause="two runbooks at once would take away more than one node",
            remedy=f"fluobook run {PHASE} {stage} first",
        )


def cordon(kube: Kube, node: str, stage: str) -> None:
    """Keep new pods away from a node; one that somebody else cordoned is not marked as ours."""
    node_object = kube.get("v1", "Node", node)
    if (node_object.get("spec") or {}).get("unschedulable"):
        return
    body = {"metadata": {"annotations": {CORDONED_BY: stage}}, "spec": {"unschedulable": True}}
    kube.patch("v1", "Node", node, body=body)


def uncordon(kube: Kube, node: str) -> None:
    """Let pods come to a node again, if fluobook cordoned it."""
    if cordoned_by(kube.get("v1", "Node", node)):
        body = {"metadata": {"annotations": {CORDONED_BY: None}}, "spec": {"unschedulable": None}}
        kube.patch("v1", "Node", node, body=body)


def still_to_go(node: str, pods: Iterable[Obj], seen: Collection[str]) -> list[Obj]:
    """The pods of a cordoned node that a drain evicts, or waits for.

    A pod that came since, as it tolerates the cordon (Cilium's operator tolerates everything), stays: evicted, it could
    come again and again.

    Args:
        node: its name.
        pods: all pods.
        seen: the uids of those that the drain has evicted so far; empty when it begins.
    """
    here = pods_of(node, pods)
    if not seen:
        return here
    return [pod for pod in here if pod["metadata"]["uid"] in seen or not tolerates(pod["spec"], CORDONED)]


def drain(context: RunContext, node: str, report: Reporter) -> int:
    """Evict every pod of a cordoned node, and wait until they are gone; how many there were.

    Raises:
        DeadlineExceeded: a pod did not go in time; the message names it and why. The node stays cordoned.
    """
    kube, seen = context.kube(), set[str]()

    def step() -> bool | None:
        pods = still_to_go(node, kube.list("v1", "Pod", fields=f"spec.nodeName={node}"), seen)
        seen.update(pod["metadata"]["uid"] for pod in pods)
        refused = []
        for pod in pods:
            metadata = pod["metadata"]
            if metadata.get("deletionTimestamp"):
                continue
            if why := kube.evict(metadata["name"], metadata["namespace"], uid=metadata["uid"]):
                refused.append(why)
        if pods:
            report(f"{len(pods)} of {len(seen)} pods are left")
            names = ", ".join(sorted(f"{p['metadata']['namespace']}/{p['metadata']['name']}" for p in pods)[:5])
            raise FluobookError("; ".join(refused[:3]) or f"still there: {names}")
        return True

    context.wait_until("drain", f"the pods of {node} to be evicted", step, interval=0.5)
    return len(seen)


def until_ready(context: RunContext, node: Node) -> None:
    """Wait until Talos and Kubernetes report a node as ready, so that pods may come back.

    Raises:
        DeadlineExceeded: it is not in time.
    """

    def step() -> bool | None:
        node_object = context.kube().get("v1", "Node", node.name)
        return True if context.talos.is_ready(node) and has_condition(node_object, "Ready") else None

    context.wait_until("upgrade", f"{node.name} to be ready", step, interval=0.5)
