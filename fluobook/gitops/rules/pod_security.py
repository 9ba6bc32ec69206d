"""PodSecurity labels: each namespace allows what its pods need, and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.gitops.documents import steps_of
from fluobook.gitops.knowledge import PRIVILEGED_KINDS, chart_of
from fluobook.gitops.rules.namespaces import made

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.gitops.documents import Document
    from fluobook.gitops.look import Finding, Look

_LABEL = "pod-security.kubernetes.io/"
_WORKLOADS = {"", "apps", "batch"}
_HOST = {"hostNetwork", "hostPID", "hostIPC", "hostPort", "privileged"}
_MODES = ("enforce", "audit", "warn")


def labels_fit_the_pods(look: Look) -> Iterator[Finding]:
    """Privileged where something needs it and nowhere else; the three modes say the same."""
    needed = _privileged(look)
    for name, (_, namespace) in made(look).items():
        labels = (namespace.data["metadata"].get("labels")) or {}
        levels = {mode: labels.get(_LABEL + mode, "") for mode in _MODES}
        place = look.at(namespace, "metadata", "labels", _LABEL + "enforce")
        if missing := [mode for mode, level in levels.items() if not level]:
            yield place.finding("pod-security", f"{name} has no label {_LABEL}{missing[0]}", "give it all three")
        elif len(set(levels.values())) > 1:
            yield place.finding("pod-security", f"{name}: enforce, audit and warn differ", "give them one level")
        elif name in needed and levels["enforce"] != "privileged":
            yield place.finding("pod-security", f"{name} must be privileged: {needed[name]}", "label it privileged")
        elif name not in needed and levels["enforce"] == "privileged":
            yield place.finding(
                "pod-security", f"{name} is privileged, and nothing in it needs that", "label it baseline"
            )


def _privileged(look: Look) -> dict[str, str]:
    """The namespaces that must be privileged, and why."""
    charts = {one.namespace: chart_of(one).privileged for one in look.tree.applications if chart_of(one).privileged}
    kinds = {one.namespace: PRIVILEGED_KINDS[one.kind] for _, one in look.deployed if one.kind in PRIVILEGED_KINDS}
    return charts | kinds | {one.namespace: told for _, one in look.deployed if (told := _asks(one))}


def _asks(document: Document) -> str:
    """What a workload of ours asks for that only a privileged namespace allows; "" for nothing."""
    if document.group not in _WORKLOADS:
        return ""
    asked = (
        key for _, key, value in steps_of(document.data.get("spec")) if key == "hostPath" or (key in _HOST and value)
    )
    return next((f"{document.kind} {document.name} asks for {key}" for key in asked), "")
