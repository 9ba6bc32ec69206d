"""References: what objects name exists, Services and probes lead to ports that pods have, hosts have TLS."""

from __future__ import annotations

import re
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from fluobook.files import packaged
from fluobook.gitops import reachability, schemas
from fluobook.gitops.charts import chart_of
from fluobook.gitops.documents import issuer_of, pod_path, value_under, values_at
from fluobook.gitops.snapshot import INITIAL_NAMESPACES
from fluobook.gitops.tree import DASHBOARD
from fluobook.kubernetes.quantities import amount
from fluobook.kubernetes.selectors import matches
from fluobook.params.problems import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fluobook.gitops.documents import Defect, Document, Finding, Key
    from fluobook.gitops.snapshot import Snapshot
    from fluobook.gitops.tree import Application

_TABLE = packaged("fluobook.gitops", "data/references.yaml")
_ISSUER = "cert-manager.io/cluster-issuer"
_NGINX = "nginx.ingress.kubernetes.io"
_POD_SCRAPES = {"VMPodScrape", "PodMonitor"}
_SCRAPES = _POD_SCRAPES | {"VMServiceScrape", "ServiceMonitor"}
_ENDPOINTS = ("podMetricsEndpoints", "endpoints")
_CONTAINERS = ("containers", "initContainers")
_CERTIFIED = (("spec", "dnsNames", "*"), ("spec", "commonName"), ("spec", "tls", "*", "hosts", "*"))
_PRIVATE = (".svc", ".local", ".internal", ".lan", ".home.arpa", ".localhost", ".test")
_CONTAINER_NAMES = [
    (*at, "resourceFieldRef", "containerName")
    for at in (
        ("containers", "*", "env", "*", "valueFrom"),
        ("volumes", "*", "downwardAPI", "items", "*"),
    )
]
_SLEEP = ("lifecycle", "preStop", "sleep", "seconds")
_VARIABLE = re.compile(r"(?<!\$)\$\(([A-Za-z_][A-Za-z0-9_]*)\)")
_EXPANDED = (("command", "*"), ("args", "*"), ("env", "*", "value"))
_REPLICAS = ("spec", "replicas")
_SIDECAR = ("grafana", "sidecar", "dashboards")
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")


class Pods(NamedTuple):
    """The pods of a workload: their labels, and the ports that they declare by name."""

    namespace: str
    labels: Mapping[str, str]
    ports: list[tuple[str, int]]


class Known:
    """What the objects of a tree may name: other objects, what charts and operators make, what every cluster has."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot

    @cached_property
    def objects(self) -> dict[tuple[str, str, str], Mapping[str, Any]]:
        """The data of each object by kind, namespace and name; {} where its content is not known."""
        objects: dict[tuple[str, str, str], Mapping[str, Any]] = {}
        for app in self.snapshot.applications:
            for name, ports in chart_of(app).serves.items():
                data = {"spec": {"ports": [{"port": port} for port in ports]}}
                objects["Service", app.namespace, name.format(release=app.release)] = data
            if name := value_under(app.values, ("controller", "ingressClassResource", "name")):
                objects["IngressClass", "", str(name)] = {}
        for document in self.snapshot.objects():
            made = _TABLE["secrets"].get(document.kind) or {}
            names = [form.format(document.name) for form in made.get("names", ())]
            if "at" in made and issuer_of(document)[2]:
                names += [str(name) for _, name in values_at(document.data, made["at"].split("."))]
            for name in names:
                objects["Secret", document.namespace, name] = {"data": dict.fromkeys(made["keys"], "")}
        return objects | {(each.kind, each.namespace, each.name): each.data for each in self.snapshot.objects()}

    @cached_property
    def makers(self) -> dict[str, set[str]]:
        """By namespace, patterns of the names of what charts' releases and custom resources make."""
        makers: dict[str, set[str]] = {}
        for app in self.snapshot.applications:
            if not self.snapshot.tree.is_ours(app):
                names = filter(None, (app.release, app.values.get("fullnameOverride")))
                makers.setdefault(app.namespace, set()).update(f"*-{name}-*" for name in names)
        for document in self.snapshot.objects():
            if (
                not schemas.is_built_in(str(document.data.get("apiVersion", "")))
                and document.kind not in _TABLE["barren"]
            ):
                forms = [f"-{form}-" for form in _TABLE["makers"].get(document.kind, ())] or ["*-{}-*"]
                makers.setdefault(document.namespace, set()).update(form.format(document.name) for form in forms)
        return makers

    @cached_property
    def pods(self) -> list[Pods]:
        """The pods of the tree's own workloads."""
        return [
            Pods(document.namespace, labels if isinstance(labels, dict) else {}, _ports(document, path))
            for document in self.snapshot.objects()
            if (path := pod_path(document))
            for labels in [value_under(document.data, (*path[:-1], "metadata", "labels"))]
        ]

    def find(self, kind: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        """The data of what is named, {} where its content is not known, None if there is no such object."""
        for key in ((kind, namespace, name), (kind, "", name)):
            if key in self.objects:
                return self.objects[key]
        is_always = any(fnmatchcase(name, always) for always in _TABLE["always"].get(kind, ()))
        if is_always or kind not in self._kinds:
            return {}
        if kind in _TABLE["made"]:
            makers = self.makers.get(namespace, set()) if namespace else set().union(*self.makers.values())
            if namespace in INITIAL_NAMESPACES or any(fnmatchcase(f"-{name}-", maker) for maker in makers):
                return {}
        homeless = [ns for other, ns, own in self.objects if (other, own) == (kind, name) and ns]
        return None if INITIAL_NAMESPACES.union(self.snapshot.namespaces).issuperset(homeless) else {}

    @cached_property
    def _kinds(self) -> set[str]:
        """The kinds that the table names; an object of another one may be anything."""
        entries = [entry for entries in (_TABLE["pods"], *_TABLE["kinds"].values()) for entry in entries]
        kinds = {entry.get("kind") or entry.get("otherwise") for entry in entries}
        return kinds | set(_TABLE["made"]) | {"ClusterIssuer", "ServiceAccount"}

    def names(self, kind: str, namespace: str) -> list[str]:
        """The names of a kind's objects in a namespace."""
        return sorted(name for other, ns, name in self.objects if other == kind and ns in (namespace, ""))


def required_by(document: Document) -> Iterator[tuple[tuple[Key, ...], str, str]]:
    """What must exist before a pod of an object runs: the path of each name, the kind of what is named, its name."""
    pod = pod_path(document)
    for entry in _TABLE["pods"] if pod else ():
        for path, name in values_at(value_under(document.data, pod), entry["at"].split("."), pod):
            if isinstance(name, str) and name and not value_under(document.data, path[:-1]).get("optional"):
                yield path, entry["kind"], name


def references_exist(snapshot: Snapshot) -> Iterator[Finding]:
    """What an object names exists; an Ingress has a class, TLS for each host, and a host that no other has."""
    known = Known(snapshot)
    certificates: dict[tuple[str, str], tuple[str, set[str]]] = {}
    for document in snapshot.objects():
        defects = [*_reference_defects(document, known), *_pod_defects(document, known), *_role_defects(document)]
        if document.kind == "Ingress":
            defects += [*_ingress_defects(document, known), *_nginx_defects(document, known)]
        if document.kind in ("Certificate", "Ingress"):
            defects += _shared_certificates(document, certificates)
        elif document.kind in ("Service", "PodDisruptionBudget"):
            defects += _selection_defects(document, known)
        elif document.kind == "HorizontalPodAutoscaler":
            defects += _scaler_defects(document, known)
            yield from _replicas_beside(document, snapshot)
        elif document.kind == "ConfigMap":
            defects += _unseen_dashboards(document, snapshot)
        elif document.kind in _SCRAPES:
            defects += _scrape_defects(snapshot, document)
        for path, message, remedy in defects:
            yield document.at(*path).finding(message, remedy)
    yield from _hosts_are_served(snapshot, known)


def _reference_defects(document: Document, known: Known) -> Iterator[Defect]:
    pod = pod_path(document)
    entries = [(pod, entry) for entry in (_TABLE["pods"] if pod else ())]
    entries += [((), entry) for entry in _TABLE["kinds"].get(document.kind, ())]
    for above, entry in entries:
        at = entry["at"] if isinstance(entry["at"], list) else entry["at"].split(".")
        for path, name in values_at(value_under(document.data, above), at, above):
            beside = value_under(document.data, path[:-1]) if len(at) > 1 else {}
            if isinstance(name, str) and name and not beside.get("optional"):
                yield from _named_defects(document, known, entry, path)


def _named_defects(
    document: Document, known: Known, entry: Mapping[str, Any], path: tuple[Key, ...]
) -> Iterator[Defect]:
    """What is wrong with one name: there is no such object, or not the part of it that is named too."""
    name, beside = value_under(document.data, path), value_under(document.data, path[:-1])
    kind = entry.get("kind") or str(beside.get("kind") or entry.get("otherwise"))
    version = str(beside.get("apiVersion") or "")
    if version and schemas.has_group(version) and not schemas.is_known(version, kind):
        kinds = schemas.kinds_of(version)
        yield (*path[:-1], "kind"), f"{version} has no kind {kind}", did_you_mean(kind, kinds)
        return
    namespace = "" if "annotations" in path else str(beside.get("namespace") or "")
    namespace = namespace or document.namespace
    target = known.find(kind, namespace, name)
    if kind not in entry.get("kinds", (kind,)) and not beside.get("group"):
        yield (*path[:-1], "kind"), f"there is no kind {kind}", did_you_mean(kind, entry["kinds"])
    elif target is None and entry.get("silent"):
        return
    elif target is None:
        place = "" if kind.startswith("Cluster") or kind.endswith("Class") else f" in {namespace}"
        names = known.names(kind, namespace)
        yield path, f"there is no {kind} {name}{place}", did_you_mean(name, names) if names else "add it, or correct it"
    elif target and "holds" in entry and (held := _keys(target)):
        for key in (key for key in entry["holds"] if key not in held):
            yield path, f"{kind} {name} has no key {key}, which {document.kind} {document.name} needs", "add it"
    elif target and "key" in entry:
        parts = [part for among in entry["among"] for _, part in values_at(target, among.split("."))]
        keys = [key for part in parts for key in (part if isinstance(part, dict) else [part])]
        for key_path, key in values_at(beside, entry["key"].split("."), path[:-1]):
            if key not in keys and (keys or "sops" not in target):
                listed = ", ".join(map(str, keys)) or "nothing"
                yield key_path, f"{kind} {name} has no {entry.get('word', 'key')} {key}", f"it has {listed}"


def _keys(data: Mapping[str, Any]) -> set[str]:
    """The keys of a Secret or ConfigMap."""
    return {str(key) for part in ("data", "stringData", "binaryData") for key in data.get(part) or ()}


def _role_defects(document: Document) -> Iterator[Defect]:
    """What a role or a binding grants: too much, or resources that do not exist, which is nothing."""
    for index, rule in enumerate(document.data.get("rules") or () if document.kind in ("Role", "ClusterRole") else ()):
        known = {group: schemas.resources_of(group) for group in map(str, rule.get("apiGroups") or ())}
        for number, resource in enumerate(rule.get("resources") or () if known and all(known.values()) else ()):
            name = str(resource).partition("/")[0]
            if name != "*" and not any(name in resources for resources in known.values()):
                groups = " or ".join(group or "the core group" for group in known)
                homes = [group for group in schemas.groups_of(name) if group not in known]
                remedy = f"it is in {homes[0]}" if homes else did_you_mean(name, set().union(*known.values()))
                yield ("rules", index, "resources", number), f"there is no resource {name} in {groups}", remedy
    is_binding = document.kind in ("RoleBinding", "ClusterRoleBinding")
    if is_binding and value_under(document.data, ("roleRef", "name")) == "cluster-admin":
        message = f"{document.kind} {document.name} grants the whole cluster"
        yield ("roleRef",), message, "bind a role with what is needed"


def _ports(document: Document, path: tuple[Key, ...]) -> list[tuple[str, int]]:
    containers = values_at(document.data, (*path, "containers", "*", "ports", "*"))
    return [(str(port.get("name", "")), port.get("containerPort", 0)) for _, port in containers]


def _pod_defects(document: Document, known: Known) -> Iterator[Defect]:
    """Mounts without a volume, and what is wrong with the containers of a pod."""
    pod = pod_path(document)
    spec = value_under(document.data, pod) if pod else {}
    claims = values_at(document.data, ("spec", "volumeClaimTemplates", "*", "metadata", "name"))
    volumes = {name for _, name in (*values_at(spec, ("volumes", "*", "name")), *claims)}
    is_guarded = value_under(spec, ("securityContext", "runAsNonRoot")) is True
    names: set[str] = set()
    for path, container in (each for field in _CONTAINERS for each in values_at(spec, (field, "*"), pod)):
        name, context = str(container.get("name")), container.get("securityContext") or {}
        for place, mount in values_at(container, ("volumeMounts", "*", "name"), path):
            if mount not in volumes:
                remedy = did_you_mean(mount, volumes) if volumes else "add it to volumes"
                yield place, f"{document.kind} {document.name} has no volume {mount}", remedy
        if name in names:
            yield (*path, "name"), f"{document.kind} {document.name} has two containers {name}", "rename one of them"
        names.add(name)
        if is_guarded and context.get("runAsUser") == 0 and context.get("runAsNonRoot") is not False:
            place = (*path, "securityContext", "runAsUser")
            yield place, f"container {name} runs as user 0, which the pod's runAsNonRoot refuses", "give it another"
        yield from _container_defects(container, path, _variables(container, document.namespace, known))
        grace = spec.get("terminationGracePeriodSeconds", 30)
        if (seconds := value_under(container, _SLEEP) or 0) > grace:
            message = f"it sleeps {seconds} s, more than terminationGracePeriodSeconds {grace}"
            yield (*path, *_SLEEP), message, "shorten it, or raise the other"
    for pattern in _CONTAINER_NAMES:
        for path, name in values_at(spec, pattern, pod):
            if name not in names:
                yield path, f"{document.kind} {document.name} has no container {name}", did_you_mean(name, names)


def _variables(container: Mapping[str, Any], namespace: str, known: Known) -> set[str]:
    """The names of a container's variables; none if one of its sources is not known."""
    names = {str(variable.get("name", "")) for variable in container.get("env") or ()}
    for source in container.get("envFrom") or ():
        for field, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
            if name := value_under(source, (field, "name")):
                target = known.find(kind, namespace, str(name)) or {}
                keys = {key for part in ("data", "stringData") for key in target.get(part) or ()}
                if not keys:
                    return set()
                names |= {f"{source.get('prefix') or ''}{key}" for key in keys}
    return names


def _container_defects(container: Mapping[str, Any], path: tuple[Key, ...], declared: set[str]) -> Iterator[Defect]:
    """Probes of ports without the container's name, misspelt variables, and requests beyond their limit."""
    names = {port.get("name") for port in container.get("ports") or ()}
    for handler in ((*each, "*", "port") for each in (*((probe,) for probe in _PROBES), ("lifecycle", "*"))):
        for place, port in values_at(container, handler, path):
            if isinstance(port, str) and port not in names:
                yield place, f"the container has no port {port}", did_you_mean(port, filter(None, names))
    for place, text in (each for field in _EXPANDED for each in values_at(container, field, path)):
        for name in _VARIABLE.findall(str(text)):
            if name not in declared and (meant := get_close_matches(name, declared, n=1, cutoff=0.8)):
                yield place, f"the container has no variable {name}", f"did you mean {meant[0]!r}?"
    for place, request in values_at(container, ("resources", "requests", "*"), path):
        limit = value_under(container, ("resources", "limits", place[-1]))
        if limit is not None and amount(request) > amount(limit):
            yield place, f"the request {request} is more than the limit {limit}", "lower it, or raise the limit"


def _selection_defects(document: Document, known: Known) -> Iterator[Defect]:
    """A Service or a budget selects pods that exist, and a Service leads to ports that they have."""
    is_service = document.kind == "Service" and not document.group
    selector = value_under(document.data, ("spec", "selector")) or {}
    kind = value_under(document.data, ("spec", "type")) if is_service else ""
    if is_service and not selector and kind != "ExternalName":
        yield from _endpointless(document, known)
    if not selector or kind in ("ExternalName", "LoadBalancer"):  # the rule `exposure` reports those of LoadBalancers
        return
    expression, name = {"matchLabels": selector} if is_service else selector, f"{document.kind} {document.name}"
    own = [pods for pods in known.pods if pods.namespace == document.namespace]
    selected = [pods for pods in own if matches(expression, pods.labels)]
    others = [pod for pod in known.snapshot.table.pods.values() if pod.namespace == document.namespace]
    if known.makers.get(document.namespace) and not selected:
        labels = {key for pod in others for key in pod.labels}
        if any(matches(expression, pod.labels) for pod in others) or not labels.issuperset(selector):
            return  # a chart's or an operator's pods, whose labels are not all known
    if not selected:
        keys = sorted({f"{key}: {value}" for pods in own for key, value in pods.labels.items()})
        remedy = f"the pods there have {', '.join(keys)}" if keys else "correct its selector or namespace"
        yield ("spec", "selector"), f"{name} selects no pod in {document.namespace}", remedy
    elif not is_service:
        yield from _budget_defects(document, known, selector)
    elif is_service:
        for index, port in enumerate(value_under(document.data, ("spec", "ports")) or ()):
            target = port.get("targetPort", port.get("port"))
            without = [pods for pods in selected if pods.ports and target not in _targets(pods, others, known.snapshot)]
            if without:
                where = ("spec", "ports", index, "targetPort" if "targetPort" in port else "port")
                which = (
                    "its pods do not" if len(without) == len(selected) else f"not all of its {len(selected)} workloads"
                )
                remedy = f"name one of {', '.join(str(name or number) for name, number in without[0].ports)}"
                remedy = remedy if len(without) == len(selected) else "select the pods of one workload"
                yield where, f"{name} leads to port {target}, which {which} have", remedy


def _endpointless(document: Document, known: Known) -> Iterator[Defect]:
    slices = known.snapshot.objects("EndpointSlice", "Endpoints")
    labels = [value_under(each.data, ("metadata", "labels", "kubernetes.io/service-name")) for each in slices]
    if document.name not in {*labels, *(each.name for each in slices)}:
        remedy = "give it the labels of its pods, or an EndpointSlice"
        yield ("spec",), f"Service {document.name} has no selector, and leads nowhere", remedy


def _targets(pods: Pods, others: Iterable[Any], snapshot: Snapshot) -> set[str | int]:
    """The ports of pods by name and number, those of the reachability table included."""
    own = [pod for pod in others if matches({"matchLabels": pod.labels}, pods.labels)]
    listed = {port for pod in own for port, _ in snapshot.table.ports(pod.name)}
    return {each for pair in pods.ports for each in pair} | listed


def _budget_defects(document: Document, known: Known, selector: Mapping[str, Any]) -> Iterator[Defect]:
    """A budget that allows no eviction: a node with such a pod is never drained."""
    scaled = {
        (scaler.namespace, value_under(scaler.data, ("spec", "scaleTargetRef", "name"))): scaler.data.get("spec") or {}
        for scaler in known.snapshot.objects("HorizontalPodAutoscaler")
    }
    for workload in known.snapshot.objects("Deployment", "StatefulSet"):
        spec, scaler = workload.data.get("spec") or {}, scaled.get((workload.namespace, workload.name), {})
        labels = value_under(spec, ("template", "metadata", "labels")) or {}
        if workload.namespace != document.namespace or not matches(selector, labels):
            continue
        replicas = max(spec.get("replicas", 1), scaler.get("minReplicas", 1) if scaler else 0)
        for field, forbidden in (("maxUnavailable", (0, "0%")), ("minAvailable", (replicas, "100%"))):
            value = value_under(document.data, ("spec", field))
            if replicas and (value in forbidden or (field == "minAvailable" and amount(value) > replicas)):
                message = f"{document.name} lets none of the {replicas} pods of {workload.name} be evicted"
                remedy = "allow one, or no node with one of them can be drained"
                yield ("spec", field), f"{document.kind} {message}", remedy


def _scaler_defects(document: Document, known: Known) -> Iterator[Defect]:
    """Utilization is a part of the request: without one in every container, nothing is ever scaled."""
    target = value_under(document.data, ("spec", "scaleTargetRef")) or {}
    workload = known.find(str(target.get("kind")), document.namespace, str(target.get("name"))) or {}
    containers = [each for _, each in values_at(workload, ("spec", "template", "spec", "containers", "*"))]
    for path, metric in values_at(document.data, ("spec", "metrics", "*", "resource")):
        name, kind = metric.get("name"), value_under(metric, ("target", "type"))
        for container in containers if kind == "Utilization" else ():
            declared = [value_under(container, ("resources", field, name)) for field in ("requests", "limits")]
            if not any(declared):
                message = f"container {container.get('name')} of {target.get('name')} requests no {name}"
                yield (*path, "name"), message, "give it a request: utilization is a part of it"


def _replicas_beside(scaler: Document, snapshot: Snapshot) -> Iterator[Finding]:
    """A number in Git that an autoscaler changes: Argo CD heals it each time."""
    target = value_under(scaler.data, ("spec", "scaleTargetRef")) or {}
    wanted = (target.get("kind"), scaler.namespace, target.get("name"))
    for app, workload in snapshot.deployed:
        own = (workload.kind, workload.namespace, workload.name)
        if own == wanted and value_under(workload.data, _REPLICAS) is not None and not _ignores_replicas(app, workload):
            message = f"Argo CD and HorizontalPodAutoscaler {scaler.name} overwrite each other's replicas for ever"
            remedy = "leave replicas out, or list /spec/replicas in the Application's ignoreDifferences"
            yield workload.at(*_REPLICAS).finding(message, remedy)


def _ignores_replicas(app: Application, workload: Document) -> bool:
    for entry in value_under(app.document.data, ("spec", "ignoreDifferences")) or ():
        paths = [*(entry.get("jsonPointers") or ()), *(entry.get("jqPathExpressions") or ())]
        is_meant = (
            fnmatchcase(workload.kind, str(entry.get("kind", ""))) and entry.get("name", workload.name) == workload.name
        )
        if is_meant and (any("replicas" in str(path) for path in paths) or entry.get("managedFieldsManagers")):
            return True
    return False


def _unseen_dashboards(document: Document, snapshot: Snapshot) -> Iterator[Defect]:
    """Dashboards in another namespace than the one that Grafana's sidecar watches."""
    labels = value_under(document.data, ("metadata", "labels")) or {}
    for app in snapshot.applications if labels else ():
        sidecar = value_under(app.values, _SIDECAR) or {}
        is_watching = "grafana" in app.values and sidecar.get("enabled", True)
        if not is_watching or sidecar.get("label", DASHBOARD) not in labels:
            continue
        watched = str(sidecar.get("searchNamespace") or app.namespace)
        if watched != "ALL" and document.namespace not in watched.split(","):
            message = f"Grafana's sidecar watches {watched}, and {document.name} is in {document.namespace}"
            yield ("metadata", "namespace"), message, f"put the dashboards into {watched}"


def _shared_certificates(
    document: Document, certificates: dict[tuple[str, str], tuple[str, set[str]]]
) -> Iterator[Defect]:
    """One Secret for two certificates: cert-manager leaves one of them out, or issues each in turn for ever.

    `certificates` collects the owner of each Secret and its hosts.
    """
    spec, name = document.data.get("spec") or {}, f"{document.kind} {document.name}"
    parts: list[tuple[tuple[Key, ...], dict[str, Any]]] = [
        ((), {"secretName": spec.get("secretName"), "hosts": spec.get("dnsNames")})
    ]
    if document.kind == "Ingress":
        parts = [(("tls", index), tls) for index, tls in enumerate(spec.get("tls") or ())]
    for path, tls in parts if issuer_of(document)[2] else ():
        hosts, secret = {str(host) for host in tls.get("hosts") or ()}, (document.namespace, str(tls.get("secretName")))
        owner, first = certificates.setdefault(secret, (name, hosts))
        if owner != name and (document.kind == "Certificate" or not hosts <= first):
            message = f"{name} has the TLS Secret of {owner}, which is for another certificate"
            yield ("spec", *path, "secretName"), message, "give it a Secret of its own"


def _hosts_are_served(snapshot: Snapshot, known: Known) -> Iterator[Finding]:
    """The hosts and certificates in Git and as each platform has them; what is wrong on several is reported once."""
    reported: dict[tuple[Any, ...], Finding] = {}
    for objects in (snapshot.objects(), *(objects for _, objects in snapshot.objects_by_platform)):
        owners: dict[tuple[str, str], str] = {}
        for document in (each for each in objects if each.kind in ("Certificate", "Ingress")):
            hosts = _host_defects(document, owners) if document.kind == "Ingress" else ()
            for path, message, remedy in (*hosts, *_unprovable_names(document, known)):
                place = (document.file, document.name, path)
                reported.setdefault(place, document.at(*path).finding(message, remedy))
    yield from reported.values()


def _host_defects(document: Document, owners: dict[tuple[str, str], str]) -> Iterator[Defect]:
    """`owners` collects the hosts and paths of all Ingresses, with the name of the one that has it."""
    spec, name = document.data.get("spec") or {}, f"Ingress {document.name}"
    tls_hosts = {
        host: ("spec", "tls", at, "hosts", index)
        for at, tls in enumerate(spec.get("tls") or ())
        for index, host in enumerate(tls.get("hosts") or ())
    }
    rule_hosts = [str(rule.get("host", "")) for rule in spec.get("rules") or ()]
    strangers = {host: path for host, path in tls_hosts.items() if host not in rule_hosts}
    for index, host in enumerate(rule_hosts):
        if host not in tls_hosts and not strangers:
            yield ("spec", "rules", index), f"{name} serves {host or 'every host'} without TLS", "add it to tls"
        paths = [str(entry.get("path") or "/") for _, entry in values_at(spec, ("rules", index, "http", "paths", "*"))]
        if owner := next((owners[host, path] for path in paths or ["/"] if (host, path) in owners), ""):
            yield ("spec", "rules", index, "host"), f"{name} has the same host as {owner}", "give each its own"
        owners |= dict.fromkeys(((host, path) for path in paths or ["/"]), document.name)
    for host, path in strangers.items():
        remedy = f"its rules serve {', '.join(filter(None, rule_hosts)) or 'every host'}"
        yield path, f"{name} has TLS for {host}, which no rule serves", remedy


def _ingress_defects(document: Document, known: Known) -> Iterator[Defect]:
    spec, name = document.data.get("spec") or {}, f"Ingress {document.name}"
    if not spec.get("ingressClassName"):
        yield ("spec",), f"{name} has no class", "give it ingressClassName"
    tls_hosts = [host for tls in spec.get("tls") or () for host in tls.get("hosts") or ()]
    secrets = {("Secret", document.namespace, str(tls.get("secretName"))) for tls in spec.get("tls") or ()}
    if tls_hosts and not issuer_of(document)[2] and not known.objects.keys() >= secrets:
        yield ("metadata", "name"), f"{name} has TLS and no issuer", f"annotate it with {_ISSUER}"
    for at, tls in enumerate(spec.get("tls") or () if issuer_of(document)[2] else ()):
        if not tls.get("secretName"):
            yield (
                ("spec", "tls", at),
                f"{name} has TLS without a secretName",
                "name the Secret that cert-manager writes",
            )


def _unprovable_names(document: Document, known: Known) -> Iterator[Defect]:
    """Names that no public authority certifies, or that the solvers of the issuer cannot prove."""
    kind, namespace, issuer = issuer_of(document)
    acme = value_under(known.find(kind, namespace, issuer), ("spec", "acme")) or {}
    proves_wildcards = any("dns01" in solver for solver in acme.get("solvers") or ())
    for pattern in _CERTIFIED if acme else ():
        for path, name in values_at(document.data, pattern):
            if "." not in str(name) or str(name).endswith(_PRIVATE):
                yield (
                    path,
                    f"{kind} {issuer} certifies public names only, not {name}",
                    "use an issuer with selfSigned or ca",
                )
            elif str(name).startswith("*.") and not proves_wildcards:
                yield path, f"{kind} {issuer} has no solver with dns01, which alone proves {name}", "name each host"


def _nginx_defects(document: Document, known: Known) -> Iterator[Defect]:
    """Annotations that ingress-nginx does not read, or refuses, and Secrets without what it reads there."""
    path = ("controller", "allowSnippetAnnotations")
    takes_snippets = any(value_under(app.values, path) for app in known.snapshot.applications)
    for key in document.annotations:
        prefix, _, name = str(key).partition("/")
        place = ("metadata", "annotations", key)
        if prefix != _NGINX:
            continue
        if name not in _TABLE["nginx"] and get_close_matches(name, _TABLE["nginx"], n=1, cutoff=0.85):
            yield place, f"ingress-nginx does not read {key}", did_you_mean(name, _TABLE["nginx"])
        elif name.endswith("-snippet") and not takes_snippets:
            yield place, f"ingress-nginx refuses {key}", "remove it: a snippet could read every Secret"
        elif name in _TABLE["nginx_secrets"]:
            yield from _nginx_secret(document, known, place, _TABLE["nginx_secrets"][name])


def _nginx_secret(document: Document, known: Known, place: tuple[Key, ...], keys: list[str]) -> Iterator[Defect]:
    """A Secret that an annotation names, as NAME or NAMESPACE/NAME: ingress-nginx answers 503 without it, or a key."""
    namespace, _, name = str(value_under(document.data, place)).rpartition("/")
    target = known.find("Secret", namespace or document.namespace, name)
    if target is None:
        names = known.names("Secret", namespace or document.namespace)
        remedy = did_you_mean(name, names) if names else "add it, or correct it"
        yield place, f"there is no Secret {name} in {namespace or document.namespace}", remedy
    elif document.annotations.get(f"{_NGINX}/auth-secret-type") != "auth-map" and (held := _keys(target)):
        for key in (key for key in keys if key not in held):
            yield (
                place,
                f"Secret {name} has no key {key}, which ingress-nginx reads",
                f"it has {', '.join(sorted(held))}",
            )


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
    if not targets and not snapshot.tree.dropped_namespaces.issuperset(namespaces):
        message = f"{name} selects nothing in {reachability.NAME} or in the tree"
        yield ("spec", "selector"), message, "correct its selector or namespace"
    if document.kind not in _POD_SCRAPES:
        targets = [*filter(None, targets)] or targets  # a Service of the tree has its ports; a pod says nothing of them
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
