from __future__ import annotations

from pathlib import Path

from fluobook.gitops import reachability
from fluobook.gitops.rules.network import policies_of
from fluobook.gitops.snapshot import Snapshot

REPOSITORY = Path(__file__).resolve().parents[2]
SNAPSHOT = Snapshot(REPOSITORY)
TABLE = SNAPSHOT.table
CELLS = {(cell.source, cell.target, cell.port): cell for cell in reachability.matrix(TABLE, policies_of(SNAPSHOT))}


def test_the_matrix_has_every_source_for_every_port():
    listed = sum(len(TABLE.ports(pod)) for pod in TABLE.pods)
    asked = list(reachability.matrix(TABLE, policies_of(SNAPSHOT)))
    assert sum(cell.is_listed for cell in asked) == listed * (len(TABLE.sources) - 1)
    assert all(cell.is_as_expected for cell in asked)


def test_what_the_table_does_not_list_is_evaluated_too():
    assert not CELLS["elsewhere labelled vmagent", "postgresql", 9187].verdict.allowed
    assert not CELLS["elsewhere labelled ingress-nginx", "grafana", 3000].verdict.allowed
    assert not CELLS["other pods of ingress-nginx", "grafana", 3000].verdict.allowed
    assert not CELLS["nodes", "rabbitmq", reachability.OTHER[0]].verdict.allowed
    assert CELLS["other pods of cnpg-system", "cnpg-operator", 8080].verdict.allowed


ASKED_BY_THE_API_SERVER = {
    ("cert-manager-webhook", 10250),
    ("cnpg-operator", 9443),
    ("ingress-nginx", 8443),
    ("longhorn-manager", 9502),
    ("metrics-server", 10250),
    ("rabbitmq-operator", 9443),
    ("scylla-webhook", 5000),
}
"""Webhooks and metrics: open to all, since no selector of a NetworkPolicy names the API server."""


def test_webhooks_and_metrics_answer_the_api_server():
    for pod, port in ASKED_BY_THE_API_SERVER:
        assert CELLS["nodes", pod, port].verdict.allowed


def test_the_world_gets_to_the_web_and_to_mqtt_and_no_further():
    reached = {
        (target, port) for (source, target, port), cell in CELLS.items() if source == "world" and cell.verdict.allowed
    }
    assert reached - ASKED_BY_THE_API_SERVER == {
        ("ingress-nginx", 80),
        ("ingress-nginx", 443),
        ("rabbitmq", 1883),
        ("coredns", 53),
    }


def test_databases_are_closed_to_strangers_and_to_the_web():
    for source in ("stranger", "ingress-nginx", "grafana", "world", "nodes"):
        assert not CELLS[source, "postgresql", 5432].verdict.allowed
        assert not CELLS[source, "scylla", 9042].verdict.allowed
        assert not CELLS[source, "rabbitmq", 5672].verdict.allowed


def test_a_cell_says_its_question_and_its_reason():
    cell = CELLS["grafana", "loki", 3100]
    assert cell.question() == "grafana → loki:3100/TCP"
    assert cell.why == "Grafana queries the logs"
