"""Diagnose: examines a platform that misbehaves and names known failures with their causes and remedies; only reads.

It asks every stage what it observes and checks, and reads the nodes, workloads, Applications and certificates of the
cluster. Each observation that is not as it should be is looked up in the catalogue of known failures.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

from fluobook.clients.kube import Kube
from fluobook.context import Client, RunContext
from fluobook.display.kernel import show
from fluobook.display.table import Cell, Table
from fluobook.errors import PHASE, FluobookError, NotFound, StageMissing
from fluobook.failures import Presentation, present
from fluobook.stages.core.check import Check, some
from fluobook.stages.core.cluster import Missing, api
from fluobook.stages.core.executor import in_parallel
from fluobook.stages.core.plan import Plan
from fluobook.stages.core.readiness import WORKLOADS, bad_conditions, why_not, why_pods_wait
from fluobook.stages.core.stage import Stage, read_only_stage
from fluobook.stages.root_application.state import API, KIND, first_problem, state_of

NOTHING = "nothing was found"
UNKNOWN = "not in the catalogue"
_CODE = re.compile(r"(F\d+) ")


@dataclass(frozen=True)
class Examined:
    """What the examination of one subject showed.

    Args:
        subject: the name of a stage, or a kind of objects.
        findings: each with its evidence as the message.
        blocked: why nothing was examined: an earlier stage has not run.
        remarks: failed advisory checks that match no known failure.
    """

    subject: str
    findings: Sequence[Presentation] = ()
    blocked: str = ""
    remarks: Sequence[str] = ()


def stage(stages: Sequence[Stage], failed: Mapping[str, str] = MappingProxyType({})) -> Stage:
    """The stage.

    Args:
        stages: what it examines.
        failed: the failure with which the last run of a stage ended, as it was shown; it explains pending actions.
    """
    uses: tuple[Client, ...] = ("proxmox", "talos", "kubernetes", "image factory")
    return read_only_stage(
        90, "diagnose", "Diagnose the platform", partial(verify, stages=stages, failed=failed), uses=uses
    )


def verify(context: RunContext, stages: Sequence[Stage], failed: Mapping[str, str]) -> Sequence[Check]:
    """Examine everything, show the findings, and return a check for each subject that could be examined."""
    subjects: list[Callable[[], Examined]] = [
        partial(_stage, context.limited_to(examined.uses), examined, failed.get(examined.name, ""))
        for examined in stages
    ]
    subjects += [partial(_cluster, context, name, read) for name, read in CLUSTER.items()]
    subjects.append(partial(_talos, context))
    examined = in_parallel(lambda examine: examine(), subjects, width=4)
    show(table(examined))
    return [
        Check(e.subject, not e.findings, _result(e.findings) or NOTHING, _remedies(e.findings))
        for e in examined
        if not e.blocked
    ]


def _result(findings: Iterable[Presentation]) -> str:
    """Each failure once, with the first lines of what was seen."""
    seen: dict[str, list[str]] = {}
    for finding in findings:
        seen.setdefault(finding.failure, []).append(finding.message.partition("\n")[0])
    return "; ".join(f"{failure}: {some(lines)}" if failure else some(lines) for failure, lines in seen.items())


def _remedies(findings: Iterable[Presentation]) -> str:
    return "\n".join(dict.fromkeys(finding.advice for finding in findings if finding.advice))


def table(examined: Iterable[Examined]) -> Table:
    """The findings below each other, those with the same known failure, or the same remedy, as one."""
    examined = list(examined)
    groups: dict[tuple[str, ...], list[tuple[str, Presentation]]] = {}
    for part in examined:
        for finding in part.findings:
            known = _CODE.match(finding.failure)
            key = (finding.failure,) if known else (finding.failure, finding.remedy, finding.next)
            groups.setdefault(key, []).append((part.subject, finding))
    blocked = {part.subject: part.blocked for part in examined if part.blocked}
    notes = [f"not examined: {', '.join(blocked)} (blocked: {'; '.join(dict.fromkeys(blocked.values()))})"] * bool(
        blocked
    )
    notes += [remark for part in examined for remark in part.remarks]
    title = "1 finding" if len(groups) == 1 else f"{len(groups)} findings" if groups else NOTHING
    shown = [row for same in groups.values() for row in _rows(same)]
    return Table(title, ["", ""], shown, note="\n".join(dict.fromkeys(notes)), limit=len(shown))


def _rows(same: Sequence[tuple[str, Presentation]]) -> Iterator[Sequence[Any]]:
    """A failure, and below it what is known about it: a label and a text in each row, for a narrow page."""
    findings = [finding for _, finding in same]
    failure = findings[0].failure
    code = _CODE.match(failure)
    yield [Cell(code[1] if code else "finding", "bad"), failure.removeprefix(code[0] if code else "") or UNKNOWN]
    yield ["found by", ", ".join(dict.fromkeys(subject for subject, _ in same))]
    yield ["evidence", some(" ".join(finding.message.split()) for finding in findings)]
    yield from (["likely cause", cause] for cause in dict.fromkeys(cause for f in findings for cause in f.causes))
    yield from (["remedy", remedy] for remedy in dict.fromkeys(f.remedy.rstrip(".") for f in findings if f.remedy))
    yield from (["next command", command] for command in dict.fromkeys(f.next for f in findings if f.next))
    others = dict.fromkeys(title for finding in findings for title in finding.alternatives)
    yield from (["or", f"{title} (fluobook explain {title.split()[0]})"] for title in others)


def _stage(context: RunContext, examined: Stage, failed: str) -> Examined:
    """What a stage observes and checks; what it would still do, with the failure of its last run.

    A kind that the cluster does not serve yet is reported by the stage that installs it.
    """
    try:
        observation = examined.observe(context)
        plan = examined.plan(context.platform, observation)
        if plan.waits_for:
            return Examined(examined.name, blocked=f"{plan.waits_for} has not run")
        if plan.actions:
            return Examined(examined.name, [_pending(context, plan, failed)])
        checks = [check for check in examined.verify(context, observation) if not check.passed]
    except StageMissing as error:
        return Examined(examined.name, blocked=error.message)
    except FluobookError as error:
        return Examined(examined.name, [present(error, phase=context.in_commands, with_probe=True)])
    presented = [(check, _of_check(context, check)) for check in checks]
    missing = [check for check in checks if check.error and getattr(check.error, "code", "") == "NoMatch"]
    remarks = [finding.message for check, finding in presented if check.advisory and not finding.failure]
    findings = [f for check, f in presented if check not in missing and (f.failure or not check.advisory)]
    return Examined(examined.name, findings, remarks=remarks)


def _pending(context: RunContext, plan: Plan, failed: str) -> Presentation:
    """A finding about a stage that would still change something."""
    actions = some(": ".join(filter(None, (f"{a.verb} {a.object}", a.reason))) for a in plan.actions)
    remedy = "run the stage: it does what is missing"
    pending = Presentation(f"{plan.summary()} {actions}", failure="not finished", remedy=remedy)
    if failed:
        shown = Presentation.read(failed)
        message = f"{plan.summary()} Its last run failed: {shown.message}"
        pending = replace(shown, message=message, remedy=shown.remedy or remedy)
    return pending if pending.next else replace(pending, next=f"fluobook run {context.in_commands} --only {plan.stage}")


def _of_check(context: RunContext, check: Check) -> Presentation:
    """A finding about a failed check."""
    texts = (f"{check.name}: {check.result}", check.remedy)
    evidence, remedy = (text.replace(PHASE, context.in_commands) for text in texts)
    if check.error:
        return replace(present(check.error, phase=context.in_commands, with_probe=True), message=evidence)
    return _text(context, evidence, remedy)


def _text(context: RunContext, evidence: str, remedy: str = "") -> Presentation:
    """A finding about a text; what the catalogue says comes before a remedy that is about the subject in general."""
    known = present(FluobookError(evidence), phase=context.in_commands)
    return known if known.failure else replace(known, remedy=remedy)


def _cluster(context: RunContext, subject: str, read: Callable[[Kube], Iterator[str]]) -> Examined:
    """What objects of the cluster report."""
    try:
        kube = api(context)
        if isinstance(kube, Missing):
            return Examined(subject, blocked=f"{kube.stage} has not run")
        return Examined(subject, [_text(context, evidence, "describe the object") for evidence in read(kube)])
    except NotFound:
        return Examined(subject)
    except FluobookError as error:
        return Examined(subject, [present(error, phase=context.in_commands, with_probe=True)])


def _nodes(kube: Kube) -> Iterator[str]:
    """Nodes that are not Ready, or under pressure."""
    for node in kube.list("v1", "Node"):
        for condition in bad_conditions(node):
            message = condition.get("message") or condition.get("reason") or ""
            yield f"node {node['metadata']['name']}, {condition['type']} is {condition['status']}: {message}"


def _workloads(kube: Kube) -> Iterator[str]:
    """Workloads that are not ready, with what their pods wait for or the last warning about what they create."""
    kinds = {**dict.fromkeys(WORKLOADS, "apps/v1"), "Job": "batch/v1"}
    unready = [obj for kind, version in kinds.items() for obj in kube.list(version, kind) if why_not(obj)]
    warnings = [event for event in kube.list("v1", "Event") if event.get("type") == "Warning"] if unready else []
    for obj in unready:
        name, namespace = obj["metadata"]["name"], obj["metadata"]["namespace"]
        about = [
            f"{event.get('reason')}: {event.get('message')}"
            for event in warnings
            if event["metadata"]["namespace"] == namespace
            and f"{event['involvedObject'].get('name')}-".startswith(f"{name}-")
        ]
        reasons = [*why_pods_wait(kube, namespace, [name]), *about[-1:]]
        yield "; ".join([f"{obj['kind']} {namespace}/{name}: {why_not(obj)}", *reasons[:1]])


def _applications(kube: Kube) -> Iterator[str]:
    """Applications that are not healthy, with the first object that keeps each from it."""
    for obj in kube.list(API, KIND, "argocd"):
        state = state_of(obj)
        if not state.healthy:
            yield "; ".join(filter(None, (f"Application {state.name}: {state.summary()}", first_problem(kube, obj))))


CLUSTER: Mapping[str, Callable[[Kube], Iterator[str]]] = {
    "nodes": _nodes,
    "workloads": _workloads,
    "Applications": _applications,
}


def _talos(context: RunContext) -> Examined:
    """What configured nodes report themselves: conditions that are not met, and services that are not healthy."""
    if not context.secrets.has_bundle():
        return Examined("Talos", blocked="apply-talos-config has not run")
    findings = []
    for node in context.platform.nodes:
        try:
            client = context.talos.client(node)
            unmet = [f"{name}: {reason}" for name, reason in client.machine_stage().unmet]
            sick = [f"{s.id} is {s.state}: {s.message}" for s in client.services() if s.healthy is False]
        except FluobookError as error:
            findings.append(present(error, phase=context.in_commands, with_probe=True))
        else:
            findings += [_text(context, f"{node.name}: {evidence}") for evidence in (*unmet, *sick)]
    return Examined("Talos", findings)
