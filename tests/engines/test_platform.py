"""The whole platform on the real engine: Argo CD's own programs sync the tree wave by wave, and both engines agree."""

from __future__ import annotations

import itertools
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fluobook import gitops
from fluobook.lab import life
from fluobook.lab.world import OWN_TREE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.engines.conftest import RealLab

TO_ARGOCD = (
    *("create-vms", "apply-talos-config", "bootstrap-kubernetes", "approve-csrs", "privileged-namespaces"),
    "sops-age-key",
)
STAGES = (*TO_ARGOCD, "install-argocd", "root-application")
HEALTH = "resource.customizations.health.argoproj.io_Application"
WELL = "Healthy Succeeded"
"""How the state of an Application ends that lets the next wave begin."""

Claims = dict[str, list[tuple[str, bool]]]


@pytest.fixture(scope="module")
def platform(real_labs: Callable[..., RealLab]) -> tuple[RealLab, Claims]:
    lab = real_labs()
    return lab, lab.bring_up(*STAGES)


@pytest.fixture(scope="module")
def played(real_labs: Callable[..., RealLab]) -> tuple[RealLab, Claims]:
    lab = real_labs(engine="embedded")
    return lab, lab.bring_up(*STAGES)


def test_argo_cd_brings_up_the_whole_tree(platform: tuple[RealLab, Claims]) -> None:
    lab, _ = platform
    told = states(lab)
    tree = gitops.for_phase(lab.site.platform, gitops.read(lab.site.root, lab.site.platform.gitops.path))
    assert set(told) >= {application.name for application in tree.applications}
    assert set(told.values()) == {("Synced", "Healthy")}


def test_both_engines_verify_the_same(platform: tuple[RealLab, Claims], played: tuple[RealLab, Claims]) -> None:
    assert platform[1] == played[1]


def test_both_engines_leave_the_same_applications_and_the_same_objects_in_them(
    platform: tuple[RealLab, Claims], played: tuple[RealLab, Claims]
) -> None:
    assert states(platform[0]) == states(played[0])
    ours, theirs = resources(played[0]), resources(platform[0])
    differing = {name: set(ours[name].items()) ^ set(theirs[name].items()) for name in theirs}
    assert {name: told for name, told in differing.items() if told} == {}


def test_no_wave_began_before_the_one_before_was_healthy(platform: tuple[RealLab, Claims]) -> None:
    lab, _ = platform
    assert too_early(lab) == []


def test_the_real_controller_s_own_history_agrees(platform: tuple[RealLab, Claims]) -> None:
    """Seconds are all that its timestamps tell; a wave's first sync is not before the first one of the wave before."""
    lab, _ = platform
    began = {app["metadata"]["name"]: app["status"]["history"][0]["deployStartedAt"] for app in applications(lab)}
    waves = [[began[one.name] for one in wave] for wave in waves_of(lab)]
    for earlier, later in itertools.pairwise(waves):
        assert max(earlier) <= min(later)


def test_the_played_controller_s_waves_are_in_the_same_order(played: tuple[RealLab, Claims]) -> None:
    assert too_early(played[0]) == []


def test_without_the_health_check_waves_do_not_wait_and_that_is_noticed(
    real_labs: Callable[..., RealLab], tmp_path: Path
) -> None:
    lab = real_labs(root=without_health_check(tmp_path))
    lab.bring_up(*TO_ARGOCD)
    lab.apply("install-argocd", "root-application")
    assert too_early(lab) != []


def without_health_check(folder: Path) -> Path:
    """A copy of the tree whose Argo CD does not know how healthy an Application is."""
    from tests.engines.conftest import ROOT  # noqa: PLC0415 (a conftest is no module to import from at the top)

    for name in (*OWN_TREE, "params"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name)
        else:
            shutil.copy(source, folder / name)
    path = folder / "cluster-gitops/infrastructure/argocd/application.yaml"
    document = yaml.safe_load(path.read_text())
    del document["spec"]["source"]["helm"]["valuesObject"]["configs"]["cm"][HEALTH]
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return folder


def applications(lab: RealLab) -> list[dict[str, Any]]:
    return list(lab.site.kube().list("argoproj.io/v1alpha1", "Application", "argocd"))


def states(lab: RealLab) -> dict[str, tuple[str, str]]:
    return {
        app["metadata"]["name"]: (app["status"]["sync"]["status"], app["status"]["health"]["status"])
        for app in applications(lab)
    }


def resources(lab: RealLab) -> dict[str, dict[str, str]]:
    """Of each Application its objects with their sync status; their health is persisted by the real one alone."""
    return {
        app["metadata"]["name"]: {
            f"{one.get('group', '')}/{one['kind']} {one.get('namespace', '')}/{one['name']}": one.get("status", "")
            for one in app["status"].get("resources") or []
            if one.get("status")  # hooks have none, and are listed by one of the two alone
        }
        for app in applications(lab)
    }


def waves_of(lab: RealLab) -> list[list[gitops.Application]]:
    tree = gitops.for_phase(lab.site.platform, gitops.read(lab.site.root, lab.site.platform.gitops.path))
    return [list(wave) for wave in gitops.waves(tree).values()]


def too_early(lab: RealLab) -> list[str]:
    """Applications that were there before every one of an earlier wave had been synced and Healthy once."""
    seen: dict[str, float] = {}
    well: dict[str, float] = {}
    for line in life.story(lab.lab)["applications"]:
        seen.setdefault(line["application"], line["at"])
        if line["state"].endswith(WELL):
            well.setdefault(line["application"], line["at"])
    early, bound = [], 0.0
    for wave in waves_of(lab):
        early += [one.name for one in wave if seen.get(one.name, bound) < bound]
        bound = max([bound, *(well.get(one.name, float("inf")) for one in wave)])
    return early
