from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fluobook.gitops.documents import Document
from fluobook.kubernetes.policies import NODES, WORLD, Endpoint, Policies
from fluobook.kubernetes.selectors import matches

DB = Endpoint("db", "data", {"app": "db", "tier": "back"}, named_ports={"sql": 5432})
WEB = Endpoint("web", "front", {"app": "web"})
NEAR = Endpoint("near", "data", {"app": "near"})
INGRESS = Endpoint("gateway", entity="ingress")


def policies(*texts: str) -> Policies:
    documents = []
    for text in texts:
        node = yaml.compose(text)
        documents.append(Document(Path("policy.yaml"), yaml.safe_load(text), node))
    return Policies(tuple(documents), {"front": {"team": "web"}})


def policy(spec: str, kind: str = "NetworkPolicy") -> str:
    return f"kind: {kind}\nmetadata: {{name: p, namespace: data}}\nspec: {spec}"


DENY = policy("{podSelector: {}, policyTypes: [Ingress]}")


def allowed(spec: str, source: Endpoint, port: int = 5432, protocol: str = "TCP", target: Endpoint = DB) -> bool:
    return policies(DENY, policy(spec)).verdict(source, target, port, protocol).allowed


def test_a_pod_without_policies_is_open_to_all():
    for source in (WEB, NEAR, NODES, WORLD):
        assert policies().verdict(source, DB, 5432).allowed


def test_a_default_deny_closes_to_all_and_is_named():
    for source in (WEB, NEAR, NODES, WORLD):
        verdict = policies(DENY).verdict(source, DB, 5432)
        assert not verdict.allowed
        assert [one.name for one in verdict.policies] == ["p"]


def test_a_policy_of_another_namespace_is_nothing_to_a_pod():
    assert policies(DENY).verdict(DB, WEB, 80).allowed


def test_a_host_network_pod_is_outside_all_policies():
    agent = Endpoint("agent", "data", {"app": "db"}, host_network=True)
    assert policies(DENY).verdict(WORLD, agent, 9962).allowed


def test_an_egress_policy_isolates_nothing_for_ingress():
    assert policies(policy("{podSelector: {}, policyTypes: [Egress]}")).verdict(WEB, DB, 5432).allowed


def test_a_pod_selector_alone_means_the_same_namespace():
    spec = "{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}"
    assert allowed(spec, NEAR)
    assert not allowed(spec, WEB)


def test_a_namespace_and_a_pod_selector_in_one_peer_must_both_fit():
    together = (
        "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: front}},"
        " podSelector: {matchLabels: {app: other}}}]}]}"
    )
    apart = together.replace(
        ", podSelector: {matchLabels: {app: other}}", "}, {podSelector: {matchLabels: {app: other}}"
    )
    assert not allowed(together, WEB)
    assert allowed(apart, WEB)


def test_the_labels_of_a_namespace_count():
    spec = "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: web}}}]}]}"
    assert allowed(spec, WEB)
    assert not allowed(spec, NEAR)


@pytest.mark.parametrize("source", [NODES, WORLD, INGRESS])
def test_no_selector_names_a_node_the_world_or_the_proxy(source):
    assert not allowed("{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}", source)


@pytest.mark.parametrize("source", [NODES, WORLD, INGRESS, WEB])
def test_a_rule_with_ports_alone_lets_everybody_in_on_these(source):
    spec = "{podSelector: {}, ingress: [{ports: [{port: 9443, protocol: TCP}]}]}"
    assert allowed(spec, source, 9443)
    assert not allowed(spec, source, 9444)
    assert not allowed(spec, source, 9443, "UDP")


def test_an_ip_block_means_the_world_alone():
    spec = "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [198.51.100.0/24]}}]}]}"
    assert allowed(spec, WORLD)
    assert not allowed(spec, Endpoint("away", entity="world", address="198.51.100.7"))
    assert not allowed(spec, NODES)
    assert not allowed(spec, WEB)


def test_ranges_and_names_of_ports():
    ranged = "{podSelector: {}, ingress: [{ports: [{port: 5000, endPort: 5500}]}]}"
    named = "{podSelector: {}, ingress: [{ports: [{port: sql}]}]}"
    assert allowed(ranged, WEB, 5432)
    assert not allowed(ranged, WEB, 5501)
    assert allowed(named, WEB, 5432)
    assert not allowed(named, WEB, 5433)
    assert not allowed(named, WEB, 5432, target=NEAR)


def test_policies_add_up():
    first, second = (
        "{podSelector: {}, ingress: [{ports: [{port: 1}]}]}",
        "{podSelector: {}, ingress: [{ports: [{port: 2}]}]}",
    )
    both = policies(DENY, policy(first), policy(second))
    assert both.verdict(WEB, DB, 1).allowed
    assert both.verdict(WEB, DB, 2).allowed
    assert not both.verdict(WEB, DB, 3).allowed


def test_a_cilium_policy_names_entities():
    rule = "{fromEntities: [ingress], toPorts: [{ports: [{port: '80'}]}]}"
    spec = f"{{endpointSelector: {{matchLabels: {{app: db}}}}, ingress: [{rule}]}}"
    both = policies(DENY, policy(spec, "CiliumNetworkPolicy"))
    assert both.verdict(INGRESS, DB, 80).allowed
    assert not both.verdict(INGRESS, DB, 81).allowed
    assert not both.verdict(NODES, DB, 80).allowed
    assert not both.verdict(INGRESS, NEAR, 80).allowed


def test_a_cilium_policy_alone_isolates_what_it_selects():
    spec = "{endpointSelector: {}, ingress: [{fromEntities: [remote-node]}]}"
    alone = policies(policy(spec, "CiliumNetworkPolicy"))
    assert alone.verdict(NODES, DB, 9443).allowed
    assert not alone.verdict(WEB, DB, 9443).allowed


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("{key: app, operator: In, values: [db, x]}", True),
        ("{key: app, operator: NotIn, values: [db]}", False),
        ("{key: none, operator: NotIn, values: [db]}", True),
        ("{key: app, operator: Exists}", True),
        ("{key: none, operator: Exists}", False),
        ("{key: app, operator: DoesNotExist}", False),
        ("{key: none, operator: DoesNotExist}", True),
    ],
)
def test_selector_expressions(expression, expected):
    assert matches({"matchExpressions": [yaml.safe_load(expression)]}, DB.labels) is expected


def test_an_unknown_operator_is_refused():
    with pytest.raises(ValueError, match="Near"):
        matches({"matchExpressions": [{"key": "a", "operator": "Near"}]}, {})
