"""The gate: the one place where a person, or `--approve`, accepts one plan."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fluobook.errors import ApprovalNeeded, PlanChanged, StageMissing, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fluobook.stages.core.plan import Plan


@dataclass(frozen=True)
class Approval:
    """What was approved beforehand.

    `everything` is `all`; `digests` maps a stage to the digest approved for it; `cluster` is the name typed for `all`
    on a live platform.
    """

    everything: bool = False
    digests: Mapping[str, str] = field(default_factory=dict)
    cluster: str = ""

    @classmethod
    def parse(cls, text: str) -> Approval:
        """Read `all`, `stage=digest` and `cluster=NAME`, separated by commas.

        Raises:
            UsageError: a part is none of these.
        """
        everything, digests, cluster = False, {}, ""
        for part in filter(None, (piece.strip() for piece in text.split(","))):
            key, _, value = part.partition("=")
            if part == "all":
                everything = True
            elif not value:
                raise UsageError(
                    f"--approve {part}: not understood",
                    remedy='say "all", or "stage=digest" as `fluobook plan` shows it',
                )
            elif key == "cluster":
                cluster = value
            else:
                digests[key] = value
        return cls(everything, digests, cluster)


@dataclass(frozen=True)
class Gate:
    """Decides whether a plan may be applied.

    Args:
        approval: what was approved beforehand.
        target: "lab" or "live".
        cluster: the cluster's name; typed by the person who approves a live change.
        ask: puts a question to a person and returns the answer, or None when nobody can be asked.
    """

    approval: Approval
    target: str
    cluster: str
    ask: Callable[[str], str] | None = None

    def admit(self, plan: Plan) -> str:
        """Let the plan pass, and say in which form it was approved.

        Raises:
            StageMissing: the plan is a prediction.
            ApprovalNeeded: nobody approved it.
            PlanChanged: another digest was approved.
        """
        if plan.waits_for:
            raise StageMissing(
                f"{plan.stage} cannot run yet: {plan.waits_for} has not done its work",
                remedy=f"run the stage {plan.waits_for} first",
            )
        if not plan.actions:
            return "nothing to approve"
        if plan.stage in self.approval.digests:
            return self._by_digest(plan, self.approval.digests[plan.stage])
        if self._all_counts() and not plan.destroys:
            return "all"
        if self.ask is not None:
            return self._by_asking(plan)
        raise self._needed(plan)

    def _all_counts(self) -> bool:
        return self.approval.everything and (self.target == "lab" or self.approval.cluster == self.cluster)

    def _by_digest(self, plan: Plan, digest: str) -> str:
        if digest != plan.digest:
            raise PlanChanged(
                f"{plan.stage}: {digest} was approved, the plan is now {plan.digest}",
                cause="the platform or the live systems changed since the plan was shown",
                remedy=f"look at the new plan and approve {plan.stage}={plan.digest}",
            )
        return f"digest {digest}"

    def _by_asking(self, plan: Plan) -> str:
        assert self.ask is not None  # noqa: S101 (narrowing for the type checker; the caller has looked)
        word = self.cluster if plan.destroys or self.target == "live" else "yes"
        answer = self.ask(f"{plan.summary()}. Type {word} to go on: ")
        if answer.strip() != word:
            raise ApprovalNeeded(
                f"{plan.stage}: not approved; nothing was changed", remedy="run the cell again when it should happen"
            )
        return f"typed {word}"

    def _needed(self, plan: Plan) -> ApprovalNeeded:
        why = (
            "`all` is never enough for what destroys data"
            if plan.destroys
            else "headless runs change nothing without approval"
        )
        if self.approval.everything and self.target == "live" and not plan.destroys:
            why = f"on a live platform `all` needs --cluster {self.cluster} too"
        return ApprovalNeeded(
            f"{plan.stage} needs approval: {plan.summary()}",
            cause=why,
            remedy=f"approve it with --approve {plan.stage}={plan.digest}",
        )
