from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluobook.errors import ParamsError
from fluobook.params import parse
from fluobook.params.derive import mac_of, uuid_of, vmid_of

NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)


def test_derived_values_never_change_between_releases() -> None:
    assert vmid_of("fluodata", "talos-cp-1") == 131080
    assert mac_of("fluodata", "talos-cp-1") == "BC:24:11:FD:27:DD"
    assert uuid_of("fluodata", "talos-cp-1") == "1486e52a-c231-545e-984a-e25deea864bd"


@given(NAMES, NAMES)
def test_derived_values_are_what_proxmox_takes(cluster: str, node: str) -> None:
    assert 100_000 <= vmid_of(cluster, node) <= 999_999
    assert mac_of(cluster, node).startswith("BC:24:11:")
    assert len(mac_of(cluster, node)) == 17


@given(NAMES, NAMES)
def test_a_node_of_another_cluster_is_another_machine(cluster: str, node: str) -> None:
    assert uuid_of(cluster, node) != uuid_of(f"{cluster}-2", node)


def test_a_pin_is_kept(document: dict[str, Any]) -> None:
    document["platform"]["nodes"][0] |= {"vmid": 110, "mac": "bc:24:11:00:01:10"}
    node = parse(document).platform.nodes[0]
    assert (node.vmid, node.mac) == (110, "BC:24:11:00:01:10")


def test_null_is_as_good_as_leaving_out(document: dict[str, Any]) -> None:
    plain = parse(document).platform.nodes[0]
    document["platform"]["nodes"][0] |= {"vmid": None, "mac": None}
    document["platform"]["versions"] = None
    assert parse(document).platform.nodes[0] == plain


def test_a_pin_on_a_derived_value_names_both_owners(document: dict[str, Any]) -> None:
    document["platform"]["nodes"][0]["vmid"] = vmid_of("fluodata", "worker-1")
    with pytest.raises(ParamsError) as refused:
        parse(document)
    assert "platform.nodes.worker-1.vmid" in refused.value.problems[0]
    assert "platform.nodes.cp-1.vmid" in refused.value.problems[0]
