"""Discovery and OpenAPI: the groups, versions and resources that are served, and their schemas.

They are made from the registry, built-in and custom resources alike, so they never disagree with the server.
"""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING, Any

from fluobook_lab.kube import schemas
from fluobook_lab.kube.errors import no_such_group, no_such_path

if TYPE_CHECKING:
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.resources import Registry, Resource


AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def groups(registry: Registry) -> dict[str, dict[str, list[Resource]]]:
    """Group → version → resources; the preferred version of a group comes first."""
    resources: dict[str, dict[str, list[Resource]]] = {}
    for resource in registry:
        resources.setdefault(resource.group, {}).setdefault(resource.version, []).append(resource)
    return resources


def aggregated(registry: Registry, *, core: bool) -> Obj:
    """`APIGroupDiscoveryList` of /api (core) or /apis."""
    items = [
        {
            "metadata": {"name": group, "creationTimestamp": None} if group else {"creationTimestamp": None},
            "versions": [
                {"version": version, "resources": [r.discovery for r in resources], "freshness": "Current"}
                for version, resources in versions.items()
            ],
        }
        for group, versions in groups(registry).items()
        if (group == "") == core
    ]
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def core_versions(address: str) -> Obj:
    """`APIVersions` of /api."""
    where = [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": where}


def group_list(registry: Registry) -> Obj:
    """`APIGroupList` of /apis."""
    listed = [_group(name, list(versions)) for name, versions in groups(registry).items() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}


def group(registry: Registry, name: str) -> Obj:
    """`APIGroup` of /apis/GROUP.

    Raises:
        ApiError: 404.
    """
    versions = groups(registry).get(name)
    if not name or versions is None:
        raise no_such_group()
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, list(versions))}


def _group(name: str, versions: list[str]) -> Obj:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def resource_list(registry: Registry, name: str, version: str) -> Obj:
    """`APIResourceList` of /api/v1 or /apis/GROUP/VERSION.

    Raises:
        ApiError: 404.
    """
    check_served(registry, name, version)
    resources = groups(registry)[name][version]
    listed = [entry for resource in resources for entry in _entries(resource)]
    api_version = f"{name}/{version}" if name else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": listed}


def check_served(registry: Registry, group: str, version: str) -> None:
    """Refuse a group and version that are not served; how depends on whether the group is.

    Raises:
        ApiError: 404.
    """
    served = registry.versions()
    if (group, version) not in served:
        raise no_such_path() if any(group == served_group for served_group, _ in served) else no_such_group()


def _entries(resource: Resource) -> list[Obj]:
    document = resource.discovery
    entry = {
        "name": resource.plural,
        "singularName": document.get("singularResource", ""),
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": document["verbs"],
    }
    entry |= {key: document[key] for key in ("shortNames", "categories") if document.get(key)}
    return [entry, *(_sub_entry(resource, sub) for sub in document.get("subresources", ()))]


def _sub_entry(resource: Resource, sub: Obj) -> Obj:
    kind = sub.get("responseKind") or {}
    other = kind.get("group") and kind["group"] != resource.group
    where = {"group": kind["group"], "version": kind["version"]} if other else {}
    return where | {
        "name": f"{resource.plural}/{sub['subresource']}",
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": (sub.get("responseKind") or {}).get("kind") or resource.kind,
        "verbs": sub["verbs"],
    }


_QUERY = ("dryRun", "fieldManager", "fieldValidation", "force")
_OBJECT_META_REF = {"$ref": schemas.REF + schemas.OBJECT_META}


def index(registry: Registry) -> Obj:
    """The list of documents at /openapi/v3; the hash changes with the content, as clients cache by it."""
    stamp = hashlib.sha256(str(registry.generation).encode()).hexdigest().upper()
    paths = [_document_path(group, version) for group, versions in groups(registry).items() for version in versions]
    return {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={stamp}"} for path in paths}}


def document(registry: Registry, path: str, version: str) -> Obj:
    """One document, such as that of "apis/apps/v1".

    Raises:
        ApiError: 404.
    """
    for group, versions in groups(registry).items():
        for name, resources in versions.items():
            if _document_path(group, name) == path:
                return _document(resources, version)
    raise no_such_path()


def _document_path(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _document(resources: list[Resource], version: str) -> Obj:
    paths: Obj = {}
    components: Obj = {}
    for resource in resources:
        name = _schema_name(resource)
        paths.update(_paths(resource, name))
        if resource.custom:
            components[name] = _custom_schema(resource)
            components.update(_closure(schemas.OBJECT_META))
        else:
            components.update(_closure(name))
    info = {"title": "Kubernetes", "version": version}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": components}}


def _schema_name(resource: Resource) -> str:
    name = schemas.schema_name(resource.group, resource.version, resource.kind)
    return name or ".".join([*reversed(resource.group.split(".")), resource.version, resource.kind])


def _custom_schema(resource: Resource) -> Obj:
    kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    schema = {**resource.schema, "type": "object", "x-kubernetes-group-version-kind": [kind]}
    properties = {**resource.schema.get("properties", {}), "metadata": _OBJECT_META_REF}
    return {**schema, "properties": properties}


def _paths(resource: Resource, schema: str) -> Obj:
    base = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    base += "/namespaces/{namespace}" if resource.namespaced else ""
    verbs = resource.discovery["verbs"]
    listed = {"get": "list", "post": "create", "delete": "deletecollection"}
    single = {"get": "get", "put": "update", "patch": "patch", "delete": "delete"}
    paths = {f"{base}/{resource.plural}": _operations(resource, schema, verbs, listed)}
    paths[f"{base}/{resource.plural}/{{name}}"] = _operations(resource, schema, verbs, single)
    return {path: operations for path, operations in paths.items() if operations}


def _operations(resource: Resource, schema: str, verbs: list[str], methods: dict[str, str]) -> Obj:
    kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    content = {"application/json": {"schema": {"$ref": schemas.REF + schema}}}
    query = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in _QUERY]
    return {
        method: {
            "operationId": f"{verb}{resource.version.capitalize()}{resource.kind}",
            "parameters": query,
            "responses": {"200": {"description": "OK", "content": content}},
            "x-kubernetes-action": verb,
            "x-kubernetes-group-version-kind": kind,
            **({"requestBody": {"content": content}} if method in ("post", "put", "patch") else {}),
        }
        for method, verb in methods.items()
        if verb in verbs
    }


@functools.cache
def _closure(name: str) -> Obj:
    """A built-in schema and all that it refers to."""
    published: Obj = {}
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current not in published:
            published[current] = schemas.published(current)
            waiting.extend(_references(published[current]))
    return published


def _references(value: Any) -> list[str]:
    if isinstance(value, list):
        return [ref for item in value for ref in _references(item)]
    if not isinstance(value, dict):
        return []
    here = [value["$ref"].removeprefix(schemas.REF)] if isinstance(value.get("$ref"), str) else []
    return here + [ref for item in value.values() for ref in _references(item)]
