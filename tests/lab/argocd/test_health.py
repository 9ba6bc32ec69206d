"""Health of objects: Argo CD's own checks, and the operator's Lua in a sandbox."""

import pytest
from fluobook_lab.argocd.health import HealthChecks

from fluobook.kubernetes.health_scripts import ScriptError


def obj(api_version, kind, status=None, spec=None, **metadata):
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": "x", "generation": 2, **metadata},
        "spec": spec or {},
        "status": status or {},
    }


def conditions(**by_type):
    return {"conditions": [{"type": kind, "status": status} for kind, status in by_type.items()]}


ROLLED = {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, "readyReplicas": 2}
BALANCED = {"type": "LoadBalancer"}
RABBIT = "rabbitmq.com/v1beta1"
ON_NODES = {"observedGeneration": 2, "desiredNumberScheduled": 3, "updatedNumberScheduled": 3, "numberAvailable": 3}


@pytest.mark.parametrize(
    ("obj", "verdict"),
    [
        (obj("apps/v1", "Deployment", ROLLED, {"replicas": 2}), "Healthy"),
        (obj("apps/v1", "Deployment", {**ROLLED, "observedGeneration": 1}, {"replicas": 2}), "Progressing"),
        (obj("apps/v1", "Deployment", {**ROLLED, "updatedReplicas": 1}, {"replicas": 2}), "Progressing"),
        (obj("apps/v1", "Deployment", {**ROLLED, "replicas": 3}, {"replicas": 2}), "Progressing"),
        (obj("apps/v1", "Deployment", {**ROLLED, "availableReplicas": 1}, {"replicas": 2}), "Progressing"),
        (obj("apps/v1", "Deployment", ROLLED, {"replicas": 2, "paused": True}), "Suspended"),
        (
            obj(
                "apps/v1",
                "Deployment",
                {**ROLLED, "conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]},
            ),
            "Degraded",
        ),
        (obj("apps/v1", "StatefulSet", ROLLED, {"replicas": 2}), "Healthy"),
        (obj("apps/v1", "StatefulSet", {**ROLLED, "readyReplicas": 1}, {"replicas": 2}), "Progressing"),
        (
            obj("apps/v1", "StatefulSet", {**ROLLED, "updateRevision": "b", "currentRevision": "a"}, {"replicas": 2}),
            "Progressing",
        ),
        (obj("apps/v1", "StatefulSet"), "Progressing"),
        (obj("apps/v1", "DaemonSet", ON_NODES), "Healthy"),
        (obj("apps/v1", "DaemonSet", {**ON_NODES, "numberAvailable": 2}), "Progressing"),
        (obj("batch/v1", "Job", conditions(Complete="True")), "Healthy"),
        (obj("batch/v1", "Job", conditions(Failed="True")), "Degraded"),
        (obj("batch/v1", "Job"), "Progressing"),
        (obj("v1", "PersistentVolumeClaim", {"phase": "Bound"}), "Healthy"),
        (obj("v1", "PersistentVolumeClaim", {"phase": "Pending"}), "Progressing"),
        (obj("v1", "PersistentVolumeClaim", {"phase": "Lost"}), "Degraded"),
        (obj("v1", "Service"), "Healthy"),
        (obj("v1", "Service", spec=BALANCED), "Progressing"),
        (
            obj("v1", "Service", {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}, {"type": "LoadBalancer"}),
            "Healthy",
        ),
        (obj("networking.k8s.io/v1", "Ingress"), "Progressing"),
        (obj("apiextensions.k8s.io/v1", "CustomResourceDefinition", conditions(Established="True")), "Healthy"),
        (obj("apiextensions.k8s.io/v1", "CustomResourceDefinition"), "Progressing"),
        (obj("apiextensions.k8s.io/v1", "CustomResourceDefinition", conditions(NamesAccepted="False")), "Degraded"),
        (obj("cert-manager.io/v1", "Certificate", conditions(Ready="True")), "Healthy"),
        (obj("cert-manager.io/v1", "Certificate", conditions(Issuing="True", Ready="False")), "Progressing"),
        (obj("cert-manager.io/v1", "ClusterIssuer", conditions(Ready="False")), "Degraded"),
        (obj("postgresql.cnpg.io/v1", "Cluster", {"phase": "Cluster in healthy state"}), "Healthy"),
        (obj("postgresql.cnpg.io/v1", "Cluster", {"phase": "Setting up primary"}), "Progressing"),
        (
            obj(
                "rabbitmq.com/v1beta1", "RabbitmqCluster", conditions(ReconcileSuccess="True", AllReplicasReady="True")
            ),
            "Healthy",
        ),
        (obj(RABBIT, "RabbitmqCluster", conditions(ReconcileSuccess="False")), "Degraded"),
        (
            obj("v1", "PersistentVolumeClaim", {"phase": "Bound"}, deletionTimestamp="2026-01-01T00:00:00Z"),
            "Progressing",
        ),
    ],
)
def test_the_built_in_checks(obj, verdict):
    assert HealthChecks({}).health(obj).status == verdict


@pytest.mark.parametrize("kind", ["ConfigMap", "Namespace", "Secret"])
def test_kinds_without_health_have_none(kind):
    assert HealthChecks({}).health(obj("v1", kind)) is None


def test_an_application_has_no_health_without_lua():
    child = obj("argoproj.io/v1alpha1", "Application", {"health": {"status": "Degraded"}})
    assert HealthChecks({}).health(child) is None
    script = "return {status = obj.status.health.status, message = 'degraded'}"
    health = HealthChecks({"argoproj.io_Application": script}).health(child)
    assert (health.status, health.message) == ("Degraded", "degraded")


def test_lua_precedes_the_built_in_check_and_may_apply_to_a_whole_group():
    script = "return {status = 'Suspended'}"
    assert HealthChecks({"apps_Deployment": script}).health(obj("apps/v1", "Deployment", ROLLED)).status == "Suspended"
    assert (
        HealthChecks({"*.example.org_Widget": script}).health(obj("a.example.org/v1", "Widget")).status == "Suspended"
    )
    assert HealthChecks({"ConfigMap": script}).health(obj("v1", "ConfigMap")).status == "Suspended"


def test_lua_sees_lists_from_one_and_null_as_nil():
    script = """
    local count = 0
    for _, item in ipairs(obj.list) do count = count + item end
    if obj.none == nil and obj.list[1] == 1 then return {status = 'Healthy', message = tostring(count)} end
    """
    assert HealthChecks({"x": script}).scripted({"kind": "x", "list": [1, 2], "none": None}).message == "3"


@pytest.mark.parametrize(
    "script",
    [
        "return io.open('/etc/passwd')",
        "return os.execute('true')",
        "return os.getenv('HOME')",
        "return require('os')",
        "return python.eval('1')",
        "return load('return 1')()",
        "return debug.getregistry()",
        "while true do end",
        "local s = 'x' while true do s = s .. s end",
        "return {status = 'Splendid'}",
        "return 'Healthy'",
        "this is no Lua",
    ],
)
def test_lua_is_sandboxed_and_must_return_a_status(script):
    with pytest.raises(ScriptError):
        HealthChecks({"x": script}).scripted({"kind": "x", "a": 1})


def test_a_broken_check_makes_the_object_unknown():
    health = HealthChecks({"x": "error('no')"}).health(obj("v1", "x"))
    assert health.status == "Unknown"
    assert "no" in health.message


def test_a_check_does_not_affect_the_next_one():
    checks = HealthChecks(
        {"a": "leak = 1 return {status = 'Healthy'}", "b": "return {status = leak and 'Degraded' or 'Healthy'}"}
    )
    assert checks.scripted({"kind": "a"}).status == "Healthy"
    assert checks.scripted({"kind": "b"}).status == "Healthy"
