"""The PodSecurity admission plugin with Talos' settings: enforce baseline, warn of what restricted would refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook_lab.kube.objects import Obj, labels_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Check = Callable[[Obj], Iterator[str]]

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
