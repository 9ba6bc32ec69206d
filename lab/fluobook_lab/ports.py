"""The ports of a lab, reserved before anything starts, and what the params become when they point at them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluobook.params import KUBERNETES_PORT, TALOS_PORT
from fluobook_lab.grpc import reserve

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from fluobook.params import Platform

FACTORY = "factory.talos.dev:443"
HUBBLE = "hubble-relay.kube-system:80"


@dataclass(frozen=True)
class Ports:
    """Reserved sockets by the real `host:port` that they stand for."""

    sockets: dict[str, socket.socket]

    @classmethod
    def reserved(cls, platform: Platform) -> Ports:
        """A socket for everything that a platform's stages talk to."""
        names = [f"{endpoint.host}:{endpoint.port}" for endpoint in platform.proxmox]
        names += [FACTORY, HUBBLE]
        names += [f"{node.address}:{TALOS_PORT}" for node in platform.nodes]
        names += [f"{address}:{KUBERNETES_PORT}" for address in api_addresses(platform)]
        return cls({name: reserve() for name in dict.fromkeys(names)})

    def of(self, name: str) -> socket.socket:
        """The socket that stands for `host:port`."""
        return self.sockets[name]

    def endpoints(self) -> dict[str, str]:
        """The map for `platform.endpoints`."""
        return {name: f"127.0.0.1:{sock.getsockname()[1]}" for name, sock in self.sockets.items()}


def api_addresses(platform: Platform) -> tuple[str, ...]:
    """Where the Kubernetes API answers: at every control plane, and at the shared address."""
    nodes = [node.address for node in platform.control_planes]
    return tuple(dict.fromkeys([platform.api_address, *nodes]))


def overlay(platform: Platform, ports: Ports, folder: Path, *, root: Path, mirrors: dict[str, str]) -> dict[str, Any]:
    """What the params become in the lab: endpoints, trust, mirrors, and the lab's own keys."""
    named = [
        name
        for name in ports.sockets
        if name != HUBBLE and not name.endswith((f":{TALOS_PORT}", f":{KUBERNETES_PORT}"))
    ]
    tokens = [{"name": e.name, "token_secret": {"file": str(folder / "token")}} for e in platform.proxmox]
    return {
        "endpoints": ports.endpoints(),
        "trust": dict.fromkeys(named, str(folder / "ca.pem")),
        "gitops": {"mirrors": mirrors, "revision": "main"},
        "proxmox": tokens,
        "secrets": {
            "age_key": {"file": str(root / "params" / "lab" / "lab.age")},
            "bundle": str(folder / "cluster" / "secrets.sops.yaml"),
        },
    }
