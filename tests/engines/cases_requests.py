"""What requests themselves may say: bodies, options, forms of the answer, versions of lists and watches."""

from __future__ import annotations

from typing import Any

from tests.engines.step import APPLY, JSON, JSON_PATCH, MERGE, STRATEGIC, Step

MAPS = "/api/v1/namespaces/kube-public/configmaps"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
_SOON = {"watch": "true", "timeoutSeconds": "1"}


def config_map(name: str, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}}


def _labelled(labels: dict[str, Any]) -> Step:
    return Step("POST", MAPS, config_map("labelled", labels=labels))


def _watched(**query: str) -> Step:
    return Step("GET", MAPS, query={**_SOON, "labelSelector": "seen=yes", **query})


def _listed(accept: str = JSON, **query: str) -> Step:
    return Step("GET", MAPS, query={"labelSelector": "seen=yes", **query}, accept=accept)


REQUESTS: dict[str, list[Step]] = {
    "bodies of other kinds and types are refused": [
        Step("POST", MAPS, {"apiVersion": "v2", "kind": "ConfigMap", "metadata": {"name": "x"}}),
        Step("POST", MAPS, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}}),
        Step("POST", MAPS, {"apiVersion": "nonsense/v1", "kind": "Nonsense", "metadata": {"name": "x"}}),
        Step("POST", MAPS, []),
        Step("POST", MAPS, "x"),
        Step("POST", MAPS, {}),
        Step("POST", MAPS, {**config_map("x"), "data": []}),
        Step("POST", MAPS, {**config_map("x"), "data": {"a": 1}}),
        Step("POST", MAPS, {**config_map("x"), "metadata": "x"}),
        Step("POST", MAPS, {**config_map("x"), "metadata": {"name": 5}}),
        Step("POST", MAPS, config_map("x", resourceVersion="5")),
        Step("POST", MAPS, {**config_map("x"), "binaryData": {"k": "?"}}),
    ],
    "names, labels and owners have their forms": [
        Step("POST", MAPS, config_map("a..b")),
        Step("POST", MAPS, config_map("a" * 254)),
        Step("POST", "/api/v1/namespaces", {**config_map("a.b"), "kind": "Namespace"}),
        Step("POST", "/api/v1/namespaces", {**config_map("a" * 64), "kind": "Namespace"}),
        _labelled({"a": "x" * 64}),
        _labelled({"x" * 64: "a"}),
        _labelled({"Bad_Domain/x": "a"}),
        _labelled({"a/b/c": "a"}),
        _labelled({"/x": "a"}),
        _labelled({"": "a"}),
        _labelled({"a": 5}),
    ],
    "paths take their methods and no others": [
        Step("POST", f"{MAPS}/x", config_map("x")),
        Step("PUT", MAPS, config_map("x")),
        Step("PATCH", MAPS, {}, MERGE),
        Step("POST", "/api/v1/configmaps", config_map("x")),
        Step("DELETE", "/api/v1/configmaps"),
        Step("DELETE", "/api/v1/namespaces"),
        Step("GET", "/api/v1/configmaps/x"),
        Step("GET", "/api/v1/namespaces/default/nodes"),
        Step("GET", "/api/v1/nodes/x/y"),
        Step("GET", "/api/v2"),
        Step("GET", "/apis/apps/v2"),
        Step("GET", "/nonsense"),
        Step("POST", "/version", {}),
    ],
    "deletions have options": [
        Step("POST", MAPS, config_map("going")),
        Step("DELETE", f"{MAPS}/going", {"propagationPolicy": "Nonsense"}),
        Step("DELETE", f"{MAPS}/going", query={"propagationPolicy": "Nonsense"}),
        Step("DELETE", f"{MAPS}/going", {"dryRun": ["Nonsense"]}),
        Step("DELETE", f"{MAPS}/going", {"dryRun": ["All"]}),
        Step("DELETE", f"{MAPS}/going", query={"gracePeriodSeconds": "x"}),
        Step("DELETE", f"{MAPS}/going", {"propagationPolicy": "Foreground"}),
        Step("GET", f"{MAPS}/going", until=False),
    ],
    "patches are read strictly": [
        Step("POST", MAPS, {**config_map("patched"), "data": {"a": "1"}}),
        Step("PATCH", f"{MAPS}/patched", [], MERGE),
        Step("PATCH", f"{MAPS}/patched", "x", MERGE),
        Step("PATCH", f"{MAPS}/patched", {}, JSON_PATCH),
        Step("PATCH", f"{MAPS}/patched", [{"op": "nonsense", "path": "/data/a"}], JSON_PATCH),
        Step("PATCH", f"{MAPS}/patched", [{"op": "replace", "path": "/data/new", "value": "x"}], JSON_PATCH),
        Step("PATCH", f"{MAPS}/patched", [{"op": "test", "path": "/data/none", "value": None}], JSON_PATCH),
        Step("PATCH", f"{MAPS}/patched", [], STRATEGIC),
        Step("PATCH", f"{MAPS}/patched", {"metadata": {"finalizers": ["a/b"]}}, STRATEGIC),
        Step("PATCH", f"{MAPS}/patched", {"metadata": {"finalizers": ["c/d"]}}, STRATEGIC),
        Step("PATCH", f"{MAPS}/patched", {"metadata": {"finalizers": None}}, STRATEGIC),
        Step("PATCH", f"{MAPS}/patched", {"metadata": {"namespace": "x"}}, MERGE),
        Step("PATCH", f"{MAPS}/patched", {"metadata": {"resourceVersion": "x"}}, MERGE),
        Step("PATCH", f"{MAPS}/patched", {"apiVersion": "v2"}, MERGE),
        Step("PATCH", f"{MAPS}/patched", {}, JSON),
        Step("PATCH", f"{MAPS}/patched", config_map("patched", uid="x"), APPLY, {"fieldManager": "m"}),
        Step("PATCH", f"{MAPS}/patched", {"kind": "ConfigMap"}, APPLY, {"fieldManager": "m"}),
        Step("PATCH", f"{MAPS}/patched", {"apiVersion": "v1", "kind": "ConfigMap"}, APPLY, {"fieldManager": "m"}),
        Step("PATCH", f"{MAPS}/patched", {**config_map("patched"), "data": []}, APPLY, {"fieldManager": "m"}),
    ],
    "lists and watches show what was asked for": [
        Step("POST", MAPS, config_map("one", labels={"seen": "yes"})),
        Step("POST", MAPS, config_map("two", labels={"seen": "yes"})),
        _listed(),  # the newest: version 0 is whatever a cache has, and after this it has both
        _listed(resourceVersion="0"),
        _listed(**{"continue": "e30"}),
        _listed(limit="1"),
        _watched(),
        _watched(resourceVersion="0"),
        _watched(resourceVersion="nonsense"),
        _watched(sendInitialEvents="true", resourceVersionMatch="NotOlderThan"),
        _watched(sendInitialEvents="true", resourceVersionMatch="NotOlderThan", allowWatchBookmarks="true"),
        _watched(timeoutSeconds="x"),
    ],
    "answers have the form that was asked for": [
        Step("POST", MAPS, config_map("formed", labels={"seen": "form"}), accept=TABLE),
        Step("GET", f"{MAPS}/formed", accept=TABLE),
        Step("GET", f"{MAPS}/formed", accept=TABLE, query={"includeObject": "Object"}),
        Step("GET", f"{MAPS}/formed", accept=TABLE, query={"includeObject": "None"}),
        Step("GET", f"{MAPS}/formed", accept=PARTIAL),
        _listed(PARTIAL_LIST, labelSelector="seen=form"),
        _listed(TABLE, labelSelector="seen=form"),
        _listed(TABLE.replace("v1", "v1beta1"), labelSelector="seen=form"),
        Step("GET", f"{MAPS}/missing", accept=TABLE),
        Step("DELETE", f"{MAPS}/formed", accept=PARTIAL),
    ],
}
