"""Pod Security Standards: what a namespace's level refuses in a pod, in the words of the API server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LEVELS = ("privileged", "baseline", "restricted")
_CAPABILITIES = """AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE SETFCAP SETGID SETPCAP
SETUID SYS_CHROOT"""
_SYSCTLS = """kernel.shm_rmid_forced net.ipv4.ip_local_port_range net.ipv4.ip_local_reserved_ports
net.ipv4.ip_unprivileged_port_start net.ipv4.ping_group_range net.ipv4.tcp_fin_timeout net.ipv4.tcp_keepalive_intvl
net.ipv4.tcp_keepalive_probes net.ipv4.tcp_keepalive_time net.ipv4.tcp_syncookies"""
_VOLUMES = "configMap csi downwardAPI emptyDir ephemeral image persistentVolumeClaim projected secret"
_SAFE_CAPABILITIES, _SAFE_SYSCTLS, _RESTRICTED_VOLUMES = (
    frozenset(t.split()) for t in (_CAPABILITIES, _SYSCTLS, _VOLUMES)
)


def violations(spec: Mapping[str, Any], level: str) -> list[str]:
    """What in the spec of a pod a level refuses; a level that does not exist refuses nothing."""
    if level not in LEVELS[1:]:
        return []
    return [*_baseline(spec), *(_restricted(spec) if level == "restricted" else ())]


def _baseline(spec: Mapping[str, Any]) -> Iterator[str]:
    if shared := [f"{key}=true" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]:
        yield f"host namespaces ({', '.join(shared)})"
    if volumes := [volume["name"] for volume in spec.get("volumes") or [] if "hostPath" in volume]:
        yield f"hostPath volumes ({', '.join(volumes)})"
    names = [item["name"] for item in (spec.get("securityContext") or {}).get("sysctls") or []]
    if unsafe := [name for name in names if name not in _SAFE_SYSCTLS]:
        yield f"forbidden sysctls ({', '.join(unsafe)})"
    if _seccomp(spec) == "Unconfined":
        yield "seccompProfile (pod must not be Unconfined)"
    for container in _containers(spec):
        yield from _baseline_container(container)


def _baseline_container(container: Mapping[str, Any]) -> Iterator[str]:
    security, name = container.get("securityContext") or {}, container.get("name", "")
    added = set((security.get("capabilities") or {}).get("add") or ()) - _SAFE_CAPABILITIES
    if security.get("privileged"):
        yield f"privileged (container {name})"
    if added:
        yield f"non-default capabilities (container {name}: {', '.join(sorted(added))})"
    if ports := [str(port["hostPort"]) for port in container.get("ports") or [] if port.get("hostPort")]:
        yield f"hostPort (container {name}: {', '.join(ports)})"
    if security.get("procMount", "Default") != "Default":
        yield f"procMount (container {name})"
    if _seccomp(container) == "Unconfined":
        yield f"seccompProfile (container {name} must not be Unconfined)"


def _restricted(spec: Mapping[str, Any]) -> Iterator[str]:
    for volume in spec.get("volumes") or []:
        if others := set(volume) - {"name"} - _RESTRICTED_VOLUMES:
            yield f"restricted volume types ({volume['name']}: {others.pop()})"
    pod = (spec.get("securityContext") or {}).get("runAsNonRoot")
    for container in _containers(spec):
        security, name = container.get("securityContext") or {}, container.get("name", "")
        if security.get("allowPrivilegeEscalation") is not False:
            yield f"allowPrivilegeEscalation != false (container {name})"
        if "ALL" not in ((security.get("capabilities") or {}).get("drop") or []):
            yield f'unrestricted capabilities (container {name} must drop "ALL")'
        if security.get("runAsNonRoot", pod) is not True:
            yield f"runAsNonRoot != true (pod or container {name})"
        if (_seccomp(container) or _seccomp(spec)) not in ("RuntimeDefault", "Localhost"):
            yield f"seccompProfile (pod or container {name} must be RuntimeDefault or Localhost)"


def _containers(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]


def _seccomp(holder: Mapping[str, Any]) -> str:
    profile: Mapping[str, str] = (holder.get("securityContext") or {}).get("seccompProfile") or {}
    return profile.get("type", "")
