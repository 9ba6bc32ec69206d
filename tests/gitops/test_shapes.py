"""Files that an operator writes have the shape that rules read: one finding says what is there and what may be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from fluobook.gitops.check import RULES, all_findings, findings
from fluobook.gitops.schemas import checked

REPOSITORY = Path(__file__).resolve().parents[2]
POD = "{namespace: shop, labels: {app: shop}, ports: [8080]}"
PROGRAM = "{target: [job], metrics: {orders: {labels: [state]}}}"
RULE = "apiVersion: operator.victoriametrics.com/v1beta1\nkind: VMRule\nmetadata: {name: x, namespace: shop}\n"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("reachability.yaml", f"pods: {{shop: {POD}}}\nopen: [{{from: a, to: [b], ports: [53/UDP], why: x}}]", ""),
        ("reachability.yaml", "pods: {shop: 5}", "pods.shop is 5, not a mapping; write {namespace: shop"),
        ("reachability.yaml", "pods: [shop]", "pods is […], not a mapping; a pod by its name"),
        ("reachability.yaml", "pods:", "pods is null, not a mapping"),
        (
            "reachability.yaml",
            f"pods: {{shop: {POD.replace('8080', '70000')}}}",
            "pods.shop.ports.0 is 70000, more than 65535",
        ),
        (
            "reachability.yaml",
            f"pods: {{shop: {POD.replace('8080', '70000/TCP')}}}",
            "ports.0 is '70000/TCP'; a port is 8080 or 53/UDP",
        ),
        (
            "reachability.yaml",
            f"pods: {{shop: {POD.replace('8080', '80/tcp')}}}",
            "a port is 8080 or 53/UDP, at most 65535",
        ),
        (
            "reachability.yaml",
            "pods: {shop: {namespace: shop}}",
            "pods.shop has no labels and no ports; write {namespace: shop",
        ),
        ("reachability.yaml", "open: [{from: a, to: b, too: b, why: x}]", "open.0.too is unknown; did you mean 'to'?"),
        ("reachability.yaml", "open: [{from: a, to: b, why: the LAN, and more}]", "open.0.and more is unknown"),
        (
            "reachability.yaml",
            f"pods: {{shop: {POD.replace('[8080]', '{http: 70000}')}}}",
            "pods.shop.ports.http is 70000, more than 65535",
        ),
        ("metrics.yaml", f"programs: {{shop: {PROGRAM}}}", ""),
        ("metrics.yaml", "programs: [1, 2]", "programs is […], not a mapping"),
        ("metrics.yaml", "{}", "it has no programs"),
        ("metrics.yaml", "programs: {shop: {metrics: {}}}", "programs.shop has no target; write {target: [job"),
        (
            "metrics.yaml",
            "programs: {shop: {target: [job], metrics: [a]}}",
            "programs.shop.metrics is […], not a mapping",
        ),
        ("metrics.yaml", "programs: {shop: {target: [job], metrics: {a: {labels: b}}}}", "a.labels is 'b', not a list"),
        ("kustomization.yaml", "resources: a.yaml", "resources is 'a.yaml', not a list"),
        ("kustomization.yaml", "resources: [5]", "resources.0 is 5, not a text"),
        ("kustomization.yaml", "patches: [x]", "patches.0 is 'x', not a mapping"),
        ("kustomization.yaml", "labels: [x]", "labels.0 is 'x', not a mapping"),
        ("kustomization.yaml", "images: x", "images is 'x', not a list"),
        (
            "kustomization.yaml",
            "configMapGenerator: [{files: a.json}]",
            "configMapGenerator.0.files is 'a.json', not a list",
        ),
        (".sops.yaml", "creation_rules: 5", "creation_rules is 5, not a list"),
        (".sops.yaml", "creation_rules: [{age: 5}]", "creation_rules.0.age is 5, not a text or a list"),
        ("x.yaml", "apiVersion: viaduct.ai/v1\nkind: ksops\nfiles: a", "files is 'a', not a list"),
        ("x.yaml", "apiVersion: a.b/v1\nkind: Own\nmetadata: {labels: {a: 5}}", "metadata.labels.a is 5, not a text"),
        ("x.yaml", RULE + "spec: {groups: [{name: a, rules: [{alert: A, expr: 5}]}]}", "rules.0.expr is 5, not a text"),
        (
            "x.yaml",
            RULE + "spec: {groups: [{name: a, rules: [{alert: A, annotation: {}}]}]}",
            "annotation is unknown; did you mean 'annotations'?",
        ),
        ("x.yaml", RULE + "spec: {groups: [{name: a}]}", "spec.groups.0 has no rules"),
        ("x.yaml", RULE + "spec: {groups: {a: 1}}", "spec.groups is {…}, not a list"),
        (
            "x.yaml",
            "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\nstringData: {pin: 4711}",
            "pin is a secret, not a text",
        ),
    ],
)
def test_what_has_another_shape_says_what_is_there_and_what_may_be(name: str, text: str, message: str):
    _, mismatches, _ = checked(yaml.safe_load(text), name)
    assert len(mismatches) == bool(message)
    assert message in "".join(text for _, text in mismatches)
    assert "4711" not in str(mismatches)


@pytest.mark.parametrize(
    ("name", "data", "readable"),
    [
        ("reachability.yaml", {"pods": {"a": 5}}, {"pods": {"a": {"namespace": "", "labels": {}, "ports": []}}}),
        ("reachability.yaml", {"pods": None, "open": 5}, {"pods": {}, "open": []}),
        ("kustomization.yaml", {"resources": [5, "a.yaml"]}, {"resources": ["", "a.yaml"]}),
        (".sops.yaml", {}, {"creation_rules": []}),
    ],
)
def test_rules_read_an_empty_value_in_place_of_a_wrong_one(name: str, data: Any, readable: Any):
    before = json.dumps(data)
    assert checked(data, name)[0] == readable
    assert json.dumps(data) == before


@pytest.fixture
def site(repository: Path) -> Path:
    shutil.copytree(REPOSITORY / "tests/site", repository / "site")
    return repository


def change(file: Path, old: str, new: str) -> None:
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))


ALERTS = "cluster-gitops/infrastructure/monitoring/config/rules.yaml"
DASHBOARD = "site/shop/dashboard.json"


@pytest.mark.parametrize(
    ("edit", "rule", "message"),
    [
        (("site/reachability.yaml", "pods:\n", "pods:\n  other: 5\n"), "shape", "pods.other is 5, not a mapping"),
        (("site/reachability.yaml", "8080", "70000"), "shape", "is 70000, more than 65535"),
        ((ALERTS, "          expr: vector(1)\n", ""), "metric", "Watchdog has no expr"),
        ((ALERTS, "expr: vector(1)", "expr: 5"), "shape", "expr is 5, not a text"),
        ((DASHBOARD, '"expr": "', '"expr": 7, "legend": "'), "metric", "7 is not a text"),
        ((DASHBOARD, '"targets": [', '"targets": [7, '), "", ""),
        (("site/reachability.yaml", "to: shop", "to: [shop, shopp]"), "", "the row names shopp, which is no pod"),
        (
            ("site/project.yaml", "  sourceRepos:", "  sourceRepos: 5\n  x:"),
            "shape",
            "spec.sourceRepos is 5, not a list",
        ),
        (("site/shop/policies.yaml", "podSelector: {}", "podSelector: 7"), "shape", "podSelector is 7, not a mapping"),
        (("site/shop/application.yaml", "  project: site\n", ""), "shape", "spec has no project"),
        (("site/shop/kustomization.yaml", "resources:\n", "resources:\n  - 5\n"), "shape", "resources.0 is 5, not a"),
        ((".sops.yaml", "creation_rules:", "creation_rules: 5\nx:"), "shape", "creation_rules is 5, not a list"),
    ],
)
def test_a_wrong_shape_is_reported_at_its_place_and_hides_no_other_mistake(
    site: Path, edit: tuple[str, str, str], rule: str, message: str
):
    file, old, new = edit
    change(site / file, old, new)
    change(site / "site/shop/shop.yaml", ":1.29.1", ":latest")
    names = ("shape", "pin", "metric", "reachability", "project", "source", "policy", "recipient", "exposure")
    listed = findings(site, {name: RULES[name] for name in names}, path="site", without=("scylladb",))
    assert "cannot be applied" not in "".join(finding.message for finding in listed)
    assert [finding.rule for finding in listed if finding.file == "site/shop/shop.yaml"] == ["pin"]
    others = [finding for finding in listed if finding.file != "site/shop/shop.yaml"]
    assert {(finding.file, finding.rule) for finding in others if finding.rule in ("shape", "metric")} == (
        {(file, rule)} if rule else set()
    )
    assert message in "".join(finding.message for finding in others)


def test_every_invalid_pattern_of_the_creation_rules_is_reported(repository: Path):
    change(repository / ".sops.yaml", r"^talos/secrets/[^/]+\.sops\.yaml$", "(a+)+$")
    change(repository / ".sops.yaml", r"^(cluster-gitops|site)/.*\.sops\.yaml$", "'[a'")
    listed = [
        finding for finding in findings(repository, {"recipient": RULES["recipient"]}) if finding.rule == "readable"
    ]
    assert [(finding.file, finding.line) for finding in listed] == [(".sops.yaml", 5), (".sops.yaml", 8)]


def test_a_mistake_that_differs_between_two_roots_is_one_finding(site: Path):
    policies = site / "cluster-gitops/infrastructure/network-policies/fluodata.yaml"
    change(policies, "{key: cnpg.io/cluster, operator: Exists}", "{key: a, operator: Exists}")
    listed = [finding for finding in all_findings(site) if finding.rule == "reachability"]
    places = [(finding.file, finding.line, finding.message[:4]) for finding in listed]
    assert places
    assert len(set(places)) == len(places)


def test_a_part_of_the_tree_that_is_missing_is_reported_without_its_consequences(repository: Path):
    change(repository / "cluster-gitops/infrastructure/kustomization.yaml", "- namespaces/", "- namespace/")
    names = ("wave", "namespace", "listing", "project", "pin")
    listed = findings(repository, {name: RULES[name] for name in names})
    assert [(finding.rule, finding.message.partition(",")[0]) for finding in listed] == [
        ("readable", "it lists namespace/application.yaml")
    ]


def test_kustomizations_that_list_each_other_are_reported(repository: Path):
    file = repository / "cluster-gitops/apps/secrets/kustomization.yaml"
    file.write_text(file.read_text() + "resources: [../secrets]\n")
    listed = findings(repository, {"pin": RULES["pin"], "duplicate": RULES["duplicate"]})
    assert [finding.message for finding in listed] == ["it lists ../secrets, which lists it"]


@pytest.mark.parametrize("spec", ["{}", "{groups: [{name: a}]}", "{groups: [{name: a, rules: [{alert: A, expr: 1}]}]}"])
def test_the_rules_of_prometheus_may_leave_out_what_those_of_victoria_metrics_need(site: Path, spec: str):
    file, kind = site / "site/shop/shop.yaml", "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule"
    file.write_text(f"{kind}\nmetadata: {{name: x, namespace: shop}}\nspec: {spec}\n---\n{file.read_text()}")
    reported = findings(site, {"metric": RULES["metric"]}, path="site", without=("scylladb",))
    assert [finding.message.partition(" has ")[2] for finding in reported] == ["no severity"] * ("expr" in spec)


SHOP, SOPS_FILE = "site/shop/shop.yaml", "site/shop/shop.sops.yaml"


@pytest.mark.parametrize(
    ("edit", "place", "message"),
    [
        ((SHOP, "kind: Deployment", "kind: Deploymnet"), SHOP, "apps/v1 has no kind Deploymnet"),
        ((SHOP, "apiVersion: apps/v1", "apiVersion: app/v1"), SHOP, "there is no API group app"),
        ((SHOP, "rules:\n    - host", "rules:\n      host"), SHOP, "spec.rules is {…}, not a list"),
        (("site/project.yaml", "namespace: shop}", "namespace: '*'}"), "site/project.yaml", "allows everything"),
        (("site/shop/application.yaml", "namespace: shop", "namespace: shopp"), "", "nothing creates namespace shopp"),
        (("site/shop/application.yaml", "path: site/shop", "path: site/shops"), "", "site/shops, which does not exist"),
        (("site/shop/application.yaml", "selfHeal: true", "selfheal: true"), "", "did you mean 'selfHeal'?"),
        (("site/shop/kustomization.yaml", "  - namespace.yaml\n", ""), "site/shop/namespace.yaml", "lists it"),
        (("site/shop/kustomization.yaml", "[dashboard.json]", "[dashbord.json]"), "", "it lists dashbord.json"),
        (
            ("site/shop/policies.yaml", "policyTypes: [Ingress]", "policyTypes: [Engress]"),
            "",
            "none of Ingress, Egress",
        ),
        ((SOPS_FILE, "    age:\n", "    age: text\n    x:\n"), SOPS_FILE, "sops.age is 'text', not a list"),
        (
            (SOPS_FILE, "        - recipient: age1v0", "        - recipent: age1v0"),
            SOPS_FILE,
            "sops.age.0 has no recipient",
        ),
        ((".sops.yaml", "path_regex: ^(c", "path_regexp: ^(c"), "", "did you mean 'path_regex'?"),
    ],
)
def test_one_mistake_is_one_finding(site: Path, edit: tuple[str, str, str], place: str, message: str):
    file, old, new = edit
    change(site / file, old, new)
    quick = {name: rule for name, rule in RULES.items() if name not in ("build", "mac")}
    listed = findings(site, quick, path="site", without=("scylladb",))
    assert [finding.file for finding in listed] == [place or file], listed
    assert message in listed[0].message


POD_SPEC = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: a}
spec:
  selector: {matchLabels: {app: a}}
  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  template:
    metadata: {labels: {app: a}}
    spec:
      securityContext: {runAsNonRoot: true, runAsUser: 1000}
      tolerations: [{operator: Exists}, {key: a, value: b, effect: NoSchedule}]
      volumes: [{name: c, configMap: {name: c, items: [{key: a, path: a/b}]}}]
      containers:
        - name: a
          image: a:1.2
          env: [{name: A, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
          livenessProbe: {successThreshold: 1, tcpSocket: {port: 80}}
          resources: {limits: {cpu: 100m, memory: 64Mi}}
"""
INIT = "{name: i, image: a:1.2, livenessProbe: {tcpSocket: {port: 80}}}"
SIDECAR = INIT.replace("name: i", "name: i, restartPolicy: Always")
OTHER = {
    "Certificate": (
        "apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata: {name: a}\n"
        "spec: {secretName: a, issuerRef: {name: i}, dnsNames: [a.example.org], duration: 2160h, renewBefore: 360h0m}"
    ),
    "Cluster": (
        "apiVersion: postgresql.cnpg.io/v1\nkind: Cluster\nspec: {instances: 2, storage: {size: 1Gi}}\n"
        "metadata: {name: a, annotations: {argocd.argoproj.io/hook: 'PreSync, Sync'}}"
    ),
    "CronJob": (
        "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: a}\nspec: {schedule: '@daily', timeZone: Europe/Berlin, "
        "jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: a}]}}}}}"
    ),
    "Service": (
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n"
        "spec: {type: NodePort, externalTrafficPolicy: Local, ports: [{port: 80, nodePort: 30080}]}"
    ),
    "Role": (
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: a}\n"
        "rules: [{apiGroups: [apps], resources: [deployments], verbs: [get]}]"
    ),
    "NetworkPolicy": (
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\n"
        "spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 80, endPort: 90}]}]}"
    ),
    "HorizontalPodAutoscaler": (
        "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: a}\nspec: {maxReplicas: 2, "
        "scaleTargetRef: {kind: Deployment, name: a}, metrics: [{type: Resource, resource: {name: cpu, "
        "target: {type: Utilization, averageUtilization: 70}}}]}"
    ),
    "StorageClass": (
        "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {name: a}\nprovisioner: driver.longhorn.io\n"
        'parameters: {numberOfReplicas: "2", dataLocality: disabled}'
    ),
    "Deployment": POD_SPEC,
}


@pytest.mark.parametrize(
    ("kind", "old", "new", "message"),
    [
        *((kind, "", "", "") for kind in OTHER),
        ("CronJob", "Europe/Berlin", "Europe/Bonn", "a time zone is one of the IANA database"),
        (
            "Service",
            "NodePort, externalTrafficPolicy: Local",
            "ClusterIP",
            "a Service of type ClusterIP has no nodePort",
        ),
        ("Service", "30080", "8080", "nodes give ports from 30000 to 32767"),
        (
            "Service",
            "type: NodePort, externalTrafficPolicy: Local",
            "type: LoadBalancer, clusterIP: None",
            "spec.type is",
        ),
        ("Role", "[get]", "[wacth]", "rules.0.verbs.0 is 'wacth'"),
        ("Role", "[apps]", "[apps/v1]", "an API group has no version"),
        ("Role", "apiGroups: [apps], ", "", "a rule has apiGroups and resources"),
        ("NetworkPolicy", "endPort: 90", "endPort: 70", "is more than endPort 70"),
        ("NetworkPolicy", "{ipBlock: {cidr: 10.0.0.0/8}}", "{}", "from.0 is"),
        ("NetworkPolicy", "0/8}}", "0/8}, podSelector: {}}", "a peer has ipBlock, or podSelector"),
        ("HorizontalPodAutoscaler", "averageUtilization: 70", "averageValue: 70m", "has no averageUtilization"),
        ("HorizontalPodAutoscaler", "type: Resource", "type: Pods", "a metric has the part that its type names"),
        ("StorageClass", "numberOfReplicas", "numberOfReplica", "a parameter of Longhorn"),
        ("Deployment", "maxSurge: 1", "maxSurge: 0", "maxSurge and maxUnavailable are not both 0"),
        ("Deployment", "runAsUser: 1000", "runAsUser: 0", "runAsNonRoot refuses user 0"),
        ("Deployment", "{operator: Exists}", "{effect: NoSchedule}", "a toleration without a key has operator Exists"),
        (
            "Deployment",
            "{operator: Exists}",
            "{key: a, operator: Exists, value: b}",
            "with operator Exists has no value",
        ),
        ("Deployment", "path: a/b", "path: ../b", "a path below the volume"),
        (
            "Deployment",
            "      containers:\n",
            f"      initContainers: [{INIT}]\n      containers:\n",
            "an init container has",
        ),
        ("Deployment", "      containers:\n", f"      initContainers: [{SIDECAR}]\n      containers:\n", ""),
        (
            "Deployment",
            "      containers:\n",
            "      hostAliases: [{ip: 10.0.0.999}]\n      containers:\n",
            "an address is",
        ),
        ("Service", "type: NodePort", "clusterIP: none, type: NodePort", "it is None, an address, or left out"),
        ("Certificate", "duration", "duration", ""),
        ("Certificate", "renewBefore: 360h0m", "renewBefore: 2160h1m", "renewBefore is more than duration 2160h"),
        ("Certificate", "dnsNames: [a.example.org], ", "", "a certificate has dnsNames, or another name"),
        ("Cluster", "instances", "instances", ""),
        ("Cluster", "instances: 2", "instances: 1", "one instance has enablePDB: false"),
        ("Cluster", "instances: 2", "enablePDB: true", "one instance has enablePDB: false"),
        ("Cluster", "instances: 2", "instances: 1, enablePDB: false", ""),
        ("Cluster", "PreSync, Sync", "Postsync", "PreSync, Sync, PostSync, SyncFail, Skip, PreDelete or PostDelete"),
        ("Deployment", "          image: a:1.2\n", "", "containers.0 has no image"),
        ("Deployment", "status.podIP", "status.podIp", "a variable has metadata.name"),
        ("Deployment", "successThreshold: 1", "successThreshold: 2", "successThreshold is 2, more than 1"),
        ("Deployment", "memory: 64Mi", "memory: 64m", "bytes have a unit"),
        ("Deployment", "memory: 64Mi", "memory: 128", "bytes have a unit"),
        ("Deployment", "configMap: {name: c,", "configMap: {name: C_c,", "the name of an object in the same namespace"),
    ],
)
def test_what_the_api_refuses_in_an_object_is_reported(kind: str, old: str, new: str, message: str):
    assert old in OTHER[kind]
    _, mismatches, _ = checked(yaml.safe_load(OTHER[kind].replace(old, new, 1)), "x.yaml")
    assert len(mismatches) == bool(message), mismatches
    assert message in "".join(text for _, text in mismatches)
