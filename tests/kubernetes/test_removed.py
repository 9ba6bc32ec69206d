"""What a newer Kubernetes no longer has is found where it is used."""

from __future__ import annotations

from typing import Any

import pytest

from fluobook.kubernetes import removed

CASES: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    "nothing": ({}, "1.37", []),
    "a gate of the kubelet's configuration": (
        {"machine": {"kubelet": {"extraConfig": {"featureGates": {"CSIMigrationPortworx": False}}}}},
        "1.36",
        ["kubelet: the feature gate CSIMigrationPortworx was removed in 1.36"],
    ),
    "a gate among others": (
        {"cluster": {"apiServer": {"extraArgs": {"feature-gates": "Other=true,GangScheduling=true"}}}},
        "1.37",
        ["kube-apiserver: the feature gate GangScheduling was removed in 1.37"],
    ),
    "a gate in a list of arguments": (
        {"cluster": {"scheduler": {"extraArgs": {"feature-gates": ["Other=true", "GangScheduling=true"]}}}},
        "1.37",
        ["kube-scheduler: the feature gate GangScheduling was removed in 1.37"],
    ),
    "a gate that is still there": (
        {"cluster": {"apiServer": {"extraArgs": {"feature-gates": "GangScheduling=true"}}}},
        "1.36",
        [],
    ),
    "a flag": (
        {"machine": {"kubelet": {"extraArgs": {"container-hints": "/etc/hints", "v": "2"}}}},
        "1.37",
        ["kubelet: the flag container-hints was removed in 1.37"],
    ),
    "a flag of another program": (
        {"cluster": {"controllerManager": {"extraArgs": {"container-hints": "/etc/hints"}}}},
        "1.37",
        [],
    ),
    "a flag that an older version has lost": (
        {"machine": {"kubelet": {"extraArgs": {"pod-infra-container-image": "pause:3.10"}}}},
        "1.36",
        ["kubelet: the flag pod-infra-container-image was removed in 1.35"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_a_configuration_uses_is_found(name: str) -> None:
    main, minor, expected = CASES[name]
    assert list(removed.in_configuration(main, minor)) == expected


def test_apis_are_gone_from_their_version_on() -> None:
    workload = ("scheduling.k8s.io/v1alpha2", "Workload")
    assert workload in set(removed.apis("1.37"))
    assert workload not in set(removed.apis("1.36"))
