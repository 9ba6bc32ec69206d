"""A clean tree gives no finding, and each planted mistake is named with its rule, file and line."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from fluobook.clients import age
from fluobook.clients.tools import find
from fluobook.gitops.check import RULES, all_findings, findings
from fluobook.gitops.documents import Finding
from fluobook.kubernetes.manifests import KubernetesLoader

REPOSITORY = Path(__file__).resolve().parents[2]
APPS = "cluster-gitops/apps"


MISTAKES = yaml.safe_load((Path(__file__).parent / "mistakes.yaml").read_text())


def test_a_clean_tree_gives_no_finding():
    assert [finding.line_of_text() for finding in findings(REPOSITORY)] == []


@pytest.fixture
def with_charts(repository: Path) -> Path:
    shutil.copytree(REPOSITORY / "lab/fluobook_lab/charts", repository / "lab/fluobook_lab/charts")
    return repository


def plant(repository: Path, mistake: dict[str, str]) -> Path:
    file = repository / mistake["file"]
    assert mistake["old"] in file.read_text()
    file.write_text(file.read_text().replace(mistake["old"], mistake["new"]))
    return file


def findings_of(repository: Path, mistake: dict[str, str]) -> list[Finding]:
    """The findings of the rule in the file that it must name."""
    wanted = {"namespace", "pin"} if mistake["rule"] == "readable" else {mistake["rule"]}
    reported = findings(repository, {key: rule for key, rule in RULES.items() if key in wanted})
    file = mistake.get("named", mistake["file"])
    matching = [finding for finding in reported if finding.file == file and finding.rule == mistake["rule"]]
    assert matching, reported
    return matching


@pytest.mark.parametrize("name", MISTAKES)
def test_a_planted_mistake_is_reported(name: str, with_charts: Path):
    plant(with_charts, MISTAKES[name])
    reported = findings_of(with_charts, MISTAKES[name])
    lines = (with_charts / reported[0].file).read_text().splitlines()
    assert any(MISTAKES[name].get("at", "") in lines[finding.line - 1] for finding in reported), reported


@pytest.mark.parametrize(
    "name", [name for name, mistake in MISTAKES.items() if mistake["rule"] not in ("readable", "build", "key")]
)
def test_a_mistake_is_reported_in_any_notation(name: str, with_charts: Path):
    """As JSON, which is YAML too: other lines, quotes and order."""
    file = plant(with_charts, MISTAKES[name])
    if file.suffix == ".yaml" and file.name != ".sops.yaml":
        documents = list(yaml.load_all(file.read_text(), Loader=KubernetesLoader))
        file.write_text("".join(f"---\n{json.dumps(document, indent=1, sort_keys=True)}\n" for document in documents))
    assert all(finding.line > 0 for finding in findings_of(with_charts, MISTAKES[name]))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("officialExtensions:\n", "officialExtensions: siderolabs/iscsi-tools\n    x:\n", "is not a list"),
        ("systemExtensions:", "systemExtension:", "systemExtension"),
    ],
)
def test_a_schematic_that_the_image_factory_refuses_is_a_finding(repository: Path, old: str, new: str, message: str):
    file = repository / "talos" / "schematic.yaml"
    file.write_text(file.read_text().replace(old, new))
    reported = findings(repository, {"patch": RULES["patch"]})
    assert [finding.file for finding in reported] == ["talos/schematic.yaml"]
    assert message in reported[0].message


def test_a_mistake_that_breaks_one_rule_does_not_stop_the_others(with_charts: Path):
    file = with_charts / "cluster-gitops/infrastructure/network-policies/logging.yaml"
    file.write_text(file.read_text().replace("podSelector: {}", "podSelector: 7", 1))
    reported = findings(with_charts)
    assert {"shape"} <= {finding.rule for finding in reported}


def test_the_gateways_kinds_come_before_cilium_which_detects_them_once(repository: Path):
    file = repository / "cluster-gitops/infrastructure/gateway-api/crds/application.yaml"
    file.write_text(file.read_text().replace('sync-wave: "-4"', 'sync-wave: "-1"'))
    reported = findings(repository, {"wave": RULES["wave"]}, path="cluster-gitops/bootstrap-gateway")
    message = "needs group gateway.networking.k8s.io (gatewayAPI.enabled), which gateway-api-crds brings in wave -1"
    assert [finding.message for finding in reported] == [f"cilium (wave -2) {message}"]


def add_params(repository: Path, name: str, **changes: str) -> None:
    """A params file of another cluster: phase1's, with texts replaced."""
    text = (repository / "params/phase1.yaml").read_text().replace("phase: phase1", f"phase: {name}")
    text = text.replace("name: fluodata", f"name: {name}")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (repository / f"params/{name}.yaml").write_text(text)


def test_every_params_file_is_compared_with_the_tree(repository: Path):
    add_params(repository, "berlin", mqtt="devices")
    reported = all_findings(repository)
    assert {(finding.file, finding.rule) for finding in reported} == {("params/berlin.yaml", "phase-value")}
    assert "no CiliumLoadBalancerIPPool for devices" in reported[0].message


def test_a_root_is_checked_only_if_a_params_file_uses_it_and_is_named(repository: Path):
    file = repository / "cluster-gitops/infrastructure/gateway-api/crds/application.yaml"
    file.write_text(file.read_text().replace('sync-wave: "-4"', 'sync-wave: "-1"'))
    assert all_findings(repository) == []
    add_params(repository, "berlin", **{"cluster-gitops/bootstrap": "cluster-gitops/bootstrap-gateway"})
    reported = all_findings(repository)
    assert [finding.rule for finding in reported] == ["wave"]
    assert reported[0].message.endswith("brings in wave -1 (in cluster-gitops/bootstrap-gateway)")


def test_what_is_wrong_under_every_root_is_reported_once_without_a_root(repository: Path):
    add_params(repository, "berlin", **{"cluster-gitops/bootstrap": "cluster-gitops/bootstrap-gateway"})
    file = repository / "cluster-gitops/infrastructure/cilium/application.yaml"
    file.write_text(file.read_text().replace("kubeProxyReplacement: true", "kubeProxyReplacement: false"))
    assert [(finding.rule, "(in " in finding.message) for finding in all_findings(repository)] == [("setting", False)]


def test_a_root_that_does_not_exist_is_reported_in_its_params_file(repository: Path):
    add_params(repository, "berlin", **{"cluster-gitops/bootstrap": "sites/berlin"})
    reported = {finding.rule: finding for finding in all_findings(repository)}
    assert reported["phase-value"].file == "params/berlin.yaml"
    assert reported["phase-value"].message == "there is no folder sites/berlin"


def test_the_reachability_table_needs_the_pods_of_every_namespace(repository: Path):
    table = repository / "cluster-gitops/reachability.yaml"
    lines = [line for line in table.read_text().splitlines() if not line.startswith("  scylla: ")]
    table.write_text("\n".join(lines))
    reported = findings(repository, {"reachability": RULES["reachability"]})
    missing = [finding for finding in reported if "no pod of namespace scylla" in finding.message]
    assert [finding.file for finding in missing] == ["cluster-gitops/infrastructure/namespaces/scylla.yaml"]


@pytest.mark.parametrize("path", ["cluster-gitops/nowhere", "cluster-gitops/projects/nowhere"])
def test_an_application_whose_path_does_not_exist_is_one_finding(repository: Path, path: str):
    file = repository / "cluster-gitops/apps/secrets/application.yaml"
    file.write_text(file.read_text().replace("path: cluster-gitops/apps/secrets", f"path: {path}"))
    reported = findings(repository, {name: RULES[name] for name in ("pin", "source")})
    assert [(finding.rule, finding.message) for finding in reported] == [
        ("source", f"app-secrets deploys {path}, which does not exist")
    ]


def test_every_rule_has_a_planted_mistake():
    assert set(RULES) == {mistake["rule"] for mistake in MISTAKES.values()} - {"readable"} | {
        "backup",
        "key",
        "leftover",
        "node",
        "quota",
        "receiver",
    }


def test_a_plaintext_secret_is_reported(repository: Path):
    file = repository / APPS / "secrets/pg-credentials.sops.yaml"
    clear = "apiVersion: v1\nkind: Secret\nmetadata: {name: x, namespace: fluodata}\nstringData: {password: hunter22}\n"
    file.write_text(clear)
    (repository / APPS / "secrets/other.yaml").write_text(clear)
    reported = findings(repository, {"cleartext": RULES["cleartext"]})
    assert [(finding.file, finding.line) for finding in reported] == [
        (f"{APPS}/secrets/other.yaml", 2),
        (f"{APPS}/secrets/pg-credentials.sops.yaml", 1),
    ]
    assert "hunter22" not in "".join(finding.line_of_text() for finding in reported)


def test_a_private_key_in_the_tree_is_reported(repository: Path):
    (repository / APPS / "secrets/key.yaml").write_text(f"# {age.generate().secret}\n")
    reported = findings(repository, {"key": RULES["key"]})
    assert [(finding.file, finding.line) for finding in reported] == [(f"{APPS}/secrets/key.yaml", 1)]


def test_a_wrong_recipient_is_reported(repository: Path):
    file = repository / APPS / "secrets/pg-credentials.sops.yaml"
    stranger = age.generate().recipient
    clear = repository / "x.yaml"
    clear.write_text("apiVersion: v1\nkind: Secret\nmetadata: {name: x}\nstringData: {password: hunter22}\n")
    command = [
        find("sops").path,
        "--config",
        "/dev/null",
        "encrypt",
        "--age",
        stranger,
        "--encrypted-regex",
        "^stringData$",
    ]
    file.write_text(subprocess.run([*command, clear], capture_output=True, text=True, check=True, timeout=200).stdout)
    reported = findings(repository, {"recipient": RULES["recipient"]})
    assert [finding.file for finding in reported] == [f"{APPS}/secrets/pg-credentials.sops.yaml"]
    assert stranger in reported[0].message


def test_a_finding_is_one_line_with_its_place():
    finding = Finding("a/b.yaml", 7, "pin", "x floats", "pin it")
    assert finding.line_of_text() == "a/b.yaml:7: [pin] x floats; pin it"
    assert replace(finding, line=0).line_of_text() == "a/b.yaml: [pin] x floats; pin it"


def test_a_token_in_the_address_of_a_repository_is_one_finding_that_does_not_show_it(repository: Path):
    file = repository / "cluster-gitops/infrastructure/namespaces/application.yaml"
    file.write_text(file.read_text().replace("repoURL: https://", "repoURL: https://s3cret@"))
    rules = {name: RULES[name] for name in ("cleartext", "project", "source")}
    reported = findings(repository, rules)
    assert [finding.rule for finding in reported] == ["cleartext"]
    assert "s3cret" not in "".join(finding.line_of_text() for finding in reported)
