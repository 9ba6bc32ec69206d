"""Leaving a component out is a line in the params: nothing of it is deployed, expected or asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fluobook import gitops, params
from fluobook.errors import ParamsError
from fluobook.gitops.check import ABOUT_FILES, RULES, all_findings, findings
from fluobook.gitops.snapshot import Snapshot

if TYPE_CHECKING:
    from fluobook.gitops.build import Builder
    from fluobook.params import Platform

REPOSITORY = Path(__file__).resolve().parents[2]
SCYLLA = {"scylla", "scylla-operator"}


def without(*names: str, phase: str = "phase1") -> Platform:
    return params.load(REPOSITORY / f"params/{phase}.yaml", [f"gitops.without=[{', '.join(names)}]"]).platform


def test_a_component_is_a_folder_with_all_its_applications():
    everything = {app.name for app in gitops.read(REPOSITORY).applications}
    assert everything - {app.name for app in gitops.of(without("scylladb"), REPOSITORY).applications} == {
        "scylladb",
        "scylla-operator",
    }


def test_a_single_application_can_be_left_out():
    everything = {app.name for app in gitops.read(REPOSITORY).applications}
    assert everything - {app.name for app in gitops.of(without("loki"), REPOSITORY).applications} == {"loki"}


@pytest.mark.parametrize("path", ["cluster-gitops/bootstrap", "cluster-gitops/bootstrap-gateway"])
def test_the_root_removes_applications_namespaces_and_policies(path: str, real: Builder):
    platform = params.overlay(without("scylladb"), {"gitops": {"path": path}})
    tree = gitops.of(platform, REPOSITORY)
    source = gitops.root_application(platform, tree)["spec"]["source"]
    built = {obj["metadata"]["name"]: obj for obj in real.build(REPOSITORY / path, source["kustomize"]["patches"])}
    assert not {"scylladb", "scylla-operator"} & set(built)
    assert {"postgresql", "apps", "infrastructure"} <= set(built)
    for name in ("namespaces", "network-policies"):
        child = built[name]["spec"]["source"]
        objects = real.build(REPOSITORY / child["path"], child["kustomize"]["patches"])
        spaces = {obj["metadata"].get("namespace", obj["metadata"]["name"]) for obj in objects}
        assert not SCYLLA & spaces
        assert {"fluodata", "monitoring", "logging"} <= spaces


def test_the_reader_and_the_root_agree_on_what_is_left(real: Builder):
    tree = gitops.for_phase(without("scylladb"), gitops.of(without("scylladb"), REPOSITORY))
    for name in ("namespaces", "network-policies"):
        app = tree.application(name)
        built = real.build(REPOSITORY / app.path, app.kustomize["patches"])
        assert {(obj["metadata"].get("namespace", ""), obj["metadata"]["name"]) for obj in built} == {
            (document.namespace, document.name) for document in tree.deployed_by(app)
        }


def test_stage_5_does_not_make_the_namespaces_of_what_is_left_out():
    manifests = gitops.namespaces_needed_before_argocd(gitops.of(without("scylladb"), REPOSITORY))
    assert {manifest["metadata"]["name"] for manifest in manifests} == {"argocd", "longhorn-system", "monitoring"}


def test_a_namespace_that_others_use_stays():
    assert gitops.of(without("postgresql"), REPOSITORY).dropped_namespaces == {"cnpg-system"}
    assert gitops.of(without("rabbitmq", "postgresql", "secrets"), REPOSITORY).dropped_namespaces == {
        "cnpg-system",
        "rabbitmq-system",
        "fluodata",
    }


def test_the_expected_connections_are_those_of_what_is_left():
    table = Snapshot(REPOSITORY, without=("scylladb",)).table
    assert not SCYLLA & {pod.namespace for pod in table.pods.values()}


@pytest.mark.parametrize(
    "names", [("scylladb",), ("loki",), ("scylladb", "rabbitmq"), ("postgresql", "secrets", "rabbitmq")]
)
def test_a_tree_without_a_component_has_no_finding(names: tuple[str, ...]):
    about_the_tree = {name: rule for name, rule in RULES.items() if name not in ABOUT_FILES}
    listed = findings(REPOSITORY, about_the_tree, without=names)
    assert [finding.line_of_text() for finding in listed] == []


@pytest.mark.parametrize(
    ("name", "needer"),
    [
        ("cert-manager", "rabbitmq-operator"),
        ("longhorn", "postgresql"),
        ("monitoring", "scylladb"),
        ("secrets", "postgresql"),
        ("ingress-nginx", "cert-manager-issuers"),
        ("prometheus-operator-crds", "cert-manager"),
        ("cnpg-operator", "postgresql"),
        ("cilium", "stage 2"),
        ("argocd", "stage 7"),
        ("network-policies", "every namespace"),
    ],
)
def test_what_another_needs_cannot_be_left_out(name: str, needer: str):
    with pytest.raises(ParamsError) as refusal:
        gitops.of(without(name), REPOSITORY)
    assert any("cannot be left out" in problem and needer in problem for problem in refusal.value.problems)


def test_it_can_be_left_out_together_with_what_needs_it():
    assert gitops.of(without("postgresql", "secrets"), REPOSITORY).left_out


def test_a_component_that_does_not_exist_is_refused_with_the_nearest_name():
    with pytest.raises(ParamsError) as refusal:
        gitops.of(without("scylla-db"), REPOSITORY)
    assert "there is no component scylla-db" in refusal.value.problems[0]
    assert "scylladb" in refusal.value.problems[0]


def test_what_can_be_no_component_is_refused_with_those_that_exist():
    with pytest.raises(ParamsError) as refusal:
        gitops.of(without("'..'"), REPOSITORY)
    assert "there is no component ..: known here: alloy, " in refusal.value.problems[0]


def test_a_root_that_does_not_exist_is_an_error_of_the_params():
    platform = params.load(REPOSITORY / "params/phase1.yaml", ["gitops.path=site/nowhere"]).platform
    with pytest.raises(ParamsError, match=r"platform\.gitops\.path = 'site/nowhere'"):
        gitops.of(platform, REPOSITORY)


def test_check_reports_a_refusal_in_the_params_file(repository: Path):
    file = repository / "params/phase2.yaml"
    file.write_text(file.read_text().replace("  gitops:\n", "  gitops:\n    without: [cert-manager]\n"))
    messages = [finding.message for finding in all_findings(repository) if finding.file == "params/phase2.yaml"]
    assert any("cert-manager cannot be left out: rabbitmq-operator needs" in message for message in messages)


def leftovers(root: Path, *names: str) -> set[tuple[str, str]]:
    listed = findings(root, {"leftover": RULES["leftover"]}, path="site", without=names)
    return {(finding.file, finding.message) for finding in listed}


def test_what_the_operator_has_about_a_component_is_left_over_without_it(site: Path):
    table, dashboard = site / "site/reachability.yaml", site / "site/shop/dashboard.json"
    table.write_text(table.read_text() + "  - {from: shop, to: scylla, ports: [9042], why: queries}\n")
    dashboard.write_text(dashboard.read_text().replace("kube_deployment_status", "scylla_database_total_reads + kube"))
    policies = site / "site/shop/policies.yaml"
    policies.write_text(policies.read_text().replace("metadata.name: monitoring", "metadata.name: scylla"))
    assert leftovers(site) == set()
    assert leftovers(site, "scylladb") == {
        ("site/reachability.yaml", "the row names scylla, which is left out"),
        ("site/shop/dashboard.json", "uses scylla_database_total_reads, a metric of a component that is left out"),
        ("site/shop/policies.yaml", "allow-vmagent admits namespace scylla, which is left out"),
    }


def test_a_secret_that_only_a_component_uses_is_left_over_without_it(site: Path):
    message = "secret fluodata/fluodata-pg-credentials is only for postgresql, which is left out"
    assert leftovers(site, "postgresql") == {("cluster-gitops/apps/secrets/application.yaml", message)}
    assert leftovers(site, "postgresql", "secrets") == set()


def test_dashboards_and_alerts_of_a_component_go_with_it():
    texts = [
        file.read_text()
        for file in (REPOSITORY / "cluster-gitops").rglob("*")
        if file.suffix in (".json", ".yaml") and "apps/scylladb" not in file.as_posix() and file.name != "metrics.yaml"
    ]
    assert not [text for text in texts if "scylla_" in text]


def test_a_pool_goes_with_the_services_that_ask_for_it(real: Builder):
    lonely = params.overlay(
        without("rabbitmq", "loki", "alloy"),
        {"network": {"load_balancer": {"pools": [{"name": "ingress", "start": "10.10.0.100", "stop": "10.10.0.110"}]}}},
    )
    for platform in (lonely, without("rabbitmq")):  # whether or not the params still have it
        tree = gitops.for_phase(platform, gitops.of(platform, REPOSITORY))
        app = tree.application("cilium-config")
        objects = real.build(REPOSITORY / app.path, app.kustomize["patches"])
        assert {obj["metadata"]["name"] for obj in objects} == {"ingress", "lan"}
        assert {document.name for document in tree.deployed_by(app)} == {"ingress", "lan"}


def test_a_tree_without_broker_and_logs_has_no_finding_with_one_pool(site: Path):
    file = site / "site/params/mine.yaml"
    text = file.read_text().replace("without: [scylladb]", "without: [scylladb, rabbitmq, loki, alloy]")
    file.write_text("".join(line for line in text.splitlines(keepends=True) if "name: mqtt" not in line))
    assert all_findings(site) == []
