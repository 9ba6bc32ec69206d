"""How far a plan is while it is applied: what the live table shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluobook.stages.core.plan import Action


@dataclass
class Progress:
    """What is known of each action while a plan is applied; the live table reads it.

    `state` is waiting, running, done, failed or skipped; `word` is the last thing the action told.
    """

    actions: tuple[Action, ...]
    state: dict[str, str] = field(default_factory=dict)
    word: dict[str, str] = field(default_factory=dict)
    changed: Callable[[], None] = lambda: None

    def set(self, action: Action, state: str, word: str = "") -> None:
        """Note a new state and report whoever shows it."""
        self.state[action.id] = state
        self.word[action.id] = word
        self.changed()

    def of(self, action: Action) -> tuple[str, str]:
        """State and last word of an action."""
        return self.state.get(action.id, "waiting"), self.word.get(action.id, "")
