"""Actions and plans: the changes of a stage as plain data, with a digest that a person can approve."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fluobook.display.table import Cell, Displayed, Table

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
