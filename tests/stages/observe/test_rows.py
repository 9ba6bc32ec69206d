"""Objects as tables: what is shown, and what is left out where it would differ from run to run."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fluobook import params
from fluobook.stages.observe import rows

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
PLATFORM = params.load("phase1", root=Path(__file__).parents[3]).platform


def node(name, *, ready="True", **spec):
    return {
        "metadata": {"name": name, "labels": {}, "creationTimestamp": "2026-11-23T11:00:00Z"},
        "spec": spec,
        "status": {
            "conditions": [{"type": "Ready", "status": ready}],
            "addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": "10.10.0.10"}],
            "nodeInfo": {"kubeletVersion": "v1.35.4", "osImage": "Talos (v1.13.9)"},
        },
    }


def application(name, wave=None, sync="Synced", health="Healthy", **status):
    annotations = {} if wave is None else {rows.WAVE: str(wave)}
    source = {"repoURL": "http://127.0.0.1:3333/x", "chart": name, "targetRevision": "1.2.3"}
    return {
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"project": "infrastructure", "source": source},
        "status": {"sync": {"status": sync}, "health": {"status": health}, **status},
    }


def csr(name, signer="kubernetes.io/kubelet-serving", username="system:node:talos-cp-1", request=b"", **status):
    spec = {"signerName": signer, "username": username, "request": base64.b64encode(request).decode()}
    return {"metadata": {"name": name, "creationTimestamp": "2026-11-23T11:59:30Z"}, "spec": spec, "status": status}


def states(table):
    return {row[0]: str(row[2]) for row in table.rows}


def test_declared_nodes_are_shown_whether_they_are_there_or_not():
    table = rows.nodes(PLATFORM, [node("talos-cp-1"), node("talos-worker-1", ready="Unknown")])
    assert states(table) == {
        "talos-cp-1": "✓ Ready",
        "talos-worker-1": "✗ not Ready",
        "talos-worker-2": "✗ absent",
    }
    assert table.note == "1 of 3 Ready"


def test_a_node_that_nobody_declared_is_shown_as_such():
    assert states(rows.nodes(PLATFORM, [node("stranger")]))["stranger"] == "… Ready, not in the params"


def test_a_cordoned_node_says_so():
    assert states(rows.nodes(PLATFORM, [node("talos-cp-1", unschedulable=True)]))["talos-cp-1"] == "… Ready, cordoned"


def test_ages_are_for_who_watches_alone():
    found = [node("talos-cp-1")]
    assert "age" not in rows.nodes(PLATFORM, found).columns
    assert rows.nodes(PLATFORM, found, now=NOW).rows[0][-1] == "60m"


@pytest.mark.parametrize(
    ("created", "told"),
    [("11:59:18", "42s"), ("11:58:30", "90s"), ("11:53:00", "7m"), ("09:00:00", "3h")],
)
def test_ages_are_told_in_the_largest_unit_that_says_enough(created, told):
    assert rows.age({"metadata": {"creationTimestamp": f"2026-11-23T{created}Z"}}, NOW) == told


def test_equal_requests_are_one_row_and_have_no_random_name():
    table = rows.csrs(PLATFORM, [csr("csr-abcde"), csr("csr-fghij")])
    assert len(table.rows) == 1
    assert "csr-" not in table.text()
    assert table.note == "2 pending"


def test_who_watches_sees_each_request_with_its_name():
    table = rows.csrs(PLATFORM, [csr("csr-abcde"), csr("csr-fghij")], now=NOW)
    assert [row[0] for row in table.rows] == ["csr-abcde", "csr-fghij"]


def test_a_request_that_cannot_be_read_is_shown_with_the_reason():
    assert "cannot be read" in rows.csrs(PLATFORM, [csr("csr-abcde", request=b"nonsense")]).text()


def test_a_bootstrap_tokens_id_is_not_shown():
    boot = csr("csr-x", signer="kubernetes.io/kube-apiserver-client-kubelet", username="system:bootstrap:abc123")
    assert "abc123" not in rows.csrs(PLATFORM, [boot]).text()


def test_applications_come_by_wave_and_the_root_first():
    found = [application("b", 0), application("a", 0), application("early", -4), application("root")]
    assert [row[1] for row in rows.applications(found).rows] == ["root", "early", "a", "b"]


def test_mirrors_are_not_shown():
    assert "127.0.0.1" not in rows.applications([application("cilium", -2)]).text()


def test_what_keeps_an_application_is_told_to_who_watches():
    stuck = application("a", 0, health="Degraded", operationState={"phase": "Running", "message": "waits for b"})
    assert "waits for b" in rows.applications([stuck], now=NOW).text()
    assert "waits for b" not in rows.applications([stuck]).text()
    assert rows.applications([stuck]).note == "0 of 1 Synced and Healthy"


def test_an_application_that_nobody_has_looked_at_is_unknown():
    fresh = {"metadata": {"name": "a"}, "spec": {"source": {"path": "x"}}}
    assert rows.status_of(fresh) == ("Unknown", "Unknown")
    assert not rows.is_well(fresh)
