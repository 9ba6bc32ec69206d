"""The resources (COSI) of a node: stored by type and id, versioned, watched; and which types a client may read."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from fluobook_lab.data import table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_TABLE = "talos/resource_types.yaml"
DEFINITIONS = "ResourceDefinitions.meta.cosi.dev"
"""The type whose resources describe all types; clients read it to find a type by an alias such as "members"."""


@cache
def types() -> dict[str, str]:
    """The default namespace of each type of Talos."""
    return {type_: namespace for namespace, names in table(_TABLE)["namespaces"].items() for type_ in names}


def is_sensitive(type_: str) -> bool:
    """Whether only administrators may read a type."""
    return type_ in table(_TABLE)["sensitive"]


def definition(type_: str) -> dict[str, Any]:
    """The specification of a type's definition, with the aliases that follow from its name."""
    name, *suffix = type_.split(".")
    singular = re.sub("ies$", "y", name) if name.endswith("ies") else re.sub("(?<=s)es$|s$", "", name)
    capitals = "".join(filter(str.isupper, name)).lower()
    aliases = [*(table(_TABLE)["namespaces"][types()[type_]][type_] or "").split(), singular.lower()]
    if len(capitals) > 1:
        aliases += [capitals] if capitals.endswith("s") else [capitals, f"{capitals}s"]
    qualified = [".".join([name.lower(), *suffix[:count]]) for count in range(len(suffix))]
    return {
        "type": type_,
        "displayType": singular,
        "defaultNamespace": types()[type_],
        "aliases": aliases,
        "allAliases": [*qualified, *aliases],
        "printColumns": [],
        "sensitivity": "sensitive" if is_sensitive(type_) else "",
    }


class Key(NamedTuple):
    """The identity of a resource."""

    namespace: str
    type: str
    id: str


@dataclass(frozen=True)
class Stored:
    """One resource at one version; `spec` is the content of its YAML."""

    key: Key
    spec: Any
    version: int = 1
    created: float = field(default_factory=time.time)
    updated: float = field(default_factory=time.time)


@cache
def _definitions() -> dict[Key, Stored]:
    return {
        key: Stored(key, definition(type_)) for type_ in types() for key in [Key("meta", DEFINITIONS, type_.lower())]
    }


class Change(NamedTuple):
    """A change of a resource: "CREATED", "UPDATED", "DESTROYED"; `old` is set for an update."""

    type: str
    resource: Stored
    old: Stored | None = None


class State:
    """All resources of one node; computed only when a client reads or watches them.

    Args:
        describe: returns the current resources.
    """

    def __init__(self, describe: Callable[[], Iterable[tuple[Key, Any]]]) -> None:
        self._describe = describe
        self._stale = True
        self._resources: dict[Key, Stored] = {}
        self._watchers: list[asyncio.Queue[Change]] = []

    def get(self, key: Key) -> Stored | None:
        """One resource."""
        self._refresh()
        return self._resources.get(key) or _definitions().get(key)

    def list(self, namespace: str, type_: str) -> list[Stored]:
        """The resources of a type, sorted by id."""
        self._refresh()
        resources = _definitions() if type_ == DEFINITIONS else self._resources
        items = (item for key, item in resources.items() if key[:2] == (namespace, type_))
        return sorted(items, key=lambda item: item.key.id)

    def touch(self) -> None:
        """Mark the resources as outdated; watchers get the changes at once."""
        self._stale = True
        if self._watchers:
            self._refresh()

    def watch(self) -> asyncio.Queue[Change]:
        """A queue that receives every change from now on, until `unwatch`."""
        self._refresh()
        queue: asyncio.Queue[Change] = asyncio.Queue()
        self._watchers.append(queue)
        return queue

    def unwatch(self, queue: asyncio.Queue[Change]) -> None:
        """Stop filling a queue."""
        self._watchers.remove(queue)

    def _refresh(self) -> None:
        if not self._stale:
            return
        self._stale = False
        for change in list(self._changes(dict(self._describe()))):
            if change.type == "DESTROYED":
                del self._resources[change.resource.key]
            else:
                self._resources[change.resource.key] = change.resource
            for queue in self._watchers:
                queue.put_nowait(change)

    def _changes(self, specs: dict[Key, Any]) -> Iterator[Change]:
        for key, old in self._resources.items():
            if key not in specs:
                yield Change("DESTROYED", old)
        for key, spec in specs.items():
            before = self._resources.get(key)
            if before is None:
                yield Change("CREATED", Stored(key, spec))
            elif before.spec != spec:
                new = replace(before, spec=spec, version=before.version + 1, updated=time.time())
                yield Change("UPDATED", new, before)
