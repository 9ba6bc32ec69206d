"""Renews; each action can be killed and done again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fluobook.context import RunContext
from fluobook.stages.bootstrap_kubernetes.work import write_file
from fluobook.stages.core.executor import Reporter
from fluobook.stages.core.plan import Action


def perform(context: RunContext, action: Action, _report: Reporter) -> Mapping[str, Any] | None:
    """Do one action."""
    write_file(context, action.data["file"])
    return {"file": action.data["file"]}
