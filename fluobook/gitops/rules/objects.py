"""Single objects: their schema and selectors, pod security, and what their workloads need."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from fluobook.errors import KUBECTL
from fluobook.gitops import documents, kustomization, schemas
from fluobook.gitops.charts import CPU_FEATURES, PRIVILEGED_KINDS, chart_of
from fluobook.gitops.documents import issuer_of, pod_path, value_under
from fluobook.gitops.snapshot import Checked, checked
from fluobook.gitops.tree import INTEGER, WAVE
from fluobook.kubernetes.pod_security import LEVELS, violations
from fluobook.kubernetes.quantities import amount
from fluobook.kubernetes.selectors import matches
from fluobook.machine.node import labels_by_node
from fluobook.params.cpus import lacks
from fluobook.params.problems import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
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
_OUR_KEYS = {"fluobook/phase-values", "fluobook/needed-before", "fluobook/pool"}
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
            restore = f"restore the committed version: git checkout -- {document.file.name}"
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
            for path, message, remedy in (*_metadata_defects(document), *_selector_defects(document)):
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
