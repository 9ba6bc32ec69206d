from __future__ import annotations

import pytest

from fluobook import gitops
from fluobook.clients.helm import ChartVersion
from fluobook.errors import Unreachable
from fluobook.gitops.charts import newer


def listing(*versions: str, deprecated: bool = False):
    return lambda _repo, _chart: [ChartVersion(version, "", deprecated) for version in versions]


def step(tree, name, *versions, **marks):
    return next(chart for chart in newer(tree, listing(*versions, **marks)) if chart.application == name)


@pytest.mark.parametrize(
    ("newest", "expected"),
    [("1.12.1", "newest"), ("1.12.2", "patch"), ("1.13.0", "minor"), ("2.0.0", "major"), ("1.11.9", "newest")],
)
def test_how_far_the_newest_is(tree, newest, expected):
    chart = step(tree, "longhorn", "1.12.1", newest)
    assert chart.step == expected
    assert chart.pinned == "1.12.1"


def test_candidates_are_not_stable(tree):
    assert step(tree, "longhorn", "1.12.1", "1.13.0-rc1", "1.14.0-dev").newest == "1.12.1"


def test_a_v_in_front_is_no_difference(tree):
    assert step(tree, "cert-manager", "1.21.1", "1.21.2").step == "patch"


def test_a_version_that_is_not_listed_is_reported(tree):
    assert step(tree, "longhorn", "1.12.0").step == "unlisted"


def test_a_retired_project_is_reported_even_at_its_newest(tree):
    assert step(tree, "ingress-nginx", "4.15.1").step == "retired"
    assert step(tree, "loki", "18.11.0", deprecated=True).step == "retired"


def test_only_charts_are_compared(tree):
    charts = {app.name for app in tree.applications if app.chart}
    assert {chart.application for chart in newer(tree, listing("1.0.0"))} == charts


def test_the_mirrors_are_queried_where_the_phase_has_some(phase3, tree):
    asked = []
    newer(gitops.for_phase(phase3, tree), lambda repo, chart: asked.append((repo, chart)) or [])
    assert ("https://helm.cilium.io", "cilium") in asked


def test_a_repository_that_does_not_answer_does_not_affect_the_others(tree):
    def index(repo, _chart):
        if "longhorn" in repo:
            raise Unreachable(f"{repo} does not answer", system="chart repository")
        return [ChartVersion("1.0.0", "", deprecated=False)]

    compared = {chart.application: chart for chart in newer(tree, index)}
    assert compared["longhorn"].step == "unanswered"
    assert compared["longhorn"].problem == "https://charts.longhorn.io does not answer"
    assert compared["loki"].step == "unlisted"
