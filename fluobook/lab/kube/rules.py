"""The rules of single kinds that no schema can say, with the API server's own words for what breaks them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fluobook.lab.kube.objects import Obj
    from fluobook.lab.kube.resources import Resource
    from fluobook.lab.kube.validation import Problem

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_DNS_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_KEY_RULE = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  "
    "or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)
_NAME_PART_RULE = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_FREE_NAMES = frozenset({"rbac.authorization.k8s.io"})
"""Groups whose objects may have colons and capitals in their names."""
_FINALIZERS = frozenset({"kubernetes", "orphan", "foregroundDeletion"})
_PORTS = range(1, 65536)
_SHORTEST = 600


def metadata_problems(resource: Resource, metadata: Obj) -> Iterator[Problem]:
    """What is wrong with name, labels and finalizers."""
    name = metadata.get("name", "")
    label = resource.store_key == ("", "namespaces")
    rule, words = (_DNS_LABEL, _DNS_LABEL_RULE) if label else (_SUBDOMAIN, _SUBDOMAIN_RULE)
    if resource.group not in _FREE_NAMES and not rule.fullmatch(name):
        yield "metadata.name", f'Invalid value: "{name}": {words}'
    for key, value in (metadata.get("labels") or {}).items():
        if not _QUALIFIED.fullmatch(key.rpartition("/")[2]):
            yield "metadata.labels", f'Invalid value: "{key}": {_NAME_PART_RULE}'
        if value and not _QUALIFIED.fullmatch(str(value)):
            yield "metadata.labels", f'Invalid value: "{value}": {_VALUE_RULE}'
    for index, finalizer in enumerate(metadata.get("finalizers") or []):
        if not resource.custom and "/" not in finalizer and finalizer not in _FINALIZERS:
            what = "name is neither a standard finalizer name nor is it fully qualified"
            yield f"metadata.finalizers[{index}]", f'Invalid value: "{finalizer}": {what}'


def kind_problems(resource: Resource, obj: Obj) -> Iterator[Problem]:
    """What is wrong with an object of this kind in particular."""
    if find := _KINDS.get(resource.store_key):
        yield from find(obj)


def change_problems(resource: Resource, old: Obj, new: Obj) -> Iterator[Problem]:
    """What may not be changed once it is set, beside what is fixed as such."""
    if old["metadata"].get("deletionTimestamp"):
        before = old["metadata"].get("finalizers") or []
        if added := [name for name in new["metadata"].get("finalizers") or [] if name not in before]:
            listed = ", ".join(f'"{name}"' for name in added)
            why = "no new finalizers can be added if the object is being deleted, found new finalizers"
            yield "metadata.finalizers", f"Forbidden: {why} []string{{{listed}}}"
    if resource.store_key in (("", "secrets"), ("", "configmaps")) and old.get("immutable"):
        for field in ("immutable", "data", "binaryData"):
            if old.get(field) != new.get(field):
                yield field, "Forbidden: field is immutable when `immutable` is set"
    if resource.store_key == ("", "secrets") and old.get("type") != new.get("type"):
        yield "type", f'Invalid value: "{new.get("type")}": field is immutable'
    if resource.store_key == ("", "pods") and _fixed(old["spec"], old) != _fixed(new["spec"], old):
        yield "spec", f"Forbidden: {_POD_RULE}"
    if resource.store_key == ("", "services"):
        before, after = (obj["spec"].get("clusterIP", "") for obj in (old, new))
        if before and after != before and new["spec"].get("type") != "ExternalName":
            yield "spec.clusterIPs[0]", f'Invalid value: ["{after}"]: may not change once set'


def _fixed(spec: Obj, old: Obj) -> Obj:
    """What a pod keeps from its creation on; its node is chosen once."""
    free = {"tolerations", "activeDeadlineSeconds", "terminationGracePeriodSeconds", "schedulingGates"}
    free |= set() if old["spec"].get("nodeName") else {"nodeName"}
    kept = {key: value for key, value in spec.items() if key not in free}
    for name in ("containers", "initContainers"):
        if name in kept:
            kept[name] = [
                {k: v for k, v in item.items() if k not in ("image", "imagePullPolicy")} for item in kept[name]
            ]
    return kept


_POD_RULE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def _data(obj: Obj) -> Iterator[Problem]:
    for key in obj.get("data") or {}:
        if not _KEY.fullmatch(key):
            yield f"data[{key}]", f'Invalid value: "{key}": {_KEY_RULE}'


def _service(obj: Obj) -> Iterator[Problem]:
    spec = obj["spec"]
    if not spec.get("ports") and spec.get("clusterIP") != "None" and spec.get("type") != "ExternalName":
        yield "spec.ports", "Required value"
    for index, port in enumerate(spec.get("ports") or []):
        for field in ("port", "targetPort"):
            value = port.get(field)
            if isinstance(value, int) and value not in _PORTS:
                yield f"spec.ports[{index}].{field}", f"Invalid value: {value}: must be between 1 and 65535, inclusive"


def _pod(obj: Obj) -> Iterator[Problem]:
    if not obj["spec"].get("containers"):
        yield "spec.containers", "Required value"


def _request(obj: Obj) -> Iterator[Problem]:
    spec = obj["spec"]
    if not spec.get("usages"):
        yield "spec.usages", "Required value"
    signer = spec.get("signerName", "")
    if signer and "/" not in signer:
        what = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        yield "spec.signerName", f'Invalid value: "{signer}": {what}'
    seconds = spec.get("expirationSeconds")
    if seconds is not None and seconds < _SHORTEST:
        what = f"may not specify a duration less than {_SHORTEST} seconds (10 minutes)"
        yield "spec.expirationSeconds", f"Invalid value: {seconds}: {what}"


def _definition(obj: Obj) -> Iterator[Problem]:
    spec, name = obj.get("spec") or {}, obj["metadata"].get("name", "")
    if name != f"{(spec.get('names') or {}).get('plural')}.{spec.get('group')}":
        yield "metadata.name", f'Invalid value: "{name}": must be spec.names.plural+"."+spec.group'
    if len([version for version in spec.get("versions") or [] if version.get("storage")]) != 1:
        yield "spec.versions", f"Invalid value: {_shown(spec.get('versions'))}: {_ONE_STORED}"
        yield "status.storedVersions", "Invalid value: null: must have at least one stored version"


_ONE_STORED = "must have exactly one version marked as storage version"


def _shown(versions: Any) -> str:
    return "[" + ",".join(str(version.get("name")) for version in versions or []) + "]"


_KINDS: dict[tuple[str, str], Callable[[Obj], Iterator[Problem]]] = {
    ("", "configmaps"): _data,
    ("", "secrets"): _data,
    ("", "services"): _service,
    ("", "pods"): _pod,
    ("certificates.k8s.io", "certificatesigningrequests"): _request,
    ("apiextensions.k8s.io", "customresourcedefinitions"): _definition,
}
