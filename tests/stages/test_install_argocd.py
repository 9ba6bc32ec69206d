"""Stage 7: Argo CD from its own Application, without a Helm release."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fluobook.errors import FluobookError, NotFound, OutsideError, Rejected, TaskFailed, Unreachable
from fluobook.stages import install_argocd
from fluobook.stages.core import readiness
from fluobook.stages.install_argocd import AFTER, BEFORE, _await, _run_job, hooks_of
from fluobook.waiting import Cancellation, wait_until

NAME = "install-argocd"
STAGES = ("create-vms", "apply-talos-config", "bootstrap-kubernetes", "privileged-namespaces", "sops-age-key")


@pytest.fixture(scope="module")
def cluster(shared_labs):
    lab = shared_labs()
    lab.bring_up(*STAGES)
    return lab


@pytest.fixture
def lab(cluster):
    cluster.bring_up(NAME)
    cluster.mark()
    return cluster


def store(lab, verb, *args):
    return lab.background.call(getattr(lab.environment.kubernetes.store, verb), *args)


@pytest.mark.lab
def test_a_second_run_finds_every_object_up_to_date(lab):
    assert lab.stage(NAME).plan().actions == ()
    lab.bring_up(NAME)
    assert lab.requests(mutating=True) == []


@pytest.mark.lab
def test_no_helm_release_is_created(lab):
    types = [secret.get("type", "") for secret in store(lab, "list", "v1", "Secret", "argocd")]
    assert types
    assert not any(secret_type.startswith("helm.sh") for secret_type in types)


@pytest.mark.lab
def test_argocd_is_the_only_field_manager_of_the_objects_that_it_will_manage(lab):
    server = store(lab, "get", "apps/v1", "Deployment", "argocd-server", "argocd")
    applied = {entry["manager"] for entry in server["metadata"]["managedFields"] if entry["operation"] == "Apply"}
    assert applied == {"argocd-controller"}


@pytest.mark.lab
def test_the_charts_hooks_are_run_to_their_end(lab):
    """The Job has made its Secret, and is deleted."""
    assert store(lab, "get", "v1", "Secret", "argocd-redis", "argocd")["data"]["auth"]
    assert store(lab, "list", "batch/v1", "Job", "argocd") == []


@pytest.mark.lab
def test_the_definitions_of_all_charts_exist_before_argocd_watches_the_cluster(lab):
    definitions = store(lab, "list", "apiextensions.k8s.io/v1", "CustomResourceDefinition")
    created = {item["metadata"]["name"]: item["metadata"]["creationTimestamp"] for item in definitions}
    expected = {"volumes.longhorn.io", "vmrules.operator.victoriametrics.com", "clusters.postgresql.cnpg.io"}
    assert expected <= set(created)
    controller = store(lab, "get", "apps/v1", "StatefulSet", "argocd-application-controller", "argocd")
    assert max(created[name] for name in expected) <= controller["metadata"]["creationTimestamp"]
    manager = {entry["manager"] for item in definitions for entry in item["metadata"].get("managedFields") or ()}
    assert "argocd-controller" in manager


@pytest.mark.lab
def test_a_deleted_object_is_applied_again_and_no_other_is_changed(lab):
    store(lab, "delete", "v1", "Service", "argocd-repo-server", "argocd")
    stage = lab.stage(NAME)
    plan = stage.plan()
    assert plan.actions[0].reason.endswith("missing or differ: Service argocd-repo-server")
    stage.apply(plan)
    stage.verify()
    changed = {r["path"].partition("?")[0].rsplit("/", 1)[-1] for r in lab.requests("kubernetes", mutating=True)}
    assert "argocd-repo-server" in changed
    assert "argocd-cm" not in changed


@pytest.mark.lab
def test_the_digest_does_not_depend_on_mirrors(lab):
    store(lab, "delete", "v1", "ConfigMap", "argocd-cm", "argocd")
    here = lab.context()
    host = next(iter(here.platform.gitops.mirrors))
    elsewhere = lab.context(gitops={"mirrors": {host: here.platform.gitops.mirrors[host] + "/"}})
    assert lab.stage(NAME, context=here).plan().digest == lab.stage(NAME, context=elsewhere).plan().digest


def test_a_chart_that_cannot_be_rendered_is_left_to_argocd_and_what_exists_is_left_alone(monkeypatch):
    charts = {"broken": None, "database": ["new", "old"], install_argocd.APPLICATION: ["own"], "folder": ["other"]}

    def render(_, name):
        if charts[name] is None:
            raise OutsideError("no answer", system="helm")
        return [
            {"apiVersion": "v1", "kind": kind, "metadata": {"name": definition}}
            for definition in charts[name]
            for kind in (install_argocd.DEFINITION, "ConfigMap")
        ]

    applications = [SimpleNamespace(name=name, chart="" if name == "folder" else name) for name in charts]
    tree = SimpleNamespace(applications=applications)
    monkeypatch.setattr(install_argocd.gitops, "of", lambda *_: tree)
    monkeypatch.setattr(install_argocd.gitops, "for_phase", lambda *_: tree)
    monkeypatch.setattr(install_argocd.gitops, "chart_source", lambda _, name: name)
    monkeypatch.setattr(install_argocd.gitops, "render_chart", render)
    kube = SimpleNamespace(find=lambda _version, _kind, name: {} if name == "old" else None)
    context = SimpleNamespace(kube=lambda: kube, platform=None, root=None)
    reports = []
    assert names(install_argocd._definitions(context, reports.append)) == ["new"]
    assert "leaves the CustomResourceDefinitions of broken to Argo CD" in reports[0]


def test_a_definition_that_the_api_did_not_accept_in_time_is_applied_again(monkeypatch):
    answers = [Unreachable("did not answer completely within 30 s", system="kubernetes"), {"kind": "applied"}]
    reports = []

    def apply(_kube, _obj):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def wait(_deadline, what, check, **options):
        return wait_until(check, what=what, timeout=10, cancellation=Cancellation(), interval=0.001, **options)

    monkeypatch.setattr(install_argocd.ssa, "apply", apply)
    context = SimpleNamespace(kube=lambda: None, wait_until=wait)
    definition = {"kind": install_argocd.DEFINITION, "metadata": {"name": "vmrules"}}
    install_argocd._apply_definition(context, definition, reports.append)
    assert (answers, reports) == ([], [])
    answers.append(Rejected("spec.names is required", system="kubernetes"))
    install_argocd._apply_definition(context, definition, reports.append)
    assert reports == ["leaves CustomResourceDefinition vmrules to Argo CD: spec.names is required"]


def hook(name, when, weight=None):
    annotations = {"helm.sh/hook": when} | ({"helm.sh/hook-weight": weight} if weight else {})
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "annotations": annotations}}


def names(objects):
    return [obj["metadata"]["name"] for obj in objects]


def test_hooks_are_ordered_by_weight_and_those_of_one_weight_as_rendered():
    hooks = [
        hook("late", BEFORE, "5"),
        hook("first", BEFORE, "-1"),
        hook("a", BEFORE),
        hook("b", BEFORE),
    ]
    assert names(hooks_of(hooks, BEFORE)) == ["first", "a", "b", "late"]


def test_hooks_of_upgrades_tests_and_deletions_do_not_belong_to_an_installation():
    hooks = [hook("both", "pre-install, pre-upgrade"), hook("test", "test"), hook("gone", "pre-delete")]
    assert names(hooks_of(hooks, BEFORE)) == ["both"]
    assert hooks_of(hooks, AFTER) == ()


class Jobs:
    """A cluster that deletes a Job with a time to live as soon as it is over."""

    def __init__(self, condition):
        self.jobs, self.condition = {}, {"type": condition, "status": "True", "message": "no Secret was made"}

    def create(self, job):
        self.jobs[job["metadata"]["name"]] = {**job, "status": {"conditions": [self.condition]}}
        return job

    def get(self, _api_version, _kind, name, _namespace):
        job = self.jobs[name]
        if job["spec"].get("ttlSecondsAfterFinished"):
            raise NotFound(f"there is no Job {name}")
        return job

    def delete(self, _api_version, _kind, name, _namespace):
        return self.jobs.pop(name, None) is not None

    def wait_until(self, _deadline, what, attempt, **options):
        return wait_until(attempt, what=what, timeout=0.5, cancellation=Cancellation(), **options)


JOB = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "init", "namespace": "argocd"},
    "spec": {"ttlSecondsAfterFinished": 60},
}


def test_how_a_job_of_the_chart_ended_is_seen_although_it_would_be_deleted_at_once():
    done, failed = Jobs("Complete"), Jobs("Failed")
    _run_job(done, done, JOB)
    assert done.jobs == {}
    with pytest.raises(TaskFailed, match=r"hook Job argocd/init failed: .*no Secret was made"):
        _run_job(failed, failed, JOB)
    assert list(failed.jobs) == ["init"], "its log is what the remedy names"


class StuckServer:
    """A context with a Deployment whose one pod waits."""

    def __init__(self, waiting):
        states = [{"name": "server", "state": {"waiting": waiting}}]
        pod = {"metadata": {"name": "argocd-server-x"}, "status": {"containerStatuses": states}}
        self.kube = lambda: self
        self.get = lambda *_: {"kind": "Deployment", "metadata": {"name": "argocd-server"}, "spec": {}}
        self.list = lambda _, kind, __: [pod] if kind == "Pod" else []

    def wait_until(self, _deadline, what, attempt, **options):
        return wait_until(attempt, what=what, timeout=0.5, cancellation=Cancellation(), **options)


@pytest.mark.parametrize(
    ("reason", "error"),
    [("ImagePullBackOff", "timed out"), ("InvalidImageName", "Deployment argocd-server cannot become")],
)
def test_what_a_workload_waits_for_is_shown_and_ends_the_wait_if_it_is_in_vain(reason, error, monkeypatch):
    monkeypatch.setattr(readiness, "PAUSE", 0.0)
    monkeypatch.setattr(readiness, "DOUBT", 0.0)
    messages = []
    context = StuckServer({"reason": reason, "message": "no image"})
    context.find = context.get
    with pytest.raises(FluobookError, match=error):
        _await(context, "Deployment", "argocd-server", messages.append)
    assert all(f"argocd-server-x, container server: {reason}: no image" in message for message in messages)
    assert bool(messages) is (reason == "ImagePullBackOff")
