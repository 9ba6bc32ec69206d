"""Flows: named by workload, counted by path."""

from __future__ import annotations

import pytest

from fluobook.clients.hubble import Endpoint, Flow
from fluobook.stages.observe.flows import SHOWN, Tally, workload
from fluobook.wire.generated.flow_pb2 import Flow as FlowMessage
from fluobook.wire.generated.flow_pb2 import Verdict

WORLD = Endpoint("", "", "203.0.113.7", 2, ("reserved:world",))


def pod(name, *labels, namespace="monitoring"):
    return Endpoint(namespace, name, "10.244.0.5", 4711, tuple(f"k8s:{label}" for label in labels))


def flow(source, destination, verdict="FORWARDED", *, port=80, reply=False):
    message = FlowMessage(verdict=Verdict.Value(verdict), node_name="node", traffic_direction="INGRESS")
    message.l4.TCP.source_port, message.l4.TCP.destination_port, message.is_reply.value = 40000, port, reply
    for end, one in ((message.source, source), (message.destination, destination)):
        end.namespace, end.pod_name, end.identity = one.namespace, one.pod, one.identity
        end.labels.extend(one.labels)
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


def test_what_was_dropped_stands_first():
    tally = Tally()
    tally.add(flow(WORLD, pod("a")))
    tally.add(flow(WORLD, pod("z"), "DROPPED"))
    assert [path.verdict for path in tally.counts()] == ["DROPPED", "FORWARDED"]
    assert "2 flows, 1 not let through" in tally.table().text()


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
    assert f"+ {2 * (SHOWN + 1) - SHOWN} more paths" in table.note
