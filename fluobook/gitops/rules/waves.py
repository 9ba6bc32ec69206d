"""Waves: what an Application needs is there a wave earlier, and the README tells the truth."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fluobook.gitops import schemas
from fluobook.gitops.application import WAVE
from fluobook.gitops.documents import value_under
from fluobook.gitops.knowledge import chart_of
from fluobook.gitops.rules.namespaces import made
from fluobook.gitops.tree import NEEDED_BEFORE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.gitops.application import Application
    from fluobook.gitops.documents import Key
    from fluobook.gitops.look import Finding, Look, Place

_MONITORS = {"serviceMonitor", "servicemonitor", "podMonitor"}
_SECRETS = {"secret", "superuserSecret", "passwordSecret"}
_ROW = re.compile(r"^\|\s*(-?\d+)\s*\|([^|]*)\|")


def waves_fit_what_is_needed(look: Look) -> Iterator[Finding]:
    """Kinds, namespaces, storage classes and Secrets come in an earlier wave than what uses them."""
    there = _providers(look)
    for one in look.tree.applications:
        for need, why, place in _needs(look, one):
            provider = there.get(need)
            if provider is None:
                told = f"{one.name} needs {need} ({why}), which no Application brings"
                yield place.finding("wave", told, "add it, or correct the name")
            elif provider.wave >= one.wave and provider is not one:
                told = f"{one.name} (wave {one.wave}) needs {need} ({why})"
                message = f"{told}, which {provider.name} brings in wave {provider.wave}"
                yield _finding(look, one, message, "move one of them")


def the_table_tells_the_waves(look: Look) -> Iterator[Finding]:
    """The table in cluster-gitops/README.md and the annotations agree."""
    readme = look.top / "README.md"
    told: dict[str, tuple[int, int]] = {}
    for number, line in enumerate(readme.read_text().splitlines() if readme.exists() else (), 1):
        if row := _ROW.match(line):
            told |= {name.strip(): (int(row[1]), number) for name in row[2].split(",")}
    for one in look.tree.applications:
        wave, number = told.pop(one.name, (None, 0))
        if wave is None:
            yield _finding(
                look, one, f"{one.name} is not in the table of waves", f"add it to {readme.name}", "wave-table"
            )
        elif wave != one.wave:
            message = f"{one.name} is in wave {one.wave}, and {readme.name}:{number} says {wave}"
            yield _finding(look, one, message, "one of them is wrong", "wave-table")
    for name, (_, number) in told.items():
        if not name.startswith("("):
            yield look.in_file(readme, number).finding("wave-table", f"there is no Application {name}", "take it out")


def _finding(look: Look, one: Application, message: str, remedy: str, rule: str = "wave") -> Finding:
    return look.at(one.document, "metadata", "annotations", WAVE).finding(rule, message, remedy)


def _providers(look: Look) -> dict[str, Application]:
    """What each Application brings that others may need: "group x", "namespace x", "class x", "secret ns/x"."""
    found: dict[str, Application] = {}
    for one in look.tree.applications:
        found |= {f"group {group}": one for group in chart_of(one).brings}
        found |= {f"class {name}": one for name in chart_of(one).classes}
        for document in look.tree.deployed_by(one):
            if document.kind == "StorageClass":
                found[f"class {document.name}"] = one
    found |= {f"namespace {name}": one for name, (one, _) in made(look).items()}
    secrets = [document for document in look.documents if document.kind == "Secret"]
    folders = {(look.root / one.path).resolve(): one for one in look.tree.applications if look.tree.is_ours(one)}
    for secret in secrets:
        if owner := folders.get(secret.file.parent.resolve()):
            found[f"secret {secret.namespace}/{secret.name}"] = owner
    return found


def _needs(look: Look, one: Application) -> Iterator[tuple[str, str, Place]]:
    """What must be there before an Application is synced, why, and where that is said."""
    here = look.at(one.document, "spec", "source")
    yield from ((f"group {group}", one.chart or one.repo, here) for group in chart_of(one).needs)
    for setting, group in chart_of(one).needs_with.items():
        if value_under(one.values, setting.split(".")):
            yield f"group {group}", setting, here
    for need, path in _needs_of_values(one.values, one.namespace):
        yield need, str(path[-1]), look.at(one.document, "spec", "source", "helm", "valuesObject", *path)
    late = _made_late(look)
    if one.namespace in late:
        place = look.at(one.document, "spec", "destination", "namespace")
        yield f"namespace {one.namespace}", "its destination", place
    for document in look.tree.deployed_by(one):
        told = f"{document.kind} {document.name}"
        if not schemas.is_built_in(str(document.data.get("apiVersion", ""))):
            yield f"group {document.group}", told, look.at(document, "apiVersion")
        if document.namespace in late:
            yield f"namespace {document.namespace}", told, look.at(document, "metadata", "namespace")
        for need, path in _needs_of_values(document.data.get("spec") or {}, document.namespace):
            yield need, f"{told}, {path[-1]}", look.at(document, "spec", *path)


def _made_late(look: Look) -> set[str]:
    """The namespaces that Argo CD makes; those that stage 5 makes are there before any wave."""
    return {name for name, (_, document) in made(look).items() if NEEDED_BEFORE not in document.annotations}


def _needs_of_values(values: Any, namespace: str, path: tuple[Key, ...] = ()) -> Iterator[tuple[str, tuple[Key, ...]]]:
    """Storage classes, Secrets and monitors that values or a spec ask for, and the paths where they do."""
    if isinstance(values, list):
        for index, item in enumerate(values):
            yield from _needs_of_values(item, namespace, (*path, index))
    if not isinstance(values, dict):
        return
    for key, value in values.items():
        if need := _need(str(key), value, namespace):
            yield need, (*path, key)
        yield from _needs_of_values(value, namespace, (*path, key))


def _need(key: str, value: Any, namespace: str) -> str:
    """What one value asks for; "" if nothing."""
    if key in ("storageClass", "storageClassName"):
        return f"class {value}" if value and isinstance(value, str) else ""
    if key == "existingSecret":
        return f"secret {namespace}/{value}" if value and isinstance(value, str) else ""
    if key in _SECRETS:
        return f"secret {namespace}/{value['name']}" if isinstance(value, dict) and set(value) == {"name"} else ""
    enabled = value.get("enabled") if isinstance(value, dict) else None
    monitors = (key in _MONITORS and enabled) or (key == "podMonitorEnabled" and value)
    return "group monitoring.coreos.com" if monitors else ""
