"""When an Application is healthy, and when it is stuck."""

from __future__ import annotations

import pytest

from fluobook.stages.root_application.state import state_of

SOURCE = {"repoURL": "https://git.example.org/x.git", "targetRevision": "main", "path": "a"}


def application(sync="Synced", health="Healthy", phase="Succeeded", *, compared=SOURCE, **status):
    operation = {"operationState": {"phase": phase, "startedAt": "2026-01-01T00:00:00Z"}} if phase else {}
    statuses = {"sync": {"status": sync, "comparedTo": {"source": compared}}, "health": {"status": health}}
    metadata = {"name": "web", "annotations": {"argocd.argoproj.io/sync-wave": "-2"}}
    return {"metadata": metadata, "spec": {"source": SOURCE}, "status": {**statuses, **operation, **status}}


@pytest.mark.parametrize(
    ("obj", "healthy"),
    [
        (application(), True),
        (application(phase=""), True),
        (application(phase="Running"), False),
        (application(phase="Failed"), False),
        (application(sync="OutOfSync"), False),
        (application(health="Progressing"), False),
        (application(health="Degraded"), False),
        (application(compared={**SOURCE, "path": "b"}), False),
        ({"metadata": {"name": "new"}, "spec": {"source": SOURCE}}, False),
    ],
)
def test_healthy_means_synced_healthy_and_succeeded_for_its_present_source(obj, healthy):
    assert state_of(obj).healthy is healthy


def test_a_sync_that_is_retried_has_not_failed():
    retrying = {
        "operationState": {"phase": "Running", "message": "one or more objects failed to apply. Reretrying attempt #2"}
    }
    assert not state_of(application(**retrying)).failed
    assert state_of(application(phase="Failed")).failed


def test_a_condition_is_shown_before_the_operations_message():
    conditions = [{"type": "ComparisonError", "message": "app path does not exist"}]
    state = state_of(application(sync="Unknown", health="Unknown", phase="", conditions=conditions))
    assert state.summary() == "Unknown, Unknown: app path does not exist"


def test_the_wave_comes_from_the_annotation():
    assert state_of(application()).wave == -2
