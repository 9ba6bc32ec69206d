"""Who a request comes from, and what that user may do.

Authentication knows client certificates, bootstrap tokens and tokens of service accounts; authorization knows
system:masters, the node authorizer in outline, and RBAC for everybody else.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fluobook_lab.kube.errors import ApiError
from fluobook_lab.kube.objects import data_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.storage import Reads


MASTERS = "system:masters"
NODES = "system:nodes"
NODE_PREFIX = "system:node:"
BOOTSTRAPPERS = "system:bootstrappers"


@dataclass(frozen=True)
class User:
    """A user name and its groups, as authentication found them."""

    name: str
    groups: frozenset[str] = frozenset()

    @property
    def is_admin(self) -> bool:
        """Whether everything is allowed."""
        return MASTERS in self.groups

    @property
    def node(self) -> str:
        """The node's name if a kubelet asks, else ""."""
        kubelet = NODES in self.groups and self.name.startswith(NODE_PREFIX)
        return self.name.removeprefix(NODE_PREFIX) if kubelet else ""


ADMIN = User("system:admin", frozenset({MASTERS, "system:authenticated"}))
"""Who the lab's own parts are when they write: nothing is refused to them for want of rights."""


@dataclass(frozen=True)
class Write:
    """How an object is to be written.

    Args:
        manager: field manager; "" keeps managedFields as they are.
        user: who asks.
        dry_run: answer as if it had been done, and do nothing.
        validation: what happens to unknown fields: "Strict" (400), "Warn" or "Ignore" (both drop them).
        force: server-side apply takes fields that others own.
        subresource: "status", "approval", "scale", "finalize" or "".
        through: a subresource that changes a part of the object by another shape: "scale".
        warnings: where warnings for the client are put.
    """

    manager: str = ""
    user: User = ADMIN
    dry_run: bool = False
    validation: str = "Ignore"
    force: bool = False
    subresource: str = ""
    through: str = ""
    warnings: list[str] = field(default_factory=list)


_BASE = frozenset({"system:authenticated"})
TOKEN_SECONDS = 3600


class Authenticator:
    """Finds the user of a request.

    Args:
        store: where bootstrap tokens are (Secrets of type bootstrap.kubernetes.io/token in kube-system).
    """

    def __init__(self, store: Reads) -> None:
        self._store = store
        self._key = secrets.token_bytes(32)

    def user(self, certificate: dict[str, Any] | None, authorization: str) -> User | None:
        """The user, None if the request is not authenticated.

        Args:
            certificate: the verified client certificate, as `ssl` gives it.
            authorization: the header of that name.
        """
        if certificate:
            return _certified(certificate)
        kind, _, token = authorization.partition(" ")
        if kind.lower() != "bearer":
            return None
        return self._bootstrapper(token) or self._service_account(token)

    def service_account_token(self, namespace: str, name: str, seconds: int = TOKEN_SECONDS) -> str:
        """A token that this server accepts as the service account's."""
        claims = {"sub": f"system:serviceaccount:{namespace}:{name}", "exp": int(time.time()) + seconds}
        body = ".".join(_encoded(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
        return f"{body}.{_encoded(self._signature(body))}"

    def _signature(self, body: str) -> bytes:
        return hmac.new(self._key, body.encode(), hashlib.sha256).digest()

    def _service_account(self, token: str) -> User | None:
        body, _, signature = token.rpartition(".")
        if not body or not hmac.compare_digest(_encoded(self._signature(body)), signature):
            return None
        claims = json.loads(_decoded(body.partition(".")[2]))
        if claims["exp"] < time.time():
            return None
        namespace = claims["sub"].split(":")[2]
        groups = {"system:serviceaccounts", f"system:serviceaccounts:{namespace}"}
        return User(claims["sub"], _BASE | groups)

    def _bootstrapper(self, token: str) -> User | None:
        identifier, _, secret = token.partition(".")
        stored = self._store.find("v1", "Secret", f"bootstrap-token-{identifier}", "kube-system")
        if not stored or stored.get("type") != "bootstrap.kubernetes.io/token":
            return None
        data = {key: _text(value) for key, value in (stored.get("data") or {}).items()}
        if not hmac.compare_digest(data.get("token-secret", ""), secret):
            return None
        extra = {group for group in data.get("auth-extra-groups", "").split(",") if group}
        return User(f"system:bootstrap:{identifier}", _BASE | {BOOTSTRAPPERS} | extra)


def _certified(certificate: dict[str, Any]) -> User:
    pairs = [pair for name in certificate.get("subject", ()) for pair in name]
    name = next((value for key, value in pairs if key == "commonName"), "")
    return User(name, _BASE | {value for key, value in pairs if key == "organizationName"})


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _text(value: str) -> str:
    try:
        return base64.b64decode(value).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


_RBAC = "rbac.authorization.k8s.io/v1"
_REVIEWS = frozenset({"selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews"})
_ROLES = data_file("roles.yaml")


@dataclass(frozen=True)
class Question:
    """A request to authorize; `resource` is "pods" or "pods/status", `path` is set for non-resource URLs."""

    verb: str
    group: str = ""
    resource: str = ""
    name: str = ""
    namespace: str = ""
    path: str = ""


def allowed(store: Reads, user: User, question: Question) -> bool:
    """Whether the user may do it."""
    if user.is_admin or question.path or question.resource in _REVIEWS:
        return True
    rules = [*(_ROLES["system:node"] if user.node else ()), *_rules(store, user, question.namespace)]
    return any(_permits(rule, question) for rule in rules)


def refusal(user: User, question: Question) -> ApiError:
    """403: who may not do what."""
    if question.path:
        return ApiError(403, "Forbidden", f'User "{user.name}" cannot {question.verb} path "{question.path}"')
    kind = question.resource.partition("/")[0]
    qualified = f"{kind}.{question.group}" if question.group else kind
    name = f' "{question.name}"' if question.name else ""
    where = f' in the namespace "{question.namespace}"' if question.namespace else " at the cluster scope"
    words = (
        f'{qualified}{name} is forbidden: User "{user.name}" cannot {question.verb} resource "{question.resource}" '
        f'in API group "{question.group}"{where}'
    )
    details = {"name": question.name, "group": question.group, "kind": kind}
    return ApiError(403, "Forbidden", words, {key: value for key, value in details.items() if value})


def _rules(store: Reads, user: User, namespace: str) -> Iterator[Obj]:
    bindings = store.view(_RBAC, "ClusterRoleBinding")
    bindings += store.view(_RBAC, "RoleBinding", namespace) if namespace else []
    for binding in bindings:
        if any(_is_subject(subject, user, binding) for subject in binding.get("subjects") or []):
            role = binding["roleRef"]
            home = binding["metadata"].get("namespace", "") if role["kind"] == "Role" else ""
            stored = store.find(_RBAC, role["kind"], role["name"], home)
            yield from (stored or {}).get("rules") or _ROLES.get(role["name"], ())


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
