"""The resource types that the API serves: the built-in ones, and those of CustomResourceDefinitions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fluobook_lab.kube import schemas
from fluobook_lab.kube.errors import no_such_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook_lab.kube.objects import Obj


@dataclass(frozen=True)
class Resource:
    """One resource type in one version.

    Args:
        group: API group, "" for core.
        version: API version.
        plural: name in paths.
        kind: kind of the objects.
        namespaced: whether objects live in namespaces.
        discovery: the entry in aggregated discovery.
        schema: resolved OpenAPI schema of the objects, {} if unknown.
        columns: `additionalPrinterColumns` of a custom resource.
        custom: whether a CustomResourceDefinition made it.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    discovery: Obj = field(repr=False)
    schema: Obj = field(repr=False, default_factory=dict)
    columns: tuple[Obj, ...] = field(repr=False, default=())
    custom: bool = False

    @property
    def api_version(self) -> str:
        """As objects have it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """The name as errors write it: "pods", "deployments.apps"."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def store_key(self) -> tuple[str, str]:
        """Where the objects are kept; the same for all versions."""
        return (self.group, self.plural)

    @property
    def subresources(self) -> frozenset[str]:
        """Their names, such as "status"."""
        return frozenset(item["subresource"] for item in self.discovery.get("subresources", ()))

    @property
    def storable(self) -> bool:
        """Whether objects can be read back; reviews and bindings cannot."""
        return "get" in self.discovery["verbs"]


class Registry:
    """All resource types that are served now."""

    def __init__(self) -> None:
        self._by_path: dict[tuple[str, str, str], Resource] = {}
        self._by_kind: dict[tuple[str, str, str], Resource] = {}
        self.generation = 0
        for entry in schemas.data()["resources"]:
            for discovery in entry["resources"]:
                if "responseKind" in discovery:
                    self._add(_builtin(entry["group"], entry["version"], discovery))

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._by_path.values())

    def by_path(self, group: str, version: str, plural: str) -> Resource:
        """The resource of a request path.

        Raises:
            ApiError: 404, it is not served.
        """
        resource = self._by_path.get((group, version, plural))
        if resource is None:
            raise no_such_path()
        return resource

    def versions(self) -> set[tuple[str, str]]:
        """The groups and versions that are served."""
        return {(group, version) for group, version, _ in self._by_path}

    def by_kind(self, api_version: str, kind: str) -> Resource:
        """The resource of an object's apiVersion and kind.

        Raises:
            ApiError: 404, it is not served.
        """
        resource = self.find(api_version, kind)
        if resource is None:
            raise no_such_path()
        return resource

    def find(self, api_version: str, kind: str) -> Resource | None:
        """As `by_kind`, None if it is not served."""
        group, _, version = api_version.rpartition("/")
        return self._by_kind.get((group, version, kind))

    def replace_custom(self, group: str, plural: str, served: list[Resource]) -> None:
        """Serve these versions of a custom resource, and no others."""
        for key, resource in list(self._by_path.items()):
            if resource.custom and resource.store_key == (group, plural):
                del self._by_path[key]
                del self._by_kind[(resource.group, resource.version, resource.kind)]
        for resource in served:
            self._add(resource)
        self.generation += 1

    def _add(self, resource: Resource) -> None:
        self._by_path[(resource.group, resource.version, resource.plural)] = resource
        self._by_kind[(resource.group, resource.version, resource.kind)] = resource


def _builtin(group: str, version: str, discovery: Obj) -> Resource:
    kind = discovery["responseKind"]["kind"]
    schema = schemas.named(schemas.schema_name(group, version, kind))
    return Resource(
        group=group,
        version=version,
        plural=discovery["resource"],
        kind=kind,
        namespaced=discovery["scope"] == "Namespaced",
        discovery=discovery,
        schema=schema,
    )


_SCALE = {"group": "autoscaling", "version": "v1", "kind": "Scale"}
_CUSTOM_VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")


def custom_resources(definition: Obj) -> list[Resource]:
    """What a CustomResourceDefinition makes the API serve, in its own order of versions."""
    spec = definition["spec"]
    return [_custom(spec, version) for version in spec["versions"] if version.get("served")]


def _custom(spec: Obj, version: Obj) -> Resource:
    names = spec["names"]
    kind = {"group": "", "version": "", "kind": names["kind"]}
    discovery: dict[str, Any] = {
        "resource": names["plural"],
        "responseKind": {"group": spec["group"], "version": version["name"], "kind": names["kind"]},
        "scope": spec["scope"],
        "singularResource": names.get("singular") or names["kind"].lower(),
        "verbs": list(_CUSTOM_VERBS),
        "subresources": [
            {
                "subresource": name,
                "responseKind": _SCALE if name == "scale" else kind,
                "verbs": ["get", "patch", "update"],
            }
            for name in version.get("subresources") or {}
        ],
    }
    discovery |= {key: names[key] for key in ("shortNames", "categories") if names.get(key)}
    return Resource(
        group=spec["group"],
        version=version["name"],
        plural=names["plural"],
        kind=names["kind"],
        namespaced=spec["scope"] == "Namespaced",
        discovery=discovery,
        schema=_with_metadata((version.get("schema") or {}).get("openAPIV3Schema") or {}),
        columns=tuple(version.get("additionalPrinterColumns") or ()),
        custom=True,
    )


def _with_metadata(schema: Obj) -> Obj:
    if "properties" not in schema:
        return schema
    header = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
    return {**schema, "properties": {**schema["properties"], **header}}
