"""Alert rules and dashboards: what vmalert refuses, and expressions that can never be true."""

from __future__ import annotations

import json
import re
from itertools import chain
from typing import TYPE_CHECKING, Any

from fluobook.files import packaged, parse_json, read_text
from fluobook.gitops import metrics
from fluobook.gitops.documents import Position, value_under, walk
from fluobook.params.problems import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from fluobook.gitops.documents import Defect, Document, Finding, Key
    from fluobook.gitops.snapshot import Snapshot

KINDS = ("VMRule", "PrometheusRule")
_LABEL_IN_TEXT = re.compile(r"(?:\$labels|(?<![\w)])\.Labels)\.(\w+)|index\s+\$labels\s+[\"`](\w+)[\"`]")
_QUERY = re.compile(r"label_values\((?P<expression>.+),\s*\w+\s*\)", re.DOTALL)
"""A variable of a dashboard with the values of a metric's label."""
_TEXTS = ("labels", "annotations")
_SEVERITIES = {"critical", "warning", "none"}
_DURATION = re.compile(r"([0-9]+(\.[0-9]+)?(ms|[smhdwy]))+|[0-9]+(\.[0-9]+)?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_METRIC = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*")
_GROUP_DURATIONS = ("interval", "eval_offset", "eval_delay")
_RULE_DURATIONS = ("for", "keep_firing_for")
_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"|`[^`]*`|\'(?:\\.|[^\'\\])*\'')
_NOT_CODE = re.compile(r"[^\w\s.$()|:=,+-]|\$labels\.(?:\w+\.\w|(?!\w))")
"""In an action, outside of quotes: what Go's templates do not have, or a field of a label."""
_DOUBLE = re.compile(r'"(?:\\.|[^"\\])*"|`[^`]*`')
_LONG_CHARACTER = re.compile(r"'[^'\\]{2,}'")
"""Single quotes are for one character."""
_FIELD = re.compile(r"(?<![\w)$.])\.([a-z]\w*)")
_MEANT = re.compile(r"\$\{?(?:labels|value)\b|%\{\w+\}|\{ \{")
"""In a text, outside of actions: what was meant as one."""
_QUERIED = re.compile(r"\bquery\s+(\"(?:\\.|[^\"\\])*\"|`[^`]*`)")
"""An expression in a template, without parts that are filled in."""
_ACTION = re.compile(rf"\{{\{{-?(\s*/\*.*?\*/[\s-]*|(?:{_QUOTED.pattern}|[^\"'`}}]|}}(?!}}))*)}}}}", re.DOTALL)
_TEMPLATES = packaged("fluobook.gitops", "data/templates.yaml")
_BLOCKS, _VARIABLES = _TEMPLATES["blocks"], _TEMPLATES["variables"]
_FUNCTIONS = {*_TEMPLATES["functions"], *_BLOCKS}


def metrics_exist(snapshot: Snapshot) -> Iterator[Finding]:
    """Vmalert takes the alert rules; they and dashboards use metrics, labels and values that the programs have."""
    table = snapshot.metrics
    for place, program, before, now in table.outdated({app.name: app.version for app in snapshot.applications}):
        yield place.finding(
            f"{program} was read at {before}, the tree has {now}", "compare its metrics, then write the version"
        )
    documents = snapshot.objects(*KINDS)
    known = table.metrics | {name: metric for document in documents for name, metric in _recorded(document, table)}
    for document in documents:
        for path, message, remedy in _defects(document, known):
            yield document.at(*path).finding(message, remedy)
    for file in (file for file in snapshot.all_files if file.suffix == ".json"):
        lines = read_text(file).splitlines()
        for expression in _dashboard_expressions(file):
            text = json.dumps(expression, ensure_ascii=False)
            line = next(
                (n for n, line in enumerate(lines, 1) if text[1:-1] in line or json.dumps(expression)[1:-1] in line), 0
            )
            is_text = isinstance(expression, str)
            problems = metrics.Expression(expression, known).problems if is_text else ["is not a text"]
            for problem in problems:
                yield Position(file, line).finding(f"{expression!r} {problem}", f"see {metrics.NAME}")


def _recorded(document: Document, table: metrics.MetricTable) -> Iterator[tuple[str, metrics.Metric]]:
    """The metrics that vmalert itself writes."""
    for group in value_under(document.data, ("spec", "groups")) or ():
        for rule in (rule for rule in group.get("rules") or () if rule.get("record")):
            labels = metrics.Expression(str(rule.get("expr")), table.metrics).labels | set(rule.get("labels") or {})
            yield rule["record"], metrics.Metric("vmalert", labels)


def _defects(document: Document, known: Mapping[str, metrics.Metric]) -> Iterator[Defect]:
    names: set[str] = set()
    for number, group in enumerate(value_under(document.data, ("spec", "groups")) or ()):
        at: tuple[Key, ...] = ("spec", "groups", number)
        if group["name"] in names:
            yield (*at, "name"), f"there are two groups {group['name']}", "rename one of them"
        names.add(group["name"])
        yield from _durations(group, at, _GROUP_DURATIONS, group["name"])
        earlier: list[dict[str, Any]] = []
        for index, rule in enumerate(group.get("rules") or ()):
            place = (*at, "rules", index)
            if rule in earlier:
                yield place, f"group {group['name']} has this rule twice", "remove one of them"
            earlier.append(rule)
            yield from refused(rule, place)
            if "expr" in rule:
                yield from _never_right(rule, place, known)


def _durations(data: dict[str, Any], at: tuple[Key, ...], keys: tuple[str, ...], name: str) -> Iterator[Defect]:
    for key in keys:
        if data.get(key) and not _DURATION.fullmatch(data[key].removeprefix("-" if key == "eval_delay" else "")):
            yield (*at, key), f"{name}: {key} {data[key]!r} is not a duration", "write it as 5m, 1h30m or 90s"


def refused(rule: dict[str, Any], at: tuple[Key, ...]) -> Iterator[Defect]:
    """What vmalert does not start with: its whole configuration is refused."""
    name = rule.get("alert") or rule.get("record") or "a rule"
    if bool(rule.get("alert")) == bool(rule.get("record")):
        yield at, f"{name} must have either alert or record", "give it one of the two"
    if not rule.get("expr"):
        yield (*at, "expr"), f"{name} has no expr", "write its PromQL expression"
    if rule.get("record") and not _METRIC.fullmatch(rule["record"]):
        yield (*at, "record"), f"{name} is not the name of a metric", "only letters, digits, _ and :"
    for key in _RULE_DURATIONS if rule.get("record") else ():
        if rule.get(key):
            yield (*at, key), f"{name} records, and has {key}", "remove it: only alerts wait"
    yield from _durations(rule, at, _RULE_DURATIONS, name)
    for field in _TEXTS:
        for key, text in (rule.get(field) or {}).items():
            if not _NAME.fullmatch(key):
                yield (*at, field, key), f"{name}: {key} is not a valid name", "only letters, digits and _"
            if problem := template_problem(text):
                yield (*at, field, key), f"{name}: {field}.{key} {problem}", "correct the template"


def template_problem(text: str) -> str:
    """Why vmalert does not take a template, "" if it does: its blocks, variables and functions."""
    opened, variables = 0, set(_VARIABLES)
    for action in _ACTION.findall(text):
        code = _QUOTED.sub(" ", action).strip(" \t\r\n-")
        if code.startswith("/*"):
            continue
        variables |= set(re.findall(r"\$(\w+)\s*(?:,|:=)", code))
        opened += any(re.match(rf"{word}\b", code) for word in _BLOCKS) - (code == "end")
        if unknown := [name for name in re.findall(r"\$(\w+)", code) if name not in variables]:
            return f"uses ${unknown[0]}: {did_you_mean(unknown[0], variables)}"
        words = re.findall(r"(?<![\w.$])[A-Za-z_]\w*", code)
        if unknown := [word for word in words if word not in _FUNCTIONS]:
            return f"calls {unknown[0]}: {did_you_mean(unknown[0], _TEMPLATES['functions'])}"
        if not action.strip():
            return "has an empty action"
        if opened < 0 or (not opened and code.startswith("else")):
            return f"has one {{{{ {code.split()[0]} }}}} too many"
        if (
            wrong := _LONG_CHARACTER.search(_DOUBLE.sub("", action))
            or _NOT_CODE.search(code)
            or (None if opened else _FIELD.search(code))
        ):
            return f"has {wrong[0]} in an action, which is not a template's; write $labels.NAME or .Value"
    rest = _ACTION.sub("", text)
    unused = _MEANT.search(rest)
    problem = f"does not end {opened} of its blocks" if opened else ""
    problem = f"has {unused[0]} outside of {{{{ }}}}, which stays as it is" if unused else problem
    return "does not close {{" if "{{" in rest else problem


def _never_right(rule: dict[str, Any], at: tuple[Key, ...], known: Mapping[str, metrics.Metric]) -> Iterator[Defect]:
    name = rule.get("alert") or rule.get("record") or "a rule"
    expression = metrics.Expression(str(rule["expr"]), known)
    for problem in expression.problems:
        yield (*at, "expr"), f"{name} {problem}", f"correct the rule; {metrics.NAME} has what exists"
    if "alert" not in rule:
        return
    severity = (rule.get("labels") or {}).get("severity")
    if (expression.names or severity in ("critical", "warning")) and not expression.selects and not expression.problems:
        yield (*at, "expr"), f"{name} fires for every series, whatever its value", "compare it with a number"
    yield from _wrong_texts(rule, name, at, expression, known)
    if severity not in _SEVERITIES:
        problem = f"has the severity {severity}" if severity else "has no severity"
        yield (*at, "labels"), f"{name} {problem}", "critical, warning or none: alerts are routed by it"


def _wrong_texts(
    rule: dict[str, Any],
    name: str,
    at: tuple[Key, ...],
    expression: metrics.Expression,
    known: Mapping[str, metrics.Metric],
) -> Iterator[Defect]:
    """Queries, labels and the URL in what an alert says."""
    own = {"labels": frozenset({"alertname"}), "annotations": frozenset({"alertname", *(rule.get("labels") or ())})}
    texts = [(field, key, str(text)) for field in _TEXTS for key, text in (rule.get(field) or {}).items()]
    for field, key, text in texts:
        place, labels = (*at, field, key), expression.labels | own[field]
        for quoted in _QUERIED.findall(text):
            for problem in metrics.Expression(quoted[1:-1].replace('\\"', '"'), known).problems:
                yield place, f"{name}: its query {problem}", f"correct the template; {metrics.NAME} has what exists"
        named = () if expression.problems else chain.from_iterable(_LABEL_IN_TEXT.findall(text))
        for label in dict.fromkeys(filter(None, named)):
            if label not in labels:
                remedy = f"use one of {', '.join(sorted(labels)) or 'none'}"
                yield place, f"{name} names {label}, a label that its series do not have", remedy
            elif label in expression.shadowed:
                remedy = f"use exported_{label}, or set honorLabels where it is scraped"
                yield place, f"{name} names {label}, which is the scraped pod's", remedy
        if key == "runbook_url" and not text.startswith(("https://", "http://", "{{")):
            yield place, f"{name}: runbook_url {text!r} is no URL", "it begins with https://"


def _dashboard_expressions(file: Path) -> Iterator[Any]:
    """The PromQL of a Grafana dashboard; panels of logs (Loki) have another language."""
    dashboard = parse_json(read_text(file), file)
    for path, key, targets in walk(dashboard):
        if key == "targets" and isinstance(targets, list):
            panel = value_under(dashboard, path[:-1])
            for target in (target for target in targets if isinstance(target, dict)):
                source = target.get("datasource") or panel.get("datasource") or {}
                if isinstance(source, dict) and source.get("type") != "loki" and target.get("expr"):
                    yield target["expr"]
    for variable in value_under(dashboard, ("templating", "list")) or ():
        query = variable.get("query") if isinstance(variable, dict) else None
        text = query.get("query") if isinstance(query, dict) else query
        if isinstance(text, str) and (match := _QUERY.fullmatch(text.strip())):
            yield match["expression"]
