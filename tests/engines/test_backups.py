"""Backups on the real engine: Argo CD's own programs deploy what a bucket brings, Kubernetes' own run the export."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fluobook.gitops import backups
from fluobook.stages import catalogue, health

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluobook.stages.core.check import Check
    from tests.engines.conftest import RealLab

STAGES = [stage.name for stage in catalogue.STAGES]
BEFORE = STAGES[STAGES.index("create-vms") : STAGES.index("root-application")]
EXPORT = "rabbitmq-definitions"
NAMES = {"every export has succeeded", "every PostgreSQL cluster with a schedule can be restored"}
"""The gates whose reporters are there: Longhorn, and so its backup target, is the embedded lab's alone."""


def gates(lab: RealLab) -> dict[str, Check]:
    (group,) = (group for group in health.GROUPS if group.name == "backups can be read")
    return {check.name: check for check in group.checks(lab.context)}


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_bucket_brings_backups_that_health_finds_fresh(real_labs: Callable[..., RealLab]) -> None:
    lab = real_labs(backups={"bucket": "fluodata-backups"})
    lab.bring_up(*BEFORE)
    kube = lab.context.kube()
    for secret in (backups.LONGHORN, backups.DATA):
        metadata = {"name": secret.name, "namespace": secret.namespace}
        kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": secret.namespace}})
        kube.apply(
            {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": dict.fromkeys(backups.KEYS, "eA==")}
        )
    lab.bring_up("root-application")
    cron_job = kube.get("batch/v1", "CronJob", EXPORT, "fluodata")
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": EXPORT, "controller": True}
    owner["uid"] = cron_job["metadata"]["uid"]
    job: dict[str, Any] = {"apiVersion": "batch/v1", "kind": "Job", "spec": cron_job["spec"]["jobTemplate"]["spec"]}
    job["metadata"] = {"name": "now", "namespace": "fluodata", "ownerReferences": [owner]}
    kube.apply(job)

    def fresh() -> bool | None:
        done = kube.get("batch/v1", "CronJob", EXPORT, "fluodata").get("status", {}).get("lastSuccessfulTime")
        return True if done and all(check.passed for name, check in gates(lab).items() if name in NAMES) else None

    lab.context.wait_until("gate", "the backups to be fresh", fresh, interval=0.5)
    assert set(gates(lab)) > NAMES
