"""The state of an Application: what Argo CD reports, the commit that Git has, and why it does not become healthy."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluobook.clients import git
from fluobook.errors import KUBECTL, DeadlineExceeded, FluobookError, OutsideError, TaskFailed
from fluobook.failures import explain
from fluobook.gitops.root import NAME as ROOT
from fluobook.gitops.root import NAMESPACE, own_source
from fluobook.gitops.tree import WAVE
from fluobook.stages.core import readiness

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fluobook.clients.kube import Kube
    from fluobook.params import Platform

    Obj = dict[str, Any]

API, KIND = "argoproj.io/v1alpha1", "Application"
FAILED = ("Failed", "Error")
_BUILD_FAILED = re.compile(r"`(kustomize build|helm template)[^`]*` failed exit status|app path does not exist")
_TEMPORARY = re.compile(
    r"time[d-]* ?out|connection|dial tcp|no such host|unavailable|too many requests|handshake|\bEOF\b", re.IGNORECASE
)
PAUSE = 5.0
"""Seconds between two requests to the Git host while an Application is at another revision."""


@dataclass(frozen=True)
class State:
    """What Argo CD reports of an Application.

    Args:
        name: its name.
        wave: its sync wave.
        sync: Synced, OutOfSync or Unknown; "" before the first comparison.
        health: Healthy, Progressing, Degraded, ...; "" before the first assessment.
        operation: phase of its last operation; "" if there was none.
        started: when that began.
        operated: the revision of that operation.
        message: the message of that operation.
        revision: the revision that it was last compared with.
        up_to_date: whether that comparison was with its present source.
        errors: the messages of its error conditions.
        reconciled: when Argo CD last compared it.
        repo: the URL of its source.
        wanted: the revision that its source names.
    """

    name: str
    wave: int
    sync: str
    health: str
    operation: str
    started: str
    operated: str
    message: str
    revision: str
    up_to_date: bool
    errors: tuple[str, ...]
    reconciled: str
    repo: str
    wanted: str

    @property
    def healthy(self) -> bool:
        """Whether it is Synced and Healthy, and its last operation, if it had one, succeeded."""
        return (
            self.up_to_date
            and (self.sync, self.health) == ("Synced", "Healthy")
            and self.operation in ("Succeeded", "")
        )

    @property
    def failed(self) -> bool:
        """Whether its operation failed: Argo CD does not repeat it for the same revision."""
        return self.operation in FAILED

    @property
    def build_error(self) -> str:
        """The error of its build, if only another commit or other params can correct it; "" otherwise."""
        errors = (error for error in self.errors if _BUILD_FAILED.search(error) and not _TEMPORARY.search(error))
        return next(errors, "")

    def summary(self) -> str:
        """Sync, health and the reason: "OutOfSync, Progressing: waiting for healthy state of …"."""
        if not self.sync:
            return "not compared yet"
        statuses = ", ".join(filter(None, (self.sync, self.health)))
        why = self.errors[0] if self.errors else self.message if self.operation not in ("Succeeded", "") else ""
        return f"{statuses}: {why}" if why else statuses


def state_of(obj: Mapping[str, Any]) -> State:
    """The state in an Application object."""
    spec, status = obj["spec"], obj.get("status") or {}
    sync, operation = status.get("sync") or {}, status.get("operationState") or {}
    source, compared = spec.get("source") or {}, (sync.get("comparedTo") or {}).get("source")
    return State(
        name=obj["metadata"]["name"],
        wave=int((obj["metadata"].get("annotations") or {}).get(WAVE, "0")),
        sync=sync.get("status", ""),
        health=(status.get("health") or {}).get("status", ""),
        operation=operation.get("phase", ""),
        started=operation.get("startedAt", ""),
        operated=(operation.get("syncResult") or {}).get("revision", ""),
        message=operation.get("message", ""),
        revision=sync.get("revision", ""),
        up_to_date=compared is None or compared == source,
        errors=tuple(c["message"] for c in status.get("conditions") or () if c["type"].endswith("Error")),
        reconciled=status.get("reconciledAt", ""),
        repo=source.get("repoURL", ""),
        wanted=str(source.get("targetRevision", "")),
    )


class Tip:
    """The commit at the tip of the revision that the platform follows; requested again when an Application has another.

    Args:
        platform: its repository and revision.
    """

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._url = own_source(platform)
        self._lock = threading.Lock()
        self._commit, self._requested = "", 0.0

    def commit(self, *, refresh: bool = False) -> str:
        """The commit; requested once, and with `refresh` again, but at most every few seconds.

        Raises:
            OutsideError: the Git host does not answer, or has no such revision.
        """
        with self._lock:
            old = time.monotonic() - self._requested > PAUSE
            if not self._commit or (refresh and old):
                revision = self._platform.gitops.revision
                self._commit = git.ls_remote(self._url, revision, ca_file=self._platform.ca_file(self._url))
                self._requested = time.monotonic()
            return self._commit

    def is_source_of(self, state: State) -> bool:
        """Whether an Application follows this revision of this repository."""
        return (state.repo, state.wanted) == (self._url, self._platform.gitops.revision)

    def is_past(self, state: State) -> bool:
        """Whether an Application's last operation was about an earlier commit, so that its result does not matter."""
        return self.is_source_of(state) and state.operated not in ("", self.commit())

    def reached(self, state: State, *, refresh: bool = False) -> bool:
        """Whether an Application is at the commit, or does not follow this repository."""
        if not self.is_source_of(state) or state.revision == self.commit():
            return True
        return state.revision == self.commit(refresh=refresh)


def build_error(state: State) -> FluobookError:
    """The error for an Application whose source cannot be built."""
    return TaskFailed(
        f"Application {state.name} (wave {state.wave}) cannot be built: {state.build_error}",
        system="argocd",
        code="ComparisonError",
        remedy="run `fluobook check`, correct the source, push it, and run the stage again",
    )


def why_its_pods_wait(kube: Kube, obj: Obj) -> Iterator[str]:
    """What the waiting pods of an Application say: of its workloads, and of the resources of operators."""
    owners: dict[str, list[str]] = {}
    for resource in (obj.get("status") or {}).get("resources") or ():
        namespace = resource.get("namespace", "")
        if readiness.has_pods(f"{resource.get('group', '')}/{resource['version']}", resource["kind"], namespace):
            owners.setdefault(namespace, []).append(resource["name"])
    for namespace, names in owners.items():
        yield from readiness.why_pods_wait(kube, namespace, names)


def pod_error(state: State, reason: str) -> FluobookError:
    """The error for an Application with a pod that only another commit makes run."""
    return TaskFailed(
        f"Application {state.name} (wave {state.wave}) cannot become healthy: pod {reason}",
        system="kubernetes",
        remedy="correct the image or the settings of the pod, push it, and run the stage again",
    )


def sync_error(kube: Kube, obj: Obj) -> FluobookError:
    """The error for an Application whose operation failed."""
    state = state_of(obj)
    return TaskFailed(
        f"Application {state.name} (wave {state.wave}) could not be synced: {state.message or state.operation}",
        system="argocd",
        code=state.operation,
        cause=first_problem(kube, obj),
        remedy=""
        if explain(state.message)
        else "fix the object that is named, push it, and run the stage again; "
        f"{KUBECTL} -n {NAMESPACE} describe application {state.name}",
    )


def timeout_error(kube: Kube, objects: Mapping[str, Obj], name: str, seconds: float) -> FluobookError:
    """The error for an Application that did not become healthy in time; for the root, the first of the others."""
    obj = _first_unhealthy(objects) if name == ROOT else objects.get(name)
    if obj is None:
        root = objects.get(ROOT)
        return DeadlineExceeded(
            f"timed out after {seconds:g} s waiting for Application {name} to be created",
            cause=f"{ROOT}: {state_of(root).summary()}" if root else "the root Application does not exist",
            remedy="run the stage again"
            if root and state_of(root).errors
            else "push the commit that has it, then run the stage again",
        )
    state = state_of(obj)
    return DeadlineExceeded(
        f"timed out after {seconds:g} s waiting for Application {state.name} (wave {state.wave}): {state.summary()}",
        cause=first_problem(kube, obj),
        remedy=f"{KUBECTL} -n {NAMESPACE} describe application {state.name}; deadlines.applications in the params sets "
        "the limit",
    )


def _first_unhealthy(objects: Mapping[str, Obj]) -> Obj | None:
    """Of the Applications that are not healthy, the first by wave; the root only if all others are healthy."""
    unhealthy = [obj for obj in objects.values() if not state_of(obj).healthy]
    ordered = sorted(unhealthy, key=lambda obj: (obj["metadata"]["name"] == ROOT, state_of(obj).wave))
    return ordered[0] if ordered else objects.get(ROOT)


def first_problem(kube: Kube, obj: Obj) -> str:
    """The first object of an Application that is not healthy, and why; "" if all seem to be."""
    return next(_problems(kube, obj), "")


def _problems(kube: Kube, obj: Obj) -> Iterator[str]:
    """From the result of the last operation, the conditions, and the live objects.

    The live objects are read because Argo CD 3 does not keep their health in the Application.
    """
    status = obj.get("status") or {}
    result = (status.get("operationState") or {}).get("syncResult") or {}
    for resource in result.get("resources") or ():
        if resource.get("status") == "SyncFailed" or resource.get("hookPhase") in FAILED:
            yield f"{_title(resource)}: {resource.get('message') or resource.get('hookPhase')}"
    yield from filter(None, state_of(obj).errors)
    for resource in status.get("resources") or ():
        health = resource.get("health") or {}
        if resource["kind"] == KIND:
            continue
        if health.get("status") not in (None, "Healthy", "Suspended"):
            yield f"{_title(resource)} is {health['status']}: {health.get('message', '')}".rstrip(": ")
        elif why := _why_not_ready(kube, resource):
            yield f"{_title(resource)}: {why}"


def _why_not_ready(kube: Kube, resource: Mapping[str, Any]) -> str:
    try:
        live = kube.find(api_version_of(resource), resource["kind"], resource["name"], resource.get("namespace", ""))
        if live is None:
            return "does not exist"
        return readiness.why_with_its_pods(kube, live)
    except OutsideError:
        return ""


def api_version_of(resource: Mapping[str, Any]) -> str:
    """The apiVersion of an object that an Application's status lists."""
    return "/".join(filter(None, (resource.get("group", ""), resource["version"])))


def _title(resource: Mapping[str, Any]) -> str:
    namespace = f"{resource['namespace']}/" if resource.get("namespace") else ""
    return f"{resource['kind']} {namespace}{resource['name']}"
