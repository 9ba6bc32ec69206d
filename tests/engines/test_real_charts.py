"""Platforms of the real charts on the real engine: every check passes but that of receivers, which the params do not
name, and those of certificates where the issuer cannot be reached; the platform then stays as it is.

The charts are their authors' and not part of this repository: FLUOBOOK_TEST_CHARTS names a folder with them.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from fluobook.gitops.root import NAMESPACE
from fluobook.stages.catalogue import STAGES
from fluobook.stages.observe.watch import ALERTS
from fluobook.waiting import Cancellation, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.engines.conftest import RealLab

CHARTS = os.environ.get("FLUOBOOK_TEST_CHARTS", "")
ROOTS = {"nginx": "bootstrap", "gateway": "bootstrap-gateway"}
NO_ISSUER = "kube.issuer-unreachable"
ISSUED = "certificates are issued"
VARIANTS = [*product(("phase1", "phase2", "phase3"), ROOTS, ("",)), *product(("phase1",), ROOTS, (NO_ISSUER,))]
STABLE = timedelta(minutes=10)
"""How far apart Argo CD's first and last comparison of each Application are before the platform counts as stable."""
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
            assert (sync, health) == ("Synced", "Healthy"), name
            pending |= when - first.setdefault(name, when) < STABLE
        return None if pending else True

    wait_until(stable, what="Argo CD's comparisons", timeout=1800, cancellation=Cancellation(), interval=1.0)
    lab.end()


def _states(lab: RealLab) -> dict[str, tuple[str, str, datetime]]:
    applications: list[dict[str, Any]] = lab.context.kube().list("argoproj.io/v1alpha1", "Application", NAMESPACE)
    statuses = {app["metadata"]["name"]: app["status"] for app in applications}
    return {
        name: (status["sync"]["status"], status["health"]["status"], datetime.fromisoformat(status["reconciledAt"]))
        for name, status in statuses.items()
    }
