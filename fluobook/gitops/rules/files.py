"""Files of the tree: every file is listed, every kustomization builds, and phase values have their places."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from fluobook.errors import DeadlineExceeded, FluobookError, ParamsError, ToolFailed
from fluobook.files import parse_json, read_text
from fluobook.gitops import build, documents, kustomization
from fluobook.gitops.components import refusals
from fluobook.gitops.documents import Position, value_under
from fluobook.gitops.root import names_in, patches_for, rest_of, values_of
from fluobook.gitops.snapshot import TolerantReader
from fluobook.gitops.tree import PHASE_VALUES, TOPS
from fluobook.kubernetes.json_patch import MISSING, value_at
from fluobook.machine import schematic
from fluobook.machine.contradictions import patch_contradictions
from fluobook.machine.node import below_patches, find_patches, patch_problems

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path
    from typing import Any

    from fluobook.gitops.build import Builder
    from fluobook.gitops.documents import Document, Finding
    from fluobook.gitops.snapshot import Snapshot
    from fluobook.gitops.tree import Application

_UID = re.compile(r"[A-Za-z0-9_-]{1,40}")
_DASHBOARD = "grafana_dashboard"
"""The label that Grafana's sidecar watches by default."""


def talos_accepts_the_patches(snapshot: Snapshot) -> Iterator[Finding]:
    """Talos accepts talos/patches for the platform of every params file, and no part of them is without effect.

    The Image Factory knows the fields of talos/schematic.yaml and their types.
    """
    image = snapshot.root / "talos" / "schematic.yaml"
    try:
        schematic.parse(read_text(image))
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
        message = f"applies to no node: its path is not that of a role or a node by its contract; {'; '.join(reasons)}"
        yield Position(snapshot.root / path, 1).finding(message, "rename it, or delete it")


def files_are_listed(snapshot: Snapshot) -> Iterator[Finding]:
    """Each file is in a kustomization; each folder is in one, or in an Application, or is a root.

    What is not listed is never deployed, and nothing else reports it.
    """
    listed = snapshot.listed
    has_unknown_roots = any(isinstance(loaded, ParamsError) for loaded in snapshot.params.values())
    uids: set[str] = set()
    for folder in snapshot.kustomizations:
        yield from _unread_dashboards(snapshot, kustomization.load(folder, snapshot.reader), uids)
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


def _unread_dashboards(snapshot: Snapshot, document: Document, uids: set[str]) -> Iterator[Finding]:
    """Generators of dashboards whose ConfigMap no sidecar of Grafana watches, and dashboards that Grafana refuses."""
    path = ("grafana", "sidecar", "dashboards", "label")
    grafanas = [app for app in snapshot.applications if value_under(app.values, path[:1])]
    watched = {str(value_under(app.values, path) or _DASHBOARD) for app in grafanas} or {_DASHBOARD}
    for index, generator in enumerate(document.data.get("configMapGenerator") or ()):
        labels = value_under(generator, ("options", "labels")) or {}
        has_dashboards = any(str(entry).endswith(".json") for entry in generator.get("files") or ())
        if has_dashboards and not watched & set(labels):
            place = document.at("configMapGenerator", index, "options", "labels")
            message = f"nothing reads the dashboards of {generator.get('name')}"
            yield place.finding(message, f"label it {' or '.join(sorted(watched))}")
        for entry in generator.get("files") or () if watched & set(labels) else ():
            file = document.file.parent / entry.rpartition("=")[2]
            if file.suffix == ".json" and file.is_file():
                dashboard = parse_json(read_text(file), file)
                for message, remedy in _dashboard_defects(dashboard, uids):
                    yield Position(file, 1).finding(message, remedy)


def _dashboard_defects(dashboard: Any, uids: set[str]) -> Iterator[tuple[str, str]]:
    """What Grafana refuses in a dashboard; adds its uid to `uids`."""
    if not isinstance(value_under(dashboard, ["panels"]), list):
        yield "it is no dashboard: it has no list of panels", "export it as JSON again"
        return
    title, uid = dashboard.get("title"), dashboard.get("uid")
    if not isinstance(title, str) or not title.strip():
        yield "the dashboard has no title", "give it one"
    if uid and not (isinstance(uid, str) and _UID.fullmatch(uid)):
        yield "the uid of the dashboard is not valid", "at most 40 letters, digits, - and _"
    if uid and uid in uids:
        yield f"another dashboard has the uid {uid} too: Grafana shows one of them", "give it another"
    uids.add(str(uid))


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
            return [each for found in pool.map(lambda f: list(_build(builder, f, snapshot)), folders) for each in found]

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
        detail = error.detail.replace(f"{builder.home}/tree/", "")
        output = [line.strip(": ") for line in detail.splitlines() if line.strip(": ")][-1:] or [error.message]
        place, remedy = _mentioned(folder, detail), f"kubectl kustomize {folder.name} shows more"
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
    objects = {(document.kind, document.name): document.data for document in snapshot.objects()}
    given = {name for platform in snapshot.platforms.values() for name in values_of(platform)}
    wrong = [finding for app in snapshot.applications for finding in _misplaced(app, objects, given)]
    yield from wrong
    for file, platform in snapshot.platforms.items() if not wrong else ():
        try:
            patches_for(platform, snapshot.tree)
        except ParamsError as error:
            yield Position(file, 1).finding("; ".join([error.message, *error.problems]), error.remedy)


def _misplaced(
    app: Application, objects: Mapping[tuple[str, str], dict[str, Any]], given: set[str]
) -> Iterator[Finding]:
    """The phase values of an Application that have no place, no value, or a brace too many."""
    place = app.document.at("metadata", "annotations", PHASE_VALUES)
    for value in app.phase_values:
        if {"{", "}"} & set(rest_of(value.value)):
            yield place.finding(f"{value.value!r} has a brace without its other one", 'write "{name}"')
        for name in sorted(set(names_in(value.value)) - given) if given else ():
            yield place.finding(f"no params file has a value {name}", "correct the name")
        data = objects.get((value.kind, value.name), {}) if value.kind else app.document.data
        if value_at(data, value.path) is MISSING:
            target = f"{value.kind} {value.name}" if value.kind else f"Application {app.name}"
            yield place.finding(f"{target} has nothing at {value.path}", "correct the path")
