"""Expressions against a table of metrics: the labels of the result, and what makes an expression wrong."""

from __future__ import annotations

import pytest

from fluobook.gitops.metrics import Expression, Metric

METRICS = {
    "up": Metric("vmagent", frozenset({"job", "instance"}), values=(0, 1)),
    "state": Metric(
        "p", frozenset({"job", "volume", "state"}), label_values={"state": ("healthy", "degraded")}, values=(0, 1)
    ),
    "used": Metric("p", frozenset({"job", "node", "disk"})),
    "size": Metric("p", frozenset({"job", "node", "disk"})),
    "limit": Metric("p", frozenset({"job", "node"})),
    "latency_bucket": Metric("p", frozenset({"job", "le"})),
}


@pytest.mark.parametrize(
    ("expression", "labels"),
    [
        ("up", {"job", "instance"}),
        ("up == 0", {"job", "instance"}),
        ("used / size > 0.9", {"job", "node", "disk"}),
        ("sum by (node) (used)", {"node"}),
        ("sum without (disk) (used)", {"job", "node"}),
        ("sum(used)", set()),
        ("topk(3, used)", {"job", "node", "disk"}),
        ("increase(used[1h]) > 5", {"job", "node", "disk"}),
        ("max_over_time(used[1h:5m])", {"job", "node", "disk"}),
        ("sum by (node) (used) / on (node) max by (node) (limit)", {"node"}),
        ("used / on (node) group_left () limit", {"job", "node", "disk"}),
        ('absent(up{job="a"})', {"job"}),
        ('absent(up{job="a"} == 1)', set()),
        ("histogram_quantile(0.9, rate(latency_bucket[5m]))", {"job"}),
        ('label_replace(up, "node", "$1", "instance", "(.*):.*")', {"job", "instance", "node"}),
        ("used and on (node) limit", {"job", "node", "disk"}),
        ("vector(1)", set()),
        ("time() - used > 60", {"job", "node", "disk"}),
        ("rate(used[$__rate_interval])", {"job", "node", "disk"}),
    ],
)
def test_the_labels_of_an_expression_are_those_of_its_result(expression: str, labels: set[str]):
    evaluated = Expression(expression, METRICS)
    assert (evaluated.labels, evaluated.problems) == (labels, [])


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("state == 2", "== 2 is never true: state has the values 0, 1"),
        ("2 < state", "> 2 is never true"),
        ("max by (volume) (state) >= 0", ">= 0 is always true"),
        ('state{state="lost"}', "no state of state matches 'lost': healthy, degraded"),
        ('state{state=~"lost|gone"}', "no state of state matches"),
        ('state{robustness="degraded"}', "state has no label robustness"),
        ("missing == 1", "uses missing, which metrics.yaml does not have"),
        ("sum by (pod) (used)", "has by (pod), a label that its series do not have"),
        ("used / on (pod) size", "has on (pod), a label that its series do not have"),
        ("used / limit", "no series match: only one side of / has disk"),
        ("histogram_quantile(0.9, up)", "has histogram_quantile, which needs (le)"),
        ("sum by (node (used)", "is not PromQL"),
    ],
)
def test_an_expression_that_can_never_be_true_is_a_problem(expression: str, problem: str):
    evaluated = Expression(expression, METRICS)
    assert evaluated.labels is not None
    assert problem in " ".join(evaluated.problems)


def test_a_correct_comparison_of_all_values_is_no_problem():
    for expression in ("state == 1", "state != 0", "state > 0.5", 'state{state!="healthy"} == 1'):
        evaluated = Expression(expression, METRICS)
        assert (evaluated.labels, evaluated.problems) == ({"job", "volume", "state"}, [])
