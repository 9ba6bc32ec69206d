"""The mesh between hosts: what cannot form is refused before anything is planned, with the place and a remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fluobook.errors import ParamsError
from fluobook.params import parse
from fluobook.params.reading import read

KEY = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="


@pytest.fixture
def document() -> dict[str, Any]:
    written: dict[str, Any] = read(Path(__file__).parent / "valid" / "two-hosts.yaml")
    written["platform"]["network"]["bridge"] = "vxnodes"
    written["platform"]["wireguard"]["vxlan"] = {}
    return written


def hosts(*changes: dict[str, Any]) -> dict[str, Any]:
    """Changes of the mesh's hosts, in their order."""
    return {"hosts": list(changes)}


REFUSED: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    (
        "two hosts have one network behind them",
        hosts({"networks": ["192.168.0.0/16"]}, {"networks": ["192.168.7.0/24"]}),
        {},
        "wireguard.hosts.pve2.networks[0] = '192.168.7.0/24': overlaps platform.wireguard.hosts.pve1.networks[0]",
    ),
    (
        "a network behind a host contains the tunnel's addresses",
        hosts({"networks": ["10.192.0.0/10"]}),
        {},
        "pve1.networks[0] = '10.192.0.0/10': overlaps platform.wireguard.cidr 10.200.0.0/24",
    ),
    (
        "a network behind a host contains the nodes",
        hosts({}, {"networks": ["10.10.0.128/25"]}),
        {},
        "pve2.networks[0] = '10.10.0.128/25': overlaps platform.network.cidr 10.10.0.0/24",
    ),
    (
        "a network behind a host contains the other's endpoint",
        hosts({"networks": ["198.51.100.0/24"]}),
        {},
        "pve2.endpoint = '198.51.100.12': is inside platform.wireguard.hosts.pve1.networks[0]",
    ),
    ("an endpoint is a node's network, inside the tunnel", hosts({"endpoint": "10.10.0.99"}), {}, "is inside platform"),
    (
        "one address and one port",
        hosts({}, {"endpoint": "198.51.100.11"}),
        {},
        "is used by platform.wireguard.hosts.pve1",
    ),
    ("two hosts behind NAT", hosts({"endpoint": None}, {"endpoint": None}), {}, "pve2.endpoint = null: neither it nor"),
    (
        "WireGuard on VXLAN's port",
        {"port": 4789},
        {},
        "wireguard.port = 4789: is used by platform.wireguard.vxlan.port",
    ),
    (
        "VXLAN on WireGuard's port",
        {"vxlan": {"port": 51820}},
        {},
        "vxlan.port = 51820: is used by platform.wireguard.port",
    ),
    (
        "one key for two hosts",
        hosts({"public_key": KEY}, {"public_key": KEY}),
        {},
        "is used by platform.wireguard.hosts.p",
    ),
    ("no key", hosts({"public_key": "A" * 43 + "="}), {}, "is no public key: all its bits are zero"),
    (
        "one destination for two hosts",
        hosts({"ssh": "root@a"}, {"ssh": "root@a"}),
        {},
        "hosts.pve2.ssh = 'root@a': is used",
    ),
    ("a host on VXLAN's port", hosts({"port": 4789}), {}, "wireguard.hosts.pve1.port = 4789: is used by"),
    ("a tunnel as large as the wire", {"mtu": 1500}, {}, "wireguard.mtu = 1500: does not fit through platform.wire"),
    ("a tunnel on a small underlay", {"underlay_mtu": 1492}, {}, "wireguard.mtu = 1420: does not fit"),
    ("nodes' packets without room for VXLAN", {}, {"mtu": 1420}, "network.mtu = 1420: does not fit"),
    ("a VNet with a bridge's name", {}, {"bridge": "vmbr0"}, "network.bridge = 'vmbr0': is not the id of a VNet"),
    ("a VNet with a long name", {}, {"bridge": "vxnodes99"}, "network.bridge = 'vxnodes99': is not the id of a VNet"),
    ("a VLAN on a VNet", {}, {"vlan": 7}, "network.vlan = 7: is a tag on a VNet"),
    ("a zone with a long name", {"vxlan": {"zone": "fluobooks"}}, {}, "vxlan.zone = 'fluobooks': must be the id"),
    ("an option for ssh", hosts({"ssh": "-oProxyCommand=true"}), {}, "must be a destination of ssh"),
    ("a private key's length, and no key", hosts({"public_key": "hunter2"}), {}, "must be a public key of WireGuard"),
    ("an interface of Proxmox VE", {"interface": "vmbr0"}, {}, "interface = 'vmbr0': is a name of other interfaces"),
    ("an interface of Linux", {"interface": "lo"}, {}, "wireguard.interface = 'lo': is a name of other interfaces"),
    ("an interface with the VNet's name", {"interface": "vxnodes"}, {}, "is platform.network.bridge too; wgfluo"),
    (
        "each host itself",
        hosts({"endpoint": "localhost"}),
        {},
        "hosts.pve1.endpoint = 'localhost': is each host itself",
    ),
    ("an interface with a long name", {"interface": "wireguard0"}, {}, "must be the name of an interface"),
]


@pytest.mark.parametrize(("mesh", "network", "expected"), [case[1:] for case in REFUSED], ids=[c[0] for c in REFUSED])
def test_a_mesh_that_cannot_work_is_refused(
    document: dict[str, Any], mesh: dict[str, Any], network: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ParamsError) as refused:
        parse(changed(document, mesh, network))
    assert expected in "\n".join(refused.value.problems)


ACCEPTED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a host behind NAT": (hosts({}, {"endpoint": None}), {}),
    "two hosts behind one address": (hosts({}, {"endpoint": "198.51.100.11", "port": 51821}), {}),
    "networks behind hosts": (hosts({"networks": ["192.168.1.0/24"]}, {"networks": ["192.168.2.0/24"]}), {}),
    "a small underlay": ({"underlay_mtu": 1492, "mtu": 1412}, {"mtu": 1362}),
    "a host without ssh": (hosts({"public_key": KEY}), {}),
}


@pytest.mark.parametrize(("mesh", "network"), ACCEPTED.values(), ids=ACCEPTED)
def test_a_mesh_that_works_is_accepted(document: dict[str, Any], mesh: dict[str, Any], network: dict[str, Any]) -> None:
    assert parse(changed(document, mesh, network)).platform.wireguard


def changed(document: dict[str, Any], mesh: dict[str, Any], network: dict[str, Any]) -> dict[str, Any]:
    """The document with changes of the mesh and the network."""
    platform = document["platform"]
    for host, change in zip(platform["wireguard"]["hosts"], mesh.get("hosts", ()), strict=False):
        host.update(change)
    platform["wireguard"] |= {key: value for key, value in mesh.items() if key != "hosts"}
    platform["network"] |= network
    return document


def test_a_host_that_is_twice_in_the_mesh_is_one_problem(document: dict[str, Any]) -> None:
    document["platform"]["wireguard"]["hosts"][0]["host"] = "pve2"
    with pytest.raises(ParamsError) as refused:
        parse(document)
    (problem,) = refused.value.problems
    assert "'pve2': is used by platform.wireguard.hosts[0] already" in problem
