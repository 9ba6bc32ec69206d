"""The parameters: what the platform of a phase should be, validated before anything is asked of the outside."""

from fluobook.params.load import load, overlay, parse
from fluobook.params.network import KUBERNETES_PORT, TALOS_PORT, Pool
from fluobook.params.nodes import Node
from fluobook.params.places import home, phases, repository_root
from fluobook.params.platform import Params, Platform
from fluobook.params.proxmox import ProxmoxEndpoint
from fluobook.params.reservations import reservations
from fluobook.params.secrets import SecretRef, located
from fluobook.params.versions import Matrix, Supported, load_supported, pins

__all__ = [
    "KUBERNETES_PORT",
    "TALOS_PORT",
    "Matrix",
    "Node",
    "Params",
    "Platform",
    "Pool",
    "ProxmoxEndpoint",
    "SecretRef",
    "Supported",
    "home",
    "load",
    "load_supported",
    "located",
    "overlay",
    "parse",
    "phases",
    "pins",
    "repository_root",
    "reservations",
]
