"""The platform: what one phase should be, as one frozen value."""

# ruff: noqa: TC001, TC003 (pydantic reads annotations when it runs)
from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, PrivateAttr

from fluobook.params.deadlines import Deadlines
from fluobook.params.fields import Cidr, ClusterName, Count, Host, HostPort, Model, Text
from fluobook.params.gitops import GitOps
from fluobook.params.network import Network, Wireguard
from fluobook.params.nodes import Node, Vm
from fluobook.params.proxmox import ProxmoxEndpoint
from fluobook.params.secrets import SecretReferences
from fluobook.params.versions import Supported, Versions

_NOT_IN_A_DIGEST: dict[str, Any] = {
    "secrets": True,
    "endpoints": True,
    "trust": True,
    "deadlines": True,
    "gitops": {"mirrors"},
    "proxmox": {"__all__": {"token_id", "token_secret", "ca_file", "fingerprint"}},
}


class Cluster(Model):
    """The Kubernetes cluster."""

    name: ClusterName
    """Name of the cluster; VM ids, MAC addresses and uuids follow from it."""
    pod_cidr: Cidr = "10.244.0.0/16"
    """Network of the pods; every node takes a /24 of it."""
    service_cidr: Cidr = "10.96.0.0/12"
    """Network of the Services."""
    api_address: Host | None = None
    """Where the Kubernetes API is reached; null for the VIP, or else the first control plane."""


class LonghornStorage(Model):
    """Longhorn."""

    replicas: Annotated[Count, Field(le=20)] = 1
    """Copies of every volume: one for each failure domain at most."""


class Platform(Model):
    """The desired state of one phase."""

    cluster: Cluster
    """The Kubernetes cluster."""
    versions: Versions
    """Versions of Talos and Kubernetes; null takes the pin of params/versions.yaml."""
    network: Network
    """The network of the nodes."""
    proxmox: Annotated[tuple[ProxmoxEndpoint, ...], Field(min_length=1)]
    """The Proxmox VE endpoints."""
    vm: Vm = Vm()
    """Settings of every virtual machine."""
    nodes: Annotated[tuple[Node, ...], Field(min_length=1)]
    """The nodes, control planes and workers."""
    storage: LonghornStorage = LonghornStorage()
    """Longhorn."""
    gitops: GitOps
    """What Argo CD is told."""
    secrets: SecretReferences
    """Where the keys of the platform are kept."""
    wireguard: Wireguard | None = None
    """The mesh between hosts, where they need one."""
    deadlines: Deadlines = Deadlines()
    """How long each named wait may take."""
    endpoints: dict[HostPort, HostPort] = Field(default_factory=dict)
    """host:port as it is called, and host:port where it is reached instead."""
    trust: dict[HostPort, Text] = Field(default_factory=dict)
    """host:port as it is called, and the CA file that its certificate is checked with."""

    _written: Mapping[str, Any] = PrivateAttr()
    _supported: Supported = PrivateAttr()

    @property
    def written(self) -> dict[str, Any]:
        """The platform as it was written, `--set` included: what a notebook is handed, and what overlays lie on."""
        return copy.deepcopy(dict(self._written))

    @property
    def supported(self) -> Supported:
        """The pins and the matrix that the platform was checked with."""
        return self._supported

    def remember(self, written: Mapping[str, Any], supported: Supported) -> None:
        """Keep where the platform came from; `fluobook.params.load` alone calls it, once."""
        self._written, self._supported = written, supported

    @property
    def control_planes(self) -> tuple[Node, ...]:
        """The control planes, in the order of the file; the first one is bootstrapped."""
        return tuple(node for node in self.nodes if node.role == "controlplane")

    @property
    def workers(self) -> tuple[Node, ...]:
        """The workers, in the order of the file."""
        return tuple(node for node in self.nodes if node.role == "worker")

    @property
    def api_address(self) -> str:
        """Where the Kubernetes API is reached: as set, or the VIP, or the first control plane."""
        return self.cluster.api_address or self.network.vip or self.control_planes[0].address

    @property
    def hosts(self) -> tuple[str, ...]:
        """The Proxmox VE hosts that nodes stand on."""
        return tuple(dict.fromkeys(node.host for node in self.nodes))

    @property
    def failure_domains(self) -> tuple[str, ...]:
        """The hosts of the workers: what can fail without taking another copy of a volume with it."""
        return tuple(dict.fromkeys(node.host for node in self.workers))

    def node(self, name: str) -> Node:
        """The node of that name.

        Raises:
            KeyError: there is none.
        """
        return {node.name: node for node in self.nodes}[name]

    def endpoint_of(self, node: Node) -> ProxmoxEndpoint:
        """The Proxmox VE endpoint that is responsible for a node's host."""
        return next(endpoint for endpoint in self.proxmox if node.host in endpoint.hosts)

    def route(self, host: str, port: int) -> tuple[str, int]:
        """Where `host`:`port` is really reached: through `endpoints`, or as it is."""
        there, _, gate = self.endpoints.get(f"{host.lower()}:{port}", f"{host}:{port}").rpartition(":")
        return there, int(gate)

    def trusted_ca(self, host: str, port: int) -> str | None:
        """The CA file for `host`:`port`: from `trust`, or a Proxmox VE endpoint's own; None for the system's CAs."""
        own = (endpoint.ca_file for endpoint in self.proxmox if (endpoint.host, endpoint.port) == (host.lower(), port))
        return self.trust.get(f"{host.lower()}:{port}") or next(own, None)

    def ca_file(self, url: str) -> Path | None:
        """The CA file for the server of a URL; None for the system's CAs."""
        parts = urlsplit(url)
        file = self.trusted_ca(parts.hostname or "", parts.port or {"https": 443, "http": 80}.get(parts.scheme, 22))
        return Path(file).expanduser() if file else None

    def digest_data(self) -> dict[str, Any]:
        """What a plan's digest is made of: plain JSON data, without secrets, detours, trust and deadlines."""
        return self.model_dump(mode="json", exclude=_NOT_IN_A_DIGEST)


class Params(Model):
    """A params file: which phase it is, and the platform of that phase."""

    phase: Literal["phase1", "phase2", "phase3"]
    """phase1 (laptop), phase2 (one dedicated server) or phase3 (several hosts, highly available)."""
    platform: Platform
    """The desired state."""
