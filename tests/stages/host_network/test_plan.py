"""Stage 0b's decisions: files, differences, what stands in the way, and the plan, from plain data."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from fluobook import params
from fluobook.errors import Refused
from fluobook.stages.host_network import mesh as meshes
from fluobook.stages.host_network import sdn
from fluobook.stages.host_network.mesh import (
    HostState,
    PeerState,
    active_keys,
    configuration,
    differences,
    problems,
    read,
)
from fluobook.stages.host_network.plan import Observation, plan
from fluobook.stages.host_network.sdn import SdnState

if TYPE_CHECKING:
    from pathlib import Path

    from fluobook.params import Platform
    from fluobook.params.platform import Wireguard

KEYS = {f"pve{number}": f"{number}TIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=" for number in (1, 2, 3)}
OTHER = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="


def platform_with(root: Path, **changes: Any) -> Platform:
    """Phase 3 with another mesh."""
    return params.overlay(params.load("phase3", root=root).platform, {"wireguard": changes})


def mesh_of(platform: Platform) -> Wireguard:
    assert platform.wireguard
    return platform.wireguard


def states_of(mesh: Wireguard) -> dict[str, HostState]:
    """Hosts that are as they should be."""
    peers = {name: {key: PeerState(5, 100, 100) for other, key in KEYS.items() if other != name} for name in KEYS}
    return {
        name: HostState(
            public=key,
            file=meshes.digest(configuration(mesh, name, KEYS)),
            mode="600",
            holds=key,
            running=key,
            mtu=1420,
            enabled=True,
            stanza=True,
            ports={"wgfluo": 51820, "wg0": 51999},
            peers=peers[name],
            paths=frozenset(host.address for host in mesh.hosts if host.host != name),
        )
        for name, key in KEYS.items()
    }


def sdn_states(platform: Platform, keys: dict[str, str] | None = None) -> dict[str, SdnState]:
    """Endpoints that are as planned; with keys, the mesh is a fabric."""
    hosts, fabric = {host.host: host for host in mesh_of(platform).hosts}, keys is not None
    return {
        endpoint.name: SdnState(
            sdn.wanted(platform, endpoint, keys),
            rules={
                name: sdn.firewall_rules(platform, hosts[name], SdnState(), fabric=fabric) for name in endpoint.hosts
            },
        )
        for endpoint in platform.proxmox
    }


def test_a_file_names_all_peers_with_their_addresses_ports_and_networks(root: Path) -> None:
    hosts = [{"host": "pve1", "endpoint": None}, {"host": "pve2", "port": 51821, "networks": ["192.168.7.0/24"]}]
    mesh = mesh_of(platform_with(root, hosts=hosts))
    interface, peer, _ = configuration(mesh, "pve1", KEYS).split("\n\n")
    assert interface == "Address = 10.200.0.1/32\nListenPort = 51820\nMTU = 1420"
    assert peer == (
        f"# pve2\n[Peer]\nPublicKey = {KEYS['pve2']}\nEndpoint = 198.51.100.12:51821\n"
        "AllowedIPs = 10.200.0.2/32, 192.168.7.0/24\nPersistentKeepalive = 25"
    )
    second = configuration(mesh, "pve2", KEYS)
    assert "ListenPort = 51821" in second
    assert f"PublicKey = {KEYS['pve1']}\nAllowedIPs = 10.200.0.1/32\n" in second
    assert "PersistentKeepalive" not in second


def test_no_address_is_allowed_for_two_peers_of_a_host(root: Path) -> None:
    mesh = mesh_of(platform_with(root))
    for name in KEYS:
        allowed = [line for line in configuration(mesh, name, KEYS).splitlines() if line.startswith("AllowedIPs")]
        assert len(set(allowed)) == len(allowed) == 2


def test_what_a_script_reports_is_read() -> None:
    text = f"public {OTHER}\nfile ab12 600\nholds {OTHER}\nport wgfluo 51820\nport wg0 7\nstanza\nenabled\n"
    text += f"path 10.200.0.2\nrunning {OTHER} 1420\npeer A= 12 34 56\npeer B= -1 0 0\nsomething else\n"
    assert read(text) == HostState(
        public=OTHER,
        file="ab12",
        mode="600",
        holds=OTHER,
        running=OTHER,
        mtu=1420,
        enabled=True,
        stanza=True,
        ports={"wgfluo": 51820, "wg0": 7},
        peers={"A=": PeerState(12, 34, 56), "B=": PeerState(-1, 0, 0)},
        paths=frozenset({"10.200.0.2"}),
    )
    assert read("missing wireguard-tools\n") == HostState(tools=False)
    assert read("") == HostState()


DIFFERENT: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, ""),
    "no file": ({"file": "", "holds": "", "running": ""}, "it has no file"),
    "another file": ({"file": "ab12"}, "its file differs"),
    "a file that others read": ({"mode": "644"}, "its file has mode 644"),
    "it is down": ({"running": "", "mtu": 0, "ports": {}}, "it is down"),
    "another running key": ({"running": OTHER}, "it runs with another key than its file's"),
    "another MTU": ({"mtu": 1500}, "it runs with MTU 1500 on port 51820"),
    "another port": ({"ports": {"wgfluo": 7}}, "it runs with MTU 1420 on port 7"),
    "not at start": ({"enabled": False}, "it does not start with the host"),
    "no stanza": ({"stanza": False}, "Proxmox VE does not know its address"),
}


@pytest.mark.parametrize(("change", "reason"), DIFFERENT.values(), ids=DIFFERENT)
def test_what_a_host_lacks_is_named(root: Path, change: dict[str, Any], reason: str) -> None:
    mesh = mesh_of(platform_with(root))
    states = states_of(mesh)
    states["pve1"] = replace(states["pve1"], **change)
    assert "; ".join(differences(mesh, "pve1", states)) == reason


SILENT: dict[str, tuple[dict[str, Any], str]] = {
    "no such peer": ({"peers": {}}, "no handshake"),
    "never": ({"peers": {KEYS["pve2"]: PeerState(-1, 0, 0)}}, "no handshake"),
    "long ago": ({"peers": {KEYS["pve2"]: PeerState(181, 9, 9)}}, "no handshake for more than 180 s"),
    "only sent": ({"peers": {KEYS["pve2"]: PeerState(5, 0, 9)}}, "no transfer in both directions"),
    "only small packets": ({"paths": frozenset()}, "packets of full size are lost"),
}


@pytest.mark.parametrize(("change", "reason"), SILENT.values(), ids=SILENT)
def test_a_pair_that_does_not_exchange_full_packets_is_named(root: Path, change: dict[str, Any], reason: str) -> None:
    mesh = mesh_of(platform_with(root))
    states = states_of(mesh)
    assert meshes.silent_pairs(mesh, states, KEYS) == {}
    states["pve1"] = replace(states["pve1"], **change)
    assert meshes.silent_pairs(mesh, states, KEYS)["pve1 to pve2"] == reason


def test_what_stands_in_the_way_on_a_host_is_refused(root: Path) -> None:
    platform = platform_with(root, hosts=[{"host": "pve3", "public_key": OTHER}])
    mesh = mesh_of(platform)
    states = states_of(mesh)
    states["pve1"] = replace(states["pve1"], ports={"wg0": 51820})
    states["pve2"] = replace(states["pve2"], public=KEYS["pve1"], holds=KEYS["pve1"])
    assert list(problems(mesh, states, active_keys(mesh, states))) == [
        "UDP port 51820 of pve1 is used by its interface wg0",
        f"pve3 has the public key {KEYS['pve3']}, and the params say {OTHER}",
        f"pve1 and pve2 have the same key {KEYS['pve1']}",
    ]
    with pytest.raises(Refused, match="is used by its interface wg0"):
        plan(platform, Observation(states, sdn_states(platform)))
    without = mesh_of(platform_with(root, hosts=[{"host": "pve3", "ssh": None}]))
    assert list(problems(without, {}, {"pve1": OTHER, "pve2": KEYS["pve2"], "pve3": ""})) == [
        "pve3 has neither ssh nor a public_key in the params"
    ]


def test_a_plan_makes_keys_then_files_then_the_sdn(root: Path) -> None:
    platform = platform_with(root)
    empty = {name: HostState() for name in KEYS}
    states = {f"host-{number}": SdnState(rules={f"pve{number}": []}) for number in (1, 2, 3)}
    made = plan(platform, Observation(empty, states))
    needs = {action.id: set(action.needs) for action in made.actions}
    assert set(needs) == {f"{verb} {name}" for verb in ("key", "mesh", "firewall") for name in KEYS} | {
        f"sdn host-{number}" for number in (1, 2, 3)
    }
    assert needs["key pve1"] == set()
    assert needs["mesh pve1"] == {"key pve1", "key pve2", "key pve3"}
    assert {"mesh pve1", "mesh pve2", "mesh pve3"} < needs["sdn host-1"]
    assert made.digest == plan(platform, Observation(empty, states)).digest


def test_where_nothing_lacks_nothing_is_planned(root: Path) -> None:
    platform = platform_with(root)
    made = plan(platform, Observation(states_of(mesh_of(platform)), sdn_states(platform)))
    assert (made.actions, made.kept) == ((), 9)


LACKING: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "another MTU": ("zones", "nodes", {"mtu": 1450}, "zone nodes has mtu 1450"),
    "another MTU, pending": ("zones", "nodes", {"state": "changed", "pending": {"mtu": 1450}}, "has mtu 1450"),
    "a peer less": ("zones", "nodes", {"peers": "10.200.0.1,10.200.0.2"}, "zone nodes has peers 10.200.0.1,10.200.0.2"),
    "another port": ("zones", "nodes", {"vxlan-port": 8472}, "zone nodes has vxlan-port 8472"),
    "another tag": ("vnets", "vxnodes", {"tag": 7}, "vnet vxnodes has tag 7"),
    "ours is pending": ("vnets", "vxnodes", {"state": "new"}, "vnet vxnodes is not applied"),
    "another gateway": ("subnets", "nodes-10.10.0.0-24", {"gateway": "10.10.0.9"}, "has gateway 10.10.0.9"),
}


@pytest.mark.parametrize(("kind", "name", "change", "reason"), LACKING.values(), ids=LACKING)
def test_what_the_sdn_lacks_is_named(root: Path, kind: str, name: str, change: dict[str, Any], reason: str) -> None:
    platform = platform_with(root)
    endpoint = platform.proxmox[0]
    objects = {key: dict(value) for key, value in sdn.wanted(platform, endpoint, None).items()}
    objects[kind][name] = {**objects[kind][name], **change}
    assert reason in "; ".join(sdn.differences(platform, endpoint, SdnState(objects), None))


def test_peers_may_be_listed_in_another_order(root: Path) -> None:
    platform = platform_with(root)
    endpoint = platform.proxmox[0]
    objects = {key: dict(value) for key, value in sdn.wanted(platform, endpoint, None).items()}
    objects["zones"]["nodes"] = {**objects["zones"]["nodes"], "peers": "10.200.0.3, 10.200.0.1 10.200.0.2"}
    for status, expected in (("available", []), ("error", ["pve1 reports error"])):
        state = SdnState(objects, {"pve1": status})
        assert list(sdn.differences(platform, endpoint, state, None)) == expected
