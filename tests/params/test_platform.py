from __future__ import annotations

import json
from typing import Any

import pytest

from fluobook.params import Platform, load, parse


@pytest.fixture
def platform(document: dict[str, Any]) -> Platform:
    document["platform"]["endpoints"] = {"PVE.example.org:8006": "127.0.0.1:40001"}
    return parse(document).platform


def test_a_mapped_endpoint_is_reached_elsewhere(platform: Platform) -> None:
    assert platform.route("pve.example.org", 8006) == ("127.0.0.1", 40001)


def test_host_names_are_routed_without_regard_to_case(platform: Platform) -> None:
    assert platform.route("PVE.Example.org", 8006) == ("127.0.0.1", 40001)


def test_what_is_not_mapped_is_reached_as_it_is(platform: Platform) -> None:
    assert platform.route("10.10.0.10", 50000) == ("10.10.0.10", 50000)
    assert platform.route("pve.example.org", 22) == ("pve.example.org", 22)


def test_an_endpoints_own_ca_is_trusted_unless_trust_says_otherwise(document: dict[str, Any]) -> None:
    document["platform"]["proxmox"][0]["ca_file"] = "pve.pem"
    assert parse(document).platform.trusted_ca("192.168.1.100", 8006) == "pve.pem"
    document["platform"]["trust"] = {"192.168.1.100:8006": "other.pem"}
    assert parse(document).platform.trusted_ca("192.168.1.100", 8006) == "other.pem"
    assert parse(document).platform.trusted_ca("factory.talos.dev", 443) is None


def test_the_api_is_where_it_is_set_or_the_vip_or_the_first_control_plane(two_hosts: dict[str, Any]) -> None:
    cluster, network = two_hosts["platform"]["cluster"], two_hosts["platform"]["network"]
    cluster["api_address"] = "api.example.org"
    assert parse(two_hosts).platform.api_address == "api.example.org"
    cluster["api_address"] = None
    assert parse(two_hosts).platform.api_address == network["vip"]
    assert load("phase1").platform.api_address == "10.10.0.10"


def test_nodes_are_found_by_role_and_name(two_hosts: dict[str, Any]) -> None:
    platform = parse(two_hosts).platform
    assert [node.name for node in platform.control_planes] == ["cp-1", "cp-2", "cp-3"]
    assert [node.name for node in platform.workers] == ["worker-1", "worker-2"]
    assert platform.node("worker-2").host == "pve2"
    with pytest.raises(KeyError):
        platform.node("worker-3")


def test_failure_domains_are_the_hosts_of_workers_alone(two_hosts: dict[str, Any]) -> None:
    two_hosts["platform"]["nodes"][4]["host"] = "pve1"
    two_hosts["platform"]["storage"]["replicas"] = 1
    platform = parse(two_hosts).platform
    assert platform.failure_domains == ("pve1",)
    assert platform.hosts == ("pve1", "pve2")


def test_a_node_has_the_endpoint_of_its_host(two_hosts: dict[str, Any]) -> None:
    platform = parse(two_hosts).platform
    endpoint = platform.endpoint_of(platform.node("cp-3"))
    assert (endpoint.name, endpoint.host, endpoint.port) == ("host-2", "198.51.100.12", 8006)


@pytest.mark.parametrize(
    "change",
    [
        {"deadlines": {"install": 1}},
        {"endpoints": {"a:1": "b:2"}},
        {"trust": {"a:1": "ca.pem"}},
        {"secrets": {"age_key": {"env": "AGE_KEY"}, "bundle": "/elsewhere"}},
    ],
)
def test_a_digest_does_not_depend_on_how_things_are_reached(document: dict[str, Any], change: dict[str, Any]) -> None:
    before = parse(document).platform.digest_data()
    document["platform"] |= change
    document["platform"]["proxmox"][0] |= {"token_secret": {"file": "token"}, "ca_file": "ca.pem"}
    document["platform"]["gitops"]["mirrors"] = {"https://helm.cilium.io": "http://127.0.0.1:1/x"}
    assert parse(document).platform.digest_data() == before


def test_a_digest_depends_on_what_is_wanted(document: dict[str, Any]) -> None:
    before = parse(document).platform.digest_data()
    document["platform"]["nodes"][0]["cores"] = 4
    assert parse(document).platform.digest_data() != before


def test_a_digest_is_made_of_plain_json() -> None:
    data = load("phase3").platform.digest_data()
    assert json.loads(json.dumps(data)) == data
