"""Operations, from the automatic sync's decision to retries, and the `status` that the controller writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fluobook_lab.argocd.configuration import duration
from fluobook_lab.argocd.objects import NAMESPACE, operation_phase, sources_of
from fluobook_lab.argocd.sync import FAILED, PENDING, RUNNING, Task
from fluobook_lab.kube.objects import clone, timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from fluobook_lab.argocd.comparison import Compared, Comparison
    from fluobook_lab.argocd.health import Health, HealthChecks
    from fluobook_lab.argocd.objects import Target
    from fluobook_lab.argocd.repo_server import Rendered
    from fluobook_lab.argocd.sync import Sync
    from fluobook_lab.kube.objects import Obj

SELF_HEAL = 5.0
"""Lab seconds between a sync and the next one that reverts manual changes."""
DEFAULT_LIMIT = 5
TERMINATING = "Terminating"
HISTORY = 10
"""Deployments in `status.history`."""


@dataclass(frozen=True)
class Decision:
    """Whether to sync automatically: now, `later` lab seconds from now, or not for a `problem` (for a condition)."""

    now: bool = False
    later: float | None = None
    problem: str = ""


def automatic(app: Obj, comparison: Comparison, rendered: Rendered, since_last: float) -> Decision:
    """What the Application's sync policy demands.

    Args:
        app: the Application.
        comparison: its objects now.
        rendered: its documents.
        since_last: lab seconds since its last operation ended.
    """
    spec = app["spec"]
    policy = (spec.get("syncPolicy") or {}).get("automated")
    differing = [item for item in comparison.items if item.out_of_sync]
    if (
        policy is None
        or policy.get("enabled") is False
        or not any(policy.get("prune") or item.target for item in differing)
    ):
        return Decision()
    if policy.get("prune") and not policy.get("allowEmpty") and not any(item.target for item in comparison.items):
        return Decision(problem="Skipping sync attempt: auto-sync will wipe out all resources")
    last = (app.get("status") or {}).get("operationState") or {}
    result = last.get("syncResult") or {}
    same_source = (result.get("sources") or [result.get("source") or {}]) == sources_of(spec)
    same_revisions = (result.get("revisions") or [result.get("revision", "")]) == list(rendered.revisions)
    if not (last and same_source and same_revisions):
        return Decision(now=True)
    if last["phase"] != "Succeeded":
        attempt = f"Failed last sync attempt to [{', '.join(rendered.revisions)}]"
        return Decision(problem=f"{attempt}: {last.get('message', '')}")
    if policy.get("selfHeal") and since_last < SELF_HEAL:
        return Decision(later=SELF_HEAL - since_last)
    return Decision(now=bool(policy.get("selfHeal")))


def automatic_request(app: Obj) -> Obj:
    """The operation that the automatic sync requests."""
    policy = app["spec"].get("syncPolicy") or {}
    sync: Obj = {"prune": bool((policy.get("automated") or {}).get("prune"))}
    if policy.get("syncOptions"):
        sync["syncOptions"] = list(policy["syncOptions"])
    retry = clone(policy.get("retry") or {"limit": DEFAULT_LIMIT})
    return {"initiatedBy": {"automated": True}, "retry": retry, "sync": sync}


@dataclass
class Operation:
    """An operation in progress.

    Args:
        request: the requested operation.
        spec: the Application's when it began.
        rendered: what is synced: a newer commit waits until this operation has ended.
        targets: the targets of `rendered`.
        begin: starts a sync of the targets, for each attempt.
        clock: lab seconds now.
    """

    request: Obj
    spec: Obj
    rendered: Rendered
    targets: list[Target]
    begin: Callable[[list[Target]], Sync]
    clock: Callable[[], float]
    started: str = field(default_factory=timestamp)
    attempts: int = 0
    retry_at: float | None = None
    message: str = ""
    phase: str = RUNNING
    _sync: Sync | None = field(default=None, repr=False)

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.phase != RUNNING

    @property
    def wake_in(self) -> float | None:
        """Lab seconds until it can continue; None if only a change in the cluster lets it."""
        until = self.retry_at if self.retry_at is not None else self._sync.not_before if self._sync else None
        return None if until is None or until < self.clock() else until - self.clock()

    @property
    def needs_refresh(self) -> bool:
        """Whether a retry is due that first resolves the revisions again (`retry.refresh`)."""
        due = self.retry_at is not None and self.clock() >= self.retry_at
        return due and bool((self.request.get("retry") or {}).get("refresh"))

    def step(self, checks: HealthChecks) -> None:
        """Do what can be done now, without waiting."""
        if self.ended or (self.retry_at is not None and self.clock() < self.retry_at):
            return
        if self._sync is None or self.retry_at is not None:
            self._sync, self.retry_at = self.begin(self.targets), None
        outcome, previous = self._sync.step(checks), None
        while outcome.phase == RUNNING and outcome != previous:  # a wave that is healthy at once lets the next follow
            previous, outcome = outcome, self._sync.step(checks)
        self.phase, self.message = outcome.phase, outcome.message
        if outcome.phase == FAILED:
            self._retry()
        elif outcome.phase != RUNNING and self.attempts:
            self.message += f" (retried {self.attempts} times)."

    def terminate(self) -> None:
        """End it without finishing the sync."""
        self.phase, self.message = FAILED, "Operation terminated"

    def state(self) -> Obj:
        """`status.operationState` now."""
        several = self.spec.get("sources")
        result: Obj = {"sources": clone(several)} if several else {"source": clone(self.spec.get("source") or {})}
        result |= _revisions(self.spec, self.rendered)
        if results := [_task_result(task) for task in self._sync.tasks if task.state != PENDING] if self._sync else []:
            result["resources"] = results
        state: Obj = {"operation": self.request, "syncResult": result}
        state |= {"phase": self.phase, "message": self.message, "startedAt": self.started}
        state |= {"retryCount": self.attempts} if self.attempts else {}
        if self.ended or self.retry_at is not None:
            state["finishedAt"] = timestamp()
        return state

    def _retry(self) -> None:
        """Retry later, if the retry strategy has an attempt left."""
        strategy = self.request.get("retry") or {}
        if 0 <= int(strategy.get("limit") or 0) <= self.attempts:
            self.message += f" (retried {self.attempts} times)." if self.attempts else ""
            return
        backoff = strategy.get("backoff") or {}
        first, factor = duration(backoff.get("duration") or "5s"), float(backoff.get("factor") or 2)
        pause = min(first * factor**self.attempts, duration(backoff.get("maxDuration") or "3m"))
        self.attempts += 1
        self.retry_at, self.phase = self.clock() + pause, RUNNING
        self.message += f". Retrying attempt #{self.attempts} in {pause:g}s."


def _task_result(task: Task) -> Obj:
    version, key = task.obj.get("apiVersion", "").rpartition("/")[2], task.key
    result: Obj = {"group": key.group, "version": version, "kind": key.kind, "namespace": key.namespace}
    result |= {"name": key.name, "syncPhase": task.phase, "message": task.message}
    result |= {"status": task.status} if task.status else {}
    result |= {"hookType": task.phase} if task.is_hook else {}
    return result | ({"hookPhase": task.state} if task.state else {})


# ---- the status ------------------------------------------------------------------------------------------------------


def _revisions(spec: Mapping[str, Any], rendered: Rendered) -> Obj:
    several = bool(spec.get("sources"))
    return {"revisions": list(rendered.revisions)} if several else {"revision": rendered.revisions[0]}


def application_status(
    app: Obj,
    conditions: Mapping[str, str],
    rendered: Rendered | None,
    comparison: Comparison | None,
    health: Health,
    *,
    persist_health: bool,
) -> Obj:
    """The whole status of an Application, except for what an operation adds.

    Args:
        app: with the previous status.
        conditions: messages by type.
        rendered: its documents, None if they could not be rendered.
        comparison: None if nothing could be compared.
        health: of the Application.
        persist_health: whether `status.resources` includes health.
    """
    old, spec = app.get("status") or {}, app["spec"]
    several = "sources" if spec.get("sources") else "source"
    compared = {"destination": clone(spec.get("destination") or {}), several: clone(spec.get(several) or {})}
    sync: Obj = {"status": "Unknown", "comparedTo": compared} | (_revisions(spec, rendered) if rendered else {})
    before = old.get("health") or {}
    same = before.get("status") == health.status and "lastTransitionTime" in before
    since = before["lastTransitionTime"] if same else timestamp()
    status = {**old, "controllerNamespace": NAMESPACE, "resourceHealthSource": "appTree", "sync": sync}
    status |= {"health": {"status": health.status, "lastTransitionTime": since}}
    status["conditions"] = _conditions(old.get("conditions") or (), conditions)
    if comparison is not None:
        sync["status"] = "Synced" if comparison.synced else "OutOfSync"
    if comparison is not None and rendered is not None:
        status["resources"] = [_resource(item, persist_health=persist_health) for item in comparison.items]
        images = {
            container["image"]
            for item in comparison.items
            for container in _containers(item.live or {})
            if container.get("image")
        }
        status["summary"] = {"images": sorted(images)} if images else {}
        kinds = rendered.types or ("Directory",)
        status |= {"sourceTypes": list(kinds)} if spec.get("sources") else {"sourceType": kinds[0]}
    if not status["conditions"]:
        del status["conditions"]
    return status


def _conditions(old: Iterable[Mapping[str, Any]], messages: Mapping[str, str]) -> list[Obj]:
    """The conditions by type; one with an unchanged message keeps its time."""
    times = {(entry["type"], entry["message"]): entry["lastTransitionTime"] for entry in old}
    return [
        {"type": kind, "message": message, "lastTransitionTime": times.get((kind, message)) or timestamp()}
        for kind, message in messages.items()
    ]


def _resource(item: Compared, *, persist_health: bool) -> Obj:
    key, obj = item.key, item.target.obj if item.target else item.live or {}
    entry: Obj = {"group": key.group} if key.group else {}
    entry |= {"kind": key.kind, "name": key.name}
    entry |= {"namespace": key.namespace} if key.namespace else {}
    entry |= {
        "status": "OutOfSync" if item.out_of_sync else "Synced",
        "version": obj.get("apiVersion", "").rpartition("/")[2],
    }
    if item.target and item.target.wave:
        entry["syncWave"] = item.target.wave
    if item.prunes:
        entry["requiresPruning"] = True
    if persist_health and item.health:
        message = {"message": item.health.message} if item.health.message else {}
        entry["health"] = {"status": item.health.status, **message}
    return entry


def _containers(obj: Obj) -> list[dict[str, Any]]:
    template = (obj.get("spec") or {}).get("template") or {}
    return (template.get("spec") or {}).get("containers") or []


def history(old: list[Obj], state: Mapping[str, Any]) -> list[Obj]:
    """`status.history` with the deployment of a finished operation."""
    result = state["syncResult"]
    entry: Obj = {"id": old[-1]["id"] + 1 if old else 0, "deployedAt": timestamp()}
    entry["deployStartedAt"] = state["startedAt"]
    entry |= {key: clone(result[key]) for key in ("revision", "revisions", "source", "sources") if key in result}
    entry["initiatedBy"] = clone(state["operation"].get("initiatedBy") or {})
    return [*old, entry][-HISTORY:]


def summary_of(status: Obj) -> str:
    """Sync, health and operation of an Application in one line, for the timeline."""
    operation = operation_phase({"status": status})
    return f"{status['sync']['status']} {status['health']['status']} {operation}".strip()
