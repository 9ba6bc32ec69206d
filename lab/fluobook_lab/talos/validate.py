"""What a node refuses in a configuration, in Talos' words, and what it would change without a reboot."""

from __future__ import annotations

import difflib
import re
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fluobook_lab.talos.config import InvalidConfigurationError, pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fluobook_lab.talos.config import MachineConfiguration

_LIVE = """
    ca acceptedCAs time certSANs install network sysfs sysctls logging controlPlane kubelet kernel registries pods
    seccompProfiles nodeAnnotations nodeLabels nodeTaints
"""

_PROTECTED = """
    apiVersion authentication authorization cgroupRoot kind kubeletCgroups port protectKernelDefaults resolvConf
    rotateCertificates systemCgroups staticPodPath seccompDefault
"""

LIVE_MACHINE_KEYS = frozenset(_LIVE.split())
"""Keys of `machine` that change without a reboot; so do `cluster`, `debug` and every other document."""

CNIS = ("flannel", "custom", "none")
PROTECTED = frozenset(_PROTECTED.split())
"""Fields of the kubelet's configuration that Talos keeps to itself."""
_DNS_NAME = re.compile(r"^([a-zA-Z0-9_][a-zA-Z0-9_-]{0,62})(\.[a-zA-Z0-9_][a-zA-Z0-9_-]{0,62})*[._]?$")

LIVE_FEATURES = frozenset(
    {"kubernetesTalosAPIAccess", "kubePrism", "hostDNS", "imageCache", "nodeAddressSortAlgorithm"}
)


def validate(config: MachineConfiguration) -> list[str]:
    """Refuse a configuration that Talos 1.13 on nocloud would refuse; returns its warnings.

    Raises:
        InvalidConfigurationError: with every problem found, as Talos lists them.
    """
    problems: list[str] = []
    if config.main:
        if found := list(_v1alpha1(config)):
            problems.append("v1alpha1.Config: " + _listed(found))
        problems += _conflicts(config)
    if problems:
        raise InvalidConfigurationError(_listed(problems))
    return list(_warnings(config))


def _v1alpha1(config: MachineConfiguration) -> Iterator[str]:
    if not config.machine:
        yield "machine instructions are required"
        return
    yield from _cluster(config)
    if not config.authority().crt and not config.machine.get("acceptedCAs"):
        yield "issuing CA or some accepted CAs are required (.machine.ca, machine.acceptedCAs)"
    role: dict[str, Callable[[MachineConfiguration], Iterator[str]]] = {
        "controlplane": _control_plane,
        "worker": _worker,
    }
    if config.type in role:
        yield from role[config.type](config)
    else:
        yield f'unknown machine type "{config.machine.get("type") or ""}"'
    yield from _machine(config)


def _machine(config: MachineConfiguration) -> Iterator[str]:
    kubelet, features = config.machine.get("kubelet") or {}, config.machine.get("features") or {}
    yield from _subnets("kubelet nodeIP subnet", (kubelet.get("nodeIP") or {}).get("validSubnets"))
    for field in sorted(PROTECTED & set(kubelet.get("extraConfig") or ())):
        yield f'kubelet configuration field "{field}" can\'t be overridden'
    dns = features.get("hostDNS") or {}
    if dns.get("forwardKubeDNSToHost") and not dns.get("enabled"):
        yield ("feature hostDNS.forwardKubeDNSToHost requires hostDNS.enabled to be true (.machine.features.hostDNS)")
    if config.main.get("persist") is False:
        yield ".persist should be enabled"


def _subnets(what: str, told: Iterable[str] | None) -> Iterator[str]:
    for subnet in told or ():
        bare = str(subnet).removeprefix("!")
        try:
            ip_network(bare, strict=False)
        except ValueError:
            yield f'{what} is not valid: "{bare}"'


def _cluster(config: MachineConfiguration) -> Iterator[str]:
    if not config.cluster:
        yield "cluster instructions are required"
    elif not config.endpoint:
        yield "cluster controlplane endpoint is required"
    elif urlsplit(config.endpoint).scheme != "https" or not urlsplit(config.endpoint).hostname:
        yield f'invalid controlplane endpoint: "{config.endpoint}"'
    domain = str((config.cluster.get("network") or {}).get("dnsDomain") or "")
    if domain and not _DNS_NAME.match(domain):
        yield f'"{domain}" is not a valid DNS name'
    yield from _manifests(config)
    discovery = config.cluster.get("discovery") or {}
    service = (discovery.get("registries") or {}).get("service") or {}
    if discovery.get("enabled") and not service.get("disabled"):
        yield from (
            f"cluster discovery service requires .cluster.{key}"
            for key in ("id", "secret")
            if not config.cluster.get(key)
        )


def _manifests(config: MachineConfiguration) -> Iterator[str]:
    names = [str(entry.get("name") or "").strip() for entry in config.cluster.get("inlineManifests") or ()]
    if "" in names:
        yield "inline manifest name can't be empty"
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f'inline manifest name "{name}" is duplicate'


def _control_plane(config: MachineConfiguration) -> Iterator[str]:
    authority = config.authority()
    if not authority.crt:
        yield "issuing CA is required (.machine.ca)"
    elif not authority.key:
        yield "issuing CA key is required for controlplane nodes (.machine.ca.key)"
    cni = (config.cluster.get("network") or {}).get("cni") or {}
    if cni and cni.get("name") not in CNIS:
        yield 'cni name should be one of ["flannel", "custom", "none"]'
    elif cni.get("urls") and cni["name"] != "custom":
        yield f'"urls" field should be empty for "{cni["name"]}" CNI'
    etcd = config.cluster.get("etcd")
    if etcd and not pair(etcd.get("ca")).crt:
        yield "key/cert combination should not be empty"
    yield from _subnets("etcd advertised subnet", (etcd or {}).get("advertisedSubnets"))
    yield from _subnets("etcd listen subnet", (etcd or {}).get("listenSubnets"))


def _worker(config: MachineConfiguration) -> Iterator[str]:
    if config.authority().key:
        yield "issuing Talos API CA key is not allowed on non-controlplane nodes (.machine.ca)"
    if (config.cluster.get("ca") or {}).get("key"):
        yield "issuing Kubernetes API CA key is not allowed on non-controlplane nodes (.cluster.ca)"
    if config.cluster.get("etcd"):
        yield "etcd config is only allowed on control plane machines"
    if config.of_kind("Layer2VIPConfig"):
        yield "virtual (shared) IP is not allowed on non-controlplane nodes"


def _conflicts(config: MachineConfiguration) -> Iterator[str]:
    if (config.machine.get("network") or {}).get("hostname"):
        for document in config.of_kind("HostnameConfig"):
            yield (
                "static hostname is already set in v1alpha1 config"
                if document.get("hostname")
                else "stable hostname is already set in v1alpha1 config"
            )


def _warnings(config: MachineConfiguration) -> Iterator[str]:
    if config.install.get("extensions"):
        yield (
            ".machine.install.extensions is deprecated, please see "
            "https://docs.siderolabs.com/talos/latest/platform-specific-installations/boot-assets"
        )


def _listed(problems: list[str]) -> str:
    """Several errors the way HashiCorp's multierror prints them."""
    head = "1 error occurred" if len(problems) == 1 else f"{len(problems)} errors occurred"
    return f"{head}:\n" + "".join(f"\t* {problem}\n" for problem in problems) + "\n"


def difference(old: MachineConfiguration | None, new: MachineConfiguration) -> str:
    """What a dry run shows: a unified diff of both configurations, or "No changes."."""
    before = old.canonical if old else ""
    lines = difflib.unified_diff(before.splitlines(), new.canonical.splitlines(), "a", "b", lineterm="")
    return "Config diff:\n\n" + ("\n".join(lines) or "No changes.")


def needs_reboot(old: MachineConfiguration, new: MachineConfiguration) -> bool:
    """Whether the change touches anything that a running node cannot change."""
    return _fixed(old) != _fixed(new)


def _fixed(config: MachineConfiguration) -> dict[str, Any]:
    machine = {key: value for key, value in config.machine.items() if key not in LIVE_MACHINE_KEYS}
    features = machine.get("features") or {}
    machine["features"] = {key: value for key, value in features.items() if key not in LIVE_FEATURES}
    rest = {key: value for key, value in config.main.items() if key not in {"machine", "cluster", "debug"}}
    return {**rest, "machine": machine}
