"""Observes and plans stage 8, performs its actions, and makes its checks.

One watch on all Applications is shared by the threads that wait.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fluobook import gitops
from fluobook.clients.kube.client import MANAGER
from fluobook.errors import KUBECTL, NotFound
from fluobook.gitops import backups
from fluobook.gitops.root import NAME as ROOT
from fluobook.gitops.root import NAMESPACE
from fluobook.gitops.tree import BACKUPS
from fluobook.stages.core import ssa
from fluobook.stages.core.check import Check, all_of, count
from fluobook.stages.core.cluster import Missing, api
from fluobook.stages.core.plan import Action, Plan
from fluobook.stages.core.readiness import WaitingPods, certificates_check
from fluobook.stages.root_application import leftovers
from fluobook.stages.root_application.state import (
    API,
    KIND,
    State,
    Tip,
    build_error,
    pod_error,
    state_of,
    sync_error,
    timeout_error,
    why_its_pods_wait,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from fluobook.clients.kube import Change, Kube
    from fluobook.clients.kube.watching import Informer
    from fluobook.context import RunContext
    from fluobook.errors import OutsideError
    from fluobook.gitops import Application
    from fluobook.params import Platform
    from fluobook.stages.core.executor import Reporter
    from fluobook.stages.root_application.leftovers import Leftover
    from fluobook.stages.root_application.state import State

    Obj = dict[str, Any]

NAME = "root-application"
LONGEST = 160
"""Characters of Argo CD's message that a reason repeats."""
SERVER, PORT = "argocd-server", 8080
LABEL = "kubernetes.io/service-name"


@dataclass(frozen=True)
class Observation:
    """What exists.

    Args:
        applications: those of the tree, in the order of their waves.
        digest: a short hash of the root Application as the platform wants it, without mirrors.
        missing: the earlier stage that has to run first.
        root_is_up_to_date: whether the root Application exists as the platform wants it.
        states: every live Application by name.
        behind: those of our repository that are not at the pushed revision.
        objects: the live Applications themselves.
        leftovers: what the platform no longer has, in the order in which it is to be deleted.
    """

    applications: Sequence[Application]
    digest: str
    missing: Missing | None = None
    root_is_up_to_date: bool = False
    states: Mapping[str, State] = field(default_factory=dict)
    behind: frozenset[str] = frozenset()
    objects: Mapping[str, Obj] = field(default_factory=dict, repr=False)
    leftovers: Sequence[Leftover] = ()

    def done(self, name: str) -> bool:
        """Whether an Application is healthy and at the pushed revision."""
        state = self.states.get(name)
        return state is not None and state.healthy and name not in self.behind


def plan(platform: Platform, observation: Observation) -> Plan:
    """Apply the root Application if it differs, and wait for what is not healthy: each wave after the one before.

    What the platform no longer has is deleted; what holds data needs the approval of a plan that destroys.
    """
    settings, actions = platform.gitops, list[Action]()
    if not observation.root_is_up_to_date:
        content = {"repository": settings.repository, "revision": settings.revision, "path": settings.path}
        actions.append(
            Action(
                f"apply {ROOT}",
                "apply",
                f"application {ROOT}",
                f"{settings.path} at {settings.revision} of {settings.repository}",
                "differs from the params" if ROOT in observation.states else "does not exist",
                system="kubernetes",
                data={**content, "content": observation.digest},
            )
        )
    applied = needs = tuple(action.id for action in actions)
    actions += leftovers.deletions(observation.leftovers, applied)
    for wave in sorted({app.wave for app in observation.applications}):
        waiting = [app for app in observation.applications if app.wave == wave and not observation.done(app.name)]
        waits = [_await(app.name, f"wave {wave}, {app.source}", observation, needs, {"wave": wave}) for app in waiting]
        actions += waits
        needs = tuple(action.id for action in waits) or needs
    if actions or not observation.done(ROOT):
        # The root reports the end of the whole sync. It is watched from the beginning, so it needs no other wait.
        detail = f"all {len(observation.applications)} applications of the tree"
        actions.append(_await(ROOT, detail, observation, applied, {}))
    kept = len(observation.applications) + 1 - sum(action.verb == "await" for action in actions)
    missing = observation.missing
    waits_for, notes = (missing.stage, (missing.reason,)) if missing else ("", ())
    return Plan(NAME, tuple(actions), kept, platform.digest_data(), waits_for, notes)


def _await(name: str, detail: str, observation: Observation, needs: tuple[str, ...], data: Mapping[str, Any]) -> Action:
    reason = _reason(name, observation)
    data = {"application": name, **data}
    return Action(f"await {name}", "await", f"application {name}", detail, reason, needs, "argocd", data)


def _reason(name: str, observation: Observation) -> str:
    state = observation.states.get(name)
    if state is None:
        return "does not exist yet"
    if state.failed:
        reason = f"its last sync failed and is requested again: {state.message}"
        return reason if len(reason) <= LONGEST else reason[:LONGEST] + "…"
    if name in observation.behind:
        return "not at the pushed revision; a refresh is requested"
    if state.healthy:
        return "waits for the others"
    return ", ".join(filter(None, (state.sync, state.health, state.operation))) or "not compared yet"


def verify(context: RunContext, observation: Observation) -> Sequence[Check]:
    """The checks of stage 8."""
    names, states = [ROOT, *(app.name for app in observation.applications)], observation.states
    unhealthy = [
        f"{name} ({states[name].summary() if name in states else 'does not exist'})"
        for name in names
        if name not in states or not states[name].healthy
    ]
    own_repo = states[ROOT].repo if ROOT in states else ""
    own = [name for name in names if name in states and states[name].repo == own_repo]
    again, settings = f"run stage {NAME} again", context.platform.gitops
    kube = api(context)
    return (
        Check(
            "the root Application is up to date with the params",
            observation.root_is_up_to_date,
            f"{settings.path} of {settings.revision}",
            again,
        ),
        Check(
            "every Application is Synced and Healthy, its operation Succeeded",
            not unhealthy,
            count(len(names), unhealthy),
            again,
        ),
        Check(
            "the Applications of our repository are at the pushed revision",
            bool(own) and not observation.behind,
            count(len(own), sorted(observation.behind)),
            again,
        ),
        *wave_checks(observation),
        *(() if isinstance(kube, Missing) else [_server_check(kube), certificates_check(kube)]),
        *(() if isinstance(kube, Missing) else _bucket_checks(context.platform, observation, kube)),
    )


def _bucket_checks(platform: Platform, observation: Observation, kube: Kube) -> Iterator[Check]:
    """Whether the Secrets are in the cluster that open the bucket of the params; nothing without one.

    Applications are healthy without them: it is the first backup that fails.
    """
    brought = {app.namespace for app in observation.applications if app.only_with == BACKUPS}
    wanted, problems = backups.credentials_of(platform, brought), list[str]()
    for secret, keys in wanted.items():
        stored = kube.find("v1", "Secret", secret.name, secret.namespace)
        missing = [key for key in keys if key not in ((stored or {}).get("data") or {})]
        if missing:
            lack = f"has no {' and '.join(missing)}" if stored else "does not exist"
            problems.append(f"Secret {secret.namespace}/{secret.name} {lack}")
    if wanted:
        remedy = "set them in notebook 10_secrets, commit, push and run it again: docs/how-to/back-up-data.md"
        yield all_of("the Secrets that open the bucket of the backups exist", len(wanted), problems, remedy)


def wave_checks(observation: Observation) -> Sequence[Check]:
    """Whether each wave began after the one before was deployed, by the history of the root's first deployment.

    Only Applications that this deployment created are considered. Argo CD keeps ten deployments; once the first one is
    gone, the check is left out.
    """
    history = _history(observation.objects.get(ROOT))
    if not history or history[0].get("id") != 0 or not history[0].get("deployStartedAt"):
        return ()
    began, ended = history[0]["deployStartedAt"], history[0]["deployedAt"]
    waves: dict[int, list[tuple[str, str]]] = {}
    for name, state in observation.states.items():
        created = observation.objects[name]["metadata"].get("creationTimestamp", "")
        deployments = _history(observation.objects[name])
        if name != ROOT and began <= created <= ended and deployments and deployments[0].get("id") == 0:
            waves.setdefault(state.wave, []).append((created, deployments[0]["deployedAt"]))
    if not waves:
        return ()
    pairs = itertools.pairwise(sorted(waves))
    early = [
        str(after) for before, after in pairs if min(waves[after])[0] < max(deployed for _, deployed in waves[before])
    ]
    result = " → ".join(map(str, sorted(waves))) + (f"; too early: {', '.join(early)}" if early else "")
    remedy = "see that argocd-cm has the health check for Applications (F54)"
    return (Check("each wave began after the one before was deployed", not early, result, remedy),)


def _history(obj: Mapping[str, Any] | None) -> list[Obj]:
    return ((obj or {}).get("status") or {}).get("history") or []


def _server_check(kube: Kube) -> Check:
    """Whether Argo CD's web interface has endpoints, and how to reach it; a command asks for the password."""
    slices = kube.list("discovery.k8s.io/v1", "EndpointSlice", NAMESPACE, labels=f"{LABEL}={SERVER}")
    endpoints = [endpoint for part in slices for endpoint in part.get("endpoints") or ()]
    ready = [e for e in endpoints if (e.get("conditions") or {}).get("ready") is not False]
    command = f"{KUBECTL} -n {NAMESPACE} port-forward service/{SERVER} {PORT}:80"
    result = f"{command}, then http://localhost:{PORT} as admin (docs/how-to/use-the-platform.md)"
    remedy = f"{KUBECTL} -n {NAMESPACE} describe deployment {SERVER}"
    return Check("Argo CD's web interface can be reached", bool(ready), result, remedy)


CONTROLLER = "argocd-application-controller"
REFRESH = "argocd.argoproj.io/refresh"
RUNNING = "Running"
INTERVAL = 1.0
"""Seconds after which a wait checks again although no Application changed: the revision in Git may have."""
SILENCE = 600.0
"""Seconds without a connection to the API that end a wait: more than the restart of a control plane takes."""


def observe(context: RunContext) -> Observation:
    """Read every Application, and the commit that Git has."""
    tree = gitops.of(context.platform, context.root)
    digest = _digest(context.platform, tree)
    kube = api(context)
    missing = kube if isinstance(kube, Missing) else _missing(kube)
    if missing or isinstance(kube, Missing):
        return Observation(tree.applications, digest, missing)
    root = ssa.compare(kube, gitops.root_application(context.platform, tree), manager=MANAGER)
    objects = {obj["metadata"]["name"]: obj for obj in kube.list(API, KIND, NAMESPACE)}
    states = {name: state_of(obj) for name, obj in objects.items()}
    tip = Tip(context.platform)
    behind = frozenset(name for name, state in states.items() if not tip.reached(state))
    left = leftovers.leftovers_of(kube, tree, objects, behind)
    return Observation(tree.applications, digest, None, not root.differs, states, behind, objects, left)


def _digest(platform: Platform, tree: gitops.Tree) -> str:
    unmirrored = platform.model_copy(update={"gitops": platform.gitops.model_copy(update={"mirrors": {}})})
    content = json.dumps(gitops.root_application(unmirrored, tree), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def _missing(kube: Kube) -> Missing | None:
    try:
        kube.kind(API, KIND)
    except NotFound:
        return Missing("install-argocd", "the cluster does not know Applications yet")
    if kube.find("apps/v1", "StatefulSet", CONTROLLER, NAMESPACE) is None:
        return Missing("install-argocd", f"there is no {CONTROLLER} yet")
    return None


def perform(context: RunContext, action: Action, report: Reporter) -> Mapping[str, Any]:
    """Apply the root Application, delete what is left of another platform, or wait for one Application."""
    kube, platform = context.kube(), context.platform
    if action.verb == "apply":
        tree = gitops.of(platform, context.root)
        applied = ssa.apply(kube, gitops.root_application(platform, tree), manager=MANAGER)
        return {"resourceVersion": applied["metadata"]["resourceVersion"]}
    if action.verb == "delete":
        return leftovers.delete(context, action, report)
    report.release_slot()
    seconds = platform.deadlines.applications
    watch = context.shared(ApplicationWatch, lambda: ApplicationWatch(kube, seconds))
    tip = context.shared(Tip, lambda: Tip(platform))
    with watch.joined():
        return _Wait(kube, action.data["application"], watch, tip, report).until(seconds)


@dataclass(frozen=True)
class Snapshot:
    """The Applications at one moment, and the failures that are older than the wait."""

    objects: dict[str, Obj]
    states: dict[str, State]
    old_failures: frozenset[tuple[str, str]]

    def failed(self, name: str) -> bool:
        """Whether an Application failed since the wait began."""
        state = self.states.get(name)
        return state is not None and state.failed and (name, state.started) not in self.old_failures


class ApplicationWatch:
    """Follows the Applications while somebody waits.

    Args:
        kube: the cluster.
        seconds: deadline of the whole wait, which begins with the first waiter.
    """

    def __init__(self, kube: Kube, seconds: float) -> None:
        self._kube = kube
        self._seconds = seconds
        self._changed = threading.Condition()
        self._objects: dict[str, Obj] = {}
        self._states: dict[str, State] = {}
        self._old_failures: frozenset[tuple[str, str]] = frozenset()
        self._informer: Informer | None = None
        self._waiters = 0
        self._until = 0.0
        self._connected = 0.0
        self.in_vain: dict[str, str] = {}
        """For each Application that no waiting makes healthy, the pod and its reason: the root's wait ends too."""

    @property
    def error(self) -> OutsideError | None:
        """Why there is no connection to the API now."""
        return self._informer.error if self._informer else None

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Take part in the wait: the first waiter starts the watch, the last one ends it."""
        with self._changed:
            if not self._waiters:
                self._start()
            self._waiters += 1
        try:
            yield
        finally:
            with self._changed:
                self._waiters -= 1
                ending = self._informer if self._waiters == 0 else None
            if ending:
                ending.stop()

    def wait(self, check: Callable[[Snapshot], bool]) -> bool:
        """Call `check` after every change until it returns True; False if the deadline passed first.

        Raises:
            OutsideError: there has been no connection to the API for long.
        """
        while True:
            if (error := self.error) is None:
                self._connected = time.monotonic()
            elif time.monotonic() - self._connected > SILENCE:
                raise error
            with self._changed:
                snapshot = Snapshot(dict(self._objects), dict(self._states), self._old_failures)
            if check(snapshot):
                return True
            with self._changed:
                left = self._until - time.monotonic()
                if left <= 0:
                    return False
                if self._states == snapshot.states:
                    self._changed.wait(min(left, INTERVAL))

    def _start(self) -> None:
        self._objects = {obj["metadata"]["name"]: obj for obj in self._kube.list(API, KIND, NAMESPACE)}
        self._states = {name: state_of(obj) for name, obj in self._objects.items()}
        self._old_failures = frozenset((name, state.started) for name, state in self._states.items() if state.failed)
        self.in_vain = {}
        self._connected = time.monotonic()
        self._until = self._connected + self._seconds
        self._informer = self._kube.inform(API, KIND, self._take, namespace=NAMESPACE)

    def _take(self, change: Change) -> None:
        name = change.object["metadata"]["name"]
        with self._changed:
            if change.type == "DELETED":
                self._objects.pop(name, None)
                self._states.pop(name, None)
            else:
                self._objects[name] = change.object
                self._states[name] = state_of(change.object)
            self._changed.notify_all()


class _Wait:
    """The wait for one Application."""

    def __init__(self, kube: Kube, name: str, watch: ApplicationWatch, tip: Tip, report: Reporter) -> None:
        self._kube, self._name, self._watch, self._tip, self._report = kube, name, watch, tip, report
        self._requested: set[str] = set()
        self._build_errors: dict[str, tuple[str, str]] = {}
        self._reported = ""
        self._last = Snapshot({}, {}, frozenset())
        self._pods = WaitingPods(lambda: why_its_pods_wait(kube, self._last.objects.get(name, {})))

    def until(self, seconds: float) -> Mapping[str, Any]:
        """Wait, and return the evidence.

        Raises:
            TaskFailed: its sync failed, or for the root that of another one; or no waiting makes one of its pods run.
            DeadlineExceeded: it did not become healthy in time.
        """
        if not self._watch.wait(self._is_done):
            raise self._watch.error or timeout_error(self._kube, self._last.objects, self._name, seconds)
        state = self._last.states[self._name]
        return {
            "wave": state.wave,
            "sync": state.sync,
            "health": state.health,
            "operation": state.operation,
            "revision": state.revision,
            "resourceVersion": self._last.objects[self._name]["metadata"]["resourceVersion"],
        }

    def _is_done(self, snapshot: Snapshot) -> bool:
        self._report.check()
        if error := self._watch.error:
            self._show(f"the Kubernetes API does not answer: {error.message}")
            return False
        self._last, states = snapshot, snapshot.states
        for name in states if self._name == ROOT else states.keys() & {self._name}:
            if snapshot.failed(name) and not self._tip.is_past(states[name]):
                raise sync_error(self._kube, snapshot.objects[name])
            if self._cannot_be_built(states[name]):
                raise build_error(states[name])
        state = states.get(self._name)
        message = state.summary() if state else "does not exist yet"
        if pod := self._waiting_pod(states):
            message = f"{message}; {pod}"
        self._show(message)
        if state is None:
            return False
        if state.healthy and self._tip.reached(state, refresh=True):
            return self._name != ROOT or all(s.healthy and self._tip.reached(s) for s in states.values())
        self._request_progress(state)
        return False

    def _show(self, message: str) -> None:
        if message != self._reported:
            self._reported = message
            self._report(message)

    def _waiting_pod(self, states: Mapping[str, State]) -> str:
        """What the first pod of the Application that does not run says; "" for none.

        Raises:
            TaskFailed: no waiting makes it run, or for the root one of another Application.
        """
        state, reason = states.get(self._name), ""
        if state and state.sync and not state.healthy and self._name != ROOT:
            reason, lasting = self._pods.reasons(restart=not self._is_deployed(state, states.get(ROOT)))
            if lasting:
                self._watch.in_vain[self._name] = lasting
        for name, lasting in dict(self._watch.in_vain).items():
            if self._name in (name, ROOT) and name in states:
                raise pod_error(states[name], lasting)
        return reason

    def _is_deployed(self, state: State, root: State | None) -> bool:
        """Whether the cluster has what Git has now for the Application: its pods are not those of an older commit."""
        synced = state.sync == "Synced" and state.operation != RUNNING and self._tip.reached(state, refresh=True)
        entries = (self._last.objects.get(ROOT, {}).get("status") or {}).get("resources") or ()
        is_current = all(entry.get("status") == "Synced" for entry in entries if entry.get("name") == self._name)
        return synced and state.up_to_date and root is not None and self._tip.reached(root) and is_current

    def _cannot_be_built(self, state: State) -> bool:
        """Whether a build error is still there after Argo CD compared again: the first may be about an older commit."""
        error = state.build_error
        if not error or self._build_errors.get(state.name, ("", ""))[0] != error:
            self._build_errors[state.name] = (error, state.reconciled)
            if error:
                body = {"metadata": {"annotations": {REFRESH: "hard"}}}
                self._kube.patch(API, KIND, state.name, NAMESPACE, body=body)
            return False
        return state.reconciled != self._build_errors[state.name][1]

    def _request_progress(self, state: State) -> None:
        """Request what Argo CD would not do by itself, each once.

        It does not end an operation for a commit that is no longer the tip, refreshes only after minutes, and does not
        repeat a sync that failed.
        """
        if state.operation == RUNNING and self._tip.is_past(state):
            self._request("terminate", {"status": {"operationState": {"phase": "Terminating"}}})
        elif state.sync and not self._tip.reached(state):
            self._request("refresh", {"metadata": {"annotations": {REFRESH: "normal"}}})
        elif state.failed and not self._tip.is_past(state):
            self._request("sync", {"operation": _operation(self._last.objects[self._name])})

    def _request(self, verb: str, patch: dict[str, Any]) -> None:
        if verb in self._requested:
            return
        self._requested.add(verb)
        self._report.evidence(asked=verb)
        self._kube.patch(API, KIND, self._name, NAMESPACE, body=patch)


def _operation(obj: Mapping[str, Any]) -> dict[str, Any]:
    """A sync as `argocd app sync` requests it, with the Application's own options."""
    policy = obj["spec"].get("syncPolicy") or {}
    sync: dict[str, Any] = {"prune": bool((policy.get("automated") or {}).get("prune"))}
    sync |= {"syncOptions": policy["syncOptions"]} if policy.get("syncOptions") else {}
    retry = {"retry": policy["retry"]} if policy.get("retry") else {}
    return {"initiatedBy": {"username": "fluobook"}, "sync": sync, **retry}
