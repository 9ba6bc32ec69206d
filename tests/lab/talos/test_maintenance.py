"""A node in maintenance mode: its answers, its refusals, and its identification."""

from __future__ import annotations

import json

import pytest
import yaml

from fluobook.clients.talos import Address, MachineIdentity, Mode, maintenance, probe
from fluobook.clients.talos.resources import EXTENSIONS, MACHINE_CONFIG, MACHINE_STATUS, PLATFORM, Kind
from fluobook.errors import AccessDenied, ForeignObject, NotFound, OutsideError, Rejected, Unreachable


@pytest.fixture
def node(lab):
    lab.power_on("cp-1")
    lab.wait_mode("maintenance")
    with maintenance(lab.address()) as node:
        yield node


def test_an_empty_port_is_unreachable(lab):
    assert lab.probe().mode is Mode.UNREACHABLE
    with pytest.raises(Unreachable) as caught:
        maintenance(lab.address()).identity()
    assert caught.value.code == "ECONNREFUSED"
    assert "10.10.0.10" in caught.value.message


def test_a_machine_without_an_image_stays_unreachable(lab):
    lab.power_on("cp-1", image="")
    lab.power_on("cp-2", "10.10.0.11")
    lab.wait_mode("maintenance", "10.10.0.11")
    assert lab.probe().mode is Mode.UNREACHABLE


def test_it_is_probed_without_a_client_certificate(lab, node):
    server = probe(lab.address())
    assert server.mode is Mode.MAINTENANCE
    node.identity()
    assert node.fingerprint == server.fingerprint


def test_it_reports_its_identity(node, lab):
    vm = lab.machines.node("cp-1").vm
    identity = node.identity()
    assert identity == MachineIdentity(vm.uuid, (vm.mac.lower(),), node.fingerprint)
    assert identity.differs_from(uuid=vm.uuid, mac=vm.mac) == ()


def test_another_machine_has_a_different_identity(node):
    differences = node.identity().differs_from(uuid="00000000-0000-5000-8000-000000000000", mac="BC:24:11:FF:FF:FF")
    assert [text.split(" is ")[0].split(" but ")[0] for text in differences] == [
        "its SMBIOS uuid",
        "it has no link bc:24:11:ff:ff:ff",
    ]


def test_the_uuid_is_recognised_in_the_other_byte_order(start_lab):
    lab = start_lab("talos.uuid-byte-order")
    vm = lab.power_on("cp-1")
    lab.wait_mode("maintenance")
    identity = maintenance(lab.address()).identity()
    assert identity.uuid != vm.uuid
    assert identity.differs_from(uuid=vm.uuid) == ()


def test_a_key_other_than_the_pinned_one_is_refused(lab, node):
    node.identity()
    pinned = maintenance(lab.address(), fingerprint="A" * 43 + "=")
    with pytest.raises(ForeignObject, match="another key"):
        pinned.apply_configuration(lab.controlplane())
    assert lab.machines.node("cp-1").in_maintenance


def test_a_node_that_booted_again_has_another_key(lab, node):
    node.identity()
    lab.do(lab.machines.power_on, lab.machines.node("cp-1").vm)
    lab.wait_mode("maintenance")
    with pytest.raises(ForeignObject):
        node.version()


def test_it_reports_version_platform_and_stage(node):
    version = node.version()
    assert (version.tag, version.platform, version.mode) == ("v1.13.9", "nocloud", "cloud")
    stage = node.machine_stage()
    assert (stage.stage, stage.ready, stage.unmet) == ("maintenance", True, ())
    assert node.get(PLATFORM).spec["platform"] == "nocloud"
    names = [extension.spec["metadata"]["name"] for extension in node.list(EXTENSIONS)]
    assert names == ["siderolabs/iscsi-tools", "schematic"]


def test_disks_are_listed(node):
    disks = node.list(Kind("Disks.block.talos.dev"))
    assert {disk.id for disk in disks} == {"sda", "sdb", "sr0"}
    units = {disk.spec["bus_path"].rpartition(":")[2]: disk.spec["size"] for disk in disks if disk.id != "sr0"}
    assert units == {"0": 20 * 2**30, "1": 80 * 2**30}
    assert not any("serial" in disk.spec for disk in disks)


@pytest.mark.parametrize(
    ("kind", "error", "text"),
    [
        (Kind("Secrets.example.org", id="x"), AccessDenied, 'resource type "Secrets.example.org" is not supported'),
        (Kind("Disks.block.talos.dev", "nowhere", "x"), AccessDenied, 'namespace "nowhere" is not supported'),
        (MACHINE_CONFIG, AccessDenied, "not authorized"),
        (Kind("SystemDisks.block.talos.dev", id="system-disk"), NotFound, "doesn't exist"),
    ],
)
def test_a_forbidden_read_is_refused(node, kind, error, text):
    with pytest.raises(error) as caught:
        node.get(kind)
    assert text in caught.value.detail


def test_a_dry_run_shows_the_whole_configuration_and_changes_nothing(node, lab):
    applied = node.apply_configuration(lab.controlplane(), dry_run=True)
    assert applied.details.startswith(
        "Dry run summary:\nApplied configuration without a reboot (skipped in dry-run).\nConfig diff:\n\n--- a\n+++ b\n"
    )
    assert not applied.unchanged
    assert "token" not in repr(applied)
    assert node.machine_stage().stage == "maintenance"


def changed(text, **sections):
    documents = list(yaml.safe_load_all(text))
    for name, values in sections.items():
        documents[0][name] = {**documents[0].get(name, {}), **values}
    return yaml.safe_dump_all(documents)


NOT_REGISTERED = "kind: NoSuchConfig\napiVersion: v1alpha1\n"


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("", "no configuration documents provided"),
        ("a: [", "decode error"),
        ("- 1", "expected a YAML document"),
        ("{}\n---\n{}\n", "duplicate document"),
        (NOT_REGISTERED, '"NoSuchConfig" "v1alpha1": not registered'),
        ("kind: LinkConfig\n", "missing apiVersion"),
    ],
)
def test_an_unreadable_configuration_is_refused(node, text, refusal):
    with pytest.raises(Rejected) as caught:
        node.apply_configuration(text)
    assert refusal in caught.value.detail


@pytest.mark.parametrize(
    ("sections", "refusal"),
    [
        ({"extra": {"a": 1}}, "unknown keys found during decoding"),
        ({"machine": {"type": "boss"}}, 'unknown machine type "boss"'),
        ({"machine": {"ca": None}}, "issuing CA is required (.machine.ca)"),
        ({"machine": {"type": "worker"}}, "is not allowed on non-controlplane nodes (.machine.ca)"),
        ({"cluster": {"controlPlane": {}}}, "cluster controlplane endpoint is required"),
        ({"cluster": {"controlPlane": {"endpoint": "10.10.0.10"}}}, "invalid controlplane endpoint"),
        ({"machine": {"network": {"hostname": "x"}}}, "hostname is already set in v1alpha1 config"),
    ],
)
def test_an_invalid_configuration_is_refused_in_talos_words(node, lab, sections, refusal):
    with pytest.raises(Rejected) as caught:
        node.apply_configuration(changed(lab.controlplane(), **sections))
    assert refusal in caught.value.detail
    assert caught.value.code == "INVALID_ARGUMENT"
    assert lab.machines.node("cp-1").in_maintenance


def test_an_error_names_the_real_address_of_a_mapped_endpoint(lab):
    elsewhere = Address("127.0.0.1", lab.sockets["10.10.0.11"].getsockname()[1], "10.10.0.11")
    with pytest.raises(Unreachable, match=r"10\.10\.0\.11"):
        maintenance(elsewhere).version()


def test_the_stage_can_be_watched_through_the_change(node, lab):
    stages = []
    for event in node.watch(MACHINE_STATUS, timeout=20):
        stages.append(event.resource.spec["stage"])
        if len(stages) == 1:
            node.apply_configuration(lab.controlplane())
        if event.type == "updated":
            break
    assert stages == ["maintenance", "installing"]


def test_a_list_can_be_watched(node):
    events = node.watch(Kind("Disks.block.talos.dev"), timeout=20)
    assert [next(events).type for _ in range(4)] == ["created", "created", "created", "bootstrapped"]
    events.close()


def test_a_node_asks_talos_own_code_of_its_version(node, lab, tmp_path):
    asked = tmp_path / "asked"
    referee = tmp_path / "talos-referee"
    referee.write_text(f"#!/bin/sh\ncat > {asked}\necho '[\"1 error occurred: by Talos\"]'\n")
    referee.chmod(0o700)
    lab.machines.referee = str(referee)
    with pytest.raises(Rejected, match="by Talos"):
        node.apply_configuration(lab.controlplane())
    assert json.loads(asked.read_text()) == [lab.controlplane()]


def test_a_second_configuration_is_refused_while_the_node_reboots(node, lab):
    lab.do(lambda: setattr(lab.machines.node("cp-1"), "rebooting", True))
    with pytest.raises(OutsideError) as caught:
        node.apply_configuration(lab.controlplane())
    assert caught.value.code == "FAILED_PRECONDITION"
    assert "cannot apply more configuration changes until next reboot" in caught.value.detail
