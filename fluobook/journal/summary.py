"""The summary of a run: what each stage did, drawn from the journal; `summary.json` and the lines on the terminal."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class StageSummary:
    """One stage of a run.

    `status` is done, failed, refused, interrupted or not run; `actions` were done, `checks` of `total` checks passed,
    `seconds` of wall time.
    """

    stage: str
    notebook: str
    status: str
    actions: int
    checks: int
    total: int
    seconds: float
    error: str = ""
    exit_code: int = 0

    def line(self) -> str:
        """One line for the terminal."""
        mark = {"done": "✓", "failed": "✗", "refused": "■", "interrupted": "✗"}.get(self.status, "·")
        actions = f"{self.actions} action{'s' * (self.actions != 1)}"
        return f"{mark} {self.stage:<22} {actions:>11}  {self.checks:>2}/{self.total:<2} checks  {self.seconds:6.1f} s"


def summarise(stage: str, notebook: str, events: Sequence[dict[str, Any]], **rest: Any) -> StageSummary:
    """Sum up one stage from the events of its run."""
    mine = [event for event in events if event.get("stage") == stage]
    actions = sum(event["event"] == "outcome" and event["result"] == "done" for event in mine)
    verified = [event["checks"] for event in mine if event["event"] == "verified"]
    total = verified[-1] if verified else []
    return StageSummary(
        stage, notebook, actions=actions, checks=sum(c["passed"] for c in total), total=len(total), **rest
    )


def not_run(stage: str, notebook: str) -> StageSummary:
    """A stage whose turn did not come."""
    return StageSummary(stage, notebook, status="not run", actions=0, checks=0, total=0, seconds=0.0)


def as_data(stages: Sequence[StageSummary], **head: Any) -> dict[str, Any]:
    """The summary as plain data."""
    return {**head, "stages": [asdict(stage) for stage in stages]}
