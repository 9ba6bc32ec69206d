"""From a request's body to an object that may be stored: shape, unknown fields, defaults, rules."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fluobook_lab.kube import defaults, rules, schemas
from fluobook_lab.kube.errors import ApiError, bad_request, invalid
from fluobook_lab.kube.validation import (
    WORKLOADS,
    broken_rules,
    defaulted,
    pruned,
    repeated_items,
    unknown_fields,
    workload_problems,
    wrong_types,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fluobook_lab.kube.identity import Write
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.resources import Resource
    from fluobook_lab.kube.validation import Problem


_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/=\n\r]")
_HEAD = {"properties": {"metadata": {"$ref": schemas.REF + schemas.OBJECT_META}}}
_OMITTED = ("data", "binaryData")
"""Members that are not kept while they are empty."""


def check_head(resource: Resource, namespace: str, obj: Obj) -> None:
    """Compare the head of an object with the path it was sent to, and complete it.

    Raises:
        ApiError: 400, they do not match.
    """
    obj.setdefault("apiVersion", resource.api_version)
    obj.setdefault("kind", resource.kind)
    if (obj["apiVersion"], obj["kind"]) != (resource.api_version, resource.kind):
        raise bad_request(f"{obj['apiVersion']} {obj['kind']} cannot be handled as a {resource.kind}")
    if obj.get("metadata") is None:
        obj["metadata"] = {}
    metadata = obj["metadata"]
    _check_types({"metadata": metadata}, _HEAD, resource)
    if resource.namespaced:
        metadata["namespace"] = metadata.get("namespace") or namespace
        same_namespace(resource, obj, namespace)
    else:
        metadata.pop("namespace", None)


def same_name(obj: Obj, name: str) -> None:
    """Refuse an object under another name than the URL's.

    Raises:
        ApiError: 400.
    """
    told = obj["metadata"].get("name", name)
    if told != name:
        raise bad_request(f"the name of the object ({told}) does not match the name on the URL ({name})")


def same_namespace(resource: Resource, obj: Obj, namespace: str) -> None:
    """Refuse an object of another namespace than the URL's.

    Raises:
        ApiError: 400.
    """
    if resource.namespaced and obj["metadata"].get("namespace", namespace) != namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")


def typed(resource: Resource, obj: Obj, write: Write) -> Obj:
    """The object without what its kind does not know.

    Raises:
        ApiError: 400, values of wrong types, or unknown fields with validation "Strict".
    """
    problems = [] if write.validation == "Ignore" else _strict_problems(resource, obj, write)
    if problems and write.validation == "Strict":
        raise bad_request(f"{resource.kind}: strict decoding error: {', '.join(problems)}")
    write.warnings.extend(problems)
    obj = pruned(obj, resource.schema)
    if resource.store_key in (("", "secrets"), ("", "configmaps")):
        _check_base64(obj.get("data" if resource.kind == "Secret" else "binaryData") or {})
    if not resource.custom:
        _check_types(obj, resource.schema, resource)
    return obj


def _strict_problems(resource: Resource, obj: Obj, write: Write) -> list[str]:
    unknown = (f'unknown field "{path}"' for path in unknown_fields(obj, resource.schema))
    return [*write.duplicates, *unknown]


def _check_types(obj: Obj, schema: Obj, resource: Resource) -> None:
    if problem := next(wrong_types(obj, schema), None):
        raise bad_request(f"{resource.kind} cannot be decoded: {problem[1]}")


def check_patched(resource: Resource, obj: Obj, write: Write) -> None:
    """Refuse a patched object that is no object of its kind any more; a patch is refused with 422, not 400.

    Raises:
        ApiError: 422.
    """
    problem = ""
    if obj.get("kind") != resource.kind or obj.get("apiVersion") != resource.api_version:
        problem = f"a {resource.kind} cannot become {obj.get('apiVersion')} {obj.get('kind')}"
    elif not resource.custom:
        strict = _strict_problems(resource, obj, write) if write.validation == "Strict" else []
        problem = ", ".join(strict) or next((what for _, what in wrong_types(obj, resource.schema)), "")
    if problem:
        cause = {"reason": "FieldValueInvalid", "message": problem, "field": "patch"}
        raise ApiError(422, "Invalid", f' "" is invalid: patch: {problem}', {"causes": [cause]})


def check_applied(resource: Resource, intent: Any) -> Obj:
    """Refuse an applied configuration without its own apiVersion and kind.

    Raises:
        ApiError: 400.
    """
    obj = intent if isinstance(intent, dict) else {}
    if (obj.get("apiVersion"), obj.get("kind")) != (resource.api_version, resource.kind):
        raise bad_request(f"an applied configuration must be {resource.api_version} {resource.kind}")
    return obj


def check_applied_fields(resource: Resource, obj: Obj) -> None:
    """Refuse an applied configuration that the kind's schema does not know.

    Raises:
        ApiError: 500 (the code is the real server's).
    """
    if resource.custom:
        return
    problem = next((f".{path}: field not declared in schema" for path in unknown_fields(obj, resource.schema)), "")
    body = _body(obj)
    for problems in (wrong_types(body, resource.schema), repeated_items(body, resource.schema)):
        problem = problem or next((f".{path}: {what}" for path, what in problems), "")
    if problem:
        raise ApiError(500, "", f"failed to create typed patch object ({resource.kind}): {problem}")


def completed(resource: Resource, obj: Obj) -> Obj:
    """The object with the server's defaults."""
    if not resource.custom:
        defaults.fill(resource.plural, obj)
        return {key: value for key, value in obj.items() if value != {} or key not in _OMITTED}
    return {**defaulted(_body(obj), resource.schema), "metadata": obj["metadata"]}


def validated(resource: Resource, obj: Obj, changes: Iterable[Problem] = ()) -> None:
    """Refuse an object that breaks its kind's rules; `changes` are problems with how it was changed.

    Raises:
        ApiError: 422.
    """
    name = obj["metadata"].get("name", "")
    if problems := [*rules.metadata_problems(resource, obj["metadata"]), *rules.kind_problems(resource, obj)]:
        raise invalid(resource, name, problems)
    if resource.custom:
        body = {key: value for key, value in obj.items() if key != "metadata"}
        problems = list(wrong_types(body, resource.schema)) or list(broken_rules(body, resource.schema))
    else:
        problems = list(broken_rules(obj.get("spec"), schemas.child(resource.schema, "spec"), "spec"))
        problems += workload_problems(obj["spec"]) if resource.store_key in WORKLOADS and not problems else []
    problems += changes
    if problems:
        raise invalid(resource, name, problems)


def _check_base64(data: Obj) -> None:
    for value in data.values():
        if isinstance(value, str) and (wrong := _NOT_BASE64.search(value)):
            raise bad_request(f"illegal base64 data at input byte {wrong.start()}")


def _body(obj: Obj) -> Obj:
    return {key: value for key, value in obj.items() if key != "metadata"}
