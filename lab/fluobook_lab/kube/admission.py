"""Admission: PodSecurity, the node restriction, signers of certificates, and namespaces that are being deleted."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.oid import NameOID

from fluobook.kubernetes.pod_security import violations
from fluobook_lab.kube.access import NODE_PREFIX
from fluobook_lab.kube.errors import ApiError, bad_request, forbidden, invalid
from fluobook_lab.kube.objects import Obj, condition, labels_of, name_of

if TYPE_CHECKING:
    from fluobook_lab.kube.access import User, Write
    from fluobook_lab.kube.resources import Resource


LABEL = "pod-security.kubernetes.io/"
EXEMPT = frozenset({"kube-system"})
DEFAULTS = {"enforce": "baseline", "warn": "restricted"}
"""Talos' AdmissionConfiguration."""


def violation(spec: Obj, namespace: Obj, mode: str) -> str:
    """What in a pod violates the namespace's level; "" if nothing.

    Args:
        spec: the pod's spec.
        namespace: the Namespace it is to live in.
        mode: "enforce" or "warn".
    """
    if namespace["metadata"]["name"] in EXEMPT:
        return ""
    level = labels_of(namespace).get(LABEL + mode, DEFAULTS[mode])
    version = labels_of(namespace).get(f"{LABEL}{mode}-version", "latest")
    problems = violations(spec, level)
    return f'"{level}:{version}": {", ".join(problems)}' if problems else ""


_WORKLOADS = frozenset({"deployments", "replicasets", "daemonsets", "statefulsets", "jobs"})
_FOR_EVER = frozenset({"default", "kube-system", "kube-public"})
_RESERVED = ("node-role.kubernetes.io/", "node-restriction.kubernetes.io/")


def namespace_is_open(resource: Resource, name: str, namespace: Obj | None, wanted: str) -> None:
    """Refuse to create in a namespace that is not there or is going.

    Raises:
        ApiError: 404 or 403.
    """
    if namespace is None:
        error = ApiError(404, "NotFound", f'namespaces "{wanted}" not found', {"name": wanted, "kind": "namespaces"})
        raise error
    if namespace["metadata"].get("deletionTimestamp"):
        why = f"unable to create new content in namespace {wanted} because it is being terminated"
        error = forbidden(resource, name, why)
        error.details["causes"] = [
            {
                "reason": "NamespaceTerminating",
                "message": f"namespace {wanted} is being terminated",
                "field": "metadata.namespace",
            }
        ]
        raise error


def may_be_deleted(resource: Resource, name: str) -> None:
    """Refuse to delete the namespaces that a cluster cannot be without.

    Raises:
        ApiError: 403.
    """
    if resource.store_key == ("", "namespaces") and name in _FOR_EVER:
        raise forbidden(resource, name, "this namespace may not be deleted")


def pod_security(resource: Resource, obj: Obj, namespace: Obj, write: Write) -> None:
    """Refuse pods that break the namespace's level, and warn of workloads that would.

    Raises:
        ApiError: 403.
    """
    if resource.store_key == ("", "pods"):
        if why := violation(obj["spec"], namespace, "enforce"):
            raise forbidden(resource, name_of(obj), f"violates PodSecurity {why}")
        spec = obj["spec"]
    elif resource.plural in _WORKLOADS and not resource.custom:
        spec = obj["spec"].get("template", {}).get("spec", {})
    else:
        return
    if why := violation(spec, namespace, "warn"):
        write.warnings.append(f"would violate PodSecurity {why}")


def node_restriction(resource: Resource, old: Obj | None, new: Obj, user: User) -> None:
    """Refuse what a kubelet may not change.

    Raises:
        ApiError: 403.
    """
    if not user.node:
        return
    if resource.plural == "certificatesigningrequests" and old is None:
        _own_request_only(resource, new, user)
    if resource.store_key == ("", "nodes"):
        if name_of(new) != user.node:
            raise forbidden(
                resource, name_of(new), f'node "{user.node}" is not allowed to modify node "{name_of(new)}"'
            )
        _own_labels_only(resource, old, new, user)


def _own_request_only(resource: Resource, new: Obj, user: User) -> None:
    if not new["spec"].get("signerName", "").endswith(("kubelet-serving", "client-kubelet")):
        return
    names = certificate_request(resource, new).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if [name.value for name in names] != [NODE_PREFIX + user.node]:
        raise forbidden(resource, name_of(new), f"can only create a node CSR with CN={NODE_PREFIX}{user.node}")


def _own_labels_only(resource: Resource, old: Obj | None, new: Obj, user: User) -> None:
    before = labels_of(old) if old else {}
    changed = {key for key in {*before, *labels_of(new)} if before.get(key) != labels_of(new).get(key)}
    if bad := sorted(key for key in changed if key.startswith(_RESERVED)):
        why = f"is not allowed to modify labels: {', '.join(bad)}"
        raise forbidden(resource, name_of(new), why)
    if old is not None and (old.get("spec") or {}).get("taints") != (new.get("spec") or {}).get("taints"):
        raise forbidden(resource, name_of(new), f'node "{user.node}" is not allowed to modify taints')


def certificate_request(resource: Resource, obj: Obj) -> x509.CertificateSigningRequest:
    """The PKCS#10 request inside a CertificateSigningRequest.

    Raises:
        ApiError: 422, it cannot be read; 400, it is not base64.
    """
    try:
        pem = base64.b64decode(obj["spec"].get("request", ""), validate=True)
    except (binascii.Error, ValueError) as error:
        raise bad_request(f"CertificateSigningRequest: spec.request: {error}") from error
    try:
        return x509.load_pem_x509_csr(pem)
    except ValueError as error:
        problem = f'Invalid value: "{obj["spec"]["request"]}": PEM block type must be CERTIFICATE REQUEST'
        raise invalid(resource, name_of(obj), [("spec.request", problem)]) from error


def longhorn_node(resource: Resource, old: Obj, new: Obj | None, replicas: int = 0, engines: int = 0) -> None:
    """What Longhorn's webhook refuses of its nodes: eviction while scheduling is on, to delete one or a disk in use.

    Args:
        resource: of the object; others than Longhorn's nodes pass.
        old: the node.
        new: what it becomes; None to delete it.
        replicas: how many are on it.
        engines: how many run on it.

    Raises:
        ApiError: 403, 422.
    """
    if resource.store_key != ("longhorn.io", "nodes"):
        return
    webhook, name, spec = 'admission webhook "validator.longhorn.io" denied the request: ', name_of(old), old["spec"]
    if new is not None:
        if new["spec"].get("evictionRequested") and new["spec"].get("allowScheduling"):
            why = f"need to disable scheduling on node {name} for node eviction, or cancel eviction"
            raise ApiError(422, "Invalid", webhook + why)
        status = (old.get("status") or {}).get("diskStatus") or {}
        for disk, each in (spec.get("disks") or {}).items():
            used = each.get("allowScheduling") or (status.get(disk) or {}).get("storageScheduled")
            if disk not in (new["spec"].get("disks") or {}) and used:
                why = f"delete Disk on node {name} error: Please disable the disk {disk} first"
                raise ApiError(422, "Invalid", webhook + why)
        return
    ready = condition(old, "Ready") or {"status": "Unknown", "reason": ""}
    gone = ready["status"] == "False" and ready.get("reason") in ("KubernetesNodeGone", "ManagerPodMissing")
    if not gone or spec.get("allowScheduling") or replicas or engines:
        why = (
            f"could not delete node {name} with node ready condition is {ready['status']}, reason is "
            f"{ready.get('reason', '')}, node schedulable {str(bool(spec.get('allowScheduling'))).lower()}, and "
            f"{replicas} replica, {engines} engine running on it"
        )
        raise ApiError(403, "Forbidden", webhook + why)
