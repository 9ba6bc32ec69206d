"""Machine configurations: reading, the checks of Talos 1.13, comparison.

A configuration is a list of YAML documents, one of them without a kind (v1alpha1). `fields.yaml` holds the fields of
each document type and their types; `tools/talos_fields.py` generates it from Talos' own JSON Schema. The schema omits
deprecated fields: Talos still reads them, and so does the lab, without a check of their content.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import difflib
import re
from dataclasses import dataclass
from functools import cache, cached_property
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from fluobook.machine.pki import KeyPair
from fluobook_lab.data import LOADER, dump, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_KINDS = """
    BlackholeRouteConfig BondConfig BridgeConfig DHCPv4Config DHCPv6Config DummyLinkConfig EnvironmentConfig
    EthernetConfig EventSinkConfig ExistingVolumeConfig ExtensionServiceConfig ExternalVolumeConfig HCloudVIPConfig
    HostnameConfig ImageVerificationConfig KmsgLogConfig KubeSpanConfig KubeSpanEndpointsConfig Layer2VIPConfig
    LinkAliasConfig LinkConfig NetworkDefaultActionConfig NetworkRuleConfig OOMConfig PCIDriverRebindConfig
    RawVolumeConfig RegistryAuthConfig RegistryMirrorConfig RegistryTLSConfig ResolverConfig RoutingRuleConfig
    SideroLinkConfig StaticHostConfig SwapVolumeConfig TCPProbeConfig TimeSyncConfig TrustedRootsConfig
    UserVolumeConfig VLANConfig VRFConfig VolumeConfig WatchdogTimerConfig WireguardConfig ZswapConfig
"""
KINDS = frozenset(_KINDS.split())
"""The kinds of document that Talos 1.13 has besides v1alpha1."""
V1ALPHA1_KEYS = frozenset({"version", "debug", "persist", "machine", "cluster"})

FIELDS = "talos/fields.yaml"
_DEPRECATED = {
    "v1alpha1.Config": "persist",
    "v1alpha1.MachineConfig": "network disks time registries systemDiskEncryption env",
    "v1alpha1.APIServerConfig": "disablePodSecurityPolicy",
    "v1alpha1.EtcdConfig": "subnet",
    "v1alpha1.FeaturesConfig": "rbac stableHostname apidCheckExtKeyUsage",
    "v1alpha1.InstallConfig": "bootloader extensions extraKernelArgs",
}
_SCALARS: dict[str, tuple[type, ...]] = {
    "string": (str, int, float, bool, dt.date),
    "boolean": (bool,),
    "integer": (int,),
}

_CHANGEABLE = """
    ca acceptedCAs time certSANs install network sysfs sysctls logging controlPlane kubelet kernel registries pods
    seccompProfiles nodeAnnotations nodeLabels nodeTaints
"""
_CHANGEABLE_KEYS = frozenset(_CHANGEABLE.split())
"""Keys of `machine` that change without a reboot; so do `cluster`, `debug` and all other documents."""
_CHANGEABLE_FEATURES = frozenset(
    {"kubernetesTalosAPIAccess", "kubePrism", "hostDNS", "imageCache", "nodeAddressSortAlgorithm"}
)

_RESERVED = """
    apiVersion authentication authorization cgroupRoot kind kubeletCgroups port protectKernelDefaults resolvConf
    rotateCertificates systemCgroups staticPodPath seccompDefault
"""
_RESERVED_FIELDS = frozenset(_RESERVED.split())
"""Fields of the kubelet's configuration that only Talos sets."""
_DNS_NAME = re.compile(r"^([a-zA-Z0-9_][a-zA-Z0-9_-]{0,62})(\.[a-zA-Z0-9_][a-zA-Z0-9_-]{0,62})*[._]?$")


class InvalidConfigurationError(Exception):
    """The node refuses a configuration; the text is Talos' own."""


@dataclass(frozen=True)
class MachineConfiguration:
    """A parsed configuration; `main` is its v1alpha1 document, empty if it has none."""

    main: Mapping[str, Any]
    documents: tuple[Mapping[str, Any], ...]

    @property
    def machine(self) -> Mapping[str, Any]:
        """The v1alpha1 section `machine`."""
        return self.main.get("machine") or {}

    @property
    def cluster(self) -> Mapping[str, Any]:
        """The v1alpha1 section `cluster`."""
        return self.main.get("cluster") or {}

    @property
    def type(self) -> str:
        """The node's role: "controlplane" or "worker"."""
        kind = str(self.machine.get("type") or "")
        return {"init": "controlplane", "join": "worker"}.get(kind, kind)

    @property
    def is_control_plane(self) -> bool:
        """Whether the node is a control plane."""
        return self.type == "controlplane"

    @property
    def cluster_name(self) -> str:
        """The cluster's name."""
        return str(self.cluster.get("clusterName") or "")

    @cached_property
    def cluster_id(self) -> str:
        """The cluster's identity; nodes with the same one discover each other."""
        return str(self.cluster.get("id") or self.cluster_name)

    @property
    def endpoint(self) -> str:
        """The URL of the Kubernetes API."""
        return str((self.cluster.get("controlPlane") or {}).get("endpoint") or "")

    @property
    def install(self) -> Mapping[str, Any]:
        """The section `machine.install`."""
        return self.machine.get("install") or {}

    @cached_property
    def hostname(self) -> str:
        """The configured host name, "" for none."""
        for document in self.of_kind("HostnameConfig"):
            if document.get("hostname"):
                return str(document["hostname"])
        return str((self.machine.get("network") or {}).get("hostname") or "")

    @property
    def certificate_names(self) -> tuple[str, ...]:
        """Additional names and addresses in the node's API certificate."""
        return tuple(str(name) for name in self.machine.get("certSANs") or ())

    @property
    def accepted_authorities(self) -> tuple[str, ...]:
        """Additional certificate authorities whose clients are accepted, PEM."""
        return tuple(pair(entry).crt for entry in self.machine.get("acceptedCAs") or ())

    def authority(self) -> KeyPair:
        """Talos' certificate authority; without a key on a worker."""
        return pair(self.machine.get("ca"))

    def of_kind(self, kind: str) -> tuple[Mapping[str, Any], ...]:
        """The documents of a kind, in their order."""
        return tuple(document for document in self.documents if document.get("kind") == kind)

    @cached_property
    def canonical(self) -> str:
        """The configuration without comments and with sorted keys, for comparison."""
        documents = ([self.main] if self.main else []) + list(self.documents)
        return "---\n".join(dump(document, width=4096) for document in documents)


def pair(value: Mapping[str, Any] | None) -> KeyPair:
    """A `{crt, key}` of the configuration, decoded; empty if it is absent."""
    value = value or {}
    crt, key = (base64.b64decode(str(value.get(name) or "")).decode(errors="replace") for name in ("crt", "key"))
    return KeyPair(crt, key)


def load(text: bytes | str) -> MachineConfiguration:
    """Read a configuration.

    Raises:
        InvalidConfigurationError: it is not YAML, is empty, or has an unknown or repeated document or field.
    """
    try:
        documents = [document for document in yaml.load_all(text, Loader=LOADER) if document is not None]
    except yaml.YAMLError as error:
        raise InvalidConfigurationError(f"decode error: {error}") from None
    if not documents:
        raise InvalidConfigurationError("no configuration documents provided")
    identities = set()
    for number, document in enumerate(documents, 1):
        if not isinstance(document, dict):
            raise InvalidConfigurationError(f"expected a YAML document at line {number}")
        identity = (
            f"{document.get('apiVersion') or ''}/{document.get('kind') or 'v1alpha1'}/{document.get('name') or ''}"
        )
        if identity in identities:
            raise InvalidConfigurationError(f"duplicate document {identity} is not allowed (line {number})")
        identities.add(identity)
        if problem := _unreadable(document):
            raise InvalidConfigurationError(f"error decoding document {identity} (line {number}): {problem}")
    main: dict[str, Any] = next((document for document in documents if not document.get("kind")), {})
    return MachineConfiguration(main, tuple(document for document in documents if document.get("kind")))


def _unreadable(document: Mapping[str, Any]) -> str:
    """Why a document cannot be decoded; "" if it can."""
    kind, version = document.get("kind"), document.get("apiVersion")
    if not kind:
        if version and not V1ALPHA1_KEYS & set(document):
            return "missing kind"
    elif not version:
        return "missing apiVersion"
    elif kind not in KINDS or version != "v1alpha1":
        return f'"{kind}" "{version}": not registered'
    type_name = _type_of(document)
    if not type_name:
        return ""
    try:
        unknown = dict(_unknown_keys(document, type_name, ""))
    except ValueError as error:
        return f"yaml: unmarshal errors:\n  {error}"
    return f"unknown keys found during decoding:\n{dump(unknown, indent=4)}" if unknown else ""


@cache
def fields() -> dict[str, dict[str, Any]]:
    """The fields of each document type, with their types: a name, or a list with one name."""
    known: dict[str, dict[str, Any]] = table(FIELDS)
    return {name: own | dict.fromkeys(_DEPRECATED.get(name, "").split(), "any") for name, own in known.items()}


def _type_of(document: Mapping[str, Any]) -> str:
    """The type of a document; "" if the schema has none."""
    if not document.get("kind"):
        return "v1alpha1.Config"
    suffix = f".{document['kind']}V1Alpha1".lower()
    return next((name for name in fields() if f".{name.partition('.')[2]}".lower() == suffix), "")


def _unknown_keys(value: Mapping[str, Any], kind: str, path: str) -> Iterator[tuple[str, Any]]:
    known = fields()[kind]
    for key, child in value.items():
        if key not in known:
            yield str(key), child
        elif unknown := _unknown_in(child, known[key], f"{path}.{key}".lstrip(".")):
            yield str(key), unknown


def _unknown_in(value: Any, kind: Any, path: str) -> Any:
    """The part of a value that no field accepts; a ValueError if the value has another type than its field."""
    if value is None or kind == "any":
        return None
    types: tuple[type, ...] = (list,) if isinstance(kind, list) else _SCALARS.get(kind, (dict,))
    accepted: bool = isinstance(value, types)
    if not accepted:
        name = f"[]{kind[0]}" if isinstance(kind, list) else kind
        raise ValueError(f"{path}: cannot unmarshal a {type(value).__name__} into {name}")
    if isinstance(kind, list):
        items = enumerate(value)
        return [unknown for n, item in items if (unknown := _unknown_in(item, kind[0], f"{path}[{n}]"))]
    if kind != "pair":
        return dict(_unknown_keys(value, kind, path)) if kind in fields() else None
    for key in ("crt", "key"):
        try:
            base64.b64decode(str(value.get(key) or ""), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(f"{path}.{key}: illegal base64 data") from None
    return {key: child for key, child in value.items() if key not in ("crt", "key")}


def validate(config: MachineConfiguration) -> list[str]:
    """Refuse a configuration that Talos 1.13 on nocloud would refuse; returns its warnings.

    Raises:
        InvalidConfigurationError: with all problems, in the form in which Talos lists them.
    """
    problems: list[str] = []
    if config.main:
        if invalid := list(_problems(config)):
            problems.append("v1alpha1.Config: " + _multierror(invalid))
        if (config.machine.get("network") or {}).get("hostname"):
            for document in config.of_kind("HostnameConfig"):
                kind = "static" if document.get("hostname") else "stable"
                problems.append(f"{kind} hostname is already set in v1alpha1 config")
    if problems:
        raise InvalidConfigurationError(_multierror(problems))
    if not config.install.get("extensions"):
        return []
    page = "https://docs.siderolabs.com/talos/latest/platform-specific-installations/boot-assets"
    return [f".machine.install.extensions is deprecated, please see {page}"]


def _problems(config: MachineConfiguration) -> Iterator[str]:
    if not config.machine:
        yield "machine instructions are required"
        return
    yield from _cluster(config)
    if not config.authority().crt and not config.machine.get("acceptedCAs"):
        yield "issuing CA or some accepted CAs are required (.machine.ca, machine.acceptedCAs)"
    if config.is_control_plane:
        yield from _control_plane(config)
    elif config.type == "worker":
        yield from _worker(config)
    else:
        yield f'unknown machine type "{config.machine.get("type") or ""}"'
    kubelet, features = config.machine.get("kubelet") or {}, config.machine.get("features") or {}
    yield from _subnets("kubelet nodeIP subnet", (kubelet.get("nodeIP") or {}).get("validSubnets"))
    for field in sorted(_RESERVED_FIELDS & set(kubelet.get("extraConfig") or ())):
        yield f'kubelet configuration field "{field}" can\'t be overridden'
    dns = features.get("hostDNS") or {}
    if dns.get("forwardKubeDNSToHost") and not dns.get("enabled"):
        yield "feature hostDNS.forwardKubeDNSToHost requires hostDNS.enabled to be true (.machine.features.hostDNS)"
    if config.main.get("persist") is False:
        yield ".persist should be enabled"


def _subnets(name: str, subnets: Iterable[str] | None) -> Iterator[str]:
    for subnet in subnets or ():
        network = str(subnet).removeprefix("!")
        try:
            ip_network(network, strict=False)
        except ValueError:
            yield f'{name} is not valid: "{network}"'


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
    names = [str(entry.get("name") or "").strip() for entry in config.cluster.get("inlineManifests") or ()]
    if "" in names:
        yield "inline manifest name can't be empty"
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f'inline manifest name "{name}" is duplicate'
    discovery = config.cluster.get("discovery") or {}
    service = (discovery.get("registries") or {}).get("service") or {}
    if discovery.get("enabled") and not service.get("disabled"):
        for key in ("id", "secret"):
            if not config.cluster.get(key):
                yield f"cluster discovery service requires .cluster.{key}"


def _control_plane(config: MachineConfiguration) -> Iterator[str]:
    authority = config.authority()
    if not authority.crt:
        yield "issuing CA is required (.machine.ca)"
    elif not authority.key:
        yield "issuing CA key is required for controlplane nodes (.machine.ca.key)"
    cni = (config.cluster.get("network") or {}).get("cni") or {}
    if cni and cni.get("name") not in {"flannel", "custom", "none"}:
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


def _multierror(problems: list[str]) -> str:
    """Several errors in the form of HashiCorp's multierror."""
    head = "1 error occurred" if len(problems) == 1 else f"{len(problems)} errors occurred"
    return f"{head}:\n" + "".join(f"\t* {problem}\n" for problem in problems) + "\n"


def difference(old: MachineConfiguration | None, new: MachineConfiguration) -> str:
    """The result of a dry run: a unified diff of both configurations, or "No changes."."""
    before = old.canonical if old else ""
    lines = difflib.unified_diff(before.splitlines(), new.canonical.splitlines(), "a", "b", lineterm="")
    return "Config diff:\n\n" + ("\n".join(lines) or "No changes.")


def needs_reboot(old: MachineConfiguration, new: MachineConfiguration) -> bool:
    """Whether the change touches a field that a running node cannot change."""
    return _fixed(old) != _fixed(new)


def _fixed(config: MachineConfiguration) -> dict[str, Any]:
    machine = {key: value for key, value in config.machine.items() if key not in _CHANGEABLE_KEYS}
    features = machine.get("features") or {}
    machine["features"] = {key: value for key, value in features.items() if key not in _CHANGEABLE_FEATURES}
    rest = {key: value for key, value in config.main.items() if key not in {"machine", "cluster", "debug"}}
    return {**rest, "machine": machine}
