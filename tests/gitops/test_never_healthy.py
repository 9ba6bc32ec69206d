"""What Argo CD takes, and a cluster never finishes: rings of waits, volumes without a place, endless fights."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluobook.gitops.check import RULES, findings

CLAIM = """\
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: shop}
spec: {accessModes: [MODE], storageClassName: longhorn, resources: {requests: {storage: 5Gi}}}
"""
MOUNT = "      volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]\n      containers:\n"
CONFIG = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: conf, namespace: shop, annotations: {NOTE}}
data: {A: b}
"""
JOB = """\
apiVersion: batch/v1
kind: Job
metadata: {name: migrate, namespace: shop, annotations: {NOTE}}
spec:
  template:
    spec:
      restartPolicy: Never
      containers:
        - {name: migrate, image: "shop/shop:1.2", envFrom: [{configMapRef: {name: conf}}, {secretRef: {name: shop}}]}
"""
HOOK = "argocd.argoproj.io/hook: PreSync"
WAVE = "argocd.argoproj.io/sync-wave: "
SCALER = """\
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: shop, namespace: shop}
spec: {maxReplicas: 4, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: shop}}
"""
IGNORED = "  ignoreDifferences: [{group: apps, kind: Deployment, jsonPointers: [/spec/replicas]}]\n"
CLASS = """\
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: fast}
provisioner: driver.longhorn.io
parameters: {numberOfReplicas: "COPIES"}
"""
SET = """\
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: queue, namespace: shop}
spec:
  volumeClaimTemplates:
    - metadata: {name: data}
      spec: {accessModes: [ReadWriteOnce], storageClassName: longhorn, resources: {requests: {storage: SIZE}}}
"""
DATABASE = """\
apiVersion: postgresql.cnpg.io/v1
kind: Cluster
metadata: {name: pg, namespace: shop}
spec:
  storage: {storageClass: longhorn-database, size: SIZE}
  bootstrap: {initdb: {database: shop, owner: shop, secret: {name: SECRET}}}
"""
BALANCER = """\
apiVersion: v1
kind: Service
metadata: {name: lan, namespace: shop, labels: {fluobook/pool: POOL}, annotations: {NOTE}}
spec: {type: LoadBalancer, selector: {app: shop}, ports: [{port: 8080}]}
"""
NFS = """\
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow-nfs, namespace: longhorn-system}
spec: {podSelector: {}, policyTypes: [Ingress], ingress: [{ports: [{port: 2049}]}]}
"""


def edited(site: Path, text: str, *edits: tuple[str, str, str]) -> Path:
    """The example site with one more file in its application, and edits of others: file, old text, new text."""
    (site / "site/shop/more.yaml").write_text(text)
    for name, old, new in (("shop/kustomization.yaml", "  - shop.yaml\n", "  - shop.yaml\n  - more.yaml\n"), *edits):
        file = site / "site" / name
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new, 1))
    return site


def reported(site: Path, *names: str) -> list[str]:
    listed = findings(site, {name: RULES[name] for name in names}, path="site", without=("scylladb",))
    return [finding.message for finding in listed if finding.file.startswith("site/")]


ONE = ("shop/shop.yaml", "replicas: 2", "replicas: 1")
RECREATED = ("shop/shop.yaml", "replicas: 2", "replicas: 1\n  strategy: {type: Recreate}")
MOUNTED = ("shop/shop.yaml", "      containers:\n", MOUNT)


@pytest.mark.parametrize(
    ("mode", "edits", "message"),
    [
        ("ReadWriteOnce", (RECREATED, MOUNTED), ""),
        ("ReadWriteOnce", (MOUNTED,), "has 2 pods and one volume, data"),
        ("ReadWriteOnce", (ONE, MOUNTED), "starts its next pod before the last one releases data"),
        ("ReadWriteOnce", (("shop/shop.yaml", "replicas: 2", "replicas: 0"), MOUNTED), ""),
        ("ReadWriteMany", (MOUNTED,), "no policy of longhorn-system opens port 2049"),
        ("ReadWriteMany", (MOUNTED, ("shop/policies.yaml", "---\n", f"{NFS}---\n")), ""),
    ],
)
def test_all_pods_of_a_workload_can_mount_its_volume(
    mode: str, edits: tuple[tuple[str, str, str], ...], message: str, site: Path
):
    lines = reported(edited(site, CLAIM.replace("MODE", mode), *edits), "volume")
    assert (len(lines) == 1 and message in lines[0]) if message else lines == [], lines


POD = "{containers: [{name: a, image: 'a:1'}], volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]}"
CRON = f"""\
---
apiVersion: batch/v1
kind: CronJob
metadata: {{name: save, namespace: shop}}
spec:
  schedule: "@daily"
  jobTemplate: {{spec: {{template: {{spec: {POD.replace("{", "{restartPolicy: Never, ", 1)}}}}}}}
"""
AGENT = f"""\
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: save, namespace: shop}}
spec:
  selector: {{matchLabels: {{app: save}}}}
  template: {{metadata: {{labels: {{app: save}}}}, spec: {POD}}}
"""


@pytest.mark.parametrize(
    ("text", "edits", "message"),
    [
        (CRON, (RECREATED, MOUNTED), "CronJob save and Deployment shop have one volume, data"),
        (CRON, (), ""),
        (AGENT, (), "DaemonSet save has 4 pods and one volume, data"),
        (AGENT.replace("DaemonSet", "StatefulSet"), (), ""),
    ],
)
def test_a_volume_is_for_the_pods_of_one_workload(
    text: str, edits: tuple[tuple[str, str, str], ...], message: str, site: Path
):
    lines = reported(edited(site, CLAIM.replace("MODE", "ReadWriteOnce") + text, *edits), "volume")
    assert (len(lines) == 1 and message in lines[0]) if message else lines == [], lines


def test_an_autoscaler_gives_a_volume_more_pods_than_one(site: Path):
    text = CLAIM.replace("MODE", "ReadWriteOnce") + "---\n" + SCALER
    assert any("has 4 pods" in line for line in reported(edited(site, text, RECREATED, MOUNTED), "volume"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CLASS.replace("COPIES", "2"), ""),
        (CLASS.replace("COPIES", "3"), "keeps 3 copies of a volume, more than hosts: mine has 2"),
        (SET.replace("SIZE", "80Gi"), ""),
        (
            SET.replace("SIZE", "81Gi"),
            "StatefulSet queue has a volume of 81Gi, more than the largest disk for volumes: mine has 80 GiB",
        ),
        (DATABASE.replace("SIZE", "1Ti"), "Cluster pg has a volume of 1Ti"),
    ],
)
def test_volumes_fit_on_the_workers_disks_with_all_their_copies(text: str, message: str, site: Path):
    lines = reported(edited(site, text), "volume")
    assert (len(lines) == 1 and message in lines[0]) if message else lines == [], lines


USED = ("shop/shop.yaml", "            - secretRef: {name: shop}\n", "            - configMapRef: {name: conf}\n")


@pytest.mark.parametrize(
    ("text", "edits", "message"),
    [
        (CONFIG.replace("NOTE", ""), (USED,), ""),
        (CONFIG.replace("NOTE", f"{WAVE}'-1'"), (USED,), ""),
        (
            CONFIG.replace("NOTE", f"{WAVE}'1'"),
            (USED,),
            "Deployment shop (Sync, wave 0) needs ConfigMap conf (Sync, wave 1)",
        ),
        (CONFIG.replace("NOTE", f"{WAVE}x"), (USED,), ""),
        (JOB.replace("NOTE", HOOK) + "---\n" + CONFIG.replace("NOTE", HOOK), (), "needs Secret shop (Sync, wave 0)"),
        (JOB.replace("NOTE", HOOK) + "---\n" + CONFIG.replace("NOTE", ""), (), "needs ConfigMap conf (Sync, wave 0)"),
        (JOB.replace("NOTE", "argocd.argoproj.io/hook: PostSync") + "---\n" + CONFIG.replace("NOTE", ""), (), ""),
        (JOB.replace("NOTE", "argocd.argoproj.io/hook: Skip") + "---\n" + CONFIG.replace("NOTE", f"{WAVE}'1'"), (), ""),
    ],
)
def test_pods_need_nothing_that_their_application_brings_later(
    text: str, edits: tuple[tuple[str, str, str], ...], message: str, site
):
    lines = reported(edited(site, text, *edits), "wave")
    assert any(message in line for line in lines) if message else lines == [], lines


PLAIN = CONFIG.replace("NOTE", "")
DASHBOARD = PLAIN.replace("annotations: {}", "labels: {grafana_dashboard: '1'}")
POLICY, CONTAINERS, KIND = "  syncPolicy:\n", "      containers:\n", "kind: Kustomization\n"
PULL = f"      imagePullSecrets: [{{name: shop}}]\n{CONTAINERS}"
OTHERS = IGNORED.replace("Deployment", "StatefulSet")


@pytest.mark.parametrize(
    ("text", "edit", "message"),
    [
        (SCALER, (), "Argo CD and HorizontalPodAutoscaler shop overwrite each other's replicas"),
        (SCALER, ("shop/shop.yaml", "  replicas: 2\n", ""), ""),
        (SCALER, ("shop/application.yaml", POLICY, IGNORED + POLICY), ""),
        (SCALER, ("shop/application.yaml", POLICY, OTHERS + POLICY), "overwrite each other's replicas"),
        (DASHBOARD, (), "Grafana's sidecar watches monitoring, and conf is in shop"),
        (PLAIN, ("shop/kustomization.yaml", KIND, f"{KIND}namespace: shop\n"), "shop-dashboards is in shop"),
        (DATABASE.replace("SECRET", "shop"), (), "Secret shop has no key password, which Cluster pg needs"),
        (DATABASE.replace("SECRET", "other"), (), ""),  # the rule `wave` reports it
        (PLAIN, ("shop/shop.yaml", CONTAINERS, PULL), "Secret shop has no key .dockerconfigjson"),
    ],
)
def test_what_is_applied_can_come_up(text: str, edit: tuple[str, str, str] | tuple[()], message: str, site: Path):
    lines = reported(edited(site, text, *filter(None, [edit])), "reference")
    assert (len(lines) >= 1 and message in lines[0]) if message else lines == [], lines


@pytest.mark.parametrize(
    ("secret", "host", "count"),
    [("shop-tls", "admin.example.org", 1), ("admin-tls", "admin.example.org", 0)],
)
def test_two_ingresses_share_no_certificate(secret: str, host: str, count: int, site: Path):
    ingress = (site / "site/shop/shop.yaml").read_text().split("---\n")[2].replace("name: shop\n", "name: admin\n", 1)
    ingress = ingress.replace("shop.fluodata.example.org", host).replace("shop-tls", secret)
    assert len(reported(edited(site, ingress), "reference")) == count


@pytest.mark.parametrize(("secret", "count"), [("shop-tls", 1), ("inner-tls", 0)])
def test_a_certificate_and_an_ingress_share_no_secret(secret: str, count: int, site: Path):
    text = f"""\
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {{name: inner, namespace: shop}}
spec: {{secretName: {secret}, dnsNames: [a.example.org], issuerRef: {{kind: ClusterIssuer, name: letsencrypt-staging}}}}
"""
    assert len(reported(edited(site, text), "reference")) == count


@pytest.mark.parametrize(("note", "count"), [("", 1), ("argocd.argoproj.io/hook: Sync", 0)])
def test_a_job_that_deletes_itself_is_a_hook(note: str, count: int, site: Path):
    text = JOB.replace("NOTE", note).replace("spec:\n", "spec:\n  ttlSecondsAfterFinished: 60\n", 1)
    assert len(reported(edited(site, text), "valid")) == count


@pytest.mark.parametrize(
    ("pool", "note", "count"),
    [("mqtt", "", 1), ("mqtt", "lbipam.cilium.io/sharing-key: lan", 0)],
)
def test_a_pool_has_an_address_for_each_service(pool: str, note: str, count: int, site: Path):
    lines = reported(edited(site, BALANCER.replace("POOL", pool).replace("NOTE", note)), "address")
    assert [line for line in lines if "gets no address" in line][:2] == lines
    assert len(lines) == count


def test_a_generated_config_map_has_a_largest_size(site: Path):
    (site / "site/shop/big.txt").write_text("x" * 1_100_000)
    entry = "  - {name: big, namespace: shop, files: [big.txt]}\n"
    edit = ("shop/kustomization.yaml", "configMapGenerator:\n", f"configMapGenerator:\n{entry}")
    assert reported(edited(site, CONFIG.replace("NOTE", ""), edit), "listing") == [
        "ConfigMap big has 1074 KiB, and Kubernetes takes 1024 KiB"
    ]
