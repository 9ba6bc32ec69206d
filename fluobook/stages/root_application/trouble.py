"""Why an Application does not get well: its own words, and the first of its objects that is not well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook.errors import DeadlineExceeded, FluobookError, OutsideError, TaskFailed
from fluobook.gitops.root import NAME as ROOT
from fluobook.gitops.root import NAMESPACE
from fluobook.stages.core import readiness
from fluobook.stages.root_application.state import KIND, state_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fluobook.clients.kube import Kube

    Obj = dict[str, Any]


def failure(kube: Kube, obj: Obj) -> FluobookError:
    """The error for an operation that came to a bad end."""
    state = state_of(obj)
    return TaskFailed(
        f"Application {state.name} (wave {state.wave}) could not be synced: {state.message or state.operation}",
        system="argocd",
        code=state.operation,
        cause=culprit(kube, obj),
        remedy="put right what is named, push it, and run the stage again; "
        f"kubectl -n {NAMESPACE} describe application {state.name}",
    )


def lateness(kube: Kube, objects: Mapping[str, Obj], name: str, seconds: float) -> FluobookError:
    """The error for an Application that did not get well in time; for the root, the first of the others is named."""
    obj = _first_unwell(objects) if name == ROOT else objects.get(name)
    if obj is None:
        return DeadlineExceeded(
            f"Application {name} was not made within {seconds:g} s",
            cause=_words(objects.get(ROOT)) or "the root Application is not there",
            remedy="push the commit that has it, then run the stage again",
        )
    state = state_of(obj)
    return DeadlineExceeded(
        f"Application {state.name} (wave {state.wave}) is not well within {seconds:g} s: {state.words()}",
        cause=culprit(kube, obj),
        remedy=f"kubectl -n {NAMESPACE} describe application {state.name}; deadlines.applications in the params sets "
        "the limit",
    )


def _first_unwell(objects: Mapping[str, Obj]) -> Obj | None:
    """Of the Applications that are not well, the one of the first wave; the root itself if all others are."""
    unwell = [obj for obj in objects.values() if not state_of(obj).well]
    order = sorted(unwell, key=lambda obj: (obj["metadata"]["name"] == ROOT, state_of(obj).wave))
    return order[0] if order else objects.get(ROOT)


def _words(obj: Obj | None) -> str:
    return f"{obj['metadata']['name']} says: {state_of(obj).words()}" if obj else ""


def culprit(kube: Kube, obj: Obj) -> str:
    """The first object of an Application that is not well, and what it says; "" if all seem to be."""
    return next(filter(None, (*_told(obj), *_errors(obj))), "") or next(_looked_up(kube, obj), "")


def _told(obj: Obj) -> Iterator[str]:
    """What the last operation says of its objects."""
    result = ((obj.get("status") or {}).get("operationState") or {}).get("syncResult") or {}
    for one in result.get("resources") or ():
        if one.get("status") == "SyncFailed" or one.get("hookPhase") in ("Failed", "Error"):
            yield f"{_name(one)}: {one.get('message') or one.get('hookPhase')}"


def _errors(obj: Obj) -> Iterator[str]:
    yield from state_of(obj).errors


def _looked_up(kube: Kube, obj: Obj) -> Iterator[str]:
    """The live objects themselves: Argo CD 3 does not keep their health in the Application."""
    for one in (obj.get("status") or {}).get("resources") or ():
        health = one.get("health") or {}
        if one["kind"] == KIND:
            continue
        if health.get("status") not in (None, "Healthy", "Suspended"):
            yield f"{_name(one)} is {health['status']}: {health.get('message', '')}".rstrip(": ")
        elif why := _why(kube, one):
            yield f"{_name(one)}: {why}"


def _why(kube: Kube, listed: Mapping[str, Any]) -> str:
    api_version = "/".join(filter(None, (listed.get("group", ""), listed["version"])))
    try:
        live = kube.find(api_version, listed["kind"], listed["name"], listed.get("namespace", ""))
        if live is None:
            return "is not there"
        why = readiness.why_not(live)
        return "; ".join(filter(None, (why, readiness.why_its_pods_wait(kube, live)))) if why else ""
    except OutsideError:
        return ""


def _name(listed: Mapping[str, Any]) -> str:
    space = f"{listed['namespace']}/" if listed.get("namespace") else ""
    return f"{listed['kind']} {space}{listed['name']}"
