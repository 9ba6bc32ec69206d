"""Which of a chart's objects are hooks, and their order."""

from __future__ import annotations

from fluobook.stages.install_argocd.chart import AFTER, BEFORE, hooks_of


def hook(name, when, weight=None):
    annotations = {"helm.sh/hook": when} | ({"helm.sh/hook-weight": weight} if weight else {})
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "annotations": annotations}}


def names(objects):
    return [obj["metadata"]["name"] for obj in objects]


def test_hooks_are_ordered_by_weight_and_those_of_one_weight_as_rendered():
    hooks = [hook("late", BEFORE, "5"), hook("first", BEFORE, "-1"), hook("a", BEFORE), hook("b", BEFORE)]
    assert names(hooks_of(hooks, BEFORE)) == ["first", "a", "b", "late"]


def test_hooks_of_upgrades_tests_and_deletions_do_not_belong_to_an_installation():
    hooks = [hook("both", "pre-install, pre-upgrade"), hook("test", "test"), hook("gone", "pre-delete")]
    assert names(hooks_of(hooks, BEFORE)) == ["both"]
    assert hooks_of(hooks, AFTER) == ()
