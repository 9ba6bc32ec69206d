"""The parameters: the desired platform of a phase, validated before anything connects to a server."""

from fluobook.environment import cache_folder, home
from fluobook.params.derive import DHCP_SERVERS, reservations
from fluobook.params.load import files, load, overlay, parse, phases, repository_root
from fluobook.params.platform import (
    KUBERNETES_PORT,
    TALOS_PORT,
    Node,
    Params,
    Platform,
    Pool,
    ProxmoxEndpoint,
    mirrored,
)
from fluobook.params.rules import warnings
from fluobook.params.secrets import SecretRef, SecretReferences, located
from fluobook.params.versions import Matrix, Supported, load_supported, major_of, pins

__all__ = [
    "DHCP_SERVERS",
    "KUBERNETES_PORT",
    "TALOS_PORT",
    "Matrix",
    "Node",
    "Params",
    "Platform",
    "Pool",
    "ProxmoxEndpoint",
    "SecretRef",
    "SecretReferences",
    "Supported",
    "cache_folder",
    "files",
    "home",
    "load",
    "load_supported",
    "located",
    "major_of",
    "mirrored",
    "overlay",
    "parse",
    "phases",
    "pins",
    "repository_root",
    "reservations",
    "warnings",
]
