"""What is against what should be: each object Synced or OutOfSync, and how well it is.

Two objects differ if applying the one would change the other: the server itself is asked, by a dry run (what Argo CD
calls server-side diff). So defaults and other managers' fields are no difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluobook_lab.argocd.health.verdict import HEALTHY, Health
from fluobook_lab.argocd.ignoring import UNCOMPARED, comparable, paths
from fluobook_lab.argocd.names import IGNORE_HEALTH, MANAGER, annotation
from fluobook_lab.kube.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fluobook_lab.argocd.cluster import Cluster
    from fluobook_lab.argocd.health import Judge
    from fluobook_lab.argocd.names import Key
    from fluobook_lab.argocd.targets import Target
    from fluobook_lab.kube.objects import Obj


@dataclass(frozen=True)
class Compared:
    """One object of an Application: its target (None: to be pruned), what is live (None: missing), and the verdicts."""

    key: Key
    target: Target | None
    live: Obj | None
    differs: bool
    health: Health | None

    @property
    def version(self) -> str:
        """The API version of the object."""
        obj = self.target.obj if self.target else self.live or {}
        return str(obj.get("apiVersion", "")).rpartition("/")[2]

    @property
    def prunes(self) -> bool:
        """Whether it is there without being wanted."""
        return self.target is None

    @property
    def out_of_sync(self) -> bool:
        """Whether it keeps the Application from being Synced."""
        return self.differs or self.prunes


@dataclass(frozen=True)
class Comparison:
    """All objects of an Application but its hooks, in the order of their keys."""

    items: tuple[Compared, ...]

    @property
    def synced(self) -> bool:
        """Whether nothing differs."""
        return not any(item.out_of_sync for item in self.items)

    def health(self) -> Health:
        """As well as the worst of the live objects; missing ones do not count (Argo CD ≥ 3.4)."""
        worst = HEALTHY
        for item in self.items:
            if (
                item.live
                and item.health
                and annotation(item.live, IGNORE_HEALTH) != "true"
                and item.health.worse_than(worst)
            ):
                worst = Health(item.health.status)
        return worst


@dataclass(frozen=True)
class _Known:
    """What was found out of one object, and of what exactly."""

    target: Target
    rules: tuple[Mapping[str, Any], ...]
    version: str
    judge: Judge
    essence: Obj
    differs: bool
    health: Health | None

    def is_of(self, target: Target, rules: tuple[Mapping[str, Any], ...]) -> bool:
        """Whether the same was wanted then."""
        return self.target is target and self.rules == rules


class Comparer:
    """Compares one Application again and again; asks the server only about what changed since the last time.

    A status that changes is no reason to ask: workloads and Applications write theirs all the time.
    """

    def __init__(self, cluster: Cluster, app: str) -> None:
        self._cluster = cluster
        self._app = app
        self._known: dict[Key, _Known] = {}

    def compare(self, targets: Iterable[Target], ignored: Iterable[Mapping[str, Any]], judge: Judge) -> Comparison:
        """The comparison now.

        Args:
            targets: what should be; hooks are passed over.
            ignored: `ignoreDifferences`.
            judge: of health.
        """
        rules = tuple(ignored)
        wanted = {target.key: target for target in targets if not target.is_hook}
        items = [self._wanted(target, rules, judge) for target in wanted.values()]
        for key, live in self._cluster.owned(self._app).items():
            if key not in wanted:
                items.append(Compared(key, None, live, differs=True, health=judge.health(live)))
        return Comparison(tuple(sorted(items, key=lambda item: item.key)))

    def _wanted(self, target: Target, rules: tuple[Mapping[str, Any], ...], judge: Judge) -> Compared:
        live = self._cluster.live(target.obj)
        if live is None:
            return Compared(target.key, target, None, differs=True, health=Health("Missing"))
        version = live["metadata"]["resourceVersion"]
        known = self._known.get(target.key)
        if known is None or not known.is_of(target, rules) or (known.version, known.judge) != (version, judge):
            known = self._look(target, live, rules, judge)
            self._known[target.key] = known
        return Compared(target.key, target, live, differs=known.differs, health=known.health)

    def _look(self, target: Target, live: Obj, rules: tuple[Mapping[str, Any], ...], judge: Judge) -> _Known:
        before, essence = self._known.get(target.key), _essence(live)
        same = before is not None and before.is_of(target, rules) and before.essence == essence
        differs = before.differs if before is not None and same else self._differs(target, live, rules)
        return _Known(target, rules, live["metadata"]["resourceVersion"], judge, essence, differs, judge.health(live))

    def _differs(self, target: Target, live: Obj, rules: tuple[Mapping[str, Any], ...]) -> bool:
        overlooked = paths(target.key, rules)
        try:
            then = self._cluster.store.apply(target.obj, manager=MANAGER, force=True, dry_run=True)
        except ApiError:
            return True
        return comparable(then, overlooked) != comparable(live, overlooked)


def _essence(live: Obj) -> Obj:
    """What of a live object a comparison looks at; shares its parts, which never change."""
    kept = {name: value for name, value in live.items() if name not in ("status", "operation", "metadata")}
    return {**kept, "metadata": {name: value for name, value in live["metadata"].items() if name not in UNCOMPARED}}
