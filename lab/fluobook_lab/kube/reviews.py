"""Questions that are asked by creating an object: access reviews, who am I, tokens."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from fluobook_lab.kube.authentication import TOKEN_SECONDS
from fluobook_lab.kube.authorization import Question, allowed
from fluobook_lab.kube.errors import no_such_path
from fluobook_lab.kube.identity import NODE_PREFIX, User
from fluobook_lab.kube.lifecycle import listed
from fluobook_lab.kube.objects import timestamp

if TYPE_CHECKING:
    from fluobook_lab.kube.authentication import Authenticator
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.resources import Resource
    from fluobook_lab.kube.store import Store


def reviewed(store: Store, resource: Resource, review: Obj, user: User) -> Obj:
    """The review with its answer.

    Raises:
        ApiError: 404, no such review.
    """
    if resource.plural in ("selfsubjectaccessreviews", "subjectaccessreviews", "localsubjectaccessreviews"):
        return {**review, "metadata": {}, "status": {"allowed": _is_allowed(store, review, user)}}
    if resource.plural == "selfsubjectreviews":
        return {
            **review,
            "metadata": {},
            "status": {"userInfo": {"username": user.name, "groups": listed(user.groups)}},
        }
    if resource.plural == "selfsubjectrulesreviews":
        rules = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}] if user.is_admin else []
        status = {"resourceRules": rules, "nonResourceRules": [], "incomplete": not user.is_admin}
        return {**review, "metadata": {}, "status": status}
    raise no_such_path()


def _is_allowed(store: Store, review: Obj, user: User) -> bool:
    spec = review.get("spec") or {}
    if "user" in spec:
        user = User(spec["user"], frozenset(spec.get("groups") or ()))
    asked = spec.get("resourceAttributes") or {}
    resource, sub = asked.get("resource", ""), asked.get("subresource", "")
    question = Question(
        verb=asked.get("verb", ""),
        group=asked.get("group", ""),
        resource=f"{resource}/{sub}" if sub else resource,
        name=asked.get("name", ""),
        namespace=asked.get("namespace", ""),
        path=(spec.get("nonResourceAttributes") or {}).get("path", ""),
    )
    return allowed(store, user, question)


def token_request(authenticator: Authenticator, key: tuple[str, str], request: Obj) -> Obj:
    """The TokenRequest with a token for the service account of that namespace and name."""
    seconds = (request.get("spec") or {}).get("expirationSeconds") or TOKEN_SECONDS
    until = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
    token = authenticator.service_account_token(*key, seconds)
    return {**request, "status": {"token": token, "expirationTimestamp": timestamp(until)}}


def has_serving_certificate(store: Store, node: str) -> bool:
    """Whether a kubelet has a serving certificate of the cluster's."""
    requests = store.view("certificates.k8s.io/v1", "CertificateSigningRequest")
    return any(
        request["spec"]["signerName"] == "kubernetes.io/kubelet-serving"
        and request["spec"]["username"] == NODE_PREFIX + node
        and (request.get("status") or {}).get("certificate")
        for request in requests
    )
