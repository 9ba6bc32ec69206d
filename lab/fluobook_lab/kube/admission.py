"""Admission: PodSecurity, the node restriction, signers of certificates, and namespaces that are being deleted."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.oid import NameOID

from fluobook_lab.kube.access import NODE_PREFIX
from fluobook_lab.kube.errors import ApiError, bad_request, forbidden, invalid
from fluobook_lab.kube.objects import Obj, labels_of, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Check = Callable[[Obj], Iterator[str]]
    from fluobook_lab.kube.access import User, Write
    from fluobook_lab.kube.resources import Resource


LABEL = "pod-security.kubernetes.io/"
EXEMPT = frozenset({"kube-system"})
DEFAULTS = {"enforce": "baseline", "warn": "restricted"}
"""Talos' AdmissionConfiguration."""

_BASELINE_CAPABILITIES = frozenset(
    {
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    }
)
_SAFE_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_syncookies",
    }
)
_RESTRICTED_VOLUMES = frozenset(
    {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
)


def violation(spec: Obj, namespace: Obj, mode: str) -> str:
    """What a pod breaks of the namespace's level, in the plugin's own words; "" if nothing.

    Args:
        spec: the pod's spec.
        namespace: the Namespace it is to live in.
        mode: "enforce" or "warn".
    """
    if namespace["metadata"]["name"] in EXEMPT:
        return ""
    level = labels_of(namespace).get(LABEL + mode, DEFAULTS[mode])
    version = labels_of(namespace).get(f"{LABEL}{mode}-version", "latest")
    if level == "privileged":
        return ""
    found = [words for check in _CHECKS[level] for words in check(spec)]
    return f'"{level}:{version}": {", ".join(found)}' if found else ""


def _containers(spec: Obj) -> list[Obj]:
    return [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]


def _security(container: Obj) -> Obj:
    return container.get("securityContext") or {}


def _named(containers: list[str]) -> str:
    quoted = ", ".join(f'"{name}"' for name in containers)
    return f"container {quoted}" if len(containers) == 1 else f"containers {quoted}"


def _host_namespaces(spec: Obj) -> Iterator[str]:
    if shared := [key for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]:
        yield f"host namespaces ({', '.join(f'{key}=true' for key in shared)})"


def _privileged(spec: Obj) -> Iterator[str]:
    if found := [c.get("name", "") for c in _containers(spec) if _security(c).get("privileged")]:
        yield f"privileged ({_named(found)} must not set securityContext.privileged=true)"


def _capabilities(spec: Obj) -> Iterator[str]:
    for container in _containers(spec):
        added = set((_security(container).get("capabilities") or {}).get("add") or ()) - _BASELINE_CAPABILITIES
        if added:
            listed = ", ".join(f'"{name}"' for name in sorted(added))
            yield (
                f"non-default capabilities ({_named([container['name']])} must not include {listed} "
                "in securityContext.capabilities.add)"
            )


def _host_paths(spec: Obj) -> Iterator[str]:
    if found := [volume["name"] for volume in spec.get("volumes") or [] if "hostPath" in volume]:
        quoted = ", ".join(f'"{name}"' for name in found)
        yield f"hostPath volumes (volume{'s' if len(found) > 1 else ''} {quoted})"


def _host_ports(spec: Obj) -> Iterator[str]:
    for container in _containers(spec):
        ports = [str(port["hostPort"]) for port in container.get("ports") or [] if port.get("hostPort")]
        if ports:
            yield (
                f"hostPort ({_named([container['name']])} uses hostPort{'s' if len(ports) > 1 else ''} "
                f"{', '.join(ports)})"
            )


def _proc_mount(spec: Obj) -> Iterator[str]:
    found = [c.get("name", "") for c in _containers(spec) if _security(c).get("procMount", "Default") != "Default"]
    if found:
        yield f'procMount ({_named(found)} must not set securityContext.procMount to "Unmasked")'


def _sysctls(spec: Obj) -> Iterator[str]:
    names = [item["name"] for item in (spec.get("securityContext") or {}).get("sysctls") or []]
    if found := [name for name in names if name not in _SAFE_SYSCTLS]:
        yield f"forbidden sysctls ({', '.join(found)})"


def _unconfined(spec: Obj) -> Iterator[str]:
    found = [c.get("name", "") for c in _containers(spec) if _seccomp(c) == "Unconfined"]
    if _seccomp(spec) == "Unconfined" or found:
        where = _named(found) if found else "pod"
        yield f'seccompProfile ({where} must not set securityContext.seccompProfile.type to "Unconfined")'


def _seccomp(holder: Obj) -> str:
    return ((holder.get("securityContext") or {}).get("seccompProfile") or {}).get("type", "")


def _escalation(spec: Obj) -> Iterator[str]:
    if found := [
        c.get("name", "") for c in _containers(spec) if _security(c).get("allowPrivilegeEscalation") is not False
    ]:
        yield (
            f"allowPrivilegeEscalation != false ({_named(found)} must set "
            "securityContext.allowPrivilegeEscalation=false)"
        )


def _undropped(spec: Obj) -> Iterator[str]:
    def drops(container: Obj) -> list[str]:
        return (_security(container).get("capabilities") or {}).get("drop") or []

    if found := [c.get("name", "") for c in _containers(spec) if "ALL" not in drops(c)]:
        yield f'unrestricted capabilities ({_named(found)} must set securityContext.capabilities.drop=["ALL"])'


def _volume_types(spec: Obj) -> Iterator[str]:
    for volume in spec.get("volumes") or []:
        if others := set(volume) - {"name"} - _RESTRICTED_VOLUMES:
            yield f'restricted volume types (volume "{volume["name"]}" uses restricted volume type "{others.pop()}")'


def _as_root(spec: Obj) -> Iterator[str]:
    pod = (spec.get("securityContext") or {}).get("runAsNonRoot")
    if found := [c.get("name", "") for c in _containers(spec) if _security(c).get("runAsNonRoot", pod) is not True]:
        yield f"runAsNonRoot != true (pod or {_named(found)} must set securityContext.runAsNonRoot=true)"


def _no_seccomp(spec: Obj) -> Iterator[str]:
    allowed = ("RuntimeDefault", "Localhost")
    if found := [c.get("name", "") for c in _containers(spec) if (_seccomp(c) or _seccomp(spec)) not in allowed]:
        yield (
            f"seccompProfile (pod or {_named(found)} must set securityContext.seccompProfile.type to "
            '"RuntimeDefault" or "Localhost")'
        )


_BASELINE: tuple[Check, ...] = (
    _host_namespaces,
    _privileged,
    _capabilities,
    _host_paths,
    _host_ports,
    _proc_mount,
    _sysctls,
    _unconfined,
)
_CHECKS: dict[str, tuple[Check, ...]] = {
    "baseline": _BASELINE,
    "restricted": (*_BASELINE, _escalation, _undropped, _volume_types, _as_root, _no_seccomp),
}


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
        what = f'Invalid value: "{obj["spec"]["request"]}": PEM block type must be CERTIFICATE REQUEST'
        raise invalid(resource, name_of(obj), [("spec.request", what)]) from error
