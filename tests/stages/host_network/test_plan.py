"""Stage 0b's decisions: files, differences, what stands in the way, and the plan, from plain data."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from fluobook import params
from fluobook.errors import ForeignObject, Refused
from fluobook.stages.host_network import mesh as meshes
from fluobook.stages.host_network import sdn
from fluobook.stages.host_network.mesh import (
    HostState,
    PeerState,
    active_keys,
    allowed_ips,
    configuration,
    differences,
    problems,
    read,
)
from fluobook.stages.host_network.plan import Observation, plan
from fluobook.stages.host_network.sdn import SdnState

if TYPE_CHECKING:
    from pathlib import Path

    from fluobook.params import Platform, ProxmoxEndpoint
    from fluobook.params.platform import Wireguard, WireguardHost

KEYS = {f"pve{number}": f"{number}TIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=" for number in (1, 2, 3)}
OTHER = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="


def platform_with(root: Path, **changes: Any) -> Platform:
    """Phase 3 with another mesh."""
    return params.overlay(params.load("phase3", root=root).platform, {"wireguard": changes})


def mesh_of(platform: Platform) -> Wireguard:
    assert platform.wireguard
    return platform.wireguard


def peer_of(host: WireguardHost) -> PeerState:
    """A host as its peers should have it."""
    return PeerState(5, 100, 100, f"{host.endpoint}:51820", frozenset(allowed_ips(host)))


def states_of(mesh: Wireguard) -> dict[str, HostState]:
    """Hosts that are as they should be."""
    peers = {
        name: {KEYS[host.host]: peer_of(host) for host in mesh.hosts if host.host in KEYS and host.host != name}
        for name in KEYS
    }
    return {
        name: HostState(
            public=key,
            file=meshes.digest(configuration(mesh, name, KEYS)),
            mode="600",
            holds=key,
            running=key,
            mtu=1420,
            addressed=True,
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
    text += f"path 10.200.0.2\nrunning {OTHER} 1420\naddressed\npeer A= 12 34 56 192.0.2.1:7 10.0.0.1/32,10.9.0.0/16\n"
    text += "peer B= -1 0 0\nsomething else\n"
    assert read(text) == HostState(
        public=OTHER,
        file="ab12",
        mode="600",
        holds=OTHER,
        running=OTHER,
        mtu=1420,
        addressed=True,
        enabled=True,
        stanza=True,
        ports={"wgfluo": 51820, "wg0": 7},
        peers={
            "A=": PeerState(12, 34, 56, "192.0.2.1:7", frozenset({"10.0.0.1/32", "10.9.0.0/16"})),
            "B=": PeerState(-1, 0, 0),
        },
        paths=frozenset({"10.200.0.2"}),
    )
    assert read("missing wireguard-tools\n") == HostState(tools=False)
    assert read("") == HostState()
    assert read(f"running {OTHER}\n") == HostState(running=OTHER), "an interface without an MTU yet"


DIFFERENT: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, ""),
    "no file": ({"file": "", "holds": "", "running": ""}, "it has no file"),
    "another file": ({"file": "ab12"}, "its file differs"),
    "a file that others read": ({"mode": "644"}, "its file has mode 644"),
    "it is down": ({"running": "", "mtu": 0, "ports": {}}, "it is down"),
    "another running key": ({"running": OTHER}, "it runs with another key than its file's"),
    "another MTU": ({"mtu": 1500}, "it runs with MTU 1500 on port 51820"),
    "no address": ({"addressed": False}, "it has no address, or another one"),
    "another port": ({"ports": {"wgfluo": 7}}, "it runs with MTU 1420 on port 7"),
    "a peer less": ({"peers": {}}, "it runs with other peers or networks than its file's"),
    "a network that a peer does not get": (
        {"peers": {key: PeerState(5, 9, 9, "", frozenset({"10.200.0.9/32"})) for key in list(KEYS.values())[1:]}},
        "it runs with other peers or networks than its file's",
    ),
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


def test_a_peer_that_is_heard_from_another_address_than_its_endpoint_is_named(root: Path) -> None:
    mesh = mesh_of(platform_with(root, hosts=[{"host": "pve3", "endpoint": "pve3.example.org"}]))
    states = states_of(mesh)
    assert meshes.elsewhere(mesh, states, KEYS) == {}
    seen = {KEYS["pve2"]: PeerState(5, 9, 9, "203.0.113.9:51820"), KEYS["pve3"]: PeerState(5, 9, 9, "203.0.113.9:7")}
    states["pve1"] = replace(states["pve1"], peers=seen)
    assert meshes.elsewhere(mesh, states, KEYS) == {
        "pve1 to pve2": "its packets come from 203.0.113.9:51820, not from its endpoint 198.51.100.12"
    }


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


def endpoints_as(platform: Platform, *hosts: tuple[str, ...]) -> list[ProxmoxEndpoint]:
    """The first endpoints with other hosts behind them."""
    pairs = zip(platform.proxmox, hosts, strict=False)
    return [endpoint.model_copy(update={"hosts": names}) for endpoint, names in pairs]


POSSIBLE: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "9.2 everywhere": ({}, ["9.2.6", "9.2.0", "10.1"], ""),
    "one host is older": ({}, ["9.2.6", "9.1.11", "9.2.6"], "Proxmox VE 9.1.11"),
    "Proxmox VE 8": ({}, ["8.4.14"], "Proxmox VE 8.4.14"),
    "another MTU": ({"underlay_mtu": 1550, "mtu": 1430}, ["9.2.6"], "MTU 1430"),
    "a host behind NAT": ({"hosts": [{"host": "pve1", "endpoint": None}]}, ["9.2.6"], "a host behind NAT"),
    "a key from SOPS": ({"hosts": [{"host": "pve1", "private_key": {"env": "KEY"}}]}, ["9.2.6"], "a private_key"),
    "a host by hand": (
        {"hosts": [{"host": "pve1", "ssh": None, "public_key": OTHER}]},
        ["9.2.6"],
        "a public_key of a host without ssh",
    ),
    "a host without ssh": ({"hosts": [{"host": "pve1", "ssh": None}]}, ["9.2.6"], ""),
}


@pytest.mark.parametrize(("changes", "versions", "expected"), POSSIBLE.values(), ids=POSSIBLE)
def test_a_fabric_is_used_where_it_can_be_all_that_the_params_say(
    root: Path, changes: dict[str, Any], versions: list[str], expected: str
) -> None:
    assert ", ".join(sdn.fabric_obstacles(mesh_of(platform_with(root, **changes)), versions)) == expected


def test_an_endpoint_has_its_host_as_internal_node_and_the_others_as_external_ones(root: Path) -> None:
    platform = platform_with(root, hosts=[{"host": "pve2", "port": 51821, "networks": ["192.168.7.0/24"]}])
    nodes = sdn.objects_of(platform, platform.proxmox[0], KEYS)["nodes"]
    assert nodes["wgfluo/pve1"] == {
        "protocol": "wireguard",
        "role": "internal",
        "endpoint": "198.51.100.11",
        "interfaces": ["name=wgfluo,listen_port=51820,ip=10.200.0.1/32"],
        "peers": ["type=external,node=pve2,iface=wgfluo", "type=external,node=pve3,iface=wgfluo"],
        "allowed_ips": [],
    }
    assert nodes["wgfluo/pve2"] == {
        "protocol": "wireguard",
        "role": "external",
        "public_key": KEYS["pve2"],
        "endpoint": "198.51.100.12:51821",
        "allowed_ips": ["10.200.0.2/32", "192.168.7.0/24"],
    }
    without = sdn.objects_of(platform, platform.proxmox[0], KEYS | {"pve2": ""})["nodes"]
    assert "wgfluo/pve2" not in without
    assert without["wgfluo/pve1"]["peers"] == ["type=external,node=pve3,iface=wgfluo"]


def test_hosts_of_one_cluster_are_internal_to_each_other(root: Path) -> None:
    platform = platform_with(root, hosts=[{"host": "pve2", "key": 2}])
    both, other = endpoints_as(platform, ("pve1", "pve2"), ("pve3",))
    nodes = sdn.objects_of(platform, both, KEYS)["nodes"]
    assert [node["role"] for node in nodes.values()] == ["internal", "internal", "external"]
    assert nodes["wgfluo/pve1"]["peers"][0] == "type=internal,node_iface=wgfluo2,node=pve2,iface=wgfluo"
    assert nodes["wgfluo/pve2"]["interfaces"] == ["name=wgfluo2,listen_port=51820,ip=10.200.0.2/32"]
    assert [node["role"] for node in sdn.objects_of(platform, other, KEYS)["nodes"].values()][-1] == "internal"


def served(objects: sdn.Objects) -> dict[str, dict[str, Any]]:
    """The objects as Proxmox VE lists them: interfaces have their keys."""
    listed = {kind: {name: dict(content) for name, content in each.items()} for kind, each in objects.items()}
    for name, node in listed["nodes"].items():
        if node["role"] == "internal":
            key = KEYS[name.partition("/")[2]]
            node["interfaces"] = [f"{text},public_key={key}" for text in node["interfaces"]]
    return listed


def test_the_keys_are_those_of_the_planned_interfaces(root: Path) -> None:
    platform = platform_with(root)
    states = {e.name: SdnState(served(sdn.objects_of(platform, e, KEYS))) for e in platform.proxmox}
    assert sdn.public_keys(mesh_of(platform), states) == KEYS
    rotated = mesh_of(platform_with(root, hosts=[{"host": "pve2", "key": 2}]))
    assert sdn.public_keys(rotated, states) == KEYS | {"pve2": ""}
    for endpoint in platform.proxmox:
        assert list(sdn.differences(platform, endpoint, states[endpoint.name], KEYS)) == []


def test_the_present_numbers_of_keys_are_those_of_the_interfaces_and_one_host_may_take_the_next(root: Path) -> None:
    before = platform_with(root, hosts=[{"host": "pve1", "key": 2}])
    states = {e.name: SdnState(served(sdn.objects_of(before, e, KEYS))) for e in before.proxmox}
    after = platform_with(root, hosts=[{"host": name, "key": 3} for name in KEYS])
    for rotating, numbers in (("", [2, 1, 1]), ("pve2", [2, 3, 1])):
        present = mesh_of(sdn.as_present(after, states, rotating))
        assert [host.key for host in present.hosts] == numbers


def steps_of(platform: Platform, endpoint: ProxmoxEndpoint, present: sdn.Objects) -> list[str]:
    """The steps in short; all that belongs to the mesh is ours."""
    ours, planned = (of(platform, endpoint, KEYS) for of in (sdn.objects_of, sdn.wanted))
    done = sdn.steps(present, ours, planned)
    return [
        f"{verb} {name}" + (f" {sorted(content)}" if verb == "change" else "") for verb, kind, name, content in done
    ]


EMPTY: sdn.Objects = {kind: {} for kind in ("fabrics", "nodes", "zones", "vnets", "subnets")}


def test_the_steps_make_what_others_need_first_and_peers_last(root: Path) -> None:
    platform = platform_with(root)
    assert steps_of(platform, platform.proxmox[0], EMPTY) == [
        "create wgfluo",
        "create wgfluo/pve1",
        "create wgfluo/pve2",
        "create wgfluo/pve3",
        "create nodes",
        "create vxnodes",
        "create nodes-10.10.0.0-24",
        "change wgfluo/pve1 ['peers', 'protocol', 'role']",
    ]


def test_peers_are_removed_before_an_interface_that_they_name_is_replaced(root: Path) -> None:
    before, after = platform_with(root), platform_with(root, hosts=[{"host": "pve1", "key": 2}])
    (both,) = endpoints_as(before, ("pve1", "pve2"))
    present = served(sdn.objects_of(before, both, KEYS))
    assert steps_of(before, both, present) == []
    assert steps_of(after, both, present) == [
        "change wgfluo/pve1 ['delete', 'protocol', 'role']",
        "change wgfluo/pve2 ['delete', 'protocol', 'role']",
        "change wgfluo/pve1 ['interfaces', 'protocol', 'role']",
        "change wgfluo/pve1 ['peers', 'protocol', 'role']",
        "change wgfluo/pve2 ['peers', 'protocol', 'role']",
    ]


def test_a_host_that_leaves_is_forgotten_after_nobody_names_it_as_a_peer(root: Path) -> None:
    before = platform_with(root)
    present = served(sdn.objects_of(before, before.proxmox[0], KEYS))
    after = before.model_copy(update={"wireguard": leaving(mesh_of(before), "pve3")})
    assert steps_of(after, after.proxmox[0], present) == [
        "change nodes ['peers']",
        "change wgfluo/pve1 ['peers', 'protocol', 'role']",
        "delete wgfluo/pve3",
    ]
    assert steps_of(after, after.proxmox[2], served(sdn.objects_of(before, before.proxmox[2], KEYS))) == [
        "delete nodes-10.10.0.0-24",
        "delete vxnodes",
        "delete nodes",
        "delete wgfluo",
    ]


def leaving(mesh: Wireguard, *names: str) -> Wireguard:
    """The mesh without hosts."""
    hosts = [host.model_copy(update={"removed": host.host in names}) for host in mesh.hosts]
    return mesh.model_copy(update={"hosts": tuple(hosts)})


def test_only_what_is_pending_of_ours_is_published(root: Path) -> None:
    platform = platform_with(root)
    endpoint, present = platform.proxmox[0], served(sdn.objects_of(platform, platform.proxmox[0], KEYS))
    present["nodes"]["wgfluo/pve2"]["state"] = "new"
    sdn.require_ours(platform, endpoint, SdnState(present), KEYS)
    present["nodes"]["theirs/pve1"] = {"role": "internal", "state": "new"}
    with pytest.raises(ForeignObject, match=r"of somebody else: node theirs/pve1 \(new\)"):
        sdn.require_ours(platform, endpoint, SdnState(present), KEYS)


def test_a_fabric_of_another_protocol_is_somebody_elses(root: Path) -> None:
    platform = platform_with(root)
    state = SdnState({**EMPTY, "fabrics": {"wgfluo": {"protocol": "ospf"}}})
    with pytest.raises(ForeignObject, match="has the fabric wgfluo with protocol ospf"):
        sdn.require_ours(platform, platform.proxmox[0], state, KEYS)


def test_a_network_that_is_in_use_is_not_removed(root: Path) -> None:
    before = platform_with(root)
    after = before.model_copy(update={"wireguard": leaving(mesh_of(before), *KEYS)})
    present = served(sdn.objects_of(before, before.proxmox[0], KEYS))
    present["vnets"]["theirs"] = {"zone": "nodes", "tag": 7}
    state = SdnState(present, users=["talos-cp-1"])
    with pytest.raises(ForeignObject, match="is in use by VM talos-cp-1, VNet theirs"):
        sdn.require_ours(after, after.proxmox[0], state, KEYS)
    sdn.require_ours(before, before.proxmox[0], state, KEYS)


TAKEN: dict[str, tuple[str, list[str]]] = {
    "our port": ("name=wg0,listen_port=51820", ["UDP port 51820 of pve1 is used by interface wg0 of fabric theirs"]),
    "our name": (
        "name=wgfluo2,listen_port=7",
        ["the interface wgfluo of pve1 is used by interface wgfluo2 of fabric theirs"],
    ),
    "our address": (
        "name=wg0,listen_port=7,ip=10.200.0.1/24",
        ["the address 10.200.0.1 of pve1 is used by interface wg0 of fabric theirs"],
    ),
    "nothing of ours": ("name=wg0,listen_port=7,ip=10.9.0.1/24", []),
}


@pytest.mark.parametrize(("interface", "expected"), TAKEN.values(), ids=TAKEN)
def test_what_an_interface_of_another_fabric_has_of_ours_is_named(
    root: Path, interface: str, expected: list[str]
) -> None:
    theirs = {"role": "internal", "interfaces": [f"{interface},public_key=x"]}
    state = SdnState({**EMPTY, "nodes": {"theirs/pve1": theirs, "theirs/pve9": theirs}})
    assert list(sdn.interface_problems(mesh_of(platform_with(root)), {"host-1": state})) == expected


def test_a_fabric_stays_a_fabric(root: Path) -> None:
    platform = platform_with(root, hosts=[{"host": "pve3", "endpoint": None}])
    states = {e.name: SdnState(served(sdn.objects_of(platform, e, KEYS)), version="9.2.6") for e in platform.proxmox}
    with pytest.raises(Refused, match=r"is a fabric of the SDN of host-1, .*, which cannot have a host behind NAT"):
        plan(platform, Observation({}, states))


def test_the_tag_of_a_vlan_is_none_of_ours(root: Path) -> None:
    platform = platform_with(root)
    objects = {key: dict(value) for key, value in sdn.wanted(platform, platform.proxmox[0], None).items()}
    objects["vnets"]["office"] = {"zone": "lan", "tag": 100}
    for type_, error in (("vlan", ""), ("evpn", "has the vnet office with tag 100")):
        objects["zones"]["lan"] = {"type": type_}
        with pytest.raises(ForeignObject, match=error) if error else nullcontext():
            sdn.require_ours(platform, platform.proxmox[0], SdnState(objects), None)


RUNNING: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, ""),
    "it is down": ({"running": ""}, "the tunnel of pve1 is down"),
    "another key": ({"running": OTHER}, "the tunnel of pve1 runs with another key"),
    "another MTU": ({"mtu": 1380}, "the tunnel of pve1 runs with MTU 1380 on port 51820"),
    "another port": ({"ports": {"wgfluo": 7}}, "the tunnel of pve1 runs with MTU 1420 on port 7"),
}


@pytest.mark.parametrize(("change", "reason"), RUNNING.values(), ids=RUNNING)
def test_what_a_tunnel_of_a_fabric_lacks_is_named_and_applied_again(
    root: Path, change: dict[str, Any], reason: str
) -> None:
    platform = platform_with(root)
    mesh = mesh_of(platform)
    hosts = {name: replace(state, file="", holds="", public="") for name, state in states_of(mesh).items()}
    hosts["pve1"] = replace(hosts["pve1"], **change)
    states = {e.name: replace(sdn_states(platform, KEYS)[e.name], objects={}) for e in platform.proxmox}
    for endpoint in platform.proxmox:
        objects = served(sdn.objects_of(platform, endpoint, KEYS))
        states[endpoint.name] = replace(states[endpoint.name], objects=objects)
    made = plan(platform, Observation(hosts, states, fabric=True))
    assert {action.id: action.reason for action in made.actions} == ({"sdn host-1": reason} if reason else {})


def test_the_firewall_lets_the_other_hosts_in_and_vxlan_only_through_the_tunnel(root: Path) -> None:
    platform = platform_with(root)
    mesh = mesh_of(platform)
    wireguard, inside, outside = sdn.firewall_rules(platform, mesh.host("pve1"), SdnState(), fabric=False)
    assert (wireguard["action"], wireguard["dport"], wireguard["source"]) == (
        "ACCEPT",
        "51820",
        "198.51.100.12,198.51.100.13",
    )
    assert (inside["action"], inside["dport"], inside["iface"], inside["source"]) == (
        "ACCEPT",
        "4789",
        "wgfluo",
        "10.200.0.0/24",
    )
    assert (outside["action"], outside["dport"], "iface" in outside) == ("DROP", "4789", False)
    others = SdnState({"zones": {"theirs": {"type": "vxlan"}}})
    assert len(sdn.firewall_rules(platform, mesh.host("pve1"), others, fabric=False)) == 2
    behind_nat = mesh_of(platform_with(root, hosts=[{"host": "pve2", "endpoint": None}]))
    nat = platform.model_copy(update={"wireguard": behind_nat})
    assert "source" not in sdn.firewall_rules(nat, behind_nat.host("pve1"), SdnState(), fabric=False)[0]
    assert sdn.firewall_rules(nat, leaving(mesh, "pve1").host("pve1"), SdnState(), fabric=False) == []


def test_rules_of_others_do_not_matter_and_the_order_of_ours_does(root: Path) -> None:
    platform = platform_with(root)
    mesh = mesh_of(platform)
    planned = sdn.firewall_rules(platform, mesh.host("pve1"), SdnState(), fabric=False)
    theirs = {"type": "in", "action": "DROP", "proto": "udp", "comment": "backup"}
    assert not sdn.rules_differ(mesh, [theirs, *planned], planned)
    assert sdn.rules_differ(mesh, planned[::-1], planned)
    assert sdn.rules_differ(mesh, [{**planned[0], "enable": 0}, *planned[1:]], planned)
    assert sdn.rules_differ(mesh, [theirs], planned)
