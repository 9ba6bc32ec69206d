"""The interactions that both engines must answer alike: a table, by what it is about."""

from __future__ import annotations

import base64
from typing import Any

from fluobook_lab.kube.kubelet import NodeInfo, requested, signing_request

from tests.engines.cases_requests import REQUESTS
from tests.engines.step import APPLY, JSON_PATCH, MERGE, STRATEGIC, Step

MAPS = "/api/v1/namespaces/default/configmaps"
SECRETS = "/api/v1/namespaces/default/secrets"
PODS = "/api/v1/namespaces/default/pods"
SERVICES = "/api/v1/namespaces/default/services"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
LAMPS = "/apis/example.org/v1/namespaces/default/lamps"
REVIEWS = "/apis/authorization.k8s.io/v1"
STRICT = {"fieldValidation": "Strict"}
WORKER = ("system:node:worker-1", "system:nodes")
"""Who the worker's kubelet is."""


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def with_metadata(obj: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {**obj, "metadata": {**obj["metadata"], **metadata}}


def deployment(name: str, **spec: Any) -> dict[str, Any]:
    labels = {"app": name}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "lab.invalid/main:1"}]}}
    spec = {"replicas": 0, "paused": True, "selector": {"matchLabels": labels}, "template": pod, **spec}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def pod(name: str, **spec: Any) -> dict[str, Any]:
    containers = [{"name": "c", "image": "lab.invalid/c:1"}]
    spec = {"containers": containers, "nodeName": "nowhere", **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


CRON_JOBS = "/apis/batch/v1/namespaces/default/cronjobs"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1"
HOOKS = ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration")
PROBED = {
    "name": "c",
    "image": "lab.invalid/c:1",
    "livenessProbe": {"httpGet": {"path": "/", "port": 80}},
    "readinessProbe": {"tcpSocket": {"port": 80}},
    "startupProbe": {"exec": {"command": ["true"]}, "failureThreshold": 9},
}
PROBES = {"metadata": {"labels": {"app": "probes"}}, "spec": {"containers": [PROBED]}}
TEMPLATE = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "lab.invalid/c:1"}]}}
CRON_JOB = {
    "apiVersion": "batch/v1",
    "kind": "CronJob",
    "metadata": {"name": "defaults"},
    "spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": TEMPLATE}}},
}


def webhooks(kind: str) -> dict[str, Any]:
    rule = {"apiGroups": ["example.org"], "apiVersions": ["v1"], "resources": ["sockets"], "operations": ["CREATE"]}
    client = {"service": {"name": "hooks", "namespace": "default"}}
    hook = {"name": "a.example.org", "rules": [rule], "clientConfig": client, "sideEffects": "None"}
    hook |= {"admissionReviewVersions": ["v1"], "failurePolicy": "Ignore", "timeoutSeconds": 1}
    plain = {key: value for key, value in hook.items() if key not in ("failurePolicy", "timeoutSeconds")}
    hooks = [hook, {**plain, "name": "b.example.org", "rules": [{**rule, "scope": "Namespaced"}]}]
    head = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind}
    return {**head, "metadata": {"name": "defaults"}, "webhooks": hooks}


def service(name: str, **spec: Any) -> dict[str, Any]:
    spec = {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def request(name: str, node: str = "conformance", *, names: bool = True, **spec: Any) -> dict[str, Any]:
    pem, _ = requested(NodeInfo(node, ("10.10.0.99",)), names=names)
    made = signing_request(pem, "kubernetes.io/kubelet-serving", "server auth")
    return {**made, "metadata": {"name": name}, "spec": {**made["spec"], **spec}}


def lamp(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "example.org/v1", "kind": "Lamp", "metadata": {"name": name}, "spec": spec}


def condition(kind: str) -> dict[str, Any]:
    return {"type": kind, "status": "True", "reason": "Test", "message": "said"}


LAMP_SCHEMA = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["watts"],
            "properties": {
                "watts": {"type": "integer", "minimum": 1, "maximum": 100},
                "colour": {"type": "string", "enum": ["red", "green"], "default": "red"},
                "rooms": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {"name": {"type": "string"}, "size": {"type": "integer"}},
                    },
                },
                "replicas": {"type": "integer"},
            },
        },
        "status": {"type": "object", "properties": {"on": {"type": "boolean"}, "replicas": {"type": "integer"}}},
    },
}
LAMP_CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "lamps.example.org"},
    "spec": {
        "group": "example.org",
        "scope": "Namespaced",
        "names": {"kind": "Lamp", "plural": "lamps", "singular": "lamp", "listKind": "LampList", "shortNames": ["lp"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": LAMP_SCHEMA},
                "subresources": {
                    "status": {},
                    "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"},
                },
                "additionalPrinterColumns": [{"name": "Watts", "type": "integer", "jsonPath": ".spec.watts"}],
            }
        ],
    },
}


def applied(name: str, manager: str, *, force: bool = False, **data: str) -> Step:
    query = {"fieldManager": manager} | ({"force": "true"} if force else {})
    return Step("PATCH", f"{MAPS}/{name}", config_map(name, **data), APPLY, query)


OBJECTS: dict[str, list[Step]] = {
    "an object is created, read, and refused a second time": [
        Step("POST", MAPS, config_map("a", x="1")),
        Step("GET", f"{MAPS}/a"),
        Step("POST", MAPS, config_map("a")),
        Step("PUT", f"{MAPS}/a", config_map("a", x="2")),
        Step("PUT", f"{MAPS}/other", config_map("a")),
        Step("PUT", f"{MAPS}/absent", config_map("absent")),
        Step("DELETE", f"{MAPS}/a"),
        Step("GET", f"{MAPS}/a"),
    ],
    "names are made up where wanted": [
        Step("POST", MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}}),
        Step("POST", MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "g-"}}, pick="data"),
    ],
    "what is not there is not found": [
        Step("GET", f"{MAPS}/missing"),
        Step("DELETE", f"{MAPS}/missing"),
        Step("PATCH", f"{MAPS}/missing", {"data": {}}, MERGE),
        Step("GET", "/apis/apps/v1/namespaces/default/nonsense"),
        Step("GET", "/apis/nonsense.example/v1/things"),
        Step("POST", "/api/v1/namespaces/nowhere/configmaps", config_map("a")),
        Step("GET", "/api/v1/namespaces/nowhere"),
        Step("GET", "/api/v1/namespaces/nowhere/configmaps", pick="items"),
        Step("GET", f"{DEPLOYMENTS}/missing/scale"),
        Step("POST", DEPLOYMENTS, config_map("wrong")),
        Step("POST", MAPS, with_metadata(config_map("elsewhere"), namespace="kube-system")),
    ],
    "an update with an old resourceVersion conflicts": [
        Step("POST", MAPS, config_map("old")),
        Step("PUT", f"{MAPS}/old", with_metadata(config_map("old"), resourceVersion="1")),
        Step("PATCH", f"{MAPS}/old", {"metadata": {"resourceVersion": "1"}}, MERGE),
        Step("PATCH", f"{MAPS}/old", {"metadata": {"uid": "x"}}, MERGE),
        Step("DELETE", f"{MAPS}/old", {"preconditions": {"uid": "another"}}),
        Step("DELETE", f"{MAPS}/old", {"preconditions": {"resourceVersion": "1"}}),
    ],
    "each kind of patch does what it says": [
        Step("POST", MAPS, config_map("p", a="1", b="2")),
        Step("PATCH", f"{MAPS}/p", {"data": {"a": None, "c": "3"}}, MERGE),
        Step("PATCH", f"{MAPS}/p", [{"op": "replace", "path": "/data/b", "value": "9"}], JSON_PATCH),
        Step("PATCH", f"{MAPS}/p", [{"op": "test", "path": "/data/b", "value": "8"}], JSON_PATCH),
        Step("PATCH", f"{MAPS}/p", [{"op": "remove", "path": "/data/zzz"}], JSON_PATCH),
        Step("PATCH", f"{MAPS}/p", [{"op": "add", "path": "/data/n~1m", "value": "x"}], JSON_PATCH),
        Step("PATCH", f"{MAPS}/p", [{"op": "move", "from": "/data/b", "path": "/data/z"}], JSON_PATCH),
        Step("PATCH", f"{MAPS}/p", [{"op": "copy", "from": "/data/z", "path": "/data/y"}], JSON_PATCH),
        Step("PATCH", f"{MAPS}/p", {"data": {"d": "4"}}, STRATEGIC),
        Step("PATCH", f"{MAPS}/p", {"data": {"d": 4}}, MERGE),
        Step("PATCH", f"{MAPS}/p", {"metadata": {"name": "q"}}, MERGE),
        Step("PATCH", f"{MAPS}/p", {"data": {}}, "application/nonsense"),
        Step("PATCH", f"{MAPS}/p", {"kind": "Secret"}, MERGE),
    ],
    "a strategic merge patch merges lists by their keys": [
        Step("POST", DEPLOYMENTS, deployment("s")),
        Step(
            "PATCH",
            f"{DEPLOYMENTS}/s",
            {"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "lab.invalid/side:1"}]}}}},
            STRATEGIC,
        ),
        Step(
            "PATCH",
            f"{DEPLOYMENTS}/s",
            {"spec": {"template": {"spec": {"containers": [{"name": "side", "$patch": "delete"}]}}}},
            STRATEGIC,
        ),
        Step(
            "PATCH",
            f"{DEPLOYMENTS}/s",
            {"spec": {"template": {"spec": {"containers": [{"name": "main", "env": [{"name": "A", "value": "1"}]}]}}}},
            STRATEGIC,
        ),
        Step(
            "PATCH",
            f"{DEPLOYMENTS}/s",
            {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}},
            STRATEGIC,
        ),
        Step("PATCH", f"{DEPLOYMENTS}/s", {"metadata": {"labels": {"$patch": "replace", "only": "this"}}}, STRATEGIC),
        Step("PATCH", f"{DEPLOYMENTS}/s", {"spec": {"selector": {"matchLabels": {"app": "t"}}}}, MERGE),
    ],
    "server-side apply creates, keeps others' fields and names conflicts": [
        applied("ssa", "one", x="1"),
        applied("ssa", "two", y="2"),
        applied("ssa", "two", x="3"),
        applied("ssa", "two", x="1"),
        applied("ssa", "two", force=True, x="3"),
        applied("ssa", "one"),
        applied("ssa", "two"),
        Step("PATCH", f"{MAPS}/ssa", config_map("ssa"), APPLY, {}),
        Step("PATCH", f"{MAPS}/ssa", with_metadata(config_map("ssa"), managedFields=[]), APPLY, {"fieldManager": "m"}),
        Step("PATCH", f"{MAPS}/other", config_map("ssa"), APPLY, {"fieldManager": "m"}),
        Step("PATCH", f"{MAPS}/ssa", {"data": {"m": "1"}}, MERGE, {"fieldManager": "hand"}),
        applied("ssa", "two", m="2"),
    ],
    "who owns which field is told": [
        Step("POST", MAPS, with_metadata(config_map("owned", a="1"), labels={"x": "y"}), pick="metadata.managedFields"),
        Step(
            "PATCH", f"{MAPS}/owned", {"data": {"b": "2"}}, MERGE, {"fieldManager": "m"}, pick="metadata.managedFields"
        ),
        Step(
            "PATCH",
            f"{MAPS}/owned",
            config_map("owned", c="3"),
            APPLY,
            {"fieldManager": "o"},
            pick="metadata.managedFields",
        ),
        Step(
            "PATCH", f"{MAPS}/owned", {"data": {"c": None}}, MERGE, {"fieldManager": "m"}, pick="metadata.managedFields"
        ),
        Step("PATCH", f"{MAPS}/owned", {"metadata": {"managedFields": [{}]}}, MERGE, pick="metadata.managedFields"),
        Step("POST", SERVICES, service("owned"), pick="metadata.managedFields"),
        Step("POST", DEPLOYMENTS, deployment("owned"), pick="metadata.managedFields"),
        Step(
            "PATCH",
            f"{DEPLOYMENTS}/owned2",
            deployment("owned2"),
            APPLY,
            {"fieldManager": "one"},
            pick="metadata.managedFields",
        ),
    ],
    "server-side apply owns items of lists": [
        Step("PATCH", f"{DEPLOYMENTS}/own", deployment("own"), APPLY, {"fieldManager": "one"}),
        Step(
            "PATCH",
            f"{DEPLOYMENTS}/own",
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "own"},
                "spec": {
                    "template": {
                        "spec": {"containers": [{"name": "main", "env": [{"name": "A", "value": "1"}]}]},
                    }
                },
            },
            APPLY,
            {"fieldManager": "two"},
        ),
        Step(
            "PATCH", f"{DEPLOYMENTS}/own", deployment("own", replicas=0, paused=True), APPLY, {"fieldManager": "three"}
        ),
        Step(
            "PATCH", f"{DEPLOYMENTS}/own/scale", {"spec": {"replicas": 1}}, MERGE, {"fieldManager": "hpa"}, pick="spec"
        ),
        Step("PATCH", f"{DEPLOYMENTS}/own", deployment("own"), APPLY, {"fieldManager": "one"}),
    ],
    "a dry run changes nothing": [
        Step("POST", MAPS, config_map("dry"), query={"dryRun": "All"}),
        Step("GET", f"{MAPS}/dry"),
        Step("POST", MAPS, config_map("dry"), query={"dryRun": "Nonsense"}),
        Step("POST", MAPS, config_map("dry2", a="1")),
        Step("PATCH", f"{MAPS}/dry2", {"data": {"a": "2"}}, MERGE, {"dryRun": "All"}),
        Step("DELETE", f"{MAPS}/dry2", query={"dryRun": "All"}),
        Step("GET", f"{MAPS}/dry2", pick="data"),
    ],
    "unknown fields are refused when asked to": [
        Step("POST", MAPS, {**config_map("odd"), "nonsense": 1}, query=STRICT),
        Step("POST", DEPLOYMENTS, deployment("odd", replica=2, more={"a": 1}), query=STRICT),
        Step("POST", DEPLOYMENTS, deployment("odd", replica=2), query={"fieldValidation": "Ignore"}),
        Step("PATCH", f"{DEPLOYMENTS}/odd", {"spec": {"replica": 2}}, MERGE, STRICT),
        Step("POST", MAPS, config_map("odd2"), query={"fieldValidation": "Nonsense"}),
        Step("PATCH", f"{MAPS}/odd3", {**config_map("odd3"), "nonsense": 1}, APPLY, {"fieldManager": "one"}),
    ],
    "invalid objects are refused with their causes": [
        Step("POST", DEPLOYMENTS, deployment("bad", selector={"matchLabels": {"app": "other"}})),
        Step("POST", DEPLOYMENTS, deployment("bad", replicas=-1)),
        Step("POST", DEPLOYMENTS, deployment("bad", replicas="two")),
        Step("POST", MAPS, config_map("Not_A_Name")),
        Step("POST", MAPS, {**config_map("bad"), "data": {"a/b": "1"}}),
        Step("POST", MAPS, with_metadata(config_map("bad"), labels={"a b": "c"})),
        Step("POST", MAPS, with_metadata(config_map("bad"), labels={"a": "c d"})),
        Step("POST", MAPS, with_metadata(config_map("bad"), finalizers=["x"])),
        Step("POST", SERVICES, service("bad", ports=[])),
        Step("POST", SERVICES, service("bad", ports=[{"port": 70000}])),
        Step("POST", SERVICES, service("bad", clusterIP="1.2.3.4")),
        Step("POST", PODS, pod("bad", containers=[])),
        Step("POST", SECRETS, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bad"}, "data": {"a": "?"}}),
        Step("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "A"}}),
        Step("POST", MAPS, {"kind": "ConfigMap", "metadata": {"name": "bad"}}),
        Step("POST", MAPS, {"apiVersion": "v1", "metadata": {"name": "bad"}}),
    ],
    "immutable objects stay as they are": [
        Step("POST", MAPS, {**config_map("fixed", a="1"), "immutable": True}),
        Step("PATCH", f"{MAPS}/fixed", {"data": {"a": "2"}}, MERGE),
        Step("PATCH", f"{MAPS}/fixed", {"immutable": False}, MERGE),
        Step("POST", SERVICES, service("fixed")),
        Step("PATCH", f"{SERVICES}/fixed", {"spec": {"clusterIP": "10.96.7.7"}}, MERGE),
    ],
    "a secret takes text and gives base64": [
        Step(
            "POST",
            SECRETS,
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "text"}, "stringData": {"a": "b"}},
        ),
        Step("PATCH", f"{SECRETS}/text", {"stringData": {"c": "d"}}, MERGE),
        Step("PATCH", f"{SECRETS}/text", {"type": "example.org/other"}, MERGE),
    ],
    "lists are cut into pages": [
        *[Step("POST", MAPS, with_metadata(config_map(f"page-{n}"), labels={"page": "yes"})) for n in range(3)],
        Step("GET", MAPS, query={"limit": "2", "labelSelector": "page=yes"}),
        Step("GET", "/api/v1/configmaps", query={"labelSelector": "page=yes"}),
        Step("GET", MAPS, query={"limit": "2", "continue": "nonsense"}, pick="kind"),
        Step("GET", MAPS, query={"limit": "-1", "labelSelector": "page=yes"}, pick="kind"),
        Step("GET", MAPS, query={"limit": "x"}),
        Step("GET", MAPS, query={"resourceVersion": "nonsense"}),
        Step("DELETE", MAPS, query={"labelSelector": "page=yes"}, pick="kind"),
        Step("GET", MAPS, query={"labelSelector": "page=yes"}, pick="items"),
    ],
    "selectors choose": [
        Step("POST", MAPS, with_metadata(config_map("sel"), labels={"tier": "t1"})),
        Step("GET", MAPS, query={"labelSelector": "tier=t1"}),
        Step("GET", MAPS, query={"labelSelector": "tier in (t1,t2),tier notin (t3)"}),
        Step("GET", MAPS, query={"labelSelector": "tier!=t1,tier"}),
        Step("GET", MAPS, query={"fieldSelector": "metadata.name=sel"}),
        Step("GET", MAPS, query={"fieldSelector": "metadata.name!=sel,metadata.namespace=nowhere"}),
        Step("GET", MAPS, query={"labelSelector": "a b c"}),
        Step("GET", PODS, query={"fieldSelector": "status.phase=Nonsense"}, pick="items"),
    ],
    "a finalizer holds an object back": [
        Step("POST", MAPS, with_metadata(config_map("held"), finalizers=["lab.example/hold"])),
        Step("DELETE", f"{MAPS}/held"),
        Step("GET", f"{MAPS}/held"),
        Step("PATCH", f"{MAPS}/held", {"metadata": {"finalizers": ["lab.example/hold", "lab.example/more"]}}, MERGE),
        Step("PATCH", f"{MAPS}/held", {"metadata": {"finalizers": None}}, MERGE),
        Step("GET", f"{MAPS}/held"),
    ],
    "defaults are filled in": [
        Step("POST", DEPLOYMENTS, deployment("defaults")),
        Step("POST", SERVICES, service("defaults")),
        Step("POST", SERVICES, service("headless", clusterIP="None")),
        Step("POST", PODS, pod("defaults"), pick="spec.restartPolicy"),
        Step("POST", PODS, pod("defaults2"), pick="spec.tolerations"),
        Step("POST", PODS, pod("defaults3"), pick="status"),
    ],
    "defaults of probes, CronJobs and webhooks are filled in": [
        Step("POST", DEPLOYMENTS, deployment("probes", template=PROBES), pick="spec.template"),
        Step("POST", CRON_JOBS, CRON_JOB, pick="spec"),
        *(Step("POST", f"{WEBHOOKS}/{kind.lower()}s", webhooks(kind), pick="webhooks") for kind in HOOKS),
    ],
}

CLUSTER: dict[str, list[Step]] = {
    "the version is the pinned one": [
        Step("GET", "/version", pick="gitVersion"),
        Step("GET", "/version", pick="minor"),
    ],
    "scale and status are subresources": [
        Step("POST", DEPLOYMENTS, deployment("scaled")),
        Step("GET", f"{DEPLOYMENTS}/scaled/scale"),
        Step("PATCH", f"{DEPLOYMENTS}/scaled/scale", {"spec": {"replicas": -3}}, MERGE),
        Step("PATCH", f"{DEPLOYMENTS}/scaled", {"status": {"replicas": 7}}, MERGE, pick="spec.replicas"),
        Step("POST", PODS, pod("st")),
        Step(
            "PATCH",
            f"{PODS}/st/status",
            {"status": {"phase": "Running"}, "spec": {"nodeName": "x"}},
            MERGE,
            pick="status.phase",
        ),
        Step("GET", f"{PODS}/st", pick="spec.nodeName"),
        Step(
            "PATCH",
            f"{PODS}/st",
            {"spec": {"containers": [{"name": "c", "image": "lab.invalid/c:2"}]}},
            STRATEGIC,
            pick="spec.containers.0.image",
        ),
        Step("PATCH", f"{PODS}/st", {"spec": {"restartPolicy": "Never"}}, MERGE, pick="kind"),
        Step("GET", f"{PODS}/st/nonsense"),
        Step("DELETE", f"{PODS}/st", {"gracePeriodSeconds": 0}, pick="kind"),
    ],
    "pods that break the baseline are forbidden": [
        Step(
            "POST", PODS, pod("bad", containers=[{"name": "c", "image": "i", "securityContext": {"privileged": True}}])
        ),
        Step("POST", PODS, pod("bad", hostNetwork=True)),
        Step("POST", PODS, pod("bad", hostPID=True, volumes=[{"name": "v", "hostPath": {"path": "/"}}])),
        Step(
            "POST",
            PODS,
            pod(
                "bad",
                containers=[
                    {"name": "c", "image": "i", "securityContext": {"capabilities": {"add": ["SYS_ADMIN", "NET_RAW"]}}},
                    {"name": "d", "image": "i", "ports": [{"containerPort": 1, "hostPort": 1}]},
                ],
            ),
        ),
        Step("POST", PODS, pod("bad", serviceAccountName="nobody")),
        Step("POST", "/api/v1/namespaces/kube-system/pods", pod("good", hostNetwork=True), pick="spec.hostNetwork"),
    ],
    "a namespace goes with what is in it": [
        Step("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}),
        Step("GET", "/api/v1/namespaces/team/serviceaccounts/default", until=True),
        Step("GET", "/api/v1/namespaces/team/configmaps/kube-root-ca.crt", until=True, pick="kind"),
        Step(
            "POST",
            "/api/v1/namespaces/team/configmaps",
            with_metadata(config_map("held"), finalizers=["lab.example/hold"]),
        ),
        Step("DELETE", "/api/v1/namespaces/team", pick="status.phase"),
        Step("POST", "/api/v1/namespaces/team/configmaps", config_map("late")),
        Step("DELETE", "/api/v1/namespaces/team", pick="status.phase"),
        Step("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}),
        Step(
            "PATCH", "/api/v1/namespaces/team/configmaps/held", {"metadata": {"finalizers": None}}, MERGE, pick="kind"
        ),
        Step("GET", "/api/v1/namespaces/team", until=False),
        Step("DELETE", "/api/v1/namespaces/default"),
        Step("DELETE", "/api/v1/namespaces/kube-system"),
    ],
    "signers refuse what is not theirs": [
        Step("POST", CSRS, request("as-admin")),
        Step("GET", f"{CSRS}/as-admin", pick="status"),
        Step(
            "PUT", f"{CSRS}/as-admin/approval", {**request("as-admin"), "status": {"conditions": [condition("Denied")]}}
        ),
        Step(
            "PATCH",
            f"{CSRS}/as-admin/approval",
            {"status": {"conditions": [condition("Denied")]}},
            MERGE,
            pick="status.conditions.0.type",
        ),
        Step("PATCH", f"{CSRS}/as-admin/approval", {"status": {"conditions": [condition("Approved")]}}, MERGE),
        Step("POST", CSRS, request("nameless", names=False), pick="kind"),
        Step("GET", f"{CSRS}/nameless", pick="spec.signerName"),
        Step("POST", CSRS, request("no-usages", usages=[])),
        Step("POST", CSRS, request("odd-usage", usages=["nonsense"])),
        Step("POST", CSRS, request("no-signer", signerName="")),
        Step("POST", CSRS, request("odd-signer", signerName="nonsense")),
        Step("POST", CSRS, request("no-request", request=base64.b64encode(b"x").decode())),
        Step("POST", CSRS, request("short", expirationSeconds=60)),
        Step("POST", CSRS, request("by-node"), user=WORKER),
        Step("POST", CSRS, request("by-own-node", "worker-1"), user=WORKER),
    ],
    "a node may touch what is its own": [
        Step("PATCH", "/api/v1/nodes/cp-1", {"metadata": {"labels": {"x": "y"}}}, MERGE, user=WORKER),
        Step(
            "PATCH",
            "/api/v1/nodes/worker-1",
            {"metadata": {"labels": {"node-role.kubernetes.io/x": ""}}},
            MERGE,
            user=WORKER,
        ),
        Step(
            "PATCH",
            "/api/v1/nodes/worker-1",
            {"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}},
            MERGE,
            user=WORKER,
        ),
        Step(
            "GET",
            "/api/v1/namespaces/kube-system/secrets/bootstrap-token-x",
            user=WORKER,
        ),
    ],
    "who has no role is denied": [
        Step("GET", MAPS, user=("ann",)),
        Step("POST", MAPS, config_map("x"), user=("ann",)),
        Step("GET", "/api/v1/nodes", user=("ann", "team")),
        Step("GET", f"{MAPS}/x", user=("ann",)),
        Step("PATCH", f"{DEPLOYMENTS}/x/scale", {"spec": {"replicas": 1}}, MERGE, user=("ann",)),
        Step("GET", "/version", user=("ann",), pick="minor"),
        Step("GET", "/metrics", user=("ann",)),
        Step("DELETE", MAPS, user=("ann",)),
        Step("GET", "/api/v1/secrets", query={"watch": "true"}, user=("ann",)),
    ],
    "a role lets in as far as it goes": [
        Step(
            "POST",
            "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles",
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "Role",
                "metadata": {"name": "reader"},
                "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}],
            },
        ),
        Step(
            "POST",
            "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings",
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": {"name": "reads"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
                "subjects": [{"kind": "User", "name": "bob"}],
            },
        ),
        Step("GET", f"{MAPS}/missing", user=("bob",), until=False),
        Step("GET", "/api/v1/namespaces/kube-system/configmaps", user=("bob",)),
        Step("DELETE", f"{MAPS}/missing", user=("bob",)),
        Step(
            "POST",
            f"{REVIEWS}/selfsubjectaccessreviews",
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": {"verb": "get", "resource": "configmaps", "namespace": "default"}},
            },
            user=("bob",),
            pick="status.allowed",
        ),
        Step(
            "POST",
            f"{REVIEWS}/subjectaccessreviews",
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SubjectAccessReview",
                "spec": {"user": "bob", "resourceAttributes": {"verb": "delete", "resource": "pods"}},
            },
            pick="status.allowed",
        ),
        Step(
            "PATCH",
            "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings/reads",
            {"roleRef": {"name": "other"}},
            MERGE,
        ),
        Step(
            "POST",
            "/apis/authentication.k8s.io/v1/selfsubjectreviews",
            {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"},
            user=("bob", "team"),
            pick="status.userInfo.groups",
        ),
    ],
    "custom resources have their schema": [
        Step("POST", LAMPS, lamp("early", watts=1)),
        Step("POST", CRDS, LAMP_CRD, pick="spec"),
        Step("GET", "/apis/example.org/v1", until=True),
        Step("POST", LAMPS, lamp("one", watts=5), until=True),
        Step("POST", LAMPS, lamp("two")),
        Step("POST", LAMPS, lamp("two", watts=500)),
        Step("POST", LAMPS, lamp("two", watts="5")),
        Step("POST", LAMPS, lamp("two", watts=5, colour="blue")),
        Step("POST", LAMPS, lamp("two", watts=5, nonsense=1), query=STRICT),
        Step("POST", LAMPS, lamp("two", watts=5, nonsense=1)),
        Step("PATCH", f"{LAMPS}/one", {"status": {"on": True}}, MERGE),
        Step("PATCH", f"{LAMPS}/one/status", {"status": {"on": True}, "spec": {"watts": 7}}, MERGE),
        Step("PATCH", f"{LAMPS}/one", {"spec": {"watts": 6}}, STRATEGIC),
        Step("PATCH", f"{LAMPS}/one", {"spec": {"watts": 6}}, MERGE, pick="metadata.generation"),
        Step("PATCH", f"{LAMPS}/one", lamp("one", rooms=[{"name": "a", "size": 1}]), APPLY, {"fieldManager": "one"}),
        Step("PATCH", f"{LAMPS}/one", lamp("one", rooms=[{"name": "b"}]), APPLY, {"fieldManager": "two"}),
        Step("PATCH", f"{LAMPS}/one", lamp("one", rooms=[{"name": "a", "size": 2}]), APPLY, {"fieldManager": "two"}),
        Step("GET", f"{LAMPS}/one/scale"),
        Step("PATCH", f"{LAMPS}/one/scale", {"spec": {"replicas": 3}}, MERGE),
        Step("GET", LAMPS, query={"fieldSelector": "metadata.name=one"}, pick="items.0.metadata.name"),
        Step("DELETE", f"{CRDS}/lamps.example.org", pick="kind"),
        Step("GET", LAMPS, until=False),
    ],
    "custom resources are defined well": [
        Step("POST", CRDS, with_metadata(LAMP_CRD, name="wrong.example.org")),
        Step("POST", CRDS, {**LAMP_CRD, "spec": {**LAMP_CRD["spec"], "versions": []}}),  # type: ignore[dict-item]
    ],
    "discovery tells of groups and resources": [
        Step("GET", "/api/v1", pick="groupVersion"),
        Step("GET", "/apis/apps", pick="preferredVersion"),
        Step("GET", "/api", pick="versions"),
        Step("GET", "/apis/apps/v1"),
        Step("GET", "/apis/batch/v1"),
        Step("GET", "/apis/certificates.k8s.io/v1"),
        Step("GET", "/apis/networking.k8s.io/v1"),
        Step("GET", "/apis/rbac.authorization.k8s.io/v1"),
        Step("GET", "/apis/apiextensions.k8s.io/v1"),
        Step("GET", "/apis/coordination.k8s.io/v1"),
        Step("GET", "/apis/storage.k8s.io/v1"),
        Step("GET", "/apis/policy/v1"),
    ],
}

CASES = OBJECTS | CLUSTER | REQUESTS
