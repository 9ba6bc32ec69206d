"""The plan of a restore: what is lost, what is refused, and how it goes on after an interruption."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from fluobook import params
from fluobook.errors import Refused
from fluobook.stages.restore.plan import WAITS, Member, Observation, Wanted, plan

if TYPE_CHECKING:
    from pathlib import Path

    from fluobook.params import Platform

NOW = dt.datetime(2026, 11, 29, 12, tzinfo=dt.UTC)
TAKEN = (NOW - dt.timedelta(hours=3)).isoformat()
PLANES = ("talos-cp-1", "talos-cp-2", "talos-cp-3")
WORKERS = ("talos-worker-1", "talos-worker-2", "talos-worker-3")
JOINS = ["join talos-cp-2", "join talos-cp-3"]
RESTARTS = [f"restart {name}" for name in WORKERS]
EMPTY, LOST, ALONE = Member(WAITS), Member("Running"), Member("Running", 50, frozenset(PLANES[:1]))
JOINED = Member("Running", 50, frozenset(PLANES))


@pytest.fixture(scope="module")
def phase3(root: Path) -> Platform:
    return params.load("phase3", root=root).platform


@pytest.fixture
def wanted(phase3: Platform) -> Wanted:
    return Wanted("fluodata-1", "ab" * 32, 9000, TAKEN, 1000, f"v{phase3.versions.talos}")


def observed(wanted: Wanted | None, *members: Member, **changes: Any) -> Observation:
    return Observation(NOW, wanted, dict(zip(PLANES, members, strict=False)), WORKERS, **changes)


def ids(platform: Platform, observation: Observation) -> list[str]:
    return [action.id for action in plan(platform, observation).actions]


def test_a_lost_quorum_wipes_what_has_data_and_restores_once(phase3: Platform, wanted: Wanted) -> None:
    lost = observed(wanted, LOST, EMPTY, Member("Failed"))
    resets = ["reset talos-cp-1", "reset talos-cp-3"]
    assert ids(phase3, lost) == [*resets, "recover etcd", *JOINS, *RESTARTS]
    shown = plan(phase3, lost)
    recover = shown.actions[2]
    assert recover.needs == tuple(resets)
    assert shown.destroys == (phase3.cluster.name,)
    assert "(3.0 hours ago)" in shown.notes[0]
    assert [shown.actions[3].needs, shown.actions[5].needs] == [("recover etcd",), ("recover etcd", *JOINS)]
    assert shown.actions[6].needs == (RESTARTS[0],)


def test_new_control_planes_have_nothing_to_wipe(phase3: Platform, wanted: Wanted) -> None:
    assert ids(phase3, observed(wanted, EMPTY, EMPTY, EMPTY)) == ["recover etcd", *JOINS, *RESTARTS]


BEGUN: dict[str, tuple[tuple[Member, ...], dict[str, Any], list[str]]] = {
    "the API does not answer yet": ((ALONE, EMPTY, EMPTY), {}, ["recover etcd", *JOINS, *RESTARTS]),
    "not yet proved": (
        (ALONE, EMPTY, EMPTY),
        {"marks": {"name": "fluodata-1"}, "same": True},
        ["recover etcd", *JOINS, *RESTARTS],
    ),
    "proved": ((JOINED,) * 3, {"marks": {"restored": "ab" * 32, "pending": " ".join(WORKERS)}, "same": True}, RESTARTS),
    "one has restarted": (
        (JOINED,) * 3,
        {"marks": {"restored": "ab" * 32, "pending": f"{WORKERS[0]} {WORKERS[2]}"}, "same": True},
        [RESTARTS[0], RESTARTS[2]],
    ),
    "everything is done": (
        (replace(JOINED, index=5000),) * 3,
        {"marks": {"restored": "ab" * 32, "pending": ""}, "same": True},
        [],
    ),
    "nothing was lost": ((replace(JOINED, index=5000),) * 3, {"marks": {"name": "fluodata-1"}}, []),
}


@pytest.mark.parametrize("name", BEGUN)
def test_it_goes_on_where_it_was(name: str, phase3: Platform, wanted: Wanted) -> None:
    members, changes, expected = BEGUN[name]
    found = plan(phase3, observed(wanted, *members, **changes))
    assert [action.id for action in found.actions] == expected
    begun = plan(phase3, observed(wanted, LOST, LOST, LOST))
    assert found.rest_of(begun)


def test_what_has_a_quorum_is_not_named_as_lost(phase3: Platform) -> None:
    found = plan(phase3, observed(None, JOINED, JOINED, JOINED))
    assert (found.actions, found.kept) == ((), 3)
    assert "there is nothing to restore" in found.notes[0]


def test_a_named_snapshot_is_refused_while_there_is_a_quorum(phase3: Platform, wanted: Wanted) -> None:
    named = params.overlay(phase3, {"etcd_snapshots": {"restore": "fluodata-1"}})
    whole = replace(JOINED, index=5000)
    with pytest.raises(Refused, match="nothing is lost that the snapshot fluodata-1 could bring back"):
        plan(named, observed(wanted, whole, whole, EMPTY))


REFUSED: dict[str, tuple[tuple[Member, ...], dict[str, Any], str]] = {
    "a silent control plane": ((LOST, LOST), {}, "no answer from talos-cp-3"),
    "none answers": ((), {}, "no answer from talos-cp-1, talos-cp-2, talos-cp-3"),
    "another cluster was bootstrapped": ((ALONE, EMPTY, EMPTY), {"same": False}, "not the one of the snapshot"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused_before_anything_is_touched(name: str, phase3: Platform, wanted: Wanted) -> None:
    members, changes, expected = REFUSED[name]
    with pytest.raises(Refused) as raised:
        plan(phase3, observed(wanted, *members, **changes))
    assert expected in raised.value.message
    assert raised.value.remedy


def test_a_snapshot_of_another_minor_version_is_refused(phase3: Platform, wanted: Wanted) -> None:
    with pytest.raises(Refused, match=r"taken with Talos v1\.12\.3"):
        plan(phase3, observed(replace(wanted, talos="v1.12.3"), EMPTY, EMPTY, EMPTY))
    assert ids(phase3, observed(replace(wanted, talos="", taken=""), EMPTY, EMPTY, EMPTY))[0] == "recover etcd"


def test_before_there_is_a_bundle_the_missing_stage_is_named(phase3: Platform) -> None:
    assert plan(phase3, Observation(NOW, missing="apply-talos-config")).waits_for == "apply-talos-config"
