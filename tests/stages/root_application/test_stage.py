"""Stage 8 against a lab: everything becomes healthy, a push is followed, and a stuck Application is named."""

from __future__ import annotations

import pytest
import yaml
from fluobook_lab.charts import repository_path

from fluobook.errors import ApprovalNeeded, CheckFailed, DeadlineExceeded, TaskFailed
from fluobook.failures import present
from fluobook.gitops import backups
from fluobook.stages import health
from fluobook.stages.core import executor, readiness

NAME = "root-application"
BEFORE = (
    "create-vms",
    "apply-talos-config",
    "bootstrap-kubernetes",
    "approve-csrs",
    "privileged-namespaces",
    "sops-age-key",
    "install-argocd",
)
API = "argoproj.io/v1alpha1"
MANIFEST = "cluster-gitops/infrastructure/namespaces/fluodata.yaml"
pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def cluster(shared_labs):
    lab = shared_labs()
    lab.bring_up(*BEFORE, NAME)
    return lab


@pytest.fixture
def lab(cluster):
    cluster.mark()
    return cluster


def push(lab, **files):
    """Push files by their paths."""
    name = repository_path(lab.chosen.platform.gitops.repository)
    return lab.background.call(lab.environment.git.commit, name, files)


def manifest(lab, *others, **labels):
    document = yaml.safe_load((lab.context().root / MANIFEST).read_text())
    document["metadata"]["labels"] |= labels
    return yaml.safe_dump_all([document, *others])


def live(lab, kind, name, namespace=""):
    return lab.background.call(lab.environment.kubernetes.store.find, "v1", kind, name, namespace)


def test_the_second_run_has_nothing_to_do_and_changes_nothing(lab):
    stage = lab.stage(NAME)
    assert stage.plan().actions == ()
    stage.apply(stage.plan())
    stage.verify()
    assert lab.requests(mutating=True) == []


def test_argocd_manages_itself_from_then_on(lab):
    stage = lab.stage("install-argocd")
    assert stage.plan().actions == ()
    stage.verify()
    assert lab.requests(mutating=True) == []


def test_every_check_has_a_result_and_none_shows_the_password(lab):
    checks = lab.stage(NAME).verify()
    secret = live(lab, "Secret", "argocd-initial-admin-secret", "argocd")
    assert secret is not None
    assert all(check.result for check in checks.checks)
    assert "port-forward" in str(checks)
    assert "→" in next(check.result for check in checks.checks if "wave" in check.name)


def test_a_push_is_planned_followed_and_verified(lab):
    push(lab, **{MANIFEST: manifest(lab, team="day")})
    stage = lab.stage(NAME)
    plan = stage.plan()
    assert {"await namespaces", "await root"} <= {action.id for action in plan.actions}
    stage.apply(plan)
    stage.verify()
    assert live(lab, "Namespace", "fluodata")["metadata"]["labels"]["team"] == "day"
    assert lab.stage(NAME).plan().actions == ()


def test_a_sync_that_fails_names_the_application_and_the_object_and_the_next_push_fixes_it(lab):
    broken = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "broken", "namespace": "fluodata"}}
    push(lab, **{MANIFEST: manifest(lab, {**broken, "spec": {"ports": [{"port": "eighty"}]}})})
    stage = lab.stage(NAME)
    with pytest.raises(TaskFailed, match=r"Application namespaces \(wave -4\) could not be synced") as caught:
        stage.apply(stage.plan())
    assert caught.value.cause.startswith("Service fluodata/broken: ")
    push(lab, **{MANIFEST: manifest(lab)})
    lab.bring_up(NAME)
    assert lab.stage(NAME).plan().actions == ()


def test_a_source_that_cannot_be_built_ends_the_wait_and_the_next_push_fixes_it(lab):
    path = "cluster-gitops/infrastructure/namespaces/kustomization.yaml"
    kustomization = (lab.context().root / path).read_text()
    push(lab, **{path: kustomization + "  - missing.yaml\n"})
    stage = lab.stage(NAME)
    with pytest.raises(TaskFailed, match=r"Application namespaces \(wave -4\) cannot be built: .*missing\.yaml"):
        stage.apply(stage.plan())
    push(lab, **{path: kustomization})
    lab.bring_up(NAME)
    assert lab.stage(NAME).plan().actions == ()


ROUTES = "cluster-gitops/infrastructure/ingress-nginx/routes/"


@pytest.fixture
def push_stuck(lab):
    """Push a Deployment of an Application in wave 1 whose pod has these settings; it is removed at the end."""
    kustomization = (lab.context().root / ROUTES / "kustomization.yaml").read_text()

    def push_pod(**settings):
        pod = {"containers": [{"name": "a", "image": settings.pop("image", "a:1")}], **settings}
        template = {"metadata": {"labels": {"app": "stuck"}}, "spec": pod}
        spec = {"selector": {"matchLabels": {"app": "stuck"}}, "template": template}
        metadata = {"name": "stuck", "namespace": "argocd"}
        stuck = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}
        files = {f"{ROUTES}stuck.yaml": yaml.safe_dump(stuck)}
        push(lab, **files, **{f"{ROUTES}kustomization.yaml": kustomization + "  - stuck.yaml\n"})

    yield push_pod
    push(lab, **{f"{ROUTES}stuck.yaml": None, f"{ROUTES}kustomization.yaml": kustomization})
    lab.bring_up(NAME)


def test_a_timeout_names_the_application_and_its_first_unhealthy_object(lab, push_stuck):
    push_stuck(nodeSelector={"there": "is-none"})
    lab.until(lambda: [action.id for action in lab.stage(NAME).plan().actions] == ["await routes", "await root"])
    lab.until(lambda: "Unschedulable" in str(lab.context().kube().list("v1", "Pod", "argocd")))
    stage = lab.stage(NAME, "deadlines.applications=5")
    with pytest.raises(
        DeadlineExceeded, match=r"timed out after 5 s waiting for Application routes \(wave 1\)"
    ) as caught:
        stage.apply(stage.plan())
    assert caught.value.cause.startswith("Deployment argocd/stuck: 0 of 1 pods are ready; stuck-")
    assert ": Unschedulable: 0/" in caught.value.cause
    assert present(caught.value).failure == "F139 No node takes the pod"


def test_a_pod_that_no_waiting_makes_run_is_shown_and_ends_the_wait(lab, push_stuck, monkeypatch):
    messages = []
    monkeypatch.setattr(executor.Reporter, "__call__", lambda _, message: messages.append(message))
    monkeypatch.setattr(readiness, "PAUSE", 0.5)
    monkeypatch.setattr(readiness, "DOUBT", 1.0)
    push_stuck(image="Example.org/A:1")
    stage = lab.stage(NAME)
    with pytest.raises(
        TaskFailed, match=r"Application routes .* cannot become healthy: pod stuck-\S+, container a: Inv"
    ):
        stage.apply(stage.plan())
    assert any("; stuck-" in message and "InvalidImageName" in message for message in messages)


def backup_gates(lab, *settings):
    """The gates about backups, as notebook 20_health reads them."""
    (group,) = (group for group in health.GROUPS if group.name == "backups can be read")
    return {check.name: check for check in group.checks(lab.context(*settings))}


def restore_of_the_how_to(lab):
    """The manifest of docs/how-to/back-up-data.md that restores PostgreSQL."""
    text = (lab.context().root / "docs" / "how-to" / "back-up-data.md").read_text()
    blocks = [part.partition("```")[0] for part in text.split("```yaml\n")[1:]]
    (block,) = (block for block in blocks if block.startswith("apiVersion: postgresql.cnpg.io"))
    return yaml.safe_load(block)


def phase_of(lab, cluster):
    find, metadata = lab.environment.kubernetes.store.find, cluster["metadata"]
    found = lab.background.call(find, cluster["apiVersion"], "Cluster", metadata["name"], metadata["namespace"])
    status = found.get("status") or {}
    return status.get("phase"), status.get("phaseReason")


def export_job(lab, name):
    """What `kubectl create job --from=cronjob/rabbitmq-definitions NAME` creates."""
    cron_job = lab.background.call(
        lab.environment.kubernetes.store.get, "batch/v1", "CronJob", "rabbitmq-definitions", "fluodata"
    )
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": "rabbitmq-definitions", "controller": True}
    owner["uid"] = cron_job["metadata"]["uid"]
    metadata = {"name": name, "namespace": "fluodata", "ownerReferences": [owner]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {**cron_job["spec"]["jobTemplate"]["spec"], "backoffLimit": 0},
    }


@pytest.mark.timeout(400)
def test_a_bucket_brings_backups_and_they_go_with_it_while_the_data_stays(lab):
    wanted = "backups.bucket=fluodata-backups"
    gate = "every PostgreSQL cluster with a schedule can be restored"
    exported = "every export has succeeded"
    assert not {gate, exported} & set(backup_gates(lab))
    store = lab.environment.kubernetes.store
    for secret in (backups.LONGHORN, backups.DATA):
        metadata = {"name": secret.name, "namespace": secret.namespace}
        data = dict.fromkeys(backups.KEYS, "eA==")
        lab.background.call(store.create, {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
    stage = lab.stage(NAME, wanted)
    stage.apply(stage.plan())
    stage.verify()
    assert lab.stage(NAME, wanted).plan().actions == ()
    lab.background.call(store.delete, "v1", "Secret", backups.DATA.name, backups.DATA.namespace)
    with pytest.raises(CheckFailed, match=r"1 of 2; Secret fluodata/fluodata-backup does not exist"):
        lab.stage(NAME, wanted).verify().require()
    lab.background.call(store.create, {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
    lab.until(lambda: backup_gates(lab, wanted)[gate].passed)
    assert backup_gates(lab, wanted)["every backup target is available"].passed
    lab.add_fault("kube.bucket-unreachable")
    lab.until(lambda: "its write-ahead log is not archived" in backup_gates(lab, wanted)[gate].result)
    lab.background.call(store.create, export_job(lab, "fails"))
    lab.until(lambda: "failed at" in backup_gates(lab, wanted)[exported].result)
    lab.inject()
    lab.until(lambda: backup_gates(lab, wanted)[gate].passed)
    restored = restore_of_the_how_to(lab)
    lab.background.call(store.create, restored)
    foreign = {**restored, "metadata": {**restored["metadata"], "name": "foreign"}}
    lost = yaml.safe_load(yaml.safe_dump(foreign).replace("serverName: fluodata-pg", "serverName: lost"))
    lab.background.call(store.create, lost)
    lab.until(lambda: phase_of(lab, restored)[0] == "Cluster in healthy state")
    lab.until(lambda: phase_of(lab, lost) == ("Setting up primary", "no target backup found for fluodata-pg"))
    lab.background.call(store.create, export_job(lab, "succeeds"))
    lab.until(lambda: backup_gates(lab, wanted)[exported].passed)
    plan = lab.stage(NAME).plan()
    deletions = [action.id for action in plan.actions if action.verb == "delete"]
    assert deletions == [
        "delete application postgresql-backups",
        "delete application rabbitmq-backups",
        "delete application barman-cloud",
    ]
    approved = lab.stage(NAME, approve=f"{NAME}={plan.digest}")
    approved.apply(approved.plan())
    approved.verify()
    cluster = lab.background.call(store.find, "postgresql.cnpg.io/v1", "Cluster", "fluodata-pg", "fluodata")
    assert "plugins" not in cluster["spec"]
    for name in ("fluodata-pg-drill", "foreign"):
        lab.background.call(store.delete, "postgresql.cnpg.io/v1", "Cluster", name, "fluodata")
    assert lab.stage(NAME).plan().actions == ()


@pytest.mark.timeout(400)
def test_a_component_that_is_left_out_is_deleted_with_its_data_only_if_that_is_approved(lab):
    without = "gitops.without=[scylladb]"
    stage = lab.stage(NAME, without)
    plan = stage.plan()
    deletions = [action for action in plan.actions if action.verb == "delete"]
    assert [action.id for action in deletions] == [
        "delete application scylladb",
        "delete application scylla-operator",
        "delete namespace scylla",
        "delete namespace scylla-operator",
    ]
    assert deletions[0].needs == ("apply root",)
    assert deletions[1].needs == ("delete application scylladb",)
    assert deletions[0].detail == "with ScyllaCluster scylla/fluodata"
    assert "claim data-fluodata" in deletions[2].detail
    assert plan.destroys == ("scylladb", "scylla-operator", "scylla")
    with pytest.raises(ApprovalNeeded, match="needs approval"):
        stage.apply(plan)
    assert lab.requests("kubernetes", mutating=True) == []
    approved = lab.stage(NAME, without, approve=f"{NAME}={plan.digest}")
    approved.apply(approved.plan())
    approved.verify()
    assert lab.stage(NAME, without).plan().actions == ()
    assert live(lab, "Namespace", "scylla") is None
    find = lab.environment.kubernetes.store.find
    kinds = ("scyllaclusters.scylla.scylladb.com", "clusters.postgresql.cnpg.io")
    assert all(lab.background.call(find, "apiextensions.k8s.io/v1", "CustomResourceDefinition", kind) for kind in kinds)
    assert lab.background.call(find, "postgresql.cnpg.io/v1", "Cluster", "fluodata-pg", "fluodata")
