"""Why an object is not ready, in words."""

from __future__ import annotations

import pytest

from fluobook.stages.core.readiness import failed, not_issued, why_its_pods_wait, why_not


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
            "fluodata-dc1-rack1-0: CrashLoopBackOff: exit code 71: back-off",
        ),
        ("apps/v1", "Deployment", SELECTOR, "fluodatabase-0: ImagePullBackOff: back-off"),
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
