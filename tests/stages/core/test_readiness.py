"""Why an object is not ready, in words."""

from __future__ import annotations

import pytest

from fluobook.errors import Unreachable
from fluobook.stages.core import readiness
from fluobook.stages.core.readiness import WaitingPods, failed, not_issued, why_its_pods_wait, why_not, why_pods_wait


def workload(kind="Deployment", replicas=1, generation=2, **status):
    spec = {} if kind == "DaemonSet" else {"replicas": replicas}
    return {"kind": kind, "metadata": {"generation": generation}, "spec": spec, "status": status}


def well(count=1):
    return {"observedGeneration": 2, "updatedReplicas": count, "readyReplicas": count}


def condition(kind, name, status, message=""):
    return {
        "kind": kind,
        "metadata": {},
        "status": {"conditions": [{"type": name, "status": status, "message": message}]},
    }


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        (workload(**well()), ""),
        (workload(replicas=0, observedGeneration=2), ""),
        (workload(replicas=3, **well(2)), "2 of 3 pods are ready"),
        (workload(**{**well(), "observedGeneration": 1}), "has not been observed by its controller yet"),
        (workload(**{**well(), "updatedReplicas": 0}), "0 of 1 pods are ready"),
        (
            workload("DaemonSet", observedGeneration=2, desiredNumberScheduled=3, updatedNumberScheduled=3),
            "0 of 3 pods are ready",
        ),
        ({"kind": "PersistentVolumeClaim", "metadata": {}, "status": {"phase": "Pending"}}, "is Pending"),
        ({"kind": "PersistentVolumeClaim", "metadata": {}, "status": {"phase": "Bound"}}, ""),
        ({"kind": "Job", "metadata": {}}, "is not done yet"),
        (condition("Job", "Complete", "True"), ""),
        (condition("Job", "Failed", "True", "BackoffLimitExceeded"), "BackoffLimitExceeded"),
        (condition("Cluster", "Ready", "False", "Cluster is not ready"), "Cluster is not ready"),
        ({"kind": "ConfigMap", "metadata": {}}, ""),
    ],
)
def test_the_reason_is_reported(obj, message):
    assert why_not(obj) == message


def test_a_part_of_kubernetes_that_is_scaled_to_zero_is_not_ready_and_an_application_is():
    stopped = workload(replicas=0, observedGeneration=2)
    of_talos = stopped | {"metadata": {"generation": 2, "namespace": "kube-system"}}
    assert why_not(of_talos) == "is scaled to 0"
    assert why_not(stopped | {"metadata": {"generation": 2, "namespace": "argocd"}}) == ""


def test_only_a_failed_job_is_given_up():
    assert failed(condition("Job", "Failed", "True"))
    assert not failed(condition("Job", "Complete", "True"))


def test_what_is_not_issued_is_named_with_its_reason():
    objects = [
        condition("ClusterIssuer", "Ready", "False", "no route") | {"metadata": {"name": "acme"}},
        condition("Certificate", "Ready", "True") | {"metadata": {"name": "issued", "namespace": "a"}},
        {"kind": "Certificate", "metadata": {"name": "new", "namespace": "a"}},
    ]
    assert not_issued(objects) == ["ClusterIssuer acme: no route", "Certificate a/new: has no status yet"]


class Pods:
    """The pods of one namespace; the last label selector is noted."""

    def __init__(self, *pods):
        self.pods, self.selector = pods, None

    def list(self, _version, _kind, _namespace, labels=""):
        self.selector = labels
        return self.pods


def waiting_pod(name, reason, **last):
    state = {"name": "main", "state": {"waiting": {"reason": reason, "message": "back-off"}}, "lastState": last}
    return {"metadata": {"name": name}, "status": {"containerStatuses": [state]}}


CRASHING = waiting_pod("fluodata-dc1-rack1-0", "CrashLoopBackOff", terminated={"exitCode": 71})
PULLING = waiting_pod("fluodatabase-0", "ImagePullBackOff")
SELECTOR = {"selector": {"matchLabels": {"app": "web"}}}


@pytest.mark.parametrize(
    ("version", "kind", "spec", "reason"),
    [
        (
            "scylla.scylladb.com/v1",
            "ScyllaCluster",
            {},
            "fluodata-dc1-rack1-0, container main: CrashLoopBackOff: exit code 71: back-off",
        ),
        ("apps/v1", "Deployment", SELECTOR, "fluodatabase-0, container main: ImagePullBackOff: back-off"),
        ("apps/v1", "Deployment", {}, ""),
        ("v1", "ConfigMap", {}, ""),
        ("networking.k8s.io/v1", "Ingress", {}, ""),
    ],
)
def test_the_pods_of_an_object_say_why_it_waits(version, kind, spec, reason):
    pods = Pods(PULLING, CRASHING)
    obj = {"apiVersion": version, "kind": kind, "metadata": {"name": "fluodata", "namespace": "scylla"}, "spec": spec}
    assert why_its_pods_wait(pods, obj) == reason
    assert pods.selector == ("app=web" if spec else "" if kind == "ScyllaCluster" else None)


def test_objects_without_a_namespace_have_no_pods():
    obj = {"apiVersion": "cilium.io/v2", "kind": "CiliumLoadBalancerIPPool", "metadata": {"name": "ingress"}}
    assert why_its_pods_wait(Pods(CRASHING), obj) == ""


def kube_pod(name, *conditions, containers=(), phase="Pending"):
    at = {"lastTransitionTime": "2026-01-02T03:04:05Z"}
    listed = [{"type": kind, "status": status, **at, **rest} for kind, status, rest in conditions]
    return {
        "metadata": {"name": name},
        "status": {"phase": phase, "conditions": listed, "containerStatuses": containers},
    }


def container(waits_for, text="", **ended):
    last = {"lastState": {"terminated": ended}} if ended else {}
    return {"name": "main", "state": {"waiting": {"reason": waits_for, "message": text}}, **last}


class Namespace:
    """Pods and warnings of one namespace."""

    def __init__(self, *pods, events=()):
        self.objects = {"Pod": list(pods), "Event": list(events)}

    def list(self, _version, kind, _namespace):
        return self.objects[kind]


def warning(pod, at, message, kind="Warning"):
    about = {"involvedObject": {"kind": "Pod", "name": pod}, "reason": "FailedMount", "message": message}
    return {"metadata": {}, "type": kind, "lastTimestamp": at, **about}


UNREADY = ("Ready", "False", {})
FULL = ("PodScheduled", "False", {"reason": "Unschedulable", "message": "0/3 nodes are available"})
KILLED = container("CrashLoopBackOff", "back-off", exitCode=137, reason="OOMKilled", message="out of memory")


@pytest.mark.parametrize(
    ("pod", "events", "reason"),
    [
        (kube_pod("web-1", ("Ready", "True", {})), [], ""),
        (kube_pod("web-1", UNREADY, phase="Succeeded"), [warning("web-1", "1", "late")], ""),
        (kube_pod("other-1", FULL), [], ""),
        (kube_pod("web-1", FULL), [], "web-1: Unschedulable: 0/3 nodes are available (since 03:04:05 UTC)"),
        (
            kube_pod("web-1", UNREADY, containers=[container("ErrImagePull", "not found")]),
            [],
            "web-1, container main: ErrImagePull: not found (since 03:04:05 UTC)",
        ),
        (
            kube_pod("web-1", containers=[KILLED]),
            [],
            "web-1, container main: CrashLoopBackOff: OOMKilled: exit code 137: back-off: out of memory",
        ),
        (kube_pod("web-1", containers=[container("ContainerCreating")]), [], ""),
        (
            kube_pod("web-1", containers=[container("ContainerCreating")]),
            [
                warning("web-1", "2", "secret x"),
                warning("web-1", "1", "old"),
                warning("web-1", "3", "pulled", "Normal"),
            ],
            "web-1: FailedMount: secret x",
        ),
    ],
)
def test_a_pod_that_does_not_run_says_why_and_since_when(pod, events, reason):
    assert next(why_pods_wait(Namespace(pod, events=events), "shop", ["web"]), "") == reason


@pytest.mark.parametrize(
    ("reason", "doubt", "is_lasting"),
    [
        ("web-1, container a: InvalidImageName: …", 0.0, True),
        ("web-1, container a: ErrImageNeverPull: …", 0.0, True),
        ("web-1, container a: CreateContainerConfigError: container has runAsNonRoot and …", 0.0, True),
        ('web-1, container a: CreateContainerConfigError: secret "x" not found', 0.0, False),
        ("web-1, container a: ImagePullBackOff: …", 0.0, False),
        ("web-1: Unschedulable: 0/3 nodes are available", 0.0, False),
        ("web-1, container a: InvalidImageName: …", 1000.0, False),
    ],
)
def test_only_a_reason_that_no_waiting_removes_is_lasting(reason, doubt, is_lasting, monkeypatch):
    monkeypatch.setattr(readiness, "PAUSE", 0.0)
    monkeypatch.setattr(readiness, "DOUBT", doubt)
    assert WaitingPods(lambda: [reason]).reasons() == (reason, reason if is_lasting else "")


def test_pods_are_not_read_at_once_and_an_api_that_is_away_changes_nothing(monkeypatch):
    assert WaitingPods(lambda: ["web-1: no"]).reasons() == ("", "")
    monkeypatch.setattr(readiness, "PAUSE", 0.0)
    answers = iter([["web-1: no"], Unreachable("away", system="kubernetes")])

    def read():
        answer = next(answers)
        if isinstance(answer, Unreachable):
            raise answer
        return answer

    pods = WaitingPods(read)
    assert pods.reasons() == ("web-1: no", "")
    assert pods.reasons() == ("web-1: no", "")
