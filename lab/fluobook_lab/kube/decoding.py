"""From a request's body to an object that may be stored: shape, unknown fields, defaults, rules."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from fluobook_lab.kube import defaults, rules, schemas
from fluobook_lab.kube.errors import SCHEME, ApiError, bad_request, invalid
from fluobook_lab.kube.go_types import undecodable
from fluobook_lab.kube.metadata_rules import metadata_problems
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
    if not resource.custom and not schemas.schema_name(*_gvk(obj)):
        why = f'no kind "{obj["kind"]}" is registered for version "{obj["apiVersion"]}" in scheme "{SCHEME}"'
        told = f'{obj["kind"]} in version "{_version_of(obj)}" cannot be handled as a {resource.kind}'
        raise bad_request(f"{told}: {why}")
    if (obj["apiVersion"], obj["kind"]) != (resource.api_version, resource.kind):
        raise bad_request(
            f'{obj["kind"]} in version "{obj["apiVersion"]}" cannot be handled as a {resource.kind}: '
            f"the API version in the data ({obj['apiVersion']}) does not match the expected API version "
            f"({resource.api_version})"
        )
    if obj.get("metadata") is None:
        obj["metadata"] = {}
    metadata = obj["metadata"]
    if why := undecodable({"metadata": metadata}, _HEAD, resource.kind):
        raise bad_request(_cannot_be(resource, why))
    if resource.namespaced:
        metadata["namespace"] = metadata.get("namespace") or namespace
        same_namespace(resource, obj, namespace)
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
    told = [] if write.validation == "Ignore" else [*write.twice, *_unknown(obj, resource)]
    if told and write.validation == "Strict":
        raise bad_request(_cannot_be(resource, f"strict decoding error: {', '.join(told)}"))
    write.warnings.extend(line.strip() for text in told for line in text.splitlines() if line[:5] != "yaml:")
    obj = pruned(obj, resource.schema)
    if resource.store_key in (("", "secrets"), ("", "configmaps")):
        _check_base64(resource, obj.get("data" if resource.kind == "Secret" else "binaryData") or {})
    if not resource.custom and (why := undecodable(obj, resource.schema, resource.kind)):
        raise bad_request(_cannot_be(resource, why))
    return obj


def _unknown(obj: Obj, resource: Resource) -> list[str]:
    return [f'unknown field "{path}"' for path in unknown_fields(obj, resource.schema)]


def _cannot_be(resource: Resource, why: str) -> str:
    return f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: {why}'


def fits_its_kind(resource: Resource, obj: Obj, write: Write) -> None:
    """Refuse a patched object that is none of its kind any more; a patch is refused otherwise than a whole object.

    Raises:
        ApiError: 422.
    """
    why = ""
    if obj.get("kind") != resource.kind or obj.get("apiVersion") != resource.api_version:
        why = f'no kind "{obj.get("kind")}" is registered for version "{obj.get("apiVersion")}" in scheme "{SCHEME}"'
    elif not resource.custom:
        unknown = [*write.twice, *_unknown(obj, resource)] if write.validation == "Strict" else []
        why = f"strict decoding error: {', '.join(unknown)}" if unknown else ""
        why = why or undecodable(obj, resource.schema, resource.kind)
    if why:
        shown = json.dumps(json.dumps(obj, separators=(",", ":"), sort_keys=True))
        what = f"Invalid value: {shown}: {why}"
        cause = {"reason": "FieldValueInvalid", "message": what, "field": "patch"}
        raise ApiError(422, "Invalid", f' "" is invalid: patch: {what}', {"causes": [cause]})


def fits_apply(resource: Resource, intent: Any) -> Obj:
    """Refuse an applied configuration that does not say what it is.

    Raises:
        ApiError: 400.
    """
    told = intent if isinstance(intent, dict) else {}
    version, kind = str(told.get("apiVersion") or ""), str(told.get("kind") or "")
    if (version, kind) != (resource.api_version, resource.kind):
        raise bad_request(f"invalid object type: {version if '/' in version else '/' + version}, Kind={kind}")
    return told


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
        raise ApiError(500, "", f"{words}.{wrong[0]}: {_expected(obj, wrong)}")
    if double := next(repeated_items(_body(obj), resource.schema), None):
        raise ApiError(500, "", f"{words}.{double[0]}: {double[1]}")


def _expected(obj: Obj, wrong: Problem) -> str:
    """What a typed object would have there, in the words of the real server, which show Go's own."""
    kind = wrong[1].partition("must be of type ")[2].partition(":")[0]
    value: Any = obj
    for key in wrong[0].split("."):
        value = value.get(key) if isinstance(value, dict) else None
    shown = (
        f"&{{{json.dumps(value)}}}" if isinstance(value, dict | list) else f"&value.valueUnstructured{{Value:{value}}}"
    )
    return f"expected {_EXPECTED.get(kind, kind)}, got {shown}"


_EXPECTED = {"object": "map", "array": "list", "integer": "numeric (int or float)", "number": "numeric (int or float)"}


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
    if problems := [*metadata_problems(resource, obj["metadata"]), *rules.kind_problems(resource, obj)]:
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
            raise bad_request(_cannot_be(resource, f"illegal base64 data at input byte {wrong.start()}"))


def _body(obj: Obj) -> Obj:
    return {key: value for key, value in obj.items() if key != "metadata"}
