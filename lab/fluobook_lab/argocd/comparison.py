"""Live state against desired state: each object Synced or OutOfSync, and its health.

Two objects differ if applying the target would change the live one: the server decides, in a dry run (Argo CD's
server-side diff). So defaults and the fields of other managers are no difference.
"""

from __future__ import annotations

import asyncio
import fnmatch
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluobook.kubernetes import json_patch
from fluobook_lab.argocd.health import HEALTHY, Health
from fluobook_lab.argocd.objects import (
    COMPARE,
    IGNORE_HEALTH,
    MANAGER,
    TRACKING,
    Key,
    annotation,
    is_hook,
    key_of,
    listed,
    tracking_id,
)
from fluobook_lab.kube.errors import ApiError
from fluobook_lab.kube.objects import clone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from fluobook_lab.argocd.health import HealthChecks
    from fluobook_lab.argocd.objects import Target
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.resources import Resource
    from fluobook_lab.kube.storage import Event
    from fluobook_lab.kube.store import Store

UNWATCHED = {
    *(("", "events"), ("", "pods"), ("", "endpoints"), ("apps", "replicasets"), ("apps", "controllerrevisions")),
    *(("coordination.k8s.io", "leases"), ("discovery.k8s.io", "endpointslices"), ("events.k8s.io", "events")),
}
"""Kinds that change often and that no repository contains."""
Path = tuple[str, ...]
EACH = "[]"
"""A step into every item of a list."""
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
SERVER_FIELDS = ("managedFields", "resourceVersion", "generation", "creationTimestamp", "uid", "selfLink")


class Cluster:
    """The controller's view of the cluster: the live objects of each Application, from one watch per kind.

    Args:
        store: the lab's Kubernetes.
        changed: called with the Application's name ("" if none) and the object whenever one changes.
    """

    def __init__(self, store: Store, changed: Callable[[str, Obj], None]) -> None:
        self.store = store
        self._changed = changed
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._objects: defaultdict[str, dict[Key, Obj]] = defaultdict(dict)
        self._owner: dict[Key, str] = {}

    def start(self) -> None:
        """Watch every kind that is served."""
        for resource in self.store.registry:
            self._watch(resource)

    async def stop(self) -> None:
        """End all watches."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()

    def objects_of(self, app: str) -> dict[Key, Obj]:
        """The live objects with an Application's tracking id; not to be changed."""
        return dict(self._objects[app])

    def live(self, obj: Obj) -> Obj | None:
        """The live object, None if it does not exist or its kind is not served; not to be changed."""
        resource = self.store.registry.find(obj["apiVersion"], obj["kind"])
        if resource is None:
            return None
        metadata = obj["metadata"]
        return self.store.storage.get(resource.store_key, (metadata.get("namespace", ""), metadata["name"]))

    def delete(self, live: Obj) -> None:
        """Delete an object; it may be gone already.

        Raises:
            ApiError: the server refused.
        """
        metadata = live["metadata"]
        try:
            self.store.delete(live["apiVersion"], live["kind"], metadata["name"], metadata.get("namespace", ""))
        except ApiError as error:
            if error.code != 404:  # noqa: PLR2004
                raise

    def namespaced(self, obj: Obj) -> bool:
        """Whether objects of this kind belong to namespaces; true if the kind is not served."""
        resource = self.store.registry.find(obj.get("apiVersion", ""), obj.get("kind", ""))
        return resource is None or resource.namespaced

    def api_versions(self) -> tuple[str, ...]:
        """The APIs that charts see: "apps/v1" and "apps/v1/Deployment"."""
        served = [(resource.api_version, resource.kind) for resource in self.store.registry]
        return tuple(sorted({version for version, _ in served} | {f"{version}/{kind}" for version, kind in served}))

    def _watch(self, resource: Resource) -> None:
        if not resource.storable or resource.store_key in UNWATCHED or resource.store_key in self._tasks:
            return
        watch = self.store.watch(resource.api_version, resource.kind)
        for _, obj in self.store.storage.scan(resource.store_key):
            self._add(obj)

        async def follow() -> None:
            try:
                async for event in watch:
                    self._handle(event)
            finally:
                watch.close()

        self._tasks[resource.store_key] = asyncio.create_task(follow(), name=f"argocd {resource.qualified}")

    def _handle(self, event: Event) -> None:
        obj = event.object
        key = key_of(obj)
        owners = {self._owner.get(key, "")}
        if event.type == "DELETED":
            self._remove(key)
        else:
            self._add(obj)
        if obj["kind"] == "CustomResourceDefinition":
            for resource in list(self.store.registry):
                if resource.custom:
                    self._watch(resource)
        owners.add(self._owner.get(key, ""))
        for app in owners - {""} or {""}:
            self._changed(app, obj)

    def _add(self, obj: Obj) -> None:
        key, tracking = key_of(obj), annotation(obj, TRACKING)
        self._remove(key)
        app = tracking.partition(":")[0]
        if app and tracking == tracking_id(app, obj):  # a copy has the tracking id of the object it was copied from
            self._objects[app][key] = obj
            self._owner[key] = app

    def _remove(self, key: Key) -> None:
        if app := self._owner.pop(key, ""):
            self._objects[app].pop(key, None)


# ---- ignoreDifferences -----------------------------------------------------------------------------------------------


def ignored_paths(key: Key, rules: Iterable[Mapping[str, Any]]) -> tuple[Path, ...]:
    """The paths that entries of `ignoreDifferences` exclude from the comparison of one object.

    Args:
        key: the object's.
        rules: group, kind, name, namespace, jsonPointers, jqPathExpressions.
    """
    paths: list[Path] = []
    for rule in rules:
        if (
            fnmatch.fnmatchcase(key.group, rule.get("group") or "")
            and fnmatch.fnmatchcase(key.kind, rule.get("kind") or "*")
            and rule.get("name") in (None, "", key.name)
            and rule.get("namespace") in (None, "", key.namespace)
        ):
            paths += [tuple(json_patch.steps(pointer)) for pointer in rule.get("jsonPointers") or ()]
            paths += [path for text in rule.get("jqPathExpressions") or () if (path := _jq_path(text))]
    return tuple(paths)


def _jq_path(text: str) -> Path:
    """The plain paths of jq: `.spec.ports[].nodePort`, `.metadata.annotations["a.b/c"]`; () for anything else."""
    if not re.fullmatch(r"(\.[\w-]+|\.?\[\]|\.?\[\"[^\"]+\"\])+", text.strip()):
        return ()
    steps = re.findall(r"\[\"([^\"]+)\"\]|(\[\])|\.([\w-]+)", text)
    return tuple(EACH if each else quoted or name for quoted, each, name in steps)


def comparable(obj: Obj, ignored: Iterable[Path]) -> Obj:
    """A copy of an object without its status, the server's own fields, and what is ignored."""
    result = {name: clone(value) for name, value in obj.items() if name not in {"status", "metadata", "apiVersion"}}
    result["metadata"] = {name: clone(value) for name, value in obj["metadata"].items() if name not in SERVER_FIELDS}
    for path in (("metadata", "annotations", LAST_APPLIED), *ignored):
        _remove(result, path)
    return result


def with_live_values(target: Obj, live: Obj, ignored: Iterable[Path]) -> Obj:
    """The target with the live values at the ignored paths, so that a sync does not change them."""
    result = clone(target)
    for path in ignored:
        if EACH in path:
            continue
        _remove(result, path)
        value: Any = live
        for step in path:
            value = value.get(step) if isinstance(value, dict) else _item(value, step)
        parent: Any = result
        for step in path[:-1] if value is not None else ():
            parent = parent.setdefault(step, {}) if isinstance(parent, dict) else _item(parent, step)
        if value is not None and isinstance(parent, dict):
            parent[path[-1]] = clone(value)
    return result


def _item(value: Any, step: str) -> Any:
    exists = isinstance(value, list) and step.isdigit() and int(step) < len(value)
    return value[int(step)] if exists else None


def _remove(value: Any, path: Path) -> None:
    if not path or value is None:
        return
    step, rest = path[0], path[1:]
    if step == EACH:
        for item in value if isinstance(value, list) else ():
            _remove(item, rest)
    elif isinstance(value, list):
        _remove(_item(value, step), rest)
    elif isinstance(value, dict) and step in value:
        if rest:
            _remove(value[step], rest)
        else:
            del value[step]


# ---- the comparison --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compared:
    """One object of an Application: its target (None: to be pruned), its live state (None: missing), and its health."""

    key: Key
    target: Target | None
    live: Obj | None
    out_of_sync: bool
    health: Health | None

    @property
    def prunes(self) -> bool:
        """Whether it exists without a target."""
        return self.target is None


@dataclass(frozen=True)
class Comparison:
    """All objects of an Application except its hooks, in the order of their keys."""

    items: tuple[Compared, ...]

    @property
    def synced(self) -> bool:
        """Whether no object differs."""
        return not any(item.out_of_sync for item in self.items)

    def health(self) -> Health:
        """The worst health of the live objects; missing objects have no influence (Argo CD ≥ 3.4)."""
        worst = HEALTHY
        for item in self.items:
            counts = item.live and annotation(item.live, IGNORE_HEALTH) != "true"
            if counts and item.health and item.health.worse_than(worst):
                worst = Health(item.health.status)
        return worst


@dataclass(frozen=True)
class _Cached:
    """The comparison of one object, and the state that it applies to."""

    target: Target
    rules: tuple[Mapping[str, Any], ...]
    version: str
    checks: HealthChecks
    essence: Obj
    differs: bool
    health: Health | None


class Comparer:
    """Compares one Application repeatedly; sends the server only what changed since the last time.

    A changed status needs no new dry run: workloads and Applications write theirs all the time.
    """

    def __init__(self, cluster: Cluster, app: str) -> None:
        self._cluster, self._app = cluster, app
        self._cache: dict[Key, _Cached] = {}

    def compare(
        self, targets: Iterable[Target], ignored: Iterable[Mapping[str, Any]], checks: HealthChecks
    ) -> Comparison:
        """The comparison now.

        Args:
            targets: the desired state; hooks are left out.
            ignored: entries of `ignoreDifferences`.
            checks: the health checks.
        """
        rules = tuple(ignored)
        wanted = {target.key: target for target in targets if not target.is_hook}
        items = [self._compare(target, rules, checks) for target in wanted.values()]
        for key, live in self._cluster.objects_of(self._app).items():
            if key not in wanted and not is_hook(live):
                differs = "IgnoreExtraneous" not in listed(live, COMPARE)
                items.append(Compared(key, None, live, out_of_sync=differs, health=checks.health(live)))
        return Comparison(tuple(sorted(items, key=lambda item: item.key)))

    def _compare(self, target: Target, rules: tuple[Mapping[str, Any], ...], checks: HealthChecks) -> Compared:
        live = self._cluster.live(target.obj)
        if live is None:
            return Compared(target.key, target, None, out_of_sync=True, health=Health("Missing"))
        version, cached = live["metadata"]["resourceVersion"], self._cache.get(target.key)
        if cached and (cached.target is not target or cached.rules != rules):
            cached = None
        if cached is None or (cached.version, cached.checks) != (version, checks):
            essence = _essence(live)
            same = cached is not None and cached.essence == essence
            differs = cached.differs if cached and same else self._differs(target, live, rules)
            cached = _Cached(target, rules, version, checks, essence, differs, checks.health(live))
            self._cache[target.key] = cached
        return Compared(target.key, target, live, out_of_sync=cached.differs, health=cached.health)

    def _differs(self, target: Target, live: Obj, rules: tuple[Mapping[str, Any], ...]) -> bool:
        ignored = ignored_paths(target.key, rules)
        try:
            applied = self._cluster.store.apply(target.obj, manager=MANAGER, force=True, dry_run=True)
        except ApiError:
            return True
        return comparable(applied, ignored) != comparable(live, ignored)


def _essence(live: Obj) -> Obj:
    """The parts of a live object that a comparison depends on; not copied, since stored objects never change."""
    parts = {name: value for name, value in live.items() if name not in ("status", "operation", "metadata")}
    return {**parts, "metadata": {name: value for name, value in live["metadata"].items() if name not in SERVER_FIELDS}}
