"""From a request's body to an object that may be stored: shape, unknown fields, defaults, rules."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from fluobook.lab.kube import defaults, rules, schemas
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
    from collections.abc import Iterable

    from fluobook.lab.kube.identity import Write
    from fluobook.lab.kube.objects import Obj
    from fluobook.lab.kube.resources import Resource
    from fluobook.lab.kube.validation import Problem


_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/=\n\r]")
_OMITTED = ("data", "binaryData")
"""Members that are not kept while they are empty."""


def headed(resource: Resource, namespace: str, obj: Obj) -> None:
    """Hold the head of an object against the path it was sent to, and complete it.

    Raises:
        ApiError: 400, they do not fit.
    """
    obj.setdefault("apiVersion", resource.api_version)
    obj.setdefault("kind", resource.kind)
    if obj["kind"] != resource.kind and not resource.custom and schemas.schema_name(*_gvk(obj)):
        target = f"{resource.group or 'core'}.{resource.kind}"
        why = f"converting ({_version_of(obj)}.{obj['kind']}) to ({target}): unknown conversion"
        raise bad_request(
            f'{obj["kind"]} in version "{_version_of(obj)}" cannot be handled as a {resource.kind}: {why}'
        )
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


def _gvk(obj: Obj) -> tuple[str, str, str]:
    group, _, version = obj["apiVersion"].rpartition("/")
    return group, version, obj["kind"]


def _version_of(obj: Obj) -> str:
    return str(obj["apiVersion"]).rpartition("/")[2]


def same_name(obj: Obj, name: str) -> None:
    """Refuse an object under another name than the URL's.

    Raises:
        ApiError: 400.
    """
    told = obj["metadata"].get("name", name)
    if told != name:
        raise bad_request(f"the name of the object ({told}) does not match the name on the URL ({name})")


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
    if resource.store_key == ("", "secrets"):
        _check_base64(resource, obj.get("data") or {})
    if not resource.custom and (wrong := next(wrong_types(_body(obj), resource.schema), None)):
        raise bad_request(
            f'{resource.kind} in version "{version}" cannot be handled as a {resource.kind}: json: cannot unmarshal '
            f"into Go struct field {resource.kind}.{wrong[0]}: {wrong[1]}"
        )
    return obj


def fits_its_kind(resource: Resource, obj: Obj, write: Write) -> None:
    """Refuse a patched object that is none of its kind any more; a patch is refused otherwise than a whole object.

    Raises:
        ApiError: 422.
    """
    why = ""
    if obj.get("kind") != resource.kind or obj.get("apiVersion") != resource.api_version:
        told, wanted = (f"{kind}" for kind in (obj.get("kind"), resource.kind))
        why = f"no kind {told!r} may become a {wanted!r}"
    elif not resource.custom:
        unknown = list(unknown_fields(obj, resource.schema)) if write.validation == "Strict" else []
        if unknown:
            why = "strict decoding error: " + ", ".join(f'unknown field "{path}"' for path in unknown)
        elif wrong := next(wrong_types(_body(obj), resource.schema), None):
            why = f"json: cannot unmarshal into Go struct field {resource.kind}.{wrong[0]}: {wrong[1]}"
    if why:
        shown = json.dumps(json.dumps(obj, separators=(",", ":"), sort_keys=True))
        what = f"Invalid value: {shown}: {why}"
        cause = {"reason": "FieldValueInvalid", "message": what, "field": "patch"}
        raise ApiError(422, "Invalid", f' "" is invalid: patch: {what}', {"causes": [cause]})


def typed_for_apply(resource: Resource, obj: Obj) -> None:
    """Refuse an applied configuration that the kind's schema does not know.

    Raises:
        ApiError: 500, as the real server answers.
    """
    if resource.custom:
        return
    where = f"/{obj['metadata'].get('name', '')}; {resource.group}/{resource.version}"
    words = f"failed to create typed patch object ({where}, Kind={resource.kind}): "
    if unknown := next(unknown_fields(obj, resource.schema), None):
        raise ApiError(500, "", f"{words}.{unknown}: field not declared in schema")
    if wrong := next(wrong_types(_body(obj), resource.schema), None):
        raise ApiError(500, "", f"{words}.{wrong[0]}: {wrong[1]}")


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


def _check_base64(resource: Resource, data: Obj) -> None:
    for value in data.values():
        wrong = _NOT_BASE64.search(value) if isinstance(value, str) else None
        if wrong:
            why = f"illegal base64 data at input byte {wrong.start()}"
            raise bad_request(f'Secret in version "{resource.version}" cannot be handled as a Secret: {why}')


def _body(obj: Obj) -> Obj:
    return {key: value for key, value in obj.items() if key != "metadata"}
