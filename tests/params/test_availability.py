"""What the warnings say about a topology: each line of the table is a platform and what it loses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fluobook.params import load, parse, warnings
from fluobook.params.reading import read

SITE = Path(__file__).parent / "valid" / "two-hosts-one-control-plane.yaml"


def _platform(planes: str, workers: str, replicas: int, network: dict[str, Any]) -> Any:
    """A platform from the hosts of its nodes: "1 2" is a node on pve1 and one on pve2."""
    document = read(SITE)
    platform = document["platform"]
    platform["network"] |= network
    platform["proxmox"][0]["hosts"] = ["pve1", "pve2", "pve3"]
    plane, worker = platform["nodes"][0], platform["nodes"][1]
    platform["nodes"] = [
        *({**plane, "name": f"cp-{i}", "host": f"pve{h}", "address": f"10.42.0.1{i}"} for i, h in enumerate(planes)),
        *({**worker, "name": f"w-{i}", "host": f"pve{h}", "address": f"10.42.0.2{i}"} for i, h in enumerate(workers)),
    ]
    platform["storage"]["replicas"] = replicas
    platform["alerts"] = {"receivers": [{"name": "hook", "type": "webhook"}]}
    return parse(document).platform


VIP = {"vip": "10.42.0.5"}


@pytest.mark.parametrize(
    ("planes", "workers", "replicas", "network", "expected"),
    [
        ("123", "123", 3, VIP, []),
        ("123", "12", 2, VIP, []),
        ("12323", "123", 3, VIP, []),
        ("1", "122", 2, {}, ["cp-0 is the only control plane: while it or host pve1"]),
        ("112", "12", 2, VIP, ["host pve1 has 2 of 3 control planes"]),
        ("11223", "12", 2, VIP, []),
        ("11123", "12", 2, VIP, ["host pve1 has 3 of 5 control planes"]),
        ("111", "12", 2, VIP, ["host pve1 has 3 of 3 control planes"]),
        ("123", "123", 3, {}, ["the Kubernetes API has only the address of cp-0"]),
        ("123", "123", 1, VIP, ["storage.replicas is 1: a volume is lost with the worker or disk"]),
        ("123", "11", 1, VIP, ["every worker is on host pve1", "storage.replicas is 1"]),
        ("123", "1", 1, VIP, ["w-0 is the only worker", "every worker is on host pve1", "storage.replicas is 1"]),
    ],
)
def test_a_platform_without_spare_parts_is_accepted_and_its_losses_are_named(
    planes: str, workers: str, replicas: int, network: dict[str, Any], expected: list[str]
) -> None:
    sentences = warnings(_platform(planes, workers, replicas, network))
    assert len(sentences) == len(expected)
    assert [words for words, sentence in zip(expected, sentences, strict=True) if words not in sentence] == []


def test_the_advice_is_possible() -> None:
    assert "3 hosts have workers, so up to 3 copies" in warnings(_platform("123", "123", 1, VIP))[0]
    assert "copies are possible" not in " ".join(warnings(_platform("123", "11", 1, VIP)))


def test_any_file_is_a_platform_with_the_name_that_it_gives() -> None:
    assert load(SITE).phase == "berlin"


def test_a_public_network_hides_servers_on_the_internet(document: dict[str, Any]) -> None:
    document["platform"]["cluster"]["pod_cidr"] = "8.8.0.0/16"
    assert any("cluster.pod_cidr 8.8.0.0/16 has public" in sentence for sentence in warnings(parse(document).platform))
    document["platform"]["cluster"]["pod_cidr"] = "100.64.0.0/16"
    assert not any("has public addresses" in sentence for sentence in warnings(parse(document).platform))
