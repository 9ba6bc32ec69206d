"""What the API server fills in when an object is written: the defaults that clients see and wait for."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluobook_lab.kube.objects import Obj


def fill(resource: str, obj: Obj) -> None:
    """Set the defaults of a built-in object in place; `resource` is its plural, such as "pods"."""
    if filler := _FILLERS.get(resource):
        filler(obj)


def _set(obj: Obj, **values: Any) -> None:
    for key, value in values.items():
        obj.setdefault(key, value)


def _namespace(obj: Obj) -> None:
    _set(obj.setdefault("spec", {}), finalizers=["kubernetes"])
    _set(obj.setdefault("status", {}), phase="Active")
    obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = obj["metadata"]["name"]


def _secret(obj: Obj) -> None:
    clear = obj.pop("stringData", None) or {}
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in clear.items()}
    if encoded:
        obj["data"] = {**(obj.get("data") or {}), **encoded}
    _set(obj, type="Opaque")


def _service(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    _set(spec, type="ClusterIP", sessionAffinity="None")
    if spec["type"] != "ExternalName":
        _set(spec, internalTrafficPolicy="Cluster", ipFamilies=["IPv4"], ipFamilyPolicy="SingleStack")
    if spec["type"] in ("LoadBalancer", "NodePort"):
        _set(spec, externalTrafficPolicy="Cluster")
    if spec["type"] == "LoadBalancer":
        _set(spec, allocateLoadBalancerNodePorts=True)
    for port in spec.get("ports") or []:
        _set(port, protocol="TCP", targetPort=port.get("port"))
    _set(obj, status={"loadBalancer": {}})


def _pod(obj: Obj) -> None:
    if not obj.get("spec", {}).get("nodeName", "chosen"):
        del obj["spec"]["nodeName"]
    _pod_spec(obj.setdefault("spec", {}))
    _set(obj["spec"], serviceAccountName="default", enableServiceLinks=True, preemptionPolicy="PreemptLowerPriority")
    _set(obj["spec"], serviceAccount=obj["spec"]["serviceAccountName"], priority=0)
    _set(obj, status={"phase": "Pending", "qosClass": "BestEffort"})
    listed = obj["spec"].setdefault("tolerations", [])
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if not any(
            item.get("key") in (key, None) and item.get("effect", "NoExecute") == "NoExecute" for item in listed
        ):
            listed.append({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300})


def _pod_spec(spec: Obj) -> None:
    _set(
        spec,
        restartPolicy="Always",
        dnsPolicy="ClusterFirst",
        schedulerName="default-scheduler",
        securityContext={},
        terminationGracePeriodSeconds=30,
    )
    for container in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]:
        _container(container)
    for volume in spec.get("volumes") or []:
        for kind in ("configMap", "secret", "projected", "downwardAPI"):
            if isinstance(volume.get(kind), dict):
                _set(volume[kind], defaultMode=0o644)


def _container(container: Obj) -> None:
    tag = container.get("image", "").rpartition(":")[2]
    always = tag == "latest" or ":" not in container.get("image", "")
    _set(
        container,
        imagePullPolicy="Always" if always else "IfNotPresent",
        terminationMessagePath="/dev/termination-log",
        terminationMessagePolicy="File",
        resources={},
    )
    for port in container.get("ports") or []:
        _set(port, protocol="TCP")


def _template(obj: Obj) -> Obj:
    spec = obj.setdefault("spec", {})
    _pod_spec(spec.setdefault("template", {}).setdefault("spec", {}))
    return spec


def _deployment(obj: Obj) -> None:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}
    spec = _template(obj)
    if not spec.get("paused", True):
        del spec["paused"]
    if not spec.get("strategy"):  # kubectl create sends an empty one
        spec["strategy"] = rolling
    _set(spec, replicas=1, revisionHistoryLimit=10, progressDeadlineSeconds=600)


def _replica_set(obj: Obj) -> None:
    _set(_template(obj), replicas=1)


def _daemon_set(obj: Obj) -> None:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    _set(_template(obj), revisionHistoryLimit=10, updateStrategy=rolling)


def _stateful_set(obj: Obj) -> None:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}
    _set(_template(obj), replicas=1, podManagementPolicy="OrderedReady", revisionHistoryLimit=10)
    _set(obj["spec"], updateStrategy=rolling)


def _job(obj: Obj) -> None:
    _set(_template(obj), backoffLimit=6, completionMode="NonIndexed", suspend=False, parallelism=1, completions=1)
    spec = obj["spec"]
    if "selector" not in spec:  # as the real server does, so that a Job finds its own pods only
        label = {"batch.kubernetes.io/job-name": obj["metadata"].get("name", "")}
        spec["selector"] = {"matchLabels": label}
        metadata = spec["template"].setdefault("metadata", {})
        metadata["labels"] = {**(metadata.get("labels") or {}), **label}


def _cron_job(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    _set(spec, concurrencyPolicy="Allow", suspend=False, successfulJobsHistoryLimit=3, failedJobsHistoryLimit=1)


def _claim(obj: Obj) -> None:
    _set(obj.setdefault("spec", {}), volumeMode="Filesystem")
    _set(obj, status={"phase": "Pending"})


def _storage_class(obj: Obj) -> None:
    _set(obj, reclaimPolicy="Delete", volumeBindingMode="Immediate")


def _csr(obj: Obj) -> None:
    _set(obj, status={})


def _role_binding(obj: Obj) -> None:
    _set(obj.setdefault("roleRef", {}), apiGroup="rbac.authorization.k8s.io")
    for subject in obj.get("subjects") or []:
        _set(subject, **({} if subject.get("kind") == "ServiceAccount" else {"apiGroup": "rbac.authorization.k8s.io"}))


_FILLERS: dict[str, Callable[[Obj], None]] = {
    "namespaces": _namespace,
    "secrets": _secret,
    "services": _service,
    "pods": _pod,
    "deployments": _deployment,
    "replicasets": _replica_set,
    "daemonsets": _daemon_set,
    "statefulsets": _stateful_set,
    "jobs": _job,
    "cronjobs": _cron_job,
    "persistentvolumeclaims": _claim,
    "storageclasses": _storage_class,
    "certificatesigningrequests": _csr,
    "rolebindings": _role_binding,
    "clusterrolebindings": _role_binding,
}
