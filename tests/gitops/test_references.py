"""What objects name exists: in the tree, made by generators, or made at run time by charts and operators."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from fluobook.gitops.rules import references
from fluobook.gitops.rules.applications import namespaces_are_created
from fluobook.gitops.rules.objects import (
    namespaces_admit_their_pods,
    objects_match_their_schema,
    pod_security_matches_the_pods,
    waves_do_not_wait_for_the_outside,
)
from fluobook.gitops.rules.references import references_exist
from fluobook.gitops.snapshot import Snapshot

APPLICATION = """\
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: shop, namespace: argocd}
spec:
  project: apps
  source: {repoURL: "https://git.example.org/a.git", targetRevision: main, path: cluster-gitops/shop}
  destination: {server: "https://kubernetes.default.svc", namespace: shop}
"""
OBJECTS = """\
apiVersion: v1
kind: Namespace
metadata:
  name: shop
  labels:
    pod-security.kubernetes.io/enforce: LEVEL
    pod-security.kubernetes.io/audit: LEVEL
    pod-security.kubernetes.io/warn: LEVEL
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      volumes: [{name: conf, configMap: {name: conf}}]
      containers:
        - name: shop
          image: shop/shop:1.2.3
          ports: [{name: http, containerPort: 8080}]
          readinessProbe: {httpGet: {path: /, port: http}}
          volumeMounts: [{name: conf, mountPath: /conf}]
          envFrom: [{secretRef: {name: login}}]
          env: [{name: A, valueFrom: {configMapKeyRef: {name: conf, key: a.txt}}}]
          resources: {requests: {cpu: 100m}, limits: {cpu: 1}}
---
apiVersion: v1
kind: Service
metadata: {name: shop, labels: {app: shop}}
spec: {selector: {app: shop}, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop}
spec:
  ingressClassName: nginx
  tls: [{hosts: [shop.example.org], secretName: tls}]
  rules:
    - host: shop.example.org
      http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: shop, port: {name: http}}}}]}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: shop}
spec: {maxReplicas: 2, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: shop}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: shop}
spec: {maxUnavailable: 1, selector: {matchLabels: {app: shop}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: shop}
rules: [{apiGroups: [coordination.k8s.io, batch], resources: [leases, jobs/status], verbs: [get]}]
---
apiVersion: operator.victoriametrics.com/v1beta1
kind: VMServiceScrape
metadata: {name: shop}
spec: {selector: {matchLabels: {app: shop}}, endpoints: [{port: http}]}
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: acme}
spec: {acme: {solvers: [{http01: {ingress: {ingressClassName: nginx}}}]}}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: nginx}
---
apiVersion: postgresql.cnpg.io/v1
kind: Cluster
metadata: {name: pg}
"""
KUSTOMIZATION = """\
resources: [shop.yaml]
configMapGenerator: [{name: conf, files: [a.txt]}]
generators: [ksops.yaml]
"""
KSOPS = """\
apiVersion: viaduct.ai/v1
kind: ksops
metadata: {name: secrets}
files: [login.sops.yaml]
"""
LOGIN = "apiVersion: v1\nkind: Secret\nmetadata: {name: login}\nstringData: {password: 'ENC[]'}\nsops: {mac: x}\n"
TABLE = "pods: {shop: {namespace: shop, labels: {app: shop}, ports: [8080]}}\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "cluster-gitops"
    files = {
        "bootstrap/kustomization.yaml": "resources: [../application.yaml]\n",
        "application.yaml": APPLICATION,
        "reachability.yaml": TABLE,
        "shop/kustomization.yaml": KUSTOMIZATION,
        "shop/shop.yaml": OBJECTS.replace("LEVEL", "baseline"),
        "shop/ksops.yaml": KSOPS,
        "shop/login.sops.yaml": LOGIN,
        "shop/a.txt": "a",
    }
    for name, text in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)
    return top


def change(file: Path, old: str, new: str) -> None:
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))


ISSUER = "Ingress shop has TLS and no issuer"
TLS = "spec:\n  ingressClassName: nginx\n  tls: [{hosts: [shop.example.org], secretName: tls}]"
CERTIFICATE = (
    "---\napiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata: {{name: a}}\n"
    "spec: {{secretName: a, dnsNames: ['{}'], issuerRef: {{name: acme}}}}\n"
)
SCALED = "{{type: Resource, resource: {{name: {}, target: {{type: Utilization, averageUtilization: 80}}}}}}"
AGENT = """\
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: shop, part: agent}}
  template:
    metadata: {labels: {app: shop, part: agent}}
    spec: {containers: [{name: agent, image: a:1.2, ports: [{containerPort: 9465, name: agent}]}]}
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("", "", ""),
        ("secretRef: {name: login}", "secretRef: {name: logn}", "there is no Secret logn in shop"),
        ("secretRef: {name: login}", "secretRef: {name: logn, optional: true}", ""),
        ("secretRef: {name: login}", "secretRef: {name: pg-app}", ""),  # CloudNativePG makes it
        ("secretRef: {name: login}", "secretRef: {name: shop-login}", "there is no Secret shop-login in shop"),
        ("configMap: {name: conf}", "configMap: {name: config}", "there is no ConfigMap config in shop"),
        ("configMap: {name: conf}", "persistentVolumeClaim: {claimName: data}", "no PersistentVolumeClaim data"),
        ("key: a.txt", "key: b.txt", "ConfigMap conf has no key b.txt"),
        ("volumeMounts: [{name: conf", "volumeMounts: [{name: data", "Deployment shop has no volume data"),
        ("port: http}}", "port: htttp}}", "the container has no port htttp"),
        ("targetPort: http", "targetPort: web", "leads to port web, which its pods do not have"),
        ("targetPort: http", "targetPort: 8081", "leads to port 8081"),
        ("spec: {selector: {app: shop}", "spec: {selector: {app: shpo}", "Service shop selects no pod in shop"),
        ("service: {name: shop,", "service: {name: shpo,", "there is no Service shpo in shop"),
        ("port: {name: http}", "port: {name: https}", "Service shop has no port https"),
        ("port: {name: http}", "port: {number: 81}", "Service shop has no port 81"),
        ("ingressClassName: nginx", "ingressClassName: traefik", "there is no IngressClass traefik"),
        ("kind: Deployment, name: shop}", "kind: Deployment, name: shpo}", "there is no Deployment shpo in shop"),
        ("kind: Deployment, name: shop}", "kind: Deploy, name: shop}", "apps/v1 has no kind Deploy"),
        ("limits: {cpu: 1}", "limits: {cpu: 50m}", "the request 100m is more than the limit 50m"),
        ("volumes: [", "serviceAccountName: shop\n      volumes: [", "there is no ServiceAccount shop in shop"),
        ("volumes: [", "priorityClassName: system-node-critical\n      volumes: [", ""),
        ("hosts: [shop.", "hosts: [www.", "has TLS for www.example.org, which no rule serves"),
        ("shop}}\nspec: {selector", "shop}, namespace: shpo}\nspec: {selector", ""),
        ("kind: Deployment, name: shop}", "kind: StatefulSet, name: shop}", "there is no StatefulSet shop in shop"),
        ("maxUnavailable: 1", "maxUnavailable: 0", "lets none of the 1 pods of shop be evicted"),
        ("maxUnavailable: 1", "minAvailable: 100%", "lets none of the 1 pods of shop be evicted"),
        ("maxUnavailable: 1", "minAvailable: [1]", ""),  # the rule `shape` reports it
        ("spec: {maxReplicas: 2, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: shop}}", "", ""),
        ("[leases, ", "[lease, ", "there is no resource lease in coordination.k8s.io or batch"),
        ("coordination.k8s.io, batch", "batch", "there is no resource leases in batch"),
        ("coordination.k8s.io, batch", "example.org", ""),
        ("endpoints: [{port: http}", "endpoints: [{port: web}", "scrapes web, a port that its targets do not have"),
        ("ingress: {ingressClassName: nginx", "ingress: {ingressClassName: public", "there is no IngressClass public"),
        (
            "      volumes: [",
            "      initContainers: [{name: shop, image: a:1.2}]\n      volumes: [",
            "two containers shop",
        ),
        ("spec: {selector: {app: shop}, ports", "spec: {ports", "Service shop has no selector, and leads nowhere"),
        ("name: conf, key: a.txt", "name: conf, key: a.txt}}}, {name: B, value: $(A)-$(C), valueFrom: {x: {y: z", ""),
        (
            "image: shop/shop:1.2.3",
            "image: shop/shop:1.2.3\n          lifecycle: {preStop: {sleep: {seconds: 31}}}",
            "more than",
        ),
        (
            "image: shop/shop:1.2.3",
            "image: shop/shop:1.2.3\n          lifecycle: {preStop: {sleep: {seconds: 30}}}",
            "",
        ),
        (
            "valueFrom: {configMapKeyRef: {name: conf, key: a.txt}}",
            "valueFrom: {resourceFieldRef: {containerName: shpo, resource: limits.cpu}}",
            "Deployment shop has no container shpo",
        ),
        (
            "          envFrom: [{secretRef: {name: login}}]\n          env: [{name: A,",
            "          args: [$(SHOP_UR), $$(SHOP_UR), $(date)]\n          env: [{name: SHOP_URL,",
            "the container has no variable SHOP_UR",
        ),
        (
            "configMapKeyRef: {name: conf, key: a.txt}",
            "secretKeyRef: {name: pg-app, key: url}",
            "Secret pg-app has no key url",
        ),
        ("configMapKeyRef: {name: conf, key: a.txt}", "secretKeyRef: {name: pg-app, key: uri}", ""),
        (
            "kind: Ingress\nmetadata: {name: shop}",
            "kind: Ingress\nmetadata: {name: shop, annotations: {nginx.ingress.kubernetes.io/proxy-bodysize: 8m}}",
            "ingress-nginx does not read nginx.ingress.kubernetes.io/proxy-bodysize",
        ),
        (
            "kind: Ingress\nmetadata: {name: shop}",
            "kind: Ingress\nmetadata: {name: shop, annotations: {nginx.ingress.kubernetes.io/server-snippet: x}}",
            "ingress-nginx refuses nginx.ingress.kubernetes.io/server-snippet",
        ),
        (
            "kind: Ingress\nmetadata: {name: shop}",
            "kind: Ingress\nmetadata: {name: shop, annotations: {nginx.ingress.kubernetes.io/quite-new: x}}",
            "",
        ),
        (
            f"{{name: shop}}\n{TLS}",
            f"{{name: shop, annotations: {{cert-manager.io/issuer: acme}}}}\n{TLS.replace(', secretName: tls', '')}",
            "Ingress shop has TLS without a secretName",
        ),
        ("metadata: {name: pg}\n", f"metadata: {{name: pg}}\n{CERTIFICATE.format('shop.example.org')}", ""),
        (
            "metadata: {name: pg}\n",
            f"metadata: {{name: pg}}\n{CERTIFICATE.format('shop.shop.svc')}",
            "public names only",
        ),
        (
            "metadata: {name: pg}\n",
            f"metadata: {{name: pg}}\n{CERTIFICATE.format('*.example.org')}",
            "no solver with dns01",
        ),
        (
            "metadata: {name: pg}\n",
            f"metadata: {{name: pg}}\n{AGENT}",
            "port http, which not all of its 2 workloads have",
        ),
        (
            "metadata: {name: pg}\n",
            f"metadata: {{name: pg}}\n{AGENT.replace('9465', '8080').replace('agent}', 'http}')}",
            "",
        ),
        ("maxReplicas: 2,", f"maxReplicas: 2, metrics: [{SCALED.format('cpu')}],", ""),
        ("maxReplicas: 2,", f"maxReplicas: 2, metrics: [{SCALED.format('memory')}],", "shop requests no memory"),
        ("image: shop/shop:1.2.3", "image: shop/shop:1.2.3\n          args: [$(passwordd)]", "no variable passwordd"),
        ("image: shop/shop:1.2.3", "image: shop/shop:1.2.3\n          args: [$(password), $(A)]", ""),
    ],
)
def test_what_an_object_names_exists(old: str, new: str, message: str, tree: Path):
    change(tree / "shop/shop.yaml", old, new)
    found = {finding.message for finding in references_exist(Snapshot(tree.parent)) if ISSUER not in finding.message}
    others = [text for text in found if "selects no pod in shpo" not in text]
    assert len(others) == bool(message), found
    assert message in "".join(others)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("kustomization.yaml", "[shop.yaml]", "[]"),
        ("ksops.yaml", "files: [login.sops.yaml]", "files: []"),
        ("kustomization.yaml", "generators: [ksops.yaml]", "generators: []"),
    ],
)
def test_what_is_not_listed_has_no_other_consequence(file: str, old: str, new: str, tree: Path):
    change(tree / "shop" / file, old, new)
    snapshot = Snapshot(tree.parent)
    found = [*references_exist(snapshot), *namespaces_are_created(snapshot)]
    assert [finding.message for finding in found if ISSUER not in finding.message] == []


@pytest.mark.parametrize("key", ["configMapGenerator: [{name: conf,", "ksops"])
def test_the_namespace_of_a_generated_object_is_checked(key: str, tree: Path):
    if key == "ksops":
        change(tree / "shop/login.sops.yaml", "name: login", "name: login, namespace: shpo")
    else:
        change(tree / "shop/kustomization.yaml", key, f"{key} namespace: shpo,")
    found = [finding.message for finding in namespaces_are_created(Snapshot(tree.parent))]
    assert [message.partition(" of ")[0] for message in found] == ["nothing creates namespace shpo"]


def test_labels_and_the_namespace_of_a_kustomization_are_read(tree: Path):
    file = tree / "shop/kustomization.yaml"
    file.write_text(file.read_text() + "namespace: shop\nlabels: [{pairs: {team: a}, includeSelectors: true}]\n")
    snapshot = Snapshot(tree.parent)
    assert not snapshot.reader.refused
    assert {document.namespace for document in snapshot.objects("Service", "Secret", "ConfigMap")} == {"shop"}
    [service] = snapshot.objects("Service")
    assert service.data["spec"]["selector"] == {"app": "shop", "team": "a"}
    assert [f.message for f in references_exist(snapshot) if ISSUER not in f.message] == []


SAFE = """\
          securityContext:
            allowPrivilegeEscalation: false
            runAsNonRoot: true
            capabilities: {drop: [ALL]}
            seccompProfile: {type: RuntimeDefault}
"""


@pytest.mark.parametrize(
    ("level", "old", "new", "message"),
    [
        ("baseline", "", "", ""),
        ("baselin", "", "", "shop: there is no level baselin"),
        ("baseline", "volumes: [", "hostNetwork: true\n      volumes: [", "host namespaces (hostNetwork=true)"),
        ("baseline", "configMap: {name: conf}", "hostPath: {path: /}", "hostPath volumes (conf)"),
        (
            "baseline",
            "resources:",
            "securityContext: {capabilities: {add: [NET_ADMIN]}}\n          resources:",
            "NET_ADMIN",
        ),
        ("restricted", "", "", "gets no pods in shop, which is restricted: allowPrivilegeEscalation != false"),
        ("restricted", "          resources:", f"{SAFE}          resources:", ""),
    ],
)
def test_a_namespace_has_a_level_that_its_pods_keep(level: str, old: str, new: str, message: str, tree: Path):
    file = tree / "shop/shop.yaml"
    file.write_text(OBJECTS.replace("LEVEL", level).replace(old, new, 1))
    assert old in OBJECTS
    found = [finding.message for finding in pod_security_matches_the_pods(Snapshot(tree.parent))]
    assert len(found) == bool(message), found
    assert message in "".join(found)


QUOTA = """\
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: room, namespace: shop}
spec: {hard: HARD}
---
apiVersion: v1
kind: LimitRange
metadata: {name: room, namespace: shop}
spec: {limits: [ITEM]}
"""


@pytest.mark.parametrize(
    ("hard", "item", "message"),
    [
        ("{requests.cpu: 100m, limits.cpu: 1, pods: 5}", "{type: Container, max: {cpu: 1}, min: {cpu: 100m}}", ""),
        (
            "{requests.cpu: 99m}",
            "{type: Pod}",
            "ResourceQuota room allows requests.cpu 99m, and its namespace's pods have 0.1",
        ),
        ("{memory: 1Gi}", "{type: Pod}", "ResourceQuota room counts memory, and refuses a container without it"),
        ("{memory: 1Gi}", "{type: Container, default: {memory: 1Gi}}", ""),
        ("{memory: 1Gi}", "{type: Container, defaultRequest: {memory: 2Gi}}", "its namespace's pods have 2048Mi"),
        ("{pods: 5}", "{type: Container, max: {cpu: 500m}}", "a LimitRange refuses limits of cpu 1: its max is 500m"),
        (
            "{pods: 5}",
            "{type: Container, min: {cpu: 200m}}",
            "a LimitRange refuses requests of cpu 100m: its min is 200m",
        ),
    ],
)
def test_a_namespace_admits_its_pods(hard: str, item: str, message: str, tree: Path):
    file = tree / "shop/shop.yaml"
    file.write_text(file.read_text() + QUOTA.replace("HARD", hard).replace("ITEM", item))
    found = [finding.message for finding in namespaces_admit_their_pods(Snapshot(tree.parent))]
    assert len(found) == bool(message), found
    assert message in "".join(found)


@pytest.mark.parametrize(
    ("issuer", "waiting"), [("{acme: {}}", 2), ("{selfSigned: {}}", 0), ("{ca: {secretName: a}}", 0)]
)
def test_what_needs_nothing_outside_holds_back_no_wave(issuer: str, waiting: int, tree: Path):
    file = tree / "shop/shop.yaml"
    file.write_text(file.read_text() + CERTIFICATE.format("a.shop.svc"))
    change(file, "{acme: {solvers: [{http01: {ingress: {ingressClassName: nginx}}}]}}", issuer)
    assert len(list(waves_do_not_wait_for_the_outside(Snapshot(tree.parent)))) == waiting


MERGED = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec: {template: {spec: {containers: [{name: shpo}]}}}
"""
APPLIED = "[{op: add, path: /spec/replicas, value: three}]"


@pytest.mark.parametrize(
    ("target", "patch", "message"),
    [
        ("", MERGED, "spec.template.spec.containers.0 has no image"),
        (", target: {kind: Deployment, name: shop}", APPLIED, "spec.replicas is 'three', not a whole number or null"),
    ],
)
def test_what_a_kustomization_makes_matches_its_schema_under_whatever_root(
    target: str, patch: str, message: str, tree: Path
):
    listed = f"resources: [../shop]\npatches: [{{path: patch.yaml{target}}}]\n"
    (tree / "other").mkdir()
    for name, text in (("kustomization.yaml", listed), ("patch.yaml", patch)):
        (tree / "other" / name).write_text(text)
    found = [finding.message for finding in objects_match_their_schema(Snapshot(tree.parent))]
    assert message in found


def test_the_annotations_of_ingress_nginx_are_names():
    assert [name for name in references._TABLE["nginx"] if not re.fullmatch(r"[a-z0-9-]+[a-z]", name)] == []


def test_an_ingress_may_have_a_certificate_that_is_a_secret_in_git(tree: Path):
    change(tree / "shop/shop.yaml", "secretName: tls", "secretName: login")
    assert not [finding for finding in references_exist(Snapshot(tree.parent)) if ISSUER in finding.message]


def test_the_entries_of_the_table_have_no_unknown_field():
    table = yaml.safe_load((Path(__file__).parents[2] / "fluobook/gitops/data/references.yaml").read_text())
    entries = [entry for entries in (table["pods"], *table["kinds"].values()) for entry in entries]
    assert all(
        {"at", "kind", "kinds", "otherwise", "key", "among", "word", "holds", "silent"} >= set(entry)
        for entry in entries
    )
