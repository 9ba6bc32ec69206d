"""The workloads of a cluster that use its API: they read its authority as they start, so another needs a restart.

Each carries the authority for which it was restarted as an annotation, so a run that was killed restarts the rest.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

from fluobook.context import RunContext
from fluobook.errors import FluobookError
from fluobook.gitops.root import NAMESPACE as ARGOCD
from fluobook.machine.contracts import value_at
from fluobook.stages.core.readiness import WORKLOADS, listed, why_not

Obj = Mapping[str, Any]

RESTARTED = "kubectl.kubernetes.io/restartedAt"
"""What `kubectl rollout restart` writes, and what CloudNativePG restarts its instances for."""
AUTHORITY = "fluobook.io/authority"
"""The fingerprint of the authority for which a workload was restarted."""
FIRST = ("kube-system", ARGOCD)
"""Namespaces whose workloads all others depend on: the network, and what repairs the rest."""
DATABASE = ("postgresql.cnpg.io/v1", "Cluster")
ROOT_CA = "kube-root-ca.crt"


def uses_the_api(workload: Obj) -> bool:
    """Whether the pods of a workload have a token for the API, and a restart of it reaches them."""
    pod = value_at(workload, "spec.template.spec") or {}
    by_hand = value_at(workload, "spec.updateStrategy.type") == "OnDelete" or value_at(workload, "spec.paused")
    return pod.get("automountServiceAccountToken") is not False and not by_hand


def left(workloads: list[Obj], authority: str) -> list[Obj]:
    """What has not been restarted for an authority yet, what all others depend on first."""
    marks = {True: "metadata.annotations", False: "spec.template.metadata.annotations"}
    todo = [w for w in workloads if (value_at(w, marks[w["kind"] == DATABASE[1]]) or {}).get(AUTHORITY) != authority]
    place = {name: number for number, name in enumerate(FIRST)}
    return sorted(todo, key=lambda w: place.get(w["metadata"].get("namespace", ""), len(place)))


def restart_all(context: RunContext, authority: str, pem: str, report: Callable[[str], object]) -> int:
    """Restart everything that uses the API, one workload after the other; returns how many there were.

    Args:
        context: the platform.
        authority: the fingerprint of the new authority.
        pem: its certificate, which every namespace must have first: pods that start read it there.
        report: receives what is restarted.
    """
    kube = context.kube()

    def published() -> bool | None:
        roots = [each for each in kube.list("v1", "ConfigMap") if each["metadata"]["name"] == ROOT_CA]
        without = [
            r["metadata"]["namespace"] for r in roots if pem.strip() not in (r.get("data") or {}).get("ca.crt", "")
        ]
        if without or not roots:
            raise FluobookError(f"the new authority is not yet in {ROOT_CA} of {', '.join(without) or 'any namespace'}")
        return True

    context.wait_until("gate", f"every namespace to have the new authority in {ROOT_CA}", published)
    workloads = [each for kind in WORKLOADS for each in kube.list("apps/v1", kind) if uses_the_api(each)]
    todo = left([*workloads, *({**each, "kind": DATABASE[1]} for each in listed(kube, *DATABASE))], authority)
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    for each in todo:
        report(f"{each['kind']} {each['metadata'].get('namespace')}/{each['metadata']['name']}")
        restart(context, each, {AUTHORITY: authority, RESTARTED: now})
    return len(todo)


def restart(context: RunContext, workload: Obj, annotations: Mapping[str, str]) -> None:
    """Replace the pods of a workload as its own rules say, and wait until the new ones are ready."""
    kube, metadata = context.kube(), workload["metadata"]
    name, namespace = metadata["name"], metadata.get("namespace", "")
    if workload["kind"] == DATABASE[1]:
        kube.patch(*DATABASE, name, namespace, body={"metadata": {"annotations": dict(annotations)}})
        return
    at = "apps/v1", workload["kind"]
    body = {"spec": {"template": {"metadata": {"annotations": dict(annotations)}}}}
    generation = kube.patch(*at, name, namespace, body=body)["metadata"].get("generation", 0)

    def ready() -> bool | None:
        found = kube.find(*at, name, namespace)
        if found is None:
            return True  # an operator has taken it away
        if (value_at(dict(found), "status.observedGeneration") or 0) < generation or (reason := why_not(found)):
            raise FluobookError(reason if found and why_not(found) else "its restart has not begun")
        return True

    context.wait_until("gate", f"{workload['kind']} {namespace}/{name} to run again", ready)
