"""Actions and plans: the changes of a stage as plain data, with a digest, and the gate where a person approves it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fluobook.context import Policy
from fluobook.display.buttons import Place
from fluobook.display.table import Cell, Displayed, Table
from fluobook.errors import ApprovalNeeded, PlanChanged, StageMissing, UsageError

ADDING = frozenset({"create", "download", "start", "apply", "bootstrap", "approve", "install", "write"})
DESTROYING = frozenset({"delete", "reset", "unlist"})
"""Verbs by their effect; all others change something."""

_VERBS = {"add": "create", "change": "change", "destroy": "destroy"}


@dataclass(frozen=True)
class Action:
    """One change. It is idempotent: performing it again changes nothing.

    Args:
        id: unique in the plan and the same in every plan for the same change.
        verb: the change, such as "create".
        object: the object that is changed, such as "vm talos-cp-1".
        detail: the object in a few words.
        reason: the observation that makes it necessary.
        needs: ids of actions that must be done before.
        system: the system that does the work; it limits how many actions run in parallel.
        data: what `perform` needs; plain JSON without secrets, mapped addresses or times.
        destroys: the names of what it destroys, if anything; a person types them to approve it.
    """

    id: str
    verb: str
    object: str
    detail: str = ""
    reason: str = ""
    needs: tuple[str, ...] = ()
    system: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    destroys: tuple[str, ...] = ()

    def canonical(self) -> dict[str, Any]:
        """What the digest covers. Dependencies are left out: some may be done already."""
        return {"id": self.id, "verb": self.verb, "object": self.object, "data": self.data, "destroys": self.destroys}

    @property
    def tone(self) -> str:
        """Its mark in a plan: add, change or destroy."""
        if self.destroys or self.verb in DESTROYING:
            return "destroy"
        return "add" if self.verb in ADDING else "change"


@dataclass(frozen=True)
class Plan(Displayed):
    """The actions that lead from what was observed to the platform.

    Args:
        stage: name of the stage.
        actions: in an order in which they could be performed one after the other.
        kept: how many objects are up to date.
        platform: the canonical platform data that the digest covers.
        waits_for: the earlier stage that has not run; such a plan is a prediction and cannot be applied.
        notes: what a person should know before approving.
        target: where it would be applied, for display.
    """

    stage: str
    actions: tuple[Action, ...] = ()
    kept: int = 0
    platform: Mapping[str, Any] = field(default_factory=dict, repr=False)
    waits_for: str = ""
    notes: tuple[str, ...] = ()
    target: str = ""

    @property
    def digest(self) -> str:
        """Six hexadecimal digits over platform and actions; empty for a prediction and without actions."""
        if self.waits_for or not self.actions:
            return ""
        content = {"stage": self.stage, "platform": self.platform, "actions": [a.canonical() for a in self.actions]}
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:6]

    @property
    def destroys(self) -> tuple[str, ...]:
        """The names of what would be destroyed, each once."""
        return tuple(dict.fromkeys(name for action in self.actions for name in action.destroys))

    def rest_of(self, approved: Plan) -> bool:
        """Whether this plan is the approved one, or what remains of it after a part was done."""
        before = {json.dumps(action.canonical(), sort_keys=True, default=str) for action in approved.actions}
        now = {json.dumps(action.canonical(), sort_keys=True, default=str) for action in self.actions}
        return now <= before and self.platform == approved.platform and not self.waits_for

    def summary(self) -> str:
        """The plan in one line."""
        if self.waits_for:
            predicted = "1 action" if len(self.actions) == 1 else f"{len(self.actions)} actions"
            return f"Blocked: run {self.waits_for} first. {predicted} predicted, no digest."
        if not self.actions:
            kept = "1 resource is" if self.kept == 1 else f"{self.kept} resources are"
            return f"No changes. {kept} up to date." if self.kept else "No changes."
        tones = [action.tone for action in self.actions]
        counts = ", ".join(f"{tones.count(tone)} to {verb}" for tone, verb in _VERBS.items())
        return f"Plan {self.digest}: {counts}, {self.kept} unchanged."

    def table(self) -> Table:
        """The plan as a person reads it before approving."""
        rows = [[Cell(a.verb, a.tone), a.object, a.detail, a.reason] for a in self.actions]
        destroyed = [f"WILL BE DESTROYED: {name}" for name in self.destroys]
        note = "\n".join([*destroyed, *self.notes, self.summary()])
        title = f"plan of {self.stage} for {self.target}" if self.target else f"plan of {self.stage}"
        return Table(title, ["action", "object", "detail", "reason"], rows, note=note)


@dataclass(frozen=True)
class Approval:
    """What was approved in advance.

    `everything` is `all`; `digests` maps a stage to its approved digest; `cluster` is the name given beside `all` for a
    live platform.
    """

    everything: bool = False
    digests: Mapping[str, str] = field(default_factory=dict)
    cluster: str = ""

    @classmethod
    def parse(cls, text: str) -> Approval:
        """Read `all`, `stage=digest` and `cluster=NAME`, separated by commas.

        Raises:
            UsageError: a part is something else.
        """
        everything, digests, cluster = False, dict[str, str](), ""
        for part in filter(None, (piece.strip() for piece in text.split(","))):
            key, _, value = part.partition("=")
            if part == "all":
                everything = True
            elif not value:
                raise UsageError(
                    f'the approval {part!r} is neither "all" nor "stage=digest"',
                    remedy="approve the digest of one stage, such as create-vms=63155a; `fluobook plan` shows it",
                )
            elif (cluster if key == "cluster" else digests.get(key, value)) not in ("", value):
                raise UsageError(f"the approval names two values for {key}", remedy="keep the right one")
            elif key == "cluster":
                cluster = value
            else:
                digests[key] = value
        return cls(everything, digests, cluster)


@dataclass(frozen=True)
class Question:
    """What a person is asked before a plan is applied.

    Args:
        plan: the plan.
        names: what has to be typed to approve it; nothing where a yes is enough.
    """

    plan: Plan
    names: tuple[str, ...] = ()

    @property
    def word(self) -> str:
        """The answer that approves the plan."""
        return " ".join(self.names) or "yes"

    @property
    def prompt(self) -> str:
        """The question in one line."""
        what_for = ", the names of what will be destroyed" if self.plan.destroys else ""
        return f'{self.plan.summary()} Approve? Type "{self.word}"{what_for}: '

    def accepts(self, text: str) -> bool:
        """Whether an answer approves the plan; names may come in any order."""
        return sorted(re.split(r"[\s,]+", text.strip())) == sorted(self.word.split())


@dataclass(frozen=True)
class Answer:
    """An answer to a plan.

    Args:
        form: option, prompt or button, for the journal.
        text: what was given or typed; nothing is a rejection.
        place: where the plan was shown, for what follows.
    """

    form: str
    text: str
    place: Place | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Gate:
    """Decides whether a plan may be applied.

    Args:
        approval: what was approved in advance.
        policy: whether an approval contains the cluster's name.
        cluster: the cluster's name.
        ask: asks a person; None when nobody can be asked.
    """

    approval: Approval
    policy: Policy
    cluster: str
    ask: Callable[[Question], Answer] | None = None

    def admit(self, plan: Plan) -> Answer:
        """Require that the plan is approved.

        Returns:
            What approved it, for the journal.

        Raises:
            StageMissing: the plan is a prediction.
            ApprovalNeeded: it is not approved.
            PlanChanged: another digest was approved.
        """
        if plan.waits_for:
            raise StageMissing(
                f"{plan.stage} is blocked: run {plan.waits_for} first",
                cause=f"the stage {plan.waits_for} has changes to make",
                remedy=f"plan and apply the stage {plan.waits_for}, then run {plan.stage} again",
            )
        if not plan.actions:
            return Answer("", "")
        if plan.stage in self.approval.digests:
            return self._by_digest(plan, self.approval.digests[plan.stage])
        all_is_valid = not self.policy.names_cluster or self.approval.cluster == self.cluster
        if self.approval.everything and all_is_valid and not plan.destroys:
            return Answer("option", "all")
        if self.ask is not None:
            return self._by_asking(plan, self.ask)
        raise self._needed(plan)

    def _by_digest(self, plan: Plan, digest: str) -> Answer:
        if digest != plan.digest:
            raise PlanChanged(
                f"{plan.stage}: {digest} was approved, the plan is now {plan.digest}",
                cause="the platform or the live systems changed since the plan was shown",
                remedy=f"check the new plan and approve {plan.stage}={plan.digest}",
            )
        return Answer("option", digest)

    def _by_asking(self, plan: Plan, ask: Callable[[Question], Answer]) -> Answer:
        names = dict.fromkeys([*((self.cluster,) if self.policy.names_cluster else ()), *plan.destroys])
        question = Question(plan, tuple(names))
        answer = ask(question)
        if not question.accepts(answer.text):
            raise ApprovalNeeded(
                f"{plan.stage}: not approved; nothing was changed", remedy="run the cell again to approve it"
            )
        return answer

    def _needed(self, plan: Plan) -> ApprovalNeeded:
        cause = "headless runs change nothing without approval"
        if plan.destroys:
            cause = "`all` never approves a plan that destroys data"
        elif self.approval.everything:
            cause = f"on a live platform `all` also needs --cluster {self.cluster}"
        return ApprovalNeeded(
            f"{plan.stage} needs approval: {plan.summary()}",
            cause=cause,
            remedy=f"approve it with --approve {plan.stage}={plan.digest}",
        )
