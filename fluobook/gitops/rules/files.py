"""Files of the tree and the sources of Applications.

Every file is listed, every kustomization builds, phase values have their places; versions are exact; sources, chart
values and settings are right; Argo CD's health scripts run.
"""

from __future__ import annotations

import errno
import os
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import yaml

from fluobook.clients.answers import without_credentials
from fluobook.errors import BadFile, DeadlineExceeded, FluobookError, ParamsError, ToolFailed
from fluobook.files import parse_json, pattern, read_text, unwritable
from fluobook.gitops import build, documents, kustomization
from fluobook.gitops.charts import Setting, chart_of, settings_of
from fluobook.gitops.components import refusals
from fluobook.gitops.documents import Position, value_under, walk
from fluobook.gitops.root import NAMESPACE, for_phase, names_in, patches_for, rest_of, values_of
from fluobook.gitops.snapshot import TolerantReader
from fluobook.gitops.tree import BACKUPS, DASHBOARD, FINALIZER, ONLY_WITH, PHASE_VALUES, TOPS
from fluobook.kubernetes.json_patch import MISSING, value_at
from fluobook.kubernetes.kubelet_certificates import UNRESOLVED, Approver, disagreements
from fluobook.machine import schematic
from fluobook.machine.contradictions import patch_contradictions
from fluobook.machine.node import below_patches, find_patches, patch_problems
from fluobook.params.problems import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path
    from typing import Any

    from fluobook.gitops.build import Builder
    from fluobook.gitops.documents import Defect, Document, Finding, Key
    from fluobook.gitops.snapshot import Snapshot
    from fluobook.gitops.tree import Application
    from fluobook.params import Platform

_UID = re.compile(r"[A-Za-z0-9_-]{1,40}")
_LARGEST_MAP = 1 << 20
_TABLES = {"kustomization", "metrics", "reachability"}


def talos_accepts_the_patches(snapshot: Snapshot) -> Iterator[Finding]:
    """Talos accepts talos/patches for the platform of every params file, and no part of them is without effect.

    The Image Factory knows the fields of talos/schematic.yaml and their types.
    """
    image = snapshot.root / "talos" / "schematic.yaml"
    try:
        yield from _missing_extensions(
            snapshot, Position(image, 1), schematic.extensions(schematic.parse(read_text(image)))
        )
    except FluobookError as error:
        yield Position(image, 1).finding(error.message, error.remedy or "correct the value")
    useless: dict[str, list[str]] = {}
    for file, platform in snapshot.platforms.items():
        paths, strangers = find_patches(platform, snapshot.root)
        for path, allowed in strangers.items():
            names = ", ".join(below_patches(name) for name in allowed)
            useless.setdefault(path, []).append(f"for {file.name} it may be {names}")
        patches = {path: read_text(snapshot.root / path) for path in paths}
        parts = {path: documents.read(snapshot.root / path) for path in patches}
        for path, problem in patch_problems(platform, patches) or patch_contradictions(platform, patches):
            named = [
                part
                for part in parts[path]
                if part.kind
                and (f"{part.kind}/{part.data.get('name', '')}" in problem or problem.startswith(part.kind))
            ]
            unnamed = [part for part in parts[path] if not part.kind]
            position = next((part.at() for part in (*named, *unnamed)), Position(snapshot.root / path, 1))
            yield position.finding(" ".join(problem.split()), "correct the patch, or leave the part out")
    for path, reasons in useless.items():
        message = (
            f"applies to no node: the path of a patch names its contract and a role or a node; {'; '.join(reasons)}"
        )
        yield Position(snapshot.root / path, 1).finding(message, "rename it, or delete it")


def _missing_extensions(snapshot: Snapshot, place: Position, present: Iterable[str]) -> Iterator[Finding]:
    """What Talos' image lacks for what the tree deploys on it, and for the params."""
    users = {each: app.name for app in snapshot.applications for each in chart_of(app).extensions}
    if any(platform.vm.agent for platform in snapshot.platforms.values()):
        users["siderolabs/qemu-guest-agent"] = "vm.agent"
    for extension in sorted(users.keys() - set(present)):
        message = f"the image has no {extension}, without which {users[extension]} does not work"
        yield place.finding(message, "add it to officialExtensions; nodes get it by an upgrade (21_upgrade_talos)")


def files_are_listed(snapshot: Snapshot) -> Iterator[Finding]:
    """Each file is in a kustomization; each folder is in one, or in an Application, or is a root.

    What is not listed is never deployed, and nothing else reports it.
    """
    listed = snapshot.listed
    has_unknown_roots = any(isinstance(loaded, ParamsError) for loaded in snapshot.params.values())
    deployers = _deployers(snapshot)
    uids: dict[str, list[set[str]]] = {}
    for folder in snapshot.kustomizations:
        document = kustomization.load(folder, snapshot.reader)
        yield from _unread_dashboards(snapshot, document, deployers.get(folder, set()), uids)
    for file in (file for top in ("params", "site", "talos") for file in sorted((snapshot.root / top).rglob("*.yml"))):
        if file.stem in _TABLES or {"params", "patches"} & {file.parent.name, file.parent.parent.name}:
            yield Position(file, 1).finding("nothing reads it: its name ends with .yml", f"name it {file.stem}.yaml")
    remedy = "list it, or delete it"
    for file in snapshot.all_files:
        if file.suffix == ".json" and file.resolve() not in listed:
            yield Position(file, 1).finding("no kustomization reads it", remedy)
    for file in snapshot.files:
        if file.name == kustomization.NAME:
            folder = file.parent.resolve()
            is_unknown = has_unknown_roots and file.is_relative_to(snapshot.root / TOPS[1])
            if folder not in listed | snapshot.named and not is_unknown:
                message = "no kustomization, Application or platform.gitops.path names its folder"
                yield Position(file, 1).finding(message, "name it, for a root in your params, or delete it")
        elif file.resolve() not in listed and any(
            document.kind and "sops" not in document.data for document in snapshot.reader.read(file)
        ):
            yield Position(file, 1).finding("no kustomization lists it: it is never deployed", remedy)


def _deployers(snapshot: Snapshot) -> dict[Path, set[str]]:
    """The roots that deploy each kustomization."""
    deployers: dict[Path, set[str]] = {}
    for tree in snapshot.roots:
        for app in filter(tree.is_ours, tree.applications):
            for part in kustomization.below(snapshot.root / app.path, snapshot.reader):
                deployers.setdefault(part.file.parent, set()).add(tree.path)
    return deployers


def _unread_dashboards(
    snapshot: Snapshot, document: Document, roots: set[str], uids: dict[str, list[set[str]]]
) -> Iterator[Finding]:
    """Generators of dashboards whose ConfigMap no sidecar of Grafana watches, and dashboards that Grafana refuses.

    Args:
        snapshot: the repository.
        document: the kustomization.
        roots: those that deploy it.
        uids: those of the dashboards so far, with the roots that deploy each; those of this one are added.
    """
    path = ("grafana", "sidecar", "dashboards", "label")
    grafanas = [app for app in snapshot.applications if value_under(app.values, path[:1])]
    watched = {str(value_under(app.values, path) or DASHBOARD) for app in grafanas} or {DASHBOARD}
    for index, generator in enumerate(document.data.get("configMapGenerator") or ()):
        labels = value_under(generator, ("options", "labels")) or {}
        entries = [str(entry).rpartition("=")[2] for entry in generator.get("files") or ()]
        files = [file for name in entries if (file := document.file.parent / name).suffix == ".json" and file.is_file()]
        named = (document.file.parent / name for name in entries)
        size = sum(file.stat().st_size for file in named if file.is_file())
        if size > _LARGEST_MAP:
            place = document.at("configMapGenerator", index)
            message = f"ConfigMap {generator.get('name')} has {size // 1024} KiB, and Kubernetes takes 1024 KiB"
            yield place.finding(message, "split it")
        dashboards = {file: parse_json(read_text(file), file) for file in files}
        if any(map(_has_panels, dashboards.values())) and not watched & set(labels):
            place = document.at("configMapGenerator", index, "options", "labels")
            message = f"nothing reads the dashboards of {generator.get('name')}"
            yield place.finding(message, f"label it {' or '.join(sorted(watched))}")
        for file, dashboard in dashboards.items() if watched & set(labels) else ():
            for message, remedy in _dashboard_defects(dashboard, roots, uids):
                yield Position(file, 1).finding(message, remedy)


def _has_panels(dashboard: Any) -> bool:
    return isinstance(value_under(dashboard, ["panels"]), list)


def _dashboard_defects(dashboard: Any, roots: set[str], uids: dict[str, list[set[str]]]) -> Iterator[tuple[str, str]]:
    """What Grafana refuses in a dashboard; adds its uid to `uids`."""
    if not _has_panels(dashboard):
        yield "it is no dashboard: it has no list of panels", "export it as JSON again"
        return
    title, uid = dashboard.get("title"), dashboard.get("uid")
    if not isinstance(title, str) or not title.strip():
        yield "the dashboard has no title", "give it one"
    if uid and not (isinstance(uid, str) and _UID.fullmatch(uid)):
        yield "the uid of the dashboard is not valid", "at most 40 letters, digits, - and _"
    others = uids.setdefault(str(uid), [])
    if uid and any(not other or not roots or other & roots for other in others):  # what no root deploys may be anywhere
        yield f"another dashboard has the uid {uid} too: Grafana shows one of them", "give it another"
    others.append(roots)


def kustomizations_build(snapshot: Snapshot) -> Iterator[Finding]:
    """Every kustomization builds; one with a KSOPS generator gives as many Secrets as the generator has files.

    What another one lists is built with that; alone only if it has generators, or something is wrong.
    """
    parts = (kustomization.load(folder, snapshot.reader) for folder in snapshot.kustomizations)
    folders = [part.file.parent for part in parts if part.kind != "Component"]  # which is built with what lists it
    nested = {part.file.parent for folder in folders for part in kustomization.below(folder, snapshot.reader)[1:]}
    nested = {folder for folder in nested if not kustomization.generators(folder, snapshot.reader)}
    with build.builder(snapshot.root) as builder, ThreadPoolExecutor() as pool:

        def built(folders: Iterable[Path]) -> list[Finding]:
            return [
                each for defects in pool.map(lambda f: list(_build(builder, f, snapshot)), folders) for each in defects
            ]

        failed = built(folder for folder in folders if folder not in nested)
        yield from failed
        yield from built(folder for folder in folders if folder in nested) if failed or snapshot.reader.refused else ()


def _build(builder: Builder, folder: Path, snapshot: Snapshot) -> Iterator[Finding]:
    reader = TolerantReader()
    listed = kustomization.resources(folder, reader)
    kustomization.generated(folder, reader)  # which refuses what is missing
    sources = [source for generator in kustomization.generators(folder, reader) for source in generator.sources]
    if reader.refused or reader.emptied or not all(source.file.is_file() for source in sources):
        snapshot.reader.refused.update(reader.refused)
        return
    try:
        objects = builder.build(folder)
    except DeadlineExceeded as error:
        yield Position(folder / kustomization.NAME, 1).finding(error.message, "split what it lists")
        return
    except ToolFailed as error:
        if os.strerror(errno.ENOSPC).lower() in error.detail.lower():
            raise unwritable(
                builder.home / kustomization.NAME, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            ) from error
        detail = error.detail.replace(f"{builder.home}/tree/", "")
        output = [line.strip(": ") for line in detail.splitlines() if line.strip(": ")][-1:] or [error.message]
        place, remedy = _mentioned(folder, detail), f"kubectl kustomize {folder} shows more"
        yield place.finding(f"kustomize refuses it: {output[0]}", remedy)
        return
    nested = kustomization.below(folder, snapshot.reader)
    generators = [each for part in nested for each in kustomization.generators(part.file.parent, snapshot.reader)]
    if not generators or not all(generator.is_ksops for generator in generators):
        return
    wanted = sum(len(g.document.data.get(field) or ()) for g in generators for field in ("files", "secretFrom"))
    others: list[Any] = [*listed]
    if not kustomization.is_built(nested[0]):
        others += [entry for part in nested for entry in part.data.get("configMapGenerator") or ()]
    made = len(objects) - len(others)
    if made != wanted:
        message = f"its generators list {wanted} files and make {made} objects"
        yield Position(folder / kustomization.NAME, 1).finding(message, "give each file one Secret")


def _mentioned(folder: Path, output: str) -> Position:
    """The entry of the kustomization whose last part kustomize's output mentions; else its first line."""
    file = folder / kustomization.NAME
    lines = read_text(file).splitlines()
    if "kind should be" in output:
        return Position(file, next((at for at, line in enumerate(lines, 1) if line.startswith("kind:")), 1))
    entries = [(at, line.strip()[2:].strip()) for at, line in enumerate(lines, 1) if line.strip().startswith("- ")]
    mentioned = [at for at, entry in entries if entry and entry.rpartition("/")[2] in output]
    return Position(file, mentioned[-1] if mentioned else 1)


def phase_values_have_places(snapshot: Snapshot) -> Iterator[Finding]:
    """Each place that an Application names exists, and each params file has every value that the tree asks for."""
    folder = snapshot.root / snapshot.path
    if not (folder / kustomization.NAME).exists():
        missing = f"no {kustomization.NAME} in {snapshot.path}" if folder.is_dir() else f"no folder {snapshot.path}"
        for file in snapshot.platforms:
            place = documents.read(file)[0].at("platform", "gitops", "path")
            yield place.finding(f"there is {missing}", "correct platform.gitops.path")
        return
    yield from (
        documents.read(file)[0].at("platform", "gitops", "without").finding(message, "correct platform.gitops.without")
        for message in refusals(snapshot.tree)
        for file in snapshot.platforms
    )
    for app in snapshot.tree.all_applications:
        for name, annotation in ((app.only_with, ONLY_WITH), *((v.only_with, PHASE_VALUES) for v in app.phase_values)):
            if name not in ("", BACKUPS):
                place = app.document.at("metadata", "annotations", annotation)
                yield place.finding(
                    f"{name} is no feature of a platform that an Application can depend on",
                    f"did you mean {BACKUPS!r}?",
                )
    objects = {(document.kind, document.name): document.data for document in snapshot.objects()}
    given = {name for platform in snapshot.platforms.values() for name in values_of(platform)}
    wrong = [finding for app in snapshot.applications for finding in _misplaced(snapshot, app, objects, given)]
    yield from wrong
    for file, platform in snapshot.platforms.items() if not wrong else ():
        try:
            patches_for(platform, snapshot.tree)
        except ParamsError as error:
            yield Position(file, 1).finding("; ".join([error.message, *error.problems]), error.remedy)


def _misplaced(
    snapshot: Snapshot, app: Application, objects: Mapping[tuple[str, str], dict[str, Any]], given: set[str]
) -> Iterator[Finding]:
    """The phase values of an Application that have no place, no value, or a brace too many."""
    place = app.document.at("metadata", "annotations", PHASE_VALUES)
    dropped = filter(snapshot.tree.is_dropped, snapshot.tree.all_deployed_by(app))
    gone = {(document.kind, document.name) for document in dropped}
    for value in (value for value in app.phase_values if (value.kind, value.name) not in gone):
        if {"{", "}"} & set(rest_of(value.value)):
            yield place.finding(f"{value.value!r} has a brace without its other one", 'write "{name}"')
        for name in sorted(set(names_in(value.value)) - given) if given else ():
            yield place.finding(f"no params file has a value {name}", "correct the name")
        data = objects.get((value.kind, value.name), {}) if value.kind else app.document.data
        if value_at(data, value.path) is MISSING and (not value.only_with or value.only_with in snapshot.has):
            target = f"{value.kind} {value.name}" if value.kind else f"Application {app.name}"
            yield place.finding(f"{target} has nothing at {value.path}", "correct the path")


SERVER = "https://kubernetes.default.svc"
_SOURCE = ("spec", "source")
_VALUES = (*_SOURCE, "helm", "valuesObject")
_OTHER_VALUES = ("values", "parameters", "fileParameters", "valueFiles")
_EXACT = re.compile(r"v?\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?|[0-9a-f]{40}")
_FINALIZERS = {FINALIZER, FINALIZER + "/foreground", FINALIZER + "/background"}
_HARMFUL = {
    "Replace=true": "it deletes and recreates what it cannot change",
    "Force=true": "it deletes and recreates what it cannot change",
    "Validate=false": "mistakes would reach the cluster",
}
_TAG = "give it a tag that is a version"
_STAND_INS = "lab/fluobook_lab/charts/standins"
_HEALTH = "resource.customizations.health."
_NEW_OBJECT: dict[str, Any] = {"metadata": {"name": "new"}, "spec": {}}


def versions_are_exact(snapshot: Snapshot) -> Iterator[Finding]:
    """Charts and other repositories have an exact version; every image has a version tag; chart sources are https."""
    for app in snapshot.applications:
        if app.version and not snapshot.is_in_tree(app) and not _EXACT.fullmatch(app.version):
            place = app.document.at(*_SOURCE, "targetRevision")
            yield place.finding(f"{app.name}: {app.version} is not an exact version", "write all three numbers")
        if app.repo and not app.repo.startswith("https://"):
            place = app.document.at(*_SOURCE, "repoURL")
            yield place.finding(f"{app.name}: its source is not https", "use an https chart repository or git URL")
        for index, image in enumerate(app.kustomize.get("images") or ()):
            if _floats(image):
                place = app.document.at(*_SOURCE, "kustomize", "images", index)
                yield place.finding(f"{app.name}: image {image} has no tag of one exact version", _TAG)
    yield from _floating_images(snapshot)


def _floating_images(snapshot: Snapshot) -> Iterator[Finding]:
    """Images without a version that no kustomization gives one."""
    changed: set[str] = set()
    for document in (document for document in snapshot.documents if document.kind in ("Kustomization", "Component")):
        for index, entry in enumerate(document.data.get("images") or ()):
            name, digest, tag = (entry.get(key) for key in ("name", "digest", "newTag"))
            changed |= {str(name)} if digest or tag else set()
            if _floats(image := f"{name}:{tag}") and tag and not digest:
                yield document.at("images", index, "newTag").finding(
                    f"image {image} has no tag of one exact version", _TAG
                )
    for document in snapshot.documents:
        for path, key, image in walk(document.data):
            is_image = key in ("image", "imageName") and isinstance(image, str)
            if is_image and _floats(image) and re.sub(r"(:[^:/]*)?(@.*)?$", "", image) not in changed:
                yield document.at(*path).finding(f"image {image} has no tag of one exact version", _TAG)


def _floats(image: str) -> bool:
    """Whether an image has no tag, or one that moves: `latest`, or a major version alone."""
    return "@sha256:" not in image and not re.search(r"\d+\.\d+", image.rpartition("/")[2].partition(":")[2])


def applications_are_sound(snapshot: Snapshot) -> Iterator[Finding]:
    """Each Application is in Argo CD's namespace, has an existing source and the right destination, and self-heals."""
    paths = Counter(app.path for app in snapshot.applications if app.path)
    gitops = [platform.gitops for platform in snapshot.platforms.values()]
    urls, revisions = snapshot.own_sources
    in_tree = [app for app in snapshot.applications if app.path and snapshot.contains(snapshot.root / app.path)]
    for app in snapshot.applications:
        defects = [*_placement_defects(app), *_sync_policy_defects(app)]
        if paths[app.path] > 1:
            message = f"deploys {app.path}, and another Application does so too"
            defects.append(((*_SOURCE, "path"), message, "give each its own"))
        is_secret = app.repo.startswith("http") and without_credentials(app.repo) != app.repo  # `cleartext` reports it
        if gitops and app in in_tree and app.repo not in urls and not is_secret:
            defects.append(((*_SOURCE, "repoURL"), f"fetches {app.repo}", f"this repository is {min(urls)}"))
        if gitops and app in in_tree and app.version not in revisions:
            remedy = f"the others follow {min(revisions)}"
            defects.append(((*_SOURCE, "targetRevision"), f"follows {app.version}", remedy))
        if snapshot.is_in_tree(app) and not snapshot.tree.is_ours(app):
            exists = "has no kustomization" if app.path and (snapshot.root / app.path).exists() else "does not exist"
            defects.append(((*_SOURCE, "path"), f"deploys {app.path or 'no path'}, which {exists}", "correct the path"))
        for path, message, remedy in defects:
            yield app.document.at(*path).finding(f"{app.name} {message}", remedy)


def _placement_defects(app: Application) -> Iterator[tuple[tuple[Key, ...], str, str]]:
    if app.document.namespace != NAMESPACE:
        key = "namespace" if app.document.namespace else "name"
        yield ("metadata", key), f"is not in namespace {NAMESPACE}", "Argo CD reads no other namespace"
    if app.document.data["spec"]["destination"].get("server") != SERVER:
        yield ("spec", "destination", "server"), "goes to another cluster", f"its server is {SERVER}"
    home = chart_of(app).home
    if home and app.namespace != home:
        yield ("spec", "destination", "namespace"), f"goes to {app.namespace}", f"it works only in {home}"


def _sync_policy_defects(app: Application) -> Iterator[tuple[tuple[Key, ...], str, str]]:
    at = ("spec", "syncPolicy")
    policy = app.document.data["spec"].get("syncPolicy") or {}
    automated = policy.get("automated")
    if not isinstance(automated, dict) or not automated.get("selfHeal"):
        yield (*at, "automated", "selfHeal"), "has selfHeal disabled", "automated: {selfHeal: true}"
    if not policy.get("retry"):
        yield at, "gives up after one failed sync", "add retry, as the others have it"
    for index, option in enumerate(policy.get("syncOptions") or ()):
        if why := _HARMFUL.get(option):
            yield (*at, "syncOptions", index), f"has {option}", f"remove it: {why}"
    for index, name in enumerate(app.document.data["metadata"].get("finalizers") or ()):
        if name not in _FINALIZERS:
            message = f"has the finalizer {name}, which nothing ever removes"
            yield ("metadata", "finalizers", index), message, f"{FINALIZER} is Argo CD's"


def required_settings_are_set(snapshot: Snapshot) -> Iterator[Finding]:
    """Charts and objects have the settings that they need here, chart values in valuesObject alone."""
    for app in snapshot.applications:
        yield from _missing(app.document, app.name, chart_of(app).settings, _VALUES)
        helm = value_under(app.document.data, (*_SOURCE, "helm")) or {}
        for field in _OTHER_VALUES:
            if helm.get(field):
                place = app.document.at(*_SOURCE, "helm", field)
                yield place.finding(f"{app.name} has values in helm.{field} too", "move them to helm.valuesObject")
    for document in snapshot.objects():
        yield from _missing(document, f"{document.kind} {document.name}", settings_of(document.kind), ())


def _missing(document: Document, name: str, settings: Iterable[Setting], above: tuple[Key, ...]) -> Iterator[Finding]:
    values = value_under(document.data, above)
    for setting in settings:
        if not setting.accepts(value_under(values, setting.at)):
            message = f"{name}: {'.'.join(map(str, setting.at))} is not {setting.expected()}"
            yield document.at(*above, *setting.at).finding(message, f"set it: {setting.why}")


def approver_and_stage_4_agree(snapshot: Snapshot) -> Iterator[Finding]:
    """For every params file, kubelet-csr-approver and stage 4 decide alike about a certificate request."""
    problems: dict[tuple[Position, str], list[str]] = {}
    for file, platform in snapshot.platforms.items():
        try:
            applications = for_phase(platform, snapshot.tree).applications
        except ParamsError:
            continue  # the rule `phase-value` reports it
        for app in applications:
            if app.chart == "kubelet-csr-approver" and (problem := next(_disagreements(platform, app.values), "")):
                key = "bypassDnsResolution" if UNRESOLVED in problem else "providerIpPrefixes"
                place = app.document.at(*_VALUES, key)
                problems.setdefault((place, key), []).append(f"with {file.name}, {problem}")
    for (place, key), sentences in problems.items():
        remedy = "let the annotation fluobook/phase-values set {node_prefixes} and {node_name_regex}"
        if key == "bypassDnsResolution":
            remedy = "bypassDnsResolution: true; the DNS of the cluster does not have the names of Talos' nodes"
        yield place.finding(f"kubelet-csr-approver and stage 4 disagree: {'; '.join(sentences)}", remedy)


def _disagreements(platform: Platform, values: dict[str, Any]) -> Iterator[str]:
    try:
        pattern(str(values.get("providerRegex") or ""), "providerRegex")
        yield from disagreements(platform, Approver.from_values(values))
    except BadFile as error:
        yield f"providerRegex {error.problem}"
    except ValueError as error:
        yield f"it does not start: {error}"


def large_objects_are_applied_server_side(snapshot: Snapshot) -> Iterator[Finding]:
    """Charts with objects beyond 256 KiB are applied server-side: the client-side annotation could not hold them."""
    for app in snapshot.applications:
        if chart_of(app).large and "ServerSideApply=true" not in app.sync_options:
            place = app.document.at("spec", "syncPolicy", "syncOptions")
            yield place.finding(f"{app.name} has no ServerSideApply=true", "add it to syncOptions")


_SLIP = 2
"""Letters that a misspelt key has more or less than the right one, at most."""


def values_are_known(snapshot: Snapshot) -> Iterator[Finding]:
    """No key of a valuesObject is a misspelt one, which helm would ignore silently, or has a value of another type.

    The known keys are those of the stand-in charts' values.yaml: what the tree sets. A chart has many more, so a key is
    misspelt only if it resembles one of these.
    """
    for app in snapshot.applications:
        charts = snapshot.root / _STAND_INS / app.repo.partition("://")[2].strip("/")
        if app.chart and (values := charts / app.chart / "values.yaml").exists():
            for path, message, remedy in _value_defects(app.values, yaml.safe_load(values.read_text()) or {}):
                yield app.document.at(*_VALUES, *path).finding(f"{app.chart} {message}", remedy)
        known = sorted(folder.name for folder in charts.iterdir()) if app.chart and charts.is_dir() else []
        if meant := get_close_matches(app.chart, known, n=1, cutoff=0.8) if app.chart not in known else []:
            place = app.document.at(*_SOURCE, "chart")
            yield place.finding(f"{app.repo} has no chart {app.chart}", f"did you mean {meant[0]!r}?")


def _value_defects(values: dict[str, Any], known: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[Defect]:
    """Keys that resemble one of the chart, or have a value of another type; an empty mapping there takes any key."""
    for key, value in values.items():
        path = (*above, key)
        name = ".".join(path)
        if key not in known:
            similar = [each for each in known if abs(len(each) - len(key)) <= _SLIP]
            if meant := get_close_matches(key, similar, n=1, cutoff=0.8):
                yield path, f"has no value {name}", f"did you mean {meant[0]!r}?"
        elif isinstance(value, dict) and isinstance(known[key], dict) and known[key]:
            yield from _value_defects(value, known[key], path)
        elif value is not None and not _has_type_of(value, known[key]):
            message = f"has the value {name} {shown(known[key])}, and here it is {shown(value)}"
            yield path, message, "write a value of the same type"


def _has_type_of(value: Any, default: Any) -> bool:
    """Whether a value may replace the chart's own: helm templates fail late, or take any text for true."""
    if default in (None, "", {}, []):
        return True  # the default does not show its type
    if isinstance(default, dict | list | bool):
        return type(value) is type(default)
    return not isinstance(value, dict | list) and (isinstance(default, str) or isinstance(value, type(default)))


def health_scripts_run_and_wait(snapshot: Snapshot) -> Iterator[Finding]:
    """Each health script of Argo CD runs, and reports no object healthy that has no status yet.

    A script that fails, or reports Healthy too early, lets every wave pass.
    """
    at = (*_VALUES, "configs", "cm")
    for app in snapshot.applications:
        configuration = value_under(app.document.data, at) if app.chart == "argo-cd" else None
        for key, script in (configuration or {}).items():
            if key.startswith(_HEALTH) and isinstance(script, str) and (defect := _script_defect(script)):
                line, message, remedy = defect
                place = Position(app.file, app.document.line(*at, key) + line)
                yield place.finding(f"the health script of {key.removeprefix(_HEALTH)} {message}", remedy)


def _script_defect(script: str) -> tuple[int, str, str] | None:
    """The line in the script, what is wrong, and the remedy; None for a sound script."""
    from fluobook.kubernetes.health_scripts import HealthScripts, ScriptError  # noqa: PLC0415 (only this needs Lua)

    try:
        status = HealthScripts().run(script, _NEW_OBJECT).status
    except ScriptError as error:
        return error.line, f"does not run: {error}", "correct it"
    message = "returns Healthy for an object without a status"
    return (0, message, "let it begin with Progressing") if status == "Healthy" else None
