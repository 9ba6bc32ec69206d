"""What expires, what is renewed, and the checks afterwards."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fluobook.cluster_secrets import AccessFile
from fluobook.context import RunContext
from fluobook.params import Platform
from fluobook.stages.bootstrap_kubernetes.plan import file_actions, files_check
from fluobook.stages.core import expiry
from fluobook.stages.core.check import Check
from fluobook.stages.core.cluster import Missing, api
from fluobook.stages.core.expiry import Expiring
from fluobook.stages.core.plan import Plan

NAME = "certificates"


@dataclass(frozen=True)
class Observation:
    """What was read.

    Args:
        now: in UTC.
        missing: what an earlier stage has not done.
        files: the kubeconfig and the talosconfig.
        expiring: what expires.
    """

    now: dt.datetime
    missing: Missing | None = None
    files: Mapping[str, AccessFile] = field(default_factory=dict)
    expiring: Sequence[Expiring] = ()


def observe(context: RunContext) -> Observation:
    """Read what expires."""
    now, kube = dt.datetime.now(dt.UTC), api(context)
    if isinstance(kube, Missing):
        return Observation(now, kube)
    files = context.secrets.access_files(context.platform, context.home)
    return Observation(now, None, files, expiry.read(context))


def plan(platform: Platform, observation: Observation) -> Plan:
    """What is renewed, and notes on what has to be renewed elsewhere."""
    if observation.missing:
        return Plan(NAME, (), 0, platform.digest_data(), observation.missing.stage, (observation.missing.reason,))
    actions, now = file_actions(observation.files), observation.now
    due = [
        f"{each.name}: {each.left(now)}; renewed by {each.renewal}"
        for each in observation.expiring
        if each.kind != "client" and (each.is_due(now) or each.problem)
    ]
    kept = len(observation.expiring) - len(due) - len(actions)
    return Plan(NAME, tuple(actions), kept, platform.digest_data(), notes=tuple(due))


def verify(_context: RunContext, observation: Observation) -> Sequence[Check]:
    """Check that everything lasts long enough."""
    return [files_check(observation.files), *expiry.checks(observation.expiring, observation.now)]
