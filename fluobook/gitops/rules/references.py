"""Names that point at something: issuers, classes, hosts, accounts, listeners, and what scrapes select."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluobook.gitops.reach import expected
from fluobook.kubernetes.selectors import matches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.gitops.documents import Document, Key
    from fluobook.gitops.look import Finding, Look

_ISSUER = "cert-manager.io/cluster-issuer"
_SCRAPES = {"VMPodScrape", "VMServiceScrape", "PodMonitor", "ServiceMonitor"}
_ACCOUNTS = {"default"}


@dataclass(frozen=True)
class Names:
    """What there is to point at."""

    issuers: set[str]
    classes: set[str]
    gateways: set[str]
    gateway_classes: set[str]
    accounts: set[tuple[str, str]]
    roles: set[tuple[str, str]]


def names_point_at_something(look: Look) -> Iterator[Finding]:
    """What an object names exists; an Ingress has a class, TLS for each host, and a host that no other has."""
    names = _names(look)
    hosts: dict[str, str] = {}
    for _, document in look.deployed:
        yield from _issuer(look, document, names)
        yield from _accounts(look, document, names)
        if document.kind == "Ingress":
            yield from _ingress(look, document, names, hosts)
        elif document.kind in ("Gateway", "HTTPRoute"):
            yield from _gateway(look, document, names)
        elif document.kind in _SCRAPES:
            yield from _scrape(look, document)


def _names(look: Look) -> Names:
    def named(kind: str) -> set[str]:
        return {one.name for _, one in look.deployed if one.kind == kind}

    def spaced(kind: str) -> set[tuple[str, str]]:
        return {(one.namespace, one.name) for _, one in look.deployed if one.kind == kind}

    gateways = [one for _, one in look.deployed if one.kind == "Gateway"]
    listeners = {
        f"{one.namespace}/{one.name}/{listener.get('name')}"
        for one in gateways
        for listener in (one.data.get("spec") or {}).get("listeners") or ()
    }
    return Names(
        issuers=named("ClusterIssuer") | {f"{space}/{name}" for space, name in spaced("Issuer")},
        classes={name for one in look.tree.applications if (name := _class(one.values))},
        gateways=listeners | {f"{one.namespace}/{one.name}/" for one in gateways},
        gateway_classes=named("GatewayClass"),
        accounts=spaced("ServiceAccount"),
        roles=spaced("Role") | {("", name) for name in named("ClusterRole")},
    )


def _nothing(look: Look, document: Document, path: tuple[Key, ...], what: str, known: set[str]) -> Finding:
    remedy = f"name one of {', '.join(sorted(known)) or 'none'}"
    return look.at(document, *path).finding("reference", f"there is no {what}", remedy)


def _issuer(look: Look, document: Document, names: Names) -> Iterator[Finding]:
    if (issuer := document.annotations.get(_ISSUER)) and issuer not in names.issuers:
        yield _nothing(look, document, ("metadata", "annotations", _ISSUER), f"ClusterIssuer {issuer}", names.issuers)
    reference = (document.data.get("spec") or {}).get("issuerRef") if document.kind == "Certificate" else None
    if isinstance(reference, dict):
        kind, name = reference.get("kind", "Issuer"), str(reference.get("name"))
        if (name if kind == "ClusterIssuer" else f"{document.namespace}/{name}") not in names.issuers:
            yield _nothing(look, document, ("spec", "issuerRef", "name"), f"{kind} {name}", names.issuers)


def _accounts(look: Look, document: Document, names: Names) -> Iterator[Finding]:
    spec = document.data.get("spec") or {}
    pod = ((spec.get("template") or {}).get("spec") or {}) if document.group == "apps" else {}
    account = pod.get("serviceAccountName", "default")
    if account not in _ACCOUNTS and (document.namespace, account) not in names.accounts:
        path = ("spec", "template", "spec", "serviceAccountName")
        yield _nothing(look, document, path, f"ServiceAccount {account} in {document.namespace}", _ACCOUNTS)
    if document.kind not in ("RoleBinding", "ClusterRoleBinding"):
        return
    for index, subject in enumerate(document.data.get("subjects") or ()):
        key = (subject.get("namespace", document.namespace), subject.get("name"))
        if subject.get("kind") == "ServiceAccount" and key[1] not in _ACCOUNTS and key not in names.accounts:
            yield _nothing(look, document, ("subjects", index), f"ServiceAccount {key[1]} in {key[0]}", _ACCOUNTS)
    role = document.data.get("roleRef") or {}
    if role.get("name") == "cluster-admin":
        message = f"{document.kind} {document.name} gives away the whole cluster"
        yield look.at(document, "roleRef").finding("reference", message, "bind a role with what is needed")
    elif role.get("kind") == "Role" and (document.namespace, role.get("name")) not in names.roles:
        yield _nothing(look, document, ("roleRef",), f"Role {role.get('name')} in {document.namespace}", set())


def _ingress(look: Look, document: Document, names: Names, hosts: dict[str, str]) -> Iterator[Finding]:
    def told(message: str, remedy: str, *path: Key) -> Finding:
        return look.at(document, *path).finding("reference", f"Ingress {document.name} {message}", remedy)

    spec = document.data.get("spec") or {}
    asked = spec.get("ingressClassName")
    if not asked:
        yield told("has no class", "give it ingressClassName", "spec")
    elif asked not in names.classes:
        yield _nothing(look, document, ("spec", "ingressClassName"), f"IngressClass {asked}", names.classes)
    secured = [host for one in spec.get("tls") or () for host in one.get("hosts") or ()]
    ruled = [str(rule.get("host", "")) for rule in spec.get("rules") or ()]
    for index, host in enumerate(ruled):
        if host not in secured:
            yield told(f"serves {host or 'every host'} without TLS", "add it to tls", "spec", "rules", index)
        if host in hosts:
            yield told(f"has the host of {hosts[host]}", "give each its own", "spec", "rules", index, "host")
        hosts[host] = document.name
    yield from _unserved(look, document, spec, ruled)
    if secured and _ISSUER not in document.annotations:
        yield told("has TLS and no issuer", f"annotate it with {_ISSUER}", "metadata", "name")


def _unserved(look: Look, document: Document, spec: dict[str, Any], ruled: list[str]) -> Iterator[Finding]:
    for at, one in enumerate(spec.get("tls") or ()):
        for index, host in enumerate(one.get("hosts") or ()):
            if host not in ruled:
                message = f"Ingress {document.name} has TLS for {host}, which no rule serves"
                yield look.at(document, "spec", "tls", at, "hosts", index).finding("reference", message, "correct it")


def _gateway(look: Look, document: Document, names: Names) -> Iterator[Finding]:
    spec = document.data.get("spec") or {}
    asked = spec.get("gatewayClassName")
    if document.kind == "Gateway" and asked not in names.gateway_classes:
        yield _nothing(look, document, ("spec", "gatewayClassName"), f"GatewayClass {asked}", names.gateway_classes)
    for index, parent in enumerate(spec.get("parentRefs") or ()):
        space = parent.get("namespace", document.namespace)
        if f"{space}/{parent.get('name')}/{parent.get('sectionName', '')}" not in names.gateways:
            told = f"listener {parent.get('sectionName', '')} of Gateway {parent.get('name')}"
            yield _nothing(look, document, ("spec", "parentRefs", index), told, names.gateways)


def _scrape(look: Look, document: Document) -> Iterator[Finding]:
    """Pods are known from the reachability table, Services from the tree; some other label set selects nothing."""
    spec: dict[str, Any] = document.data.get("spec") or {}
    ends = ("podMetricsEndpoints", "endpoints")
    if not any(spec.get(key) for key in ends):
        yield look.at(document, "spec").finding("reference", f"{document.kind} {document.name} asks no port", "add one")
    spaces = (spec.get("namespaceSelector") or {}).get("matchNames") or [document.namespace]
    pods = [*expected.read(look.top / expected.NAME).pods.values(), *expected.on_hosts(look.top / expected.NAME)]
    found = [(pod.namespace, dict(pod.labels)) for pod in pods]
    found += [
        (one.namespace, one.data["metadata"].get("labels") or {}) for _, one in look.deployed if one.kind == "Service"
    ]
    if not any(space in spaces and matches(spec.get("selector") or {}, labels) for space, labels in found):
        message = f"{document.kind} {document.name} selects nothing that {expected.NAME} knows"
        yield look.at(document, "spec", "selector").finding("reference", message, "correct its selector or namespace")


def _class(values: dict[str, Any]) -> str:
    controller = values.get("controller")
    resource = controller.get("ingressClassResource") if isinstance(controller, dict) else None
    return str(resource.get("name", "")) if isinstance(resource, dict) else ""
