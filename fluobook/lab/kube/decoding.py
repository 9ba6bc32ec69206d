"""From a request's body to an object that may be stored: shape, unknown fields, defaults, rules."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fluobook.lab.kube import defaults, schemas
from fluobook.lab.kube.errors import ApiError, bad_request, invalid
from fluobook.lab.kube.validation import (
    WORKLOADS,
    broken_rules,
    defaulted,
    pruned,
    unknown_fields,
    workload_problems,
    wrong_types,
)

if TYPE_CHECKING:
    from fluobook.lab.kube.identity import Write
    from fluobook.lab.kube.objects import Obj
    from fluobook.lab.kube.resources import Resource

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_FREE_NAMES = frozenset({"rbac.authorization.k8s.io"})
"""Groups whose objects may have colons and capitals in their names."""


def headed(resource: Resource, namespace: str, obj: Obj) -> None:
    """Hold the head of an object against the path it was sent to, and complete it.

    Raises:
        ApiError: 400, they do not fit.
    """
    obj.setdefault("apiVersion", resource.api_version)
    obj.setdefault("kind", resource.kind)
    if (obj["apiVersion"], obj["kind"]) != (resource.api_version, resource.kind):
        raise bad_request(
            f'{obj["kind"]} in version "{obj["apiVersion"]}" cannot be handled as a {resource.kind}: '
            f"the API version in the data ({obj['apiVersion']}) does not match the expected API version "
            f"({resource.api_version})"
        )
    metadata = obj.setdefault("metadata", {})
    if resource.namespaced:
        if metadata.setdefault("namespace", namespace) != namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    else:
        metadata.pop("namespace", None)


def typed(resource: Resource, obj: Obj, write: Write) -> Obj:
    """The object without what its kind does not know.

    Raises:
        ApiError: 400, values of wrong types, or unknown fields with validation "Strict".
    """
    unknown = [] if write.validation == "Ignore" else list(unknown_fields(obj, resource.schema))
    told = ", ".join(f'unknown field "{path}"' for path in unknown)
    version = resource.version
    if unknown and write.validation == "Strict":
        raise bad_request(
            f'{resource.kind} in version "{version}" cannot be handled as a {resource.kind}: '
            f"strict decoding error: {told}"
        )
    write.warnings.extend(f'unknown field "{path}"' for path in unknown)
    obj = pruned(obj, resource.schema)
    if not resource.custom and (wrong := next(wrong_types(_body(obj), resource.schema), None)):
        raise bad_request(
            f'{resource.kind} in version "{version}" cannot be handled as a {resource.kind}: json: cannot unmarshal '
            f"into Go struct field {resource.kind}.{wrong[0]}: {wrong[1]}"
        )
    return obj


def typed_for_apply(resource: Resource, obj: Obj) -> None:
    """Refuse an applied configuration that the kind's schema does not know.

    Raises:
        ApiError: 500, as the real server answers.
    """
    if resource.custom:
        return
    where = f"{obj['metadata'].get('namespace', '')}/{obj['metadata'].get('name', '')}; {resource.api_version}"
    words = f"failed to create typed patch object ({where}, Kind={resource.kind}): "
    if unknown := next(unknown_fields(obj, resource.schema), None):
        raise ApiError(500, "InternalError", f"{words}.{unknown}: field not declared in schema")
    if wrong := next(wrong_types(_body(obj), resource.schema), None):
        raise ApiError(500, "InternalError", f"{words}.{wrong[0]}: {wrong[1]}")


def completed(resource: Resource, obj: Obj) -> Obj:
    """The object with the server's defaults."""
    if not resource.custom:
        defaults.fill(resource.plural, obj)
        return obj
    return {**defaulted(_body(obj), resource.schema), "metadata": obj["metadata"]}


def validated(resource: Resource, obj: Obj) -> None:
    """Refuse an object that breaks its kind's rules.

    Raises:
        ApiError: 422.
    """
    name = obj["metadata"].get("name", "")
    if resource.group not in _FREE_NAMES and not _NAME.fullmatch(name):
        raise invalid(resource, name, [("metadata.name", f'Invalid value: "{name}": {_NAME_RULE}')])
    if resource.custom:
        body = {key: value for key, value in obj.items() if key != "metadata"}
        problems = list(wrong_types(body, resource.schema)) or list(broken_rules(body, resource.schema))
    else:
        problems = list(broken_rules(obj.get("spec"), schemas.child(resource.schema, "spec"), "spec"))
        problems += workload_problems(obj["spec"]) if resource.store_key in WORKLOADS and not problems else []
    if problems:
        raise invalid(resource, name, problems)


def _body(obj: Obj) -> Obj:
    return {key: value for key, value in obj.items() if key != "metadata"}
