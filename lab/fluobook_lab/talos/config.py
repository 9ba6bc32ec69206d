"""Machine configurations as a node reads them: several YAML documents, one of them without a kind (v1alpha1)."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import yaml

from fluobook.machine.pki import KeyPair
from fluobook_lab.talos.fields import UndecodableError, type_of, unknown_keys

if TYPE_CHECKING:
    from collections.abc import Mapping

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

V1ALPHA1_KEYS = frozenset({"version", "debug", "persist", "machine", "cluster"})

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
"""The kinds of document that Talos 1.13 knows besides v1alpha1."""


class InvalidConfigurationError(Exception):
    """The node refuses a configuration; the text is Talos' own."""


@dataclass(frozen=True)
class MachineConfiguration:
    """A configuration that was read; `main` is its v1alpha1 document, empty if there is none."""

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
        """What the node is: "controlplane" or "worker"."""
        kind = str(self.machine.get("type") or "")
        return {"init": "controlplane", "join": "worker"}.get(kind, kind)

    @property
    def is_control_plane(self) -> bool:
        """Whether this is a control plane's."""
        return self.type == "controlplane"

    @property
    def cluster_name(self) -> str:
        """The cluster's name."""
        return str(self.cluster.get("clusterName") or "")

    @cached_property
    def cluster_id(self) -> str:
        """What tells clusters apart: members find each other by it."""
        return str(self.cluster.get("id") or self.cluster_name)

    @property
    def endpoint(self) -> str:
        """The Kubernetes API's URL, as all nodes use it."""
        return str((self.cluster.get("controlPlane") or {}).get("endpoint") or "")

    @property
    def install(self) -> Mapping[str, Any]:
        """The section `machine.install`."""
        return self.machine.get("install") or {}

    @cached_property
    def hostname(self) -> str:
        """The host name that the configuration gives, if it gives one."""
        for document in self.of_kind("HostnameConfig"):
            if document.get("hostname"):
                return str(document["hostname"])
        return str((self.machine.get("network") or {}).get("hostname") or "")

    @property
    def certificate_names(self) -> tuple[str, ...]:
        """The further names and addresses of the node's API certificate."""
        return tuple(str(name) for name in self.machine.get("certSANs") or ())

    @property
    def accepted_authorities(self) -> tuple[str, ...]:
        """Further certificate authorities whose clients are let in, PEM."""
        return tuple(pair(entry).crt for entry in self.machine.get("acceptedCAs") or ())

    def authority(self) -> KeyPair:
        """Talos' certificate authority; a worker's has no key."""
        return pair(self.machine.get("ca"))

    def of_kind(self, kind: str) -> tuple[Mapping[str, Any], ...]:
        """The documents of a kind, in their order."""
        return tuple(document for document in self.documents if document.get("kind") == kind)

    @cached_property
    def canonical(self) -> str:
        """The configuration without comments and in one order, for comparison."""
        documents = ([self.main] if self.main else []) + list(self.documents)
        return "---\n".join(yaml.dump(document, Dumper=_Dumper, sort_keys=True, width=4096) for document in documents)


def pair(value: Mapping[str, Any] | None) -> KeyPair:
    """A `{crt, key}` of the configuration, decoded; empty where it is absent."""
    value = value or {}
    crt, key = (base64.b64decode(str(value.get(name) or "")).decode(errors="replace") for name in ("crt", "key"))
    return KeyPair(crt, key)


def load(text: bytes | str) -> MachineConfiguration:
    """Read a configuration.

    Raises:
        InvalidConfigurationError: it is not YAML, has an unknown or repeated document, or is empty.
    """
    try:
        documents = [document for document in yaml.load_all(text, Loader=_Loader) if document is not None]
    except yaml.YAMLError as error:
        raise InvalidConfigurationError(f"decode error: {error}") from None
    if not documents:
        raise InvalidConfigurationError("no configuration documents provided")
    _refuse_repeated(documents)
    for number, document in enumerate(documents, 1):
        _refuse_unknown(document, number)
    main: dict[str, Any] = next((document for document in documents if not document.get("kind")), {})
    return MachineConfiguration(main, tuple(document for document in documents if document.get("kind")))


def _refuse_repeated(documents: list[Any]) -> None:
    seen = set()
    for number, document in enumerate(documents, 1):
        if not isinstance(document, dict):
            raise InvalidConfigurationError(f"expected a YAML document at line {number}")
        identity = _identity(document)
        if identity in seen:
            raise InvalidConfigurationError(f"duplicate document {identity} is not allowed (line {number})")
        seen.add(identity)


def _refuse_unknown(document: Mapping[str, Any], number: int) -> None:
    kind, version = document.get("kind"), document.get("apiVersion")
    where = f"error decoding document {_identity(document)} (line {number})"
    if not kind:
        if version and not V1ALPHA1_KEYS & set(document):
            raise InvalidConfigurationError(f"{where}: missing kind")
    elif not version:
        raise InvalidConfigurationError(f"{where}: missing apiVersion")
    elif kind not in KINDS or version != "v1alpha1":
        raise InvalidConfigurationError(f'{where}: "{kind}" "{version}": not registered')
    if type_name := type_of(document):
        try:
            unknown = unknown_keys(document, type_name)
        except UndecodableError as error:
            raise InvalidConfigurationError(f"{where}: {error}") from None
        if unknown:
            told = yaml.dump(unknown, indent=4)
            raise InvalidConfigurationError(f"{where}: unknown keys found during decoding:\n{told}")


def _identity(document: Mapping[str, Any]) -> str:
    return f"{document.get('apiVersion') or ''}/{document.get('kind') or 'v1alpha1'}/{document.get('name') or ''}"
