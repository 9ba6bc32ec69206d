"""What the server itself decides about an object as it is created, changed and deleted, kind by kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook.lab.kube.errors import invalid
from fluobook.lab.kube.objects import Obj, timestamp

if TYPE_CHECKING:
    from fluobook.lab.kube.identity import User
    from fluobook.lab.kube.resources import Resource

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
_IMMUTABLE = {
    ("apps", "deployments"): ("spec.selector",),
    ("apps", "daemonsets"): ("spec.selector",),
    ("apps", "replicasets"): ("spec.selector",),
    ("apps", "statefulsets"): ("spec.selector", "spec.serviceName", "spec.volumeClaimTemplates"),
    ("batch", "jobs"): ("spec.selector", "spec.template"),
    ("rbac.authorization.k8s.io", "rolebindings"): ("roleRef",),
    ("rbac.authorization.k8s.io", "clusterrolebindings"): ("roleRef",),
    ("certificates.k8s.io", "certificatesigningrequests"): ("spec",),
}


def new_object(resource: Resource, obj: Obj, user: User, uid: str) -> None:
    """Give an object what it has from its creation on; clients cannot set it."""
    metadata = obj["metadata"]
    for key in ("resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"):
        metadata.pop(key, None)
    metadata |= {"uid": uid, "creationTimestamp": timestamp()}
    if "spec" in obj or resource.custom:
        metadata["generation"] = 1
    if "status" in resource.subresources and resource.store_key != ("", "nodes"):
        obj.pop("status", None)
    if resource.plural == "certificatesigningrequests":
        obj["spec"] |= {"username": user.name, "groups": sorted(user.groups)}


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
        conditions = (new.get("status") or {}).get("conditions") or []
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


def unchanged_where_immutable(resource: Resource, old: Obj, new: Obj) -> None:
    """Refuse changes of fields that are fixed at creation.

    Raises:
        ApiError: 422.
    """
    for path in _IMMUTABLE.get(resource.store_key, ()):
        if _at(old, path) != _at(new, path):
            raise invalid(resource, old["metadata"]["name"], [(path, "Invalid value: field is immutable")])
    frozen = resource.store_key in (("", "secrets"), ("", "configmaps")) and old.get("immutable")
    if frozen and old.get("data") != new.get("data"):
        what = "Forbidden: field is immutable when `immutable` is set"
        raise invalid(resource, old["metadata"]["name"], [("data", what)])


def _at(obj: Any, path: str) -> Any:
    for key in path.split("."):
        obj = obj.get(key) if isinstance(obj, dict) else None
    return obj


def is_new_generation(resource: Resource, old: Obj, new: Obj) -> bool:
    """Whether the wanted state changed."""
    skipped = ("metadata", "status") if resource.custom and "status" in resource.subresources else ("metadata",)
    keys = {*old, *new} - set(skipped) if resource.custom else {"spec"}
    return any(old.get(key) != new.get(key) for key in keys)


def approval_problem(conditions: list[Obj]) -> str:
    """What is wrong with the conditions of a CertificateSigningRequest; "" if nothing."""
    kinds = {item.get("type") for item in conditions}
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
    told = [("NamesAccepted", "NoConflicts", "no conflicts found")]
    told += [("Established", "InitialNamesAccepted", "the initial names have been accepted")]
    definition["status"] = {
        "conditions": [
            {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": since}
            for kind, reason, message in told
        ],
        "acceptedNames": names,
        "storedVersions": [version["name"] for version in spec["versions"] if version.get("storage")],
    }


def marked_for_deletion(obj: Obj, seconds: int, extra_finalizer: str = "") -> Obj:
    """A copy that is on its way out: everybody sees it, nobody can take it back."""
    metadata = {**obj["metadata"], "deletionGracePeriodSeconds": seconds}
    metadata.setdefault("deletionTimestamp", timestamp())
    if extra_finalizer and extra_finalizer not in (metadata.get("finalizers") or []):
        metadata["finalizers"] = [*(metadata.get("finalizers") or []), extra_finalizer]
    marked = {**obj, "metadata": metadata}
    if obj["kind"] == "Namespace":
        marked["status"] = {**obj["status"], "phase": "Terminating"}
    return marked
