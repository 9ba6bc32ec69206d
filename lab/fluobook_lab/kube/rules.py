"""The rules of single kinds that no schema can say, with the API server's own words for what breaks them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.resources import Resource
    from fluobook_lab.kube.validation import Problem

_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_KEY_RULE = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  "
    "or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)
_KEY_LENGTH, _DATA_LENGTH = 253, 1 << 20
_PORTS = range(1, 65536)
_SHORTEST = 600


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


def _key_problems(key: str) -> Iterator[str]:
    if len(key) > _KEY_LENGTH:
        yield f"must be no more than {_KEY_LENGTH} characters"
    if not _KEY.fullmatch(key):
        yield _KEY_RULE
    if key in (".", ".."):
        yield f"must not be '{key}'"
    elif key.startswith(".."):
        yield "must not start with '..'"


def _key(field: str, key: str) -> Iterator[Problem]:
    for problem in _key_problems(key):
        yield f"{field}[{key}]", f'Invalid value: "{key}": {problem}'


def _data(obj: Obj) -> Iterator[Problem]:
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    for key in sorted(data):
        yield from _key("data", key)
        if key in binary:
            yield f"data[{key}]", f'Invalid value: "{key}": duplicate of key present in binaryData'
    for key in sorted(binary):
        yield from _key("binaryData", key)
    if sum(len(text) for text in data.values()) + sum(len(text) * 3 // 4 for text in binary.values()) > _DATA_LENGTH:
        yield "[]", f"Too long: may not be more than {_DATA_LENGTH} bytes"


def _secret(obj: Obj) -> Iterator[Problem]:
    data = obj.get("data") or {}
    for key in sorted(data):
        yield from _key("data", key)
    if sum(len(text) * 3 // 4 for text in data.values()) > _DATA_LENGTH:
        yield "data", f"Too long: may not be more than {_DATA_LENGTH} bytes"


def _service(obj: Obj) -> Iterator[Problem]:
    spec = obj["spec"]
    if not spec.get("ports") and spec.get("clusterIP") != "None" and spec.get("type") != "ExternalName":
        yield "spec.ports", "Required value"
    for index, port in enumerate(spec.get("ports") or []):
        if len(spec["ports"]) > 1 and not port.get("name"):
            yield f"spec.ports[{index}].name", "Required value"
        for field in ("port", "targetPort"):
            value = port.get(field)
            if isinstance(value, int) and value not in _PORTS:
                yield f"spec.ports[{index}].{field}", f"Invalid value: {value}: must be between 1 and 65535, inclusive"


def _deployment(obj: Obj) -> Iterator[Problem]:
    strategy = (obj.get("spec") or {}).get("strategy") or {}
    if strategy.get("type") == "Recreate" and strategy.get("rollingUpdate"):
        yield "spec.strategy.rollingUpdate", "Forbidden: may not be specified when strategy `type` is 'Recreate'"


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
    ("", "secrets"): _secret,
    ("", "services"): _service,
    ("", "pods"): _pod,
    ("apps", "deployments"): _deployment,
    ("certificates.k8s.io", "certificatesigningrequests"): _request,
    ("apiextensions.k8s.io", "customresourcedefinitions"): _definition,
}
