"""Operations: when one begins by itself, how it is stepped and tried again, and what stays of it in `status`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fluobook_lab.argocd import status
from fluobook_lab.argocd.settings import duration
from fluobook_lab.argocd.sources import sources_of
from fluobook_lab.argocd.tasks import FAILED, RUNNING
from fluobook_lab.kube.objects import clone, timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fluobook_lab.argocd.comparison import Comparison
    from fluobook_lab.argocd.health import Judge
    from fluobook_lab.argocd.sources import Rendered
    from fluobook_lab.argocd.sync import Outcome, Sync
    from fluobook_lab.argocd.targets import Target
    from fluobook_lab.kube.objects import Obj

SELF_HEAL = 5.0
"""World seconds between a sync and the one that heals what was changed by hand since."""
DEFAULT_LIMIT = 5
TERMINATING = "Terminating"


@dataclass(frozen=True)
class Decision:
    """Whether to sync by itself: `go`, or `later` world seconds from now, or a `problem` for a condition."""

    go: bool = False
    later: float | None = None
    problem: str = ""


def automatic(app: Obj, comparison: Comparison, rendered: Rendered, since_last: float) -> Decision:
    """What the Application's sync policy asks for.

    Args:
        app: the Application.
        comparison: its objects now.
        rendered: its documents.
        since_last: world seconds since its last operation ended.
    """
    policy = (app["spec"].get("syncPolicy") or {}).get("automated")
    if policy is None or policy.get("enabled") is False or comparison.synced:
        return Decision()
    nothing_wanted = not any(item.target for item in comparison.items)
    if not policy.get("prune") and all(item.prunes for item in comparison.items if item.out_of_sync):
        return Decision()
    if policy.get("prune") and not policy.get("allowEmpty") and nothing_wanted:
        wiped = "Skipping sync attempt: auto-sync will wipe out all resources"
        return Decision(problem=wiped)
    last = (app.get("status") or {}).get("operationState")
    if last is None or not _same(app["spec"], last.get("syncResult") or {}, rendered):
        return Decision(go=True)
    return _again(policy, last, rendered, since_last)


def _again(policy: Mapping[str, Any], last: Mapping[str, Any], rendered: Rendered, since_last: float) -> Decision:
    """What follows on an operation of the same source: a failed one is not repeated, a changed cluster is healed."""
    if last["phase"] != "Succeeded":
        what = ", ".join(rendered.revisions)
        return Decision(problem=f"Failed last sync attempt to [{what}]: {last.get('message', '')}")
    if not policy.get("selfHeal"):
        return Decision()
    return Decision(go=True) if since_last >= SELF_HEAL else Decision(later=SELF_HEAL - since_last)


def _same(spec: Mapping[str, Any], result: Mapping[str, Any], rendered: Rendered) -> bool:
    """Whether the last operation was of this very source at these very revisions."""
    sources = result.get("sources") or [result.get("source") or {}]
    revisions = result.get("revisions") or [result.get("revision", "")]
    return sources == sources_of(dict(spec)) and list(revisions) == list(rendered.revisions)


def requested(app: Obj) -> Obj:
    """The operation that the automatic sync asks for."""
    policy = app["spec"].get("syncPolicy") or {}
    sync: Obj = {"prune": bool((policy.get("automated") or {}).get("prune"))}
    if policy.get("syncOptions"):
        sync["syncOptions"] = list(policy["syncOptions"])
    retry = clone(policy.get("retry") or {"limit": DEFAULT_LIMIT})
    return {"initiatedBy": {"automated": True}, "retry": retry, "sync": sync}


@dataclass
class Operation:
    """An operation under way.

    Args:
        asked: the operation as it was asked for.
        spec: the Application's when it began.
        rendered: what is synced: a newer commit waits until this has ended.
        targets: what that comes to.
        begin: makes a sync of the targets, anew for each attempt.
        clock: world seconds now.
    """

    asked: Obj
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
        """Whether nothing more will be done."""
        return self.phase != RUNNING

    @property
    def wake_in(self) -> float | None:
        """World seconds until time alone lets it go on; None if only the cluster can."""
        until = self.retry_at if self.retry_at is not None else self._sync.not_before if self._sync else None
        return None if until is None or until < self.clock() else until - self.clock()

    @property
    def starts_afresh(self) -> bool:
        """Whether it is about to be tried again, and is to look for a newer commit first (`retry.refresh`)."""
        due = self.retry_at is not None and self.clock() >= self.retry_at
        return due and bool((self.asked.get("retry") or {}).get("refresh"))

    def step(self, judge: Judge) -> None:
        """Go as far as can be gone now."""
        if self.ended or (self.retry_at is not None and self.clock() < self.retry_at):
            return
        if self._sync is None or self.retry_at is not None:
            self._sync, self.retry_at = self.begin(self.targets), None
        outcome = self._advance(self._sync, judge)
        self.phase, self.message = outcome.phase, outcome.message
        if outcome.phase == FAILED:
            self._retry()
        elif outcome.phase != RUNNING and self.attempts:
            self.message += f" (retried {self.attempts} times)."

    def terminate(self) -> None:
        """End it where it stands."""
        self.phase, self.message = FAILED, "Operation terminated"

    def state(self) -> Obj:
        """`status.operationState` now."""
        told = status.operation_state(self.asked, self._sync.tasks if self._sync else (), self.rendered, self.spec)
        told |= {"phase": self.phase, "message": self.message, "startedAt": self.started}
        told |= {"retryCount": self.attempts} if self.attempts else {}
        if self.ended or self.retry_at is not None:
            told["finishedAt"] = timestamp()
        return told

    @staticmethod
    def _advance(sync: Sync, judge: Judge) -> Outcome:
        """Step until nothing moves: a wave whose objects are healthy at once lets the next one go."""
        before = None
        outcome = sync.step(judge)
        while outcome.phase == RUNNING and outcome != before:
            before, outcome = outcome, sync.step(judge)
        return outcome

    def _retry(self) -> None:
        """Try again later, if the retry strategy has a try left."""
        strategy = self.asked.get("retry") or {}
        limit = int(strategy.get("limit") or 0)
        if 0 <= limit <= self.attempts:
            self.message += f" (retried {self.attempts} times)." if self.attempts else ""
            return
        backoff = strategy.get("backoff") or {}
        first, factor = duration(backoff.get("duration") or "5s"), float(backoff.get("factor") or 2)
        pause = min(first * factor**self.attempts, duration(backoff.get("maxDuration") or "3m"))
        self.attempts += 1
        self.retry_at, self.phase = self.clock() + pause, RUNNING
        self.message += f". Retrying attempt #{self.attempts} in {pause:g}s."
