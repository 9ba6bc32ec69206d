"""Command lines of helm and kustomize, and KSOPS generators for kubectl."""

from __future__ import annotations

from pathlib import Path

import yaml
from fluobook_lab.argocd.repo_server import helm_flags

from fluobook.kubernetes import rendering

GENERATOR = {
    "apiVersion": "viaduct.ai/v1",
    "kind": "ksops",
    "metadata": {"name": "secrets", "annotations": {rendering.FUNCTION: "exec: {path: ksops}"}},
    "files": ["a.sops.yaml"],
}


def test_a_chart_of_a_repository_and_one_of_a_registry():
    assert rendering.chart_arguments("a", "https://charts.example.org", "1.0") == [
        *("a", "--repo", "https://charts.example.org", "--version", "1.0")
    ]
    assert rendering.chart_arguments("a", "oci://r.example.org/charts/", "1.0", Path("/ca.pem")) == [
        *("oci://r.example.org/charts/a", "--version", "1.0", "--ca-file", "/ca.pem")
    ]


def test_the_settings_of_an_application_become_flags():
    parameters = [{"name": "a", "value": "1"}, {"name": "b", "value": "2", "forceString": True}]
    arguments = rendering.helm_template(
        ["chart"],
        release="web",
        namespace="front",
        kube_version="1.35.4",
        include_crds=False,
        further=helm_flags({"skipTests": True, "parameters": parameters}, [Path("/v.yaml")]),
    )
    assert arguments == [
        *("template", "web", "chart", "--namespace", "front", "--kube-version", "1.35.4", "--skip-tests"),
        *("--values", "/v.yaml", "--set", "a=1", "--set-string", "b=2", "--values", "-"),
    ]


def test_generators_become_legacy_plugins_and_other_files_stay(tmp_path):
    (tmp_path / "deep").mkdir()
    generator, other, broken = tmp_path / "deep/generator.yaml", tmp_path / "other.yaml", tmp_path / "broken.yaml"
    generator.write_text(yaml.safe_dump(GENERATOR))
    other.write_text("kind: ConfigMap # a comment\n")
    broken.write_text("a: viaduct.ai/\nb: [")
    rendering.use_legacy_ksops(tmp_path)
    assert yaml.safe_load(generator.read_text()) == {**GENERATOR, "metadata": {"name": "secrets", "annotations": {}}}
    assert other.read_text() == "kind: ConfigMap # a comment\n"
    assert broken.read_text() == "a: viaduct.ai/\nb: ["
