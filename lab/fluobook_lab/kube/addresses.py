"""Cluster IPs and node ports, as the API server hands them out when a Service is written."""

from __future__ import annotations

import hashlib
import ipaddress
from typing import TYPE_CHECKING

from fluobook_lab.kube.errors import invalid

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.resources import Resource

SERVICES = ("", "services")
RESERVED = 256
"""The first addresses are only given to those who ask for them by name."""
NODE_PORTS = range(30000, 32768)
_HEADLESS = ("None", "")
_OUTSIDE = "the provided network does not match the current range"


class ServiceAddresses:
    """Gives addresses; which one depends on the Service's name, so that it is the same in every run.

    Args:
        cidr: the service network.
    """

    def __init__(self, cidr: str) -> None:
        self._network = ipaddress.ip_network(cidr)

    def assign(self, resource: Resource, service: Obj, others: Iterable[Obj]) -> None:
        """Complete a Service in place.

        Raises:
            ApiError: 422, the address that it asks for is taken.
        """
        spec = service["spec"]
        others = [other["spec"] for other in others if other["metadata"].get("uid") != service["metadata"].get("uid")]
        if spec["type"] == "ExternalName":
            return
        taken = {other.get("clusterIP") for other in others} - {"None", None}
        asked = spec.get("clusterIP")
        if asked in taken:
            what = f"Invalid value: [{asked!r}]: failed to allocate IP {asked}: provided IP is already allocated"
            raise invalid(resource, service["metadata"]["name"], [("spec.clusterIPs", what.replace("'", '"'))])
        if asked and asked not in _HEADLESS and ipaddress.ip_address(asked) not in self._network:
            what = f'Invalid value: ["{asked}"]: failed to allocate IP {asked}: {_OUTSIDE}'
            raise invalid(resource, service["metadata"]["name"], [("spec.clusterIPs", what)])
        if not asked:
            spec["clusterIP"] = self._free(_hash(service), taken)
        spec.setdefault("clusterIPs", [spec["clusterIP"]])
        if spec["type"] in ("LoadBalancer", "NodePort"):
            ports = {port.get("nodePort") for other in others for port in other.get("ports") or []}
            _assign_ports(service, ports)

    def _free(self, start: int, taken: set[str | None]) -> str:
        size = min(self._network.num_addresses - RESERVED - 1, 1 << 16)
        offsets = (RESERVED + (start + step) % size for step in range(size))
        return next(str(self._network[offset]) for offset in offsets if str(self._network[offset]) not in taken)


def _assign_ports(service: Obj, taken: set[int | None]) -> None:
    for number, port in enumerate(service["spec"].get("ports") or []):
        if not port.get("nodePort"):
            start = _hash(service) + number
            offsets = (NODE_PORTS[(start + step) % len(NODE_PORTS)] for step in range(len(NODE_PORTS)))
            port["nodePort"] = next(found for found in offsets if found not in taken)
        taken.add(port["nodePort"])


def _hash(service: Obj) -> int:
    name = f"{service['metadata'].get('namespace', '')}/{service['metadata']['name']}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])
