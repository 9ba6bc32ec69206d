"""The stages on the real control plane: what they do, that they are content, and that a second run changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.engines.conftest import RealLab

BEFORE_ARGOCD = (
    "create-vms",
    "apply-talos-config",
    "bootstrap-kubernetes",
    "approve-csrs",
    "privileged-namespaces",
    "sops-age-key",
)


@pytest.fixture(scope="module")
def lab(real_labs: Callable[[], RealLab]) -> RealLab:
    lab = real_labs()
    lab.bring_up(*BEFORE_ARGOCD)
    return lab


def test_stages_one_to_six_pass_on_the_real_control_plane(lab: RealLab) -> None:
    servers = {request["server"] for request in lab.mutating()}
    assert "kubernetes" in servers


def test_a_second_run_changes_nothing(lab: RealLab) -> None:
    before = lab.mutating()
    lab.bring_up(*BEFORE_ARGOCD)
    assert lab.mutating() == before


def test_nothing_of_kubernetes_is_to_upgrade_and_talos_own_objects_are_no_difference(lab: RealLab) -> None:
    before = lab.mutating()
    lab.bring_up("upgrade-kubernetes")
    assert lab.mutating() == before
