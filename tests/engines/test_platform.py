"""The whole platform on the real engine: Argo CD's own programs sync the tree wave by wave, and both engines agree."""

from __future__ import annotations

import itertools
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fluobook import gitops
from fluobook.clients import tools
from fluobook.stages import catalogue
from fluobook.stages.observe.tables import WAVE
from tests.engines import tree
from tests.engines.history import applications, resources, states, too_early, waves_of
from tests.engines.live_table import watching
from tests.engines.outcomes import of_run, verified
from tests.engines.running import LOOPBACK, alone, family, listening

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.engines.conftest import RealLab
    from tests.engines.outcomes import Verified

STAGES = tuple(stage.name for stage in catalogue.STAGES)

LATE = "scylladb"
EVERY = re.compile(r"\b(\d+) of \1 Synced and Healthy")


@pytest.fixture(scope="module")
def platform(real_labs: Callable[..., RealLab], tmp_path_factory: pytest.TempPathFactory) -> tuple[RealLab, Verified]:
    lab, run = real_labs(), tmp_path_factory.mktemp("run") / "run"
    lab.notebooks(run)
    return lab, of_run(run)


@pytest.fixture(scope="module")
def played(real_labs: Callable[..., RealLab], platform: tuple[RealLab, Verified]) -> tuple[RealLab, Verified]:
    versions = {"kubernetes": platform[0].context.platform.versions.kubernetes}  # the patch that the real engine has
    lab = real_labs(engine="embedded", versions=versions)
    lab.bring_up(*STAGES)
    return lab, verified(lab.context.journal.events)


def test_argo_cd_brings_up_the_whole_tree(platform: tuple[RealLab, Verified]) -> None:
    lab, _ = platform
    observed = states(lab)
    wanted = gitops.for_phase(lab.context.platform, gitops.read(lab.context.root, lab.context.platform.gitops.path))
    assert set(observed) >= {application.name for application in wanted.applications}
    assert set(observed.values()) == {("Synced", "Healthy")}


def test_every_notebook_verifies_the_same_on_both_engines(
    platform: tuple[RealLab, Verified], played: tuple[RealLab, Verified]
) -> None:
    assert tuple(platform[1]) == STAGES
    assert platform[1] == played[1]


def test_both_engines_leave_the_same_applications_and_the_same_objects_in_them(
    platform: tuple[RealLab, Verified], played: tuple[RealLab, Verified]
) -> None:
    assert states(platform[0]) == states(played[0])
    ours, theirs = resources(played[0]), resources(platform[0])
    differing = {name: set(ours[name].items()) ^ set(theirs[name].items()) for name in theirs}
    assert {name: differences for name, differences in differing.items() if differences} == {}


def test_no_wave_began_before_the_one_before_was_healthy(platform: tuple[RealLab, Verified]) -> None:
    lab, _ = platform
    assert too_early(lab) == []


def test_the_real_controller_s_own_history_agrees(platform: tuple[RealLab, Verified]) -> None:
    """Seconds are all that its timestamps tell; a wave's first sync is not before the first one of the wave before.

    The definitions of one chart are all there since stage 7: Argo CD finds it Synced, and has nothing to do.
    """
    lab, _ = platform
    histories = {app["metadata"]["name"]: app["status"].get("history") for app in applications(lab)}
    assert {name for name, history in histories.items() if not history} == {"prometheus-operator-crds"}
    began = {name: history[0]["deployStartedAt"] for name, history in histories.items() if history}
    waves = [[began[app.name] for app in wave if app.name in began] for wave in waves_of(lab)]
    for earlier, later in itertools.pairwise(filter(None, waves)):
        assert max(earlier) <= min(later)


def test_the_played_controller_s_waves_are_in_the_same_order(played: tuple[RealLab, Verified]) -> None:
    assert too_early(played[0]) == []


def test_a_second_run_changes_nothing(platform: tuple[RealLab, Verified]) -> None:
    lab, _ = platform
    before = lab.mutating()
    lab.bring_up(*STAGES)
    assert lab.mutating() == before


def test_kubectl_reads_the_kubeconfig_that_was_written(platform: tuple[RealLab, Verified]) -> None:
    lab, _ = platform
    nodes = kubectl(lab, "get", "nodes", "-o", "wide")
    assert [line.split()[:2] for line in nodes.splitlines()[1:]] == [
        [node.name, "Ready"] for node in sorted(lab.context.platform.nodes, key=lambda node: node.name)
    ]
    requests = kubectl(lab, "get", "certificatesigningrequests").splitlines()[1:]
    assert len(requests) == 2 * len(lab.context.platform.nodes)
    assert {line.split()[-1] for line in requests} == {"Approved,Issued"}
    rows = [line.split() for line in kubectl(lab, "-n", "argocd", "get", "applications").splitlines()[1:]]
    assert {name for name, *_ in rows} == set(states(lab))
    assert {tuple(state) for _, *state in rows} == {("Synced", "Healthy")}


def test_nothing_of_it_can_be_reached_from_outside_loopback(platform: tuple[RealLab, Verified]) -> None:
    """Argo CD's controller listens on every address: of a network in which there is nothing but its own loopback."""
    lab, _ = platform
    programs = family(lab.lab.pid)
    names = [Path(f"/proc/{pid}/comm").read_text().strip() for pid in programs]
    assert {"etcd", "kube-apiserver", "kube-controller", "kube-scheduler", "kwok", "redis-server"} <= set(names)
    assert names.count("argocd") == 3
    heard = [(address, alone(pid)) for pid in programs for address in listening(pid)]
    assert {is_alone for address, is_alone in heard if address not in LOOPBACK} == {True}


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("engine", ["embedded", "real"])
def test_a_push_changes_an_application_before_the_eyes_of_who_watches(
    engine: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    lab: RealLab = request.getfixturevalue({"embedded": "played", "real": "platform"}[engine])[0]
    url = lab.context.platform.gitops.mirrors[lab.context.platform.gitops.repository]
    with watching(lab, "runbook.applications()") as table:
        table.until(lambda text: wave_in(text, LATE) == "2")
        commit = tree.push(url, tmp_path / "clone", one_wave_later)
        drawn = table.until(lambda text: wave_in(text, LATE) == "3" and EVERY.search(text))
    assert "Synced" in drawn
    assert len(table.displays) == 1
    live = {app["metadata"]["name"]: app for app in applications(lab)}
    assert live[LATE]["metadata"]["annotations"][WAVE] == "3"
    assert live["root"]["status"]["sync"]["revision"] == commit


def one_wave_later(root: Path) -> None:
    path = root / "cluster-gitops/apps/scylladb/cluster/application.yaml"
    path.write_text(path.read_text().replace(f'{WAVE}: "2"', f'{WAVE}: "3"'))


def wave_in(table: str, name: str) -> str:
    """What the table says of an Application's wave; its rows are wave, name and more."""
    return next((line.split()[0] for line in table.splitlines() if line.split()[1:2] == [name]), "")


def kubectl(lab: RealLab, *arguments: str) -> str:
    config = str(lab.context.home / "kubeconfig")
    command = [str(tools.find("kubectl").path), "--kubeconfig", config, "--request-timeout=30s", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=True).stdout
