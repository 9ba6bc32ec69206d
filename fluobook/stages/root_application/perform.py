"""Does one action of stage 8: applies the root, or waits for one Application and, where it stands still, asks it on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook import gitops
from fluobook.clients.kube.client import MANAGER
from fluobook.gitops.root import NAMESPACE
from fluobook.stages.core import ssa
from fluobook.stages.root_application.following import Following, Seen
from fluobook.stages.root_application.observe import ROOT
from fluobook.stages.root_application.state import API, KIND, State
from fluobook.stages.root_application.tip import Tip
from fluobook.stages.root_application.trouble import failure, lateness

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fluobook.clients.kube import Kube
    from fluobook.context import RunContext
    from fluobook.stages.core.executor import Reporter
    from fluobook.stages.core.plan import Action

REFRESH = "argocd.argoproj.io/refresh"
RUNNING = "Running"


def perform(context: RunContext, action: Action, report: Reporter) -> Mapping[str, Any]:
    """Do one action."""
    if action.verb == "apply":
        return _apply(context)
    report.release_slot()
    seconds = context.platform.deadlines.applications
    following = context.shared(Following, lambda: Following(context.kube(), seconds))
    tip = context.shared(Tip, lambda: Tip(context.platform))
    with following.joined():
        return _Wait(context.kube(), action.data["application"], following, tip, report).until(seconds)


def _apply(context: RunContext) -> Mapping[str, Any]:
    tree = gitops.read(context.root, context.platform.gitops.path)
    applied = ssa.apply(context.kube(), gitops.root_application(context.platform, tree), manager=MANAGER)
    return {"resourceVersion": applied["metadata"]["resourceVersion"]}


class _Wait:
    """Waits for one Application."""

    def __init__(self, kube: Kube, name: str, following: Following, tip: Tip, report: Reporter) -> None:
        self._kube, self._name, self._following, self._tip, self._report = kube, name, following, tip, report
        self._asked: set[str] = set()
        self._word = ""
        self._last = Seen({}, {}, frozenset())

    def until(self, seconds: float) -> Mapping[str, Any]:
        """Wait, and say what it came to.

        Raises:
            TaskFailed: its sync failed, or for the root that of another one.
            DeadlineExceeded: it did not get well in time.
        """
        if not self._following.wait(self._look):
            if self._following.trouble:
                raise self._following.trouble
            raise lateness(self._kube, self._last.objects, self._name, seconds)
        state = self._last.states[self._name]
        told = {"sync": state.sync, "health": state.health, "operation": state.operation, "revision": state.revision}
        return {**told, "resourceVersion": self._last.objects[self._name]["metadata"]["resourceVersion"]}

    def _look(self, seen: Seen) -> bool:
        self._report.check()
        self._last = seen
        state = seen.states.get(self._name)
        for name in seen.states if self._name == ROOT else [self._name]:
            if seen.failed(name) and not self._tip.is_left_behind(seen.states[name]):
                raise failure(self._kube, seen.objects[name])
        if state is None:
            self._say("not there yet")
            return False
        self._say(state.words())
        if state.well and self._tip.reached(state, again=True):
            return self._name != ROOT or all(self._done(other) for other in seen.states.values())
        self._ask_on(state)
        return False

    def _done(self, state: State) -> bool:
        return state.well and self._tip.reached(state)

    def _say(self, word: str) -> None:
        if word != self._word:
            self._word = word
            self._report(word)

    def _ask_on(self, state: State) -> None:
        """Ask on what would else stand still for good, each once.

        That is an operation about a commit that Git has left behind, a look at such a commit, and a sync that failed at
        the right one: Argo CD does not repeat it by itself.
        """
        if state.operation == RUNNING and self._tip.is_left_behind(state):
            self._once("terminate", {"status": {"operationState": {"phase": "Terminating"}}})
        elif state.sync and not self._tip.reached(state):
            self._once("refresh", {"metadata": {"annotations": {REFRESH: "normal"}}})
        elif state.failed and not self._tip.is_left_behind(state):
            self._once("sync", {"operation": _operation(self._last.objects[self._name])})

    def _once(self, verb: str, patch: dict[str, Any]) -> None:
        if verb in self._asked:
            return
        self._asked.add(verb)
        self._report.evidence(asked=verb)
        self._kube.patch(API, KIND, self._name, NAMESPACE, body=patch)


def _operation(obj: Mapping[str, Any]) -> dict[str, Any]:
    """A sync as `argocd app sync` asks for it, with the Application's own options."""
    policy = obj["spec"].get("syncPolicy") or {}
    sync: dict[str, Any] = {"prune": bool((policy.get("automated") or {}).get("prune"))}
    sync |= {"syncOptions": policy["syncOptions"]} if policy.get("syncOptions") else {}
    retry = {"retry": policy["retry"]} if policy.get("retry") else {}
    return {"initiatedBy": {"username": "fluobook"}, "sync": sync, **retry}
