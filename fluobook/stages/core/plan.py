"""Actions and plans: what a stage would do, as plain data with a digest that a person can approve."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fluobook.display.table import Cell, Table

if TYPE_CHECKING:
    from collections.abc import Mapping

TONES = {"create": "add", "delete": "lose", "reset": "lose"}
"""How verbs look in a plan; what is not listed changes something."""

ADDING = frozenset({"create", "download", "start", "apply", "bootstrap", "approve", "install", "write"})


@dataclass(frozen=True)
class Action:
    """One change, idempotent: doing it again when it is done changes nothing.

    Args:
        id: unique in the plan and the same in every plan for the same change.
        verb: what is done, such as "create".
        object: what it is done to, such as "vm talos-cp-1".
        detail: the object in a few words.
        reason: why it is needed: what was seen.
        needs: ids of actions that must be done before.
        system: the foreign system that does the work; its actions run side by side up to a bound.
        data: what `perform` needs; plain JSON without secrets, mapped addresses or times.
        destroys: what is lost by it, if anything.
    """

    id: str
    verb: str
    object: str
    detail: str = ""
    reason: str = ""
    needs: tuple[str, ...] = ()
    system: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    destroys: str = ""

    def canonical(self) -> dict[str, Any]:
        """What the digest is made of. Dependencies are left out: somebody may have done some of them already."""
        return {"id": self.id, "verb": self.verb, "object": self.object, "data": self.data, "destroys": self.destroys}

    @property
    def tone(self) -> str:
        """How it is marked in a plan."""
        return TONES.get(self.verb, "add" if self.verb in ADDING else "change")


@dataclass(frozen=True)
class Plan:
    """The actions that lead from what was observed to the platform.

    Args:
        stage: name of the stage.
        actions: in an order in which they could be done one after the other.
        kept: how many objects are right as they are.
        platform: the canonical platform data the digest covers.
        waits_for: the earlier stage that has not run; such a plan is a prediction and cannot be applied.
        notes: what a person should know before approving.
    """

    stage: str
    actions: tuple[Action, ...] = ()
    kept: int = 0
    platform: Mapping[str, Any] = field(default_factory=dict, repr=False)
    waits_for: str = ""
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Six hexadecimal digits over platform and actions; empty for a prediction or when there is nothing to do."""
        if self.waits_for or not self.actions:
            return ""
        content = {"stage": self.stage, "platform": self.platform, "actions": [a.canonical() for a in self.actions]}
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:6]

    @property
    def destroys(self) -> tuple[str, ...]:
        """What would be lost."""
        return tuple(action.destroys for action in self.actions if action.destroys)

    def rest_of(self, approved: Plan) -> bool:
        """Whether this plan is the approved one, or what is left of it after a part was done."""
        before = {json.dumps(action.canonical(), sort_keys=True, default=str) for action in approved.actions}
        now = {json.dumps(action.canonical(), sort_keys=True, default=str) for action in self.actions}
        return now <= before and self.platform == approved.platform and not self.waits_for

    def summary(self) -> str:
        """The plan in one line."""
        if self.waits_for:
            return f"waits for stage {self.waits_for}: {len(self.actions)} predicted, no digest"
        if not self.actions:
            return f"nothing to do, {self.kept} as they should be"
        tones = [action.tone for action in self.actions]
        counts = f"{tones.count('add')} to create, {tones.count('change')} to change, {tones.count('lose')} to lose"
        return f"{counts}, {self.kept} as they should be · {self.digest}"

    def table(self) -> Table:
        """The plan as a person reads it before approving."""
        rows = [[Cell(a.verb, a.tone), a.object, a.detail, a.reason] for a in self.actions]
        losses = [f"LOST FOR GOOD: {loss}" for loss in self.destroys]
        note = "\n".join([*losses, *self.notes, self.summary()])
        return Table(f"plan of {self.stage}", ["action", "object", "detail", "reason"], rows, note=note)

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        return self.table()._repr_mimebundle_(**options)

    def __str__(self) -> str:
        return self.table().text()
