"""OpenAPI v3 documents, one for each group and version: kubectl validates with them.

They are made from the schemas and the resources, built-in and custom alike, so they never disagree with the server.
"""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING, Any

from fluobook_lab.kube import schemas
from fluobook_lab.kube.discovery import groups
from fluobook_lab.kube.errors import no_such_path

if TYPE_CHECKING:
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.resources import Registry, Resource

_QUERY = ("dryRun", "fieldManager", "fieldValidation", "force")
_OBJECT_META_REF = {"$ref": schemas.REF + schemas.OBJECT_META}


def index(registry: Registry) -> Obj:
    """The list of documents at /openapi/v3; the hash changes with the content, as clients cache by it."""
    stamp = hashlib.sha256(str(registry.generation).encode()).hexdigest().upper()
    paths = [_document_path(group, version) for group, found in groups(registry).items() for version in found]
    return {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={stamp}"} for path in paths}}


def document(registry: Registry, path: str, version: str) -> Obj:
    """One document, such as that of "apis/apps/v1".

    Raises:
        ApiError: 404.
    """
    for group, found in groups(registry).items():
        for name, resources in found.items():
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
    found = schemas.schema_name(resource.group, resource.version, resource.kind)
    return found or ".".join([*reversed(resource.group.split(".")), resource.version, resource.kind])


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
    found = {f"{base}/{resource.plural}": _operations(resource, schema, verbs, listed)}
    found[f"{base}/{resource.plural}/{{name}}"] = _operations(resource, schema, verbs, single)
    return {path: operations for path, operations in found.items() if operations}


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
    found: Obj = {}
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found[current] = schemas.published(current)
            waiting.extend(_references(found[current]))
    return found


def _references(value: Any) -> list[str]:
    if isinstance(value, list):
        return [ref for item in value for ref in _references(item)]
    if not isinstance(value, dict):
        return []
    here = [value["$ref"].removeprefix(schemas.REF)] if isinstance(value.get("$ref"), str) else []
    return here + [ref for item in value.values() for ref in _references(item)]
