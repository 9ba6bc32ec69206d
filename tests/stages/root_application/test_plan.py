"""What stage 8 plans, and what the history shows about the waves."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from fluobook.gitops.root import NAME as ROOT
from fluobook.stages.core.cluster import Missing
from fluobook.stages.root_application.leftovers import Leftover
from fluobook.stages.root_application.state import state_of
from fluobook.stages.root_application.work import Observation, plan, wave_checks

TREE = tuple(SimpleNamespace(name=n, wave=w, source=f"{n} 1.0") for n, w in (("crds", -4), ("cni", -2), ("web", 0)))


def live(name, wave=0, *, sync="Synced", made="2026-01-01T00:00:00Z", deployed="2026-01-01T00:00:05Z", first=0):
    history = [{"id": first, "deployStartedAt": made, "deployedAt": deployed}]
    status = {"sync": {"status": sync}, "health": {"status": "Healthy"}, "operationState": {"phase": "Succeeded"}}
    annotations = {"argocd.argoproj.io/sync-wave": str(wave)}
    return {
        "metadata": {"name": name, "annotations": annotations, "creationTimestamp": made},
        "spec": {"source": {}},
        "status": {**status, "history": history},
    }


def observed(*objects, root_is_up_to_date=True, behind=()):
    states = {obj["metadata"]["name"]: state_of(obj) for obj in objects}
    known = {obj["metadata"]["name"]: obj for obj in objects}
    return Observation(TREE, "0a1b", None, root_is_up_to_date, states, frozenset(behind), known)


ALL = (live(ROOT), live("crds", -4), live("cni", -2), live("web", 0))


def needs(planned):
    return {action.id: action.needs for action in planned.actions}


def test_a_first_run_waits_for_each_wave_after_the_one_before(platform):
    assert needs(plan(platform, observed(root_is_up_to_date=False))) == {
        "apply root": (),
        "await crds": ("apply root",),
        "await cni": ("await crds",),
        "await web": ("await cni",),
        "await root": ("apply root",),
    }


def test_nothing_is_planned_when_everything_is_healthy(platform):
    planned = plan(platform, observed(*ALL))
    assert (planned.actions, planned.kept) == ((), 4)


def test_only_unhealthy_applications_are_waited_for_and_the_root_with_them(platform):
    objects = [live(ROOT), live("crds", -4), live("cni", -2, sync="OutOfSync"), live("web", 0)]
    assert needs(plan(platform, observed(*objects))) == {"await cni": (), "await root": ()}


def test_an_old_revision_is_not_done(platform):
    planned = plan(platform, observed(*ALL, behind=["web"]))
    assert [action.id for action in planned.actions] == ["await web", "await root"]
    assert "not at the pushed revision" in planned.actions[0].reason


def test_a_root_that_differs_is_applied_though_the_others_are_healthy(platform):
    planned = plan(platform, observed(*ALL, root_is_up_to_date=False))
    assert [action.id for action in planned.actions] == ["apply root", "await root"]


def test_what_is_left_is_deleted_after_the_root_gave_it_up_the_namespace_last(platform):
    left = [
        Leftover("argoproj.io/v1alpha1", "Application", "db", "argocd", ROOT, 2, "Cluster a/db"),
        Leftover("argoproj.io/v1alpha1", "Application", "operator", "argocd", ROOT, 1),
        Leftover("batch/v1", "Job", "certs-1", "kube-system", "cni", -100),
        Leftover("v1", "Namespace", "a", "", "crds", -101, "claim db-1"),
    ]
    planned = plan(platform, replace(observed(*ALL, root_is_up_to_date=False), leftovers=left))
    assert needs(planned) == {
        "apply root": (),
        "delete application db": ("apply root",),
        "delete application operator": ("delete application db",),
        "delete job kube-system/certs-1": ("delete application operator",),
        "delete namespace a": ("delete job kube-system/certs-1",),
        "await root": ("apply root",),
    }
    assert planned.destroys == ("db", "operator", "a")
    details = [action.detail for action in planned.actions if action.destroys]
    assert details == ["with Cluster a/db", "deployed by root", "with claim db-1"]


def test_without_argocd_every_action_is_predicted(platform):
    planned = plan(platform, Observation(TREE, "0a1b", Missing("install-argocd", "no CRD")))
    assert (planned.waits_for, planned.digest, len(planned.actions)) == ("install-argocd", "", 5)


def waved(*rows):
    """Applications of (wave, seconds at which they were made and deployed), below a root deployed from 0 to 50 s."""
    stamp = "2026-01-01T00:00:{:02d}Z".format
    root = live(ROOT, made=stamp(0), deployed=stamp(50))
    apps = [live(f"a{i}", wave, made=stamp(a), deployed=stamp(b)) for i, (wave, a, b) in enumerate(rows)]
    return observed(root, *apps)


@pytest.mark.parametrize(
    ("rows", "ok"),
    [
        ([(-1, 0, 10), (0, 10, 12), (0, 10, 30), (2, 30, 40)], True),
        ([(-1, 0, 10), (0, 9, 12)], False),
        ([(-1, 0, 10), (-1, 0, 20), (0, 15, 30)], False),
    ],
)
def test_the_history_shows_whether_a_wave_began_too_early(rows, ok):
    (check,) = wave_checks(waved(*rows))
    assert check.passed is ok


def test_what_was_made_long_after_says_nothing_about_thewave_checks():
    later = live("a9", -1, made="2026-03-01T00:00:00Z", deployed="2026-03-01T00:00:09Z")
    observation = waved((-1, 0, 10), (0, 10, 20))
    with_later = observed(*observation.objects.values(), later)
    (check,) = wave_checks(with_later)
    assert check.passed


def test_without_the_first_deployment_there_is_no_check():
    assert wave_checks(observed(live(ROOT, first=12))) == ()
