"""Rules of the API server that no schema expresses: for metadata, for single kinds, and for changes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.resources import Resource
    from fluobook_lab.kube.schemas import Problem

_LABEL = re.compile("[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(rf"{_LABEL.pattern}(\.{_LABEL.pattern})*")
_DNS_1035 = re.compile("[a-z]([-a-z0-9]*[a-z0-9])?")
_QUALIFIED = re.compile("([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_SEGMENT = re.compile(r"(?!\.{1,2}$)[^/%]+")
_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_FREE_NAMES = frozenset({"rbac.authorization.k8s.io"})
"""Groups whose objects may have colons and capitals in their names."""
_FINALIZERS = frozenset({"kubernetes", "orphan", "foregroundDeletion"})
_SUBDOMAIN_LENGTH, _LABEL_LENGTH = 253, 63
_PORTS = range(1, 65536)
_SHORTEST = 600


def metadata_problems(resource: Resource, metadata: Obj) -> Iterator[Problem]:
    """What is wrong with an object's metadata."""
    if prefix := metadata.get("generateName"):
        yield from _name("metadata.generateName", resource, prefix[:-1] + "a" if prefix.endswith("-") else prefix)
    yield from _name("metadata.name", resource, metadata.get("name", ""))
    for key, value in sorted((metadata.get("labels") or {}).items()):
        yield from _qualified("metadata.labels", key)
        if value and (len(str(value)) > _LABEL_LENGTH or not _QUALIFIED.fullmatch(str(value))):
            yield "metadata.labels", f'Invalid value: "{value}": not a valid label value'
    for index, finalizer in enumerate(metadata.get("finalizers") or []):
        if not resource.custom and "/" not in finalizer and finalizer not in _FINALIZERS:
            yield f"metadata.finalizers[{index}]", f'Invalid value: "{finalizer}": must be a qualified name'


def _name(field: str, resource: Resource, name: str) -> Iterator[Problem]:
    if resource.group in _FREE_NAMES:
        rule, length = _SEGMENT, _SUBDOMAIN_LENGTH
    elif resource.store_key == ("", "services"):
        rule, length = _DNS_1035, _LABEL_LENGTH
    elif resource.store_key == ("", "namespaces"):
        rule, length = _LABEL, _LABEL_LENGTH
    else:
        rule, length = _SUBDOMAIN, _SUBDOMAIN_LENGTH
    if len(name) > length or not rule.fullmatch(name):
        yield field, f'Invalid value: "{name}": must match {rule.pattern} and have at most {length} characters'


def _qualified(field: str, key: str) -> Iterator[Problem]:
    """Keys of labels: a name, perhaps after a DNS subdomain and a slash."""
    prefix, slash, name = key.rpartition("/")
    if (slash and not _SUBDOMAIN.fullmatch(prefix)) or len(name) > _LABEL_LENGTH or not _QUALIFIED.fullmatch(name):
        yield field, f'Invalid value: "{key}": must be a qualified name, perhaps after a DNS subdomain and a slash'


def kind_problems(resource: Resource, obj: Obj) -> Iterator[Problem]:
    """What is wrong with an object of this kind in particular."""
    if find := _KINDS.get(resource.store_key):
        yield from find(obj)


def change_problems(resource: Resource, old: Obj, new: Obj) -> Iterator[Problem]:
    """What may not be changed once it is set, beside what is fixed as such."""
    if old["metadata"].get("deletionTimestamp"):
        before = old["metadata"].get("finalizers") or []
        if added := [name for name in new["metadata"].get("finalizers") or [] if name not in before]:
            yield "metadata.finalizers", f"Forbidden: the object is being deleted, {', '.join(added)} cannot be added"
    if resource.store_key in (("", "secrets"), ("", "configmaps")) and old.get("immutable"):
        for field in ("immutable", "data", "binaryData"):
            if old.get(field) != new.get(field):
                yield field, "Forbidden: field is immutable when `immutable` is set"
    if resource.store_key == ("", "secrets") and old.get("type") != new.get("type"):
        yield "type", f'Invalid value: "{new.get("type")}": field is immutable'
    if resource.store_key == ("", "pods") and _fixed(old["spec"], old) != _fixed(new["spec"], old):
        yield "spec", "Forbidden: pod updates may change images, tolerations and deadlines only"
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


def _data_keys(obj: Obj) -> Iterator[Problem]:
    for field in ("data", "binaryData"):
        for key in obj.get(field) or {}:
            if not _KEY.fullmatch(key):
                yield f"{field}[{key}]", f'Invalid value: "{key}": must match {_KEY.pattern}'


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
        problem = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        yield "spec.signerName", f'Invalid value: "{signer}": {problem}'
    seconds = spec.get("expirationSeconds")
    if seconds is not None and seconds < _SHORTEST:
        problem = f"may not specify a duration less than {_SHORTEST} seconds (10 minutes)"
        yield "spec.expirationSeconds", f"Invalid value: {seconds}: {problem}"


def _definition(obj: Obj) -> Iterator[Problem]:
    spec, name = obj.get("spec") or {}, obj["metadata"].get("name", "")
    if name != f"{(spec.get('names') or {}).get('plural')}.{spec.get('group')}":
        yield "metadata.name", f'Invalid value: "{name}": must be spec.names.plural+"."+spec.group'
    if len([version for version in spec.get("versions") or [] if version.get("storage")]) != 1:
        yield "spec.versions", "Invalid value: exactly one version must be marked as storage version"
        yield "status.storedVersions", "Invalid value: null: must have at least one stored version"


_KINDS: dict[tuple[str, str], Callable[[Obj], Iterator[Problem]]] = {
    ("", "configmaps"): _data_keys,
    ("", "secrets"): _data_keys,
    ("", "services"): _service,
    ("", "pods"): _pod,
    ("apps", "deployments"): _deployment,
    ("certificates.k8s.io", "certificatesigningrequests"): _request,
    ("apiextensions.k8s.io", "customresourcedefinitions"): _definition,
}
