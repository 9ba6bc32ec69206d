"""Every kind of difference between what a stand-in and a real chart render is named, and nothing else is."""

import copy
import json

import pytest
import yaml
from fluobook_lab.charts.diff import ABSENT, PRESENT, differences

OBJECTS = list(
    yaml.safe_load_all("""
kind: Deployment
apiVersion: apps/v1
metadata: {name: web, namespace: site, labels: {app: web, helm.sh/chart: demo-1}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web, tier: front, helm.sh/chart: demo-1}}
    spec:
      serviceAccountName: web
      containers:
        - name: main
          image: a:1
          ports:
            - {name: http, containerPort: 8080}
            - {name: gossip-tcp, containerPort: 94}
            - {name: gossip-udp, containerPort: 94, protocol: UDP}
          args: [--verbose]
          env: [{name: LEVEL, value: info}]
          volumeMounts: [{name: tls, mountPath: /tls}]
        - {name: side, image: b:1, livenessProbe: {httpGet: {path: /, port: 80}}}
      initContainers: [{name: first, image: a:1}, {name: second, image: a:1}]
      volumes: [{name: tls, secret: {secretName: web-tls}}]
---
kind: StatefulSet
apiVersion: apps/v1
metadata: {name: db}
spec:
  serviceName: db
  template: {metadata: {labels: {app: db}}, spec: {containers: [{name: main}]}}
  volumeClaimTemplates: [{metadata: {name: data}, spec: {resources: {requests: {storage: 1Gi}}}}]
---
kind: Service
apiVersion: v1
metadata: {name: web, labels: {app: web, unused: x}}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}, {name: same, port: 81}]}
---
kind: Job
apiVersion: batch/v1
metadata: {name: init, annotations: {helm.sh/hook: "pre-install", helm.sh/hook-weight: "1"}}
spec: {template: {spec: {containers: [{name: main}]}}}
---
kind: ValidatingWebhookConfiguration
apiVersion: admissionregistration.k8s.io/v1
metadata: {name: web}
webhooks:
  - name: a.example.org
    failurePolicy: Fail
    rules: [{apiGroups: [x], apiVersions: [v1], resources: [ys], operations: [CREATE]}]
    clientConfig: {service: {name: web, namespace: site, path: /validate}}
---
kind: CustomResourceDefinition
apiVersion: apiextensions.k8s.io/v1
metadata: {name: ys.x}
spec:
  group: x
  scope: Namespaced
  names: {kind: Y, plural: ys}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {size: {type: integer}}}}}}
---
kind: ServiceMonitor
apiVersion: monitoring.coreos.com/v1
metadata: {name: web}
spec: {selector: {matchLabels: {team: a}}, endpoints: [{port: http}]}
---
kind: Widget
apiVersion: example.org/v1
metadata: {name: w}
spec: {size: 1, tags: [a], parts: [{name: lid, of: glass}]}
---
kind: ClusterRole
apiVersion: rbac.authorization.k8s.io/v1
metadata: {name: web}
rules: [{apiGroups: [""], resources: [pods], verbs: [get, list]}]
---
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {name: web}
spec: {podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {}}]}]}
---
kind: ConfigMap
apiVersion: v1
metadata: {name: web}
data: {web.conf: "listen 80"}
---
kind: Secret
apiVersion: v1
metadata: {name: web}
stringData: {password: a}
""")
)


def named(change):
    real = copy.deepcopy(OBJECTS)
    change({obj["kind"]: obj for obj in real}, real)
    return [(d.object, d.path, d.standin, d.real) for d in differences("app", OBJECTS, real, "site")]


def pod(objects):
    return objects["Deployment"]["spec"]["template"]["spec"]


def container(objects):
    return pod(objects)["containers"][0]


def of_service(objects):
    return objects["Service"]["spec"]


def definition(objects):
    return objects["CustomResourceDefinition"]["spec"]


def schema(objects):
    return definition(objects)["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]


def webhook(objects):
    return objects["ValidatingWebhookConfiguration"]["webhooks"][0]


WEB, SERVICE, DEFINITION = "Deployment site/web", "Service site/web", "CustomResourceDefinition ys.x"
HOOKS, DB, WIDGET = "ValidatingWebhookConfiguration web", "StatefulSet site/db", "Widget site/w"
POD = "spec.template.spec"
MAIN, SIDE = f"{POD}.containers[main]", f"{POD}.containers[side]"
SCHEMA = "spec.versions[v1].schema.openAPIV3Schema.properties.spec"
CLAIM = "spec.volumeClaimTemplates"
PORT = {"name": "http", "containerPort": 8080, "protocol": "TCP"}
TOLERATION = {"key": "x", "operator": "Exists"}
AFFINITY = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{}]}}}
RULE = '[{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]'
HOOK_RULE = '{"apiGroups": ["x"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["ys"], "scope": "*"}'
CHANGES = {
    "replicas": (WEB, lambda o: o["Deployment"]["spec"].update(replicas=3), {"spec.replicas": (2, 3)}),
    "account": (WEB, lambda o: pod(o).update(serviceAccountName="x"), {f"{POD}.serviceAccountName": ("web", "x")}),
    "network": (WEB, lambda o: pod(o).update(hostNetwork=True), {f"{POD}.hostNetwork": ("absent", True)}),
    "pod label": (
        WEB,
        lambda o: o["Deployment"]["spec"]["template"]["metadata"]["labels"].update(tier="back"),
        {"spec.template.metadata.labels.tier": ("front", "back")},
    ),
    "port number": (
        WEB,
        lambda o: container(o)["ports"][0].update(containerPort=9090),
        {
            f"{MAIN}.ports[8080/TCP]": (PORT, "absent"),
            f"{MAIN}.ports[9090/TCP]": ("absent", {**PORT, "containerPort": 9090}),
        },
    ),
    "port name": (
        WEB,
        lambda o: container(o)["ports"][2].update(name="gossip"),
        {f"{MAIN}.ports[94/UDP].name": ("gossip-udp", "gossip")},
    ),
    "image": (WEB, lambda o: container(o).update(image="a:2"), {f"{MAIN}.image": ("a:1", "a:2")}),
    "arguments": (
        WEB,
        lambda o: container(o)["args"].append("--x"),
        {f"{MAIN}.args": (["--verbose"], ["--verbose", "--x"])},
    ),
    "command": (WEB, lambda o: container(o).update(command=["/x"]), {f"{MAIN}.command": ("absent", ["/x"])}),
    "environment": (
        WEB,
        lambda o: container(o)["env"][0].update(value="debug"),
        {f"{MAIN}.env[LEVEL].value": ("info", "debug")},
    ),
    "resources": (
        WEB,
        lambda o: container(o).update(resources={"limits": {"memory": "1Gi"}}),
        {f"{MAIN}.resources.limits": ("absent", {"memory": "1Gi"})},
    ),
    "place of a volume": (
        WEB,
        lambda o: container(o)["volumeMounts"][0].update(readOnly=True),
        {f"{MAIN}.volumeMounts[/tls].readOnly": ("absent", True)},
    ),
    "port of a probe": (
        WEB,
        lambda o: pod(o)["containers"][1]["livenessProbe"]["httpGet"].update(port=99),
        {f"{SIDE}.livenessProbe.httpGet.port": (80, 99)},
    ),
    "patience of a probe": (
        WEB,
        lambda o: pod(o)["containers"][1]["livenessProbe"].update(failureThreshold=30),
        {f"{SIDE}.livenessProbe.failureThreshold": (3, 30)},
    ),
    "order of init containers": (
        WEB,
        lambda o: pod(o)["initContainers"].reverse(),
        {f"{POD}.initContainers (order)": (["[first]", "[second]"], ["[second]", "[first]"])},
    ),
    "order of containers": (
        WEB,
        lambda o: pod(o)["containers"].reverse(),
        {f"{POD}.containers (order)": (["[main]", "[side]"], ["[side]", "[main]"])},
    ),
    "order of elements beside another difference": (
        SERVICE,
        lambda o: (of_service(o)["ports"].reverse(), of_service(o)["ports"][0].update(appProtocol="h2c")),
        {
            "spec.ports (order)": (["[80/TCP]", "[81/TCP]"], ["[81/TCP]", "[80/TCP]"]),
            "spec.ports[81/TCP].appProtocol": ("absent", "h2c"),
        },
    ),
    "label with an empty value": (
        WEB,
        lambda o: o["Deployment"]["spec"]["template"]["metadata"]["labels"].update(empty=""),
        {"spec.template.metadata.labels.empty": ("absent", "")},
    ),
    "key with an empty value": (
        "ConfigMap site/web",
        lambda o: o["ConfigMap"]["data"].update(devices=""),
        {"data.devices": ("absent", "")},
    ),
    "no storage class": (
        DB,
        lambda o: o["StatefulSet"]["spec"]["volumeClaimTemplates"][0]["spec"].update(storageClassName=""),
        {f"{CLAIM}[data].spec.storageClassName": ("absent", "")},
    ),
    "empty list in a kind without a schema": (
        WIDGET,
        lambda o: o["Widget"]["spec"].update(owners=[]),
        {"spec.owners": ("absent", [])},
    ),
    "affinity": (WEB, lambda o: pod(o).update(affinity=AFFINITY), {f"{POD}.affinity": None}),
    "toleration": (WEB, lambda o: pod(o).update(tolerations=[TOLERATION]), {f"{POD}.tolerations": None}),
    "spread": (
        WEB,
        lambda o: pod(o).update(topologySpreadConstraints=[{"topologyKey": "zone", "maxSkew": 1}]),
        {f"{POD}.topologySpreadConstraints": None},
    ),
    "grace period": (
        WEB,
        lambda o: pod(o).update(terminationGracePeriodSeconds=0),
        {f"{POD}.terminationGracePeriodSeconds": (30, 0)},
    ),
    "strategy": (
        WEB,
        lambda o: o["Deployment"]["spec"].update(strategy={"type": "Recreate"}),
        {"spec.strategy.type": ("RollingUpdate", "Recreate"), "spec.strategy.rollingUpdate": None},
    ),
    "annotation of a pod": (
        WEB,
        lambda o: o["Deployment"]["spec"]["template"]["metadata"].update(annotations={"a": "b"}),
        {"spec.template.metadata.annotations.a": ("absent", "b")},
    ),
    "secret of a volume": (
        WEB,
        lambda o: pod(o)["volumes"][0]["secret"].update(secretName="other"),
        {f"{POD}.volumes[tls].secret.secretName": ("web-tls", "other")},
    ),
    "type of a volume": (
        WEB,
        lambda o: pod(o).update(volumes=[{"name": "tls", "emptyDir": {}}]),
        {f"{POD}.volumes[tls].emptyDir": ("absent", {}), f"{POD}.volumes[tls].secret": None},
    ),
    "claim": (
        DB,
        lambda o: o["StatefulSet"]["spec"]["volumeClaimTemplates"][0]["metadata"].update(name="store"),
        {f"{CLAIM}[data]": None, f"{CLAIM}[store]": None},
    ),
    "version of an API": (
        DB,
        lambda o: o["StatefulSet"].update(apiVersion="apps/v1beta1"),
        {"apiVersion": ("apps/v1", "apps/v1beta1")},
    ),
    "target port": (
        SERVICE,
        lambda o: of_service(o)["ports"][0].update(targetPort=8080),
        {"spec.ports[80/TCP].targetPort": ("http", 8080)},
    ),
    "protocol of an application": (
        SERVICE,
        lambda o: of_service(o)["ports"][0].update(appProtocol="h2c"),
        {"spec.ports[80/TCP].appProtocol": ("absent", "h2c")},
    ),
    "source ranges": (
        SERVICE,
        lambda o: of_service(o).update(loadBalancerSourceRanges=["10.0.0.0/8"]),
        {"spec.loadBalancerSourceRanges": ("absent", ["10.0.0.0/8"])},
    ),
    "label that a monitor selects": (
        SERVICE,
        lambda o: o["Service"]["metadata"]["labels"].update(team="a"),
        {"metadata.labels.team": ("absent", "a")},
    ),
    "label that nothing selects": (
        SERVICE,
        lambda o: o["Service"]["metadata"]["labels"].update(unused="y"),
        {"metadata.labels.unused": ("x", "y")},
    ),
    "hook": (
        "Job site/init",
        lambda o: o["Job"]["metadata"]["annotations"].update({"helm.sh/hook": "post-install"}),
        {"metadata.annotations.helm.sh/hook": ("pre-install", "post-install")},
    ),
    "deadline of a hook": (
        "Job site/init",
        lambda o: o["Job"]["spec"].update(activeDeadlineSeconds=60),
        {"spec.activeDeadlineSeconds": ("absent", 60)},
    ),
    "failure policy": (
        HOOKS,
        lambda o: webhook(o).update(failurePolicy="Ignore"),
        {"webhooks[a.example.org].failurePolicy": ("Fail", "Ignore")},
    ),
    "service of a webhook": (
        HOOKS,
        lambda o: webhook(o)["clientConfig"]["service"].update(path="/x"),
        {"webhooks[a.example.org].clientConfig.service.path": ("/validate", "/x")},
    ),
    "timeout of a webhook": (
        HOOKS,
        lambda o: webhook(o).update(timeoutSeconds=30),
        {"webhooks[a.example.org].timeoutSeconds": (10, 30)},
    ),
    "what outlives a deletion": (
        DEFINITION,
        lambda o: o["CustomResourceDefinition"]["metadata"].update(annotations={"helm.sh/resource-policy": "keep"}),
        {"metadata.annotations.helm.sh/resource-policy": ("absent", "keep")},
    ),
    "status of a definition": (
        DEFINITION,
        lambda o: definition(o)["versions"][0].update(subresources={"status": {}}),
        {"spec.versions[v1].subresources": ("absent", {"status": {}})},
    ),
    "scope of a definition": (
        DEFINITION,
        lambda o: definition(o).update(scope="Cluster"),
        {"spec.scope": ("Namespaced", "Cluster")},
    ),
    "version of a definition": (
        DEFINITION,
        lambda o: definition(o)["versions"][0].update(served=False),
        {"spec.versions[v1].served": (True, False)},
    ),
    "field in a schema": (
        DEFINITION,
        lambda o: schema(o)["properties"].update(chart={"type": "string"}),
        {f"{SCHEMA}.properties.chart": ("absent", {"type": "string"})},
    ),
    "type in a schema": (
        DEFINITION,
        lambda o: schema(o)["properties"]["size"].update(type="string"),
        {f"{SCHEMA}.properties.size.type": ("integer", "string")},
    ),
    "rule in a schema": (
        DEFINITION,
        lambda o: schema(o)["properties"]["size"].update(maximum=3),
        {f"{SCHEMA}.properties.size.maximum": ("absent", 3)},
    ),
    "required field": (
        DEFINITION,
        lambda o: schema(o).update(required=["size"]),
        {f"{SCHEMA}.required": ("absent", ["size"])},
    ),
    "column": (
        DEFINITION,
        lambda o: definition(o)["versions"][0].update(additionalPrinterColumns=[{"name": "Size", "jsonPath": ".x"}]),
        {"spec.versions[v1].additionalPrinterColumns": None},
    ),
    "path of a monitor": (
        "ServiceMonitor site/web",
        lambda o: o["ServiceMonitor"]["spec"]["endpoints"][0].update(path="/stats"),
        {"spec.endpoints[http].path": ("absent", "/stats")},
    ),
    "field of a kind without a schema": (
        WIDGET,
        lambda o: o["Widget"]["spec"].update(size=2),
        {"spec.size": (1, 2)},
    ),
    "false in a kind without a schema": (
        WIDGET,
        lambda o: o["Widget"]["spec"].update(enabled=False),
        {"spec.enabled": ("absent", False)},
    ),
    "order in a kind without a schema": (
        WIDGET,
        lambda o: o["Widget"]["spec"].update(tags=["b", "a"]),
        {"spec.tags": (["a"], ["b", "a"])},
    ),
    "element in a kind without a schema": (
        WIDGET,
        lambda o: o["Widget"]["spec"]["parts"][0].update(of="steel"),
        {"spec.parts[lid].of": ("glass", "steel")},
    ),
    "right": (
        "ClusterRole web",
        lambda o: o["ClusterRole"]["rules"][0]["verbs"].append("delete"),
        {f"rules{RULE}": None, f'rules{RULE[:-3]}, "delete"]}}]': None},
    ),
    "reach of a policy": (
        "NetworkPolicy site/web",
        lambda o: o["NetworkPolicy"]["spec"].pop("ingress"),
        {"spec.ingress": None},
    ),
    "peer of a policy": (
        "NetworkPolicy site/web",
        lambda o: o["NetworkPolicy"]["spec"]["ingress"][0].update({"from": [{"namespaceSelector": {}}]}),
        {
            'spec.ingress[{"from": [{"podSelector": {}}]}]': None,
            'spec.ingress[{"from": [{"namespaceSelector": {}}]}]': None,
        },
    ),
    "configuration": (
        "ConfigMap site/web",
        lambda o: o["ConfigMap"]["data"].update({"web.conf": "listen 81"}),
        {"data.web.conf": ("listen 80", "listen 81")},
    ),
    "finalizer": (
        "ConfigMap site/web",
        lambda o: o["ConfigMap"]["metadata"].update(finalizers=["example.org/keep"]),
        {"metadata.finalizers": ("absent", ["example.org/keep"])},
    ),
    "second element with the same content": (
        HOOKS,
        lambda o: webhook(o)["rules"].append(dict(webhook(o)["rules"][0])),
        {f"webhooks[a.example.org].rules[{HOOK_RULE} 2]": ("absent", json.loads(HOOK_RULE))},
    ),
    "key of a secret": (
        "Secret site/web",
        lambda o: o["Secret"]["stringData"].update(token="b"),
        {"data.token": ("absent", "present")},
    ),
}
OBJECT_CHANGES = {
    "an object": (lambda real: real.pop(2), {(SERVICE, "", PRESENT, ABSENT)}),
    "another object": (
        lambda real: real.append({"kind": "ConfigMap", "metadata": {"name": "x"}}),
        {("ConfigMap site/x", "", ABSENT, PRESENT)},
    ),
    "another namespace": (
        lambda real: real[2]["metadata"].update(namespace="elsewhere"),
        {(SERVICE, "", PRESENT, ABSENT), ("Service elsewhere/web", "", ABSENT, PRESENT)},
    ),
    "a hook with a generated name": (
        lambda real: real.append({"kind": "Job", "metadata": {"generateName": "init-"}}),
        {("Job site/init-*", "", ABSENT, PRESENT)},
    ),
}
SAME = {
    "nothing": lambda _, __: None,
    "the chart's own labels": lambda o, _: o["Deployment"]["spec"]["template"]["metadata"]["labels"].update(
        {"helm.sh/chart": "demo-2", "app.kubernetes.io/managed-by": "Helm"}
    ),
    "a digest of the configuration": lambda o, _: o["Deployment"]["spec"]["template"]["metadata"].update(
        annotations={"checksum/config": "1f"}
    ),
    "a default, written out": lambda o, _: of_service(o)["ports"][1].update(targetPort=81, protocol="TCP"),
    "a default of a pod": lambda o, _: pod(o).update(
        hostNetwork=False, terminationGracePeriodSeconds=30, tolerations=[], nodeName=""
    ),
    "a default of a webhook": lambda o, _: webhook(o).update(timeoutSeconds=10, matchPolicy="Equivalent"),
    "a name of a definition that is derived": lambda o, _: definition(o)["names"].update(
        singular="y", listKind="YList"
    ),
    "the namespace, written out": lambda o, _: o["StatefulSet"]["metadata"].update(namespace="site"),
    "another order of objects": lambda _, real: real.reverse(),
    "the value of a secret": lambda o, _: o["Secret"]["stringData"].update(password="b"),
}


@pytest.mark.parametrize(("name", "change", "expected"), CHANGES.values(), ids=CHANGES)
def test_a_difference_is_named_with_both_values(name, change, expected):
    found = named(lambda objects, _: change(objects))
    assert {(obj, path) for obj, path, *_ in found} == {(name, path) for path in expected}
    for _, path, *values in found:
        assert expected[path] in (None, tuple(values))
        assert values[0] != values[1]


@pytest.mark.parametrize(("change", "expected"), OBJECT_CHANGES.values(), ids=OBJECT_CHANGES)
def test_an_object_on_one_side_is_named(change, expected):
    found = named(lambda _, real: change(real))
    assert {
        (name, path, *(str(value).partition(",")[0] for value in values)) for name, path, *values in found
    } == expected


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_what_makes_no_difference_to_the_platform_is_not_named(change):
    assert named(change) == []


def test_the_content_of_an_object_that_only_one_side_has_is_told_apart():
    def real(data):
        extra = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "x"}, "data": {"a": data}}
        (difference,) = differences("app", [], [extra], "site")
        return difference.real

    assert real("1") == real("1")
    assert real("1") != real("2")


def test_no_value_of_a_secret_is_shown():
    plain = [{"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "x"}, "stringData": {"password": "hunter2"}}]
    assert "hunter2" not in str(differences("app", plain, [], "site")) + str(differences("app", [], plain, "site"))
