"""The gate: the one place where a person or `--approve` approves a plan."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fluobook.context import Policy
from fluobook.display.buttons import Place
from fluobook.errors import ApprovalNeeded, PlanChanged, StageMissing, UsageError
from fluobook.stages.core.plan import Plan


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
