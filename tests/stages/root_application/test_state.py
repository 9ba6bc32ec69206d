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


LOAD = "Failed to load target state: failed to generate manifest for source 1 of 1: rpc error: code = Unknown desc = "


@pytest.mark.parametrize(
    ("message", "is_permanent"),
    [
        (
            LOAD
            + "`kustomize build apps/web` failed exit status 1: Error: accumulating resources: x.yaml: no such file",
            True,
        ),
        (
            LOAD + "`helm template . --name-template web` failed exit status 1: Error: values do not meet the schema",
            True,
        ),
        (LOAD + "apps/web: app path does not exist", True),
        (LOAD + "`kustomize build apps/web` failed exit status 1: Error: Get https://x: dial tcp: i/o timeout", False),
        (LOAD + "`helm pull` failed exit status 1: Error: 503", False),
        (LOAD + "failed to list refs: https://git.example.org: connection refused", False),
        ("error getting cluster cache: context deadline exceeded", False),
    ],
)
def test_only_an_error_that_another_commit_must_correct_is_a_build_error(message, is_permanent):
    conditions = [{"type": "ComparisonError", "message": message}]
    assert (state_of(application(conditions=conditions)).build_error == message) is is_permanent


def test_the_wave_comes_from_the_annotation():
    assert state_of(application()).wave == -2
