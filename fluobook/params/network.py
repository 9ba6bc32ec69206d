"""The network of the nodes: addresses, what is announced on it, and WireGuard between hosts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fluobook.params.fields import Cidr, Flag, Host, HostName, Interface, Ipv4, Model, Mtu, NodeName, Port, VlanTag

TALOS_PORT = 50000
"""Port of the Talos API on every node."""
KUBERNETES_PORT = 6443
"""Port of the Kubernetes API on control planes and on the shared address."""


class AddressRange(Model):
    """Addresses from `start` to `stop`, both included."""

    start: Ipv4
    """The first address."""
    stop: Ipv4
    """The last address."""


class Pool(AddressRange):
    """Addresses that Cilium gives to Services of type LoadBalancer."""

    name: NodeName
    """Name of the pool, such as ingress."""


class LoadBalancer(Model):
    """Addresses for Services of type LoadBalancer, and whether Cilium announces them by ARP."""

    announce: Flag = True
    """Whether Cilium announces the addresses on layer 2; needs network.layer2."""
    pools: tuple[Pool, ...] = ()
    """Pools of addresses, each with a name."""


class Network(Model):
    """The network in which all nodes stand."""

    cidr: Cidr
    """Network of the nodes, such as 10.10.0.0/24."""
    gateway: Ipv4
    """The router's address in that network."""
    nameservers: Annotated[tuple[Ipv4, ...], Field(min_length=1, max_length=3)]
    """One to three DNS servers."""
    ntp: Annotated[tuple[Host, ...], Field(min_length=1)] = ("time.cloudflare.com",)
    """Time servers; etcd and certificates need the right time."""
    bridge: Interface = "vmbr0"
    """The Proxmox VE bridge that the nodes are plugged into."""
    vlan: VlanTag | None = None
    """VLAN tag on that bridge, 1 to 4094; null for none."""
    mtu: Mtu = 1500
    """Largest packet on the nodes' interfaces, in bytes."""
    addressing: Literal["static", "dhcp"] = "static"
    """static: by cloud-init drive; dhcp: by reservations for the nodes' MAC addresses."""
    dhcp_range: AddressRange | None = None
    """What a DHCP server in that network hands out to others; kept free of our addresses."""
    layer2: Flag = True
    """Whether all nodes share one layer-2 segment; a VIP and layer-2 announcements need it."""
    vip: Ipv4 | None = None
    """Address that the control planes share for the Kubernetes API."""
    load_balancer: LoadBalancer = LoadBalancer(announce=False)
    """Addresses for Services of type LoadBalancer."""


class WireguardHost(Model):
    """A Proxmox VE host as a peer of the mesh."""

    host: HostName
    """Name of a Proxmox VE host."""
    endpoint: Host
    """The host's address as the other hosts reach it."""
    address: Ipv4
    """The host's address inside the tunnel."""


class Wireguard(Model):
    """The mesh between Proxmox VE hosts; the nodes know nothing of it."""

    port: Port = 51820
    """UDP port on every host."""
    cidr: Cidr
    """Network of the tunnel addresses."""
    mtu: Mtu = 1420
    """Largest packet in the tunnel: the underlay's less 80."""
    hosts: Annotated[tuple[WireguardHost, ...], Field(min_length=2)]
    """Every host of the mesh."""
