from __future__ import annotations

import json

import pytest

from fluobook.errors import UsageError
from fluobook.params import load, reservations
from fluobook.params.derive import DHCP_SERVERS


@pytest.mark.parametrize("server", DHCP_SERVERS)
def test_every_server_reserves_every_nodes_address(server: str) -> None:
    platform = load("phase1").platform
    text = reservations(platform, server)
    for node in platform.nodes:
        line = next(part for part in text.split("}" if server == "kea" else "\n") if node.mac in part)
        assert node.address in line
        assert node.name in line


def test_dnsmasq_reads_one_line_a_node() -> None:
    first = reservations(load("phase1").platform, "dnsmasq").splitlines()[0]
    assert first == "dhcp-host=BC:24:11:FD:27:DD,10.10.0.10,talos-cp-1,infinite"


def test_kea_reads_json() -> None:
    subnet = json.loads(reservations(load("phase1").platform, "kea"))["Dhcp4"]["subnet4"][0]
    assert subnet["subnet"] == "10.10.0.0/24"
    assert len(subnet["reservations"]) == 3


def test_an_unknown_server_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(UsageError) as refused:
        reservations(load("phase1").platform, "dnsmask")
    assert refused.value.remedy == "did you mean 'dnsmasq'?"
