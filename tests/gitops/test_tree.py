from __future__ import annotations

import re
from pathlib import Path

import pytest

from fluobook import gitops, params
from fluobook.errors import NotFound, Rejected
from fluobook.gitops import kustomization
from fluobook.gitops.check import ABOUT_FILES, RULES, findings

REPOSITORY = Path(__file__).resolve().parents[2]


def names(objects):
    return sorted((obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"]) for obj in objects)


def test_the_reader_and_the_real_kustomize_agree_on_the_root(tree, real):
    built = real.build(tree.root / tree.path)
    ours = {(document.kind, document.name): document.data for document in tree.documents}
    assert {(obj["kind"], obj["metadata"]["name"]): obj for obj in built} == ours


def test_the_reader_and_the_real_kustomize_agree_on_what_applications_deploy(tree, real):
    for app in tree.applications:
        if tree.is_ours(app) and not {"generators", "configMapGenerator"} & set(
            kustomization.load(tree.root / app.path).data
        ):
            built = real.build(tree.root / app.path)
            assert names(built) == names(document.data for document in tree.deployed_by(app)), app.name


def test_the_gateway_variant_is_the_same_platform_without_ingress_nginx(real):
    variant = gitops.read(REPOSITORY, "cluster-gitops/bootstrap-gateway")
    built = real.build(variant.root / variant.path)
    assert {(obj["kind"], obj["metadata"]["name"]): obj for obj in built} == {
        (document.kind, document.name): document.data for document in variant.documents
    }
    before = {app.name for app in gitops.read(REPOSITORY).applications}
    assert {app.name for app in variant.applications} == before - {"ingress-nginx"} | {"gateway-api-crds"}
    assert gitops.chart_source(variant, "cilium").values["gatewayAPI"]["enabled"] is True
    rules = {name: rule for name, rule in RULES.items() if name not in {*ABOUT_FILES, "reachability"}}
    assert findings(REPOSITORY, rules, path=variant.path) == []


def test_the_gateway_variant_takes_the_values_of_a_phase(phase3, real):
    variant = gitops.read(REPOSITORY, "cluster-gitops/bootstrap-gateway")
    there = params.overlay(phase3, {"gitops": {"domain": "iot.example.net", "acme_email": "a@example.net"}})
    patched = gitops.for_phase(there, variant)
    issuers, routes = patched.application("cert-manager-issuers"), patched.application("routes")
    built = real.build(variant.root / issuers.path, issuers.kustomize["patches"])
    assert {obj["spec"]["acme"]["email"] for obj in built} == {"a@example.net"}
    assert all("gatewayHTTPRoute" in obj["spec"]["acme"]["solvers"][0]["http01"] for obj in built)
    hosts = {
        obj["metadata"]["name"]: obj for obj in real.build(variant.root / routes.path, routes.kustomize["patches"])
    }
    assert hosts["grafana"]["spec"]["hostnames"] == ["grafana.iot.example.net"]


def test_secrets_are_built_by_ksops_and_stay_encrypted(tree, real):
    secrets = real.build(tree.root / tree.application("app-secrets").path)
    assert [obj["kind"] for obj in secrets] == ["Secret"]
    assert all(value.startswith("ENC[") for value in secrets[0]["stringData"].values())


def test_waves_are_those_of_the_design(tree):
    assert {wave: {app.name for app in apps} for wave, apps in gitops.waves(tree).items()} == {
        -4: {"namespaces", "prometheus-operator-crds", "argocd"},
        -3: {"network-policies"},
        -2: {"cilium", "kubelet-csr-approver"},
        -1: {"cilium-config", "longhorn", "monitoring-secrets"},
        0: {
            "ingress-nginx",
            "cert-manager",
            "victoria-metrics-stack",
            "loki",
            "alloy",
            "longhorn-config",
            "metrics-server",
        },
        1: {
            "cert-manager-issuers",
            "routes",
            "monitoring-config",
            "app-secrets",
            "cnpg-operator",
            "rabbitmq-operator",
            "scylla-operator",
        },
        2: {"postgresql", "rabbitmq", "scylladb"},
    }
    assert {project.annotations["argocd.argoproj.io/sync-wave"] for project in tree.projects} == {"-5"}


def test_what_would_take_the_cluster_down_is_neither_pruned_nor_finalized(tree):
    for name in ("cilium", "argocd", "namespaces", "longhorn", "postgresql", "rabbitmq", "scylladb"):
        app = tree.application(name)
        assert not app.prune
        assert not app.finalizer
        assert "Prune=false" in app.document.annotations["argocd.argoproj.io/sync-options"]


def test_a_chart_source_is_what_helm_needs(tree):
    source = gitops.chart_source(tree, "cilium")
    assert (source.repo, source.chart, source.release) == ("https://helm.cilium.io", "cilium", "cilium")
    assert source.namespace == "kube-system"
    assert source.values["k8sServicePort"] == 7445


def test_an_application_without_a_chart_has_no_chart_source(tree):
    with pytest.raises(NotFound, match="has no chart"):
        gitops.chart_source(tree, "namespaces")


def test_an_unknown_application_is_named(tree):
    with pytest.raises(NotFound, match="no Application nobody"):
        tree.application("nobody")


def test_the_namespaces_for_stage_5_say_so_themselves(tree):
    namespaces = {
        obj["metadata"]["name"]: obj["metadata"]["labels"] for obj in gitops.namespaces_needed_before_argocd(tree)
    }
    assert set(namespaces) == {"argocd", "longhorn-system", "monitoring", "scylla"}
    assert namespaces["longhorn-system"]["pod-security.kubernetes.io/enforce"] == "privileged"
    assert namespaces["argocd"]["pod-security.kubernetes.io/enforce"] == "baseline"


def test_a_version_changed_in_one_file_changes_what_stage_2_renders(repository):
    file = repository / "cluster-gitops/infrastructure/cilium/application.yaml"
    file.write_text(file.read_text().replace("targetRevision: 1.20.2", "targetRevision: 1.20.3"))
    assert gitops.chart_source(gitops.read(repository), "cilium").version == "1.20.3"


def test_an_application_has_its_file_and_line(tree):
    app = tree.application("cilium")
    assert app.file.read_text().splitlines()[app.document.line("metadata", "name") - 1].strip() == "name: cilium"


def test_a_missing_file_is_named(repository):
    (repository / "cluster-gitops/apps/secrets/application.yaml").unlink()
    with pytest.raises(
        Rejected, match=r"apps/kustomization\.yaml:5 lists secrets/application\.yaml, which is not there"
    ):
        gitops.read(repository)


def test_a_kustomization_that_the_reader_does_not_know_is_refused(repository):
    file = repository / "cluster-gitops/apps/kustomization.yaml"
    file.write_text(file.read_text() + "helmCharts: []\n")
    with pytest.raises(Rejected, match=r"kustomization\.yaml:\d+ uses `helmCharts`"):
        gitops.read(repository)


def test_an_application_without_a_project_is_named_with_its_line(repository):
    file = repository / "cluster-gitops/apps/secrets/application.yaml"
    file.write_text(file.read_text().replace("  project: apps\n", ""))
    with pytest.raises(Rejected, match=r"application\.yaml:\d+ is not a valid Application"):
        _ = gitops.read(repository).applications


@pytest.mark.parametrize(
    "entry",
    [
        "https://github.com/rabbitmq/cluster-operator/config/installation?ref=v2.22.4",
        "github.com/rabbitmq/cluster-operator//config/installation?ref=v2.22.4",
        "git@git.example.org:acme/platform.git//base",
        "git::https://git.example.org/acme/platform.git//base",
        "ssh://git@git.example.org/acme/platform//base",
    ],
)
def test_a_remote_resource_is_said_to_be_outside_the_repository(entry: str, tmp_path: Path):
    (tmp_path / "kustomization.yaml").write_text(f"resources:\n  - {entry}\n")
    with pytest.raises(kustomization.KustomizeError, match="outside this repository") as caught:
        kustomization.resources(tmp_path)
    assert caught.value.line == 2
    (tmp_path / "kustomization.yaml").write_text("resources:\n  - missing.yaml\n")
    with pytest.raises(kustomization.KustomizeError, match="is not there"):
        kustomization.resources(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("patches: [{target: {kind: ConfigMap}}]", "without `patch` and without `path`"),
        ("patches: [{patch: '', target: {kind: ConfigMap}}]", "without `patch` and without `path`"),
        ("patches: [a.yaml]", "without `patch` and without `path`"),
        ("patches: [{path: gone.yaml}]", "has the patch gone.yaml, which is not there"),
        ("patches: [{patch: '[{op: remove, path: /data}]'}]", "names no object"),
        ("patches: [{patch: '[]', target: {kind: ConfigMap, labelSelector: a=b}}]", "which is not there"),
        ("patches: [{patch: '[]', target: {kind: ConfigMap, name: 'b.*'}}]", "which is not there"),
        ("replicas: [{name: a, count: 2}]", "cannot be built: "),
        ("components: [gone]", "cannot be built: "),
        ("patches: [{patch: '[]', target: {kind: ConfigMap, namespace: other}}]", "which is not there"),
        ("resources: [a.yaml, a.yaml]", "lists a.yaml twice"),
        ("resources: ['']", "lists '', which is no relative path"),
        ("resources: [/etc/passwd]", "lists '/etc/passwd', which is no relative path"),
    ],
)
def test_what_a_kustomization_cannot_say_to_fluobook_is_an_error_at_its_line(text: str, message: str, tmp_path: Path):
    (tmp_path / "a.yaml").write_text("{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: shop}}")
    listed = "" if text.startswith("resources") else "resources: [a.yaml]\n"
    (tmp_path / "kustomization.yaml").write_text(f"{listed}{text}\n")
    with pytest.raises(kustomization.KustomizeError, match=message) as caught:
        kustomization.resources(tmp_path)
    at = 2 if listed and "cannot be built" not in message else 1
    assert (caught.value.file, caught.value.line) == (tmp_path / "kustomization.yaml", at)


def test_a_check_fetches_no_remote_resource(repository: Path):
    file = repository / "cluster-gitops/apps/kustomization.yaml"
    file.write_text(file.read_text().replace("resources:", "resources:\n  - https://127.0.0.1:1/x.git//base?ref=v1", 1))
    found = findings(repository, {name: RULES[name] for name in ("build", "pin")})
    assert [finding.rule for finding in found] == ["readable"]


def test_an_application_with_several_sources_is_refused_with_the_reason(repository: Path):
    file = repository / "cluster-gitops/apps/secrets/application.yaml"
    text = file.read_text()
    source = text[text.index("  source:") : text.index("  destination:")]
    listed = "  sources:\n    - " + source.partition("\n")[2].strip().replace("\n    ", "\n      ") + "\n"
    file.write_text(text.replace(source, listed))
    (found,) = findings(repository, {"pin": RULES["pin"]})
    assert "has several sources (spec.sources)" in found.message
    assert "sources:" in file.read_text().splitlines()[found.line - 1]


def test_an_application_set_is_not_called_unknown(repository: Path):
    file = repository / "cluster-gitops/apps/secrets/set.yaml"
    file.write_text(
        "apiVersion: argoproj.io/v1alpha1\nkind: ApplicationSet\nmetadata: {name: all, namespace: argocd}\n"
    )
    (found,) = findings(repository, {"shape": RULES["shape"]})
    assert found.message.startswith("ApplicationSet all is not evaluated")


def test_what_an_application_lacks_is_named(repository: Path):
    file = repository / "cluster-gitops/apps/secrets/application.yaml"
    file.write_text(re.sub(r"\n +targetRevision: .*", "", file.read_text()))
    (found,) = findings(repository, {"pin": RULES["pin"]})
    assert found.message == "it is not a valid Application: it has no targetRevision"
