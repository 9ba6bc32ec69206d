"""Objects and flows as tables: what is shown, and what is left out because it would differ from run to run."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fluobook import params
from fluobook.clients.hubble import Endpoint, Flow
from fluobook.stages.observe import tables
from fluobook.stages.observe.tables import SHOWN, Tally, workload
from fluobook.wire.generated.flow_pb2 import Flow as FlowMessage
from fluobook.wire.generated.flow_pb2 import Verdict

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
    annotations = {} if wave is None else {tables.WAVE: str(wave)}
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


def test_declared_nodes_are_shown_whether_they_exist_or_not():
    table = tables.nodes(PLATFORM, [node("talos-cp-1"), node("talos-worker-1", ready="Unknown")])
    assert states(table) == {
        "talos-cp-1": "✓ Ready",
        "talos-worker-1": "✗ not Ready",
        "talos-worker-2": "✗ absent",
    }
    assert table.note == "1 of 3 Ready"


def test_an_undeclared_node_is_marked():
    assert states(tables.nodes(PLATFORM, [node("stranger")]))["stranger"] == "… Ready, not in the params"


def test_a_cordoned_node_is_marked():
    assert states(tables.nodes(PLATFORM, [node("talos-cp-1", unschedulable=True)]))["talos-cp-1"] == "… Ready, cordoned"


def test_ages_are_shown_only_while_a_person_watches():
    objects = [node("talos-cp-1")]
    assert "age" not in tables.nodes(PLATFORM, objects).columns
    assert tables.nodes(PLATFORM, objects, now=NOW).rows[0][-1] == "60m"


@pytest.mark.parametrize(
    ("created", "shown"),
    [("11:59:18", "42s"), ("11:58:30", "90s"), ("11:53:00", "7m"), ("09:00:00", "3h")],
)
def test_ages_have_the_largest_unit_that_is_precise_enough(created, shown):
    assert tables.age({"metadata": {"creationTimestamp": f"2026-11-23T{created}Z"}}, NOW) == shown


def test_equal_requests_are_one_row_and_have_no_random_name():
    table = tables.csrs(PLATFORM, [csr("csr-abcde"), csr("csr-fghij")])
    assert len(table.rows) == 1
    assert "csr-" not in table.text()
    assert table.note == "2 pending"


def test_a_person_who_watches_sees_each_request_with_its_name():
    table = tables.csrs(PLATFORM, [csr("csr-abcde"), csr("csr-fghij")], now=NOW)
    assert [row[0] for row in table.rows] == ["csr-abcde", "csr-fghij"]


def test_a_request_that_cannot_be_read_is_shown_with_the_reason():
    assert "cannot be read" in tables.csrs(PLATFORM, [csr("csr-abcde", request=b"nonsense")]).text()


def test_a_bootstrap_tokens_id_is_not_shown():
    boot = csr("csr-x", signer="kubernetes.io/kube-apiserver-client-kubelet", username="system:bootstrap:abc123")
    assert "abc123" not in tables.csrs(PLATFORM, [boot]).text()


def test_applications_are_ordered_by_wave_with_the_root_first():
    objects = [application("b", 0), application("a", 0), application("early", -4), application("root")]
    assert [row[1] for row in tables.applications(objects).rows] == ["root", "early", "a", "b"]


def test_mirrors_are_not_shown():
    assert "127.0.0.1" not in tables.applications([application("cilium", -2)]).text()


def test_the_message_of_an_application_is_shown_only_while_a_person_watches():
    stuck = application("a", 0, health="Degraded", operationState={"phase": "Running", "message": "waits for b"})
    assert "waits for b" in tables.applications([stuck], now=NOW).text()
    assert "waits for b" not in tables.applications([stuck]).text()
    assert tables.applications([stuck]).note == "0 of 1 Synced and Healthy"


def test_an_application_before_its_first_comparison_is_unknown():
    fresh = {"metadata": {"name": "a"}, "spec": {"source": {"path": "x"}}}
    assert tables.status_of(fresh) == ("Unknown", "Unknown")
    assert not tables.is_healthy(fresh)


WORLD = Endpoint("", "", "203.0.113.7", 2, ("reserved:world",))


def pod(name, *labels, namespace="monitoring"):
    return Endpoint(namespace, name, "10.244.0.5", 4711, tuple(f"k8s:{label}" for label in labels))


def flow(source, destination, verdict="FORWARDED", *, port=80, reply=False):
    message = FlowMessage(verdict=Verdict.Value(verdict), node_name="node", traffic_direction="INGRESS")
    message.l4.TCP.source_port, message.l4.TCP.destination_port, message.is_reply.value = 40000, port, reply
    for end, endpoint in ((message.source, source), (message.destination, destination)):
        end.namespace, end.pod_name, end.identity = endpoint.namespace, endpoint.pod, endpoint.identity
        end.labels.extend(endpoint.labels)
    message.IP.source, message.IP.destination = source.ip, destination.ip
    return Flow(message)


@pytest.mark.parametrize(
    ("end", "name"),
    [
        (pod("grafana-7d4b9c6f5-x2vqz", "app.kubernetes.io/name=grafana"), "monitoring/grafana"),
        (pod("coredns-7d4b9c6f5-x2vqz", "k8s-app=kube-dns"), "monitoring/kube-dns"),
        (pod("thing-7d4b9c6f5b-x2vqz"), "monitoring/thing"),
        (pod("agent-x2vqz"), "monitoring/agent"),
        (pod("loki-0"), "monitoring/loki"),
        (pod("plain"), "monitoring/plain"),
        (WORLD, "world"),
        (Endpoint("", "", "198.51.100.1", 0, ()), "198.51.100.1"),
    ],
)
def test_a_workload_is_named_without_what_is_random_in_its_pods_name(end, name):
    assert workload(end) == name


def test_flows_of_two_pods_of_a_workload_are_counted_together():
    tally = Tally()
    for name in ("web-x2vqz", "web-b7cdf"):
        tally.add(flow(WORLD, pod(name)))
    assert [(path.destination, number) for path, number in tally.counts().items()] == [("monitoring/web", 2)]


def test_replies_are_not_counted():
    tally = Tally()
    tally.add(flow(pod("web"), WORLD, port=40000, reply=True))
    assert tally.counts() == {}


def test_dropped_flows_are_listed_first():
    tally = Tally()
    tally.add(flow(WORLD, pod("a")))
    tally.add(flow(WORLD, pod("z"), "DROPPED"))
    assert [path.verdict for path in tally.counts()] == ["DROPPED", "FORWARDED"]
    assert "2 flows, 1 not forwarded" in tally.table().text()


def test_the_busiest_of_both_kinds_are_shown_and_the_rest_is_counted():
    tally = Tally()
    for number in range(SHOWN):
        for verdict in ("FORWARDED", "DROPPED"):
            tally.add(flow(WORLD, pod(f"quiet{number:02d}"), verdict))
    for verdict in ("FORWARDED", "DROPPED"):
        for _ in range(2):
            tally.add(flow(WORLD, pod("zz"), verdict))
    table = tally.table()
    assert len(table.rows) == SHOWN
    assert [(str(row[0]), row[4]) for row in table.rows if row[2] == "monitoring/zz"] == [
        ("✗ DROPPED", 2),
        ("✓ FORWARDED", 2),
    ]
    assert [row[4] for row in table.rows if str(row[0]) == "✓ FORWARDED"] == [2, *[1] * (SHOWN // 2 - 1)]
    assert table.rows[0][2] == "monitoring/zz", "the busiest comes first"
    assert f"+ {2 * (SHOWN + 1) - SHOWN} more paths" in table.note
