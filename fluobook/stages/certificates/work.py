"""Renews and rotates; each action can be killed and done again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fluobook.context import RunContext
from fluobook.stages.bootstrap_kubernetes.work import write_file
from fluobook.stages.certificates import authorities, keys
from fluobook.stages.core.executor import Reporter
from fluobook.stages.core.plan import Action


def perform(context: RunContext, action: Action, report: Reporter) -> Mapping[str, Any] | None:
    """Do one action."""
    if "authority" in action.data:
        return authorities.perform(context, action, report)
    if "key" in action.data:
        return keys.perform(context, action, report)
    write_file(context, action.data["file"])
    return {"file": action.data["file"]}
