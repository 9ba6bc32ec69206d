"""Platforms of the real charts on the real engine: every check passes but that of receivers, which the params do not
name, and those of certificates where the issuer cannot be reached; the platform then stays as it is. Applications that
are deleted, or left out of Git, take no data with them.

The charts are their authors' and not part of this repository: FLUOBOOK_TEST_CHARTS names a folder with them.
"""

from __future__ import annotations

import os
import sys
from datetime import datetime, timedelta
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from fluobook.gitops.root import NAME as ROOT
from fluobook.gitops.root import NAMESPACE
from fluobook.stages.catalogue import STAGES
from fluobook.stages.observe.watch import ALERTS
from fluobook.waiting import Cancellation, wait_until
from tests.engines import tree
from tests.engines.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.engines.conftest import RealLab

CHARTS = os.environ.get("FLUOBOOK_TEST_CHARTS", "")
ROOTS = {"nginx": "bootstrap", "gateway": "bootstrap-gateway"}
NO_ISSUER = "kube.issuer-unreachable"
ISSUED = "certificates are issued"
VARIANTS = [*product(("phase1", "phase2", "phase3"), ROOTS, ("",)), *product(("phase1",), ROOTS, (NO_ISSUER,))]
STABLE = timedelta(minutes=10)
"""How long all of Argo CD's comparisons of an Application are without a finding before it counts as stable. A single
one may have a finding: on a busy machine a health check in Lua passes Argo CD's deadline of a second."""
API, KIND = "argoproj.io/v1alpha1", "Application"
CASCADE = "resources-finalizer.argocd.argoproj.io"
WAYS = ((), (CASCADE,), (f"{CASCADE}/foreground",), (f"{CASCADE}/background",))
"""The finalizers by which Argo CD deletes an Application: without its objects, or with them."""
HEALED = 600
"""Seconds: Argo CD heals a root that was healed before after five minutes only."""
DELETED = {
    "victoria-metrics-stack": "- monitoring/victoria-metrics/application.yaml",
    "longhorn": "- longhorn/application.yaml",
}
"""The Applications that are deleted, and their lines in the tree."""
VOLUME = {
    "apiVersion": "longhorn.io/v1beta2",
    "kind": "Volume",
    "metadata": {"name": "planted", "namespace": "longhorn-system"},
    "spec": {"size": "1073741824", "numberOfReplicas": 1},
}
DATA = {("v1", kind) for kind in ("Namespace", "PersistentVolume", "PersistentVolumeClaim", "Secret", "ConfigMap")}
DEFINITIONS = ("apiextensions.k8s.io/v1", "CustomResourceDefinition")
CHANGING = {"Application", "CiliumEndpoint", "CiliumIdentity"}
"""Custom resources that come and go with pods, and those that the test deletes."""
BRING_UP = tuple(stage.name for stage in STAGES)

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not CHARTS, reason="no real charts: FLUOBOOK_TEST_CHARTS does not name a folder with them"),
]


@pytest.mark.timeout(4200)
@pytest.mark.parametrize(
    ("phase", "variant", "fault"), VARIANTS, ids=["-".join(parts).strip("-") for parts in VARIANTS]
)
def test_a_platform_of_real_charts_comes_up_and_stays_as_it_is(
    phase: str, variant: str, fault: str, real_labs: Callable[..., RealLab]
) -> None:
    path = f"cluster-gitops/{ROOTS[variant]}"
    lab = real_labs(phase, charts=CHARTS, faults=[fault] if fault else [], gitops={"path": path})
    results = lab.bring_up(*BRING_UP)
    failed = [name for checks in results.values() for name, passed in checks if not passed]
    assert sorted(failed) == sorted([ALERTS, *([ISSUED, ISSUED] if fault else [])])
    before = lab.mutating()
    lab.bring_up(*BRING_UP)
    assert lab.mutating() == before
    first: dict[str, datetime] = {}

    def stable() -> bool | None:
        pending = False
        for name, (sync, health, when) in _states(lab).items():
            is_well = (sync, health) == ("Synced", "Healthy")
            first[name] = first.get(name, when) if is_well else when
            pending |= not is_well or when - first[name] < STABLE
            if not is_well:
                sys.stdout.write(f"{when} {name} {sync} {health}\n")
        return None if pending else True

    wait_until(stable, what="Argo CD's comparisons", timeout=1800, cancellation=Cancellation(), interval=1.0)
    lab.end()


def _states(lab: RealLab) -> dict[str, tuple[str, str, datetime]]:
    applications: list[dict[str, Any]] = lab.context.kube().list(API, KIND, NAMESPACE)
    statuses = {app["metadata"]["name"]: app["status"] for app in applications}
    return {
        name: (status["sync"]["status"], status["health"]["status"], datetime.fromisoformat(status["reconciledAt"]))
        for name, status in statuses.items()
    }


@pytest.mark.timeout(4200)
def test_an_application_that_is_deleted_or_left_out_takes_no_data_with_it(
    real_labs: Callable[..., RealLab], tmp_path: Path
) -> None:
    lab = real_labs("phase1", charts=CHARTS)
    lab.bring_up(*BRING_UP)
    kube, settings = lab.context.kube(), lab.context.platform.gitops
    kube.apply(VOLUME)
    before = _data(lab)
    assert {kind for kind, _ in before} >= {"PersistentVolume", "VMSingle", "Volume", "VMRule", "Cluster"}

    def live(name: str) -> dict[str, Any]:
        return kube.find(API, KIND, name, NAMESPACE) or {"metadata": {"uid": ""}}

    def is_well(name: str) -> bool:
        found = live(name)
        status = found.get("status") or {}
        states = (status.get("sync") or {}).get("status"), (status.get("health") or {}).get("status")
        return states == ("Synced", "Healthy") and "deletionTimestamp" not in found["metadata"]

    def delete(name: str, finalizers: tuple[str, ...]) -> None:
        uid, there = live(name)["metadata"]["uid"], live(name)["metadata"].get("finalizers", ())
        kept = [finalizer for finalizer in there if not finalizer.startswith(CASCADE)]
        kube.patch(API, KIND, name, NAMESPACE, body={"metadata": {"finalizers": [*kept, *finalizers]}})
        kube.delete(API, KIND, name, NAMESPACE)
        until(lambda: live(name), lambda app: app["metadata"]["uid"] != uid or "DeletionError" in str(app), seconds=300)
        assert _data(lab) >= before, (name, finalizers)
        if live(name)["metadata"]["uid"] == uid:
            kube.patch(API, KIND, name, NAMESPACE, body={"metadata": {"finalizers": None}})
        until(lambda: is_well(name) and live(name)["metadata"]["uid"] != uid, bool, seconds=HEALED)
        assert _data(lab) >= before, (name, finalizers)

    for name, finalizers in product(DELETED, WAYS):
        delete(name, finalizers)

    def leave_out(root: Path) -> None:
        listing = root / "cluster-gitops/infrastructure/kustomization.yaml"
        lines = listing.read_text().splitlines(keepends=True)
        listing.write_text("".join(line for line in lines if line.strip() not in DELETED.values()))

    uids = {name: live(name)["metadata"]["uid"] for name in DELETED}
    revision = tree.push(settings.mirrored(settings.repository), tmp_path / "left-out", leave_out)
    pruning = {"initiatedBy": {"username": "test"}, "sync": {"revision": revision, "prune": True}}
    kube.patch(API, KIND, ROOT, NAMESPACE, body={"operation": pruning})
    until(lambda: _synced(live(ROOT)), lambda done: done == (revision, "Succeeded"), seconds=600)
    assert {name: live(name)["metadata"]["uid"] for name in DELETED} == uids
    assert _data(lab) >= before
    lab.end()


def _synced(root: dict[str, Any]) -> tuple[str, str]:
    operation = (root.get("status") or {}).get("operationState") or {}
    return str((operation.get("syncResult") or {}).get("revision")), str(operation.get("phase"))


def _data(lab: RealLab) -> set[tuple[str, str]]:
    """Kind and uid of all volumes, claims, definitions and custom resources that nobody deletes."""
    kube = lab.context.kube()
    definitions = kube.list(*DEFINITIONS)
    kinds = {
        (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
        for spec in (definition["spec"] for definition in definitions)
        for version in spec["versions"]
        if version["storage"] and version["served"] and spec["names"]["kind"] not in CHANGING
    }
    objects = [(kind, obj) for api, kind in sorted(kinds | DATA) for obj in kube.list(api, kind)]
    return {
        (kind, obj["metadata"]["uid"])
        for kind, obj in [*objects, *(("CustomResourceDefinition", definition) for definition in definitions)]
        if "deletionTimestamp" not in obj["metadata"]
    }
