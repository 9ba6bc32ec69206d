"""What holds waves back: a child that cannot be synced holds the next one; without the health check nothing does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fluobook.errors import TaskFailed
from tests.engines import tree
from tests.engines.history import applications, states, too_early, waves_of
from tests.engines.running import family, lives
from tests.engines.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.engines.conftest import RealLab

TO_ARGOCD = (
    *("create-vms", "apply-talos-config", "bootstrap-kubernetes", "approve-csrs", "privileged-namespaces"),
    "sops-age-key",
)
PLANTED = "network-policies"


@pytest.fixture(scope="module")
def unguarded(real_labs: Callable[..., RealLab], tmp_path_factory: pytest.TempPathFactory) -> RealLab:
    """A lab whose Argo CD does not know how healthy an Application is."""
    lab = real_labs(root=tree.without_health_check(tree.copied(tmp_path_factory.mktemp("unguarded") / "tree")))
    lab.bring_up(*TO_ARGOCD)
    lab.apply("install-argocd", "root-application")
    return lab


@pytest.mark.parametrize("engine", ["embedded", "real"])
def test_a_child_that_cannot_be_synced_holds_the_next_wave_until_it_is_fixed(
    engine: str, real_labs: Callable[..., RealLab], tmp_path: Path
) -> None:
    root = tree.with_what_cannot_be_synced(tree.copied(tmp_path / "tree"))
    lab = real_labs(engine=engine, root=root)
    lab.bring_up(*TO_ARGOCD, "install-argocd")
    with pytest.raises(TaskFailed, match=rf"Application {PLANTED} \(wave -3\)") as raised:
        lab.apply("root-application")
    assert "example.org" in raised.value.message + raised.value.cause
    wanted = f"waiting for healthy state of argoproj.io/Application/{PLANTED}"
    until(lambda: message_of(lab, "root"), lambda message: message == wanted)
    begun = {application.name for wave in waves_of(lab) for application in wave if application.wave <= -3}
    assert set(states(lab)) == {"root", *begun}
    tree.push(
        lab.context.platform.gitops.mirrors[lab.context.platform.gitops.repository], tmp_path / "clone", tree.without_it
    )
    until(lambda: states(lab), lambda names: "cilium" in names)
    assert states(lab)[PLANTED] == ("Synced", "Healthy")
    lab.end()


def test_without_the_health_check_waves_do_not_wait_and_that_is_noticed(unguarded: RealLab) -> None:
    assert too_early(unguarded) != []


def test_a_whole_platform_that_is_killed_leaves_no_program_behind(unguarded: RealLab) -> None:
    """Argo CD's controller is in a network of its own, below a process that keeps the ways out of it."""
    programs = family(unguarded.lab.pid)
    names = [Path(f"/proc/{pid}/comm").read_text().strip() for pid in programs]
    assert names.count("argocd") == 3
    os.kill(unguarded.lab.pid, 9)
    until(lambda: [pid for pid in programs if lives(pid)], lambda left: not left, seconds=30)


def message_of(lab: RealLab, name: str) -> str:
    """What an Application's operation says."""
    (application,) = [candidate for candidate in applications(lab) if candidate["metadata"]["name"] == name]
    return str(((application.get("status") or {}).get("operationState") or {}).get("message", ""))
