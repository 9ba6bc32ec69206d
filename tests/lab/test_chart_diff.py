"""Every kind of difference between what a stand-in and a real chart render is named, and nothing else is."""

import copy

import pytest
import yaml
from fluobook_lab.charts.diff import differences

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
        - {name: side, image: b:1}
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
spec: {group: x, scope: Namespaced, names: {kind: Y, plural: ys}, versions: [{name: v1, served: true, storage: true}]}
---
kind: ServiceMonitor
apiVersion: monitoring.coreos.com/v1
metadata: {name: web}
spec: {selector: {matchLabels: {team: a}}, endpoints: [{port: http}]}
---
kind: Widget
metadata: {name: w}
spec: 1
""")
)


def named(change):
    real = copy.deepcopy(OBJECTS)
    change({obj["kind"]: obj for obj in real}, real)
    return [(d.object, d.path, d.standin, d.real) for d in differences("app", OBJECTS, real, "site")]


def pod(objects):
    return objects["Deployment"]["spec"]["template"]["spec"]


WEB = "Deployment site/web"
TEMPLATE = "spec.template.spec"
PORTS = f"{TEMPLATE}.containers[main].ports"
CHANGES = {
    "replicas": (lambda o, _: o["Deployment"]["spec"].update(replicas=3), {(WEB, "spec.replicas", 2, 3)}),
    "account": (
        lambda o, _: pod(o).update(serviceAccountName="other"),
        {(WEB, f"{TEMPLATE}.serviceAccountName", "web", "other")},
    ),
    "network": (lambda o, _: pod(o).update(hostNetwork=True), {(WEB, f"{TEMPLATE}.hostNetwork", False, True)}),
    "pod label": (
        lambda o, _: o["Deployment"]["spec"]["template"]["metadata"]["labels"].update(tier="back"),
        {(WEB, "spec.template.metadata.labels.tier", "front", "back")},
    ),
    "port number": (
        lambda o, _: pod(o)["containers"][0]["ports"][0].update(containerPort=9090),
        {
            (WEB, f"{PORTS}[8080/TCP]", "present", "absent"),
            (WEB, f"{PORTS}[8080/TCP].containerPort", 8080, "absent"),
            (WEB, f"{PORTS}[8080/TCP].name", "http", "absent"),
            (WEB, f"{PORTS}[8080/TCP].protocol", "TCP", "absent"),
            (WEB, f"{PORTS}[9090/TCP]", "absent", "present"),
            (WEB, f"{PORTS}[9090/TCP].containerPort", "absent", 9090),
            (WEB, f"{PORTS}[9090/TCP].name", "absent", "http"),
            (WEB, f"{PORTS}[9090/TCP].protocol", "absent", "TCP"),
        },
    ),
    "port name": (
        lambda o, _: pod(o)["containers"][0]["ports"][2].update(name="gossip"),
        {(WEB, f"{PORTS}[94/UDP].name", "gossip-udp", "gossip")},
    ),
    "secret of a volume": (
        lambda o, _: pod(o)["volumes"][0]["secret"].update(secretName="other"),
        {(WEB, f"{TEMPLATE}.volumes[tls].secret.secretName", "web-tls", "other")},
    ),
    "claim": (
        lambda o, _: o["StatefulSet"]["spec"]["volumeClaimTemplates"][0]["metadata"].update(name="store"),
        {
            ("StatefulSet site/db", f"spec.volumeClaimTemplates[{name}]{path}", *values)
            for name, values in (("data", ("1Gi", "absent")), ("store", ("absent", "1Gi")))
            for path in (".spec.resources.requests.storage",)
        }
        | {
            ("StatefulSet site/db", "spec.volumeClaimTemplates[data]", "present", "absent"),
            ("StatefulSet site/db", "spec.volumeClaimTemplates[store]", "absent", "present"),
        },
    ),
    "target port": (
        lambda o, _: o["Service"]["spec"]["ports"][0].update(targetPort=8080),
        {("Service site/web", "spec.ports[80/TCP].targetPort", "http", 8080)},
    ),
    "label that a monitor selects": (
        lambda o, _: o["Service"]["metadata"]["labels"].update(team="a"),
        {("Service site/web", "metadata.labels.team", "absent", "a")},
    ),
    "label that nothing selects": (
        lambda o, _: o["Service"]["metadata"]["labels"].update(unused="y"),
        {("Service site/web", "metadata.labels.unused", "x", "y")},
    ),
    "version of an API": (
        lambda o, _: o["StatefulSet"].update(apiVersion="apps/v1beta1"),
        {("StatefulSet site/db", "apiVersion", "apps/v1", "apps/v1beta1")},
    ),
    "what outlives a deletion": (
        lambda o, _: o["CustomResourceDefinition"]["metadata"].update(annotations={"helm.sh/resource-policy": "keep"}),
        {("CustomResourceDefinition ys.x", "metadata.annotations.helm.sh/resource-policy", "absent", "keep")},
    ),
    "status of a definition": (
        lambda o, _: o["CustomResourceDefinition"]["spec"]["versions"][0].update(subresources={"status": {}}),
        {("CustomResourceDefinition ys.x", "spec.versions[v1].subresources.status", "absent", "present")},
    ),
    "port of a probe": (
        lambda o, _: pod(o)["containers"][1].update(livenessProbe={"httpGet": {"port": 99}}),
        {(WEB, f"{TEMPLATE}.containers[side].livenessProbe.httpGet.port", "absent", 99)},
    ),
    "protocol of an application": (
        lambda o, _: o["Service"]["spec"]["ports"][0].update(appProtocol="h2c"),
        {("Service site/web", "spec.ports[80/TCP].appProtocol", "absent", "h2c")},
    ),
    "field of a kind without a table": (
        lambda _, real: real[-1].update(spec=2),
        {("Widget site/w", "spec", 1, 2)},
    ),
    "hook with a generated name": (
        lambda _, real: real.append({"kind": "Job", "metadata": {"generateName": "init-"}}),
        {("Job site/init-*", "", "absent", "present")},
    ),
    "hook": (
        lambda o, _: o["Job"]["metadata"]["annotations"].update({"helm.sh/hook": "post-install"}),
        {("Job site/init", "metadata.annotations.helm.sh/hook", "pre-install", "post-install")},
    ),
    "failure policy": (
        lambda o, _: o["ValidatingWebhookConfiguration"]["webhooks"][0].update(failurePolicy="Ignore"),
        {("ValidatingWebhookConfiguration web", "webhooks[a.example.org].failurePolicy", "Fail", "Ignore")},
    ),
    "service of a webhook": (
        lambda o, _: o["ValidatingWebhookConfiguration"]["webhooks"][0]["clientConfig"]["service"].update(path="/x"),
        {
            (
                "ValidatingWebhookConfiguration web",
                "webhooks[a.example.org].clientConfig.service.path",
                "/validate",
                "/x",
            )
        },
    ),
    "scope of a definition": (
        lambda o, _: o["CustomResourceDefinition"]["spec"].update(scope="Cluster"),
        {("CustomResourceDefinition ys.x", "spec.scope", "Namespaced", "Cluster")},
    ),
    "version of a definition": (
        lambda o, _: o["CustomResourceDefinition"]["spec"]["versions"][0].update(served=False),
        {("CustomResourceDefinition ys.x", "spec.versions[v1].served", True, False)},
    ),
    "object": (lambda _, real: real.pop(2), {("Service site/web", "", "present", "absent")}),
    "another object": (
        lambda _, real: real.append({"kind": "ConfigMap", "metadata": {"name": "x"}}),
        {("ConfigMap site/x", "", "absent", "present")},
    ),
    "another namespace": (
        lambda o, _: o["Service"]["metadata"].update(namespace="elsewhere"),
        {("Service site/web", "", "present", "absent"), ("Service elsewhere/web", "", "absent", "present")},
    ),
}
SAME = {
    "nothing": lambda _, __: None,
    "the chart's own labels": lambda o, _: o["Deployment"]["spec"]["template"]["metadata"]["labels"].update(
        {"helm.sh/chart": "demo-2", "app.kubernetes.io/managed-by": "Helm"}
    ),
    "an image": lambda o, _: pod(o)["containers"][0].update(image="a:2"),
    "a default, written out": lambda o, _: o["Service"]["spec"]["ports"][1].update(targetPort=81, protocol="TCP"),
    "the namespace, written out": lambda o, _: o["StatefulSet"]["metadata"].update(namespace="site"),
    "another order": lambda o, real: (pod(o)["containers"].reverse(), real.reverse()),
}


@pytest.mark.parametrize(("change", "expected"), CHANGES.values(), ids=CHANGES)
def test_a_difference_is_named_with_both_values(change, expected):
    assert set(named(change)) == expected


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_what_makes_no_difference_to_the_platform_is_not_named(change):
    assert named(change) == []


def test_a_changed_endpoint_of_a_monitor_is_named():
    changed = named(lambda o, _: o["ServiceMonitor"]["spec"]["endpoints"][0].update(path="/stats"))
    assert ("ServiceMonitor site/web", "spec.endpoints[http//stats]", "absent", "present") in changed
    assert ("ServiceMonitor site/web", "spec.endpoints[http//metrics]", "present", "absent") in changed
