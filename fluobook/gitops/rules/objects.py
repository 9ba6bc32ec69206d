"""Single objects: schema, values that the API server accepts, references to other objects, pod security."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluobook.errors import KUBECTL
from fluobook.gitops import documents, reachability, schemas
from fluobook.gitops.charts import CPU_FEATURES, PRIVILEGED_KINDS, chart_of
from fluobook.gitops.documents import value_under, walk
from fluobook.gitops.snapshot import checked
from fluobook.kubernetes.selectors import matches
from fluobook.params.cpus import lacks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fluobook.gitops.documents import Defect, Document, Finding, Key
    from fluobook.gitops.snapshot import Snapshot

_NOT_FOR_THE_CLUSTER = {"Kustomization", "ksops"}
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_LARGEST_PORT = 65535
_ENUMS = {
    "protocol": {"TCP", "UDP", "SCTP"},
    "policyTypes": {"Ingress", "Egress"},
    "pathType": {"Exact", "Prefix", "ImplementationSpecific"},
}
_OPERATORS = {"In", "NotIn", "Exists", "DoesNotExist"}
_ENUM_GROUPS = {"", "apps", "batch", "networking.k8s.io", "policy"}
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
_ISSUER = "cert-manager.io/cluster-issuer"
_POD_SCRAPES = {"VMPodScrape", "PodMonitor"}
_SCRAPES = _POD_SCRAPES | {"VMServiceScrape", "ServiceMonitor"}
_ENDPOINTS = ("podMetricsEndpoints", "endpoints")
_ACCOUNTS = {"default"}
_NEEDS_THE_OUTSIDE = ("ClusterIssuer", "Issuer", "Certificate", "Gateway")
_IGNORE_HEALTH = "argocd.argoproj.io/ignore-healthcheck"
_POD_SECURITY = "pod-security.kubernetes.io/"
_MODES = ("enforce", "audit", "warn")
_POD_GROUPS = {"", "apps", "batch"}
_HOST_FIELDS = {"hostNetwork", "hostPID", "hostIPC", "hostPort", "privileged"}


def objects_match_their_schema(snapshot: Snapshot) -> Iterator[Finding]:
    """Built-in objects match the schemas of the pinned Kubernetes, custom resources their CRD's where it is known."""
    files = filter(Path.exists, (*snapshot.files, snapshot.root / ".sops.yaml"))
    for part in (part for file in files if snapshot.reader.read(file) for part in checked(file)):
        document = part.document
        is_object = document.kind and document.kind not in _NOT_FOR_THE_CLUSTER
        remedy = f"{KUBECTL} explain {document.kind.lower()}" if is_object else "correct it"
        for path, message, correction in _version_defects(document) if is_object else ():
            yield document.at(*path).finding(message, correction)
        for path, message in part.mismatches:
            yield document.at(*path).finding(message, remedy)
    for document in snapshot.objects():
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
    served = schemas.versions_of(version, kind)
    if not served and schemas.has_group(version):
        yield ("kind",), f"{version} has no kind {kind}", "correct the kind"
    elif schemas.is_built_in(version) or served:
        remedy = f"write it in {' or '.join(served)}" if served else "correct apiVersion and kind"
        yield ("apiVersion",), f"no cluster here serves {kind} in {version}", remedy


def objects_are_valid(snapshot: Snapshot) -> Iterator[Finding]:
    """Names and labels are what Kubernetes allows, enums have known values, selectors match their own pods."""
    for document in snapshot.documents:
        if document.kind:
            defects = [*_metadata_defects(document), *_selector_defects(document)]
            if document.group in _ENUM_GROUPS:
                defects += _value_defects(document.data.get("spec"))
            for path, message, remedy in defects:
                yield document.at(*path).finding(f"{document.kind} {document.name}: {message}", remedy)


def _metadata_defects(document: Document) -> Iterator[Defect]:
    metadata = document.data.get("metadata") or {}
    name = metadata.get("name")
    if isinstance(name, str) and not _NAME.fullmatch(name) and document.kind not in ("Role", "ClusterRole"):
        yield ("metadata", "name"), f"{name} is not a valid name", "lower case letters, digits, - and ."
    if document.namespace and schemas.is_cluster_scoped(document.group, document.kind):
        yield ("metadata", "namespace"), "objects of this kind have no namespace", "remove it"
    for key, value in (metadata.get("labels") or {}).items():
        if isinstance(value, str) and not _LABEL.fullmatch(value):
            remedy = "63 letters, digits, -, _ and . at most"
            yield ("metadata", "labels", key), f"{value} is not a valid label value", remedy
    for field in ("annotations", "labels"):
        for key in metadata.get(field) or {}:
            if not _is_known_key(str(key)):
                yield ("metadata", field, key), f"nothing reads {key}", "correct its name"


def _is_known_key(key: str) -> bool:
    prefix, _, name = key.partition("/")
    return key in _OUR_KEYS if prefix == "fluobook" else prefix != "argocd.argoproj.io" or name in _ARGOCD_KEYS


def _value_defects(spec: Any) -> Iterator[Defect]:
    for path, key, value in walk(spec, ("spec",)):
        known = _OPERATORS if key == "operator" and path[-3:-2] == ("matchExpressions",) else _ENUMS.get(str(key))
        for word in (value if isinstance(value, list) else [value]) if known else ():
            if isinstance(word, str) and known and word not in known:
                yield path, f"{word} is none of {', '.join(sorted(known))}", "correct the word"
        if key in ("port", "targetPort", "containerPort", "nodePort", "endPort") and not _is_port(value):
            yield path, f"{key} {value!r} is not a port", "a number from 1 to 65535, without quotes, or a port's name"


def _is_port(value: Any) -> bool:
    if isinstance(value, str):
        return not value.isdigit()
    return not isinstance(value, int) or 0 < value <= _LARGEST_PORT


def _selector_defects(document: Document) -> Iterator[Defect]:
    selector = value_under(document.data, ("spec", "selector", "matchLabels")) or {}
    labels = value_under(document.data, ("spec", "template", "metadata", "labels")) or {}
    if document.group == "apps" and not matches({"matchLabels": selector}, labels):
        yield ("spec", "selector"), "its selector does not match its own pods", "give the template the same labels"


@dataclass(frozen=True)
class Names:
    """The names that objects of the tree may refer to."""

    issuers: set[str]
    classes: set[str]
    gateways: set[str]
    gateway_classes: set[str]
    accounts: set[tuple[str, str]]
    roles: set[tuple[str, str]]


def references_exist(snapshot: Snapshot) -> Iterator[Finding]:
    """What an object names exists; an Ingress has a class, TLS for each host, and a host that no other has."""
    names = _names(snapshot)
    hosts: dict[str, str] = {}
    for document in snapshot.objects():
        defects = [*_issuer_defects(document, names), *_account_defects(document, names)]
        if document.kind == "Ingress":
            defects += _ingress_defects(document, names, hosts)
        elif document.kind in ("Gateway", "HTTPRoute"):
            defects += _gateway_defects(document, names)
        elif document.kind in _SCRAPES:
            defects += _scrape_defects(snapshot, document)
        for path, message, remedy in defects:
            yield document.at(*path).finding(message, remedy)


def _names(snapshot: Snapshot) -> Names:
    def named(kind: str) -> set[str]:
        return {document.name for document in snapshot.objects(kind)}

    def namespaced(kind: str) -> set[tuple[str, str]]:
        return {(document.namespace, document.name) for document in snapshot.objects(kind)}

    gateways = snapshot.objects("Gateway")
    listeners = {
        f"{gateway.namespace}/{gateway.name}/{listener.get('name')}"
        for gateway in gateways
        for listener in (gateway.data.get("spec") or {}).get("listeners") or ()
    }
    class_path = ("controller", "ingressClassResource", "name")
    return Names(
        issuers=named("ClusterIssuer") | {f"{namespace}/{name}" for namespace, name in namespaced("Issuer")},
        classes={str(name) for app in snapshot.applications if (name := value_under(app.values, class_path))},
        gateways=listeners | {f"{gateway.namespace}/{gateway.name}/" for gateway in gateways},
        gateway_classes=named("GatewayClass"),
        accounts=namespaced("ServiceAccount"),
        roles=namespaced("Role") | {("", name) for name in named("ClusterRole")},
    )


def _missing(path: tuple[Key, ...], name: str, known: Iterable[str]) -> Defect:
    names = ", ".join(sorted(known))
    return path, f"there is no {name}", f"name one of {names}" if names else "add it, or correct the name"


def _issuer_defects(document: Document, names: Names) -> Iterator[Defect]:
    if (issuer := document.annotations.get(_ISSUER)) and issuer not in names.issuers:
        yield _missing(("metadata", "annotations", _ISSUER), f"ClusterIssuer {issuer}", names.issuers)
    reference = (document.data.get("spec") or {}).get("issuerRef") if document.kind == "Certificate" else None
    if isinstance(reference, dict):
        kind, name = reference.get("kind", "Issuer"), str(reference.get("name"))
        if (name if kind == "ClusterIssuer" else f"{document.namespace}/{name}") not in names.issuers:
            yield _missing(("spec", "issuerRef", "name"), f"{kind} {name}", names.issuers)


def _account_defects(document: Document, names: Names) -> Iterator[Defect]:
    path = ("spec", "template", "spec", "serviceAccountName")
    account = (value_under(document.data, path) if document.group == "apps" else None) or "default"
    if account not in _ACCOUNTS and (document.namespace, account) not in names.accounts:
        yield _missing(path, f"ServiceAccount {account} in {document.namespace}", _ACCOUNTS)
    if document.kind not in ("RoleBinding", "ClusterRoleBinding"):
        return
    for index, subject in enumerate(document.data.get("subjects") or ()):
        key = (subject.get("namespace", document.namespace), subject.get("name"))
        if subject.get("kind") == "ServiceAccount" and key[1] not in _ACCOUNTS and key not in names.accounts:
            yield _missing(("subjects", index), f"ServiceAccount {key[1]} in {key[0]}", _ACCOUNTS)
    role = document.data.get("roleRef") or {}
    if role.get("name") == "cluster-admin":
        message = f"{document.kind} {document.name} grants the whole cluster"
        yield ("roleRef",), message, "bind a role with what is needed"
    elif role.get("kind") == "Role" and (document.namespace, role.get("name")) not in names.roles:
        yield _missing(("roleRef",), f"Role {role.get('name')} in {document.namespace}", ())


def _ingress_defects(document: Document, names: Names, hosts: dict[str, str]) -> Iterator[Defect]:
    """`hosts` collects the hosts of all Ingresses, with the name of the last that has it."""
    spec, name = document.data.get("spec") or {}, f"Ingress {document.name}"
    ingress_class = spec.get("ingressClassName")
    if not ingress_class:
        yield ("spec",), f"{name} has no class", "give it ingressClassName"
    elif ingress_class not in names.classes:
        yield _missing(("spec", "ingressClassName"), f"IngressClass {ingress_class}", names.classes)
    tls_hosts = {
        host: ("spec", "tls", at, "hosts", index)
        for at, tls in enumerate(spec.get("tls") or ())
        for index, host in enumerate(tls.get("hosts") or ())
    }
    rule_hosts = [str(rule.get("host", "")) for rule in spec.get("rules") or ()]
    for index, host in enumerate(rule_hosts):
        if host not in tls_hosts:
            yield ("spec", "rules", index), f"{name} serves {host or 'every host'} without TLS", "add it to tls"
        if host in hosts:
            yield ("spec", "rules", index, "host"), f"{name} has the same host as {hosts[host]}", "give each its own"
        hosts[host] = document.name
    for host, path in tls_hosts.items():
        if host not in rule_hosts:
            yield path, f"{name} has TLS for {host}, which no rule serves", "correct it"
    if tls_hosts and _ISSUER not in document.annotations:
        yield ("metadata", "name"), f"{name} has TLS and no issuer", f"annotate it with {_ISSUER}"


def _gateway_defects(document: Document, names: Names) -> Iterator[Defect]:
    spec = document.data.get("spec") or {}
    gateway_class = spec.get("gatewayClassName")
    if document.kind == "Gateway" and gateway_class not in names.gateway_classes:
        yield _missing(("spec", "gatewayClassName"), f"GatewayClass {gateway_class}", names.gateway_classes)
    for index, parent in enumerate(spec.get("parentRefs") or ()):
        listener = parent.get("sectionName", "")
        key = f"{parent.get('namespace', document.namespace)}/{parent.get('name')}/{listener}"
        if key not in names.gateways:
            name = f"listener {listener} of Gateway {parent.get('name')}"
            yield _missing(("spec", "parentRefs", index), name, names.gateways)


def _scrape_defects(snapshot: Snapshot, document: Document) -> Iterator[Defect]:
    """Pods are known from the reachability table and the tree's workloads, Services from the tree."""
    spec: dict[str, Any] = document.data.get("spec") or {}
    name = f"{document.kind} {document.name}"
    if not any(spec.get(key) for key in _ENDPOINTS):
        yield ("spec",), f"{name} scrapes no port", "add one"
    selected = spec.get("namespaceSelector") or {}
    namespaces = selected.get("matchNames") or [document.namespace]
    selector = spec.get("selector") or {}
    targets = [
        ports
        for namespace, labels, ports in _scrapable(snapshot, document.kind)
        if (selected.get("any") or namespace in namespaces) and matches(selector, labels)
    ]
    if not targets:
        message = f"{name} selects nothing in {reachability.NAME} or in the tree"
        yield ("spec", "selector"), message, "correct its selector or namespace"
    ports = {port for names in targets for port in names}
    endpoints = [(field, *entry) for field in _ENDPOINTS for entry in enumerate(spec.get(field) or ())]
    for field, index, endpoint in endpoints:
        port = endpoint.get("port")
        if port and targets and all(targets) and port not in ports:
            message = f"{name} scrapes {port}, a port that its targets do not have"
            yield ("spec", field, index), message, f"name one of {', '.join(sorted(ports))}"


def _scrapable(snapshot: Snapshot, kind: str) -> Iterator[tuple[str, Mapping[str, str], Iterable[str]]]:
    """Namespace, labels and names of ports of what a scrape of a kind selects; no names where they are not known."""
    table = snapshot.table
    for pod in [*table.pods.values(), *table.host_network_pods]:
        yield pod.namespace, pod.labels, pod.named_ports if kind in _POD_SCRAPES else ()
    for workload in snapshot.objects("Deployment", "StatefulSet", "DaemonSet") if kind in _POD_SCRAPES else ():
        template = value_under(workload.data, ("spec", "template")) or {}
        containers = value_under(template, ("spec", "containers")) or ()
        names = [port.get("name", "") for container in containers for port in container.get("ports") or ()]
        yield workload.namespace, value_under(template, ("metadata", "labels")) or {}, names
    for service in snapshot.objects("Service") if kind not in _POD_SCRAPES else ():
        names = [port.get("name", "") for port in value_under(service.data, ("spec", "ports")) or ()]
        yield service.namespace, service.data["metadata"].get("labels") or {}, names


def pod_security_matches_the_pods(snapshot: Snapshot) -> Iterator[Finding]:
    """A namespace is privileged where something needs it and nowhere else; the three modes agree."""
    reasons = {app.namespace: chart_of(app).privileged for app in snapshot.applications if chart_of(app).privileged}
    reasons |= {document.namespace: PRIVILEGED_KINDS[document.kind] for document in snapshot.objects(*PRIVILEGED_KINDS)}
    reasons |= {
        document.namespace: reason for document in snapshot.objects() if (reason := _privileged_field(document))
    }
    for name, (_, namespace) in snapshot.namespaces.items():
        labels = (namespace.data["metadata"].get("labels")) or {}
        levels = {mode: labels.get(_POD_SECURITY + mode, "") for mode in _MODES}
        place = namespace.at("metadata", "labels", _POD_SECURITY + "enforce")
        if missing := [mode for mode, level in levels.items() if not level]:
            yield place.finding(f"{name} has no label {_POD_SECURITY}{missing[0]}", "give it all three")
        elif len(set(levels.values())) > 1:
            yield place.finding(f"{name}: enforce, audit and warn differ", "give them one level")
        elif name in reasons and levels["enforce"] != "privileged":
            yield place.finding(f"{name} must be privileged: {reasons[name]}", "label it privileged")
        elif name not in reasons and levels["enforce"] == "privileged":
            yield place.finding(f"{name} is privileged, and nothing in it needs that", "label it baseline")


def _privileged_field(document: Document) -> str:
    """The field of a workload of the tree that only a privileged namespace allows, "" for none."""
    if document.group not in _POD_GROUPS:
        return ""
    for _, key, value in walk(document.data.get("spec")):
        if key == "hostPath" or (key in _HOST_FIELDS and value):
            return f"{document.kind} {document.name} sets {key}"
    return ""


def waves_do_not_wait_for_the_outside(snapshot: Snapshot) -> Iterator[Finding]:
    """What is healthy only if a certificate authority is reachable does not hold back later waves."""
    for document in snapshot.objects(*_NEEDS_THE_OUTSIDE):
        if document.annotations.get(_IGNORE_HEALTH) != "true":
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
