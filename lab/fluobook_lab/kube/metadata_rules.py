"""What names, labels, annotations, owners and finalizers must look like, in the API server's own words."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.resources import Resource
    from fluobook_lab.kube.validation import Problem

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_DNS_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    f"and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{_SUBDOMAIN}')"
)
_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    f"with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{_LABEL}')"
)
_DNS_1035_RULE = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    f"'{_DNS_1035}')"
)
_QUALIFIED_RULE = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    f"character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{_QUALIFIED}')"
)
_OPTIONAL_PREFIX = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
_VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    f"'({_QUALIFIED})?')"
)
_FREE_NAMES = frozenset({"rbac.authorization.k8s.io"})
"""Groups whose objects may have colons and capitals in their names."""
_FINALIZERS = frozenset({"kubernetes", "orphan", "foregroundDeletion"})
_SUBDOMAIN_LENGTH, _LABEL_LENGTH, _ANNOTATIONS_LENGTH = 253, 63, 256 << 10


def metadata_problems(resource: Resource, metadata: Obj) -> Iterator[Problem]:
    """What is wrong with an object's metadata."""
    if prefix := metadata.get("generateName"):
        begin = prefix[:-1] + "a" if prefix.endswith("-") else prefix  # a name goes on where it ends
        yield from _invalid("metadata.generateName", prefix, _name_problems(resource, begin))
    name = metadata.get("name", "")
    yield from _invalid("metadata.name", name, _name_problems(resource, name))
    yield from label_problems("metadata.labels", metadata.get("labels") or {})
    annotations = metadata.get("annotations") or {}
    for key in sorted(annotations):
        yield from _invalid("metadata.annotations", key, _key_problems(key.lower()))
    if sum(len(key) + len(value or "") for key, value in annotations.items()) > _ANNOTATIONS_LENGTH:
        yield "metadata.annotations", f"Too long: may not be more than {_ANNOTATIONS_LENGTH} bytes"
    yield from _owner_problems(metadata.get("ownerReferences") or [])
    finalizers = metadata.get("finalizers") or []
    for finalizer in finalizers:
        yield from _invalid("metadata.finalizers", finalizer, _key_problems(finalizer))
    for index, finalizer in enumerate(finalizers):
        if not resource.custom and "/" not in finalizer and finalizer not in _FINALIZERS:
            what = "name is neither a standard finalizer name nor is it fully qualified"
            yield f"metadata.finalizers[{index}]", f'Invalid value: "{finalizer}": {what}'


def label_problems(field: str, labels: Obj) -> Iterator[Problem]:
    """What is wrong with labels, wherever they stand."""
    for key, value in sorted(labels.items()):
        yield from _invalid(field, key, _key_problems(key))
        yield from _invalid(field, value, _value_problems(str(value or "")))


def _invalid(field: str, value: Any, problems: Iterator[str]) -> Iterator[Problem]:
    for problem in problems:
        yield field, f'Invalid value: "{value}": {problem}'


def _name_problems(resource: Resource, name: str) -> Iterator[str]:
    if resource.group in _FREE_NAMES:
        yield from _segment_problems(name)
    elif resource.store_key in (("", "services"), ("", "namespaces")):
        yield from _label_problems(name, resource.plural == "services")
    else:
        if len(name) > _SUBDOMAIN_LENGTH:
            yield f"must be no more than {_SUBDOMAIN_LENGTH} characters"
        if not re.fullmatch(_SUBDOMAIN, name):
            yield _SUBDOMAIN_RULE


def _segment_problems(name: str) -> Iterator[str]:
    if name in (".", ".."):
        yield f"may not be '{name}'"
    for part in ("/", "%"):
        if part in name:
            yield f"may not contain '{part}'"


def _label_problems(name: str, begins_with_a_letter: bool) -> Iterator[str]:
    if len(name) > _LABEL_LENGTH:
        yield f"must be no more than {_LABEL_LENGTH} characters"
    if begins_with_a_letter:
        if not re.fullmatch(_DNS_1035, name):
            yield _DNS_1035_RULE
    elif not re.fullmatch(_LABEL, name):
        yield "must not contain dots" if re.fullmatch(_SUBDOMAIN, name) else _LABEL_RULE


def _key_problems(key: str) -> Iterator[str]:
    prefix, slash, name = key.rpartition("/")
    if "/" in prefix:
        yield f"a valid label key {_QUALIFIED_RULE} {_OPTIONAL_PREFIX}"
        return
    if slash and not prefix:
        yield "prefix part must be non-empty"
    elif slash and not re.fullmatch(_SUBDOMAIN, prefix):
        yield f"prefix part {_SUBDOMAIN_RULE}"
    if not name:
        yield "name part must be non-empty"
    elif len(name) > _LABEL_LENGTH:
        yield f"name part must be no more than {_LABEL_LENGTH} bytes"
    if not re.fullmatch(_QUALIFIED, name):
        yield f"name part {_QUALIFIED_RULE}"


def _value_problems(value: str) -> Iterator[str]:
    if len(value) > _LABEL_LENGTH:
        yield f"must be no more than {_LABEL_LENGTH} bytes"
    if value and not re.fullmatch(_QUALIFIED, value):
        yield _VALUE_RULE


def _owner_problems(references: list[Obj]) -> Iterator[Problem]:
    for reference in references:
        for key in ("apiVersion", "kind", "name", "uid"):
            if not reference.get(key):
                what = "version must not be empty" if key == "apiVersion" else "must not be empty"
                yield f"metadata.ownerReferences.{key}", f'Invalid value: "": {what}'
    controllers = [f"{one.get('kind')}/{one.get('name')}" for one in references if one.get("controller")]
    if len(controllers) > 1:
        shown = json.dumps(references, separators=(",", ":"))
        why = 'Only one reference can have Controller set to true. Found "true" in references for '
        yield "metadata.ownerReferences", f"Invalid value: {shown}: {why}{' and '.join(controllers[:2])}"
