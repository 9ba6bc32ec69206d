"""What the server itself decides about an object as it is created, changed and deleted, kind by kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook_lab.kube import rules
from fluobook_lab.kube.objects import Obj, data_file, timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fluobook_lab.kube.access import User
    from fluobook_lab.kube.resources import Resource
    from fluobook_lab.kube.schemas import Problem

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"

_KEPT = (
    "uid",
    "creationTimestamp",
    "name",
    "namespace",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generateName",
)
_KINDS = data_file("kinds.yaml")


def new_object(resource: Resource, obj: Obj, user: User, uid: str) -> None:
    """Give an object what it has from its creation on; clients cannot set it."""
    metadata = obj["metadata"]
    for key in ("resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"):
        metadata.pop(key, None)
    metadata |= {"uid": uid, "creationTimestamp": timestamp()}
    if resource.custom or resource.qualified in _KINDS["counted"]:
        metadata["generation"] = 1
    if "status" in resource.subresources and resource.store_key != ("", "nodes"):
        obj.pop("status", None)
    if resource.plural == "certificatesigningrequests":
        obj["spec"] |= {"username": user.name, "groups": listed(user.groups)}


def _timed(condition: Obj) -> Obj:
    return {"lastUpdateTime": timestamp(), "lastTransitionTime": timestamp(), **condition}


def listed(groups: Iterable[str]) -> list[str]:
    """Groups as a request's user has them: what the certificate says, then what everybody is in."""
    return sorted(groups, key=lambda group: (group == "system:authenticated", group))


def kept(resource: Resource, old: Obj, new: Obj, subresource: str) -> Obj:
    """What `new` comes to once everything has been restored that this way of writing cannot change."""
    metadata = {key: value for key, value in new.get("metadata", {}).items() if key not in _KEPT}
    metadata |= {
        key: old["metadata"][key] for key in (*_KEPT, "resourceVersion", "generation") if key in old["metadata"]
    }
    if subresource == "status":
        kept_metadata = {**old["metadata"]}
        return {**old, "metadata": kept_metadata} | ({"status": new["status"]} if "status" in new else {})
    if subresource == "approval":
        conditions = [_timed(item) for item in (new.get("status") or {}).get("conditions") or []]
        return {
            **old,
            "metadata": dict(old["metadata"]),
            "status": {**(old.get("status") or {}), "conditions": conditions},
        }
    if subresource == "finalize":
        return {**old, "metadata": dict(old["metadata"]), "spec": new.get("spec") or {}}
    result = {**new, "metadata": metadata}
    if "status" in resource.subresources:
        result.pop("status", None)
        result |= {"status": old["status"]} if "status" in old else {}
    return result


def change_problems(resource: Resource, old: Obj, new: Obj) -> list[Problem]:
    """Changes of what is fixed at creation, or later."""
    problems: list[Problem] = [
        (path, f"Invalid value: {_at(new, path)}: field is immutable")
        for path in _KINDS["immutable"].get(resource.qualified, ())
        if _at(old, path) != _at(new, path)
    ]
    return problems + list(rules.change_problems(resource, old, new))


def _at(obj: Any, path: str) -> Any:
    for key in path.split("."):
        obj = obj.get(key) if isinstance(obj, dict) else None
    return obj


def is_new_generation(resource: Resource, old: Obj, new: Obj) -> bool:
    """Whether the wanted state changed."""
    skipped = ("metadata", "status") if resource.custom and "status" in resource.subresources else ("metadata",)
    keys = {*old, *new} - set(skipped) if resource.custom else {"spec"}
    return any(old.get(key) != new.get(key) for key in keys)


def approval_problem(before: list[Obj], after: list[Obj]) -> str:
    """What is wrong with the new conditions of a CertificateSigningRequest; "" if nothing."""
    kinds = {item.get("type") for item in after}
    for item in before:
        if item.get("type") in ("Approved", "Denied", "Failed") and item["type"] not in kinds:
            return f'Forbidden: updates may not remove a condition of type "{item["type"]}"'
    return "Approved and Denied conditions are mutually exclusive" if {"Approved", "Denied"} <= kinds else ""


def established(definition: Obj) -> None:
    """Complete the names and write the status that makes a CustomResourceDefinition served."""
    spec = definition["spec"]
    names = spec["names"]
    names.setdefault("singular", names["kind"].lower())
    names.setdefault("listKind", names["kind"] + "List")
    spec.setdefault("conversion", {"strategy": "None"})
    old = (definition.get("status") or {}).get("conditions") or []
    since = old[0]["lastTransitionTime"] if old else timestamp()
    conditions = [("NamesAccepted", "NoConflicts", "no conflicts found")]
    conditions += [("Established", "InitialNamesAccepted", "the initial names have been accepted")]
    definition["status"] = {
        "conditions": [
            {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": since}
            for kind, reason, message in conditions
        ],
        "acceptedNames": names,
        "storedVersions": [version["name"] for version in spec["versions"] if version.get("storage")],
    }


def marked_for_deletion(obj: Obj, seconds: int, extra_finalizer: str = "") -> Obj:
    """A copy that is on its way out: everybody sees it, nobody can take it back."""
    metadata = dict(obj["metadata"])
    if obj["kind"] != "Namespace":
        metadata["deletionGracePeriodSeconds"] = min(seconds, metadata.get("deletionGracePeriodSeconds", seconds))
    metadata.setdefault("deletionTimestamp", timestamp())
    if extra_finalizer and extra_finalizer not in (metadata.get("finalizers") or []):
        metadata["finalizers"] = [*(metadata.get("finalizers") or []), extra_finalizer]
    marked = {**obj, "metadata": metadata}
    if obj["kind"] == "Namespace":
        marked["status"] = {**obj["status"], "phase": "Terminating"}
    return marked
