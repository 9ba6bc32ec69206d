"""Takes request paths apart: which resource, namespace, object and subresource is meant, and what the verb is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_PATH = re.compile(
    r"/(?:api/(?P<core>v[^/]+)|apis/(?P<group>[^/]+)/(?P<version>[^/]+))"
    r"(?P<watch>/watch)?(?:/namespaces/(?P<namespace>[^/]+)(?=/(?!status$|finalize$)[^/]))?"
    r"/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<subresource>.+?))?/?"
)
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True)
class Target:
    """What a request is about."""

    group: str
    version: str
    plural: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    watched: bool = False

    @property
    def resource(self) -> str:
        """As authorization names it: "pods" or "pods/status"."""
        return f"{self.plural}/{self.subresource}" if self.subresource else self.plural

    def verb(self, method: str, *, watch: bool) -> str:
        """What a method means here."""
        if method in ("GET", "HEAD"):
            return "watch" if watch and (self.watched or not self.name) else "get" if self.name else "list"
        return "deletecollection" if method == "DELETE" and not self.name else _VERBS.get(method, method.lower())

    def narrowed(self, query: Mapping[str, str]) -> Mapping[str, str]:
        """The query of a watch; one object is watched by a selector of its name."""
        return {**query, "fieldSelector": f"metadata.name={self.name}"} if self.name else query


def parse(path: str) -> Target | None:
    """The target of a resource path, None if it is none."""
    found = _PATH.fullmatch(path)
    if not found:
        return None
    return Target(
        group=found["group"] or "",
        version=found["core"] or found["version"],
        plural=found["plural"],
        namespace=found["namespace"] or "",
        name=found["name"] or "",
        subresource=found["subresource"] or "",
        watched=bool(found["watch"]),
    )
