"""Applications together: waves and their dependencies, projects, namespaces, ownership, volumes, and what is kept."""

from __future__ import annotations

import math
import re
from fnmatch import fnmatchcase
from itertools import permutations
from typing import TYPE_CHECKING, Any, NamedTuple

from fluobook.clients.answers import without_credentials
from fluobook.files import read_text
from fluobook.gitops import kustomization, schemas
from fluobook.gitops.charts import Chart, chart_of
from fluobook.gitops.documents import Position, pod_path, value_under, values_at, walk
from fluobook.gitops.rules.references import required_by
from fluobook.gitops.snapshot import INITIAL_NAMESPACES
from fluobook.gitops.tree import FINALIZER, HOOK, INTEGER, NEEDED_BEFORE, WAVE
from fluobook.gitops.versions import BASE, unsupported
from fluobook.kubernetes.quantities import amount
from fluobook.params.problems import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fluobook.gitops.documents import Document, Finding, Key
    from fluobook.gitops.snapshot import Snapshot
    from fluobook.gitops.tree import Application
    from fluobook.params import Platform

_WAVE = ("metadata", "annotations", WAVE)
_MONITORS = {"serviceMonitor", "servicemonitor", "podMonitor"}
_SECRETS = {"secret", "superuserSecret", "passwordSecret"}
_TABLE_ROW = re.compile(r"^\|\s*(-?\d+)\s*\|([^|]*)\|")
_STATEFUL = {"Namespace", "PersistentVolumeClaim", "PersistentVolume", "Cluster", "RabbitmqCluster", "ScyllaCluster"}
_CLAIMS = {"storageClass", "storageClassName", "volumeClaimTemplate", "volumeClaimTemplates"}
_PHASES = ("PreSync", "Sync", "PostSync")
_AWAITED = {"DaemonSet", "Deployment", "Job", "Pod", "StatefulSet"}
"""The workloads that are healthy when their pods are."""
_LONGHORN = "driver.longhorn.io"
_SHARED = {"ReadWriteMany", "ReadOnlyMany"}
_NFS = 2049
_REPLICATED = ("DaemonSet", "Deployment", "StatefulSet")
_CLASSES = ("storageClass", "storageClassName")
_SIZES = (("size",), ("storage",), ("capacity",), ("resources", "requests", "storage"))
_COPIES = ("parameters", "numberOfReplicas")
_ON_ONE_NODE = (("nodeName",), ("nodeSelector", "kubernetes.io/hostname"), ("affinity", "podAffinity"))
_INSTALLS = {"enabled", "create", "install"}
_SYNC_OPTIONS = "argocd.argoproj.io/sync-options"
_OF_THE_ROOT = {"Application", "AppProject"}
_KIND_LISTS = ("clusterResourceWhitelist", "namespaceResourceWhitelist")


def waves_follow_dependencies(snapshot: Snapshot) -> Iterator[Finding]:
    """Kinds, namespaces, classes and Secrets come in an earlier wave than their users; no pod needs what is later."""
    providers = providers_of(snapshot)
    others = [app.wave for app in snapshot.applications if chart_of(app) == Chart() and not snapshot.tree.is_ours(app)]
    unknown = min(others, default=math.inf)
    for app in snapshot.applications:
        for need, reason, place in needs_of(snapshot, app):
            provider = providers.get(need)
            if need.startswith("ingress class ") and provider is None:
                continue  # the rule `reference` reports it, and knows what a root patches
            if need.startswith(("group ", "driver ")) and provider is None and unknown < app.wave:
                continue  # a chart that data/charts.yaml does not have may bring it
            if provider is None:
                message = f"{app.name} needs {need} ({reason}), which no Application brings"
                yield place.finding(message, "add it, or correct the name")
            elif provider.wave >= app.wave and provider is not app:
                message = f"{app.name} (wave {app.wave}) needs {need} ({reason})"
                message = f"{message}, which {provider.name} brings in wave {provider.wave}"
                yield app.document.at(*_WAVE).finding(
                    message, f"give {app.name} a later wave, or {provider.name} an earlier one"
                )
        yield from _waits_for_itself(snapshot.deployed_by(app))


def _waits_for_itself(objects: Iterable[Document]) -> Iterator[Finding]:
    """Pods of one Application that need what it brings later: their step never ends, and the next never begins."""
    steps = {(each.kind, each.namespace, each.name): step for each in objects if (step := _step(each))}
    for document in (each for each in objects if each.kind in _AWAITED):
        if step := _step(document):
            for path, kind, name in required_by(document):
                later = steps.get((kind, document.namespace, name), step)
                if later > step:
                    message = f"{document.kind} {document.name} ({_shown(step)}) needs {kind} {name} ({_shown(later)}),"
                    remedy = f"annotate {name} with the same hook, or an earlier {WAVE}"
                    yield document.at(*path).finding(f"{message} which comes only when it is done", remedy)


def _step(document: Document) -> tuple[int, int] | None:
    """When Argo CD applies an object in the sync of its Application: phase and wave; None for what is no part of it."""
    phase = str(document.annotations.get(HOOK, "Sync")).partition(",")[0].strip()
    wave = str(document.annotations.get(WAVE, "0"))
    return (_PHASES.index(phase), int(wave)) if phase in _PHASES and INTEGER.fullmatch(wave) else None


def _shown(step: tuple[int, int]) -> str:
    return f"{_PHASES[step[0]]}, wave {step[1]}"


def providers_of(snapshot: Snapshot) -> dict[str, Application]:
    """Who brings each need: "group x", "namespace x", "class x", "driver x", "ingress class x", "secret ns/x"."""
    providers: dict[str, Application] = {}
    for app in snapshot.applications:
        providers |= {f"group {group}": app for group in chart_of(app).brings}
        providers |= {f"class {name}": app for name in chart_of(app).classes}
        providers |= {f"driver {name}": app for name in chart_of(app).drivers}
        if name := value_under(app.values, ("controller", "ingressClassResource", "name")):
            providers[f"ingress class {name}"] = app
    providers |= {
        f"class {document.name}": app for app, document in snapshot.deployed if document.kind == "StorageClass"
    }
    providers |= {f"namespace {name}": app for name, (app, _) in snapshot.namespaces.items()}
    secrets = ((app, document) for app, document in snapshot.deployed if document.kind == "Secret")
    return providers | {f"secret {document.namespace}/{document.name}": app for app, document in secrets}


def needs_of(snapshot: Snapshot, app: Application) -> Iterator[tuple[str, str, Position]]:
    """What must exist before an Application is synced, the reason, and the place that says so."""
    source = app.document.at("spec", "source")
    yield from ((f"group {group}", app.chart or app.repo, source) for group in chart_of(app).needs)
    for setting, group in chart_of(app).needs_with.items():
        if value_under(app.values, setting.split(".")):
            yield f"group {group}", setting, source
    for need, path in _needs_in(app.values, app.namespace):
        yield need, str(path[-1]), app.document.at("spec", "source", "helm", "valuesObject", *path)
    # Stage 5 creates the namespaces that are needed before Argo CD; Argo CD creates the others.
    created = {name for name, (_, manifest) in snapshot.namespaces.items() if NEEDED_BEFORE not in manifest.annotations}
    if app.namespace in created:
        yield f"namespace {app.namespace}", "its destination", app.document.at("spec", "destination", "namespace")
    for document in snapshot.deployed_by(app):
        reason = f"{document.kind} {document.name}"
        if not schemas.is_built_in(str(document.data.get("apiVersion", ""))):
            yield f"group {document.group}", reason, document.at("apiVersion")
        if document.namespace in created:
            yield f"namespace {document.namespace}", reason, document.at("metadata", "namespace")
        driver = document.data.get("provisioner") if document.kind == "StorageClass" else None
        if driver and not str(driver).startswith("kubernetes.io/"):
            yield f"driver {driver}", reason, document.at("provisioner")
        for need, path in _needs_in(document.data.get("spec") or {}, document.namespace):
            yield need, f"{reason}, {path[-1]}", document.at("spec", *path)


def _needs_in(values: Any, namespace: str) -> Iterator[tuple[str, tuple[Key, ...]]]:
    """Storage classes, Secrets and monitors that values or a spec name, and the paths where they do."""
    for path, key, value in walk(values):
        enabled = value.get("enabled") if isinstance(value, dict) else None
        if key in ("storageClass", "storageClassName"):
            if value and isinstance(value, str):
                yield f"class {value}", path
        elif key == "ingressClassName":
            yield f"ingress class {value}", path
        elif key == "existingSecret":
            if value and isinstance(value, str):
                yield f"secret {namespace}/{value}", path
        elif key in _SECRETS:
            if isinstance(value, dict) and set(value) == {"name"}:
                yield f"secret {namespace}/{value['name']}", path
        elif (key in _MONITORS and enabled) or (key == "podMonitorEnabled" and value):
            yield "group monitoring.coreos.com", path


def wave_table_is_current(snapshot: Snapshot) -> Iterator[Finding]:
    """The table in cluster-gitops/README.md and the annotations of upstream's Applications agree."""
    readme = snapshot.top / "README.md"
    table: dict[str, tuple[int, int]] = {}
    for number, line in enumerate(read_text(readme).splitlines() if readme.exists() else (), 1):
        if row := _TABLE_ROW.match(line):
            table |= {name.strip(): (int(row[1]), number) for name in row[2].split(",")}
    for app in (app for app in snapshot.tree.all_applications if app.file.is_relative_to(snapshot.top)):
        place = app.document.at(*_WAVE)
        wave, number = table.pop(app.name, (None, 0))
        if wave is None:
            yield place.finding(f"{app.name} is not in the table of waves", f"add it to {readme.name}")
        elif wave != app.wave:
            message = f"{app.name} is in wave {app.wave}, and {readme.name}:{number} says {wave}"
            yield place.finding(message, "correct the annotation or the table")
    for name, (_, number) in table.items():
        if not name.startswith("("):
            yield Position(readme, number).finding(f"there is no Application {name}", "remove it")


class Request(NamedTuple):
    """What one Application needs its project to allow: an entry of a list of the project, and what needs it."""

    field: str
    entry: Any
    document: Document
    path: tuple[str, ...]

    def __str__(self) -> str:
        """The entry, for a person."""
        return f"kind {self.entry['kind']}" if isinstance(self.entry, dict) else str(self.entry)


def projects_allow_their_applications(snapshot: Snapshot) -> Iterator[Finding]:
    """What Argo CD would refuse because of a project, and projects that allow everything."""
    projects = {project.name: project for project in snapshot.tree.projects}
    for project in projects.values():
        members = [app for app in snapshot.applications if app.project == project.name]
        yield from _too_wide(project)
        yield from _refusals(project, [request for app in members for request in _requests(snapshot, app)])
        wave = str(project.annotations.get(WAVE, "0"))
        if not INTEGER.fullmatch(wave):
            yield project.at(*_WAVE).finding(f"project {project.name} has the wave {wave}", "write a whole number")
            continue
        if late := [app.name for app in snapshot.applications if app.wave <= int(wave)]:
            message = f"project {project.name} comes no earlier than {late[0]}"
            yield project.at(*_WAVE).finding(message, "give it a wave before all others")
    for app in snapshot.applications:
        if app.project not in projects:
            message = f"{app.name} is in project {app.project}, which does not exist"
            yield app.document.at("spec", "project").finding(message, "correct it, or add the project")


def _requests(snapshot: Snapshot, app: Application) -> Iterator[Request]:
    repo = without_credentials(app.repo) if app.repo.startswith("http") else app.repo  # `cleartext` reports them
    yield Request("sourceRepos", repo, app.document, ("spec", "source", "repoURL"))
    created = {*INITIAL_NAMESPACES, *snapshot.namespaces}  # the rule `namespace` reports all others
    if app.namespace in created:
        yield Request("destinations", app.namespace, app.document, ("spec", "destination", "namespace"))
    for qualified in chart_of(app).makes:
        kind, _, group = qualified.partition(".")
        yield Request("", {"group": group, "kind": kind}, app.document, ("spec", "source"))
    for document in snapshot.deployed_by(app):
        if document.namespace in created:
            yield Request("destinations", document.namespace, document, ("metadata", "namespace"))
        version = str(document.data.get("apiVersion", ""))
        known = schemas.is_known(version, document.kind)
        if not known and (schemas.has_group(version) or schemas.is_misspelt(version)):
            continue  # kind or group are misspelt, which the rule `shape` reports
        field = _KIND_LISTS[0] if schemas.is_cluster_scoped(document.group, document.kind) else _KIND_LISTS[1]
        yield Request(field if known else "", {"group": document.group, "kind": document.kind}, document, ("kind",))


def _refusals(project: Document, requests: list[Request]) -> Iterator[Finding]:
    """What the project does not allow, reported where the mistake is.

    An entry that several need, or any if every entry of the list is in use, is missing from the list. An entry that
    one alone needs, while another is unused, is likely misspelt.
    """
    missing: dict[tuple[str, str], list[Request]] = {}
    for request in requests:
        if not any(_covers(entry, request.entry) for entry in _allowed(project, request.field)):
            missing.setdefault((request.field, str(request)), []).append(request)
    for (field, entry), refused in missing.items():
        message = f"project {project.name} does not allow {entry}"
        entries = project.at("spec", field or _KIND_LISTS[1])
        used = [request.entry for request in requests if request.field == field]
        places = [request.document.at(*request.path) for request in refused]
        kinds = field in ("", *_KIND_LISTS)
        if kinds or len(refused) > 1 or all(entry in used for entry in _allowed(project, field)):
            more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
            yield entries.finding(f"{message}, which {places[0]}{more} needs", "add it here")
        else:
            yield places[0].finding(message, f"correct it, or add it at {entries}")


def _covers(allowed: Any, wanted: Any) -> bool:
    """Whether an entry of a project allows what is wanted; * stands for any text."""
    if isinstance(allowed, dict) and isinstance(wanted, dict):
        return all(_covers(allowed.get(key), wanted[key]) for key in wanted)
    return fnmatchcase(str(wanted), str(allowed))


def _allowed(project: Document, field: str) -> list[Any]:
    """The entries of a list; of both lists of kinds for a kind whose scope is not known."""
    spec = project.data.get("spec") or {}
    if field == "destinations":
        return [destination.get("namespace") for destination in spec.get(field) or ()]
    return [entry for name in ((field,) if field else _KIND_LISTS) for entry in spec.get(name) or ()]


def _too_wide(project: Document) -> Iterator[Finding]:
    spec, remedy = project.data.get("spec") or {}, "list what it needs"
    for field in ("clusterResourceBlacklist", "namespaceResourceBlacklist"):
        if spec.get(field):
            message = f"{project.name} has a {field}: what a project does not list is forbidden already"
            yield project.at("spec", field).finding(message, f"remove it; {remedy} in the whitelists")
    for field in ("sourceRepos", "destinations", *_KIND_LISTS):
        if not spec.get(field):
            yield project.at("spec").finding(f"{project.name} has no {field}", remedy)
        for index, entry in enumerate(spec.get(field) or ()):
            if "*" in (entry.values() if isinstance(entry, dict) else [entry]):
                yield project.at("spec", field, index).finding(f"{project.name} allows everything in {field}", remedy)


def namespaces_are_created(snapshot: Snapshot) -> Iterator[Finding]:
    """Destinations and objects name namespaces that exist by then; no Application creates its own by an option."""
    known = {*INITIAL_NAMESPACES, *snapshot.namespaces}
    for app in snapshot.applications:
        if app.namespace not in known:
            place = app.document.at("spec", "destination", "namespace")
            yield place.finding(f"nothing creates namespace {app.namespace}", "add it to infrastructure/namespaces")
        if "CreateNamespace=true" in app.sync_options:
            message = f"{app.name} creates its namespace itself, without PodSecurity labels"
            yield app.document.at("spec", "syncPolicy", "syncOptions").finding(message, "CreateNamespace=false")
    for app, document in snapshot.deployed:
        if document.namespace and document.namespace not in known:
            yield document.at("metadata", "namespace").finding(
                f"nothing creates namespace {document.namespace} of {document.kind} {document.name}",
                f"add it to infrastructure/namespaces, or correct it ({app.name} deploys it)",
            )


def objects_have_one_owner(snapshot: Snapshot) -> Iterator[Finding]:
    """No object is deployed twice: two Applications would overwrite each other for ever."""
    owners: dict[tuple[str, str, str, str], str] = {}
    own = {(each.group, each.kind, each.name) for each in snapshot.tree.documents if each.kind not in _OF_THE_ROOT}
    shared = set()
    for app, document in snapshot.deployed:
        key = (document.group, document.kind, document.namespace, document.name)
        if (document.group, document.kind, document.name) in own and app.name not in shared:
            shared.add(app.name)
            message = f"{document.kind} {document.name} is deployed by the root and by {app.name}"
            yield document.at("metadata", "name").finding(
                message, f"list application.yaml of {app.name}, not its folder"
            )
        if key in owners:
            message = f"{document.kind} {document.name} is deployed by {owners[key]} and by {app.name}"
            yield document.at("metadata", "name").finding(message, "keep one of them")
        owners[key] = app.name
    for app, other in permutations(snapshot.applications, 2):
        if app.name == other.name:
            message = f"there is another Application {app.name}, at {other.document.at('metadata', 'name')}"
            yield app.document.at("metadata", "name").finding(message, "rename one of them")


def ignored_differences_exist(snapshot: Snapshot) -> Iterator[Finding]:
    """What an Application ignores is a kind that it can deploy."""
    for app in snapshot.applications:
        made = {(document.group, document.kind) for document in snapshot.deployed_by(app)}
        made |= {(group, kind) for kind, _, group in (name.partition(".") for name in chart_of(app).makes)}
        entries = value_under(app.document.data, ("spec", "ignoreDifferences")) or ()
        for index, entry in enumerate(entries if made else ()):
            group, kind = str(entry.get("group", "")), str(entry.get("kind", ""))
            if kind and not any(fnmatchcase(of, group) and fnmatchcase(name, kind) for of, name in made):
                named = f"{kind} of {group}" if group else kind
                remedy = did_you_mean(kind, {name for _, name in made})
                place = app.document.at("spec", "ignoreDifferences", index, "kind")
                yield place.finding(f"{app.name} ignores differences of {named}, which it does not deploy", remedy)


def network_and_storage_support_kubernetes(snapshot: Snapshot) -> Iterator[Finding]:
    """Cilium and Longhorn support the version of Kubernetes of each params file."""
    base = [app for app in snapshot.applications if app.chart in BASE]
    for file, platform in snapshot.platforms.items():
        for each in unsupported(platform, base):
            place = each.app.document.at("spec", "source", "targetRevision")
            yield place.finding(f"{each.reason} (versions.kubernetes of {file.name})", each.remedy)


def _is_off(verb: str, options: Iterable[str]) -> bool:
    """Whether sync options forbid to prune, or to delete, without a person who confirms it."""
    return not {f"{verb}=false", f"{verb}=confirm"}.isdisjoint(options)


def _options(document: Document) -> list[str]:
    return str(document.annotations.get(_SYNC_OPTIONS, "")).replace(" ", "").split(",")


def holds_data(obj: Mapping[str, Any]) -> bool:
    """Whether data goes with an object: a claim, a namespace, a custom resource whose operator makes claims."""
    spec, kind = obj.get("spec") or {}, obj.get("kind")
    if kind == "StatefulSet":
        return "Delete" in (spec.get("persistentVolumeClaimRetentionPolicy") or {}).values()
    if kind in _STATEFUL or schemas.is_built_in(str(obj.get("apiVersion", ""))):
        return kind in _STATEFUL
    return any(key in _CLAIMS or key == "storage" for _, key, _ in walk(spec))


def _held(snapshot: Snapshot, app: Application) -> tuple[list[str], list[str]]:
    """The data that would go with the objects of an Application, and the kinds that would with its CRDs.

    Argo CD does not delete CRDs with an Application. It does prune them, and every object of their kinds goes too.
    """
    chart, objects = chart_of(app), snapshot.deployed_by(app)
    data = ["what the platform stands on"] if chart.keeps else []
    kinds = [f"the kinds of {group}" for group in chart.brings]
    for document in objects:
        off = [_is_off(verb, _options(document)) for verb in ("Prune", "Delete")]
        if holds_data(document.data) and not all(off):
            data.append(f"{document.kind} {document.name}")
        elif document.kind == "CustomResourceDefinition" and not off[0]:
            kinds.append(f"the kind of {document.name}")
    for path, key, value in walk(app.values):
        name = ".".join(map(str, path))
        if value and (key in _CLAIMS or (key == "persistence" and value_under(value, ("enabled",)))):
            data.append(f"the volumes of {name}")
        elif value is True and (key == "installCRDs" or (path[-2:-1] == ("crds",) and key in _INSTALLS)):
            kinds.append(f"the kinds of {name}")
    return data, kinds


def data_outlives_applications(snapshot: Snapshot) -> Iterator[Finding]:
    """No way of deleting or pruning an Application destroys data, the objects of others, or the platform."""
    for app in snapshot.applications:
        data, kinds = _held(snapshot, app)
        policy = ("spec", "syncPolicy")
        if app.prune and (data or kinds) and not _is_off("Prune", app.sync_options):
            place = app.document.at(*policy, "automated", "prune")
            yield place.finding(f"{app.name} prunes, and has {[*data, *kinds][0]}", "set automated.prune to false")
        if not data:
            continue
        if app.finalizer:
            remedy = "remove it: deleting the Application must not delete what it deployed"
            yield app.document.at("metadata", "finalizers").finding(f"{app.name} has the finalizer {FINALIZER}", remedy)
        if not _is_off("Delete", app.sync_options):
            message = f"`argocd app delete {app.name}` would delete {data[0]}"
            yield app.document.at(*policy, "syncOptions").finding(message, "add Delete=false to its syncOptions")
        if not _is_off("Prune", _options(app.document)):
            remedy = f"annotate it with {_SYNC_OPTIONS}: Prune=false,Delete=false"
            yield app.document.at("metadata", "annotations").finding(f"the root would prune {app.name}", remedy)


def names_stay_where_nothing_is_pruned(snapshot: Snapshot) -> Iterator[Finding]:
    """No name has a hash of its content where Argo CD does not prune: the object before each change would be left."""
    for app in (app for app in snapshot.applications if snapshot.tree.is_ours(app) and not app.prune):
        listed = kustomization.below(snapshot.root / app.path, snapshot.reader)
        generators = (
            (each, *entry) for each in listed for entry in enumerate(each.data.get("configMapGenerator") or ())
        )
        for document, index, generator in generators:
            if not value_under(generator, ("options", "disableNameSuffixHash")):
                message = f"{app.name} does not prune, and the name of {generator.get('name')} changes with its content"
                place = document.at("configMapGenerator", index)
                yield place.finding(message, "options: {disableNameSuffixHash: true}")


def volumes_can_be_mounted(snapshot: Snapshot) -> Iterator[Finding]:
    """All pods of a workload can mount its claims, and every volume fits on the workers' disks with all its copies."""
    claims = {(claim.namespace, claim.name): claim for claim in snapshot.objects("PersistentVolumeClaim")}
    holders: dict[tuple[str, str], Document] = {}
    for workload in snapshot.objects(*_REPLICATED, "CronJob", "Job", "Pod"):
        for place, key in _claims_mounted_by(workload):
            if key not in claims or _SHARED & set(value_under(claims[key].data, ("spec", "accessModes")) or ()):
                continue
            if (other := holders.setdefault(key, workload)) is not workload:
                message = f"{workload.kind} {workload.name} and {other.kind} {other.name} have one volume, {key[1]},"
                yield place.finding(f"{message} which one node alone can mount", "give each its own, or ReadWriteMany")
            elif workload.kind in _REPLICATED:
                yield from _held_by_one_node(workload, place, key[1], _most_pods(snapshot, workload))
    yield from _shared_without_nfs(snapshot)
    reported: dict[Position, Finding] = {}
    for platform, objects in snapshot.objects_by_platform:
        if platform:
            for place, message, remedy in (each for document in objects for each in _without_place(document, platform)):
                reported.setdefault(place, place.finding(message, remedy))
    yield from reported.values()


def _claims_mounted_by(workload: Document) -> Iterator[tuple[Position, tuple[str, str]]]:
    """The claims that the pods of a workload mount, if it does not keep them on one node: place, namespace and name."""
    path = pod_path(workload)
    spec = value_under(workload.data, path) if path else {}
    if not any(value_under(spec, at) for at in _ON_ONE_NODE):
        for at, name in values_at(spec, ("volumes", "*", "persistentVolumeClaim", "claimName"), path):
            yield workload.at(*at), (workload.namespace, str(name))


def _most_pods(snapshot: Snapshot, workload: Document) -> int:
    """How many pods a workload has at most: by its own field, its autoscaler, or the nodes."""
    if workload.kind == "DaemonSet":
        return max((len(platform.nodes) for platform in snapshot.platforms.values()), default=1)
    scaled = [
        value_under(scaler.data, ("spec", "maxReplicas")) or 1
        for scaler in snapshot.objects("HorizontalPodAutoscaler")
        if scaler.namespace == workload.namespace
        and value_under(scaler.data, ("spec", "scaleTargetRef", "name")) == workload.name
    ]
    own = value_under(workload.data, ("spec", "replicas"))
    return max([1 if own is None else own, *scaled])


def _held_by_one_node(workload: Document, place: Position, claim: str, pods: int) -> Iterator[Finding]:
    """A volume that one node alone can mount, beside pods that may be on two."""
    strategy = value_under(workload.data, ("spec", "strategy")) or {}
    surges = value_under(strategy, ("rollingUpdate", "maxSurge")) not in (0, "0%")
    name = f"{workload.kind} {workload.name}"
    if pods > 1:
        message = f"{name} has {pods} pods and one volume, {claim}, which one node alone can mount"
        yield place.finding(message, "one replica, or a StatefulSet with volumeClaimTemplates")
    elif pods and workload.kind == "Deployment" and strategy.get("type") != "Recreate" and surges:
        message = f"{name} starts its next pod before the last one releases {claim}, which one node alone can mount"
        yield place.finding(message, "strategy: {type: Recreate}")


def _shared_without_nfs(snapshot: Snapshot) -> Iterator[Finding]:
    """Longhorn serves a volume of several nodes over NFS, from a pod in its own namespace."""
    longhorn = [app for app in snapshot.applications if _LONGHORN in chart_of(app).drivers]
    classes = {name for app in longhorn for name in chart_of(app).classes}
    classes |= {each.name for each in snapshot.objects("StorageClass") if each.data.get("provisioner") == _LONGHORN}
    namespaces = {app.namespace for app in longhorn}
    policies = [policy for policy in snapshot.objects("NetworkPolicy") if policy.namespace in namespaces]
    if not policies or any(value == _NFS for policy in policies for _, _, value in walk(policy.data.get("spec"))):
        return
    for document in snapshot.objects("PersistentVolumeClaim", "StatefulSet"):
        for path, spec in _claims_of(document):
            if "ReadWriteMany" in (spec.get("accessModes") or ()) and spec.get("storageClassName") in (*classes, None):
                message = (
                    f"{document.kind} {document.name} has a volume of several nodes, which Longhorn serves over NFS,"
                )
                message = f"{message} and no policy of {policies[0].namespace} opens port {_NFS}"
                remedy = "ReadWriteOnce, or a policy there for pods with longhorn.io/component: share-manager"
                yield document.at(*path, "accessModes").finding(message, remedy)


def _claims_of(document: Document) -> Iterator[tuple[tuple[Key, ...], dict[str, Any]]]:
    """The specs of the claims of an object, and their paths."""
    pattern = ("spec",) if document.kind == "PersistentVolumeClaim" else ("spec", "volumeClaimTemplates", "*", "spec")
    yield from values_at(document.data, pattern)


def _without_place(document: Document, platform: Platform) -> Iterator[tuple[Position, str, str]]:
    """Volumes larger than any disk for them, and classes with more copies than hosts to keep them apart."""
    name = f"{document.kind} {document.name}"
    if document.kind == "StorageClass" and document.data.get("provisioner") == _LONGHORN:
        copies, domains = str(value_under(document.data, _COPIES) or ""), len(platform.failure_domains)
        if copies.isdecimal() and int(copies) > domains:
            message = (
                f"{name} keeps {copies} copies of a volume, more than hosts: {platform.cluster.name} has {domains}"
            )
            yield (
                document.at(*_COPIES),
                message,
                "lower it; otherwise volumes stay degraded, and no node can be upgraded",
            )
    largest = max((node.data_disk_gib or 0 for node in platform.nodes), default=0)
    for path, _, value in walk(document.data):
        for field in _SIZES if isinstance(value, dict) and any(key in value for key in _CLASSES) else ():
            size = value_under(value, field)
            if isinstance(size, str | int) and amount(size) > largest * 2**30:
                message = f"{name} has a volume of {size}, more than the largest disk for volumes:"
                message = f"{message} {platform.cluster.name} has {largest} GiB"
                yield document.at(*path, *field), message, "lower it, or raise data_disk_gib in the params"
