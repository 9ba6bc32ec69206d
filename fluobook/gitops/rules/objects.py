"""Single objects: schema, selectors, pod security, what workloads need; alert rules and dashboards that cannot work."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from fluobook.errors import KUBECTL
from fluobook.files import packaged, parse_json, read_text
from fluobook.gitops import documents, kustomization, metrics, schemas
from fluobook.gitops.bounds import Metric
from fluobook.gitops.charts import CPU_FEATURES, PRIVILEGED_KINDS, chart_of
from fluobook.gitops.documents import Position, issuer_of, pod_path, value_under, walk
from fluobook.gitops.snapshot import Checked, checked
from fluobook.gitops.tree import HOOK, INTEGER, WAVE
from fluobook.kubernetes.pod_security import LEVELS, violations
from fluobook.kubernetes.quantities import amount
from fluobook.kubernetes.selectors import matches
from fluobook.machine.node import labels_by_node
from fluobook.params.cpus import lacks
from fluobook.params.problems import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from fluobook.gitops.documents import Defect, Document, Finding, Key
    from fluobook.gitops.snapshot import Snapshot
    from fluobook.params import Platform


_TERMS = ("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
_TOPOLOGIES = (
    ("topologySpreadConstraints", "*", "topologyKey"),
    ("affinity", "*", "*", "*", "topologyKey"),
    ("affinity", "*", "*", "*", "podAffinityTerm", "topologyKey"),
)
_NOT_FOR_THE_CLUSTER = {"Component", "Kustomization", "ksops"}
_OUR_KEYS = {
    "fluobook/backup-of",
    "fluobook/only-with",
    "fluobook/phase-values",
    "fluobook/needed-before",
    "fluobook/pool",
}
_ARGOCD_KEYS = {
    "sync-wave",
    "sync-options",
    "compare-options",
    "ignore-healthcheck",
    "refresh",
    "hook",
    "hook-delete-policy",
    "secret-type",
}
_NEEDS_THE_OUTSIDE = ("ClusterIssuer", "Issuer", "Certificate", "Gateway")
_IGNORE_HEALTH = "argocd.argoproj.io/ignore-healthcheck"
_POD_SECURITY = "pod-security.kubernetes.io/"
_MODES = ("enforce", "audit", "warn")


def objects_match_their_schema(snapshot: Snapshot) -> Iterator[Finding]:
    """Built-in objects match the schemas of the pinned Kubernetes, custom resources their CRD's where it is known."""
    files = (file for file in (*snapshot.files, snapshot.root / ".sops.yaml") if file not in snapshot.patches)
    parts = [part for file in files if file.exists() and snapshot.reader.read(file) for part in checked(file)]
    deployed = snapshot.objects()
    changed = (kustomization.load(folder, snapshot.reader) for folder in snapshot.kustomizations)
    changed = (each for each in changed if each.data.get("patches") or kustomization.is_built(each))
    changed = (each for each in changed if each.kind != "Component")  # which is built with what lists it
    built = [document for each in changed for document in kustomization.resources(each.file.parent, snapshot.reader)]
    parts += [Checked(document, schemas.checked(document.data, "")[1], []) for document in built]
    for part in parts:
        document = part.document
        is_object = document.kind and document.kind not in _NOT_FOR_THE_CLUSTER
        remedy = f"{KUBECTL} explain {document.kind.lower()}" if is_object else "correct it"
        for path, message, correction in _version_defects(document) if is_object else ():
            yield document.at(*path).finding(message, correction)
        for path, message in part.mismatches:
            restore = f"restore the committed version: git checkout -- {document.file}"
            yield document.at(*path).finding(message, restore if path[:1] == ("sops",) else remedy)
    for document in deployed:
        for field, value in (("kind", document.kind), ("metadata.name", document.name)):
            if not value:
                yield document.at(*field.split(".")).finding(f"the object has no {field}", "give it kind and name")


_NOT_EVALUATED = "is not evaluated: what it makes is not checked, gets no mirrors or values, and waits for no wave"


def _version_defects(document: Document) -> Iterator[Defect]:
    version, kind = str(document.data.get("apiVersion", "")), document.kind
    if version.startswith("argoproj.io/") and kind == "ApplicationSet":
        yield ("kind",), f"{kind} {document.name} {_NOT_EVALUATED}", "write the Applications that it would make"
        return
    if schemas.is_known(version, kind):
        return
    if schemas.is_misspelt(version):
        yield ("apiVersion",), f"there is no API group {version.rpartition('/')[0]}", "correct it, such as apps/v1"
        return
    served = schemas.versions_of(version, kind)
    if not served and schemas.has_group(version):
        yield ("kind",), f"{version} has no kind {kind}", "correct the kind"
    elif schemas.is_built_in(version) or served:
        remedy = f"write it in {' or '.join(served)}" if served else "correct apiVersion and kind"
        yield ("apiVersion",), f"no cluster here serves {kind} in {version}", remedy


def objects_are_valid(snapshot: Snapshot) -> Iterator[Finding]:
    """Objects have a namespace if their kind has, something reads their annotations, selectors match their own pods."""
    for document in snapshot.documents:
        if document.kind:
            for path, message, remedy in (
                *_metadata_defects(document),
                *_selector_defects(document),
                *_endless_jobs(document),
            ):
                yield document.at(*path).finding(f"{document.kind} {document.name}: {message}", remedy)


def _metadata_defects(document: Document) -> Iterator[Defect]:
    metadata = document.data.get("metadata") or {}
    if document.namespace and schemas.is_cluster_scoped(document.group, document.kind):
        yield ("metadata", "namespace"), "objects of this kind have no namespace", "remove it"
    wave = document.annotations.get(WAVE)
    if wave is not None and document.kind not in ("Application", "AppProject") and not INTEGER.fullmatch(str(wave)):
        yield ("metadata", "annotations", WAVE), f"has the wave {wave}", "a whole number"
    for field in ("annotations", "labels"):
        for key in metadata.get(field) or {}:
            if not _is_known_key(str(key)):
                yield ("metadata", field, key), f"nothing reads {key}", "correct its name"


def _is_known_key(key: str) -> bool:
    prefix, _, name = key.partition("/")
    return key in _OUR_KEYS if prefix == "fluobook" else prefix != "argocd.argoproj.io" or name in _ARGOCD_KEYS


def _selector_defects(document: Document) -> Iterator[Defect]:
    selector = value_under(document.data, ("spec", "selector", "matchLabels")) or {}
    labels = value_under(document.data, ("spec", "template", "metadata", "labels")) or {}
    if document.group == "apps" and not matches({"matchLabels": selector}, labels):
        yield ("spec", "selector"), "its selector does not match its own pods", "give the template the same labels"


def _endless_jobs(document: Document) -> Iterator[Defect]:
    """A Job that deletes itself, and that Argo CD heals by making it again. It does not heal hooks."""
    path = ("spec", "ttlSecondsAfterFinished")
    if document.kind == "Job" and value_under(document.data, path) is not None and HOOK not in document.annotations:
        remedy = f"leave it out, or make the Job a hook ({HOOK}: Sync)"
        yield path, "Argo CD makes it again, and runs it again, each time that it is deleted", remedy


def pod_security_matches_the_pods(snapshot: Snapshot) -> Iterator[Finding]:
    """A namespace has a level that exists, the same in three modes, and no lower one than its pods need.

    It is privileged only if something needs it, and a restricted one has no pods that are less.
    """
    reasons = {app.namespace: chart_of(app).privileged for app in snapshot.applications if chart_of(app).privileged}
    reasons |= {document.namespace: PRIVILEGED_KINDS[document.kind] for document in snapshot.objects(*PRIVILEGED_KINDS)}
    pods = [(document, path) for document in snapshot.objects() if (path := pod_path(document))]
    for document, path in pods:
        if problems := violations(value_under(document.data, path), "baseline"):
            reasons[document.namespace] = f"{document.kind} {document.name} has {problems[0]}"
    for name, (_, namespace) in snapshot.namespaces.items():
        labels = (namespace.data["metadata"].get("labels")) or {}
        levels = {mode: labels.get(_POD_SECURITY + mode, "") for mode in _MODES}
        place = namespace.at("metadata", "labels", _POD_SECURITY + "enforce")
        if missing := [mode for mode, level in levels.items() if not level]:
            yield place.finding(f"{name} has no label {_POD_SECURITY}{missing[0]}", "give it all three")
        elif unknown := [mode for mode, level in levels.items() if level not in LEVELS]:
            place = namespace.at("metadata", "labels", _POD_SECURITY + unknown[0])
            yield place.finding(f"{name}: there is no level {levels[unknown[0]]}", f"name one of {', '.join(LEVELS)}")
        elif len(set(levels.values())) > 1:
            yield place.finding(f"{name}: enforce, audit and warn differ", "give them one level")
        elif name in reasons and levels["enforce"] != "privileged":
            yield place.finding(f"{name} must be privileged: {reasons[name]}", "label it privileged")
        elif name not in reasons and levels["enforce"] == "privileged":
            yield place.finding(f"{name} is privileged, and nothing in it needs that", "label it baseline")
        if levels["enforce"] == "restricted" and name not in reasons:
            yield from _refused_pods([(each, path) for each, path in pods if each.namespace == name])


def _refused_pods(pods: list[tuple[Document, tuple[Key, ...]]]) -> Iterator[Finding]:
    for document, path in pods:
        if problems := violations(value_under(document.data, path), "restricted"):
            message = f"{document.kind} {document.name} gets no pods in {document.namespace}, which is restricted: "
            remedy = "set them in its securityContext, or label the namespace baseline"
            yield document.at(*path).finding(message + ", ".join(problems), remedy)


def waves_do_not_wait_for_the_outside(snapshot: Snapshot) -> Iterator[Finding]:
    """What is healthy only if a certificate authority is reachable does not hold back later waves."""
    inside = {
        (issuer.kind, issuer.namespace, issuer.name)
        for issuer in snapshot.objects("ClusterIssuer", "Issuer")
        if {"ca", "selfSigned"} & set(issuer.data.get("spec") or {})
    }
    for document in snapshot.objects(*_NEEDS_THE_OUTSIDE):
        own = (document.kind, document.namespace, document.name)
        issuer = own if document.kind.endswith("Issuer") else issuer_of(document)
        if document.annotations.get(_IGNORE_HEALTH) != "true" and issuer not in inside:
            yield document.at("metadata").finding(
                f"{document.kind} {document.name} holds back later waves until its issuer is reachable",
                f'annotate it with {_IGNORE_HEALTH}: "true"',
            )


def cpus_have_what_workloads_need(snapshot: Snapshot) -> Iterator[Finding]:
    """The CPU type of each platform has the features without which a workload does not start."""
    for document in snapshot.objects(*CPU_FEATURES):
        feature, workload = CPU_FEATURES[document.kind]
        for file, platform in snapshot.platforms.items():
            if lacks(platform.vm.cpu, feature):
                message = f"the CPU type {platform.vm.cpu} lacks {feature}, without which {workload} does not start"
                place = documents.read(file)[0].at("platform", "vm", "cpu")
                yield place.finding(message, "set vm.cpu: host, or a custom model that has it")


def namespaces_admit_their_pods(snapshot: Snapshot) -> Iterator[Finding]:
    """A ResourceQuota has room for the pods of its namespace, which give what it counts; a LimitRange allows them."""
    containers: dict[str, list[_Container]] = {}
    for document in snapshot.objects():
        path = pod_path(document)
        for at, data in documents.values_at(document.data, (*path, "containers", "*")) if path else ():
            containers.setdefault(document.namespace, []).append(_Container(document, at, data))
    ranges: dict[str, list[dict[str, Any]]] = {}
    for limits in snapshot.objects("LimitRange"):
        items = value_under(limits.data, ("spec", "limits")) or ()
        ranges.setdefault(limits.namespace, []).extend(item for item in items if item.get("type") == "Container")
    for namespace, items in ranges.items():
        for container in containers.get(namespace, ()):
            yield from _beyond_range(container, items)
    for quota in snapshot.objects("ResourceQuota"):
        own = containers.get(quota.namespace, [])
        yield from _beyond_quota(quota, own, ranges.get(quota.namespace, []))


class _Container(NamedTuple):
    """A container of a workload, and its path there."""

    document: Document
    path: tuple[Key, ...]
    data: dict[str, Any]


def _beyond_range(container: _Container, items: Iterable[dict[str, Any]]) -> Iterator[Finding]:
    bounds = (("limits", "max", 1), ("requests", "min", -1))
    entries = [(*each, *pair) for item in items for each in bounds for pair in (item.get(each[1]) or {}).items()]
    for field, bound, sign, resource, value in entries:
        given = value_under(container.data, ("resources", field, resource))
        if given is not None and (amount(given) - amount(value)) * sign > 0:
            message = f"a LimitRange refuses {field} of {resource} {given}: its {bound} is {value}"
            place = container.document.at(*container.path, "resources", field, resource)
            yield place.finding(message, "change one of the two")


def _beyond_quota(quota: Document, containers: list[_Container], ranges: list[dict[str, Any]]) -> Iterator[Finding]:
    for key, most in (value_under(quota.data, ("spec", "hard")) or {}).items():
        field, _, resource = str(key).rpartition(".")
        total = Decimal(0)
        for document, path, data in containers if resource in ("cpu", "memory") else ():
            given = _counted(data, field or "requests", resource, ranges)
            if given is None:
                message = f"ResourceQuota {quota.name} counts {key}, and refuses a container without it"
                yield document.at(*path).finding(message, "give it to the container, or a default to a LimitRange")
            else:
                total += amount(given) * (value_under(document.data, ("spec", "replicas")) or 1)
        if total > amount(most):
            shown = f"{total / 2**20:g}Mi" if resource == "memory" else f"{total:g}"
            message = f"ResourceQuota {quota.name} allows {key} {most}, and its namespace's pods have {shown}"
            yield quota.at("spec", "hard", key).finding(message, "raise it, or lower what they request")


def _counted(container: Mapping[str, Any], field: str, resource: str, defaults: Sequence[Mapping[str, Any]]) -> Any:
    """What a quota counts of a container: its own value or a LimitRange's default; a request is its limit otherwise."""
    given = {name: value_under(container, ("resources", name, resource)) for name in ("requests", "limits")}
    default = {
        name: next((item[key][resource] for item in defaults if resource in (item.get(key) or {})), None)
        for name, key in (("requests", "defaultRequest"), ("limits", "default"))
    }
    order = [given["limits"], default["limits"]]
    if field == "requests":
        order = [given["requests"], given["limits"], default["requests"], default["limits"]]
    return next((value for value in order if value is not None), None)


def pods_find_a_node(snapshot: Snapshot) -> Iterator[Finding]:
    """On each platform a node has the labels that pods select and spread by, and the size that they request."""
    pods = [(document, path) for document in snapshot.objects() if (path := pod_path(document))]
    for file, platform in snapshot.platforms.items():
        labels = list(labels_by_node(platform, snapshot.root).values()) if pods else []
        for document, path in pods:
            spec = value_under(document.data, path)
            name = f"{document.kind} {document.name}"
            for at, message, remedy in (*_unselected(spec, labels), *_too_large(spec, platform)):
                yield document.at(*path, *at).finding(f"{name} {message} (params {file.name})", remedy)


def _unselected(spec: Mapping[str, Any], labels: Sequence[Mapping[str, str]]) -> Iterator[Defect]:
    """Labels that no node has, alone or together; `labels` has those of each node."""
    remedy = "give a node that label in the params, or correct it"
    selector = spec.get("nodeSelector") or {}
    if not any(matches({"matchLabels": selector}, each) for each in labels):
        key = next((key for key, value in selector.items() if not any(each.get(key) == value for each in labels)), "")
        yield ("nodeSelector", key), f"selects {key or 'labels'}={selector.get(key, '')}, which no node has", remedy
    terms = value_under(spec, _TERMS) or ()
    known = [term.get("matchExpressions") or () for term in terms if not term.get("matchFields")]
    known = [term for term in known if not {"Gt", "Lt"} & {each.get("operator") for each in term}]
    is_met = any(matches({"matchExpressions": term}, each) for term in known for each in labels)
    if known and len(known) == len(terms) and not is_met:
        yield _TERMS, "requires labels by its nodeAffinity that no node has", remedy
    known_keys = {key for each in labels for key in each}
    for pattern in _TOPOLOGIES:
        for at, key in documents.values_at(spec, pattern):
            if key not in known_keys:
                yield at, f"spreads by {key}, a label that no node has", did_you_mean(str(key), known_keys)


def _too_large(spec: Mapping[str, Any], platform: Platform) -> Iterator[Defect]:
    sizes = {
        "cpu": max(node.cores for node in platform.nodes),
        "memory": max(node.memory_gib for node in platform.nodes) * 2**30,
    }
    for resource, size in sizes.items():
        for at, request in documents.values_at(spec, ("containers", "*", "resources", "requests", resource)):
            if amount(request) > size:
                yield at, f"requests {resource} {request}, more than the largest node has", "lower it"


_RULE_KINDS = ("VMRule", "PrometheusRule")
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
    documents = snapshot.objects(*_RULE_KINDS)
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


def _recorded(document: Document, table: metrics.MetricTable) -> Iterator[tuple[str, Metric]]:
    """The metrics that vmalert itself writes."""
    for group in value_under(document.data, ("spec", "groups")) or ():
        for rule in (rule for rule in group.get("rules") or () if rule.get("record")):
            labels = metrics.Expression(str(rule.get("expr")), table.metrics).labels | set(rule.get("labels") or {})
            yield rule["record"], Metric("vmalert", labels)


def _defects(document: Document, known: Mapping[str, Metric]) -> Iterator[Defect]:
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


def _never_right(rule: dict[str, Any], at: tuple[Key, ...], known: Mapping[str, Metric]) -> Iterator[Defect]:
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
    known: Mapping[str, Metric],
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
