"""Specifications in protobuf: bytes that Talos' own client reads, as was tried by hand with 1.13.9; none missing."""

from __future__ import annotations

import pytest
from fluobook_lab.data import table
from fluobook_lab.talos.describe import describe
from fluobook_lab.talos.specs import encoded

from fluobook.clients.talos import maintenance

WITHOUT = {"MachineTypes.config.talos.dev"}
"""Types whose form in protobuf the lab does not have."""
MEMBER = {"nodeId": "a", "addresses": ["10.10.0.10"], "machineType": "controlplane", "controlPlane": {"port": 6443}}


@pytest.mark.parametrize(
    ("type_", "spec", "content"),
    [
        ("MachineStatuses.runtime.talos.dev", {"stage": "running", "status": {"ready": True}}, "0804 1202 0801"),
        ("Members.cluster.talos.dev", MEMBER, "0a0161 1206 0a040a0a000a 2002 3203 08ab32"),
        ("AddressStatuses.net.talos.dev", {"address": "10.0.0.1/24", "family": "inet4"}, "0a08 0a040a000001 1018 4002"),
        (
            "LinkStatuses.net.talos.dev",
            {"type": "ether", "hardwareAddr": "bc:24:11:00:00:0a"},
            "1001 2a06 bc241100000a",
        ),
        ("MachineConfigs.config.talos.dev", "a: 1\n", "0a05 613a20310a"),
        ("Manifests.kubernetes.talos.dev", [{"a": "b"}], "0a0c 0a0a 0a08 0a0161 1203 1a0162"),
        ("Services.v1alpha1.talos.dev", {"running": True, "healthy": False}, "0801 1000"),
        ("MachineTypes.config.talos.dev", "worker", ""),
    ],
)
def test_a_specification_in_protobuf(type_, spec, content):
    assert encoded(type_, spec).hex() == content.replace(" ", "")


def test_every_field_that_a_node_has_is_in_it(lab):
    lab.power_on("cp-1")
    lab.wait_mode("maintenance")
    with maintenance(lab.address()) as node:
        node.apply_configuration(lab.controlplane())
    lab.wait(lambda: lab.do(lambda: "cri" in lab.machines.node("cp-1").services))
    with lab.connect() as node:
        node.bootstrap()
    lab.wait_stage("cp-1", "running")
    types = table("talos/specs.yaml")["types"]
    for key, spec in lab.do(lambda: list(describe(lab.machines.node("cp-1")))):
        if key.type not in WITHOUT:
            fields = types[key.type]
            assert not set({"": spec} if "" in fields else spec) - set(fields), key
