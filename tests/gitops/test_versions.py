"""How old each pinned version is, by what its source publishes."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import pytest

from fluobook import gitops
from fluobook.errors import Unreachable
from fluobook.gitops.versions import Pin, Published, compare, pins_of, running, unsupported
from fluobook.params import load_supported, repository_root

ROOT = repository_root(Path(__file__))
SUPPORTED, TODAY = load_supported(ROOT), dt.date(2026, 11, 29)
LONGHORN = Pin("longhorn", "chart", "1.12.1", "https://charts.longhorn.io", "application.yaml", "longhorn")
TALOS = Pin("talos", "talos", "1.13.9", "https://factory.talos.dev", "params/versions.yaml")
KUBERNETES = Pin("kubernetes", "kubernetes", "1.35.4", "https://dl.k8s.io", "params/versions.yaml")
CILIUM = Pin("cilium", "chart", "1.20.2", "https://helm.cilium.io", "application.yaml", "cilium")


def row(pin, *versions, others=(), running=None, **marks):
    """The row of a pin whose source lists versions; others list their own pin."""

    def publish(asked):
        return [Published(each, **marks) for each in versions] if asked == pin else [Published(asked.version)]

    return compare([pin, *others], publish, SUPPORTED, TODAY, running)[0]


@pytest.mark.parametrize(
    ("listed", "step", "patch"),
    [
        (["1.12.1"], "newest", "1.12.1"),
        (["1.12.1", "1.12.2"], "patch", "1.12.2"),
        (["1.12.1", "1.12.3", "1.13.0"], "minor", "1.12.3"),
        (["1.12.1", "2.0.0", "1.9.9"], "major", "1.12.1"),
        (["1.12.1", "1.11.9"], "newest", "1.12.1"),
        (["1.12.1", "1.12.10", "1.12.9"], "patch", "1.12.10"),
        (["1.12.1", "1.13.0-rc1", "1.14.0-dev", "nightly"], "newest", "1.12.1"),
        (["v1.12.1", "v1.12.2"], "patch", "v1.12.2"),
        (["1.12.0", "1.13.0"], "unlisted", "1.12.0"),
        (["1.13.0-rc1"], "unanswered", ""),
        ([], "unanswered", ""),
    ],
)
def test_how_far_the_newest_is(listed, step, patch):
    compared = row(LONGHORN, *listed)
    assert (compared.step, compared.patch) == (step, patch)
    assert bool(compared.problem) is (step == "unanswered")


def test_nothing_newer_comes_of_what_has_ended():
    ended = Pin("ingress-nginx", "chart", "4.15.1", "https://x.example.org", "application.yaml", retired=True)
    assert row(ended, "4.15.1").step == "retired"
    assert row(LONGHORN, "1.12.1", deprecated=True).step == "retired"


def test_a_source_that_does_not_answer_is_never_the_newest_and_affects_no_other():
    def publish(pin):
        if pin == LONGHORN:
            raise Unreachable("charts.longhorn.io does not answer", system="chart repository")
        return [Published(pin.version)]

    silent, other = compare([LONGHORN, TALOS], publish, SUPPORTED, TODAY)
    assert (silent.step, silent.newest, silent.problem) == ("unanswered", "", "charts.longhorn.io does not answer")
    assert other.step == "newest"


def test_an_image_without_a_known_source_is_not_compared():
    assert row(Pin("harbor.example.org/app", "image", "1.2", "", "app.yaml")).step == "unknown"


def test_a_variant_of_an_image_is_compared_by_its_version():
    image = Pin("rabbitmq", "image", "4.2.6-management", "https://github.com/rabbitmq/rabbitmq-server", "cluster.yaml")
    compared = row(image, "v4.2.6", "v4.2.7", "v4.3.0-beta.1")
    assert (compared.step, compared.newest) == ("patch", "v4.2.7")


@pytest.mark.parametrize(
    ("pin", "end", "ended"),
    [
        (TALOS, "2026-09-03", True),
        (KUBERNETES, "2027-02-28", False),
        (Pin("talos", "talos", "1.14.1", "x", "y"), "when 1.15 comes out", False),
        (LONGHORN, "", False),
    ],
)
def test_the_end_of_support_of_the_pinned_minor(pin, end, ended):
    compared = row(pin, pin.version)
    assert (compared.end, compared.ended) == (end, ended)


def test_what_does_not_go_with_the_newest_blocks_it():
    newest = row(KUBERNETES, "v1.35.10", "v1.37.0", others=[TALOS, CILIUM])
    assert (newest.step, newest.patch, newest.newest) == ("minor", "v1.35.10", "v1.37.0")
    assert newest.blocked == "cilium 1.20.2, talos 1.13.9"
    assert "cilium 1.21 has no row" in row(CILIUM, "1.20.2", "1.21.0", others=[KUBERNETES]).blocked
    assert row(TALOS, "v1.13.9", "v1.14.1", others=[KUBERNETES]).blocked == ""
    assert "Longhorn attaches no volume" in row(Pin("talos", "talos", "1.13.7", "x", "y"), "v1.13.8").blocked


def test_the_matrix_is_asked_for_the_program_in_a_chart():
    argocd = Pin("argo-cd", "chart", "10.1.1", "https://argoproj.github.io/argo-helm", "application.yaml", "argo-cd")

    def publish(pin):
        return (
            [Published("10.1.1", "v3.4.4"), Published("10.3.0", "v3.9.0")] if pin == argocd else [Published("1.35.4")]
        )

    compared = compare([argocd, KUBERNETES], publish, SUPPORTED, TODAY)[0]
    assert (compared.newest, compared.blocked.partition(" has")[0]) == ("10.3.0", "argo-cd 3.9")


def test_the_matrix_is_asked_for_the_image_that_replaces_the_program_of_a_chart():
    argocd = Pin("argo-cd", "chart", "10.1.1", "https://argoproj.github.io/argo-helm", "application.yaml", "argo-cd")
    image = Pin("quay.io/argoproj/argocd", "image", "v3.5.7", "https://github.com/argoproj/argo-cd", "application.yaml")
    published = {
        "argo-cd": [Published("10.1.1", "v3.4.4")],
        "kubernetes": [Published("v1.37.0")],
        image.component: [Published("v3.5.7"), Published("v3.9.0")],
    }
    rows = compare([argocd, image, KUBERNETES], lambda pin: published[pin.component], SUPPORTED, TODAY)
    assert rows[2].blocked == "argo-cd v3.5.7"
    assert rows[1].blocked.startswith("argo-cd 3.9 has no row")


def test_everything_that_is_pinned_is_compared(phase3, tree):
    pins = pins_of(phase3, gitops.for_phase(phase3, tree), ROOT)
    components = {pin.component for pin in pins}
    assert {app.chart for app in tree.applications if app.chart} < components
    assert {
        "talos",
        "kubernetes",
        "rabbitmq-operator",
        "viaductoss/ksops",
        "rabbitmq",
        "pydantic (Python)",
    } < components
    assert len(pins) == len({(pin.component, pin.kind) for pin in pins})
    assert [pin.component for pin in pins if not pin.source] == []


def test_a_tree_elsewhere_has_no_packages(phase3, tree, tmp_path):
    assert not [pin for pin in pins_of(phase3, tree, tmp_path) if pin.kind == "package"]


def node(talos, kubelet):
    return {"status": {"nodeInfo": {"osImage": f"Talos ({talos})", "kubeletVersion": kubelet}}}


def test_what_runs_is_read_from_nodes_and_applications():
    synced = {"history": [{"source": {"chart": "cilium", "targetRevision": "1.20.1"}}]}
    applications = [
        {"metadata": {"name": "cilium"}, "status": synced},
        {"metadata": {"name": "rabbitmq-operator"}, "status": {"history": [{"source": {"targetRevision": "v2.22.3"}}]}},
        {"metadata": {"name": "new"}},
    ]
    assert running([node("v1.13.9", "v1.35.4"), node("v1.14.1", "v1.35.4"), {}], applications) == {
        "talos": "1.13.9, 1.14.1",
        "kubernetes": "1.35.4",
        "cilium": "1.20.1",
        "rabbitmq-operator": "v2.22.3",
    }
    assert row(CILIUM, "1.20.2", running={"cilium": "1.20.1"}).running == "1.20.1"


ALL_OF_1_37 = ["argocd", "cert-manager", "cilium", "cnpg-operator", "ingress-nginx", "scylla-operator"]


@pytest.mark.parametrize(
    ("kubernetes", "changes", "named"),
    [
        ("1.35.10", {}, []),
        ("1.34.0", {}, []),
        ("1.36.2", {}, ["ingress-nginx"]),
        ("1.37.0", {}, ALL_OF_1_37),
        ("1.33.4", {}, ["longhorn"]),
        ("1.32.4", {}, ["argocd", "cert-manager", "cilium", "longhorn", "scylla-operator"]),
        ("1.35.10", {"cilium": "1.18.9"}, ["cilium"]),
        ("1.35.10", {"cilium": "1.21.0"}, []),
        ("1.36.2", {"cert-manager": "v1.20.3"}, ["cert-manager", "ingress-nginx"]),
        ("1.36.2", {"ingress-nginx": "4.14.0"}, []),
        ("1.37.0", {"cnpg-operator": "0.28.2"}, ALL_OF_1_37),
    ],
)
def test_programs_that_do_not_support_kubernetes_are_known(phase3, tree, kubernetes, changes, named):
    versions = phase3.versions.model_copy(update={"kubernetes": kubernetes})
    platform = phase3.model_copy(update={"versions": versions})
    apps = [replace(app, version=changes.get(app.name, app.version)) for app in tree.applications]
    found = {each.app.name: each for each in unsupported(platform, apps)}
    assert sorted(found) == named
    for each in found.values():
        assert each.reason.startswith(f"Kubernetes {kubernetes} is not compatible with {each.app.chart} ")
        assert "versions.kubernetes" in each.remedy


def test_the_remedy_for_a_program_is_a_version_that_supports_kubernetes(phase3, tree):
    versions = phase3.versions.model_copy(update={"kubernetes": "1.37.0"})
    platform = phase3.model_copy(update={"versions": versions})
    remedies = {each.app.name: each.remedy for each in unsupported(platform, tree.applications)}
    assert remedies["argocd"].endswith("or take argo-cd 3.6")
    assert remedies["cilium"].endswith("or take a later cilium, with its row in params/versions.yaml")
    assert remedies["ingress-nginx"].endswith("or leave ingress-nginx out (gitops.without)")


def test_the_version_of_argo_cd_is_that_of_its_image_or_of_its_chart(phase3, tree):
    versions = phase3.versions.model_copy(update={"kubernetes": "1.36.2"})
    platform = phase3.model_copy(update={"versions": versions})
    (argocd,) = (app for app in tree.applications if app.name == "argocd")
    assert list(unsupported(platform, [argocd])) == []
    (found,) = unsupported(platform, [replace(argocd, values={})])
    assert "argo-cd 3.4: row argo-cd 3.4" in found.reason
