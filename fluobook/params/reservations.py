"""DHCP reservations for the nodes, ready to paste into the DHCP server.

Talos sends no host name to a DHCP server, so nodes are known there by their MAC addresses.
"""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from fluobook.errors import UsageError
from fluobook.params.problems import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluobook.params.platform import Platform


def reservations(platform: Platform, form: str) -> str:
    """The reservations of all nodes in the form of one DHCP server.

    Args:
        platform: the platform.
        form: "dnsmasq", "isc" (dhcpd), "kea" or "routeros" (MikroTik).

    Raises:
        UsageError: there is no such form.
    """
    if form not in FORMS:
        raise UsageError(f"there is no form {form!r} for DHCP reservations", remedy=did_you_mean(form, FORMS))
    return FORMS[form](platform)


def _dnsmasq(platform: Platform) -> str:
    network = platform.network
    lines = [f"dhcp-host={node.mac},{node.address},{node.name},infinite" for node in platform.nodes]
    lines += [f"dhcp-option=option:router,{network.gateway}"]
    lines += [f"dhcp-option=option:dns-server,{','.join(network.nameservers)}"]
    return _text(lines)


def _isc(platform: Platform) -> str:
    return _text(
        [
            f"host {node.name} {{ hardware ethernet {node.mac}; fixed-address {node.address}; "
            f'option host-name "{node.name}"; }}'
            for node in platform.nodes
        ]
    )


def _kea(platform: Platform) -> str:
    hosts = [{"hw-address": node.mac, "ip-address": node.address, "hostname": node.name} for node in platform.nodes]
    subnet = {"id": 1, "subnet": platform.network.cidr, "reservations": hosts}
    return json.dumps({"Dhcp4": {"subnet4": [subnet]}}, indent=2) + "\n"


def _routeros(platform: Platform) -> str:
    network = platform.network
    leases = [
        f"/ip dhcp-server lease add mac-address={node.mac} address={node.address} comment={node.name} server=all"
        for node in platform.nodes
    ]
    options = f"gateway={network.gateway} dns-server={','.join(network.nameservers)}"
    return _text([*leases, f"/ip dhcp-server network add address={IPv4Network(network.cidr)} {options}"])


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


FORMS: dict[str, Callable[[Platform], str]] = {"dnsmasq": _dnsmasq, "isc": _isc, "kea": _kea, "routeros": _routeros}
"""The forms, by name."""
