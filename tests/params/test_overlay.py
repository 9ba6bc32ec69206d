from __future__ import annotations

from typing import Any

import pytest

from fluobook.errors import ParamsError
from fluobook.params import load, overlay, parse
from fluobook.params.reading import merged


def test_set_changes_one_node_by_its_name() -> None:
    platform = load("phase1", ["nodes.talos-worker-1.memory_gib=16"]).platform
    assert [node.memory_gib for node in platform.nodes] == [8, 16, 12]


def test_set_takes_the_path_as_errors_name_it() -> None:
    assert load("phase1", ["platform.network.vip=10.10.0.5"]).platform.api_address == "10.10.0.5"


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ("network.vlan=20", lambda platform: platform.network.vlan == 20),
        ("network.vip=null", lambda platform: platform.network.vip is None),
        ("network.vip=", lambda platform: platform.network.vip is None),
        ("network.nameservers=[9.9.9.9]", lambda platform: platform.network.nameservers == ("9.9.9.9",)),
        ("vm.agent=false", lambda platform: platform.vm.agent is False),
        ("deadlines.install=0.5", lambda platform: platform.deadlines.install == 0.5),
        ("proxmox.laptop.disk_storage=zfs1", lambda platform: platform.proxmox[0].disk_storage == "zfs1"),
        ("endpoints.10.10.0.10:50000=127.0.0.1:4", lambda platform: platform.route("10.10.0.10", 50000)[1] == 4),
        (
            "gitops.mirrors.https://helm.cilium.io=http://127.0.0.1:9/x",
            lambda platform: platform.gitops.mirrors == {"https://helm.cilium.io": "http://127.0.0.1:9/x"},
        ),
        (
            "proxmox.laptop.token_secret={file: token}",
            lambda platform: platform.proxmox[0].token_secret.file == "token",
        ),
    ],
)
def test_a_value_is_yaml(setting: str, found: Any) -> None:
    assert found(load("phase1", [setting]).platform)


def test_the_last_of_two_settings_wins() -> None:
    assert load("phase1", ["network.vlan=20", "network.vlan=30"]).platform.network.vlan == 30


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("network.vlan", "--set network.vlan: there is no = in it; write path=value, such as"),
        ("=5", "such as"),
        ("network..vlan=5", "such as"),
        ("nodes.talos-worker-9.cores=8", "no item is named 'talos-worker-9'; did you mean 'talos-worker-2'?"),
        ("nodes.talos-worker-1=8", "name a key of 'talos-worker-1'"),
        ("nodes.talos-worker-1.memory=16", "did you mean 'memory_gib'?"),
        ("network.vlan=yes", "means 'yes' in YAML 1.2 and True in YAML 1.1"),
        ("phase=phase2", "platform.phase: is not a known key"),
        ("gitops.revision=1.0", 'put it in quotes as it was meant, such as "1.0"'),
        ("network.vlan={", "line 1"),
        ("gitops.mirrors={}", "an empty mapping changes nothing: edit the file"),
    ],
)
def test_a_wrong_setting_is_refused(setting: str, message: str) -> None:
    with pytest.raises(ParamsError) as refused:
        load("phase1", [setting])
    assert message in "\n".join(refused.value.problems)


@pytest.mark.parametrize(
    ("settings", "blamed"),
    [
        (["network.mtu=9", "network.vlan=20"], "--set network.mtu: "),
        (["network.vlan=20", "network.mtu=9", "deadlines.etcd=700"], "--set network.mtu: "),
        (["network.mtu=9", "network.vlan=99999", "deadlines.etcd=700"], "--set network.mtu --set network.vlan: "),
    ],
)
def test_only_the_settings_that_are_wrong_are_blamed(settings: list[str], blamed: str) -> None:
    with pytest.raises(ParamsError) as refused:
        load("phase1", settings)
    assert refused.value.message.startswith(blamed)


def test_an_overlay_gives_the_same_platform_other_ways_in() -> None:
    platform = load("phase1").platform
    lab = overlay(
        platform,
        {
            "endpoints": {"192.168.1.100:8006": "127.0.0.1:40001"},
            "trust": {"192.168.1.100:8006": "/lab/ca.pem"},
            "proxmox": [{"name": "laptop", "token_secret": {"file": "/lab/token"}}],
            "secrets": {"age_key": {"file": "/lab/age"}},
        },
    )
    assert lab.route("192.168.1.100", 8006) == ("127.0.0.1", 40001)
    assert lab.trusted_ca("192.168.1.100", 8006) == "/lab/ca.pem"
    assert (lab.proxmox[0].token_secret.file, lab.proxmox[0].token_secret.env) == ("/lab/token", None)
    assert lab.proxmox[0].hosts == platform.proxmox[0].hosts
    assert lab.digest_data() == platform.digest_data()


def test_an_overlay_keeps_the_values_of_earlier_ones() -> None:
    first = overlay(load("phase1", ["network.vlan=20"]).platform, {"endpoints": {"a:1": "b:2"}})
    second = overlay(first, {"endpoints": {"c:3": "d:4"}})
    assert second.endpoints == {"a:1": "b:2", "c:3": "d:4"}
    assert second.network.vlan == 20


def test_what_is_derived_follows_an_overlay() -> None:
    platform = load("phase1").platform
    renamed = overlay(platform, {"cluster": {"name": "other"}})
    assert renamed.nodes[0].uuid != platform.nodes[0].uuid
    assert renamed.secrets.bundle == "talos/secrets/other.sops.yaml"


def test_an_overlay_may_add_a_node() -> None:
    platform = load("phase1").platform
    node = {"name": "w3", "role": "worker", "host": "pve1", "address": "10.10.0.22", "cores": 1, "memory_gib": 4}
    larger = overlay(platform, {"nodes": [{**node, "boot_disk_gib": 20, "data_disk_gib": 20}]})
    assert [each.name for each in larger.workers] == ["talos-worker-1", "talos-worker-2", "w3"]


def test_an_overlay_that_breaks_a_rule_is_refused() -> None:
    with pytest.raises(ParamsError, match="the overlay: one problem"):
        overlay(load("phase1").platform, {"network": {"gateway": "10.99.0.1"}})


def test_a_platform_read_back_from_json_is_the_same() -> None:
    params = load("phase3")
    again = parse(params.model_dump(mode="json"))
    assert again.model_dump() == params.model_dump()


def test_what_was_written_can_be_handed_on() -> None:
    params = load("phase1", ["network.vlan=20"])
    assert parse({"phase": "phase1", "platform": params.platform.written}).platform == params.platform
    assert "mac" not in params.platform.written["nodes"][0]


def test_merging_changes_neither_side() -> None:
    below, above = {"a": {"b": 1}, "l": [{"name": "x", "v": 1}]}, {"a": {"c": 2}, "l": [{"name": "x", "w": 2}]}
    assert merged(below, above) == {"a": {"b": 1, "c": 2}, "l": [{"name": "x", "v": 1, "w": 2}]}
    assert (below, above) == (
        {"a": {"b": 1}, "l": [{"name": "x", "v": 1}]},
        {"a": {"c": 2}, "l": [{"name": "x", "w": 2}]},
    )
