"""The same requests to both engines, and the same answers: code, reason, message, and what an operator reads."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from fluobook.lab.kube.errors import ApiError
from fluobook.lab.kube.nodeinfo import NodeInfo, requested, signing_request

if TYPE_CHECKING:
    from tests.engines.conftest import Engine

MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
JSON_PATCH, APPLY = "application/json-patch+json", "application/apply-patch+yaml"
MAPS = "/api/v1/namespaces/default/configmaps"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def deployment(name: str, **spec: Any) -> dict[str, Any]:
    labels = {"app": name}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "lab.invalid/main:1"}]}}
    told = {"replicas": 2, "selector": {"matchLabels": labels}, "template": pod, **spec}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": told}


def applied(name: str, **data: str) -> dict[str, Any]:
    return config_map(name, **data)


@dataclass(frozen=True)
class Step:
    """One request, and which parts of a good answer are compared ("a.b.0.c")."""

    method: str
    path: str
    body: Any = None
    media: str = "application/json"
    query: dict[str, str] = field(default_factory=dict)
    parts: tuple[str, ...] = ("kind",)


def node_request(cn_node: str = "cp-1") -> dict[str, Any]:
    pem, _ = requested(NodeInfo(cn_node, ("10.10.0.10",)), names=True)
    return signing_request(pem, "kubernetes.io/kubelet-serving", "server auth")


def named(obj: dict[str, Any], name: str) -> dict[str, Any]:
    return {**obj, "metadata": {"name": name}}


SHARED = {"fieldManager": "one", "force": "false"}
CASES: dict[str, list[Step]] = {
    "an object is created, read, and refused a second time": [
        Step("POST", MAPS, config_map("a", x="1"), parts=("data", "kind", "metadata.namespace")),
        Step("GET", f"{MAPS}/a", parts=("data",)),
        Step("POST", MAPS, config_map("a")),
    ],
    "what is not there is not found": [
        Step("GET", f"{MAPS}/missing"),
        Step("DELETE", f"{MAPS}/missing"),
        Step("PATCH", f"{MAPS}/missing", {"data": {}}, MERGE),
        Step("GET", "/apis/apps/v1/namespaces/default/nonsense"),
        Step("POST", "/api/v1/namespaces/nowhere/configmaps", config_map("a")),
    ],
    "an update with an old resourceVersion conflicts": [
        Step("POST", MAPS, config_map("old")),
        Step("PUT", f"{MAPS}/old", {**config_map("old"), "metadata": {"name": "old", "resourceVersion": "1"}}),
    ],
    "each kind of patch does what it says": [
        Step("POST", MAPS, config_map("p", a="1", b="2")),
        Step("PATCH", f"{MAPS}/p", {"data": {"a": None, "c": "3"}}, MERGE, parts=("data",)),
        Step("PATCH", f"{MAPS}/p", [{"op": "replace", "path": "/data/b", "value": "9"}], JSON_PATCH, parts=("data",)),
        Step("PATCH", f"{MAPS}/p", [{"op": "remove", "path": "/data/zzz"}], JSON_PATCH),
        Step("PATCH", f"{MAPS}/p", {"data": {"d": "4"}}, STRATEGIC, parts=("data",)),
        Step("PATCH", f"{MAPS}/p", {"data": {}}, "application/nonsense"),
    ],
    "a strategic merge patch merges containers by name": [
        Step("POST", DEPLOYMENTS, deployment("s")),
        Step(
            "PATCH",
            f"{DEPLOYMENTS}/s",
            {"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "lab.invalid/side:1"}]}}}},
            STRATEGIC,
            parts=("spec.template.spec.containers.0.name", "spec.template.spec.containers.1.name"),
        ),
    ],
    "server-side apply creates, keeps others' fields and names conflicts": [
        Step("PATCH", f"{MAPS}/ssa", applied("ssa", x="1"), APPLY, SHARED, parts=("data",)),
        Step("PATCH", f"{MAPS}/ssa", applied("ssa", y="2"), APPLY, {"fieldManager": "two"}, parts=("data",)),
        Step("PATCH", f"{MAPS}/ssa", applied("ssa", x="3"), APPLY, {"fieldManager": "two"}),
        Step(
            "PATCH",
            f"{MAPS}/ssa",
            applied("ssa", x="3"),
            APPLY,
            {"fieldManager": "two", "force": "true"},
            parts=("data", "metadata.managedFields.0.manager"),
        ),
        Step("PATCH", f"{MAPS}/ssa", applied("ssa"), APPLY, {}),
    ],
    "a dry run changes nothing": [
        Step("POST", MAPS, config_map("dry"), query={"dryRun": "All"}, parts=("kind",)),
        Step("GET", f"{MAPS}/dry"),
    ],
    "unknown fields are refused when asked to": [
        Step("POST", MAPS, {**config_map("odd"), "nonsense": 1}, query={"fieldValidation": "Strict"}),
    ],
    "invalid objects are refused with their causes": [
        Step("POST", DEPLOYMENTS, deployment("bad", selector={"matchLabels": {"app": "other"}})),
        Step("POST", DEPLOYMENTS, deployment("bad", replicas=-1)),
        Step("POST", MAPS, config_map("Not_A_Name")),
    ],
    "scale is a subresource": [
        Step("POST", DEPLOYMENTS, deployment("scaled")),
        Step("GET", f"{DEPLOYMENTS}/scaled/scale", parts=("kind", "spec.replicas")),
        Step("PATCH", f"{DEPLOYMENTS}/scaled/scale", {"spec": {"replicas": 3}}, MERGE, parts=("spec.replicas",)),
        Step("GET", f"{DEPLOYMENTS}/scaled", parts=("spec.replicas",)),
    ],
    "lists are cut into pages": [
        *[Step("POST", MAPS, named(config_map("x"), f"page-{n}")) for n in range(3)],
        Step(
            "GET", MAPS, query={"limit": "2", "labelSelector": "!none"}, parts=("kind", "metadata.remainingItemCount")
        ),
        Step("GET", MAPS, query={"limit": "2", "continue": "nonsense"}),
    ],
    "a finalizer holds an object back": [
        Step("POST", MAPS, {**config_map("held"), "metadata": {"name": "held", "finalizers": ["lab.example/hold"]}}),
        Step("DELETE", f"{MAPS}/held", parts=("kind", "metadata.finalizers")),
        Step("GET", f"{MAPS}/held", parts=("metadata.finalizers",)),
        Step("PATCH", f"{MAPS}/held", {"metadata": {"finalizers": None}}, MERGE),
        Step("GET", f"{MAPS}/held"),
    ],
    "pods that break the baseline are forbidden": [
        Step(
            "POST",
            "/api/v1/namespaces/default/pods",
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "bad"},
                "spec": {
                    "containers": [{"name": "c", "image": "i", "securityContext": {"privileged": True}}],
                    "serviceAccountName": "default",
                },
            },
        ),
    ],
    "selectors choose": [
        Step("POST", MAPS, {**config_map("sel"), "metadata": {"name": "sel", "labels": {"tier": "t1"}}}),
        Step("GET", MAPS, query={"labelSelector": "tier=t1"}, parts=("items.0.metadata.name",)),
        Step("GET", MAPS, query={"fieldSelector": "metadata.name=sel"}, parts=("items.0.metadata.name",)),
        Step("GET", MAPS, query={"labelSelector": "a b c"}),
    ],
    "a request that was approved gets its certificate; a denied one keeps its word": [
        Step("POST", CSRS, named(node_request(), "yes"), parts=("spec.signerName", "spec.username")),
        Step("GET", f"{CSRS}/yes", parts=("status",)),
    ],
    "a request that is no certificate request is invalid": [
        Step(
            "POST",
            CSRS,
            named(
                {**node_request(), "spec": {**node_request()["spec"], "request": base64.b64encode(b"x").decode()}}, "no"
            ),
        ),
    ],
    "reviews tell what one may": [
        Step(
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": {"verb": "create", "resource": "pods", "namespace": "default"}},
            },
            parts=("status.allowed",),
        ),
    ],
    "the version is the pinned one": [Step("GET", "/version", parts=("gitVersion", "major", "minor"))],
}


DIFFERENCES = {
    ("each kind of patch does what it says", 6): (
        "the body of the request was in an unknown format",
        "415: Unsupported Media Type",
    ),
    ("lists are cut into pages", 5): ("continue key is not valid: ", "invalid continue token: continue key is not"),
}
"""How messages begin where the embedded engine words a refusal in its own way: what Python says, not Go."""


@pytest.mark.parametrize("name", CASES)
def test_both_engines_answer_alike(name: str, embedded: Engine, real: Engine) -> None:
    for number, step in enumerate(CASES[name], 1):
        ours, theirs = answer(embedded, step), answer(real, step)
        for begin, told in zip(DIFFERENCES.get((name, number), ()), (ours, theirs), strict=False):
            assert told.pop("message").startswith(begin)
        assert ours == theirs, f"step {number}: {step.method} {step.path}"


def answer(engine: Engine, step: Step) -> dict[str, Any]:
    """What is compared: of a refusal its code, reason and message; of an object the parts that the step names."""
    send = engine.api.send(step.method, step.path, step.body, media=step.media, query=step.query)
    try:
        told = engine.call(send)
    except ApiError as error:
        return {"code": error.code, "reason": error.reason, "message": error.message}
    return {part: found(told, part) for part in step.parts}


def found(obj: Any, path: str) -> Any:
    for name in path.split("."):
        obj = (obj[int(name)] if int(name) < len(obj) else None) if isinstance(obj, list) else (obj or {}).get(name)
    return obj
