"""Which node may run a pod: selectors, affinity by label, taints and tolerations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.kubernetes.selectors import meets
from fluobook_lab.kube.objects import is_true, labels_of

if TYPE_CHECKING:
    from fluobook_lab.kube.objects import Obj

_BLOCKING = ("NoSchedule", "NoExecute")
_DAEMON_TOLERATED = (
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/unschedulable",
    "node.kubernetes.io/network-unavailable",
)


def can_run(spec: Obj, node: Obj, *, daemon: bool = False) -> bool:
    """Whether a pod's spec lets it run on a node.

    Args:
        spec: the pod's spec.
        node: the Node.
        daemon: the pod is a DaemonSet's, which comes to nodes that are not ready as well.
    """
    if not daemon and (not is_true(node, "Ready") or (node.get("spec") or {}).get("unschedulable")):
        return False
    labels = labels_of(node)
    selected = all(labels.get(key) == value for key, value in (spec.get("nodeSelector") or {}).items())
    return selected and _affine(spec, labels) and not _repelled(spec, node, daemon=daemon)


def _affine(spec: Obj, labels: dict[str, str]) -> bool:
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    terms = required.get("nodeSelectorTerms") or []
    return any(all(meets(rule, labels) for rule in term.get("matchExpressions") or []) for term in terms)


def _repelled(spec: Obj, node: Obj, *, daemon: bool) -> bool:
    taints = [taint for taint in (node.get("spec") or {}).get("taints") or [] if taint["effect"] in _BLOCKING]
    if daemon:
        taints = [taint for taint in taints if taint["key"] not in _DAEMON_TOLERATED]
    tolerations = spec.get("tolerations") or []
    return not all(any(_tolerates(toleration, taint) for toleration in tolerations) for taint in taints)


def _tolerates(toleration: Obj, taint: Obj) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if not toleration.get("key"):
        return toleration.get("operator") == "Exists"
    if toleration["key"] != taint["key"]:
        return False
    return toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", "")
