"""Stage 0b against the lab: hosts that run the real script, and the SDN of each endpoint."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fluobook.clients import age, sops, ssh
from fluobook.clients.proxmox.session import Session
from fluobook.errors import AccessDenied, ApprovalNeeded, CheckFailed, ForeignObject, OutsideError, Refused, TaskFailed
from fluobook.journal.journal import Journal
from fluobook.redact import Redactor
from fluobook.stages import host_network
from fluobook.stages.core.executor import Progress, Reporter

if TYPE_CHECKING:
    from collections.abc import Callable


ROOT = Path(__file__).parents[3]
NAME = "host-network"
OTHER = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
QUICK: tuple[list[list[str]], int] = ([[], [], []], 3)
FABRIC: tuple[list[list[str]], int] = ([["wgfluo"]] * 3, 0)
"""The fabrics of the endpoints, and the number of wg-quick files."""
pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def lab(shared_labs: Callable[..., Any]) -> Any:
    """A lab whose hosts form a mesh; each test leaves it whole, but the last one, which replaces keys."""
    lab = shared_labs(phase="phase3")
    lab.bring_up(NAME)
    return lab


@pytest.fixture
def host(lab: Any) -> Path:
    """The folder of the first host."""
    folder: Path = lab.folder / "hosts" / "root@198.51.100.11"
    return folder


def planned(lab: Any, *settings: str) -> dict[str, str]:
    """The actions of a fresh plan, with their reasons."""
    return {action.id: action.reason for action in lab.stage(NAME, *settings).plan().actions}


@pytest.mark.parametrize(
    ("faults", "endpoints", "expected"),
    [
        ([], 3, QUICK),
        (["proxmox.version-8"], 3, QUICK),
        (["proxmox.version-9-2"], 3, FABRIC),
        (["host.tools-missing"], 3, QUICK),
        (["proxmox.version-9-2", "host.tools-missing"], 3, FABRIC),
        ([], 1, ([[]], 3)),
        (["proxmox.version-9-2"], 1, ([["wgfluo"]], 0)),
        (["proxmox.version-9-2"], 2, ([["wgfluo"]] * 2, 0)),
    ],
    ids=[
        "9.0",
        "8.4",
        "9.2",
        "9.0 without tools",
        "9.2 without tools",
        "a cluster",
        "a cluster of 9.2",
        "2 and 1 of 9.2",
    ],
)
def test_a_mesh_comes_up_from_nothing_and_a_second_run_changes_nothing(
    labs: Any, tmp_path: Path, faults: list[str], endpoints: int, expected: tuple[list[list[str]], int]
) -> None:
    lab = labs(*faults, phase=with_endpoints(tmp_path, endpoints))
    stage = lab.stage(NAME)
    stage.apply(stage.plan())
    assert stage.verify().ok
    lab.mark()
    second = lab.stage(NAME)
    assert second.plan().actions == ()
    second.verify()
    assert lab.requests(mutating=True) == []
    assert lab.requests("host")
    fabrics = [each.inventory.sdn.running["fabrics"] for each in lab.environment.proxmox.values()]
    files = list((lab.folder / "hosts").glob("*/wireguard/*.conf"))
    assert (list(map(list, fabrics)), len(files)) == expected


def with_endpoints(folder: Path, number: int) -> Path:
    """Phase 3 with this number of endpoints, the first of which has the other hosts too."""
    document = yaml.safe_load((ROOT / "params" / "phase3.yaml").read_text())
    endpoints = document["platform"]["proxmox"]
    kept = document["platform"]["proxmox"] = endpoints[:number]
    kept[0]["hosts"] += [host for endpoint in endpoints[number:] for host in endpoint["hosts"]]
    path = folder / "hosts.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_without_a_mesh_the_stage_is_skipped_and_asks_nobody(labs: Any) -> None:
    lab = labs()
    stage = lab.stage(NAME)
    assert stage.plan().notes == (host_network.plan.SKIPPED,)
    assert [check.result for check in stage.verify().checks] == [host_network.plan.SKIPPED]
    assert lab.requests() == []


def test_a_run_that_ends_after_any_action_is_completed_by_the_next_one(labs: Any) -> None:
    lab = labs(phase="phase3")
    first = lab.stage(NAME).plan()
    for done, action in enumerate(first.actions):
        context = lab.context()
        rest = host_network.STAGE.plan(context.platform, host_network.STAGE.observe(context))
        assert [each.id for each in rest.actions] == [each.id for each in first.actions[done:]]
        assert rest.rest_of(first)
        host_network.STAGE.perform(context, action, Reporter(action, NAME, context.journal, Progress(())))
    assert lab.stage(NAME).verify().ok


def test_no_private_key_is_shown_written_or_sent(
    labs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lab, sent = labs(phase="phase3"), []
    real = ssh.run_tool

    def recorded(name: str, command: Any, **options: Any) -> Any:
        output = real(name, command, **options)
        sent.append(f"{command} {options} {output.stdout} {output.stderr}")
        return output

    monkeypatch.setattr(ssh, "run_tool", recorded)
    context = lab.context()
    (tmp_path / "run").mkdir()
    context.journal = Journal(tmp_path / "run" / "events.jsonl", Redactor())
    stage = lab.stage(NAME, context=context)
    stage.apply(stage.plan())
    stage.verify()
    keys = [path.read_text().strip() for path in (lab.folder / "hosts").glob("*/wireguard/*.key")]
    assert len(keys) == len(sent) // 4 == 3
    files = [path.read_text() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    texts = [*sent, *files, capsys.readouterr().out]
    assert not [key for key in keys for text in texts if key in text]
    modes = {oct(path.stat().st_mode & 0o777) for path in (lab.folder / "hosts").glob("*/wireguard/*")}
    assert modes == {"0o600"}


def test_create_vms_is_blocked_until_the_network_is_there(labs: Any) -> None:
    lab = labs(phase="phase3")
    plan = lab.stage("create-vms").plan()
    assert plan.waits_for == NAME
    assert plan.notes == ("VNet vxnodes is not available on pve1, pve2, pve3",)
    assert plan.summary().startswith("Blocked: run host-network first.")
    lab.bring_up(NAME)
    assert lab.stage("create-vms").plan().waits_for == ""


def test_what_hosts_lost_is_made_again(lab: Any, host: Path) -> None:
    second, third = (lab.folder / "hosts" / f"root@198.51.100.{number}" for number in (12, 13))
    (host / "wireguard" / "wgfluo.conf").unlink()
    (second / "interfaces").write_text("auto vmbr0\n")
    (second / "run" / "wgfluo.conf").unlink()
    (third / "wireguard" / "wgfluo.1.key").unlink()
    stage = lab.stage(NAME)
    plan = stage.plan()
    assert {action.id: action.reason for action in plan.actions} == {
        "key pve3": "no key",
        "mesh pve1": "it has no file",
        "mesh pve2": "it is down; Proxmox VE does not know its address",
        "rotate pve3": "it uses another key than number 1",
    }
    stage.apply(plan)
    assert stage.verify().ok
    assert (second / "interfaces").read_text().count("iface wgfluo") == 1


def test_a_zone_without_its_mtu_is_given_it(lab: Any) -> None:
    sdn = lab.environment.proxmox["host-1"].inventory.sdn
    for objects in (sdn.configured, sdn.running):
        objects["zones"]["nodes"] = {key: v for key, v in objects["zones"]["nodes"].items() if key != "mtu"}
    assert planned(lab) == {"sdn host-1": "zone nodes has mtu no value"}
    lab.bring_up(NAME)
    assert sdn.running["zones"]["nodes"]["mtu"] == 1370


def test_our_own_changes_that_are_pending_are_applied(lab: Any) -> None:
    sdn = lab.environment.proxmox["host-2"].inventory.sdn
    del sdn.running["subnets"]["nodes-10.10.0.0-24"]
    assert planned(lab) == {"sdn host-2": "subnet nodes-10.10.0.0-24 is not applied"}
    lab.bring_up(NAME)
    assert sdn.running == sdn.configured


FOREIGN: dict[str, tuple[str, str, dict[str, Any] | None, str]] = {
    "a new zone": ("zones", "theirs", {"type": "simple"}, "pending changes of somebody else: zone theirs (new)"),
    "a new VNet": ("vnets", "theirs", {"zone": "nodes", "tag": 7}, "vnet theirs (new)"),
    "a new controller": ("controllers", "evpn1", {"type": "evpn"}, "controller evpn1 (new)"),
    "a new fabric": ("fabrics", "theirs", {"protocol": "ospf"}, "fabric theirs (new)"),
    "an option of our zone": (
        "zones",
        "nodes",
        {
            "type": "vxlan",
            "peers": "10.200.0.1,10.200.0.2,10.200.0.3",
            "vxlan-port": 4789,
            "nodes": "pve3",
            "dns": "corp",
        },
        "zone nodes (changed: dns)",
    ),
    "an option of our VNet": (
        "vnets",
        "vxnodes",
        {"zone": "nodes", "tag": 100, "alias": "theirs", "isolate-ports": 1},
        "vnet vxnodes (changed: alias, isolate-ports)",
    ),
    "our subnet deleted": ("subnets", "nodes-10.10.0.0-24", None, "subnet nodes-10.10.0.0-24 (deleted)"),
    "our zone with another type": ("zones", "nodes", {"type": "simple"}, "has the zone nodes with type simple"),
    "our VNet in another zone": (
        "vnets",
        "vxnodes",
        {"zone": "theirs", "tag": 100},
        "the vnet vxnodes with zone theirs",
    ),
}


@pytest.mark.parametrize(("kind", "name", "content", "message"), FOREIGN.values(), ids=FOREIGN)
def test_changes_of_other_people_stop_the_stage(
    lab: Any, kind: str, name: str, content: dict[str, Any] | None, message: str
) -> None:
    configured = lab.environment.proxmox["host-3"].inventory.sdn.configured[kind]
    before = dict(configured)
    if content is None:
        del configured[name]
    else:
        configured[name] = content
    try:
        lab.mark()
        with pytest.raises(ForeignObject) as refused:
            planned(lab)
        assert message in str(refused.value)
        assert lab.requests(mutating=True) == []
    finally:
        configured.clear()
        configured.update(before)


def test_a_change_that_somebody_makes_after_the_plan_is_not_published(labs: Any) -> None:
    lab = labs(phase="phase3")
    context = lab.context()
    plan = host_network.STAGE.plan(context.platform, host_network.STAGE.observe(context))
    configured = lab.environment.proxmox["host-1"].inventory.sdn.configured
    configured["zones"]["theirs"] = {"type": "simple"}
    action = next(action for action in plan.actions if action.id == "sdn host-1")
    with pytest.raises(ForeignObject, match=r"zone theirs \(new\)"):
        host_network.STAGE.perform(context, action, Reporter(action, NAME, context.journal, Progress(())))
    assert not lab.environment.proxmox["host-1"].inventory.sdn.running["zones"]


def test_a_key_that_is_not_the_expected_one_is_refused(lab: Any) -> None:
    expected = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
    with pytest.raises(Refused, match=f"pve2 has the public key .*, and the params say {expected}"):
        planned(lab, f"platform.wireguard.hosts.pve2.public_key={expected}")


def test_a_port_of_another_interface_is_refused(lab: Any, host: Path) -> None:
    other = host / "run" / "wg0.conf"
    other.write_text("[Interface]\nPrivateKey = x\nListenPort = 51820\n")
    with pytest.raises(Refused, match="UDP port 51820 of pve1 is used by its interface wg0"):
        planned(lab)
    other.unlink()


def test_a_host_without_ssh_is_left_to_the_operator_and_named(lab: Any, tmp_path: Path) -> None:
    key = (lab.folder / "hosts" / "root@198.51.100.13" / "wireguard" / "wgfluo.1.key").read_text()
    public = _public_key(lab, "root@198.51.100.13")
    hosts = [{"host": "pve3", "ssh": None, "public_key": public}]
    context = lab.context(wireguard={"hosts": hosts})
    context.journal = Journal(tmp_path / "events.jsonl", Redactor())
    stage = lab.stage(NAME, context=context)
    plan = stage.plan()
    assert plan.actions == ()
    assert plan.notes[0].startswith("run pve3.sh, in host-network of the run's folder, as root on pve3")
    script = (tmp_path / "host-network" / "pve3.sh").read_text()
    assert "verb='mesh'" in script
    assert key.strip() not in script
    unseen = [check for check in stage.verify().checks if not check.passed]
    assert [(check.name, check.result, check.advisory) for check in unseen] == [
        ("every host was inspected", "2 of 3; not: pve3", True)
    ]


def _public_key(lab: Any, destination: str) -> str:
    context = lab.context()
    host = next(host for host in context.platform.wireguard.hosts if host.ssh == destination)
    return host_network.plan.run_on_host(context, host.host, "observe").public


FAILURES: dict[str, tuple[str, type[OutsideError], str]] = {
    "a node does not reload": (
        "proxmox.network-reload-fails",
        TaskFailed,
        r"srvreload networking on pve\d failed: command 'ifreload",
    ),
    "the SDN is locked": ("proxmox.sdn-locked", OutsideError, "SDN configuration is locked"),
    "somebody works on the SDN": ("proxmox.sdn-foreign-change", ForeignObject, r"zone lab2 \(new\)"),  # type: ignore[dict-item]
    "ssh is denied": ("host.ssh-denied", AccessDenied, "ssh does not reach root@198.51.100.11"),
}


@pytest.mark.parametrize(("fault", "kind", "message"), FAILURES.values(), ids=FAILURES)
def test_a_failure_is_named_with_its_remedy(labs: Any, fault: str, kind: type[OutsideError], message: str) -> None:
    stage = labs(fault, phase="phase3").stage(NAME)
    with pytest.raises(kind) as failed:
        stage.apply(stage.plan())
    assert re.search(message, str(failed.value))


def test_a_pair_without_a_connection_is_named_by_the_checks(labs: Any) -> None:
    lab = labs("host.udp-blocked", phase="phase3")
    stage = lab.stage(NAME)
    stage.apply(stage.plan())
    with pytest.raises(CheckFailed, match=r"pve1 to pve2 \(no handshake\)"):
        stage.verify()


def test_the_evidence_of_each_pair_is_in_the_journal(lab: Any, tmp_path: Path) -> None:
    context = lab.context()
    context.journal = Journal(tmp_path / "events.jsonl", Redactor())
    lab.stage(NAME, context=context).verify()
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    peers = next(event["peers"] for event in events if event["event"] == "evidence")
    assert [len(each) for each in peers.values()] == [2, 2, 2]
    assert {"handshake", "received", "sent", "endpoint", "allowed"} == set(next(iter(peers["pve1"].values())))


def test_the_next_number_replaces_a_key_one_host_after_the_other(lab: Any, host: Path) -> None:
    old = (host / "wireguard" / "wgfluo.1.key").read_text()
    settings = [f"platform.wireguard.hosts.{name}.key=2" for name in ("pve1", "pve2")]
    stage = lab.stage(NAME, *settings)
    plan = stage.plan()
    assert [action.id for action in plan.actions] == ["key pve1", "key pve2", "rotate pve1", "rotate pve2"]
    assert "rotate pve1" in plan.actions[-1].needs
    stage.apply(plan)
    assert stage.verify().ok
    assert [path.name for path in (host / "wireguard").glob("*.key")] == ["wgfluo.2.key"]
    assert old not in (host / "wireguard" / "wgfluo.conf").read_text()
    assert planned(lab, *settings) == {}


@pytest.fixture(scope="module")
def fabric(shared_labs: Callable[..., Any]) -> Any:
    """A lab with Proxmox VE 9.2, whose mesh is a fabric; each test leaves it whole."""
    lab = shared_labs("proxmox.version-9-2", phase="phase3")
    lab.bring_up(NAME)
    return lab


def sdn_at(lab: Any, number: int) -> Any:
    """The SDN of an endpoint."""
    return lab.environment.proxmox[f"host-{number}"].inventory.sdn


def test_a_node_and_a_prefix_list_of_other_people_stop_the_stage(fabric: Any) -> None:
    configured = sdn_at(fabric, 1).configured
    node = {"fabric_id": "wgfluo", "protocol": "wireguard", "role": "external", "public_key": OTHER, "endpoint": "a:1"}
    configured["nodes"]["wgfluo/theirs"], configured["prefix-lists"]["theirs"] = node, {}
    configured["route-maps"]["theirs"] = {"order": 10}
    message = r"node wgfluo/theirs \(new\), prefix-list theirs \(new\), route-map theirs/10 \(new\)"
    with pytest.raises(ForeignObject, match=message):
        planned(fabric)
    for kind, name in (("nodes", "wgfluo/theirs"), ("prefix-lists", "theirs"), ("route-maps", "theirs")):
        del configured[kind][name]


def test_what_proxmox_ve_reports_of_a_host_without_ssh_is_shown_and_a_lost_tunnel_made_again(fabric: Any) -> None:
    setting, tunnel = "platform.wireguard.hosts.pve1.ssh=null", fabric.folder / "hosts" / "root@198.51.100.11" / "run"
    results = {check.name: check.result for check in fabric.stage(NAME, setting).verify().checks}
    seen = "2 of 3; not: pve1; Proxmox VE reports of pve1: wgfluo up, pve2 up, pve3 up"
    assert results["every host was inspected"] == seen
    (tunnel / "wgfluo.conf").unlink()
    assert planned(fabric, setting) == {"sdn host-1": "the tunnel of pve1 is down"}
    with pytest.raises(CheckFailed, match=r"2 of 3; not: pve1 \(Proxmox VE reports that its tunnel is down"):
        fabric.stage(NAME, setting).verify()
    fabric.bring_up(NAME)


def test_an_endpoint_that_a_host_does_not_have_is_named_though_the_mesh_works(lab: Any) -> None:
    stage = lab.stage(NAME, "platform.wireguard.hosts.pve2.endpoint=198.51.100.99")
    stage.apply(stage.plan())
    with pytest.raises(
        CheckFailed, match=r"pve1 to pve2 \(its packets come from 198.51.100.12:51820, not from its end"
    ):
        stage.verify()
    lab.bring_up(NAME)


def test_peers_that_a_running_tunnel_lost_are_set_again(lab: Any, host: Path) -> None:
    running = host / "run" / "wgfluo.conf"
    text = running.read_text()
    for other in (text[: text.rindex("[Peer]")], text.replace("10.200.0.2/32", "10.200.0.0/24")):
        running.write_text(other)
        assert planned(lab) == {"mesh pve1": "it runs with other peers or networks than its file's"}
        lab.bring_up(NAME)


def test_an_address_that_a_running_tunnel_lost_is_set_again(lab: Any, host: Path) -> None:
    """A script that ends between the configuration and the address leaves a tunnel that looks right."""
    running = host / "run" / "wgfluo.address"
    for other in ("10.200.9.9/32", ""):
        running.write_text(other)
        assert planned(lab) == {"mesh pve1": "it has no address, or another one"}
        lab.bring_up(NAME)
        assert running.read_text().strip() == "10.200.0.1/32"


def test_a_key_file_that_is_no_key_is_made_again(lab: Any, host: Path) -> None:
    (host / "wireguard" / "wgfluo.1.key").write_text("damaged\n")
    assert planned(lab) == {"key pve1": "no key", "rotate pve1": "it uses another key than number 1"}
    lab.bring_up(NAME)


def test_keys_of_a_cluster_are_replaced_and_a_host_leaves_it(labs: Any, tmp_path: Path) -> None:
    lab = labs("proxmox.version-9-2", phase=with_endpoints(tmp_path, 1))
    lab.bring_up(NAME)
    nodes = lab.environment.proxmox["host-1"].inventory.sdn.running["nodes"]
    before = [node["interfaces"] for node in nodes.values()]
    rotated = [f"platform.wireguard.hosts.{name}.key=2" for name in ("pve1", "pve3")]
    stage = lab.stage(NAME, *rotated)
    stage.apply(stage.plan())
    assert stage.verify().ok
    nodes = lab.environment.proxmox["host-1"].inventory.sdn.running["nodes"]
    after = [node["interfaces"] for node in nodes.values()]
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, True, False]
    assert nodes["wgfluo/pve2"]["peers"] == [
        "type=internal,node_iface=wgfluo2,node=pve1,iface=wgfluo",
        "type=internal,node_iface=wgfluo2,node=pve3,iface=wgfluo",
    ]
    away = [f"platform.nodes.{name}.host=pve1" for name in ("talos-cp-3", "talos-worker-3")]
    leave(lab, [*away, *rotated, "platform.wireguard.hosts.pve3.removed=true", "platform.storage.replicas=2"], [])
    sdn = lab.environment.proxmox["host-1"].inventory.sdn.running
    assert list(sdn["nodes"]) == ["wgfluo/pve1", "wgfluo/pve2"]
    assert sdn["zones"]["nodes"]["nodes"] == "pve1,pve2"


def test_a_tunnel_of_a_fabric_that_is_lost_is_made_again(fabric: Any) -> None:
    (fabric.folder / "hosts" / "root@198.51.100.11" / "run" / "wgfluo.conf").unlink()
    assert planned(fabric) == {"sdn host-1": "the tunnel of pve1 is down"}
    fabric.bring_up(NAME)
    assert planned(fabric) == {}


def test_a_key_that_an_endpoint_has_wrong_is_corrected(fabric: Any) -> None:
    for objects in (sdn_at(fabric, 2).configured, sdn_at(fabric, 2).running):
        objects["nodes"]["wgfluo/pve1"] = objects["nodes"]["wgfluo/pve1"] | {"public_key": OTHER}
    assert planned(fabric) == {"sdn host-2": f"node wgfluo/pve1 has public_key {OTHER}"}
    fabric.bring_up(NAME)


def test_a_key_of_a_fabric_that_is_not_the_expected_one_is_refused(fabric: Any, labs: Any) -> None:
    setting = f"platform.wireguard.hosts.pve2.public_key={OTHER}"
    with pytest.raises(Refused, match=f"pve2 has the public key .*, and the params say {OTHER}"):
        planned(fabric, setting)
    fresh = labs("proxmox.version-9-2", phase="phase3").stage(NAME, setting)
    with pytest.raises(Refused, match=f"pve2 has the public key .*, and the params say {OTHER}"):
        fresh.apply(fresh.plan())


def test_firewall_rules_that_somebody_deleted_are_written_again_before_his(fabric: Any) -> None:
    inventory = fabric.environment.proxmox["host-1"].inventory
    before = list(inventory.firewall["pve1"])
    theirs = {"type": "in", "action": "DROP", "enable": 1, "comment": "theirs"}
    inventory.firewall["pve1"] = [theirs, before[2], before[0]]
    assert planned(fabric) == {"firewall pve1": "its rules differ"}
    fabric.bring_up(NAME)
    assert inventory.firewall["pve1"] == [*before, theirs]


def test_keys_of_a_fabric_are_replaced_one_host_after_the_other(fabric: Any) -> None:
    settings = [f"platform.wireguard.hosts.{name}.key=2" for name in ("pve1", "pve2")]
    before = [node["public_key"] for name, node in sdn_at(fabric, 3).running["nodes"].items() if name != "wgfluo/pve3"]
    stage = fabric.stage(NAME, *settings)
    plan = stage.plan()
    assert [action.id for action in plan.actions if action.verb == "rotate"] == ["rotate pve1", "rotate pve2"]
    stage.apply(plan)
    assert stage.verify().ok
    after = [node["public_key"] for name, node in sdn_at(fabric, 3).running["nodes"].items() if name != "wgfluo/pve3"]
    assert not set(before) & set(after)
    assert planned(fabric, *settings) == {}
    back = fabric.stage(NAME)
    back.apply(back.plan())
    assert back.verify().ok


@pytest.mark.parametrize("faults", [(), ("proxmox.version-9-2",)], ids=["9.0", "9.2"])
def test_hosts_leave_the_mesh_and_the_whole_mesh_goes(labs: Any, faults: tuple[str, ...]) -> None:
    lab = labs(*faults, phase="phase3")
    lab.bring_up(NAME)
    away = [f"platform.nodes.{name}.host=pve1" for name in ("talos-cp-3", "talos-worker-3")]
    removed = [*away, "platform.wireguard.hosts.pve3.removed=true", "platform.storage.replicas=2"]
    leave(lab, removed, ["vxnodes@host-3"])
    assert not sdn_at(lab, 3).running["zones"]
    assert not lab.environment.proxmox["host-3"].inventory.firewall["pve3"]
    assert sdn_at(lab, 1).running["zones"]["nodes"]["peers"] == "10.200.0.1,10.200.0.2"
    everything = [f"platform.wireguard.hosts.pve{number}.removed=true" for number in (1, 2, 3)]
    leave(lab, everything, ["vxnodes@host-1", "vxnodes@host-2"])
    for number in (1, 2, 3):
        sdn = sdn_at(lab, number)
        assert not any(sdn.running[kind] for kind in ("zones", "vnets", "subnets", "fabrics", "nodes"))
    hosts = lab.folder / "hosts"
    assert [*hosts.glob("*/wireguard/*"), *hosts.glob("*/run/*.conf")] == []
    assert "wgfluo" not in "".join(path.read_text() for path in hosts.glob("*/interfaces"))


def leave(lab: Any, settings: list[str], destroyed: list[str]) -> None:
    """Apply a plan that destroys, which `all` does not approve, and require that nothing is left to do."""
    plan = lab.stage(NAME, *settings).plan()
    assert set(destroyed) <= set(plan.destroys)
    with pytest.raises(ApprovalNeeded):
        lab.stage(NAME, *settings).apply(plan)
    stage = lab.stage(NAME, *settings, approve=f"{NAME}={plan.digest}")
    stage.apply(plan)
    assert stage.verify().ok
    lab.mark()
    assert planned(lab, *settings) == {}
    assert lab.requests(mutating=True) == []


def test_a_network_with_vms_is_not_removed(labs: Any) -> None:
    lab = labs(phase="phase3")
    lab.bring_up(NAME)
    vm = {"net0": "virtio=BC:24:11:00:00:01,bridge=vxnodes"}
    lab.background.call(lab.environment.proxmox["host-2"].add_vm, 900, "theirs", "pve2", config=vm)
    with pytest.raises(ForeignObject, match="the network of host-2 is in use by VM theirs"):
        planned(lab, *(f"platform.wireguard.hosts.pve{number}.removed=true" for number in (1, 2, 3)))


def limit_changes(monkeypatch: pytest.MonkeyPatch, budget: list[int]) -> None:
    """Let a run die as soon as it has changed something as often as the budget says."""
    call, script = Session.call, host_network.plan.run_script

    def spend() -> None:
        budget[0] -= 1
        if budget[0] < 0:
            raise KeyboardInterrupt

    def limited(self: Session, method: str, path: str, /, **more: Any) -> Any:
        if method != "GET":
            spend()
        return call(self, method, path, **more)

    def limited_script(program: str, destination: str, text: str, **more: Any) -> str:
        if "verb='observe'" not in text:
            spend()
        return script(program, destination, text, **more)

    monkeypatch.setattr(Session, "call", limited)
    monkeypatch.setattr(host_network.plan, "run_script", limited_script)


@pytest.mark.parametrize(
    "version",
    [
        pytest.param("proxmox.version-8", id="8.4", marks=pytest.mark.long),
        pytest.param("", id="9.0", marks=pytest.mark.long),
        pytest.param("proxmox.version-9-2", id="9.2"),
    ],
)
def test_a_run_that_dies_after_any_request_is_completed_by_later_ones(
    labs: Any, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab, budget, deaths = labs(*filter(None, [version]), phase="phase3"), [0], 0
    limit_changes(monkeypatch, budget)
    random = Random(12)
    while True:
        context = lab.context()
        plan = host_network.STAGE.plan(context.platform, host_network.STAGE.observe(context))
        if not plan.actions:
            break
        budget[0] = random.randint(3, 9)
        try:
            for action in plan.actions:
                host_network.STAGE.perform(context, action, Reporter(action, NAME, context.journal, Progress(())))
        except KeyboardInterrupt:
            deaths += 1
    assert deaths > 2
    assert lab.stage(NAME).verify().ok
    lab.mark()
    assert planned(lab) == {}
    assert lab.requests(mutating=True) == []


def test_keys_from_a_sops_file_are_used_and_never_shown(
    labs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab, keys, commands = labs("proxmox.version-9-2", phase="phase3"), {}, list[str]()
    for number in (1, 2, 3):
        keys[f"pve{number}"] = base64.b64encode(f"{number}".encode() * 32).decode()
    encrypted = tmp_path / "wireguard.sops.yaml"
    recipient = age.public_key(lab.context().secrets.age_key())
    encrypted.write_text(sops.encrypt(json.dumps(keys), path=encrypted.with_suffix(".json"), recipients=[recipient]))
    hosts = [{"host": name, "private_key": {"sops": str(encrypted), "key": name}} for name in keys]
    real = ssh.run_tool  # type: ignore[attr-defined]

    def recorded(name: str, command: Any, **options: Any) -> Any:
        output = real(name, command, **options)
        commands.append(f"{command} {output.stdout} {output.stderr}")
        return output

    monkeypatch.setattr(ssh, "run_tool", recorded)
    context = lab.context(wireguard={"hosts": hosts})
    (tmp_path / "run").mkdir()
    context.journal = Journal(tmp_path / "run" / "events.jsonl", context.redactor)
    stage = lab.stage(NAME, context=context)
    plan = stage.plan()
    stage.apply(plan)
    assert stage.verify().ok
    used = {path.read_text().strip() for path in (lab.folder / "hosts").glob("*/wireguard/*.key")}
    assert used == set(keys.values())
    files = [path.read_text() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    texts = [*commands, plan.table().text(), *files]
    assert not [key for key in keys.values() for text in texts if key in text]
    assert lab.stage(NAME, context=lab.context(wireguard={"hosts": hosts})).plan().actions == ()


GIVEN: dict[str, tuple[dict[str, str], dict[str, str], str]] = {
    "no key": ({"pve2": "hunter2"}, {}, "is no private key of WireGuard"),
    "a quote": ({"pve2": "'; reboot; '"}, {}, "is no private key of WireGuard"),
    "one key for two hosts": ({"pve2": "AQ" * 21 + "A=", "pve3": "AQ" * 21 + "A="}, {}, "is the key of pve2 too"),
    "another public key": ({"pve2": "AQ" * 21 + "A="}, {"pve2": OTHER}, f"and the params say {OTHER}"),
}


@pytest.mark.parametrize(("private", "public", "message"), GIVEN.values(), ids=GIVEN)
def test_a_private_key_that_cannot_be_its_hosts_is_refused_before_anything_is_done(
    lab: Any, monkeypatch: pytest.MonkeyPatch, private: dict[str, str], public: dict[str, str], message: str
) -> None:
    for name, key in private.items():
        monkeypatch.setenv(f"KEY_{name}", key)
    settings = [f"platform.wireguard.hosts.{name}.private_key={{env: KEY_{name}}}" for name in private]
    settings += [f"platform.wireguard.hosts.{name}.public_key={key}" for name, key in public.items()]
    lab.mark()
    with pytest.raises(Refused, match=re.escape(message)) as refused:
        planned(lab, *settings)
    assert lab.requests() == []
    assert not [key for key in private.values() if key in str(refused.value)]


def test_a_rehearsal_has_a_key_of_its_own_in_place_of_a_stored_one(labs: Any) -> None:
    stored = {"host": "pve1", "private_key": {"env": "LIVE_KEY"}, "public_key": OTHER}
    lab = labs(phase="phase3", wireguard={"hosts": [stored]})
    lab.bring_up(NAME)
    used = (lab.folder / "hosts" / "root@198.51.100.11" / "wireguard" / "wgfluo.1.key").read_text().strip()
    assert used == (lab.folder / "hosts" / "pve1.key").read_text()


def test_the_public_key_of_a_given_private_key_is_known(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    key = base64.b64encode(b"7" * 32).decode()
    monkeypatch.setenv("KEY_pve2", key)
    settings = ["platform.wireguard.hosts.pve2.private_key={env: KEY_pve2}"]
    settings += [f"platform.wireguard.hosts.pve2.public_key={host_network.mesh.public_key(key)}"]
    assert "key pve2" in planned(lab, *settings)
