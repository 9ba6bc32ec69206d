"""Who may do what: everything for system:masters, the node authorizer in outline, and RBAC for the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fluobook_lab.kube.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook_lab.kube.identity import User
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.store import Store

_RBAC = "rbac.authorization.k8s.io/v1"
_READ = frozenset({"get", "list", "watch"})
_REVIEWS = frozenset({"selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews"})
_NODE_WRITES = {
    ("", "nodes"): frozenset({"create", "update", "patch", "get", "list", "watch"}),
    ("", "nodes/status"): frozenset({"update", "patch"}),
    ("", "pods"): frozenset({"create", "delete", *_READ}),
    ("", "pods/status"): frozenset({"update", "patch"}),
    ("", "events"): frozenset({"create", "update", "patch"}),
    ("certificates.k8s.io", "certificatesigningrequests"): frozenset({"create", *_READ}),
    ("coordination.k8s.io", "leases"): frozenset({"create", "update", "patch", "delete", "get"}),
    ("storage.k8s.io", "csinodes"): frozenset({"create", "update", "patch", "get", "delete"}),
}
_RELATED = frozenset({"secrets", "configmaps", "persistentvolumeclaims"})
"""What a node may read as far as its pods need it."""
_NODE_READS = frozenset({"services", "endpointslices", "runtimeclasses", "csidrivers", "persistentvolumes"})


@dataclass(frozen=True)
class Question:
    """One thing somebody wants to do; `resource` is "pods" or "pods/status", `path` stands for non-resource URLs."""

    verb: str
    group: str = ""
    resource: str = ""
    name: str = ""
    namespace: str = ""
    path: str = ""


def allowed(store: Store, user: User, question: Question) -> bool:
    """Whether the user may do it."""
    if user.is_admin or question.path or question.resource in _REVIEWS:
        return True
    if user.node:
        writes = _NODE_WRITES.get((question.group, question.resource), frozenset())
        reads = question.resource in _NODE_READS and question.verb in _READ
        if reads or question.verb in writes:
            return True
    return any(_permits(rule, question) for rule in _rules(store, user, question.namespace))


def refusal(user: User, question: Question) -> ApiError:
    """403 as the real server words it."""
    where = f' in the namespace "{question.namespace}"' if question.namespace else " at the cluster scope"
    if question.path:
        return ApiError(
            403, "Forbidden", f'forbidden: User "{user.name}" cannot {question.verb} path "{question.path}"'
        )
    kind = question.resource.partition("/")[0]
    qualified = f"{kind}.{question.group}" if question.group else kind
    name = f' "{question.name}"' if question.name else ""
    words = (
        f'{qualified}{name} is forbidden: User "{user.name}" cannot {question.verb} resource "{question.resource}" '
        f'in API group "{question.group}"{where}'
    )
    if user.node and kind in _RELATED and question.name:
        words += f": no relationship found between node '{user.node}' and this object"
    details = {"name": question.name, "group": question.group, "kind": kind}
    return ApiError(403, "Forbidden", words, {key: value for key, value in details.items() if value})


def _rules(store: Store, user: User, namespace: str) -> Iterator[Obj]:
    bindings = store.view(_RBAC, "ClusterRoleBinding")
    bindings += store.view(_RBAC, "RoleBinding", namespace) if namespace else []
    for binding in bindings:
        if any(_is_subject(subject, user, binding) for subject in binding.get("subjects") or []):
            role = binding["roleRef"]
            home = binding["metadata"].get("namespace", "") if role["kind"] == "Role" else ""
            found = store.find(_RBAC, role["kind"], role["name"], home)
            yield from (found or {}).get("rules") or _BUILT_IN.get(role["name"], ())


def _is_subject(subject: Obj, user: User, binding: Obj) -> bool:
    if subject["kind"] == "Group":
        return subject["name"] in user.groups
    if subject["kind"] == "ServiceAccount":
        namespace = subject.get("namespace") or binding["metadata"].get("namespace", "")
        return user.name == f"system:serviceaccount:{namespace}:{subject['name']}"
    return subject["name"] == user.name


def _permits(rule: Obj, question: Question) -> bool:
    def has(key: str, value: str) -> bool:
        return bool({"*", value} & set(rule.get(key) or ()))

    names = rule.get("resourceNames")
    return (
        has("verbs", question.verb)
        and has("apiGroups", question.group)
        and has("resources", question.resource)
        and (not names or question.name in names)
    )


_BUILT_IN: dict[str, tuple[Obj, ...]] = {
    "cluster-admin": ({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},),
    "system:node-bootstrapper": (
        {
            "verbs": ["create", "get", "list", "watch"],
            "apiGroups": ["certificates.k8s.io"],
            "resources": ["certificatesigningrequests"],
        },
    ),
}
