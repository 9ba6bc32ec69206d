"""Expressions against a table of metrics: the labels of the result, and what makes an expression wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fluobook.gitops.bounds import Metric
from fluobook.gitops.metrics import INTERVAL, Expression
from fluobook.gitops.rules.objects import refused, template_problem
from fluobook.gitops.snapshot import Snapshot

METRICS = {
    "up": Metric("vmagent", frozenset({"job", "instance"}), values=(0, 1)),
    "state": Metric(
        "p", frozenset({"job", "volume", "state"}), label_values={"state": ("healthy", "degraded")}, values=(0, 1)
    ),
    "used": Metric("p", frozenset({"job", "node", "disk"})),
    "size": Metric("p", frozenset({"job", "node", "disk"})),
    "limit": Metric("p", frozenset({"job", "node"})),
    "latency_bucket": Metric("p", frozenset({"job", "le"}), counter=True),
    "requests_total": Metric("p", frozenset({"job", "code"}), counter=True),
    "used_bytes": Metric("p", frozenset({"job", "node", "disk"})),
    "threads": Metric("p", frozenset({"job"}), counter=False),
    "info": Metric("p", frozenset({"job", "state"}), values=(1,)),
    "free": Metric("p", frozenset({"job", "node"}), positive=True, part_of="size_of_all"),
    "size_of_all": Metric("p", frozenset({"job", "node"}), positive=True),
    "phase": Metric("p", frozenset({"job", "node", "phase"}), states=frozenset({"phase"})),
    "end_timestamp_seconds": Metric("p", frozenset({"job"}), positive=True),
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
        ('count_values("version", used)', {"version"}),
        ("used and ignoring (disk) limit", {"job", "node", "disk"}),
        ("delta(threads[5m]) < -5", {"job"}),
        ("max_over_time(requests_total[5m]) - requests_total > 5", {"job", "code"}),
        ("requests_total > 5 and rate(requests_total[5m]) > 0", {"job", "code"}),
        ("count(up == 0) > 0", set()),
        ("count(up == 0) == 4", set()),
        ("sum(up == bool 0) == 0", set()),
        ("absent(up) == 1", set()),
        ("up == 0 and up < 1", {"job", "instance"}),
        ("quantile(0.95, used)", set()),
        ("1 - used_bytes / size > 0.95", {"job", "node", "disk"}),
        ("avg(up) < 1", set()),
        ("avg_over_time(up[5m]) < 1", {"job", "instance"}),
        ("count_over_time(up[10m]) < 5", {"job", "instance"}),
        ("rate(requests_total[5m]) == 0", {"job", "code"}),
        ("clamp_max(up, 1) == 0", {"job", "instance"}),
        ("used > 50 and used < 100", {"job", "node", "disk"}),
        ("used - size < 0 and used <= size", {"job", "node", "disk"}),
        ("used < 0", {"job", "node", "disk"}),
        ("used * -1 < 0", {"job", "node", "disk"}),
        ("used / 0 > 1", {"job", "node", "disk"}),
        ("up == 0 unless on (job) threads", {"job", "instance"}),
        ("hour() > 6", set()),
        ("vector(0) == 0", set()),
        ("up == 0 and on (job) up == 1", {"job", "instance"}),
        ("free / free offset 1h > 2", {"job", "node"}),
        ("rate(requests_total[5m]) / rate(requests_total[1h]) > 2", {"job", "code"}),
        ("sum(free) / on () group_right () sum by (node) (free) > 1", {"node"}),
        ("100 * (1 - free / size_of_all) > 90", {"job", "node"}),
        ('sum(up{job="a"}) / sum(up{job="b"}) > 1', set()),
        ('up{job="a"} == 0 or up{job="b"} == 0', {"job", "instance"}),
        ('sum by (job) (used{node="a"}) / sum by (job) (used{node="b"}) > 2', {"job"}),
        ('used{node="a"} - ignoring (node) used{node="b"} > 2', {"job", "disk"}),
        ('free * on (node) group_left () phase{phase="x"} > 1', {"job", "node"}),
        ("end_timestamp_seconds - time() < 600", {"job"}),
        ("free < 0.1 * size_of_all", {"job", "node"}),
        ("free == size_of_all", {"job", "node"}),
        ("size_of_all / free > 10", {"job", "node"}),
        ('used{node="*.example.org"} > 1', {"job", "node", "disk"}),
        ("topk by (node) (1, used)", {"job", "node", "disk"}),
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
        ('used{node="a",node="b"}', "no node matches 'a' and 'b' at the same time"),
        ('used{node="a",node!="a"}', "no node matches 'a' and 'a' at the same time"),
        ('used{node=~"a|b",node="c"}', "no node matches"),
        ('used{node="a",node!~"a.*"}', "no node matches"),
        ('state{state="healthy",state="degraded"}', "no state of state matches 'healthy' and 'degraded'"),
        ('state{state=~"heal.*",state!="healthy"}', "no state of state matches"),
        ("up == 0 and used > 1", "no series match: only one side of and has disk, instance, node; use on (…)"),
        ("used unless limit", "no series match: only one side of unless has disk"),
        ("used and on (pod) limit", "has on (pod), a label that its series do not have"),
        ("used / ignoring (node) limit", "no series match: only one side of / has disk"),
        ("info == 0", "== 0 is never true: info has the values 1"),
        ("count(up == 1) == 0", "== 0 is never true: where nothing matches there is no value"),
        ("count(up) < 1", "< 1 is never true"),
        ("sum(up == 1) == 0", "== 0 is never true"),
        ("absent(up) == 0", "== 0 is never true"),
        ("up == 0 and up == 1", "has two sides of and that are never true together"),
        ("rate(threads[5m]) > 1", "has rate of threads, which is no counter: use delta or deriv"),
        ("delta(requests_total[5m]) > 1", "has delta of requests_total, which is a counter: use increase or rate"),
        ("rate(sum(requests_total)[5m:]) > 1", "has rate of a sum"),
        ("requests_total > 5", "compares requests_total, which counts since its program started"),
        ("sum by (code) (requests_total) > 5", "compares requests_total"),
        ("rate(requests_total[10s]) > 1", "has a range of 10 s; metrics are scraped every 30 s"),
        ("histogram_quantile(99, rate(latency_bucket[5m])) > 1", "has the quantile 99"),
        ("histogram_quantile(0.9, latency_bucket) > 1", "has a histogram_quantile of all requests since the start"),
        ("quantile(95, used) > 1", "has the quantile 95"),
        ("1 - used_bytes / used_bytes > 95", "> 95 is never true: 0 to 1"),
        ("avg(up) > 1", "> 1 is never true: 0 to 1"),
        ("sum(up) < 0", "< 0 is never true: 0 to inf"),
        ("avg_over_time(up[5m]) > 1", "> 1 is never true"),
        ("max_over_time((up == 0)[1h:5m]) == 1", "== 1 is never true"),
        ("count_over_time(up[5m]) == 0", "== 0 is never true: where nothing matches there is no value"),
        ("rate(requests_total[5m]) < 0", "< 0 is never true"),
        ("used_bytes < 0", "< 0 is never true"),
        ("used_bytes / 1024 < -1", "< -1 is never true"),
        ("-used_bytes > 0", "> 0 is never true"),
        ("abs(used) < 0", "< 0 is never true"),
        ("clamp_min(up, 1) < 1", "< 1 is never true"),
        ("sum(abs(used)) * 2 < 0", "< 0 is never true"),
        ("quantile(0.5, up) > 1", "> 1 is never true"),
        ("(up == bool 0) == 2", "== 2 is never true"),
        ("(used > 5) < 3", "< 3 is never true"),
        ("(up or vector(1)) > 1", "> 1 is never true"),
        ("month() > 12", "> 12 is never true: 1 to 12"),
        ("up > 1 + up", "> 1 + up is never true"),
        ("vector(0) != 0", "!= 0 is never true"),
        ("used > 100 and used < 50", "has two sides of and that are never true together"),
        ("used - time() < 0 and used > time()", "has two sides of and that are never true together"),
        ("up == 0 unless up", "is never true: unless takes away what up has"),
        ("up == 0 unless up == 0", "is never true: unless takes away what up == 0 has"),
        ('"up == 0"', "is a text: remove the inner quotes"),
        ("free < 0", "< 0 is never true: 0 to inf"),
        ("free / size_of_all > 90", "> 90 is never true: 0 to 1"),
        ("100 * free / size_of_all > 110", "> 110 is never true: 0 to 100"),
        ("(size_of_all - free) / size_of_all > 90", "> 90 is never true: 0 to 1"),
        ('state{state="healthy"} == 1 and state{state!="healthy"} == 1', "have the state healthy and degraded"),
        ("sum by (node) (free) / sum(size_of_all) * 100 > 100", "> 100 is never true: 0 to 100"),
        ('sum(rate(requests_total{code="500"}[5m])) / sum(rate(requests_total[5m])) > 5', "> 5 is never true: 0 to 1"),
        ("count(up == 0) / count(up) > 1", "> 1 is never true: 0 to 1"),
        ("sum(up) / count(up) > 1", "> 1 is never true: 0 to 1"),
        ("free > size_of_all", "> size_of_all is never true: the ratio is 0 to 1"),
        ("sum(size_of_all) < sum(free)", "< sum(free) is never true: the ratio is 1 to inf"),
        ("size_of_all / free < 0.9", "< 0.9 is never true: 1 to inf"),
        ("time() - up > 300", "has the difference of time() and up, which is no time"),
        ("max(used_bytes) - time() < 60", "has the difference of time() and used_bytes, which is no time"),
        ("100 * (1 - avg(up)) > 100", "> 100 is never true"),
        ("ceil(up) > 1", "> 1 is never true"),
        ("clamp(used, 0, 1) > 1", "> 1 is never true"),
        ("days_in_month() > 31", "> 31 is never true"),
        ("(up > 0) < 1", "< 1 is never true: up has the values 1"),
        ("up > 0 and up < 1", "has two sides of and that are never true together"),
        ("up == 0 unless up < 1", "is never true: unless takes away what up < 1 has"),
        ('used{node="a"} > 1 and used{node="b"} > 1', "no series match: the sides of and have the node a and b"),
        (
            'sum by (node) (used{node=~"a|b"}) / sum by (node) (used{node="c"}) > 1',
            "the sides of / have the node a|b and c",
        ),
        (
            'rate(requests_total{code="5.."}[5m]) > 1',
            "compares code with the text '5..'; a regular expression needs =~",
        ),
        ('used{node="worker-*"} > 1', "compares node with the text 'worker-*'"),
        ("free * on (node) phase > 1", "has several series for each of on (…): choose one phase"),
        ("free * on (node) group_left () (phase == 1) > 1", "has several series for each of on (…)"),
        ("topk by (pod) (1, used) > 1", "has by (pod), a label that its series do not have"),
        ("quantile_over_time(95, used[5m]) > 1", "has the quantile 95"),
        ("avg_over_time(requests_total[5m]) > 5", "compares requests_total"),
        ("rate(threads[5m:1m]) > 1", "has rate of threads, which is no counter"),
        ("rate(rate(requests_total[5m])[5m:1m]) > 1", "has rate of rate(requests_total[5m]), which is no counter"),
        ("end_timestamp_seconds < 14 * 86400", "compares end_timestamp_seconds, which is a time, with a duration"),
        (
            'label_replace(up, "a-b", "$1", "job", "(.*)") == 0',
            "has label_replace with 'a-b', which is no label's name",
        ),
        ('label_replace(up, "a", "$1", "pod", "(.*)") == 0', "has label_replace (pod), a label that its series"),
    ],
)
def test_an_expression_that_can_never_be_true_is_a_problem(expression: str, problem: str):
    evaluated = Expression(expression, METRICS)
    assert evaluated.labels is not None
    assert problem in " ".join(evaluated.problems)


@pytest.mark.parametrize(
    ("expression", "selects"),
    [
        ("up", False),
        ("used / size", False),
        ("up == bool 0", False),
        ("count(up) > 0", False),
        ("used_bytes >= 0", False),
        ("used == used", False),
        ("free <= size_of_all", False),
        ("vector(1)", False),
        ("absent(up) or up", False),
        ("up == 0 or absent(up)", True),
        ("count(up == 0) > 0", True),
        ("up == 0", True),
        ("info", True),
        ("absent(up)", True),
        ("up unless state", True),
    ],
)
def test_an_alert_without_a_condition_is_known(expression: str, selects: bool):
    assert Expression(expression, METRICS).selects == selects


@pytest.mark.parametrize(
    ("selector", "problem"),
    [
        ('up{job="apiserver"}', ""),
        ('up{job=~"loki|monitoring/loki"}', ""),
        ('up{job="node-exporter",namespace="monitoring"}', ""),
        ('up{job="node-exporter",namespace="kube-system"}', "no namespace of up matches 'kube-system': monitoring"),
        ('up{job=~"node-exporter|webhook",namespace="kube-system"}', ""),
        ('up{job="kube-apiserver"}', "no job of up matches 'kube-apiserver'"),
        ('longhorn_node_status{job="longhorn-backend",namespace="longhorn-system"}', ""),
        ('longhorn_node_status{job="longhorn"}', "no job of longhorn_node_status matches 'longhorn'"),
        ('longhorn_node_status{namespace="fluodata"}', "no namespace of longhorn_node_status matches 'fluodata'"),
        ('kube_deployment_spec_replicas{namespace="fluodata"}', ""),
        ('kube_deployment_spec_replicas{namespace=~"kube-.*"}', ""),
        (
            'kube_deployment_spec_replicas{namespace="longhorn"}',
            "no namespace of kube_deployment_spec_replicas",
        ),
    ],
)
def test_jobs_and_namespaces_are_those_of_the_platform(selector: str, problem: str):
    snapshot = Snapshot(Path(__file__).resolve().parents[2])
    problems = Expression(selector, snapshot.metrics.metrics).problems
    assert len(problems) == bool(problem)
    assert problem in "".join(problems)
    (stack,) = [app for app in snapshot.applications if app.name == "victoria-metrics-stack"]
    values = stack.document.data["spec"]["source"]["helm"]["valuesObject"]
    assert values["vmagent"]["spec"]["scrapeInterval"] == f"{INTERVAL.total_seconds():g}s"


@pytest.mark.parametrize(
    "matchers",
    [
        'node="a",node!="b"',
        'node=~"a|b",node!="a"',
        'node=~"a.*",node=~".*b"',
        'node=~"(a+)+",node="aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab"',
    ],
)
def test_matchers_that_can_match_together_are_no_problem(matchers: str):
    assert Expression(f"used{{{matchers}}}", METRICS).problems == []


def test_a_regular_expression_that_would_take_too_long_is_taken_as_it_is():
    assert Expression('state{state=~"(h|e|a|l|t|y|(.*)*)*x"}', METRICS).problems == []


RULE = {"alert": "A", "expr": "up == 0", "labels": {"severity": "warning"}}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"for": "5m", "keep_firing_for": "1h30m"}, ""),
        ({"for": "1.5h"}, ""),
        ({"for": "5 minutes"}, "A: for '5 minutes' is not a duration"),
        ({"for": "5min"}, "A: for '5min' is not a duration"),
        ({"keep_firing_for": "-5m"}, "A: keep_firing_for '-5m' is not a duration"),
        ({"labels": {"severity": "warning", "my-team": "x"}}, "A: my-team is not a valid name"),
        ({"annotations": {"first step": "x"}}, "A: first step is not a valid name"),
        ({"annotations": {"summary": "{{ $labels.job }"}}, "A: annotations.summary does not close {{"),
        (
            {"labels": {"severity": "warning", "team": "{{ $label.job }}"}},
            "labels.team uses $label: did you mean 'labels'?",
        ),
        ({"record": "a:b"}, "A must have either alert or record"),
        ({"alert": ""}, "a rule must have either alert or record"),
        ({"expr": ""}, "A has no expr"),
        ({"alert": "", "record": "a-b"}, "a-b is not the name of a metric"),
        ({"alert": "", "record": "a:b", "for": "5m"}, "a:b records, and has for"),
    ],
)
def test_what_vmalert_refuses_in_a_rule_is_found(change: dict[str, Any], problem: str):
    problems = [message for _, message, _ in refused(RULE | change, ())]
    assert len(problems) == bool(problem)
    assert problem in "".join(problems)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{{ $labels.job }} is at {{ $value | humanizePercentage }}", ""),
        ('{{ with query "up{a=\'{{b}}\'}" }}{{ . | first | value | printf "%.1f" }}{{ end }}', ""),
        ("{{ range $i, $s := query `x` }}{{ $i }}{{ $s.Labels }}{{ else }}-{{ end }}", ""),
        ("{{- if gt $value 1.5 -}} a {{- else if eq $labels.a `b` -}} b {{- end -}} {{/* c */}}", ""),
        ("{{/* it's \"x */}}{{ if eq 'a' '}' }}{{ end }}", ""),
        ("{{- /* it's */ -}} {{ $value }}", ""),
        ("{{ $value | humanise }}", "calls humanise: did you mean 'humanize'?"),
        ("{{ labels.job }}", "calls labels"),
        ("{{ if $value }} a", "does not end 1 of its blocks"),
        ("a {{ end }}", "has one {{ end }} too many"),
        ("{{ }}", "has an empty action"),
        ("{{ $vlaue }}", "uses $vlaue: did you mean 'value'?"),
        ("{{ $value", "does not close {{"),
        ("{{ with $labels }}{{ .job }}{{ end }} costs $5, {a} [b] 3 %", ""),
        ("{{ printf `%.1f` $value }} {{ (index (query `up`) 0).Value }} {{- $x := 1.5e+3 -}}", ""),
        ("{{ $labels['job'] }}", "has 'job' in an action, which is not a template's"),
        ("{{ $labels.job.name }}", "has $labels.job.n in an action"),
        ("{{ .labels.job }}", "has .labels in an action"),
        ("{{ $value | printf %.2f }}", "has % in an action"),
        ("{{ $labels[0] }}", "has [ in an action"),
        ('{{ $labels."job" }}', "has $labels. in an action"),
        ("{{ printf '%.2f' $value }}", "has '%.2f' in an action"),
        ("{{ $value * 100 }}", "has * in an action"),
        ("{{ $value }} {{ else }}", "has one {{ else }} too many"),
        ("$labels.job is down", "has $labels outside of {{ }}, which stays as it is"),
        ("${labels.job} or %{job}", "has ${labels outside of {{ }}"),
        ("{ { $value } }", "has { { outside of {{ }}"),
    ],
)
def test_a_template_that_vmalert_refuses_is_found(text: str, problem: str):
    assert template_problem(text).startswith(problem)
    assert bool(template_problem(text)) == bool(problem)


def test_a_correct_comparison_of_all_values_is_no_problem():
    for expression in ("state == 1", "state != 0", "state > 0.5", 'state{state!="healthy"} == 1'):
        evaluated = Expression(expression, METRICS)
        assert (evaluated.labels, evaluated.problems) == ({"job", "volume", "state"}, [])
